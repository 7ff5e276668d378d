//! The state of a legacy `tail` role: `line.rec` holds `FILE LINES`, the file it read last and how many of its lines were
//! shipped. Read once, so that a host can move over without loss or repetition.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest `line.rec` that is read, in bytes.
const RECORD_BYTES_MAX: u64 = 16 << 10;
/// Bytes read at a time while lines are counted.
const CHUNK_BYTES: usize = 256 << 10;

/// What `line.rec` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineRecord {
    /// File that was read last.
    pub file: PathBuf,
    /// Number of its lines that were shipped.
    pub lines: u64,
}

/// Reads a record.
///
/// # Errors
/// It cannot be read, or is no record: [`io::ErrorKind::InvalidData`].
pub fn read(path: &Path) -> io::Result<LineRecord> {
    let mut text = String::new();
    File::open(path)?.take(RECORD_BYTES_MAX).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected \"FILE LINES\""))
}

fn parse(text: &str) -> Option<LineRecord> {
    let (file, lines) = text.trim().rsplit_once([' ', '\t'])?;
    let file = PathBuf::from(file.trim());
    (!file.as_os_str().is_empty()).then_some(())?;
    Some(LineRecord { file, lines: lines.parse().ok()? })
}

impl LineRecord {
    /// Whether it speaks of this file. The legacy system may have been told another way to it.
    pub fn is_of(&self, path: &Path) -> bool {
        let same_file = || Some(self.file.canonicalize().ok()? == path.canonicalize().ok()?);
        self.file == path || same_file().unwrap_or(false)
    }
}

/// Offset after so many lines; `None` when the file has fewer.
pub fn offset_after_lines(file: &File, lines: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut offset, mut left) = (0, lines);
    while left > 0 {
        let filled = crate::files::read_at(file, offset, &mut buffer)?;
        let chunk = &buffer[..filled];
        if chunk.is_empty() {
            return Ok(None);
        }
        let newlines = bytecount::count(chunk, b'\n') as u64;
        if newlines < left {
            left -= newlines;
            offset += filled as u64;
            continue;
        }
        let last = memchr::memchr_iter(b'\n', chunk).nth(left as usize - 1);
        return Ok(last.map(|last| offset + last as u64 + 1));
    }
    Ok(Some(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_file_and_a_number() {
        let record = parse("/log/with space/access.log.2016121916 1200\n").expect("a record");
        assert_eq!(
            (record.file.to_str(), record.lines),
            (Some("/log/with space/access.log.2016121916"), 1200)
        );
        for wrong in ["", "12", " 12", "/log/a", "/log/a -1", "/log/a many"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lines_are_counted_over_chunks_and_a_file_with_fewer_is_told() {
        let mut file = tempfile::tempfile().expect("a file");
        let line = [&[b'x'; 999][..], b"\n"].concat();
        io::Write::write_all(&mut file, &[&line.repeat(600)[..], b"no end"].concat()).expect("written");
        let after = |lines| offset_after_lines(&file, lines).expect("read");
        assert_eq!([after(0), after(1), after(600), after(601)], [Some(0), Some(1_000), Some(600_000), None]);
    }
}
