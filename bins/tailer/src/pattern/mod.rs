//! Time patterns in paths: `access.log.<%Y%m%d%H>`. Pure: text to pattern, path to time, time to path.
//!
//! What stands between `<` and `>` is written by the clock: the directives below and literal text. Outside, `*`, `?`
//! and `[…]` are wildcards as in any glob. A path may have several patterns, in folder names too:
//!
//! ```
//! use logferry_tailer::pattern::PathPattern;
//! let pattern = PathPattern::parse("/log/<%Y-%m-%d>/app*.log.<%H>").expect("a good pattern");
//! let time = pattern.time_of("/log/2026-11-21/app-3.log.07".as_ref()).expect("it matches");
//! assert_eq!((time.hour.to_string().as_str(), time.minute), ("2026112107", 0));
//! assert_eq!(pattern.expand(time), "/log/2026-11-21/app*.log.07");
//! ```
//!
//! | directive | digits | what |
//! |---|---|---|
//! | `%Y` `%y` | 4, 2 | year; `%y` is 2000 to 2099 |
//! | `%m` `%d` | 2, 2 | month, day of the month |
//! | `%j` | 3 | day of the year, from 001 |
//! | `%H` `%M` | 2, 2 | hour, minute |

mod parse;
mod paths;

use jiff::civil::{Date, date};
use logferry_pack::Hour;
pub use parse::PatternError;
pub use paths::{PathsError, SourcePaths};
use regex::bytes::Regex;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The time in a file's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileTime {
    /// Hour.
    pub hour: Hour,
    /// Minute, 0 where the pattern has none.
    pub minute: u8,
}

/// A directive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Year,
    YearOfCentury,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
}

/// A piece of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Outside of patterns: wildcards count.
    Glob(String),
    /// Inside: text as it is.
    Literal(String),
    /// A directive.
    Field(Field),
}

/// A path, a glob, or one with time patterns.
#[derive(Clone, Debug)]
pub struct PathPattern {
    parts: Vec<Part>,
    glob: String,
    matcher: glob::Pattern,
    regex: Option<Regex>,
    has_hours: bool,
}

impl PathPattern {
    /// Reads a path as it is configured.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(path: &str) -> Result<PathPattern, PatternError> {
        let parts = parse::parts(path)?;
        let has_time = parts.iter().any(|part| matches!(part, Part::Field(_)));
        let has_hours = parts.contains(&Part::Field(Field::Hour));
        let regex = if has_time { Some(parse::regex(&parts)?) } else { None };
        let glob = parse::glob(&parts, |field| "[0-9]".repeat(field.digits()));
        // Each piece by itself too: a class must not end behind a time pattern.
        let pieces = parts.iter().filter_map(|part| match part {
            Part::Glob(text) => Some(text),
            _ => None,
        });
        for wildcards in pieces.chain([&glob]) {
            glob::Pattern::new(wildcards).map_err(|error| PatternError::Glob(error.to_string()))?;
        }
        let glob = if has_time { glob } else { path.to_owned() };
        let matcher = glob::Pattern::new(&glob).map_err(|error| PatternError::Glob(error.to_string()))?;
        Ok(PathPattern { parts, glob, matcher, regex, has_hours })
    }

    /// Whether the names of its files tell a time: at least the day.
    pub fn has_times(&self) -> bool {
        self.regex.is_some()
    }

    /// Whether the names of its files tell their hour, and not the day alone.
    pub fn has_hours(&self) -> bool {
        self.has_hours
    }

    /// A glob, or a plain path, that finds all files of the pattern, and perhaps others: ask [`PathPattern::admits`].
    pub fn glob(&self) -> &str {
        &self.glob
    }

    /// Whether a path that the glob found is a file of the pattern.
    pub fn admits(&self, path: &Path) -> bool {
        self.regex.is_none() || self.date_and_time_of(path).is_some()
    }

    /// Whether a look at the pattern finds a path.
    pub fn covers(&self, path: &Path) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        self.matcher.matches_with(&path.to_string_lossy(), options) && self.admits(path)
    }

    /// The hour and minute that a path names, of a day the first; `None` if it names none, or one that no calendar has.
    pub fn time_of(&self, path: &Path) -> Option<FileTime> {
        let (date, hour, minute) = self.date_and_time_of(path)?;
        let year = u16::try_from(date.year()).ok()?;
        let hour = Hour::new(year, date.month() as u8, date.day() as u8, hour).ok()?;
        Some(FileTime { hour, minute })
    }

    /// The path, or glob, of the files of one time.
    pub fn expand(&self, time: FileTime) -> String {
        let hour = time.hour;
        let day_of_year = day_of(hour).map_or(0, |date| date.day_of_year());
        parse::glob(&self.parts, |field| match field {
            Field::Year => format!("{:04}", hour.year()),
            Field::YearOfCentury => format!("{:02}", hour.year() % 100),
            Field::Month => format!("{:02}", hour.month()),
            Field::Day => format!("{:02}", hour.day()),
            Field::DayOfYear => format!("{day_of_year:03}"),
            Field::Hour => format!("{:02}", hour.hour()),
            Field::Minute => format!("{:02}", time.minute),
        })
    }

    fn date_and_time_of(&self, path: &Path) -> Option<(Date, u8, u8)> {
        let captures = self.regex.as_ref()?.captures(path.as_os_str().as_bytes())?;
        let fields = self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(*field),
            _ => None,
        });
        let mut found = Found::default();
        for (field, digits) in fields.zip(captures.iter().skip(1)) {
            let digits = std::str::from_utf8(digits?.as_bytes()).ok()?;
            found.put(field, digits.parse().ok()?)?;
        }
        found.resolve()
    }
}

