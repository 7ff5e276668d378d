//! Where a pack ends: after the last newline of what was read, or before the last line that begins an entry. Pure; the caller
//! does the reading.
//!
//! A last line without its newline waits in the file, and so does a last entry until the next one begins. How far they were looked
//! through is remembered, so that a long line that is written in small pieces is not looked through again for each piece.

mod multiline;
#[cfg(test)]
mod tests;

use crate::encoding::{Newline, TextEncoding};
use crate::entries::{Entries, OpenEntry};

/// An unfinished line up to this length is read again when there is more of it; a longer one only when its end is there.
const REREAD_BYTES_MAX: u64 = 4 << 10;

/// Bytes of one code unit of UTF-16.
const CODE_UNIT_BYTES_MAX: usize = 2;

/// How large packs get.
#[derive(Clone, Copy, Debug)]
pub struct CutLimits {
    /// Bytes of a pack of several lines.
    pub pack_bytes: usize,
    /// Length at which a line without an end is split.
    pub line_bytes: usize,
    /// Lines of a pack; 0: no limit.
    pub lines: u64,
}

impl CutLimits {
    /// Size of the buffer that holds any one pack.
    pub fn buffer_bytes(&self) -> usize {
        self.pack_bytes.max(self.line_bytes)
    }
}

/// How the files of a source are cut.
#[derive(Clone, Debug)]
pub struct Cutting {
    limits: CutLimits,
    encoding: TextEncoding,
    entries: Option<Entries>,
    buffer_bytes: usize,
}

impl Cutting {
    /// Lines that end with the byte 0A, each on its own.
    pub fn of_lines(limits: CutLimits) -> Cutting {
        Cutting::new(limits, TextEncoding::Verbatim, None, limits.buffer_bytes())
    }

    /// `buffer_bytes` is the size of the buffer, at least [`Cutting::buffer_bytes_min`].
    pub fn new(
        limits: CutLimits,
        encoding: TextEncoding,
        entries: Option<Entries>,
        buffer_bytes: usize,
    ) -> Cutting {
        Cutting { limits, encoding, entries, buffer_bytes }
    }

    /// Size of the buffer that holds any one pack, and behind the longest entry, or the longest first line of one, so much more that it is
    /// seen to be over.
    pub fn buffer_bytes_min(limits: &CutLimits, entries: Option<&Entries>) -> usize {
        let bytes = limits.buffer_bytes();
        entries.map_or(bytes, |entries| bytes.max(entries.bytes_max()) + CODE_UNIT_BYTES_MAX)
    }

    /// Which lines belong together, if not each is on its own.
    pub fn entries(&self) -> Option<&Entries> {
        self.entries.as_ref()
    }

    /// What the bytes are.
    pub fn encoding(&self) -> TextEncoding {
        self.encoding
    }

    /// Length at which a line without an end is split.
    pub fn line_bytes(&self) -> usize {
        self.limits.line_bytes
    }

    /// Size of the buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }
}

/// Position in one stream. Stream offsets are file offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cutter {
    at: u64,
    scanned: u64,
    /// The entry at `at`, as far as its lines are whole; within what was looked through.
    open: OpenEntry,
    /// The unfinished line behind it has its end by now.
    has_line_end: bool,
}

/// Which bytes to read before [`Cutter::look`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// File offset to read from.
    pub offset: u64,
    /// Where the first of them goes in the buffer.
    pub start: usize,
    /// Where the last of them may end in the buffer.
    pub end: usize,
}

/// What a look at new bytes found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// No end of a line yet.
    Partial,
    /// The end of a line whose beginning is not in the buffer: read again.
    Again,
    /// A pack may be cut.
    Cut(Piece),
}

/// The bytes of one pack: `span` bytes from the start of the buffer, of which the first `unread` are known to hold
/// no newline and are still to be read from the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: usize,
    /// Bytes at the front of the buffer that were not read this time.
    pub unread: usize,
    /// Number of lines.
    pub lines: u64,
    /// A line longer than the limit was split.
    pub split: bool,
    /// Its last line has no end, and none will come.
    pub unended: bool,
    /// Entries that were cut because they were longer than the limit.
    pub entries_cut: u64,
}

impl Cutter {
    /// Starts at `offset`.
    pub fn new(offset: u64) -> Cutter {
        Cutter { at: offset, scanned: 0, open: OpenEntry::default(), has_line_end: false }
    }

    /// Offset of the first byte that is in no pack yet.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the unfinished entry and line at [`Cutter::at`], as far as they were looked through.
    pub fn partial_bytes(&self) -> u64 {
        self.scanned
    }

    /// Bytes of whole lines that wait for the end of their entry.
    pub fn entry_bytes(&self) -> u64 {
        self.open.bytes as u64
    }

    /// Offset up to which the file was looked through.
    pub fn seen_to(&self) -> u64 {
        self.at + self.scanned
    }

    /// Whether a pack can be cut without another byte: an unfinished line is over the limit, or has its end.
    pub fn is_over(&self, cutting: &Cutting) -> bool {
        self.has_line_end || self.scanned >= cutting.limits.line_bytes as u64 && self.open.bytes == 0
    }

