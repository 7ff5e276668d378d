//! Files as the tailer reads them: identity and length by statx, bytes by pread, paths by glob.

use crate::encoding::Newline;
use crate::identity::{END_MARK_BYTES_MAX, EndMark, FileKey, HEAD_BYTES_MAX};
use crate::ledger::looks::FileLook;
use crate::ledger::record::Tail;
use metrics::counter;
use rustix::fs::{AtFlags, CWD, OFlags, Statx, StatxFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes read at a time where whole packs are not needed.
const CHUNK_BYTES: usize = 64 << 10;

/// What statx says of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Identity.
    pub key: FileKey,
    /// Length in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u32,
    /// Time of the last change, in nanoseconds since 1970.
    pub changed_ns: i64,
    /// Time at which the system noted a change of content, names or rights (ctime), in nanoseconds since 1970.
    pub touched_ns: i64,
    /// A regular file.
    pub is_file: bool,
}

impl Facts {
    /// By what it is told that its content is the same.
    pub fn look(&self) -> FileLook {
        FileLook { size: self.size, changed_ns: self.changed_ns }
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Facts of an open file.
pub fn facts_of(file: &File) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, WANTED)?))
}

/// Facts of what a path leads to, through symbolic links.
pub fn facts_at(path: &Path) -> io::Result<Facts> {
    Ok(facts(&rustix::fs::statx(CWD, path, AtFlags::empty(), WANTED)?))
}

fn facts(statx: &Statx) -> Facts {
    let nanoseconds =
        |seconds: i64, rest: u32| seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(rest));
    let has_birth = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born_ns = if has_birth { nanoseconds(statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec) } else { 0 };
    let device = (u64::from(statx.stx_dev_major) << 32) | u64::from(statx.stx_dev_minor);
    Facts {
        key: FileKey { device, inode: statx.stx_ino, born_ns },
        size: statx.stx_size,
        links: statx.stx_nlink,
        changed_ns: nanoseconds(statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
        touched_ns: nanoseconds(statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
        is_file: u32::from(statx.stx_mode) & 0o170_000 == 0o100_000,
    }
}

/// A file lies below none of the folders that it must lie below.
#[derive(Debug)]
struct Outside(PathBuf);

impl std::fmt::Display for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it leads to {}, which is below none of the source's roots", self.0.display())
    }
}

impl std::error::Error for Outside {}

/// Whether [`open_below`] refused a file for the place where it lies.
pub fn is_outside(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Outside>())
}

/// Whether an error says that nothing has a path. Any other says nothing of the file: it may be read later.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens a regular file for reading. What is none is refused and left alone: who opens a pipe waits for its writer, or takes what is meant
/// for another reader.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let checked = |facts: Facts| match facts.is_file {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    checked(facts_at(path)?)?;
    // Something else may have come there since: then nobody waits, and the descriptor tells.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    checked(facts_of(&file)?)?;
    Ok(file)
}

/// Opens a regular file that lies below one of these folders, whatever symbolic links lead to it; with no folders, anywhere.
///
/// # Errors
/// It cannot be opened, is no regular file, lies elsewhere, or the system cannot tell (no `/proc`).
pub fn open_below(path: &Path, roots: &[String]) -> io::Result<File> {
    let file = open_regular(path)?;
    if roots.is_empty() {
        return Ok(file);
    }
    // Asked of what was opened: a link may be swapped at any moment.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let is_below = |root: &String| std::fs::canonicalize(root).is_ok_and(|root| real.starts_with(root));
    if roots.iter().any(is_below) {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, Outside(real)))
}

/// Fills `buffer` from `offset` on, as far as the file has bytes; how many.
pub fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    counter!("logferry_tailer_read_bytes_total").increment(filled as u64);
    Ok(filled)
}

/// The first bytes of a file, as many as may count for its head.
pub fn read_head(file: &File, buffer: &mut [u8; HEAD_BYTES_MAX]) -> io::Result<usize> {
    read_at(file, 0, buffer)
}

/// Whether a file still has the bytes of `mark`.
pub fn has_mark(file: &File, mark: &EndMark) -> io::Result<bool> {
    let mut buffer = [0; END_MARK_BYTES_MAX];
    let buffer = &mut buffer[..mark.length.min(END_MARK_BYTES_MAX)];
    let filled = read_at(file, mark.offset, buffer)?;
    Ok(mark.agrees(&buffer[..filled]))
}

