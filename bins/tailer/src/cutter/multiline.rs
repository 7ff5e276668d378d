//! Cutting before the last line that begins an entry.

use super::{CutLimits, Cutter, Cutting, Look, Window};
use crate::entries::{Entries, OpenEntry, Place};

impl Cutter {
    /// `fresh` was read from the end of the open entry on, or from further behind in its unfinished last line.
    pub(super) fn look_for_entries(
        &mut self,
        entries: &Entries,
        fresh: &[u8],
        window: Window,
        cutting: &Cutting,
        big_endian_by_mark: bool,
    ) -> Look {
        let newline = cutting.encoding.newline(big_endian_by_mark);
        self.has_line_end = false;
        if window.start > self.open.bytes {
            self.scanned = (window.start + fresh.len()) as u64;
            self.has_line_end = newline.first(fresh, window.offset).is_some();
            return if self.has_line_end { Look::Again } else { self.over(entries, &cutting.limits) };
        }
        let begun = self.open;
        let (mut at, mut lines, mut over) = (0, begun.lines, 0);
        // The last line that begins an entry: where it stands, how many lines and entries that were too long come before it.
        let mut last: Option<(usize, u64, u64)> = None;
        while let Some(length) = newline.first(&fresh[at..], window.offset + at as u64) {
            let line = &fresh[at..at + length];
            let place = entries.place(self.open, line, window.offset + at as u64, big_endian_by_mark);
            if place != Place::Within {
                over += u64::from(place == Place::Over);
                let is_full = begun.bytes + at > cutting.limits.pack_bytes
                    || cutting.limits.lines > 0 && lines > cutting.limits.lines;
                match last {
                    // What comes behind is looked at again with the next pack.
                    Some((end, lines, over)) if is_full => {
                        (self.open, self.scanned) = (OpenEntry { bytes: begun.bytes + end, lines }, 0);
                        return Look::Cut(self.take(self.open, window.start, over));
                    }
                    _ => last = Some((at, lines, over)),
                }
            }
            self.open = self.open.with(place, line);
            lines += 1;
            at += length;
        }
        self.scanned = (begun.bytes + fresh.len()) as u64;
        let Some((end, lines, over)) = last else { return self.over(entries, &cutting.limits) };
        let rest = self.open;
        let piece = self.take(OpenEntry { bytes: begun.bytes + end, lines }, window.start, over);
        self.open = rest;
        Look::Cut(piece)
    }

    /// Nothing begins another entry: perhaps this one is too long, or its first line.
    fn over(&mut self, entries: &Entries, limits: &CutLimits) -> Look {
        match self.open.bytes {
            0 => self.split(limits),
            _ if self.scanned >= entries.bytes_max() as u64 && self.scanned > self.open.bytes as u64 => {
                Look::Cut(self.take(self.open, self.open.bytes, 1))
            }
            _ => Look::Partial,
        }
    }
}
