//! Which hours of a source are over and may be closed by their done packs. Pure.
//!
//! An hour whose files are named after it is over when a file of a later hour is there, or `grace` after its end; it is
//! closed once its files were read to their ends and are quiet, and the next tier has all packs. An hour of the clock is
//! over when it ends. An hour in which there was nothing to read is closed too, so that it is known to be complete.

use crate::hour::{HourClock, later};
use crate::ledger::hours::HourBook;
use jiff::Timestamp;
use logferry_pack::Hour;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest run of hours without lines that is closed hour by hour; a longer one is passed over: nobody waited for it.
pub const EMPTY_HOURS_MAX: usize = 96;
/// Most hours without lines that are closed at a time.
const EMPTY_HOURS_AT_ONCE: usize = 16;

/// A source, seen at one moment.
#[derive(Clone, Debug)]
pub struct Outlook<'a> {
    /// Tells hours.
    pub clock: &'a HourClock,
    /// The moment.
    pub now: Timestamp,
    /// Time after its end at which an hour of named files is over; `None` where hours end by the clock.
    pub grace: Option<Duration>,
    /// Hours that files are named after; whether any of them has bytes to read, or was written to just now.
    pub named: BTreeMap<Hour, bool>,
    /// Hours of files that are there and cannot be opened: they stay open, whatever else is known of them.
    pub held: BTreeSet<Hour>,
    /// When the source was last seen as a whole, if it cannot be now: later hours may have lines that nobody saw.
    pub seen_to: Option<Timestamp>,
    /// Where a source without a history begins: with its earliest file, or with the present hour.
    pub from_files: bool,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Closing {
    /// Hours to close, in order where they have no lines.
    pub close: Vec<Hour>,
    /// The first hour that was not looked at.
    pub due: Option<Hour>,
    /// Hours without lines were passed over, up to this one.
    pub passed_over_to: Option<Hour>,
}

impl Outlook<'_> {
    /// Whether an hour is over.
    pub fn is_over(&self, hour: Hour) -> bool {
        let after = self.grace.unwrap_or_default();
        let by_clock = later(self.clock.end_of(hour, self.now), after) <= self.now;
        by_clock || (self.grace.is_some() && self.newest_named().is_some_and(|newest| hour < newest))
    }

    /// Whether a day is over, told by its first hour: a file of a later one is there, or `grace` has gone by since.
    pub fn is_day_over(&self, day: Hour, named: &BTreeSet<Hour>, grace: Duration) -> bool {
        let last = Hour::new(day.year(), day.month(), day.day(), 23).unwrap_or(day);
        let by_clock = later(self.clock.end_of(last, self.now), grace) <= self.now;
        // One that is named far ahead of the clock says nothing about the present.
        let next = self.clock.hour_at(self.now).ok().and_then(|present| self.clock.after(present));
        let newest = next.and_then(|next| named.range(..=next).next_back());
        by_clock || newest.is_some_and(|newest| day < *newest)
    }

    /// The hour of the newest file. One that is named far ahead of the clock says nothing about the present.
    fn newest_named(&self) -> Option<Hour> {
        let present = self.clock.hour_at(self.now).ok()?;
        let next = self.clock.after(present)?;
        self.named.range(..=next).next_back().map(|(hour, _)| *hour)
    }

    /// Whether nothing of an hour is hidden, but for files that are `held`.
    fn is_seen(&self, hour: Hour) -> bool {
        self.seen_to.is_none_or(|seen_to| self.clock.end_of(hour, self.now) <= seen_to)
    }

    fn is_busy(&self, hour: Hour) -> bool {
        self.named.get(&hour).copied().unwrap_or(false)
    }

    /// What may be closed. `unsettled` tells the hours that have packs on their way.
    pub fn closing(
        &self,
        book: &HourBook,
        source: &str,
        unsettled: impl FnOnce() -> BTreeSet<Hour>,
    ) -> Closing {
        let is_ready = |hour: &Hour| {
            self.is_over(*hour) && self.is_seen(*hour) && !self.is_busy(*hour) && !self.held.contains(hour)
        };
        let mut ready: BTreeSet<Hour> = book.open(source).filter(is_ready).collect();
        if !ready.is_empty() {
            let unsettled = unsettled();
            ready.retain(|hour| !unsettled.contains(hour));
        }
        let mut closing = Closing { close: ready.iter().copied().collect(), ..Closing::default() };
        self.walk_due(book, source, &ready, &mut closing);
        closing
    }

    /// Goes through the hours that were not looked at yet, for those without lines.
    fn walk_due(&self, book: &HourBook, source: &str, ready: &BTreeSet<Hour>, closing: &mut Closing) {
        let Ok(present) = self.clock.hour_at(self.now) else { return };
        let interest = |from: Hour| {
            let named = self.named.range(from..).next().map(|(hour, _)| *hour);
            let with_packs = book.first_from(source, from);
            [named, with_packs].into_iter().flatten().min().unwrap_or(present).min(present.max(from))
        };
        let earliest = interest(EARLIEST_HOUR.try_into().unwrap_or(present));
        let mut due = match book.due(source) {
            // The clock was ahead: what was closed then is known, and nothing else is to wait until it is there again.
            Some(due) if self.clock.after(present).is_some_and(|next| due > next) => present,
            Some(due) => due,
            None if self.from_files => earliest,
            None => present,
        };
        let mut empty = 0;
        let mut first_held = None;
        while empty < EMPTY_HOURS_AT_ONCE && self.is_over(due) && self.is_seen(due) {
            if self.held.contains(&due) {
                first_held.get_or_insert(due);
            } else if book.has(source, due) {
                if !book.is_closed(source, due) && !ready.contains(&due) {
                    break;
                }
            } else if self.is_busy(due) {
                break;
            } else {
                let next = interest(due);
                if self.clock.between(due, next, EMPTY_HOURS_MAX + 1).len() > EMPTY_HOURS_MAX {
                    closing.passed_over_to = Some(next);
                    due = next;
                    continue;
                }
                closing.close.push(due);
                empty += 1;
            }
            let Some(next) = self.clock.after(due) else { break };
            due = next;
        }
        // An hour that is held may have no lines after all. One of long ago is closed only if it has some.
        let is_near =
            |held: &Hour| self.clock.between(*held, due, EMPTY_HOURS_MAX + 1).len() <= EMPTY_HOURS_MAX;
        closing.due = Some(first_held.filter(is_near).unwrap_or(due));
    }
}