/// The last of `span` bytes from `offset` on, to know them by; of fewer when the file ends before.
pub fn end_mark(file: &File, offset: u64, span: u64) -> io::Result<EndMark> {
    let mut buffer = [0; END_MARK_BYTES_MAX];
    let length = span.min(END_MARK_BYTES_MAX as u64);
    let filled = read_at(file, offset + span - length, &mut buffer[..length as usize])?;
    Ok(EndMark::of(offset + span - length, &buffer[..filled]))
}

/// What a range of a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// crc32c.
    pub sum: u32,
    /// Number of newlines.
    pub newlines: u64,
}

/// Looks through `span` bytes from `offset` on; `None` when the file ends before.
pub fn content(file: &File, offset: u64, span: u64) -> io::Result<Option<Content>> {
    let mut buffer = vec![0; CHUNK_BYTES.min(span.max(1) as usize)];
    let mut content = Content { sum: 0, newlines: 0 };
    let mut done = 0;
    while done < span {
        let wanted = (span - done).min(buffer.len() as u64) as usize;
        let Some(at) = offset.checked_add(done) else { return Ok(None) };
        if read_at(file, at, &mut buffer[..wanted])? < wanted {
            return Ok(None);
        }
        content.sum = crc32c::crc32c_append(content.sum, &buffer[..wanted]);
        content.newlines += bytecount::count(&buffer[..wanted], b'\n') as u64;
        done += wanted as u64;
    }
    Ok(Some(content))
}

/// Whether the last of the first `size` bytes of a file is `byte`.
pub fn ends_with(file: &File, size: u64, byte: u8) -> io::Result<bool> {
    let mut last = [0];
    Ok(size > 0 && read_at(file, size - 1, &mut last)? == 1 && last == [byte])
}

/// Whether a file still has the bytes of `tail`.
pub fn has(file: &File, tail: &Tail) -> io::Result<bool> {
    Ok(content(file, tail.offset, tail.span)?.is_some_and(|content| content.sum == tail.sum))
}

/// How many bytes before `offset` belong to the line that is there, as far as `max` of them.
pub fn line_bytes_before(file: &File, offset: u64, max: usize, newline: Newline) -> io::Result<usize> {
    let mut buffer = vec![0; CHUNK_BYTES.min(max + newline.length())];
    let mut end = offset;
    // Nearly always the line begins here.
    let mut step = newline.length() as u64;
    while end > 0 && offset - end < max as u64 {
        let start = newline.unit_start(end.saturating_sub(step.min(buffer.len() as u64)));
        let wanted = ((end - start) as usize).min(buffer.len());
        let chunk = &mut buffer[..wanted];
        if read_at(file, start, chunk)? < wanted {
            return Err(io::Error::other("the file became shorter"));
        }
        if let Some(behind) = newline.last(chunk, start) {
            return Ok(((offset - start) as usize - behind).min(max));
        }
        (end, step) = (start, CHUNK_BYTES as u64);
    }
    Ok(((offset - end) as usize).min(max))
}

/// Offset after the last newline in the first `size` bytes; 0 when there is none.
pub fn end_of_lines(file: &File, size: u64, newline: Newline) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES + newline.length()];
    let mut end = size;
    while end > 0 {
        let start = newline.unit_start(end.saturating_sub(CHUNK_BYTES as u64));
        let chunk = &mut buffer[..(end - start) as usize];
        let filled = read_at(file, start, chunk)?;
        if let Some(behind) = newline.last(&chunk[..filled], start) {
            return Ok(start + behind as u64);
        }
        end = start;
    }
    Ok(0)
}

/// Whether a path has wildcards.
pub fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Whether a folder is on a file system that other hosts may write to: inotify does not tell of that.
pub fn is_remote(folder: &Path) -> bool {
    /// `f_type` of statfs: NFS, SMB (three), Ceph, AFS, GFS2, OCFS2, Lustre, 9P, FUSE, vboxsf.
    const REMOTE: [u32; 12] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x00c3_6400,
        0x5346_414f,
        0x0116_1970,
        0x7461_636f,
        0x0bd0_0bd0,
        0x0102_1997,
        0x6573_5546,
        0x786f_4256,
    ];
    rustix::fs::statfs(folder).is_ok_and(|facts| REMOTE.contains(&(facts.f_type as u32)))
}

