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

/// The rules of one source.
#[derive(Clone)]
pub struct BodyRules {
    filter: LineFilter,
    entries: Option<Entries>,
    encoding: TextEncoding,
    /// Length from which on lines are left out.
    line_bytes_max: Option<usize>,
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
    /// The file begins with the byte order mark of big-endian UTF-16.
    pub big_endian_by_mark: bool,
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
            replaced: count("logferry_tailer_characters_replaced_total"),
            long_lines: count("logferry_tailer_long_lines_dropped_total"),
            long_lines_bytes: count("logferry_tailer_long_lines_dropped_bytes_total"),
        })
    }

    /// The body of a pack of these bytes.
    pub fn body<'a>(&self, bytes: &'a [u8], lead: Lead) -> Body<'a> {
        let text = match &self.entries {
            Some(entries) if self.filter.is_set() => Cow::Owned(self.chosen_entries(entries, bytes, lead)),
            _ => self.chosen_lines(bytes, lead),
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

    fn text<'a>(&self, bytes: &'a [u8], offset: u64, lead: Lead) -> Cow<'a, [u8]> {
        let (text, replaced) = self.encoding.text(bytes, offset, lead.big_endian_by_mark);
        self.replaced.increment(replaced);
        text
    }

    fn without_long_lines<'a>(&self, bytes: &'a [u8], lead: Lead, max: usize) -> Cow<'a, [u8]> {
        let newline = self.encoding.newline(lead.big_endian_by_mark);
        // Nothing that is shorter holds a line that is too long.
        if lead.line_bytes_before + bytes.len() < max {
            return bytes.into();
        }
        let mut kept: Option<Vec<u8>> = None;
        for line in Lines::new(bytes, newline, lead.offset) {
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
        let (mut entry, mut entry_at) = (Vec::new(), lead.offset);
        let mut open = OpenEntry::default();
        let newline = self.encoding.newline(lead.big_endian_by_mark);
        for line in Lines::new(bytes, newline, lead.offset) {
            let offset = lead.offset + line.at as u64;
            let place = entries.place(open, line.bytes, offset, lead.big_endian_by_mark);
            if place != Place::Within {
                self.choose_entry(&entry, entry_at, open.lines, lead, &mut chosen);
                (entry_at, _) = (offset, entry.clear());
            }
            open = open.with(place, line.bytes);
            if !self.line_bytes_max.is_some_and(|max| self.is_long(line, lead, max)) {
                entry.extend_from_slice(line.bytes);
            }
        }
        self.choose_entry(&entry, entry_at, open.lines, lead, &mut chosen);
        chosen
    }

    fn choose_entry(&self, entry: &[u8], offset: u64, lines: u64, lead: Lead, chosen: &mut Vec<u8>) {
        let text = self.text(entry, offset, lead);
        if !entry.is_empty() && self.filter.takes_entry(&text, lines) {
            chosen.extend_from_slice(&text);
        }
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
}
