//! When a file is not what it was: truncated, replaced in place, changed; and when the next tier says so.

use super::Follower;
use super::copies::Before;
use super::work::Worked;
use crate::conflict::{coverage, divide, has_evidence};
use crate::cutter::Cutter;
use crate::files;
use crate::ledger::record::{Cut, Tail};
use crate::ledger::stream::{Entry, Fate, Stream};
use crate::tracker::FileNumber;
use logferry_footprint::Remembered;
use logferry_pack::StreamId;
use metrics::counter;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use tracing::{error, info, warn};

impl Follower {
    /// The file is shorter than what was read of it: a new generation begins at its start. If that was read before a
    /// restart, the last acknowledged bytes may tell that only what came after them is missing.
    pub(super) fn truncated(&mut self, number: FileNumber) -> io::Result<Worked> {
        counter!("logferry_tailer_truncations_total").increment(1);
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let (id, size) = (file.stream, files::facts_of(file.handle()?)?.size);
        let stream = id.and_then(|id| self.ledger.stream(id));
        let before_restart =
            |stream: &&Stream| !stream.confirmed && stream.next_unsent().is_some() && size >= stream.frontier;
        match id.filter(|_| stream.as_ref().is_some_and(before_restart)) {
            Some(id) => self.content_changed(number, id),
            None => Ok(self.begin_again(number, "truncated")),
        }
    }

    /// The file begins with another line than before: it was cut and has grown again since.
    pub(super) fn replaced(&mut self, number: FileNumber) -> Worked {
        counter!("logferry_tailer_replacements_total").increment(1);
        self.begin_again(number, "replaced")
    }

    /// The file had as many bytes as were known to be its own: it may have been cut and filled more than once since.
    fn begin_again(&mut self, number: FileNumber, reason: &'static str) -> Worked {
        let Some(file) = self.files.get_mut(&number) else { return Worked::Rest };
        let size = file.size_trusted;
        self.figures.restarts.fetch_add(1, Ordering::Relaxed);
        let path = file.path.clone();
        let at = file.cutter.at();
        (file.cutter, file.split) = (Cutter::new(0), None);
        file.size = 0;
        file.waiting_since = None;
        let (end_mark, recent) = (file.end_mark.take(), std::mem::take(&mut file.recent));
        let Some(id) = self.is_read_as_none(number) else { return Worked::Again };
        let before = Before { end_mark, recent, at };
        self.ledger.left_at(id, size);
        if self.goes_on_elsewhere(id, Some(before), Some(number)) {
            return self.began_again(number, id);
        }
        counter!("logferry_tailer_cut_without_copy_total").increment(1);
        warn!(
            path = %path.display(), stream = %id, reason,
            "the file begins again, and no copy has what was in it: what was written to it since it was looked at last, and not read, is in no \
             count"
        );
        self.bytes_gone(id, &path, reason);
        self.began_again(number, id)
    }

    /// What a file has by now is a stream at once, if its turn has come: by the time that it is read it may have been moved to another file
    /// system, and be the copy of nothing.
    fn began_again(&mut self, number: FileNumber, before: StreamId) -> Worked {
        // Without room for them now they are found when the file is looked at next.
        let _ = self.find_cut_between(number, Some(before));
        let _ = self.refresh(number).and_then(|_| self.look_while_it_waits(number));
        Worked::Again
    }

    /// The bytes of a stream above `from` are gone: those that its file is known to have had, and that were not read, are lost.
    pub(super) fn unread_gone(&mut self, id: StreamId, path: &Path, from: u64, reason: &'static str) {
        let unread = self.ledger.take_unread(id, from);
        if unread > 0 {
            error!(path = %path.display(), stream = %id, bytes = unread, reason, "bytes that were not read yet are gone");
            self.figures.lost(unread, reason);
        }
    }

    /// No byte of a stream can be read any more. What is on its way may still arrive.
    pub(super) fn bytes_gone(&mut self, id: StreamId, path: &Path, reason: &'static str) {
        self.unread_gone(id, path, 0, reason);
        let lost = self.ledger.orphan(id);
        if lost > 0 {
            error!(
                path = %path.display(), stream = %id, bytes = lost, reason,
                "packs that were cut and not acknowledged cannot be cut again: their bytes may be lost"
            );
            self.figures.lost(lost, reason);
        }
    }