fn day_of(hour: Hour) -> Option<Date> {
    Date::new(i16::try_from(hour.year()).ok()?, hour.month() as i8, hour.day() as i8).ok()
}

/// The numbers that a name has for the directives.
#[derive(Default)]
struct Found {
    year: Option<u16>,
    month: Option<u16>,
    day: Option<u16>,
    day_of_year: Option<u16>,
    hour: Option<u16>,
    minute: Option<u16>,
}

impl Found {
    /// `None` when a directive that comes twice says two things.
    fn put(&mut self, field: Field, number: u16) -> Option<()> {
        let (place, number) = match field {
            Field::Year => (&mut self.year, number),
            Field::YearOfCentury => (&mut self.year, 2000 + number),
            Field::Month => (&mut self.month, number),
            Field::Day => (&mut self.day, number),
            Field::DayOfYear => (&mut self.day_of_year, number),
            Field::Hour => (&mut self.hour, number),
            Field::Minute => (&mut self.minute, number),
        };
        (*place.get_or_insert(number) == number).then_some(())
    }

    fn resolve(&self) -> Option<(Date, u8, u8)> {
        let year = i16::try_from(self.year?).ok()?;
        let from_month = match (self.month, self.day) {
            (Some(month), Some(day)) => {
                Some(Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?)
            }
            _ => None,
        };
        let from_year = match self.day_of_year {
            Some(day) => {
                let first = (1..=9999).contains(&year).then(|| date(year, 1, 1))?;
                Some(first.with().day_of_year(i16::try_from(day).ok()?).build().ok()?)
            }
            None => None,
        };
        let day = match (from_month, from_year) {
            (Some(one), Some(other)) if one != other => return None,
            (one, other) => one.or(other)?,
        };
        let hour = u8::try_from(self.hour.unwrap_or(0)).ok().filter(|hour| *hour < 24)?;
        let minute = u8::try_from(self.minute.unwrap_or(0)).ok().filter(|minute| *minute < 60)?;
        Some((day, hour, minute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }
    fn time(pattern: &PathPattern, path: &str) -> Option<(String, u8)> {
        pattern.time_of(Path::new(path)).map(|time| (time.hour.to_string(), time.minute))
    }
    fn at(hour: &str, minute: u8) -> Option<(String, u8)> {
        Some((hour.to_owned(), minute))
    }

    #[test]
    fn names_are_matched_to_hours_and_minutes() {
        let hourly = pattern("/log/access.log.<%Y%m%d%H>");
        assert_eq!(time(&hourly, "/log/access.log.2026112107"), at("2026112107", 0));
        for other in [
            "/log/access.log",
            "/log/access.log.2026112107.gz",
            "/log/access.log.202611210",
            "/log/access.log.2026112124",
            "/log/access.log.2026113107",
            "/log/access_log.2026112107",
            "/log/x/access.log.2026112107",
        ] {
            assert_eq!(time(&hourly, other), None, "{other}");
            assert!(!hourly.admits(Path::new(other)), "{other}");
        }
        let minutes = pattern("a.<%y-%j_%H:%M>.log");
        assert_eq!(time(&minutes, "a.24-366_23:59.log"), at("2024123123", 59));
        assert_eq!(time(&minutes, "a.23-366_23:59.log"), None);
        assert_eq!(time(&minutes, "a.23-365_23:60.log"), None);
    }

    #[test]
    fn folders_may_have_patterns_and_the_rest_may_have_wildcards() {
        let both = pattern("/log/<%Y>/<%m.%d>/*-[ab]?.log.<%H>");
        assert_eq!(time(&both, "/log/2026/11.21/x-a1.log.09"), at("2026112109", 0));
        assert_eq!(time(&both, "/log/2026/11.21/x-c1.log.09"), None);
        assert_eq!(time(&both, "/log/2026/11x21/x-a1.log.09"), None);
        assert_eq!(time(&both, "/log/2026/11.21/y/x-a1.log.09"), None);
        let deep = pattern("/log/**/a.<%Y%m%d%H>");
        assert_eq!(time(&deep, "/log/x/y/a.2026112109"), at("2026112109", 0));
        assert_eq!(time(&deep, "/log/a.2026112109"), at("2026112109", 0));
    }

    #[test]
    fn a_directive_that_comes_twice_must_say_the_same() {
        let twice = pattern("/log/<%Y%m%d>/a.<%Y%m%d%H>");
        assert_eq!(time(&twice, "/log/20261121/a.2026112107"), at("2026112107", 0));
        assert_eq!(time(&twice, "/log/20261120/a.2026112107"), None);
        let days = pattern("a.<%j.%Y%m%d%H>");
        assert_eq!(time(&days, "a.032.2026020100"), at("2026020100", 0));
        assert_eq!(time(&days, "a.033.2026020100"), None);
    }

    #[test]
    fn text_in_a_pattern_is_no_wildcard_and_a_lone_bracket_is_no_pattern() {
        let literal = pattern("/log/<*[%Y%m%d%H]>");
        assert_eq!(time(&literal, "/log/*[2026112107]"), at("2026112107", 0));
        assert_eq!(time(&literal, "/log/x[2026112107]"), None);
        let plain = pattern("/log/<a>.log");
        assert_eq!((plain.glob(), plain.has_hours()), ("/log/<a>.log", false));
        assert_eq!(pattern("/log/a[<>].log").glob(), "/log/a[<>].log");
    }

    #[test]
    fn a_pattern_of_days_names_days_but_no_hours() {
        let daily = pattern("/log/a.<%Y%m%d>");
        assert!(!daily.has_hours());
        assert!(daily.admits(Path::new("/log/a.20261121")) && !daily.admits(Path::new("/log/a.20261131")));
        assert_eq!(time(&daily, "/log/a.20261121"), at("2026112100", 0));
        assert!(daily.has_times() && !pattern("/log/a.log").has_times());
    }

    #[test]
    fn each_mistake_is_named() {
        let refused = |text: &str| PathPattern::parse(text).expect_err("must be refused").to_string();
        assert!(refused("a.<%Y%m%d%S>").contains("%S"));
        assert!(refused("a.<%Y%m%d%H%>").contains("%>") || refused("a.<%Y%m%d%H%>").contains('%'));
        assert!(refused("a.<%Y%m%d%H").contains("no closing"));
        assert!(refused("a.<%m%d%H>").contains("year"));
        assert!(refused("a.<%Y%H>").contains("day"));
        assert!(refused("a.<%Y%m%d%M>").contains("%H"));
        assert!(refused("a[.<%Y%m%d%H>").contains("wildcard"));
        assert!(refused("a***.log").contains("wildcard"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn an_expanded_path_is_matched_back_to_its_time(
            year in 2000u16..2100, month in 1u8..13, day in 1u8..29, hour in 0u8..24, minute in 0u8..60,
        ) {
            let time = FileTime { hour: Hour::new(year, month, day, hour).expect("real"), minute };
            for text in ["/l/<%Y>/<%m>/a.<%d%H%M>", "/l/<%y%j>/a-<%H.%M>.log", "/l/a.<%M-%H_%d.%m.%Y>"] {
                let pattern = pattern(text);
                let path = pattern.expand(time);
                prop_assert_eq!(pattern.time_of(Path::new(&path)), Some(time), "{}", path);
                let glob = glob::Pattern::new(pattern.glob()).expect("checked");
                prop_assert!(glob.matches(&path), "{} finds {}", pattern.glob(), path);
            }
        }
    }
}
