//! What of the bytes of a pack goes into its body: `long_lines`, `encoding`, `include` and `exclude`. The pack still stands for
//! all the bytes of the file that it was cut from.
//!
//! Bodies depend on nothing but the bytes of the file and the settings: a pack that is cut again after a crash has the same.

use crate::config::{LongLines, SourceSettings};
use crate::encoding::{Newline, TextEncoding};
use crate::entries::{Entries, OpenEntry, Place, encoding_of};
use crate::filter::LineFilter;
use metrics::{Counter, counter};
use std::borrow::Cow;
use std::ops::Range;

mod split;

pub use split::SplitLine;

/// The rules of one source.
#[derive(Clone)]
pub struct BodyRules {
    filter: LineFilter,
    entries: Option<Entries>,
    encoding: TextEncoding,
    /// Length from which on lines are left out.
    line_bytes_max: Option<usize>,
    /// So many of the first bytes of a line decide whether it is shipped: it may be split behind them.
    judged_bytes: usize,
    replaced: Counter,
    long_lines: Counter,
    long_lines_bytes: Counter,
}

/// What the file says of a pack beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lead {
    /// Offset of the pack in the file.
    pub offset: u64,
    /// Bytes of the pack's first line that stand before the pack; no more of them are counted than make it too long.
    pub line_bytes_before: usize,
    /// The line that the pack begins within, where it was split and matters.
    pub line: Option<SplitLine>,
    /// The file begins with the byte order mark of big-endian UTF-16.
    pub big_endian_by_mark: bool,
    /// The pack's last line has no end, and none will come: its body gets one, because what is stored behind it is of another file.
    pub unended: bool,
}

/// What a body holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// Number of its lines, where it is not that of all lines.
    pub lines: Option<u64>,
    /// crc32c, where they are not the bytes of the file.
    pub sum: Option<u32>,
}

impl BodyRules {
    /// The rules that `settings` make; `line_bytes` is `max_line`.
    ///
    /// # Errors
    /// A setting that cannot be understood, with its name.
    pub fn new(settings: &SourceSettings, line_bytes: usize) -> Result<BodyRules, String> {
        let count = |name: &'static str| counter!(name, "source" => settings.name.clone());
        Ok(BodyRules {
            filter: LineFilter::new(settings)?,
            entries: Entries::new(settings)?,
            encoding: encoding_of(settings)?,
            line_bytes_max: (settings.long_lines == LongLines::Drop).then_some(line_bytes),
            judged_bytes: line_bytes,
            replaced: count("logferry_tailer_characters_replaced_total"),
            long_lines: count("logferry_tailer_long_lines_dropped_total"),
            long_lines_bytes: count("logferry_tailer_long_lines_dropped_bytes_total"),
        })
    }

    /// The same rules, for bytes that were counted when they went out first.
    pub(crate) fn uncounted(mut self) -> BodyRules {
        self.filter = self.filter.uncounted();
        for counter in [&mut self.replaced, &mut self.long_lines, &mut self.long_lines_bytes] {
            *counter = Counter::noop();
        }
        self
    }

    /// Bodies are the bytes of the file.
    pub fn are_verbatim(&self) -> bool {
        !self.filter.is_set() && self.encoding == TextEncoding::Verbatim && self.line_bytes_max.is_none()
    }

    /// Entries are chosen as a whole, so that a body depends on where its first entry begins.
    pub fn choose_entries(&self) -> bool {
        self.filter.is_set() && self.entries.is_some()
    }

