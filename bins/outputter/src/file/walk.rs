//! Walks a header file along its log file and tells how far the two agree.

use super::headers::{self, LINE_BYTES_MAX, Line, Stored};
use super::journal::{CommittedPack, Lengths};
use logferry_durable::{Disk, DiskFile};
use logferry_pack::Header;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Deepest folder below the root; a path template is no deeper.
const DEPTH_MAX: usize = 20;

/// Which lines are taken for true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Behind a sound journal: only what can be proved whole.
    Tail,
    /// Without a sound journal, from the beginning: what is further from the end than one group commit can reach was
    /// acknowledged, whether its bytes still match or not.
    Everything {
        /// More than one group commit can leave behind in one log file.
        group_bytes_max: u64,
    },
}

/// A header file and its log file.
pub struct Walk<'a> {
    /// Header file.
    pub headers: &'a dyn DiskFile,
    /// Log file.
    pub data: &'a dyn DiskFile,
    /// Their lengths.
    pub found: Lengths,
}

/// How far they agree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WalkEnd {
    /// End of the last line that is true, and of its body.
    pub end: Lengths,
    /// Packs of the true lines, in their order.
    pub packs: Vec<CommittedPack>,
    /// Packs among them whose bytes do not match their checksum.
    pub packs_damaged: u64,
    /// It ended at lines that a legacy outputter wrote, which do not say how long their bodies are: nothing behind `end` is ours to cut.
    pub is_foreign: bool,
}

enum Step {
    Goes {
        data: u64,
        pack: Option<CommittedPack>,
        damaged: bool,
    },
    /// The line of a pack that somebody else wrote.
    Foreign,
    Ends,
}

impl Walk<'_> {
    /// Walks from `start` on.
    pub fn run(&self, start: Lengths, mode: Mode) -> io::Result<WalkEnd> {
        let mut walked = WalkEnd { end: start, ..WalkEnd::default() };
        let mut lines = Lines::new(self.headers, start.headers, self.found.headers);
        let mut chunk = Vec::new();
        let mut stored = None;
        while let Some(line) = lines.next()? {
            let is_empty = line.is_empty();
            if let Some(Line::Stored(next)) = headers::parse_line(line) {
                // It counts with the pack's own line, or not at all.
                stored = Some(next);
                continue;
            }
            let begins_anew = matches!(headers::parse_line(line), Some(Line::DataAt(_)));
            if walked.is_foreign && !begins_anew {
                continue;
            }
            let (data, pack, damaged) =
                match self.step(line, stored.take(), walked.end.data, mode, &mut chunk)? {
                    Step::Goes { data, pack, damaged } => (data, pack, damaged),
                    Step::Foreign => {
                        walked.is_foreign = true;
                        continue;
                    }
                    Step::Ends => break,
                };
            walked.is_foreign = false;
            let mark_due = walked.end.mark_due && is_empty;
            walked.end = Lengths { data, headers: lines.at, mark_due };
            walked.packs.extend(pack);
            walked.packs_damaged += u64::from(damaged);
        }
        Ok(walked)
    }

    fn step(
        &self,
        line: &[u8],
        stored: Option<Stored>,
        data_at: u64,
        mode: Mode,
        chunk: &mut Vec<u8>,
    ) -> io::Result<Step> {
        let goes = |data| Ok(Step::Goes { data, pack: None, damaged: false });
        match headers::parse_line(line) {
            Some(Line::Empty | Line::Replaced(_)) => goes(data_at),
            Some(Line::DataAt(at)) if at <= self.found.data => goes(at),
            Some(Line::Pack(header)) => self.pack(&header, stored, data_at, mode, chunk),
            // Recovery begins behind the last of these.
            Some(Line::Finished(finished)) => goes(finished.next_at()),
            Some(Line::DataAt(_) | Line::Stored(_)) | None => Ok(Step::Ends),
        }
    }

    fn pack(
        &self,
        header: &Header,
        stored: Option<Stored>,
        data_at: u64,
        mode: Mode,
        chunk: &mut Vec<u8>,
    ) -> io::Result<Step> {
        let Some(ours) = &header.ours else { return Ok(Step::Foreign) };
        let (len, sum) =
            stored.map_or((ours.raw, ours.body_sum()), |stored| (stored.bytes, Some(stored.crc)));
        let Some(end) = data_at.checked_add(len).filter(|end| *end <= self.found.data) else {
            return Ok(Step::Ends);
        };
        let is_far_from_end = match mode {
            Mode::Tail => false,
            Mode::Everything { group_bytes_max } => self.found.data - data_at > group_bytes_max,
        };
        let is_whole = match sum {
            Some(sum) => self.crc(data_at, len, chunk)? == sum,
            None => mode != Mode::Tail,
        };
        if !is_whole && !is_far_from_end {
            return Ok(Step::Ends);
        }
        let pack = Some(CommittedPack::new(&ours.identity, ours.first));
        Ok(Step::Goes { data: end, pack, damaged: !is_whole })
    }

    fn crc(&self, from: u64, len: u64, chunk: &mut Vec<u8>) -> io::Result<u32> {
        let (mut at, end, mut crc) = (from, from + len, 0);
        while at < end {
            let take = (end - at).min(CHUNK_BYTES as u64) as usize;
            chunk.resize(take, 0);
            self.data.read_exact_at(chunk, at)?;
            crc = logferry_pack::crc32c_append(crc, chunk);
            at += take as u64;
        }
        Ok(crc)
    }
}

