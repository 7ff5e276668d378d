//! The books as the monitor is told of them.

use super::book::HourBook;
use super::books::Books;
use super::calendar::Calendar;
use super::fact::HourKey;
use super::report::{self, HourState};
use logferry_node::monitor::hours::{HourNews, HourState as Told, MISSING_RUNS_MAX};

/// All hours.
pub fn all(books: &Books, calendar: &Calendar, now_ms: i64) -> impl Iterator<Item = HourNews> {
    let known = books.hours().filter(|(_, book)| !book.parts.is_empty());
    known.map(move |(key, book)| news(key, book, calendar, now_ms))
}

fn news(key: &HourKey, book: &HourBook, calendar: &Calendar, now_ms: i64) -> HourNews {
    let sum = book.sum();
    let state = match report::state_of(key, book, calendar, now_ms) {
        HourState::Complete => Told::Complete,
        HourState::Open => Told::Open,
        HourState::Unclosed => Told::Unclosed,
        HourState::Late => Told::Late,
        HourState::Missing => Told::Missing,
    };
    // what a repull has filled up keeps holes in its numbers
    let missing = if state == Told::Complete { Vec::new() } else { sum.missing_ids() };
    HourNews {
        host: key.host.clone(),
        source: key.source.clone(),
        hour: key.hour.into(),
        state,
        total: sum.total,
        packs: if state == Told::Complete { sum.total } else { sum.packs() },
        lines: sum.lines,
        bytes: sum.bytes,
        missing_packs: missing.iter().map(|(from, to)| to - from).sum(),
        missing: missing.into_iter().take(MISSING_RUNS_MAX).map(|(from, to)| (from, to - 1)).collect(),
        end_ms: calendar.end_ms(&key.host, key.hour),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::Fact;
    use super::*;
    use jiff::tz::TimeZone;

    fn fact(hour: u32, id: u64, done: bool) -> Fact {
        let key = HourKey {
            source: "access".into(),
            host: "web-1".into(),
            hour: hour.try_into().expect("an hour"),
        };
        Fact { at_ms: 1, ..Fact::of_a_test(key, id, done) }
    }

    #[test]
    fn what_is_missing_is_told_with_its_numbers_and_when_the_hour_was_over() {
        let mut books = Books::default();
        books.count(
            "a",
            &[fact(2026112100, 1, true), fact(2026112101, 1, false), fact(2026112101, 4, true)],
            1,
        );
        let told: Vec<_> = all(&books, &Calendar::new(TimeZone::UTC), i64::MAX).collect();
        assert_eq!((told[0].state, told[0].lines, told[0].missing_packs), (Told::Complete, 10, 0));
        assert_eq!((told[1].state, told[1].total, told[1].packs), (Told::Missing, 4, 2));
        assert_eq!((&told[1].missing[..], told[1].missing_packs), (&[(2, 3)][..], 2));
        assert_eq!(told[1].end_ms - told[0].end_ms, 3_600_000);
    }
}
