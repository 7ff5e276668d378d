//! Which lines of a source are shipped: `include` and `exclude`. The pack still stands for all the bytes of the file that it
//! was cut from; only its body is shorter.

use crate::config::SourceSettings;
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

/// The lines that are left.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// Their bytes.
    pub bytes: Cow<'a, [u8]>,
    /// Their number, where it is not that of all lines.
    pub lines: Option<u64>,
    /// Their crc32c, where they are not all lines.
    pub sum: Option<u32>,
}

impl LineFilter {
    /// The choice of `settings`.
    ///
    /// # Errors
    /// An expression that cannot be understood, with the name of its setting.
    pub fn new(settings: &SourceSettings) -> Result<LineFilter, String> {
        let dropped = counter!("logferry_tailer_lines_filtered_total", "source" => settings.name.clone());
        Ok(LineFilter {
            include: set("include", &settings.include)?,
            exclude: set("exclude", &settings.exclude)?,
            dropped,
        })
    }

    /// The lines of `bytes` that are shipped. A line is matched without its newline and a carriage return before it. A line that was split
    /// because of its length is matched piece by piece.
    pub fn choose<'a>(&self, bytes: &'a [u8]) -> Chosen<'a> {
        if self.include.is_empty() && self.exclude.is_empty() {
            return Chosen { bytes: bytes.into(), lines: None, sum: None };
        }
        let mut kept = Vec::with_capacity(bytes.len());
        let (mut lines, mut dropped, mut rest) = (0, 0, bytes);
        while !rest.is_empty() {
            let (line, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1));
            rest = after;
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if self.takes(text.strip_suffix(b"\r").unwrap_or(text)) {
                kept.extend_from_slice(line);
                lines += u64::from(text.len() < line.len());
            } else {
                dropped += 1;
            }
        }
        self.dropped.increment(dropped);
        let sum = (kept.len() < bytes.len()).then(|| crc32c::crc32c(&kept));
        Chosen { bytes: kept.into(), lines: Some(lines), sum }
    }

    fn takes(&self, line: &[u8]) -> bool {
        (self.include.is_empty() || self.include.is_match(line)) && !self.exclude.is_match(line)
    }
}

/// Expressions over bytes: a line need not be UTF-8, so `.` is any byte, and `\w`, `\d`, `\s` and `(?i)` mean ASCII.
fn set(setting: &str, expressions: &[String]) -> Result<RegexSet, String> {
    RegexSetBuilder::new(expressions)
        .unicode(false)
        .build()
        .map_err(|error| format!("source.{setting}: {}", error.to_string().replace('\n', " ")))
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
    fn assert_chosen(include: &[&str], exclude: &[&str], bytes: &[u8], expected: &[u8], lines: u64) {
        let filter = filter(include, exclude).expect("good expressions");
        let sum = (expected != bytes).then(|| crc32c::crc32c(expected));
        assert_eq!(filter.choose(bytes), Chosen { bytes: expected.into(), lines: Some(lines), sum });
    }

    #[test]
    fn all_lines_are_taken_as_they_are_without_a_filter() {
        let chosen = filter(&[], &[]).expect("no expressions").choose(b"a\n\nb");
        assert_eq!(chosen, Chosen { bytes: Cow::Borrowed(b"a\n\nb"), lines: None, sum: None });
        assert!(matches!(chosen.bytes, Cow::Borrowed(_)));
    }

    #[test]
    fn a_line_is_taken_that_one_include_and_no_exclude_matches() {
        let log = b"GET /a\nPOST /b\r\nGET /health\n\n\xff GET\n";
        assert_chosen(&["GET"], &[], log, b"GET /a\nGET /health\n\xff GET\n", 3);
        assert_chosen(&[], &["/health$", "^$"], log, b"GET /a\nPOST /b\r\n\xff GET\n", 3);
        assert_chosen(&["^GET", "/b$"], &["health"], log, b"GET /a\nPOST /b\r\n", 2);
        assert_chosen(&["nothing"], &[], log, b"", 0);
    }

    #[test]
    fn bytes_that_are_no_text_are_matched_as_bytes() {
        assert_chosen(&[r"^.b\w"], &[], b"\xffb1\nxb\xff\n", b"\xffb1\n", 1);
        assert_chosen(&["été"], &[], "en été\nhiver\n".as_bytes(), "en été\n".as_bytes(), 1);
    }

    #[test]
    fn a_piece_without_a_newline_is_no_line_of_its_own() {
        assert_chosen(&["x"], &[], b"xxx", b"xxx", 0);
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_setting() {
        let error = filter(&[], &["("]).err().expect("an open group");
        assert!(error.starts_with("source.exclude: ") && error.contains("unclosed group"), "{error}");
    }
}
