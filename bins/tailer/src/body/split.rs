//! Long lines, which may be split over packs, are shipped or left out as a whole: their first part decides.

use super::{BodyRules, Lead, Line};

/// A line of which the first part is in another pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SplitLine {
    /// Offset in the file.
    pub begin: u64,
    /// It is shipped, all of it.
    pub is_taken: bool,
}

impl BodyRules {
    /// Whether lines that are split are chosen: then the first part of a line decides about what is in later packs.
    pub fn judges_split_lines(&self) -> bool {
        self.filter.is_set() && self.line_bytes_max.is_none()
    }

    /// How many of the first bytes of a line are enough to judge it.
    pub fn judged_bytes(&self) -> usize {
        self.judged_bytes
    }

    /// Whether a line that begins so, at this offset, is shipped. Counts nothing.
    pub fn takes_line_that_begins(&self, bytes: &[u8], offset: u64, big_endian_by_mark: bool) -> bool {
        let bytes = &bytes[..bytes.len().min(self.judged_bytes)];
        let whole = self.encoding.whole_characters(bytes, big_endian_by_mark);
        let (text, _) = self.encoding.text(&bytes[..whole], offset, big_endian_by_mark);
        self.filter.would_take(&text)
    }

    /// Whether a line is shipped, if that is told by its first part: it is long, or began in another pack.
    pub(super) fn judged_by_first_part(&self, line: Line<'_>, lead: Lead) -> Option<bool> {
        if !self.judges_split_lines() {
            return None;
        }
        if let Some(split) = lead.line.filter(|_| line.at == 0) {
            return Some(split.is_taken);
        }
        let content = &line.bytes[..line.bytes.len() - line.ended_by];
        let offset = lead.offset + line.at as u64;
        (content.len() >= self.judged_bytes)
            .then(|| self.takes_line_that_begins(content, offset, lead.big_endian_by_mark))
    }

    /// Counts a line, or lines of an entry, that are left out; what began in another pack was counted there.
    pub(super) fn count_left_out(&self, line: Line<'_>, lead: Lead, lines: u64) {
        let is_rest = line.at == 0 && lead.line.is_some();
        self.filter.left_out(lines - u64::from(is_rest));
    }
}