/// No pack is older.
const EARLIEST_HOUR: u32 = 1_01_01_00;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hour::{HOUR, zone};
    use crate::ledger::hours::Position;
    use logferry_pack::StreamId;

    const AT: Position = Position { stream: StreamId(1), first: 0, end: 9 };

    fn hour(text: &str) -> Hour {
        text.parse().expect("an hour")
    }

    /// A source as it is at a moment, UTC.
    struct Scene {
        clock: HourClock,
        book: HourBook,
        now: Timestamp,
        held: BTreeSet<Hour>,
        seen_to: Option<Timestamp>,
    }

    impl Scene {
        fn at(now: &str) -> Scene {
            let clock = HourClock::new(zone("UTC").expect("known"), HOUR);
            let now = now.parse().expect("a time");
            Scene { clock, book: HourBook::default(), now, held: BTreeSet::new(), seen_to: None }
        }

        fn with_lines(mut self, hours: &[&str]) -> Scene {
            hours.iter().for_each(|text| self.book.given("app", hour(text), 1, AT));
            self
        }

        fn due(mut self, text: &str) -> Scene {
            self.book.set_due("app", hour(text));
            self
        }

        fn hold(mut self, text: &str) -> Scene {
            self.held.insert(hour(text));
            self
        }

        fn seen_to(mut self, text: &str) -> Scene {
            self.seen_to = Some(text.parse().expect("a time"));
            self
        }

        fn close(&mut self, hours: &[&str]) {
            hours.iter().for_each(|text| self.book.marked("app", hour(text), 1, true));
        }

        fn closing(
            &self,
            grace: Option<u64>,
            named: &[(&str, bool)],
            unsettled: &[&str],
        ) -> (Vec<String>, String) {
            let outlook = Outlook {
                clock: &self.clock,
                now: self.now,
                grace: grace.map(Duration::from_secs),
                named: named.iter().map(|(text, busy)| (hour(text), *busy)).collect(),
                held: self.held.clone(),
                seen_to: self.seen_to,
                from_files: true,
            };
            let unsettled = || unsettled.iter().map(|text| hour(text)).collect();
            let closing = outlook.closing(&self.book, "app", unsettled);
            let texts = closing.close.iter().map(Hour::to_string).collect();
            (texts, closing.due.expect("told").to_string())
        }
    }

    #[test]
    fn an_hour_is_over_with_the_next_file_or_after_the_grace() {
        let scene = Scene::at("2026-11-21T08:05:00Z").with_lines(&["2026112107"]);
        let own = ("2026112107", false);
        assert_eq!(scene.closing(Some(600), &[own], &[]).0, Vec::<String>::new());
        assert_eq!(scene.closing(Some(300), &[own], &[]).0, ["2026112107"]);
        assert_eq!(scene.closing(Some(600), &[own, ("2026112108", true)], &[]).0, ["2026112107"]);
        assert_eq!(scene.closing(Some(600), &[own, ("2099010100", false)], &[]).0, Vec::<String>::new());
        assert_eq!(scene.closing(None, &[], &[]).0, ["2026112107"]);
    }

    #[test]
    fn an_hour_waits_until_its_files_are_quiet_and_its_packs_settled() {
        let scene = Scene::at("2026-11-21T09:30:00Z").with_lines(&["2026112107", "2026112108"]);
        let files = |busy| [("2026112107", busy), ("2026112108", false)];
        let nothing = (vec!["2026112108".to_owned()], "2026112107".to_owned());
        assert_eq!(scene.closing(Some(600), &files(true), &[]), nothing);
        assert_eq!(scene.closing(Some(600), &files(false), &["2026112107"]), nothing);
        let both = (vec!["2026112107".to_owned(), "2026112108".to_owned()], "2026112109".to_owned());
        assert_eq!(scene.closing(Some(600), &files(false), &[]), both);
    }

    #[test]
    fn hours_without_lines_between_files_are_closed_and_long_silence_is_not() {
        let scene = Scene::at("2026-11-21T09:30:00Z").with_lines(&["2016121916", "2016121918"]);
        let (close, due) = scene.closing(Some(600), &[("2016121916", false), ("2016121918", false)], &[]);
        assert_eq!(close, ["2016121916", "2016121918", "2016121917"]);
        assert_eq!(due, "2026112109");
    }

    #[test]
    fn an_hour_in_which_the_tailer_was_not_running_is_closed_without_lines() {
        let scene = Scene::at("2026-11-21T09:00:01Z").due("2026112106");
        let expected = ["2026112106", "2026112107", "2026112108"].map(str::to_owned).to_vec();
        assert_eq!(scene.closing(None, &[], &[]), (expected, "2026112109".to_owned()));
    }

    #[test]
    fn an_hour_that_occurs_twice_is_closed_once_and_one_that_does_not_exist_never() {
        let berlin = |now: &str| Scene {
            clock: HourClock::new(zone("Europe/Berlin").expect("known"), HOUR),
            ..Scene::at(now)
        };
        let twice = |now: &str| berlin(now).due("2026102501").closing(None, &[], &[]).0;
        assert_eq!(twice("2026-10-25T00:59:59Z"), ["2026102501"]);
        assert_eq!(twice("2026-10-25T01:59:59Z"), ["2026102501"]);
        assert_eq!(twice("2026-10-25T02:00:00Z"), ["2026102501", "2026102502"]);
        let never = berlin("2026-03-29T02:00:00Z").due("2026032901").closing(None, &[], &[]);
        assert_eq!(never, (vec!["2026032901".to_owned(), "2026032903".to_owned()], "2026032904".to_owned()));
    }

    #[test]
    fn many_hours_without_lines_are_closed_a_few_at_a_time() {
        let scene = Scene::at("2026-11-21T09:00:01Z").due("2026111909");
        let (close, due) = scene.closing(None, &[], &[]);
        assert_eq!((close.len(), due.as_str()), (EMPTY_HOURS_AT_ONCE, "2026112001"));
    }

    #[test]
    fn a_clock_that_was_ahead_and_came_back_does_not_keep_hours_open_and_none_is_closed_twice() {
        let mut scene = Scene::at("2026-11-21T09:30:00Z").due("2026112209");
        scene.close(&["2026112110"]);
        assert_eq!(scene.closing(None, &[], &[]), (vec![], "2026112109".to_owned()));
        scene.book.set_due("app", hour("2026112109"));
        scene.now = "2026-11-21T12:00:00Z".parse().expect("a time");
        let expected = ["2026112109", "2026112111"].map(str::to_owned).to_vec();
        assert_eq!(scene.closing(None, &[], &[]), (expected, "2026112112".to_owned()));
        // The file of the next hour may be there a little early.
        let early = Scene::at("2026-11-21T09:59:59Z").due("2026112110");
        assert_eq!(early.closing(Some(600), &[("2026112110", false)], &[]).1, "2026112110");
    }

    #[test]
    fn a_file_that_cannot_be_opened_keeps_its_own_hour_open_and_no_other() {
        let mut scene = Scene::at("2026-11-21T09:30:00Z").with_lines(&["2026112105", "2026112108"]);
        scene = scene.due("2026112105").hold("2026112106").hold("2026112108");
        let (close, due) = scene.closing(Some(60), &[], &[]);
        assert_eq!((close, due.as_str()), (vec!["2026112105".into(), "2026112107".into()], "2026112106"));
        scene.close(&["2026112107"]);
        scene.book.marked("app", hour("2026112105"), 2, true);
        scene.book.set_due("app", hour("2026112106"));
        assert_eq!(scene.closing(Some(60), &[], &[]), (vec![], "2026112106".to_owned()));
        // They had nothing to hide.
        scene.held.clear();
        let expected = ["2026112108", "2026112106"].map(str::to_owned).to_vec();
        assert_eq!(scene.closing(Some(60), &[], &[]), (expected, "2026112109".to_owned()));
        let of_long_ago = Scene::at("2026-11-21T09:30:00Z").due("2025010100").hold("2025010100");
        assert_eq!(of_long_ago.closing(Some(60), &[], &[]).1, "2026112109");
    }

    #[test]
    fn nothing_is_closed_that_ended_after_the_source_was_last_seen() {
        let scene = Scene::at("2026-11-21T09:30:00Z").with_lines(&["2026112105", "2026112107"]);
        let scene = scene.due("2026112105").seen_to("2026-11-21T07:59:59Z");
        let expected = ["2026112105", "2026112106"].map(str::to_owned).to_vec();
        assert_eq!(scene.closing(None, &[], &[]), (expected, "2026112107".to_owned()));
    }
}
