//! The lines of a file: plain, gzip or zstd (one or more members), known by the first bytes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest line, in bytes. What is longer is cut there, and rejected.
pub const LINE_BYTES_MAX: usize = 16 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER_BYTES: usize = 256 << 10;

/// Whether it is the file that is wrong, and not the disk, which may come back: errors of the system have its number, those of a decoder have none.
pub fn is_damage(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

/// Lines of a file, up to the length that it had when it was opened, or less.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    taken: Arc<AtomicU64>,
    /// Bytes of the file as it lies there, perhaps compressed.
    pub file_bytes: u64,
}

/// A line of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct InputLine<'a> {
    /// Without newline and carriage return; bytes that are no UTF-8 are replaced.
    pub text: Cow<'a, str>,
    /// With its newline.
    pub bytes: u64,
    /// It was longer than [`LINE_BYTES_MAX`].
    pub is_cut: bool,
}

/// Counts what is read of the file itself.
struct Counted {
    inner: io::Take<File>,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the disk, with the path.
    pub fn open(path: &Path) -> io::Result<Lines> {
        Lines::open_to(path, u64::MAX)
    }

    /// The same, and no more than `bytes_max` bytes are read: behind them somebody may be writing.
    ///
    /// # Errors
    /// As [`Lines::open`].
    pub fn open_to(path: &Path, bytes_max: u64) -> io::Result<Lines> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(named)?;
        let meta = file.metadata().map_err(named)?;
        if meta.is_dir() {
            return Err(named(io::ErrorKind::IsADirectory.into()));
        }
        // Something that is no file, such as a pipe, has no length of its own.
        let length = if meta.is_file() { meta.len().min(bytes_max) } else { u64::MAX };
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: file.take(length), taken: taken.clone() };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, counted);
        let head = reader.fill_buf().map_err(named)?;
        let reader: Box<dyn BufRead + Send> = if head.starts_with(&GZIP) {
            let inflated = flate2::bufread::MultiGzDecoder::new(reader);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inflated))
        } else if head.starts_with(&ZSTD) {
            let inflated = zstd::Decoder::with_buffer(reader)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, inflated))
        } else {
            Box::new(reader)
        };
        Ok(Lines { reader, line: Vec::new(), taken, file_bytes: meta.len().min(bytes_max) })
    }

    /// Bytes of the file read so far, perhaps compressed.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The next line; the last one may lack its newline.
    ///
    /// # Errors
    /// Those of the disk, and damage of a compressed file.
    pub fn next_line(&mut self) -> io::Result<Option<InputLine<'_>>> {
        self.line.clear();
        let mut bytes = 0u64;
        loop {
            let found = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                found => found?,
            };
            if found.is_empty() {
                break;
            }
            let newline = memchr::memchr(b'\n', found);
            let length = newline.map_or(found.len(), |at| at + 1);
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&found[..length.min(room)]);
            self.reader.consume(length);
            bytes += length as u64;
            if newline.is_some() {
                break;
            }
        }
        if bytes == 0 {
            return Ok(None);
        }
        let mut line = self.line.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_cut = line.len() > LINE_BYTES_MAX;
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        Ok(Some(InputLine { text: String::from_utf8_lossy(line), bytes, is_cut }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(bytes: &[u8]) -> (Vec<String>, u64) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        let (mut found, mut sum) = (Vec::new(), 0);
        while let Some(line) = lines.next_line().unwrap() {
            assert!(!line.is_cut);
            found.push(line.text.into_owned());
            sum += line.bytes;
        }
        assert_eq!(lines.taken(), bytes.len() as u64);
        (found, sum)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_files_of_several_members_give_the_same_lines() {
        let (one, two) = (b"one\r\n\ntw".as_slice(), b"o\nlast".as_slice());
        let want = (["one", "", "two", "last"].map(String::from).to_vec(), 14);
        assert_eq!(lines_of(&[one, two].concat()), want);
        assert_eq!(lines_of(&[gzip(one), gzip(two)].concat()), want);
        let zstd = |bytes| zstd::encode_all(bytes, 1).unwrap();
        assert_eq!(lines_of(&[zstd(one), zstd(two)].concat()), want);
        assert_eq!(lines_of(b""), (Vec::new(), 0));
    }

    #[test]
    fn what_is_behind_the_committed_bytes_is_not_read_in_any_form() {
        for (whole, half) in
            [(b"one\ntwo\n".to_vec(), b"thr".to_vec()), (gzip(b"one\ntwo\n"), gzip(b"three\n")[..9].to_vec())]
        {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&[&whole[..], &half].concat()).unwrap();
            let mut lines = Lines::open_to(file.path(), whole.len() as u64).unwrap();
            assert_eq!(lines.file_bytes, whole.len() as u64);
            let mut found = Vec::new();
            while let Some(line) = lines.next_line().unwrap() {
                found.push(line.text.into_owned());
            }
            assert_eq!(found, ["one", "two"]);
        }
    }

    #[test]
    fn a_damaged_compressed_file_is_an_error_and_never_a_short_file() {
        let mut bytes = gzip(&b"line\n".repeat(1000));
        bytes.truncate(bytes.len() - 4);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        assert!(is_damage(&error_of(&mut lines)));
    }

    fn error_of(lines: &mut Lines) -> io::Error {
        loop {
            match lines.next_line() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the file is no shorter than it is"),
                Err(error) => return error,
            }
        }
    }

    /// A file with a bad sector behind these bytes.
    struct BadSector(io::Cursor<Vec<u8>>);

    impl Read for BadSector {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::from_raw_os_error(5)),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn a_disk_that_fails_in_the_middle_of_a_file_is_no_damage_of_it_whatever_the_form() {
        let text = (0..100_000).map(|number| format!("line {number}\n")).collect::<String>();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        for (bytes, form) in [(text.clone().into_bytes(), 0), (gzip(text.as_bytes()), 1), (zstd, 2)] {
            let half = bytes[..bytes.len() / 2].to_vec();
            let raw = BufReader::new(BadSector(io::Cursor::new(half)));
            let reader: Box<dyn BufRead + Send> = match form {
                0 => Box::new(raw),
                1 => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw))),
                _ => Box::new(BufReader::new(zstd::Decoder::with_buffer(raw).unwrap())),
            };
            let mut lines = Lines { reader, line: Vec::new(), taken: Arc::default(), file_bytes: 0 };
            assert!(!is_damage(&error_of(&mut lines)), "form {form}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'x'; LINE_BYTES_MAX + 5]).unwrap();
        file.write_all(b"\nnext\n").unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        let cut = lines.next_line().unwrap().unwrap();
        assert!(cut.is_cut && cut.text.len() == LINE_BYTES_MAX && cut.bytes == LINE_BYTES_MAX as u64 + 6);
        assert_eq!(lines.next_line().unwrap().unwrap().text, "next");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (lines, _) = lines_of(b"caf\xe9 \xff\n");
        assert_eq!(lines, ["caf\u{fffd} \u{fffd}"]);
    }
}
