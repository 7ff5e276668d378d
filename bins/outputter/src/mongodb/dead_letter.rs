//! The dead-letter file: documents that the server never takes and lines that make no document, with the reason.
//!
//! One JSON object a line: `time reason database collection host source hour stream offset line` (`line` as text, and `line_hex`
//! besides if it is no UTF-8). A file is begun anew at each start, above a size and after a failure, so a torn line is always the last of
//! its file. With more in the folder than the limit nothing is written, until somebody removes files. A pack that is stored again after a crash may be here twice; `stream` and `offset` tell.

use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the folder in `var_dir`.
pub const FOLDER: &str = "dead_letter";
/// A file with more than this is followed by another.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Names tried in one second.
const NAME_TRIES_MAX: u32 = 1_000;

/// What is said of a document or line.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Letter {
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub reason: String,
    /// Database that it was for.
    pub database: String,
    /// Collection that it was for.
    pub collection: String,
    /// Host of the line.
    pub host: String,
    /// Source of the line.
    pub source: String,
    /// Hour of the pack.
    pub hour: String,
    /// Stream, 32 hex digits.
    pub stream: String,
    /// Offset of the line in the stream.
    pub offset: u64,
    /// The line.
    pub line: String,
    /// The line's bytes, if they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_hex: Option<String>,
}

impl Letter {
    /// Fills in the line.
    pub fn set_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.line = String::from_utf8_lossy(line).into_owned();
        let is_text = std::str::from_utf8(line).is_ok();
        self.line_hex = (!is_text).then(|| line.iter().map(|byte| format!("{byte:02x}")).collect());
    }
}

/// The files.
pub struct DeadLetters {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Bytes of all files, as far as known.
    bytes: Option<u64>,
}

struct Open {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl DeadLetters {
    /// In this folder, which is made when the first letter comes.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, bytes_max: u64) -> DeadLetters {
        DeadLetters { disk, dir, bytes_max, state: Mutex::default() }
    }

    /// Writes letters, durably. Blocks.
    ///
    /// # Errors
    /// They are not safe: to be tried again, which goes to another file. `StorageFull`: the limit is reached.
    pub fn put(&self, letters: &[Letter]) -> io::Result<()> {
        let mut text = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut text, letter)?;
            text.push(b'\n');
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.bytes_below_max(&mut state)?;
        let mut current =
            match state.open.take().filter(|open| open.bytes < FILE_BYTES_MAX && self.is_there(&open.path)) {
                Some(current) => current,
                None => self.begin()?,
            };
        // After a failure the file is left: what its descriptor says from then on means nothing.
        state.bytes = None;
        current.file.append(&[&text])?;
        current.file.sync()?;
        current.bytes += text.len() as u64;
        *state = State { open: Some(current), bytes: Some(bytes + text.len() as u64) };
        Ok(())
    }

    /// What the files have, counted anew when it seems too much.
    fn bytes_below_max(&self, state: &mut State) -> io::Result<u64> {
        let bytes = match state.bytes.filter(|bytes| *bytes < self.bytes_max) {
            Some(bytes) => bytes,
            None => self.count()?,
        };
        state.bytes = Some(bytes);
        if bytes < self.bytes_max {
            return Ok(bytes);
        }
        let text = format!(
            "the files in {} have {bytes} bytes, mongodb.dead_letter_max is {}: see what is wrong with these lines, then move the files away",
            self.dir.display(),
            self.bytes_max
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    fn count(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for name in self.disk.list(&self.dir)? {
            match self.disk.open(&self.dir.join(name)).and_then(|file| file.len()) {
                Ok(len) => bytes += len,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Whether nobody has moved it away: what is written to it from then on would be overlooked.
    fn is_there(&self, path: &Path) -> bool {
        self.disk.open(path).is_ok()
    }

    fn begin(&self) -> io::Result<Open> {
        self.disk.create_dir_all(&self.dir)?;
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        for number in 0..NAME_TRIES_MAX {
            let path = self.dir.join(format!("mongodb-{time}-{number:03}.ndjson"));
            match self.disk.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    let file = created?;
                    self.disk.sync_dir(&self.dir)?;
                    return Ok(Open { file, path, bytes: 0 });
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a dead-letter file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(line: &str) -> Letter {
        let text = String::new;
        Letter {
            time: text(),
            reason: text(),
            database: text(),
            collection: text(),
            host: text(),
            source: text(),
            hour: text(),
            stream: text(),
            offset: 0,
            line: line.to_owned(),
            line_hex: None,
        }
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn above_the_limit_nothing_is_written_until_files_are_gone_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let new = || DeadLetters::new(Arc::new(logferry_durable::RealDisk), dir.path().to_owned(), 1_000);
        let letters = new();
        letters.put(&[letter(&"x".repeat(1_500))]).unwrap();
        for letters in [letters, new()] {
            let error = letters.put(&[letter("y")]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert!(error.to_string().contains("mongodb.dead_letter_max"), "{error}");
            files(dir.path()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
            letters.put(&[letter("y")]).unwrap();
            let files = files(dir.path());
            assert_eq!(files.len(), 1);
            assert!(std::fs::read_to_string(&files[0]).unwrap().contains("\"line\":\"y\""));
            letters.put(&[letter(&"x".repeat(1_500))]).unwrap();
        }
    }
}