/// The folder of a path; "." for a bare name.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The folder of a glob before its first wildcard.
pub fn fixed_folder(path: &str) -> PathBuf {
    let fixed = &path[..path.find(['*', '?', '[']).unwrap_or(path.len())];
    match fixed.rfind('/') {
        Some(0) => PathBuf::from("/"),
        Some(slash) => PathBuf::from(&fixed[..slash]),
        None => PathBuf::from("."),
    }
}

/// Looks for a file in a folder under any name.
pub fn find_in(folder: &Path, key: FileKey) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.ino() != key.inode {
            continue;
        }
        let path = entry.path();
        if facts_at(&path).is_ok_and(|facts| facts.key == key) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_lines_is_found_from_the_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a");
        let check = |bytes: &[u8], expected: u64| {
            std::fs::write(&path, bytes).expect("write");
            let file = File::open(&path).expect("open");
            assert_eq!(end_of_lines(&file, bytes.len() as u64, Newline::Byte).expect("read"), expected);
        };
        check(b"", 0);
        check(b"no end", 0);
        check(b"one\ntwo", 4);
        let mut long = b"one\n".to_vec();
        long.extend(vec![b'x'; 200_000]);
        check(&long, 4);
    }

    #[test]
    fn only_a_path_that_nothing_has_is_absent() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").expect("write");
        std::os::unix::fs::symlink("loop", at("loop")).expect("linked");
        let error = |name: &str| facts_at(&at(name)).expect_err("not there");
        assert!(is_absent(&error("none")) && is_absent(&error("file/below")));
        assert!(!is_absent(&error("loop/below")) && !is_absent(&rustix::io::Errno::MFILE.into()));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");
        let (told, answer) = std::sync::mpsc::channel();
        for path in [pipe, folder.path().to_owned()] {
            let told = told.clone();
            std::thread::spawn(move || told.send(open_below(&path, &[]).map(|_| ())));
            let opened = answer.recv_timeout(std::time::Duration::from_secs(20)).expect("nobody waits");
            assert_eq!(opened.expect_err("none").to_string(), "it is no regular file");
        }
    }

    #[test]
    fn wide_lines_end_with_whole_units() {
        let mut file = tempfile::tempfile().expect("a file");
        let text: Vec<u8> = "one\nĊ two \u{0a05}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        io::Write::write_all(&mut file, &text).expect("written");
        let newline = Newline::Wide { big_endian: false };
        assert_eq!(end_of_lines(&file, text.len() as u64, newline).expect("read"), 8);
    }

    #[test]
    fn the_bytes_of_a_line_before_an_offset_are_counted_up_to_a_limit() {
        let mut file = tempfile::tempfile().expect("a file");
        let long = vec![b'x'; 200_000];
        io::Write::write_all(&mut file, &[&long[..], b"\nshort\n"].concat()).expect("written");
        let before = |offset, max| line_bytes_before(&file, offset, max, Newline::Byte).expect("read");
        assert_eq!([before(0, 10), before(200_001, 10), before(200_004, 10)], [0, 0, 3]);
        assert_eq!(
            [before(200_000, 100), before(200_000, 150_000), before(200_000, 300_000)],
            [100, 150_000, 200_000]
        );
        assert!(line_bytes_before(&file, 300_000, 10, Newline::Byte).is_err(), "the file is shorter");
        for offset in 200_000..200_007 {
            let wide = Newline::Wide { big_endian: false };
            assert_eq!(line_bytes_before(&file, offset, 5_000, wide).expect("read"), 5_000);
        }
    }

    #[test]
    fn the_fixed_folder_of_a_glob_ends_before_its_first_wildcard() {
        assert_eq!(fixed_folder("/var/log/*/a.log"), Path::new("/var/log"));
        assert_eq!(fixed_folder("/var/log/a*.log"), Path::new("/var/log"));
        assert_eq!(fixed_folder("/*.log"), Path::new("/"));
        assert_eq!(fixed_folder("a*.log"), Path::new("."));
    }

    #[test]
    fn a_renamed_file_is_found_by_its_identity() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a");
        std::fs::write(&path, "x").expect("write");
        let key = facts_at(&path).expect("facts").key;
        std::fs::rename(&path, folder.path().join("b")).expect("rename");
        assert_eq!(find_in(folder.path(), key).expect("list"), Some(folder.path().join("b")));
    }
}