    /// What to read next. `bytes_wanted` is the wish for a pack, at most `pack_bytes`.
    pub fn window(&self, cutting: &Cutting, bytes_wanted: usize, big_endian_by_mark: bool) -> Window {
        let limits = &cutting.limits;
        let wanted = bytes_wanted.min(limits.pack_bytes) as u64;
        let end = match self.scanned {
            scanned if scanned < wanted => wanted as usize,
            scanned if scanned < limits.pack_bytes as u64 => limits.pack_bytes,
            _ => cutting.buffer_bytes,
        };
        let newline = cutting.encoding.newline(big_endian_by_mark);
        let scanned = newline.unit_start(self.seen_to()).max(self.at) - self.at;
        let open = self.open.bytes as u64;
        let is_near = self.scanned - open <= REREAD_BYTES_MAX;
        let start = if cutting.entries.is_some() && (is_near || self.has_line_end) { open } else { scanned };
        let start = (start as usize).min(cutting.buffer_bytes);
        Window { offset: self.at + start as u64, start, end }
    }

    /// Looks at `buffer[window.start..filled]`, which was just read, and moves on if a pack can be cut.
    pub fn look(
        &mut self,
        buffer: &[u8],
        window: Window,
        filled: usize,
        cutting: &Cutting,
        big_endian_by_mark: bool,
    ) -> Look {
        let fresh = &buffer[window.start..filled];
        if let Some(entries) = &cutting.entries {
            return self.look_for_entries(entries, fresh, window, cutting, big_endian_by_mark);
        }
        let limits = &cutting.limits;
        let newline = cutting.encoding.newline(big_endian_by_mark);
        let long_line = self.scanned >= limits.pack_bytes as u64;
        let end =
            if long_line { newline.first(fresh, window.offset) } else { newline.last(fresh, window.offset) };
        let Some(last) = end else {
            self.scanned = filled as u64;
            return self.split(limits);
        };
        let (end, lines) = limit_lines(fresh, window.offset, last, newline, limits);
        let piece = Piece {
            offset: self.at,
            span: window.start + end,
            unread: window.start,
            lines,
            split: false,
            unended: false,
            entries_cut: 0,
        };
        self.at += piece.span as u64;
        let nothing_more = end == last && !long_line;
        self.scanned = if nothing_more { (filled - piece.span) as u64 } else { 0 };
        Look::Cut(piece)
    }

    /// Takes the unfinished entry and line as they are, at the end of a file that will not grow any more. The caller has looked
    /// through all of the file before.
    pub fn flush(&mut self) -> Option<Piece> {
        let span = self.scanned as usize;
        if span == 0 {
            return None;
        }
        let unended = span > self.open.bytes;
        let lines = self.open.lines + u64::from(unended);
        let piece =
            Piece { offset: self.at, span, unread: span, lines, split: false, unended, entries_cut: 0 };
        *self = Cutter::new(self.at + span as u64);
        Some(piece)
    }

    /// Takes the whole lines of the unfinished entry, which was silent for long enough.
    pub fn close_entry(&mut self) -> Option<Piece> {
        (self.open.bytes > 0).then(|| self.take(self.open, self.open.bytes, 0))
    }

    /// Takes a piece of a line that was split to the end of a whole character; `bytes` are its bytes.
    pub fn end_with_a_character(
        &mut self,
        piece: &mut Piece,
        bytes: &[u8],
        cutting: &Cutting,
        big_endian_by_mark: bool,
    ) {
        if !piece.split {
            return;
        }
        let whole = cutting.encoding.whole_characters(&bytes[..piece.span], big_endian_by_mark);
        if whole < piece.span {
            piece.span = whole;
            *self = Cutter::new(piece.offset + whole as u64);
        }
    }

    fn split(&mut self, limits: &CutLimits) -> Look {
        if self.scanned < limits.line_bytes as u64 {
            return Look::Partial;
        }
        let span = limits.line_bytes;
        let piece = Piece {
            offset: self.at,
            span,
            unread: span,
            lines: 0,
            split: true,
            unended: false,
            entries_cut: 0,
        };
        self.at += span as u64;
        self.scanned -= span as u64;
        Look::Cut(piece)
    }

    /// Cuts off whole lines; `unread` of their bytes are not in the buffer.
    fn take(&mut self, lines: OpenEntry, unread: usize, entries_cut: u64) -> Piece {
        let span = lines.bytes;
        let unread = unread.min(span);
        let piece = Piece {
            offset: self.at,
            span,
            unread,
            lines: lines.lines,
            split: false,
            unended: false,
            entries_cut,
        };
        self.at += span as u64;
        self.scanned = self.scanned.saturating_sub(span as u64);
        (self.open, self.has_line_end) = (OpenEntry::default(), false);
        piece
    }
}

/// Index behind the newline to cut after, and the number of lines up to it.
fn limit_lines(fresh: &[u8], offset: u64, last: usize, newline: Newline, limits: &CutLimits) -> (usize, u64) {
    let lines = newline.count(&fresh[..last], offset);
    if limits.lines == 0 || lines <= limits.lines {
        return (last, lines);
    }
    (newline.nth(fresh, offset, limits.lines as usize - 1).unwrap_or(last), limits.lines)
}
