//! The books of hours: numbers of packs 1, 2, 3 … in each hour of each source, continued over restarts, and which hours
//! are closed by a done pack.

use logferry_pack::{Hour, StreamId};
use std::collections::{BTreeMap, BTreeSet};

/// Closed hours that are remembered for each source. Lines that come later still begin to count from 1 again.
pub const HOURS_KEPT_MAX: usize = 1_000;

/// Where the newest pack of an hour ended: its done pack follows it on the same way to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Stream.
    pub stream: StreamId,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Offset of the first byte after the pack.
    pub end: u64,
}

/// Numbers given in one hour.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Numbers {
    last: u64,
    spare: BTreeSet<u64>,
    /// Number of the newest done pack; 0 when there is none.
    done: u64,
    at: Option<Position>,
}

impl Numbers {
    fn is_closed(&self) -> bool {
        self.done == self.last && self.spare.is_empty()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
struct SourceHours {
    hours: BTreeMap<Hour, Numbers>,
    /// The first hour that was not looked at for lines that it may not have.
    due: Option<Hour>,
    /// Hours in which packs were numbered since the last done pack.
    #[serde(skip)]
    open: BTreeSet<Hour>,
}

/// All hours of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HourBook {
    sources: BTreeMap<String, SourceHours>,
}

impl HourBook {
    /// The next number. It counts as given only when [`HourBook::given`] is told. One that was given back is not given again: its
    /// pack may have arrived all the same.
    pub fn next(&self, source: &str, hour: Hour) -> u64 {
        self.last(source, hour) + 1
    }

    /// The next number that stands for no lines: one that was given back, or else the next.
    pub fn next_without_lines(&self, source: &str, hour: Hour) -> u64 {
        let spare = self.numbers(source, hour).and_then(|numbers| numbers.spare.first().copied());
        spare.unwrap_or_else(|| self.next(source, hour))
    }

    /// The highest number given; 0 when there is none.
    pub fn last(&self, source: &str, hour: Hour) -> u64 {
        self.numbers(source, hour).map_or(0, |numbers| numbers.last)
    }

    /// Where the newest pack of an hour ended.
    pub fn position(&self, source: &str, hour: Hour) -> Option<Position> {
        self.numbers(source, hour).and_then(|numbers| numbers.at)
    }

    /// Hours in which packs were numbered since the last done pack, in order.
    pub fn open(&self, source: &str) -> impl Iterator<Item = Hour> {
        self.sources.get(source).into_iter().flat_map(|hours| hours.open.iter().copied())
    }

    /// Whether a done pack says how many packs the hour has.
    pub fn is_closed(&self, source: &str, hour: Hour) -> bool {
        self.numbers(source, hour).is_some_and(Numbers::is_closed)
    }

    /// The number of packs of an hour that is closed, and where the last one with lines ended.
    pub fn closed(&self, source: &str, hour: Hour) -> Option<(u64, Position)> {
        let numbers = self.numbers(source, hour).filter(|numbers| numbers.is_closed())?;
        Some((numbers.last, numbers.at?))
    }

    /// Whether any pack of the hour was numbered.
    pub fn has(&self, source: &str, hour: Hour) -> bool {
        self.numbers(source, hour).is_some()
    }

    /// The first hour from `from` on that has packs.
    pub fn first_from(&self, source: &str, from: Hour) -> Option<Hour> {
        self.sources.get(source)?.hours.range(from..).next().map(|(hour, _)| *hour)
    }

    /// The first hour that may turn out to have no lines.
    pub fn due(&self, source: &str) -> Option<Hour> {
        self.sources.get(source).and_then(|hours| hours.due)
    }

    /// A pack has this number.
    pub fn given(&mut self, source: &str, hour: Hour, id: u64, at: Position) {
        self.number(source, hour, id).at = Some(at);
        self.keep_open(source, hour);
    }

    /// A pack without lines has this number; `done` closes the hour.
    pub fn marked(&mut self, source: &str, hour: Hour, id: u64, done: bool) {
        let numbers = self.number(source, hour, id);
        if done {
            numbers.done = id;
        }
        self.keep_open(source, hour);
        self.prune(source);
    }

    /// A pack that was never delivered gives its number back, so that the hour has no hole.
    pub fn give_back(&mut self, source: &str, hour: Hour, id: u64) {
        let numbers = self.sources.get_mut(source).and_then(|source| source.hours.get_mut(&hour));
        if let Some(numbers) = numbers.filter(|numbers| id <= numbers.last) {
            numbers.spare.insert(id);
            self.keep_open(source, hour);
        }
    }

    /// Hours before this one are not looked at any more for lines that they may not have.
    pub fn set_due(&mut self, source: &str, hour: Hour) {
        self.source(source).due = Some(hour);
    }

    /// What is not stored is found out again.
    pub fn restored(mut self) -> HourBook {
        for source in self.sources.values_mut() {
            let open = source.hours.iter().filter(|(_, numbers)| !numbers.is_closed());
            source.open = open.map(|(hour, _)| *hour).collect();
        }
        self
    }

