//! Work on one file: one look, at most one pack.

use super::copies::Origin;
use super::scan::Source;
use super::{Followed, Follower};
use crate::batching::{Leave, Waiting, decide};
use crate::body::Lead;
use crate::config::LongLines;
use crate::cutter::{Cutter, Look, Piece};
use crate::encoding::has_big_endian_mark;
use crate::event::{Job, Load, ToShipper};
use crate::files;
use crate::identity::{EndMark, HEAD_BYTES_MAX, Head};
use crate::ledger::record::{Cut, Tail};
use crate::tracker::{Age, FileNumber};
use logferry_pack::{Name, StreamId};
use metrics::counter;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// A file that could not be read is tried again after this time.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Largest pack of the journal that is cut again; a larger span is taken for damage.
const RESEND_SPAN_MAX: u64 = 64 << 20;

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

impl Follower {
    pub(super) fn work(&mut self, number: FileNumber) -> Worked {
        let worked = self.try_work(number);
        let Some(file) = self.files.get_mut(&number) else { return Worked::Rest };
        file.failing = worked.is_err();
        match worked {
            Ok(worked) => worked,
            Err(error) => {
                counter!("logferry_tailer_read_failures_total").increment(1);
                warn!(path = %file.path.display(), %error, "the file cannot be read: trying again");
                self.caught_up(number);
                Worked::At(Instant::now() + READ_RETRY)
            }
        }
    }

