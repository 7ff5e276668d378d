//! Where to begin with a file that was just opened: where it was left before a restart, where a legacy system left it, at its start.

use super::Follower;
use super::scan::Source;
use crate::config::Start;
use crate::files;
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::Meeting;
use crate::legacy;
use metrics::counter;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

impl Follower {
    /// Finds the stream of a file that was just opened: the one it was before a restart, or a new one.
    pub(super) fn attach(
        &mut self,
        source: usize,
        path: &Path,
        handle: &File,
        key: FileKey,
        size: u64,
    ) -> io::Result<Attached> {
        let mut head_bytes = [0; HEAD_BYTES_MAX];
        let filled = files::read_head(handle, &mut head_bytes)?;
        let head_bytes = &head_bytes[..filled];
        if let Some(id) = self.ledger.current(key)
            && let Some(stream) = self.ledger.stream(id)
        {
            let home = stream.met.home();
            let same = stream.met.head.agrees(head_bytes) && size >= stream.frontier;
            if same && !stream.orphan {
                let attached = Attached { stream: Some(id), at: stream.cut_end(), home: Some(home) };
                // It may have been cut back meanwhile, to where it was read or beyond.
                self.unread_gone(id, path, size, "truncated");
                return Ok(attached);
            }
            if !self.continue_in_copy(id, None) && !self.waits_for_packed_copy(id) {
                self.bytes_gone(id, path, "replaced");
            }
        }
        // Whether a new file is a copy of another is told when its turn has come.
        let (Some(head), Some(first)) =
            (Head::complete(head_bytes), self.first_start(source, path, handle, size, head_bytes)?)
        else {
            return Ok(Attached::new_file());
        };
        let stream = self.meet(source, path, key, head, first);
        Ok(Attached { stream, at: first, home: None })
    }

    /// Where to begin with a file that is there at the very first start of its source; `None` for its first byte.
    fn first_start(
        &self,
        source: usize,
        path: &Path,
        handle: &File,
        size: u64,
        head_bytes: &[u8],
    ) -> io::Result<Option<u64>> {
        let Source { settings, pattern, line_record, cutting, shelf, .. } = &self.sources[source];
        if shelf.is_some() {
            // The first line is the input's own.
            return Ok(memchr::memchr(b'\n', head_bytes).map(|newline| newline as u64 + 1));
        }
        if self.ledger.is_source_started(&settings.name) {
            return Ok(None);
        }
        let end = || {
            let newline = cutting.encoding().newline(self.is_big_endian_by_mark(source, handle)?);
            files::end_of_lines(handle, size, newline)
        };
        if let Some(record) = line_record {
            if record.is_of(path) {
                let offset = legacy::offset_after_lines(handle, record.lines)?;
                if offset.is_none() {
                    warn!(path = %path.display(), lines = record.lines, "the file has fewer lines than line.rec says: it is read from its start");
                }
                return Ok(offset);
            }
            let times = (pattern.time_of(path), pattern.time_of(&record.file));
            if let (Some(time), Some(of_record)) = times {
                // Hours before the record were shipped whole, those after it were not begun.
                return if time < of_record { end().map(Some) } else { Ok(None) };
            }
        }
        match settings.start {
            Start::Beginning => Ok(None),
            Start::End => end().map(Some),
        }
    }

    /// What a legacy system left, at the very first start.
    pub(super) fn read_line_record(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.line_record = None;
        let path = source.settings.line_record.clone();
        if path.is_empty() || self.ledger.is_source_started(&source.settings.name) {
            return;
        }
        match legacy::read(Path::new(&path)) {
            Ok(record) => {
                info!(path, file = %record.file.display(), lines = record.lines, "going on where the legacy state ends");
                source.line_record = Some(record);
            }
            Err(error) => {
                counter!("logferry_tailer_line_record_failures_total").increment(1);
                warn!(path, %error, start = ?source.settings.start, "the legacy state cannot be read: beginning as `start` says");
            }
        }
    }

    /// A new stream for a file.
    pub(super) fn meet(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        head: Head,
        first: u64,
    ) -> Option<logferry_pack::StreamId> {
        let name = self.name_of(source)?;
        let before = self.ledger.current(key);
        let path_bytes = path.as_os_str().as_bytes();
        let stream = self.ledger.meet(&Meeting { source: name.as_str(), path: path_bytes, key, head, first });
        info!(path = %path.display(), %stream, first, "following a file");
        if let Some(before) = before {
            self.finish_orphan(before);
        }
        Some(stream)
    }
}

/// Where to begin with a file.
pub(super) struct Attached {
    pub(super) stream: Option<logferry_pack::StreamId>,
    pub(super) at: u64,
    /// The path at which the stream was met.
    pub(super) home: Option<PathBuf>,
}

impl Attached {
    fn new_file() -> Attached {
        Attached { stream: None, at: 0, home: None }
    }
}