    /// The body of a pack of these bytes.
    pub fn body<'a>(&self, bytes: &'a [u8], lead: Lead) -> Body<'a> {
        let text = match &self.entries {
            Some(entries) if self.filter.is_set() => Cow::Owned(self.chosen_entries(entries, bytes, lead)),
            _ => self.chosen_lines(bytes, lead),
        };
        let text = match lead.unended && text.last().is_some_and(|last| *last != b'\n') {
            true => Cow::Owned([&text[..], b"\n"].concat()),
            false => text,
        };
        match text {
            // With a filter nothing can be told from the bytes being all there; without one they are as they were.
            Cow::Borrowed(bytes) => Body { bytes: bytes.into(), lines: None, sum: None },
            Cow::Owned(text) => {
                let lines = Some(bytecount::count(&text, b'\n') as u64);
                let sum = (text != bytes).then(|| crc32c::crc32c(&text));
                Body { bytes: text.into(), lines, sum }
            }
        }
    }

    fn chosen_lines<'a>(&self, bytes: &'a [u8], lead: Lead) -> Cow<'a, [u8]> {
        let may_be_long = bytes.len() >= self.judged_bytes || lead.line.is_some();
        if may_be_long && self.judges_split_lines() {
            let mut kept = Vec::with_capacity(bytes.len());
            for line in self.lines(bytes, lead) {
                let text = self.text(line.bytes, lead.offset + line.at as u64, lead);
                if self.takes_line(line, &text, lead) {
                    kept.extend_from_slice(&text);
                }
            }
            return Cow::Owned(kept);
        }
        let short = match self.line_bytes_max {
            Some(max) => self.without_long_lines(bytes, lead, max),
            None => bytes.into(),
        };
        let text = match short {
            Cow::Borrowed(bytes) => self.text(bytes, lead.offset, lead),
            Cow::Owned(bytes) => Cow::Owned(self.text(&bytes, lead.offset, lead).into_owned()),
        };
        match text {
            Cow::Borrowed(bytes) => self.filter.choose(bytes),
            Cow::Owned(text) => Cow::Owned(self.filter.choose(&text).into_owned()),
        }
    }

    fn takes_line(&self, line: Line<'_>, text: &[u8], lead: Lead) -> bool {
        match self.judged_by_first_part(line, lead) {
            Some(false) => {
                self.count_left_out(line, lead, 1);
                false
            }
            Some(true) => true,
            None => self.filter.takes_entry(text, 1),
        }
    }

    fn text<'a>(&self, bytes: &'a [u8], offset: u64, lead: Lead) -> Cow<'a, [u8]> {
        let (text, replaced) = self.encoding.text(bytes, offset, lead.big_endian_by_mark);
        self.replaced.increment(replaced);
        text
    }

    fn without_long_lines<'a>(&self, bytes: &'a [u8], lead: Lead, max: usize) -> Cow<'a, [u8]> {
        // Nothing that is shorter holds a line that is too long.
        if lead.line_bytes_before + bytes.len() < max {
            return bytes.into();
        }
        let mut kept: Option<Vec<u8>> = None;
        for line in self.lines(bytes, lead) {
            let is_long = self.is_long(line, lead, max);
            match &mut kept {
                None if is_long => kept = Some(bytes[..line.at].to_vec()),
                Some(kept) if !is_long => kept.extend_from_slice(line.bytes),
                _ => {}
            }
        }
        kept.map_or(bytes.into(), Cow::Owned)
    }

    /// Whether a line, at index `at` of the pack, is left out because of its length; counts it.
    fn is_long(&self, Line { at, bytes: line, ended_by }: Line<'_>, lead: Lead, max: usize) -> bool {
        let before = if at == 0 { lead.line_bytes_before } else { 0 };
        let is_long = before + line.len() >= max + ended_by;
        if is_long {
            // What comes in later packs is of a line that was counted.
            self.long_lines.increment(u64::from(before < max));
            self.long_lines_bytes.increment(line.len() as u64);
        }
        is_long
    }

    fn chosen_entries(&self, entries: &Entries, bytes: &[u8], lead: Lead) -> Vec<u8> {
        let mut chosen = Vec::with_capacity(bytes.len());
        self.each_chosen_entry(entries, bytes, lead, |text, _| chosen.extend_from_slice(text));
        chosen
    }

    /// The text of each entry that is shipped, and where its lines are in the pack.
    fn each_chosen_entry(
        &self,
        entries: &Entries,
        bytes: &[u8],
        lead: Lead,
        mut take: impl FnMut(&[u8], &[Range<usize>]),
    ) {
        let (mut entry, mut lines, mut entry_at) = (Vec::new(), Vec::new(), lead.offset);
        // The first line of the entry, and what it decides.
        let mut first: Option<(Line<'_>, Option<bool>)> = None;
        let mut choose = |entry: &[u8], offset: u64, count: u64, lines: &[Range<usize>], first: Option<_>| {
            let text = self.text(entry, offset, lead);
            let is_taken = match first {
                Some((_, Some(true))) => true,
                Some((line, Some(false))) => {
                    self.count_left_out(line, lead, count);
                    false
                }
                _ => !entry.is_empty() && self.filter.takes_entry(&text, count),
            };
            if is_taken && !entry.is_empty() {
                take(&text, lines);
            }
        };
        let mut open = OpenEntry::default();
        for line in self.lines(bytes, lead) {
            let offset = lead.offset + line.at as u64;
            let place = entries.place(open, line.bytes, offset, lead.big_endian_by_mark);
            if place != Place::Within {
                choose(&entry, entry_at, open.lines, &lines, first.take());
                (entry_at, _, _) = (offset, entry.clear(), lines.clear());
            }
            first.get_or_insert_with(|| (line, self.judged_by_first_part(line, lead)));
            open = open.with(place, line.bytes);
            if !self.line_bytes_max.is_some_and(|max| self.is_long(line, lead, max)) {
                entry.extend_from_slice(line.bytes);
                lines.push(line.range());
            }
        }
        choose(&entry, entry_at, open.lines, &lines, first);
    }

    /// The body once more, line by line: where each line is in the file, and its text. A piece of a line that was split is told on its
    /// own.
    pub fn each_line(&self, bytes: &[u8], lead: Lead, mut take: impl FnMut(Range<u64>, &[u8])) {
        let mut take_text = |range: &Range<usize>| {
            let (from, to) = (lead.offset + range.start as u64, lead.offset + range.end as u64);
            take(from..to, &self.text(&bytes[range.clone()], from, lead));
        };
        if let Some(entries) = self.entries.as_ref().filter(|_| self.filter.is_set()) {
            return self.each_chosen_entry(entries, bytes, lead, |_, lines| {
                lines.iter().for_each(&mut take_text);
            });
        }
        for line in self.lines(bytes, lead) {
            if self.line_bytes_max.is_some_and(|max| self.is_long(line, lead, max)) {
                continue;
            }
            let text = self.text(line.bytes, lead.offset + line.at as u64, lead);
            if !text.is_empty() && self.takes_line(line, &text, lead) {
                take_text(&line.range());
            }
        }
    }

    /// Where the bytes of a pack can be parted in two, near their middle, so that the two bodies are what its own is; `None` where they
    /// cannot.
    pub fn middle(&self, bytes: &[u8], lead: Lead) -> Option<usize> {
        let entries = self.entries.as_ref().filter(|_| self.filter.is_set());
        let (half, mut before, mut open) = (bytes.len() / 2, None, OpenEntry::default());
        for line in self.lines(bytes, lead) {
            let offset = lead.offset + line.at as u64;
            let place =
                entries.map(|entries| entries.place(open, line.bytes, offset, lead.big_endian_by_mark));
            open = open.with(place.unwrap_or(Place::First), line.bytes);
            if line.at > 0 && place != Some(Place::Within) {
                before = Some(line.at);
                if line.at >= half {
                    break;
                }
            }
        }
        before
    }

    fn lines<'a>(&self, bytes: &'a [u8], lead: Lead) -> Lines<'a> {
        Lines::new(bytes, self.encoding.newline(lead.big_endian_by_mark), lead.offset)
    }
}