    fn try_work(&mut self, number: FileNumber) -> io::Result<Worked> {
        if self.is_closed_and_same(number) {
            return self.rest(number);
        }
        if !self.reach(number)? {
            return Ok(Worked::Rest);
        }
        if !self.refresh(number)? || self.waits_for_predecessor(number) {
            return if self.is_truncated(number) { self.truncated(number) } else { Ok(Worked::Rest) };
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
            return Ok(Worked::Rest);
        }
        if !self.has_its_head(number, id)? || !self.has_its_end(number)? {
            return Ok(self.replaced(number));
        }
        if !self.has_its_tail(number, id)? {
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

    /// Asks the file for its length; false when it is shorter than what was read of it.
    fn refresh(&mut self, number: FileNumber) -> io::Result<bool> {
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

    fn is_truncated(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let length_min = self.length_min(number);
        file.handle().and_then(files::facts_of).is_ok_and(|facts| facts.size < length_min)
    }

    /// A file that is shorter than that was cut: so much was read of it, or its first line was when it was met.
    fn length_min(&self, number: FileNumber) -> u64 {
        let Some(file) = self.files.get(&number) else { return 0 };
        let stream = file.stream.and_then(|id| self.ledger.stream(id));
        stream.map_or(0, |stream| file.cutter.seen_to().max(u64::from(stream.met.head.length)))
    }

    fn waits_for_predecessor(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        if self.waits_in_backlog(number) || self.waits_for_first_look(file) {
            return true;
        }
        let before = file.predecessor;
        let Some(before) = before.and_then(|before| self.files.get(&before)) else { return false };
        let unsent = |id: StreamId| {
            self.ledger
                .stream(id)
                .is_some_and(|stream| stream.next_unsent().is_some() || stream.conflict.is_some())
                || !self.may_follow(id)
        };
        !before.failing
            && before.stream.is_some_and(|id| {
                before.size > before.cutter.seen_to() || before.cutter.entry_bytes() > 0 || unsent(id)
            })
    }

    fn head_bytes(&self, number: FileNumber) -> io::Result<([u8; HEAD_BYTES_MAX], usize)> {
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

    /// Whether it still has the bytes that were cut last: it may begin alike and yet be another by now.
    pub(super) fn has_its_end(&self, number: FileNumber) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(true) };
        file.end_mark.map_or(Ok(true), |mark| files::has_mark(file.handle()?, &mark))
    }

    /// Whether it has the bytes that were acknowledged last, before a restart. Looked at once.
    pub(super) fn has_its_tail(&self, number: FileNumber, id: StreamId) -> io::Result<bool> {
        let Some(file) = self.files.get(&number).filter(|file| !file.verified) else { return Ok(true) };
        let tail = self.ledger.stream(id).and_then(|stream| stream.tail);
        tail.map_or(Ok(true), |tail| files::has(file.handle()?, &tail))
    }

    /// A file without a stream: has its first line come?
    fn try_meet(&mut self, number: FileNumber) -> io::Result<Worked> {
        if self.is_known_copy(number) {
            return self.rest_as_copy(number);
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
            Origin::Continued => return Ok(Worked::Again),
            Origin::Unclear(due) => {
                self.caught_up(number);
                return Ok(Worked::At(due));
            }
        };
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let (source, path, key) = (file.source, file.path.clone(), file.key);
        let stream = self.meet(source, &path, key, head, first);
        let (Some(stream), Some(file)) = (stream, self.files.get_mut(&number)) else {
            return Ok(Worked::Rest);
        };
        file.stream = Some(stream);
        file.cutter = Cutter::new(first);
        file.size_trusted = file.size.max(filled as u64);
        self.by_stream.insert(stream, number);
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

    fn read_when_due(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
        let now = Instant::now();
        let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(id)) else {
            return Ok(Worked::Rest);
        };
        let waiting = Waiting {
            unread: file.size.saturating_sub(file.cutter.seen_to()),
            since: file.waiting_since.unwrap_or(now),
            in_flight: stream.in_flight(),
            line_bytes: file.line_bytes,
        };
        match decide(&waiting, &self.batch_limits, now) {
            Leave::Nothing if !file.cutter.is_over(&self.sources[file.source].cutting) => Ok(Worked::Rest),
            Leave::At(due) => Ok(Worked::At(due)),
            Leave::Nothing | Leave::Now => self.read(number, id),
        }
    }

    fn read(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
        let wanted = self.bytes_wanted(number);
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let big_endian = self.is_big_endian_by_mark(file.source, file.handle()?)?;
        let Some(mut buffer) = self.buffers.pop() else { return Ok(Worked::Again) };
        let Some(file) = self.files.get_mut(&number) else { return Ok(Worked::Rest) };
        let cutting = &self.sources[file.source].cutting;
        let window = file.cutter.window(cutting, wanted, big_endian);
        let read = file
            .handle()
            .and_then(|handle| files::read_at(handle, window.offset, &mut buffer[window.start..window.end]));
        // An input appends: what is not on the disk yet may be gone after a power loss.
        let readable = self.sources[file.source].readable(&file.path).saturating_sub(window.offset);
        let filled = match read {
            Ok(count) => window.start + count.min(usize::try_from(readable).unwrap_or(usize::MAX)),
            Err(error) => {
                self.buffers.push(buffer);
                return Err(error);
            }
        };
        file.size = file.size.max(window.offset - window.start as u64 + filled as u64);
        match file.cutter.look(&buffer, window, filled, cutting, big_endian) {
            Look::Cut(piece) => self.cut(number, id, piece, buffer),
            Look::Again => {
                self.buffers.push(buffer);
                Ok(Worked::Again)
            }
            Look::Partial => {
                file.waiting_since = None;
                self.buffers.push(buffer);
                Ok(if filled == window.end { Worked::Again } else { self.at_end(number, id)? })
            }
        }
    }

    /// A guess of how many bytes `max_lines` lines are, so that not much more than that is read.
    fn bytes_wanted(&self, number: FileNumber) -> usize {
        let Some(file) = self.files.get(&number) else { return self.cut_limits.pack_bytes };
        let limit = self.cut_limits.pack_bytes.min(self.pack_bytes_allowed(file.source));
        let line_bytes = file.line_bytes;
        if self.cut_limits.lines == 0 || line_bytes == 0 {
            return limit;
        }
        let guess = self.cut_limits.lines.saturating_mul(line_bytes + line_bytes / 4).saturating_add(4096);
        usize::try_from(guess).unwrap_or(limit).min(limit)
    }

    /// Numbers, journals and dispatches the pack at the front of `buffer`.
    pub(super) fn cut(
        &mut self,
        number: FileNumber,
        id: StreamId,
        mut piece: Piece,
        mut buffer: Vec<u8>,
    ) -> io::Result<Worked> {
        let hour = self.hour_of(number).map_err(io::Error::other);
        let Some(file) = self.files.get_mut(&number) else { return Ok(Worked::Rest) };
        let front = file
            .handle()
            .and_then(|handle| files::read_at(handle, piece.offset, &mut buffer[..piece.unread]));
        let is_whole = matches!(front, Ok(count) if count == piece.unread);
        let lead = self.lead(number, piece.offset);
        let Some(file) = self.files.get_mut(&number) else { return Ok(Worked::Rest) };
        let (Ok(hour), true, Ok(lead)) = (&hour, is_whole, &lead) else {
            // The file was cut meanwhile, or cannot be read, or the clock is out of range: nothing was promised yet.
            file.cutter = Cutter::new(piece.offset);
            self.buffers.push(buffer);
            return hour.and(front).and(lead.map(|_| Worked::Again));
        };
        let (hour, source, lead) = (*hour, file.source, *lead);
        if piece.split {
            let encoding = self.sources[source].cutting.encoding();
            let whole = encoding.whole_characters(&buffer[..piece.span], lead.big_endian_by_mark);
            if whole < piece.span {
                piece.span = whole;
                file.cutter = Cutter::new(piece.offset + whole as u64);
            }
        }
        file.waiting_since = None;
        file.end_mark = Some(EndMark::of(piece.offset, &buffer[..piece.span]));
        let sum = crc32c::crc32c(&buffer[..piece.span]);
        file.remember(Tail { offset: piece.offset, span: piece.span as u64, sum });
        file.line_bytes =
            (piece.span as u64).checked_div(piece.lines).map_or(file.line_bytes, |bytes| bytes.max(1));
        if piece.split {
            counter!("logferry_tailer_lines_split_total").increment(1);
        }
        counter!("logferry_tailer_entries_cut_total").increment(piece.entries_cut);
        if let Some(cut) = self.ledger.cut(id, piece.span as u64, sum, piece.lines, hour) {
            self.figures.cut(cut.span, cut.lines);
            self.spend(source, cut.span);
            self.dispatch(id, cut, lead, buffer);
        }
        Ok(Worked::Again)
    }

    /// What the file says of a pack that begins at `offset`, beside its bytes.
    fn lead(&self, number: FileNumber, offset: u64) -> io::Result<Lead> {
        let Some(file) = self.files.get(&number) else { return Ok(Lead::default()) };
        let big_endian_by_mark = self.is_big_endian_by_mark(file.source, file.handle()?)?;
        let Source { settings, cutting, .. } = &self.sources[file.source];
        let newline = cutting.encoding().newline(big_endian_by_mark);
        let line_bytes_before = match settings.long_lines {
            LongLines::Split => 0,
            LongLines::Drop => {
                files::line_bytes_before(file.handle()?, offset, cutting.line_bytes(), newline)?
            }
        };
        Ok(Lead { offset, line_bytes_before, big_endian_by_mark })
    }

    /// Whether a file of a source that goes by byte order marks has that of big-endian UTF-16.
    pub(super) fn is_big_endian_by_mark(&self, source: usize, handle: &File) -> io::Result<bool> {
        if !self.sources[source].cutting.encoding().is_by_mark() {
            return Ok(false);
        }
        let mut head = [0; 2];
        let filled = files::read_at(handle, 0, &mut head)?;
        Ok(has_big_endian_mark(&head[..filled]))
    }

    fn dispatch(&mut self, id: StreamId, cut: Cut, lead: Lead, buffer: Vec<u8>) {
        let Some(ticket) = self.ledger.send(id, cut.offset) else { return };
        self.pass_on_records();
        let Some(stream) = self.ledger.stream(id) else { return };
        // The stream's own: the file may be of another source by now.
        let Ok(source) = Name::new(stream.met.source.as_str()) else { return };
        let _ = self.shipper.send(ToShipper::Expect(ticket));
        // There are as many places in the queue as buffers.
        let (load, first) = (Load::Lines, stream.met.first);
        let _ = self.jobs.send(Job {
            ticket,
            load,
            buffer,
            cut,
            lead,
            stream: id,
            first,
            source,
            hour_ranges: Vec::new(),
        });
    }

    /// Cuts a pack of the journal again, the same as it was.
    fn resend(&mut self, number: FileNumber, id: StreamId, cut: Cut) -> io::Result<Worked> {
        if cut.span > RESEND_SPAN_MAX {
            return self.content_changed(number, id);
        }
        let Some(mut buffer) = self.buffers.pop() else { return Ok(Worked::Again) };
        let span = cut.span as usize;
        if buffer.len() < span {
            buffer.resize(span, 0);
        }
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let source = file.source;
        let read = file.handle().and_then(|handle| files::read_at(handle, cut.offset, &mut buffer[..span]));
        let same = matches!(read, Ok(count) if count == span) && crc32c::crc32c(&buffer[..span]) == cut.sum;
        let lead = self.lead(number, cut.offset);
        if let (true, Ok(lead)) = (same, &lead) {
            counter!("logferry_tailer_packs_resent_total").increment(1);
            self.spend(source, cut.span);
            self.dispatch(id, cut, *lead, buffer);
            return Ok(Worked::Again);
        }
        self.give_back(buffer);
        read.and(lead)?;
        self.content_changed(number, id)
    }
}

/// Packs of a file that are remembered to know a copy of it by.
const RECENT_PACKS: usize = 16;

impl Followed {
    fn remember(&mut self, pack: Tail) {
        self.recent.push_back(pack);
        if self.recent.len() > RECENT_PACKS {
            self.recent.pop_front();
        }
    }
}