    /// Forgets a stream without a file once its last pack is settled, and the file's next stream knows of it.
    pub(super) fn finish_orphan(&mut self, id: StreamId) {
        let Some(stream) = self.ledger.stream(id) else { return };
        let key = stream.met.key;
        if stream.orphan && stream.entries.is_empty() {
            let followed = self.tracker.find(key).is_some();
            if self.ledger.current(key) != Some(id) || !followed && self.searched_lost {
                self.ledger.finish(id);
            }
        }
    }

    /// The file does not give the bytes of a journaled pack any more.
    pub(super) fn content_changed(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
        let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(id)) else {
            return Ok(Worked::Rest);
        };
        if stream.in_flight() > 0 {
            return Ok(Worked::Rest);
        }
        // If it still has the last bytes that were acknowledged, only what came after them is different. With its first line another file may
        // begin.
        let is_only_head_acked = stream.is_only_head_acked();
        let has_tail = match &stream.tail {
            Some(tail) => !is_only_head_acked && files::has(file.handle()?, tail)?,
            None => true,
        };
        let has_no_tail = !has_tail || stream.tail.is_none();
        if has_no_tail && !self.has_its_head(number, id)? {
            // It was cut in this very moment, or is a whole other one by now.
            return Ok(self.replaced(number));
        }
        if has_no_tail {
            // Its length was seen when it had other bytes; or other ones with the same first line, and nobody knows.
            let left = stream.left;
            let size = file.size_trusted;
            self.is_read_as_none(number);
            if !has_tail && !is_only_head_acked && size > left {
                self.ledger.left_at(id, size);
            }
            if self.goes_on_elsewhere(id, None, Some(number)) {
                if let Some(file) = self.files.get_mut(&number) {
                    file.cutter = Cutter::new(0);
                    (file.end_mark, file.verified) = (None, true);
                }
                return Ok(Worked::Again);
            }
            self.is_read_as(number, id);
        }
        let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(id)) else {
            return Ok(Worked::Rest);
        };
        let first = if has_tail { stream.frontier } else { 0 };
        let unsent = stream.entries.iter().filter(|entry| entry.fate == Fate::Unsent);
        let lost: u64 = unsent.map(|entry| entry.cut.span).sum();
        error!(
            path = %file.path.display(), stream = %id, bytes = lost, from = first,
            "the file has changed since packs were cut from it: what it holds now is shipped as a new stream"
        );
        self.figures.lost(lost, "changed");
        let (path, size) = (file.path.clone(), file.size);
        self.unread_gone(id, &path, if has_tail { size } else { 0 }, "changed");
        self.regenerate(number, id, first, false);
        if let Some(file) = self.files.get_mut(&number) {
            // Its length was seen when other bytes were in it: were it cut now, that would be no measure of what is lost.
            file.size_trusted = first;
        }
        Ok(Worked::Again)
    }

    fn regenerate(&mut self, number: FileNumber, old: StreamId, first: u64, keep: bool) {
        if let Some(new) = self.ledger.regenerate(old, first, keep) {
            self.follow_as(number, old, new);
        }
    }

    /// The file was met under a source that is called otherwise now, or no longer has it: what comes from here on is of the source that
    /// leads to it.
    pub(super) fn changed_source(&mut self, number: FileNumber, old: StreamId) -> bool {
        let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(old)) else {
            return false;
        };
        let name = self.sources[file.source].settings.name.clone();
        if stream.met.source == name {
            return false;
        }
        let (path, before) = (file.path.clone(), stream.met.source.clone());
        let Some(new) = self.ledger.change_source(old, &name) else { return false };
        info!(path = %path.display(), before, now = name, stream = %new, "the file is of another source now");
        self.follow_as(number, old, new);
        true
    }

    fn follow_as(&mut self, number: FileNumber, old: StreamId, new: StreamId) {
        counter!("logferry_tailer_generations_total").increment(1);
        let end = self.ledger.stream(new).map_or(0, |stream| stream.cut_end());
        self.is_read_as_none(number);
        self.is_read_as(number, new);
        if let Some(held) = self.held_copies.remove(&old) {
            self.held_copies.insert(new, held);
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.cutter = Cutter::new(end);
            // What is before that is the same as it was.
            file.end_mark = file.end_mark.filter(|mark| mark.offset + mark.length as u64 <= end);
            file.verified = true;
        }
    }

    /// The next tier has something else where a pack of ours goes: is it the same bytes, cut otherwise?
    pub(super) fn resolve(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
        let Some(stream) = self.ledger.stream(id) else { return Ok(Worked::Rest) };
        let Some(remembered) = stream.conflict.clone() else { return Ok(Worked::Rest) };
        let tail = self.agreement(number, &remembered)?;
        let entries = match tail {
            Some(_) => self.uncovered(number, id, &coverage(&remembered))?,
            None => None,
        };
        if let (Some(tail), Some(entries)) = (tail, entries) {
            info!(stream = %id, frontier = remembered.frontier, "the next tier has these bytes already: going on from there");
            counter!("logferry_tailer_conflicts_agreed_total").increment(1);
            self.ledger.agree(id, tail, entries);
            let end = self.ledger.stream(id).map_or(0, |stream| stream.cut_end());
            if let Some(file) = self.files.get_mut(&number) {
                file.cutter = Cutter::new(end);
                // By what was agreed on it is known from now on.
                (file.end_mark, file.verified) = (None, false);
            }
            return Ok(Worked::Again);
        }
        // Packs on their way under the old id may still be taken; only then is it known what is left.
        let Some(stream) = self.ledger.stream(id).filter(|stream| stream.in_flight() == 0) else {
            return Ok(Worked::Rest);
        };
        let first = stream.frontier;
        warn!(stream = %id, first, "the next tier has other bytes under this stream: a new generation begins");
        counter!("logferry_tailer_conflicts_disagreed_total").increment(1);
        self.regenerate(number, id, first, true);
        Ok(Worked::Again)
    }

    /// The remembered pack at the frontier, if the file has all remembered packs.
    fn agreement(&self, number: FileNumber, remembered: &Remembered) -> io::Result<Option<Tail>> {
        let Some(file) = self.files.get(&number).filter(|_| has_evidence(remembered)) else {
            return Ok(None);
        };
        let mut at_frontier = None;
        for pack in &remembered.packs {
            let tail = Tail { offset: pack.0, span: pack.1, sum: pack.2 };
            if !files::has(file.handle()?, &tail)? {
                return Ok(None);
            }
            if pack.1 > 0 && pack.0 + pack.1 == remembered.frontier {
                at_frontier = Some(tail);
            }
        }
        Ok(at_frontier)
    }

    /// The packs above the frontier without what is covered; `None` if that changes nothing.
    fn uncovered(
        &mut self,
        number: FileNumber,
        id: StreamId,
        covered: &[Range<u64>],
    ) -> io::Result<Option<Vec<Entry>>> {
        let Some(stream) = self.ledger.stream(id) else { return Ok(None) };
        let old = stream.entries.clone();
        let mut entries = Vec::new();
        let mut changed = false;
        for entry in old {
            let parts = divide(entry.cut.offset..entry.cut.end(), covered);
            if parts.iter().all(|part| !part.covered) || entry.fate == Fate::Acked {
                entries.push(entry);
                continue;
            }
            changed = true;
            let mut number_used = false;
            for part in parts {
                let mut cut = self.part_of(number, entry.cut, &part.range)?;
                if !part.covered && std::mem::replace(&mut number_used, true) {
                    let Some(fresh) = self.ledger.number(id, cut.hour) else { return Ok(None) };
                    cut.id = fresh;
                }
                entries.push(Entry { cut, fate: if part.covered { Fate::Acked } else { Fate::Unsent } });
            }
        }
        Ok(changed.then_some(entries))
    }

    fn part_of(&self, number: FileNumber, cut: Cut, range: &Range<u64>) -> io::Result<Cut> {
        let (offset, span) = (range.start, range.end - range.start);
        let content = match self.files.get(&number) {
            Some(file) => files::content(file.handle()?, offset, span)?,
            None => None,
        };
        let content = content.ok_or_else(|| io::Error::other("the file became shorter"))?;
        Ok(Cut { offset, span, sum: content.sum, lines: content.newlines, ..cut })
    }
}
