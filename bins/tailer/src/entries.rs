//! Entries: lines that belong together, such as a stack trace and the line that it follows.

use crate::config::SourceSettings;
use crate::encoding::TextEncoding;
use regex::bytes::{Regex, RegexBuilder};
use std::time::Duration;

/// Which lines of a source begin an entry.
#[derive(Clone, Debug)]
pub struct Entries {
    first_lines: Regex,
    /// The expression matches the other lines instead.
    is_of_others: bool,
    bytes_max: usize,
    encoding: TextEncoding,
    /// Silence after which an entry counts as whole.
    pub timeout: Duration,
}

/// An entry as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenEntry {
    /// Length in bytes; 0: there is none.
    pub bytes: usize,
    /// Number of lines.
    pub lines: u64,
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It belongs to the entry before it, or nothing is before it.
    Within,
    /// It begins an entry.
    First,
    /// The entry before it would be too long with it: it begins another.
    Over,
}

impl Entries {
    /// The entries of a source; `None` where each line is one.
    ///
    /// # Errors
    /// A setting that cannot be understood, with its name.
    pub fn new(settings: &SourceSettings) -> Result<Option<Entries>, String> {
        let SourceSettings { name, multiline, .. } = settings;
        let (setting, expression) = match (multiline.start.as_str(), multiline.continuation.as_str()) {
            ("", "") => return Ok(None),
            (start, "") => ("start", start),
            ("", continuation) => ("continuation", continuation),
            _ => {
                return Err(format!(
                    "source.multiline.continuation of \"{name}\": start is there as well, and one of them decides: leave one out"
                ));
            }
        };
        let first_lines = RegexBuilder::new(expression).unicode(false).build().map_err(|error| {
            format!("source.multiline.{setting} of \"{name}\": {}", error.to_string().replace('\n', " "))
        })?;
        Ok(Some(Entries {
            first_lines,
            is_of_others: setting == "continuation",
            bytes_max: multiline.max_bytes.0 as usize,
            encoding: encoding_of(settings)?,
            timeout: multiline.timeout.0,
        }))
    }

    /// Longest entry of several lines, in bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Places a whole line, which stands at `offset` of its file, behind an entry.
    pub fn place(&self, open: OpenEntry, line: &[u8], offset: u64, big_endian_by_mark: bool) -> Place {
        if open.bytes == 0 {
            Place::Within
        } else if self.begins(line, offset, big_endian_by_mark) {
            Place::First
        } else if open.bytes + line.len() > self.bytes_max {
            Place::Over
        } else {
            Place::Within
        }
    }

    fn begins(&self, line: &[u8], offset: u64, big_endian_by_mark: bool) -> bool {
        let (text, _) = self.encoding.text(line, offset, big_endian_by_mark);
        self.first_lines.is_match(without_newline(&text)) != self.is_of_others
    }
}

impl OpenEntry {
    /// The entry with one more line; one of that line where it does not belong to it.
    pub fn with(self, place: Place, line: &[u8]) -> OpenEntry {
        let before = if place == Place::Within { self } else { OpenEntry::default() };
        OpenEntry { bytes: before.bytes + line.len(), lines: before.lines + 1 }
    }
}

/// What expressions are matched against: a line or an entry without its newline and a carriage return before it.
pub fn without_newline(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// The encoding of a source.
///
/// # Errors
/// A label that is not known or cannot be used.
pub fn encoding_of(settings: &SourceSettings) -> Result<TextEncoding, String> {
    TextEncoding::of_label(&settings.encoding)
        .map_err(|error| format!("source.encoding of \"{}\": {error}", settings.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(change: impl FnOnce(&mut SourceSettings)) -> Result<Option<Entries>, String> {
        let mut settings = SourceSettings { name: "app".into(), ..Default::default() };
        change(&mut settings);
        Entries::new(&settings)
    }

    #[test]
    fn a_line_begins_an_entry_where_start_matches_or_continuation_does_not() {
        let open = OpenEntry { bytes: 10, lines: 1 };
        let by_start = entries(|s| s.multiline.start = r"^\d".into()).expect("good").expect("entries");
        let by_other = entries(|s| s.multiline.continuation = r"^\s".into()).expect("good").expect("entries");
        for (line, of_start, of_other) in [
            (&b"2026 one\r\n"[..], Place::First, Place::First),
            (b"  at two\n", Place::Within, Place::Within),
            (b"three\n", Place::Within, Place::First),
        ] {
            assert_eq!(by_start.place(open, line, 10, false), of_start);
            assert_eq!(by_other.place(open, line, 10, false), of_other);
            assert_eq!(by_start.place(OpenEntry::default(), line, 0, false), Place::Within);
        }
    }

    #[test]
    fn expressions_see_text_whatever_the_encoding_of_the_file() {
        let change =
            |s: &mut SourceSettings| (s.encoding, s.multiline.start) = ("utf-16be".into(), "^é".into());
        let entries = entries(change).expect("good").expect("entries");
        let open = OpenEntry { bytes: 10, lines: 1 };
        assert_eq!(entries.place(open, b"\0\xe9\0\n", 10, false), Place::First);
        assert_eq!(entries.place(open, b"\0e\0\n", 10, false), Place::Within);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_setting() {
        assert!(entries(|_| ()).is_ok_and(|entries| entries.is_none()));
        assert!(
            entries(|s| s.multiline.start = "(".into())
                .expect_err("open group")
                .contains("source.multiline.start")
        );
        let both =
            |s: &mut SourceSettings| (s.multiline.start, s.multiline.continuation) = ("a".into(), "b".into());
        assert!(entries(both).expect_err("two").contains("source.multiline.continuation"));
    }
}
