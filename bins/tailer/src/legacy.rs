//! The state of a legacy `tail` role: `line.rec` holds `FILE LINES`, the file it read last and how many of its lines were
//! shipped. Read once, so that a host can move over without loss or repetition.

use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::unpack::{is_packed_name, plain_path};
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
    /// When the record was written, in nanoseconds since 1970.
    pub written_ns: i64,
}

/// Reads a record.
///
/// # Errors
/// It cannot be read, or is no record: [`io::ErrorKind::InvalidData`].
pub fn read(path: &Path) -> io::Result<LineRecord> {
    let mut text = String::new();
    let file = files::open_regular(path)?;
    let written_ns = files::facts_of(&file)?.changed_ns;
    file.take(RECORD_BYTES_MAX).read_to_string(&mut text)?;
    let record = parse(&text).map(|record| LineRecord { written_ns, ..record });
    record.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected \"FILE LINES\""))
}

fn parse(text: &str) -> Option<LineRecord> {
    let (file, lines) = text.trim().rsplit_once([' ', '\t'])?;
    let file = PathBuf::from(file.trim());
    (!file.as_os_str().is_empty()).then_some(())?;
    Some(LineRecord { file, lines: lines.parse().ok()?, written_ns: 0 })
}

impl LineRecord {
    /// Whether it speaks of this file. The legacy system may have been told another way to it.
    pub fn is_of(&self, path: &Path) -> bool {
        let same_file = || Some(self.file.canonicalize().ok()? == path.canonicalize().ok()?);
        self.file == path || same_file().unwrap_or(false)
    }

    /// Why nobody can tell whether it speaks of a file that is there: permissions.
    pub fn why_unreadable(&self) -> Option<io::Error> {
        let folder = std::fs::read_dir(files::folder_of(&self.file)).err();
        let hidden = folder.or_else(|| files::open_regular(&self.file).err())?;
        (hidden.kind() == io::ErrorKind::PermissionDenied).then_some(hidden)
    }

    /// The file that has the recorded lines now. `is_rotated` tells what the recorded path may have been renamed, copied or compressed to;
    /// nothing if the name tells a time, and stays.
    pub fn find(&self, is_rotated: impl Fn(&Path) -> bool) -> Option<(PathBuf, FileKey)> {
        let entries = std::fs::read_dir(files::folder_of(&self.file)).ok()?;
        let is_own = |path: &Path| {
            let plain = plain_path(path);
            path == self.file || plain == self.file || is_rotated(&plain)
        };
        let paths = entries.flatten().map(|entry| files::folder_of(&self.file).join(entry.file_name()));
        let found = paths.filter(|path| is_own(path));
        let found: Vec<Trace> = found.filter_map(|path| Trace::of(path, self)).collect();
        let live = found.iter().find(|trace| trace.path == self.file);
        let was_there = found.iter().filter(|trace| !trace.came_later && !trace.is_packed);
        let youngest =
            was_there.max_by_key(|trace| (trace.key.born_ns, trace.path == self.file, trace.changed_ns));
        let later = || found.iter().filter(|trace| trace.came_later && trace.path != self.file);
        let has_lines = |trace: &&Trace| trace.is_packed || trace.has_lines(self.lines);
        // What came later under other names beside a file that was there is a copy: the file itself was cut.
        let was_cut = live.is_some_and(|live| !live.came_later) && later().next().is_some();
        let copies = later().filter(|trace| was_cut || trace.is_packed);
        let copy = copies.min_by_key(|trace| trace.changed_ns).filter(has_lines);
        // The recorded file is the one that was written to then, and so after the record.
        let is_it = |trace: &&Trace| !was_cut && (trace.changed_ns > self.written_ns || copy.is_none());
        let itself = youngest.filter(is_it).filter(has_lines);
        // Copied from elsewhere it is younger than the record.
        let alone = || live.filter(|_| found.len() == 1).filter(has_lines);
        let compressed =
            || found.iter().find(|trace| trace.is_packed && plain_path(&trace.path) == self.file);
        let found = itself.or(copy).or_else(alone).or_else(|| compressed().filter(|_| live.is_none()))?;
        Some((found.path.clone(), found.key))
    }

    /// Whether the record was written after a file was made; or, if it is compressed, after its last change, which compressing leaves as it was.
    pub fn is_after(&self, path: &Path, facts: &Facts) -> bool {
        let born = Some(facts.key.born_ns).filter(|born| *born != 0 && !is_packed_name(path));
        born.unwrap_or(facts.changed_ns) <= self.written_ns
    }
}

/// What may have become of a recorded file.
struct Trace {
    path: PathBuf,
    key: FileKey,
    changed_ns: i64,
    is_packed: bool,
    /// It was not there, or written to, when the record was written.
    came_later: bool,
}

impl Trace {
    fn of(path: PathBuf, record: &LineRecord) -> Option<Trace> {
        let facts = files::facts_at(&path).ok().filter(|facts| facts.is_file)?;
        let came_later = !record.is_after(&path, &facts);
        let Facts { key, changed_ns, .. } = facts;
        Some(Trace { is_packed: is_packed_name(&path), path, key, changed_ns, came_later })
    }

    fn has_lines(&self, lines: u64) -> bool {
        let offset = files::open_regular(&self.path).and_then(|file| offset_after_lines(&file, lines));
        matches!(offset, Ok(Some(_)))
    }
}

/// Offset after so many lines; `None` when the file has fewer.
pub fn offset_after_lines(file: &File, lines: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut offset, mut left) = (0, lines);
    while left > 0 {
        let filled = files::read_at(file, offset, &mut buffer)?;
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
