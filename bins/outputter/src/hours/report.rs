//! The books as JSON: for `/hours`, for `ferryctl hours`, and for hooks.

use super::book::{HourBook, Standing};
use super::books::Books;
use super::calendar::Calendar;
use super::fact::HourKey;
use super::hooks::Extent;
use super::marks;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Hours that one answer tells.
pub const HOURS_MAX: usize = 20_000;

/// An hour of a source of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourReport {
    /// Host; the address in packs of legacy nodes.
    pub host: String,
    /// Source; empty in packs of legacy nodes.
    pub source: String,
    /// `YYYYMMDDHH`.
    pub hour: String,
    /// How it stands.
    pub state: HourState,
    /// Packs that are there; all of an hour that is complete, also when a repull brought their lines under other numbers.
    pub packs: u64,
    /// Packs that there are, if it is known.
    pub total: Option<u64>,
    /// Lines that are there.
    pub lines: u64,
    /// Bytes that are there.
    pub bytes: u64,
    /// When the first pack was received, in UTC.
    pub first: String,
    /// When the last was.
    pub last: String,
    /// Files that have its lines, oldest first: below `log_data/`, or with their whole paths where they were moved.
    pub files: Vec<String>,
    /// Its mark, below the output folder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mark: Option<String>,
    /// Numbers of packs that are missing, as first and last of each run.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<(u64, u64)>,
    /// Where known, the stream bytes that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing_bytes: Vec<MissingBytes>,
    /// How often a repull was wanted.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub repulls: u32,
    /// Repulls have brought some of it, in more streams or pieces than its book tells apart: whether anything is missing is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub vague: bool,
}

impl HourReport {
    /// Of an hour of which only the mark and the path of its log file are known.
    pub fn of_mark(key: &HourKey, lines: u64, path: String) -> HourReport {
        HourReport {
            host: key.host.clone(),
            source: key.source.clone(),
            hour: key.hour.to_string(),
            state: HourState::Complete,
            packs: 0,
            total: None,
            lines,
            bytes: 0,
            first: String::new(),
            last: String::new(),
            files: vec![path],
            mark: Some(format!("received/{}", marks::hour_path(key, lines).display())),
            missing: Vec::new(),
            missing_bytes: Vec::new(),
            repulls: 0,
            vague: false,
        }
    }
}

/// Bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingBytes {
    /// 32 hex digits.
    pub stream: String,
    /// First byte.
    pub from: u64,
    /// Byte behind the last.
    pub to: u64,
}

/// How an hour stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HourState {
    /// Whole, and marked so.
    Complete,
    /// It goes on.
    Open,
    /// It is over, but no done pack has come; nothing is known to be missing.
    Unclosed,
    /// It was complete, and lines have come since: they wait for a done pack.
    Late,
    /// Packs are missing.
    Missing,
}

/// Which hours are wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Of this host.
    pub host: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Only those of which packs or the done pack are missing.
    pub missing: bool,
}

/// The answer of `/hours`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By source, host and hour.
    pub hours: Vec<HourReport>,
    /// There are more hours than one answer tells: ask for a host or a source.
    pub truncated: bool,
}

impl Filter {
    fn wants(&self, key: &HourKey, state: HourState) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        let is_missing = !matches!(state, HourState::Complete | HourState::Open);
        is(&self.host, &key.host) && is(&self.source, &key.source) && (is_missing || !self.missing)
    }
}

/// The hours that are wanted.
pub fn report(books: &Books, calendar: &Calendar, filter: &Filter, now_ms: i64) -> Report {
    let states = books.hours().filter(|(_, book)| !book.parts.is_empty());
    let states = states.map(|(key, book)| (key, book, state_of(key, book, calendar, now_ms)));
    let mut wanted = states.filter(|(key, _, state)| filter.wants(key, *state));
    let hours = wanted.by_ref().take(HOURS_MAX).map(|(key, book, state)| hour(books, key, book, state));
    let hours = hours.collect();
    Report { hours, truncated: wanted.next().is_some() }
}

/// An hour that is complete, for its hooks; one to which lines came late as it was before, but for its bytes and files.
pub fn complete_hour(books: &Books, key: &HourKey) -> Option<HourReport> {
    let book = books.hour(key)?;
    let Extent { packs, lines } = book.extent()?;
    let now = hour(books, key, book, HourState::Complete);
    Some(HourReport { packs, total: Some(packs), lines, ..now })
}

/// How an hour stands.
pub fn state_of(key: &HourKey, book: &HourBook, calendar: &Calendar, now_ms: i64) -> HourState {
    match book.standing() {
        Standing::Whole => HourState::Complete,
        Standing::Late => HourState::Late,
        Standing::Missing => HourState::Missing,
        Standing::Open if calendar.end_ms(&key.host, key.hour) > now_ms => HourState::Open,
        Standing::Open => HourState::Unclosed,
    }
}

fn hour(books: &Books, key: &HourKey, book: &HourBook, state: HourState) -> HourReport {
    let sum = book.sum();
    // What a repull has filled up keeps holes in its numbers.
    let is_complete = state == HourState::Complete;
    let wanted = books.wanted(key).filter(|_| !is_complete);
    let mark = book.marked.map(|lines| format!("received/{}", marks::hour_path(key, lines).display()));
    let (ids, ranges) = wanted.map(|wanted| (wanted.ids, wanted.ranges)).unwrap_or_default();
    let bytes = |(stream, from, to)| MissingBytes { stream: format!("{stream:032x}"), from, to };
    HourReport {
        host: key.host.clone(),
        source: key.source.clone(),
        hour: key.hour.to_string(),
        state,
        packs: if is_complete { sum.total } else { sum.packs() },
        total: (sum.total > 0).then_some(sum.total),
        lines: sum.lines,
        bytes: sum.bytes,
        first: time(sum.first_ms),
        last: time(sum.last_ms),
        files: book.parts.keys().cloned().collect(),
        mark,
        missing: ids.into_iter().map(|(from, to)| (from, to - 1)).collect(),
        missing_bytes: ranges.into_iter().map(bytes).collect(),
        repulls: book.asked,
        vague: !is_complete && book.is_vague(),
    }
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map(|at| at.to_string()).unwrap_or_default()
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
