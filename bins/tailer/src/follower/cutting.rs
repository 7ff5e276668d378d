//! Reading on in a file, cutting packs and putting them on their way, again where that is needed.

use super::Follower;
use super::source::Source;
use super::work::Worked;
use crate::batching::{Leave, Waiting, decide};
use crate::body::Lead;
use crate::cutter::{Cutter, Look, Piece};
use crate::event::{Job, Load, ToShipper};
use crate::files;
use crate::ledger::record::{Cut, Tail};
use crate::recut::{self, SplitAt};
use crate::tracker::FileNumber;
use logferry_pack::{Name, StreamId};
use metrics::counter;
use std::fs::File;
use std::io;
use std::time::Instant;

/// Largest pack of the journal that is cut again; a larger span is taken for damage.
const RESEND_SPAN_MAX: u64 = 64 << 20;

impl Follower {
    pub(super) fn read_when_due(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
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
        // What was read is the stream's if the file is so still: it may have been cut and filled again before it was read.
        let is_its_own =
            self.has_its_head(number, id).and_then(|begins| Ok(begins && self.has_its_end(number)?));
        // Where nothing was read of it before, only copies tell.
        let is_its_own = match is_its_own {
            Ok(true) if self.is_unread(id) => self.find_cut_between(number, None).map(|found| !found),
            known => known,
        };
        let Some(file) = self.files.get_mut(&number) else { return Ok(Worked::Rest) };
        let (Ok(hour), true, Ok(lead), Ok(true)) = (&hour, is_whole, &lead, &is_its_own) else {
            // The file was cut meanwhile, or cannot be read, or the clock is out of range: nothing was promised yet.
            file.cutter = Cutter::new(piece.offset);
            self.buffers.push(buffer);
            return hour.and(front).and(is_its_own).and(lead.map(|_| Worked::Again));
        };
        let (hour, source, lead) = (*hour, file.source, Lead { unended: piece.unended, ..*lead });
        let cutting = &self.sources[source].cutting;
        file.cutter.end_with_a_character(&mut piece, &buffer, cutting, lead.big_endian_by_mark);
        file.waiting_since = None;
        file.mark(piece.offset, &buffer[..piece.span]);
        let sum = crc32c::crc32c(&buffer[..piece.span]);
        file.remember(Tail { offset: piece.offset, span: piece.span as u64, sum });
        file.line_bytes =
            (piece.span as u64).checked_div(piece.lines).map_or(file.line_bytes, |bytes| bytes.max(1));
        file.split = piece.split.then(|| SplitAt::after(&lead, piece.span as u64));
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
        let Source { settings, cutting, body, .. } = &self.sources[file.source];
        recut::lead(file.handle()?, offset, cutting, body, settings.long_lines, file.split)
    }

    /// Whether a file of a source that goes by byte order marks has that of big-endian UTF-16.
    pub(super) fn is_big_endian_by_mark(&self, source: usize, handle: &File) -> io::Result<bool> {
        recut::is_big_endian_by_mark(handle, self.sources[source].cutting.encoding())
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
    pub(super) fn resend(&mut self, number: FileNumber, id: StreamId, cut: Cut) -> io::Result<Worked> {
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
            // As it was cut, an end that never came counts as one.
            let newline = self.sources[source].cutting.encoding().newline(lead.big_endian_by_mark);
            let (bytes, at) = (&buffer[..span], cut.offset);
            let unended = newline.last(bytes, at) != Some(span) && cut.lines > newline.count(bytes, at);
            let lead = Lead { unended, ..*lead };
            counter!("logferry_tailer_packs_resent_total").increment(1);
            self.spend(source, cut.span);
            // As after a pack that is new: should the file be cut and filled again, these bytes tell, where its first line is the same.
            if let Some(file) = self.files.get_mut(&number) {
                let ends_within = newline.last(&buffer[..span], at).is_none();
                file.split = ends_within.then(|| SplitAt::after(&lead, cut.span));
            }
            if let Some(file) = self.files.get_mut(&number)
                && file.end_mark.is_none_or(|mark| mark.offset < cut.offset)
            {
                file.mark(cut.offset, &buffer[..span]);
            }
            self.dispatch(id, cut, lead, buffer);
            return Ok(Worked::Again);
        }
        self.give_back(buffer);
        read.and(lead)?;
        self.content_changed(number, id)
    }
}
