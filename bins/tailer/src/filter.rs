//! Which lines or entries of a source are shipped: `include` and `exclude`.

use crate::config::SourceSettings;
use crate::entries::without_newline;
use memchr::memchr;
use metrics::{Counter, counter};
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::borrow::Cow;

/// The choice of one source.
#[derive(Clone)]
pub struct LineFilter {
    /// Empty: every line.
    include: RegexSet,
    exclude: RegexSet,
    dropped: Counter,
}

impl LineFilter {
    /// The choice of `settings`.
    ///
    /// # Errors
    /// An expression that cannot be understood, with the name of its setting.
    pub fn new(settings: &SourceSettings) -> Result<LineFilter, String> {
        let dropped = counter!("logferry_tailer_lines_filtered_total", "source" => settings.name.clone());
        Ok(LineFilter {
            include: set("include", &settings.name, &settings.include)?,
            exclude: set("exclude", &settings.name, &settings.exclude)?,
            dropped,
        })
    }

    /// The same choice, for lines that were counted already.
    pub(crate) fn uncounted(mut self) -> LineFilter {
        self.dropped = Counter::noop();
        self
    }

    /// Whether it leaves anything out.
    pub fn is_set(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// The lines of a text that are shipped. A line is matched without its newline and a carriage return before it.
    pub fn choose<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.is_set() {
            return text.into();
        }
        let mut kept = Vec::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (line, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1));
            rest = after;
            if self.takes_entry(line, 1) {
                kept.extend_from_slice(line);
            }
        }
        kept.into()
    }

    /// Whether an entry of so many lines is shipped. Counts it if not.
    pub fn takes_entry(&self, entry: &[u8], lines: u64) -> bool {
        let is_taken = self.takes(without_newline(entry));
        if !is_taken {
            self.dropped.increment(lines);
        }
        is_taken
    }

    /// The same without counting.
    pub fn would_take(&self, line: &[u8]) -> bool {
        self.takes(without_newline(line))
    }

    /// Counts lines that are not shipped.
    pub fn left_out(&self, lines: u64) {
        self.dropped.increment(lines);
    }

    fn takes(&self, line: &[u8]) -> bool {
        (self.include.is_empty() || self.include.is_match(line)) && !self.exclude.is_match(line)
    }
}

/// Expressions over bytes: a line need not be UTF-8, so `.` is any byte, and `\w`, `\d`, `\s` and `(?i)` mean ASCII.
fn set(setting: &str, name: &str, expressions: &[String]) -> Result<RegexSet, String> {
    RegexSetBuilder::new(expressions)
        .unicode(false)
        .build()
        .map_err(|error| format!("source.{setting} of \"{name}\": {}", error.to_string().replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Result<LineFilter, String> {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        LineFilter::new(&SourceSettings {
            name: "app".into(),
            include: list(include),
            exclude: list(exclude),
            ..Default::default()
        })
    }

    #[track_caller]
    fn assert_chosen(include: &[&str], exclude: &[&str], bytes: &[u8], expected: &[u8]) {
        let filter = filter(include, exclude).expect("good expressions");
        assert_eq!(filter.choose(bytes), expected);
    }

    #[test]
    fn all_lines_are_taken_as_they_are_without_a_filter() {
        let filter = filter(&[], &[]).expect("no expressions");
        assert!(matches!(filter.choose(b"a\n\nb"), Cow::Borrowed(b"a\n\nb")));
    }

    #[test]
    fn a_line_is_taken_that_one_include_and_no_exclude_matches() {
        let log = b"GET /a\nPOST /b\r\nGET /health\n\n\xff GET\n";
        assert_chosen(&["GET"], &[], log, b"GET /a\nGET /health\n\xff GET\n");
        assert_chosen(&[], &["/health$", "^$"], log, b"GET /a\nPOST /b\r\n\xff GET\n");
        assert_chosen(&["^GET", "/b$"], &["health"], log, b"GET /a\nPOST /b\r\n");
        assert_chosen(&["nothing"], &[], log, b"");
    }

    #[test]
    fn bytes_that_are_no_text_are_matched_as_bytes() {
        assert_chosen(&[r"^.b\w"], &[], b"\xffb1\nxb\xff\n", b"\xffb1\n");
        assert_chosen(&["été"], &[], "en été\nhiver\n".as_bytes(), "en été\n".as_bytes());
    }

    #[test]
    fn a_piece_without_a_newline_is_no_line_of_its_own() {
        assert_chosen(&["x"], &[], b"xxx", b"xxx");
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_setting() {
        let error = filter(&[], &["("]).err().expect("an open group");
        assert!(error.starts_with("source.exclude of \"") && error.contains("unclosed group"), "{error}");
    }
}
