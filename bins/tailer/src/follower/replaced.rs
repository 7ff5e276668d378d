//! A file that was written anew and renamed over the old one, as `rsync`, `sed -i` and editors do: where it has all that the old one had, it
//! is the same log, and goes on behind what was read.

use super::Follower;
use super::copies::Candidate;
use super::origin::is_same;
use crate::files;
use crate::identity::Head;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::io;
use tracing::info;

impl Follower {
    /// Whether a new file goes on with the stream of the one that had its path. That one must be gone: of two files that are there,
    /// each has lines of its own.
    pub(super) fn continues_replaced(&mut self, number: FileNumber, head: Head) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(false) };
        let Some(old) = self.tracker.predecessor(file.source, &file.path, file.key) else { return Ok(false) };
        let id = self.files.get(&old).and_then(|old| old.stream);
        let Some(id) = id.filter(|id| self.ledger.stream(*id).is_some_and(|stream| stream.met.head == head))
        else {
            return Ok(false);
        };
        // Where it was closed it is looked for, and may be found here.
        if !self.reach(old)? {
            return Ok(self.files.get(&number).is_some_and(|file| file.stream.is_some()));
        }
        if !self.has_all_of(number, old, id, head)? {
            return Ok(false);
        }
        self.is_read_as_none(old);
        let Some(known) = self.files.get_mut(&old) else { return Ok(false) };
        let (end_mark, marks, recent) = (known.end_mark.take(), known.marks.clone(), known.recent.clone());
        let before = known.predecessor;
        let Some((path, key)) = self.files.get(&number).map(|file| (file.path.clone(), file.key)) else {
            return Ok(false);
        };
        self.adopt(id, &path, key, None);
        if let Some(file) = self.files.get_mut(&number) {
            (file.end_mark, file.marks, file.recent, file.predecessor) = (end_mark, marks, recent, None);
        }
        self.let_go(old);
        if let Some(before) = before {
            self.goes_before(before, number);
        }
        info!(path = %path.display(), stream = %id, "the file was replaced by one that has all its lines: going on there");
        Ok(true)
    }

    fn has_all_of(&self, number: FileNumber, old: FileNumber, id: StreamId, head: Head) -> io::Result<bool> {
        let (Some(file), Some(old_file)) = (self.files.get(&number), self.files.get(&old)) else {
            return Ok(false);
        };
        let (new_handle, old_handle) = (file.handle()?, old_file.handle()?);
        let facts = files::facts_of(old_handle)?;
        let is_input = self.sources[file.source].shelf.is_some();
        // The first line alone says nothing: many files have the same.
        if facts.links > 0 || file.packed || is_input || facts.size <= u64::from(head.length) {
            return Ok(false);
        }
        if file.size < facts.size || !self.is_still(old, id)? {
            return Ok(false);
        }
        for mark in old_file.end_mark.iter().chain(&old_file.marks) {
            if !files::has_mark(new_handle, mark)? {
                return Ok(false);
            }
        }
        let tail = self.ledger.stream(id).and_then(|stream| stream.tail);
        let has_tail = tail.map_or(Ok(true), |tail| files::has(new_handle, &tail))?;
        Ok(has_tail && is_same(new_handle, old_handle, facts.size)?)
    }

    /// Whether a file that begins as a stream may be where it goes on, by its path: a copy may; what took the place of the stream's own file
    /// only if more than its first line was read.
    pub(super) fn may_go_on_in(&self, id: StreamId, candidate: &Candidate) -> bool {
        self.ledger.stream(id).is_some_and(|stream| {
            candidate.path != stream.met.home()
                || (stream.cut_end() > u64::from(stream.met.head.length)
                    && (stream.tail.is_some() || !stream.entries.is_empty()))
        })
    }
}