/// A line of a pack.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// Index in the pack.
    at: usize,
    /// With its newline, if it has one.
    bytes: &'a [u8],
    /// Length of the newline; 0: it has none.
    ended_by: usize,
}

impl Line<'_> {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.bytes.len()
    }
}

/// The lines of a pack.
struct Lines<'a> {
    bytes: &'a [u8],
    newline: Newline,
    offset: u64,
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8], newline: Newline, offset: u64) -> Lines<'a> {
        Lines { bytes, newline, offset, at: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let (at, rest) = (self.at, &self.bytes[self.at..]);
        let end = self.newline.first(rest, self.offset + at as u64);
        let bytes = &rest[..end.unwrap_or(rest.len())];
        self.at += bytes.len();
        let ended_by = if end.is_some() { self.newline.length() } else { 0 };
        (!bytes.is_empty()).then_some(Line { at, bytes, ended_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(line_bytes: usize, change: impl FnOnce(&mut SourceSettings)) -> BodyRules {
        let mut settings = SourceSettings { name: "app".into(), ..Default::default() };
        change(&mut settings);
        BodyRules::new(&settings, line_bytes).expect("good settings")
    }

    #[test]
    fn without_a_setting_the_bytes_are_the_body() {
        let body = rules(4, |_| ()).body(b"a longer line\n\xff\n", Lead::default());
        assert_eq!(body, Body { bytes: Cow::Borrowed(b"a longer line\n\xff\n"), lines: None, sum: None });
        assert!(matches!(body.bytes, Cow::Borrowed(_)));
    }

    #[test]
    fn a_body_that_is_not_the_bytes_has_its_own_lines_and_sum() {
        let some = rules(4, |s| s.exclude = vec!["two".into()]);
        let body = some.body(b"one\ntwo\n", Lead::default());
        assert_eq!(
            body,
            Body { bytes: b"one\n"[..].into(), lines: Some(1), sum: Some(crc32c::crc32c(b"one\n")) }
        );
        assert_eq!(some.body(b"one\n", Lead::default()).sum, None, "nothing was left out");
        let latin = rules(4, |s| s.encoding = "latin1".into());
        assert_eq!(&*latin.body(b"caf\xe9\n", Lead::default()).bytes, "café\n".as_bytes());
        assert_eq!(latin.body(b"cafe\n", Lead::default()).sum, None);
    }

    #[test]
    fn entries_are_chosen_as_a_whole() {
        let rules = rules(100, |s| {
            s.multiline.start = "^#".into();
            s.include = vec!["Timeout".into()];
        });
        let log = b" rest of Timeout\n#one\n at a\n#two\n Timeout\n at b\n#three Timeout\n";
        let body = rules.body(log, Lead::default());
        assert_eq!(
            body.bytes.escape_ascii().to_string(),
            r" rest of Timeout\n#two\n Timeout\n at b\n#three Timeout\n"
        );
        assert_eq!(body.lines, Some(5));
    }

    /// Text with lines of all lengths, in pieces as the cutter makes them: after a newline, or within a line that is too long.
    fn pieces(bytes: &[u8], max: usize, sizes: &[usize], newline: Newline) -> Vec<(usize, usize)> {
        let (mut pieces, mut at, mut sizes) = (Vec::new(), 0, sizes.iter().cycle());
        while at < bytes.len() {
            let wish = (at + sizes.next().expect("endless")).min(bytes.len());
            let end = match newline.last(&bytes[at..wish], at as u64) {
                Some(end) => at + end,
                None => newline
                    .first(&bytes[at..(at + max).min(bytes.len())], at as u64)
                    .map_or((at + max).min(bytes.len()), |end| at + end),
            };
            pieces.push((at, end));
            at = end;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn lines_that_are_too_long_are_dropped_whole_wherever_they_are_cut(
            lengths in prop::collection::vec(prop_oneof![8 => 0usize..12, 1 => 10usize..100], 0..40),
            sizes in prop::collection::vec(1usize..60, 1..20), wide in any::<bool>(), ends in any::<bool>(),
        ) {
            let max = 20;
            let mut text: String = lengths.iter().enumerate().map(|(n, length)| format!("{}\n", char::from(b'a' + (n % 26) as u8).to_string().repeat(*length))).collect();
            if !ends {
                text.pop();
            }
            let units = if wide { 2 } else { 1 };
            let bytes: Vec<u8> = if wide { text.encode_utf16().flat_map(u16::to_le_bytes).collect() } else { text.clone().into_bytes() };
            let rules = rules(max, |s| {
                s.long_lines = LongLines::Drop;
                s.encoding = if wide { "utf-16le" } else { "utf-8" }.into();
            });
            let newline = rules.encoding.newline(false);
            let mut file = tempfile::tempfile().expect("a file");
            std::io::Write::write_all(&mut file, &bytes).expect("written");
            let mut body = Vec::new();
            for (at, end) in pieces(&bytes, max, &sizes, newline) {
                let line_bytes_before = crate::files::line_bytes_before(&file, at as u64, max, newline).expect("read");
                let lead = Lead { offset: at as u64, line_bytes_before, ..Lead::default() };
                body.extend(rules.body(&bytes[at..end], lead).bytes.into_owned());
            }
            let short = |line: &&str| line.trim_end_matches('\n').len() * units < max;
            let expected: String = text.split_inclusive('\n').filter(short).collect();
            prop_assert_eq!(String::from_utf8(body).expect("text"), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// With every rule there is, and bytes that break lines and characters in all ways.
        #[test]
        fn the_lines_of_a_body_are_the_body_and_its_halves_make_it_up(
            bytes in prop::collection::vec(prop::sample::select(&b"ab7#\n\n\xe9\0"[..]), 0..120),
            encoding in prop::sample::select(&["utf-8", "latin1", "utf-16le"][..]),
            drop in any::<bool>(), chosen in any::<bool>(), entries in any::<bool>(), units in 0u64..20,
        ) {
            let rules = rules(12, |s| {
                s.encoding = encoding.into();
                s.long_lines = if drop { LongLines::Drop } else { LongLines::Split };
                if chosen {
                    s.include = vec!["7".into()];
                }
                if entries {
                    s.multiline.start = "^#".into();
                }
            });
            let lead = Lead { offset: units * 2, ..Lead::default() };
            let body = rules.body(&bytes, lead).bytes.into_owned();
            let (mut told, mut end) = (Vec::new(), lead.offset);
            rules.each_line(&bytes, lead, |range, text| {
                assert!(range.start >= end && range.end <= lead.offset + bytes.len() as u64);
                end = range.end;
                told.extend_from_slice(text);
            });
            prop_assert_eq!(told.escape_ascii().to_string(), body.escape_ascii().to_string());
            if let Some(middle) = rules.middle(&bytes, lead) {
                prop_assert!(middle > 0 && middle < bytes.len());
                let mut halves = rules.body(&bytes[..middle], lead).bytes.into_owned();
                let second = Lead { offset: lead.offset + middle as u64, ..lead };
                halves.extend_from_slice(&rules.body(&bytes[middle..], second).bytes);
                prop_assert_eq!(halves.escape_ascii().to_string(), body.escape_ascii().to_string());
            } else {
                prop_assert!(rules.choose_entries() || rules.lines(&bytes, lead).count() < 2);
            }
        }
    }
}
