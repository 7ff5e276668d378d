//! The dead-letter file: documents that the server never takes and lines that make no document, with the reason.
//!
//! One JSON object a line: `time reason database collection host source hour stream offset line` (`line` as text, and `line_hex`
//! besides if it is no UTF-8). A file is begun anew at each start, above a size and after a failure, so a torn line is always the last of
//! its file. A pack that is stored again after a crash may be here twice; `stream` and `offset` tell.

use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::PathBuf;
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
    open: Mutex<Option<Open>>,
}

struct Open {
    file: Box<dyn DiskFile>,
    bytes: u64,
}

impl DeadLetters {
    /// In this folder, which is made when the first letter comes.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> DeadLetters {
        DeadLetters { disk, dir, open: Mutex::default() }
    }

    /// Writes letters, durably. Blocks.
    ///
    /// # Errors
    /// They are not safe: to be tried again, which goes to another file.
    pub fn put(&self, letters: &[Letter]) -> io::Result<()> {
        let mut text = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut text, letter)?;
            text.push(b'\n');
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = match open.take().filter(|open| open.bytes < FILE_BYTES_MAX) {
            Some(current) => current,
            None => self.begin()?,
        };
        // After a failure the file is left: what its descriptor says from then on means nothing.
        current.file.append(&[&text])?;
        current.file.sync()?;
        current.bytes += text.len() as u64;
        *open = Some(current);
        Ok(())
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
                    return Ok(Open { file, bytes: 0 });
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a dead-letter file"))
    }
}
