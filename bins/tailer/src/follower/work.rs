//! Work on one file: one look, at most one pack.

use super::Follower;
use super::origin::Origin;
use crate::cutter::Cutter;
use crate::files;
use crate::identity::{HEAD_BYTES_MAX, Head};
use crate::tracker::{Age, FileNumber};
use logferry_pack::StreamId;
use metrics::counter;
use std::io;
use std::time::{Duration, Instant};
use tracing::{debug, error, warn};

/// A file that could not be read is tried again after this time.
const READ_RETRY: Duration = Duration::from_secs(1);
/// One that waits for others to be unpacked, or to get their turn, is looked at again after this time.
const LOOKED_AT: Duration = Duration::from_millis(200);

/// What to do with a file after work on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worked {
    /// There is more to do at once.
    Again,
    /// Look again at this time.
    At(Instant),
    /// An event will tell.
    Rest,
}

impl Worked {
    /// The same, but a look at this time where only an event would tell.
    fn or_at(self, due: Instant) -> Worked {
        if self == Worked::Rest { Worked::At(due) } else { self }
    }
}

impl Follower {
    pub(super) fn work(&mut self, number: FileNumber) -> Worked {
        let worked = self.try_work(number);
        let Some(file) = self.files.get_mut(&number) else { return Worked::Rest };
        let failing_since = file.failing_since.take();
        match worked {
            Ok(worked) => worked,
            Err(error) => {
                file.failing_since = failing_since.or_else(|| Some(Instant::now()));
                let is_unreadable = file.is_unreadable();
                counter!("logferry_tailer_read_failures_total").increment(1);
                let path = file.path.display().to_string();
                if failing_since.is_none() && self.may_tell_trouble() {
                    warn!(path, %error, "the file cannot be read: trying again");
                } else {
                    debug!(path, %error, "the file cannot be read: trying again");
                }
                if is_unreadable {
                    self.caught_up(number);
                    self.queue_successors(number);
                }
                Worked::At(Instant::now() + READ_RETRY)
            }
        }
    }

    fn try_work(&mut self, number: FileNumber) -> io::Result<Worked> {
        if self.is_closed_and_same(number) {
            return self.rest(number);
        }
        if let Some(due) = self.closed_until(number) {
            self.caught_up(number);
            return Ok(Worked::At(due));
        }
        if !self.reach(number)? {
            return Ok(Worked::Rest);
        }
        if !self.refresh(number)? {
            return self.truncated(number);
        }
        if self.waits_for_its_turn(number) {
            return self.look_while_it_waits(number);
        }
        if self.waits_for_predecessor(number) {
            let worked = self.look_while_it_waits(number)?;
            // The other one may have to wait for its turn itself by then.
            return Ok(if self.has_backlog(number) {
                worked.or_at(Instant::now() + LOOKED_AT)
            } else {
                worked
            });
        }
        if self.waits_in_succession(number) || self.waits_for_sought(number) {
            return Ok(self.look_while_it_waits(number)?.or_at(Instant::now() + LOOKED_AT));
        }
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let Some(id) = file.stream else { return self.try_meet(number) };
        let Some(stream) = self.ledger.stream(id) else { return Ok(Worked::Rest) };
        if stream.conflict.is_some() {
            return self.resolve(number, id);
        }
        let unsent = stream.next_unsent();
        let unread = file.size.saturating_sub(file.cutter.seen_to());
        let has_nothing = unsent.is_none() && unread == 0;
        if has_nothing && !file.suspicious && !file.cutter.is_over(&self.sources[file.source].cutting) {
            return self.at_end(number, id);
        }
        if !stream.may_send() {
            return self.look_while_it_waits(number);
        }
        if !self.has_its_head(number, id)? || !self.has_its_end(number)? {
            return Ok(self.replaced(number));
        }
        if !self.proves_its_tail(number, id)? {
            return self.content_changed(number, id);
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.size_trusted = file.size;
            (file.verified, file.suspicious) = (true, false);
            if has_nothing {
                // Only whether it is the same was to be seen.
                return Ok(Worked::Again);
            }
            if !file.packed && self.sources[file.source].shelf.is_none() {
                self.ledger.saw(id, file.size, 0);
            }
        }
        match unsent {
            Some(cut) => self.resend(number, id, cut),
            None if self.changed_source(number, id) => Ok(Worked::Again),
            None => self.read_when_due(number, id),
        }
    }

