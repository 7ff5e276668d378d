//! The store's side of an audit: the log file of an hour, and the files that it was finished into.

use super::host::Told;
use anyhow::Context;
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::headers::{self, Line as HeaderLine, Place};
use logferry_tailer::audit::{Line, Lines, Totals};
use logferry_tailer::unpack;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// First bytes of a file that tell whether it is compressed.
const MAGIC_BYTES: u64 = 4;

/// What a store has of an hour.
pub(crate) struct StoredHour {
    /// The log file, whether it is there or not.
    pub(crate) log_file: PathBuf,
    /// Files with its lines, in their order.
    files: Vec<PathBuf>,
}

impl StoredHour {
    /// The hour whose log file is at `path` below `log_data` in `store`.
    ///
    /// # Errors
    /// A file cannot be read, or lines of the hour were removed.
    pub(crate) fn find(store: &Path, path: &str) -> anyhow::Result<StoredHour> {
        let form = form(store)?;
        let log_file = store.join("log_data").join(format!("{path}{}", form.suffix()));
        let plain = store.join("log_data").join(path);
        let mut files = Vec::new();
        for finished in finished(&store.join("headers").join(path))? {
            files.push(if finished.exists() { finished } else { beside(&plain, &finished)? });
        }
        if log_file.exists() && !files.contains(&log_file) {
            files.push(log_file.clone());
        }
        Ok(StoredHour { log_file, files })
    }

    /// What its lines are in sum; `None` when it has no file.
    pub(crate) fn totals(&self) -> anyhow::Result<Option<Totals>> {
        let mut totals = Totals::default();
        self.read(|_, line| totals.add(&line))?;
        Ok((!self.files.is_empty()).then_some(totals))
    }

    /// Its lines by file. Offsets of compressed files are those of what they hold.
    pub(crate) fn lines(&self) -> anyhow::Result<Vec<(PathBuf, Vec<Told>)>> {
        let mut files: Vec<_> = self.files.iter().map(|file| (file.clone(), Vec::new())).collect();
        self.read(|index, line| {
            let Line { offset: from, end: to, length, .. } = line;
            files[index].1.push(Told { from, to, length, hash: line.short_hash() });
        })?;
        Ok(files)
    }

