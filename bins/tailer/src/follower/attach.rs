//! Where to begin with a file that was just opened: where it was left before a restart, where a legacy system left it, at its start.

use super::Follower;
use super::moving_over::Shipped;
use super::source::Source;
use crate::config::Start;
use crate::files;
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::Meeting;
use crate::ledger::stream::Stream;
use crate::legacy;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::{debug, info, warn};

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
            let attached = Attached { stream: Some(id), at: stream.cut_end(), home: Some(home) };
            if same && !stream.orphan {
                // It may have been copied, cut and filled again, and begin as before.
                let is_other = !self.has_evidence(id, handle).unwrap_or(true);
                if is_other && self.goes_on_elsewhere(id, None, None) {
                    return Ok(Attached::new_file());
                }
                // It may have been cut back meanwhile, to where it was read or beyond.
                self.unread_gone(id, path, size, "truncated");
                return Ok(attached);
            }
            if !self.goes_on_elsewhere(id, None, None) {
                self.bytes_gone(id, path, "replaced");
            }
        }
        self.need_line_record(source, path, key);
        // Whether a new file is a copy of another is told when its turn has come.
        let (Some(head), Some(first)) =
            (Head::complete(head_bytes), self.first_start(source, path, handle, (key, size), head_bytes)?)
        else {
            return Ok(Attached::new_file());
        };
        let stream = self.meet(source, path, key, head, first);
        Ok(Attached { stream, at: first, home: None })
    }

    /// Whether a file has the bytes of a stream by which it can be told: those that were acknowledged last, or else the first that were cut.
    fn has_evidence(&self, id: StreamId, file: &File) -> io::Result<bool> {
        let evidence = self.ledger.stream(id).and_then(Stream::evidence);
        evidence.map_or(Ok(true), |tail| files::has(file, &tail))
    }

    /// Where to begin with a file that was there at the very first start of its source; `None` for its first byte.
    fn first_start(
        &self,
        source: usize,
        path: &Path,
        handle: &File,
        (key, size): (FileKey, u64),
        head_bytes: &[u8],
    ) -> io::Result<Option<u64>> {
        let Source { settings, cutting, shelf, .. } = &self.sources[source];
        if shelf.is_some() {
            // The first line is the input's own.
            return Ok(memchr::memchr(b'\n', head_bytes).map(|newline| newline as u64 + 1));
        }
        if !self.is_of_first_look(source, path, key) {
            return Ok(None);
        }
        let end = || {
            let newline = cutting.encoding().newline(self.is_big_endian_by_mark(source, handle)?);
            files::end_of_lines(handle, size, newline)
        };
        match self.shipped_by_legacy(source, path, key) {
            Shipped::Whole => return end().map(Some),
            Shipped::Nothing => return Ok(None),
            Shipped::Unknown => {}
            Shipped::Lines(lines) => {
                let offset = legacy::offset_after_lines(handle, lines)?;
                if offset.is_none() {
                    warn!(path = %path.display(), lines, "the file has fewer lines than line.rec says: it is read from its start");
                }
                return Ok(offset);
            }
        }
        match settings.start {
            Start::Beginning => Ok(None),
            Start::End => end().map(Some),
        }
    }

    /// A followed file is a new stream from `first` on, met at `path`.
    pub(super) fn begin_stream(
        &mut self,
        number: FileNumber,
        path: &Path,
        head: Head,
        first: u64,
    ) -> Option<StreamId> {
        let (source, key) = self.files.get(&number).map(|file| (file.source, file.key))?;
        let stream = self.meet(source, path, key, head, first)?;
        self.is_read_as(number, stream);
        Some(stream)
    }

    /// A new stream for a file.
    pub(super) fn meet(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        head: Head,
        first: u64,
    ) -> Option<StreamId> {
        let name = self.name_of(source)?;
        let before = self.ledger.current(key);
        let path_bytes = path.as_os_str().as_bytes();
        let stream = self.ledger.meet(&Meeting { source: name.as_str(), path: path_bytes, key, head, first });
        if self.sources[source].tells_each {
            info!(path = %path.display(), %stream, first, "following a file");
        } else {
            debug!(path = %path.display(), %stream, first, "following a file");
        }
        if let Some(before) = before {
            self.finish_orphan(before);
        }
        Some(stream)
    }
}

/// Where to begin with a file.
pub(super) struct Attached {
    pub(super) stream: Option<StreamId>,
    pub(super) at: u64,
    /// The path at which the stream was met.
    pub(super) home: Option<PathBuf>,
}

impl Attached {
    fn new_file() -> Attached {
        Attached { stream: None, at: 0, home: None }
    }
}