    /// Asks the file for its length; false when it is shorter than what was read of it: then it was cut, however long it is a moment later.
    pub(super) fn refresh(&mut self, number: FileNumber) -> io::Result<bool> {
        let length_min = self.length_min(number);
        let Some(file) = self.files.get_mut(&number) else { return Ok(false) };
        let mut facts = files::facts_of(file.handle()?)?;
        file.unlinked = facts.links == 0 && !file.packed;
        if facts.links > 1 {
            self.linked.insert(number);
        } else {
            self.linked.remove(&number);
        }
        if let Some(id) = file.stream.filter(|_| !file.packed && self.sources[file.source].shelf.is_none()) {
            // Who appends changes the length, too: something else was done to it, or nobody knows since when it is as it is.
            file.suspicious |= match self.ledger.stream(id).and_then(|stream| stream.seen) {
                Some((size, touched_ns)) => {
                    touched_ns != facts.touched_ns && (size == facts.size || !file.verified)
                }
                None => false,
            };
            // Such file systems may tell the time of a change to the second only.
            file.suspicious |= !file.verified && file.key.born_ns == 0;
            // What is beyond may be of another file: that is seen when it is read.
            if facts.size <= file.cutter.seen_to() {
                self.ledger.saw(id, facts.size, facts.touched_ns);
            }
        }
        if facts.size < length_min {
            return Ok(false);
        }
        if file.is_presumed && facts.size > file.cutter.at() {
            self.presume_again(number, &facts);
        }
        let Some(file) = self.files.get_mut(&number) else { return Ok(false) };
        facts.size = facts.size.min(self.sources[file.source].readable(&file.path));
        if facts.size != file.size {
            file.quiet_since = Instant::now();
            file.size = facts.size;
        }
        if facts.size > file.cutter.seen_to() {
            file.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(true)
    }

    /// A file that is shorter than that was cut: so much was read of it, or its first line was when it was met.
    fn length_min(&self, number: FileNumber) -> u64 {
        let Some(file) = self.files.get(&number) else { return 0 };
        let stream = file.stream.and_then(|id| self.ledger.stream(id));
        stream.map_or(0, |stream| file.cutter.seen_to().max(u64::from(stream.met.head.length)))
    }

    fn waits_for_its_turn(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        // Whether a stream goes on in what was unpacked must be known: others may wait for it.
        self.waits_for_first_look(file) || self.waits_in_backlog(number) && !self.is_asked_and_unknown(file)
    }

    fn waits_for_predecessor(&self, number: FileNumber) -> bool {
        let before = self.files.get(&number).and_then(|file| file.predecessor);
        before.is_some_and(|before| self.is_unfinished(before))
    }

    /// Whether a file may have to wait until others were read or found.
    pub(super) fn waits_for_others(&self, number: FileNumber) -> bool {
        let is_in_succession = || self.files.get(&number).is_some_and(|file| self.is_in_succession(file.key));
        self.waits_in_backlog(number)
            || self.waits_for_predecessor(number)
            || is_in_succession()
            || self.waits_for_sought(number)
    }

    /// Whether there is more to read or to send of a file that others wait for. What waits for its turn itself holds nobody up: those that go
    /// before it may wait for it.
    pub(super) fn is_unfinished(&self, number: FileNumber) -> bool {
        let Some(before) = self.files.get(&number).filter(|_| !self.waits_in_backlog(number)) else {
            return false;
        };
        let unsent = |id: StreamId| {
            self.ledger
                .stream(id)
                .is_some_and(|stream| stream.next_unsent().is_some() || stream.conflict.is_some())
                || !self.may_follow(id)
        };
        !before.is_unreadable()
            && before.stream.is_some_and(|id| {
                before.size > before.cutter.seen_to() || before.cutter.entry_bytes() > 0 || unsent(id)
            })
    }

    pub(super) fn head_bytes(&self, number: FileNumber) -> io::Result<([u8; HEAD_BYTES_MAX], usize)> {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let filled = match self.files.get(&number) {
            Some(file) => files::read_head(file.handle()?, &mut bytes)?,
            None => 0,
        };
        Ok((bytes, filled))
    }

    /// Whether an open file is still the one that its stream is of.
    pub(super) fn is_still(&self, number: FileNumber, id: StreamId) -> io::Result<bool> {
        Ok(self.has_its_head(number, id)? && self.has_its_end(number)? && self.has_its_tail(number, id)?)
    }

    /// Whether the file still begins as its stream does: it may have been cut and have grown again since the last look.
    pub(super) fn has_its_head(&self, number: FileNumber, id: StreamId) -> io::Result<bool> {
        let (bytes, filled) = self.head_bytes(number)?;
        Ok(self.ledger.stream(id).is_some_and(|stream| stream.met.head.agrees(&bytes[..filled])))
    }

    /// Whether it still has the bytes that were cut last, as far as some of each pack tell: it may begin alike and yet be another by now.
    pub(super) fn has_its_end(&self, number: FileNumber) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(true) };
        let Some(end_mark) = &file.end_mark else { return Ok(true) };
        for mark in std::iter::once(end_mark).chain(&file.marks) {
            if !files::has_mark(file.handle()?, mark)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it has the bytes that were acknowledged last, before a restart. Looked at once.
    pub(super) fn has_its_tail(&self, number: FileNumber, id: StreamId) -> io::Result<bool> {
        let Some(file) = self.files.get(&number).filter(|file| !file.verified) else { return Ok(true) };
        let tail = self.ledger.stream(id).and_then(|stream| stream.tail);
        tail.map_or(Ok(true), |tail| files::has(file.handle()?, &tail))
    }

    /// The same; if so, they tell from then on, until more is cut. The first line may be that of many files.
    fn proves_its_tail(&mut self, number: FileNumber, id: StreamId) -> io::Result<bool> {
        let Some(file) = self.files.get(&number).filter(|file| !file.verified) else { return Ok(true) };
        let Some(tail) = self.ledger.stream(id).and_then(|stream| stream.tail) else { return Ok(true) };
        // Read first: what has the stream's bytes afterwards had them then, too.
        let mark = files::end_mark(file.handle()?, tail.offset, tail.span)?;
        let has_it = self.has_its_tail(number, id)?;
        if let Some(file) = self.files.get_mut(&number).filter(|_| has_it) {
            file.end_mark.get_or_insert(mark);
        }
        Ok(has_it)
    }

    /// A file without a stream: has its first line come?
    fn try_meet(&mut self, number: FileNumber) -> io::Result<Worked> {
        if self.is_known_copy(number) {
            return self.rest_as_copy(number);
        }
        if self.find_cut_between(number, None)? {
            return Ok(Worked::Again);
        }
        let (bytes, filled) = self.head_bytes(number)?;
        if self.turned_out_packed(number, &bytes[..filled]) {
            return Ok(Worked::Rest);
        }
        self.notice_begun(number, &bytes[..filled])?;
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let mut head = Head::complete(&bytes[..filled]);
        if head.is_none() {
            match self.age_of(file) {
                Age::Living => return self.rest(number),
                Age::Until(due) => {
                    self.caught_up(number);
                    return Ok(Worked::At(due));
                }
                Age::Rotated if filled == 0 => return self.rest(number),
                Age::Over if filled == 0 => {
                    self.close(number);
                    return Ok(Worked::Rest);
                }
                Age::Rotated | Age::Over => head = Head::finished(&bytes[..filled]),
            }
        }
        let Some(head) = head else { return Ok(Worked::Rest) };
        let first = match self.origin_of(number, head)? {
            Origin::Own => 0,
            Origin::RestOfCopy(first) => first,
            Origin::Copy => return self.rest_as_copy(number),
            Origin::Continued => {
                self.unpack_next();
                return Ok(Worked::Again);
            }
            Origin::Unclear(due) => {
                self.caught_up(number);
                return Ok(Worked::At(due));
            }
        };
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let path = file.path.clone();
        let met = self.begin_stream(number, &path, head, first);
        let Some(file) = self.files.get_mut(&number).filter(|_| met.is_some()) else {
            return Ok(Worked::Rest);
        };
        file.cutter = Cutter::new(first);
        file.size_trusted = file.size.max(filled as u64);
        if file.packed {
            self.unpack_next();
        }
        Ok(Worked::Again)
    }

    /// A first line without an end is no stream yet: it is remembered, so that its bytes are counted when it is cut.
    fn notice_begun(&mut self, number: FileNumber, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        let now = Head::begun(bytes);
        let before = std::mem::replace(&mut file.begun, now);
        let Some(before) = before.filter(|before| !before.agrees(bytes)) else { return Ok(()) };
        if self.has_copy_beginning(number, before) {
            return Ok(());
        }
        let Some(file) = self.files.get(&number) else { return Ok(()) };
        let (lost, reason) = (u64::from(before.length), "truncated");
        error!(path = %file.path.display(), bytes = lost, reason, "a first line that had no end yet was cut: its bytes are gone");
        self.figures.lost(lost, reason);
        Ok(())
    }

    /// There is nothing to do for a file for now, and nothing that others have to wait for.
    fn rest(&mut self, number: FileNumber) -> io::Result<Worked> {
        self.caught_up(number);
        Ok(Worked::Rest)
    }
}