    fn read(&self, mut line: impl FnMut(usize, Line)) -> anyhow::Result<()> {
        for (index, path) in self.files.iter().enumerate() {
            open(path)
                .and_then(|reader| cut(reader, |cut| line(index, cut)))
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Whether an error of reading means that bytes of a compressed file are not what was written.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    // zstd has `Other` for all that is wrong with its frames.
    let kinds = [ErrorKind::InvalidData, ErrorKind::InvalidInput, ErrorKind::UnexpectedEof, ErrorKind::Other];
    let error = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    error.is_some_and(|error| kinds.contains(&error.kind()) && error.raw_os_error().is_none())
}

/// The form of a store's log files.
pub(super) fn form(store: &Path) -> anyhow::Result<Form> {
    Ok(match std::fs::read_to_string(store.join("log_data.form")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Form::Lines,
        text => Form::of(text.context("log_data.form")?.trim()),
    })
}

/// Files into which a log file was finished, as its header file says, oldest lines first.
fn finished(headers: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let file = match File::open(headers) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.with_context(|| headers.display().to_string())?,
    };
    let (mut files, mut is_removed) = (Vec::new(), false);
    for line in BufReader::new(file).split(b'\n') {
        match headers::parse_line(&line.with_context(|| headers.display().to_string())?) {
            Some(HeaderLine::Finished(finished)) => match finished.place {
                Place::File(file) if !files.contains(&PathBuf::from(&file)) => files.push(file.into()),
                Place::File(_) | Place::LogFile => {}
                Place::Removed => is_removed = true,
            },
            Some(HeaderLine::Replaced(_)) => (files, is_removed) = (Vec::new(), false),
            _ => {}
        }
    }
    anyhow::ensure!(!is_removed, "the store removed the hour, because it was old ([retention])");
    Ok(files)
}

/// A finished file in a store that is seen under another path than its outputter's.
fn beside(plain: &Path, finished: &Path) -> anyhow::Result<PathBuf> {
    let ending = finished.extension().map(|ending| format!(".{}", ending.display())).unwrap_or_default();
    let mut name = plain.as_os_str().to_owned();
    name.push(ending);
    let file = PathBuf::from(name);
    anyhow::ensure!(
        file.exists(),
        "the hour was finished into {}, which is not there: run the audit where it is",
        finished.display()
    );
    Ok(file)
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
    file.rewind()?;
    match unpack::packing(path, &magic) {
        Some(packing) => unpack::reader(packing, BufReader::with_capacity(CHUNK_BYTES, file)),
        None => Ok(Box::new(file)),
    }
}

fn cut(mut reader: Box<dyn Read>, mut line: impl FnMut(Line)) -> std::io::Result<()> {
    let mut lines = Lines::new(0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.feed(&buffer[..count], &mut line),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    lines.end(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(lines: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(lines.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn store(headers: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["headers/access", "log_data/access"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let headers = headers.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("headers/access/h"), headers).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn lines_of(dir: &tempfile::TempDir) -> anyhow::Result<Vec<(String, usize)>> {
        let found = StoredHour::find(dir.path(), "access/h")?.lines()?;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(found.iter().map(|(path, lines)| (name(path), lines.len())).collect())
    }

    fn finished_into(place: &str) -> String {
        format!("\n{{\"Finished\":{{\"Place\":{place},\"Data\":4,\"Bytes\":9}}}}\n")
    }

    #[test]
    fn lines_of_finished_files_come_before_those_of_the_log_file() {
        let headers = finished_into("{\"File\":\"DIR/log_data/access/h.gz\"}").repeat(2);
        let two = [gzip("a\nb\n"), gzip("c\n")].concat();
        let dir = store(&headers, &[("log_data/access/h.gz", &two), ("log_data/access/h", b"late\n")]);
        assert_eq!(lines_of(&dir).unwrap(), [("h.gz".to_owned(), 3), ("h".to_owned(), 1)]);
        let totals = StoredHour::find(dir.path(), "access/h").unwrap().totals().unwrap().unwrap();
        assert_eq!((totals.lines, totals.bytes), (4, 11));
    }

    #[test]
    fn an_archive_is_read_as_what_it_holds() {
        let two = [zstd::encode_all(&b"a\nb\n"[..], 1).unwrap(), zstd::encode_all(&b"c\n"[..], 1).unwrap()];
        let dir = store("", &[("log_data.form", b"zstd\n"), ("log_data/access/h.zst", &two.concat())]);
        assert_eq!(lines_of(&dir).unwrap(), [("h.zst".to_owned(), 3)]);
    }

    #[test]
    fn a_finished_file_of_a_store_that_was_moved_is_found_beside_the_log_file_and_a_missing_one_is_named() {
        let headers = finished_into("{\"File\":\"/data/elsewhere/h.gz\"}");
        let dir = store(&headers, &[("log_data/access/h.gz", &gzip("a\n"))]);
        assert_eq!(lines_of(&dir).unwrap(), [("h.gz".to_owned(), 1)]);
        let error = lines_of(&store(&headers, &[])).unwrap_err().to_string();
        assert!(error.contains("/data/elsewhere/h.gz"), "{error}");
    }

    #[test]
    fn what_was_removed_is_not_compared_and_what_was_replaced_is_read_anew() {
        let removed = finished_into("\"Removed\"");
        let error = lines_of(&store(&removed, &[("log_data/access/h", b"late\n")])).unwrap_err();
        assert!(error.to_string().contains("[retention]"), "{error}");
        let replaced = format!("{removed}{{\"Replaced\":\"{}\"}}\n", "0".repeat(32));
        let dir = store(&replaced, &[("log_data/access/h", b"new\n")]);
        assert_eq!(lines_of(&dir).unwrap(), [("h".to_owned(), 1)]);
        assert!(StoredHour::find(dir.path(), "access/other").unwrap().totals().unwrap().is_none());
    }

    #[test]
    fn a_finished_file_that_breaks_off_is_damaged_and_named() {
        let whole = gzip("a\nb\n");
        let headers = finished_into("{\"File\":\"DIR/log_data/access/h.gz\"}");
        let dir = store(&headers, &[("log_data/access/h.gz", &whole[..whole.len() - 6])]);
        let error = StoredHour::find(dir.path(), "access/h").unwrap().totals().unwrap_err();
        assert!(format!("{error:#}").contains("h.gz") && is_damage(&error), "{error:#}");
    }
}