/// Lines of a file, without their newlines. Ends at a line that is not finished or longer than [`LINE_BYTES_MAX`].
pub(crate) struct Lines<'a> {
    file: &'a dyn DiskFile,
    /// Offset behind the line given last.
    pub(crate) at: u64,
    file_len: u64,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given.
    given: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, at: u64, file_len: u64) -> Lines<'a> {
        Lines { file, at, file_len, buffer: Vec::new(), given: 0 }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = self.given;
        loop {
            let newline = self.buffer[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(found) = newline {
                let line = self.given..searched + found;
                self.at += (line.len() + 1) as u64;
                self.given = line.end + 1;
                return Ok(Some(&self.buffer[line]));
            }
            if self.buffer.len() - self.given > LINE_BYTES_MAX {
                return Ok(None);
            }
            self.buffer.drain(..self.given);
            self.given = 0;
            searched = self.buffer.len();
            let read_at = self.at + searched as u64;
            let take = self.file_len.saturating_sub(read_at).min(CHUNK_BYTES as u64) as usize;
            if take == 0 {
                return Ok(None);
            }
            self.buffer.resize(searched + take, 0);
            self.file.read_exact_at(&mut self.buffer[searched..], read_at)?;
        }
    }
}

/// What is below a folder.
#[derive(Debug, Default)]
pub struct FilesBelow {
    /// Paths of all files, relative to the root, sorted.
    pub files: Vec<String>,
    /// Folders that cannot be listed, with a `/` at the end, and why.
    pub unlisted: Vec<(String, io::Error)>,
}

/// All files below `root` whose path begins with `prefix`, which is empty or a folder with a `/` at its end. Fails when that one cannot be
/// listed.
pub fn files_below(disk: &dyn Disk, root: &Path, prefix: &str) -> io::Result<FilesBelow> {
    let mut below = FilesBelow::default();
    list_into(disk, root, prefix, 0, &mut below)?;
    below.files.sort_unstable();
    Ok(below)
}

/// Whether a path, or a folder above it with a `/` at its end, is in the set.
pub fn holds(set: &BTreeSet<String>, path: &str) -> bool {
    let mut folders = path.match_indices('/').map(|(at, slash)| &path[..at + slash.len()]);
    set.contains(path) || folders.any(|folder| set.contains(folder))
}

fn list_into(
    disk: &dyn Disk,
    root: &Path,
    prefix: &str,
    depth: usize,
    below: &mut FilesBelow,
) -> io::Result<()> {
    let dir = root.join(prefix);
    below.files.extend(disk.list(&dir)?.into_iter().map(|name| format!("{prefix}{name}")));
    if depth < DEPTH_MAX {
        for name in disk.list_dirs(&dir)? {
            let inner = format!("{prefix}{name}/");
            if let Err(error) = list_into(disk, root, &inner, depth + 1, below) {
                below.unlisted.push((inner, error));
            }
        }
    }
    Ok(())
}