    fn numbers(&self, source: &str, hour: Hour) -> Option<&Numbers> {
        self.sources.get(source).and_then(|source| source.hours.get(&hour))
    }

    fn source(&mut self, source: &str) -> &mut SourceHours {
        self.sources.entry(source.to_owned()).or_default()
    }

    fn number(&mut self, source: &str, hour: Hour, id: u64) -> &mut Numbers {
        let numbers = self.source(source).hours.entry(hour).or_default();
        numbers.spare.remove(&id);
        // Numbers between were given to packs whose records are lost: nobody will see them.
        numbers.last = numbers.last.max(id);
        numbers
    }

    fn keep_open(&mut self, source: &str, hour: Hour) {
        let Some(source) = self.sources.get_mut(source) else { return };
        if source.hours.get(&hour).is_some_and(Numbers::is_closed) {
            source.open.remove(&hour);
        } else {
            source.open.insert(hour);
        }
    }

    fn prune(&mut self, source: &str) {
        let Some(source) = self.sources.get_mut(source) else { return };
        let mut surplus = (source.hours.len() - source.open.len()).saturating_sub(HOURS_KEPT_MAX);
        source.hours.retain(|_, numbers| {
            let forget = surplus > 0 && numbers.is_closed();
            surplus -= usize::from(forget);
            !forget
        });
    }
}

/// The books as version 1 of the snapshot has them.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HourBookV1 {
    sources: BTreeMap<String, BTreeMap<Hour, NumbersV1>>,
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct NumbersV1 {
    last: u64,
    spare: BTreeSet<u64>,
}

impl From<HourBookV1> for HourBook {
    fn from(old: HourBookV1) -> HourBook {
        let numbers = |old: NumbersV1| Numbers { last: old.last, spare: old.spare, done: 0, at: None };
        let source = |hours: BTreeMap<Hour, NumbersV1>| SourceHours {
            hours: hours.into_iter().map(|(hour, old)| (hour, numbers(old))).collect(),
            ..SourceHours::default()
        };
        let sources = old.sources.into_iter().map(|(name, hours)| (name, source(hours))).collect();
        HourBook { sources }.restored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { stream: StreamId(1), first: 0, end: 9 };

    fn hour(number: u32) -> Hour {
        format!("20261121{number:02}").parse().expect("an hour")
    }
    fn open(book: &HourBook) -> Vec<Hour> {
        book.open("app").collect()
    }

    #[test]
    fn an_hour_is_open_from_its_first_pack_to_its_done_pack_and_again_with_late_lines() {
        let mut book = HourBook::default();
        book.given("app", hour(1), 1, AT);
        book.given("app", hour(2), 1, AT);
        assert_eq!(open(&book), [hour(1), hour(2)]);
        book.marked("app", hour(1), book.next("app", hour(1)), true);
        assert_eq!((open(&book), book.last("app", hour(1))), (vec![hour(2)], 2));
        book.given("app", hour(1), book.next("app", hour(1)), AT);
        assert_eq!((open(&book), book.last("app", hour(1))), (vec![hour(1), hour(2)], 3));
    }

    #[test]
    fn a_number_that_is_given_back_opens_the_hour_until_a_pack_without_lines_has_it() {
        let mut book = HourBook::default();
        (1..=3).for_each(|id| book.given("app", hour(1), id, AT));
        book.marked("app", hour(1), 4, true);
        book.give_back("app", hour(1), 2);
        let next = (book.next("app", hour(1)), book.next_without_lines("app", hour(1)));
        assert_eq!((open(&book), next), (vec![hour(1)], (5, 2)));
        book.marked("app", hour(1), 2, false);
        assert!(book.is_closed("app", hour(1)) && open(&book).is_empty());
    }

    #[test]
    fn only_closed_hours_are_forgotten_and_the_oldest_first() {
        let mut book = HourBook::default();
        let hours: Vec<Hour> = (0..HOURS_KEPT_MAX as u32 + 5)
            .map(|n| {
                Hour::new(2026, 1 + (n / 672) as u8, 1 + (n / 24 % 28) as u8, (n % 24) as u8).expect("real")
            })
            .collect();
        for hour in &hours {
            book.given("app", *hour, 1, AT);
            if *hour != hours[1] {
                book.marked("app", *hour, 2, true);
            }
        }
        assert!(!book.has("app", hours[0]) && book.has("app", hours[1]) && !book.has("app", hours[2]));
        assert_eq!(hours.iter().filter(|hour| book.has("app", **hour)).count(), HOURS_KEPT_MAX + 1);
    }

    #[test]
    fn books_are_the_same_after_a_restart() {
        let mut book = HourBook::default();
        book.given("app", hour(1), 1, AT);
        book.given("app", hour(2), 1, AT);
        book.marked("app", hour(1), 2, true);
        book.set_due("app", hour(2));
        let bytes = postcard::to_stdvec(&book).expect("encoded");
        let again: HourBook = postcard::from_bytes(&bytes).expect("decoded");
        assert_eq!(again.restored(), book);
    }
}
