//! Which bytes of which stream were shipped in which hour: for repulls and audits of hours that no file is named after.

use logferry_pack::{Hour, HourRange, StreamId};
use std::collections::BTreeMap;

/// Ranges that are remembered for each source; beyond, those of its oldest hours are forgotten.
pub const RANGES_KEPT_MAX: usize = 16_384;

/// Half-open ranges of offsets, in order, neither overlapping nor touching.
type Ranges = Vec<(u64, u64)>;

#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
struct SourceRanges {
    hours: BTreeMap<Hour, OfHour>,
    count: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
struct OfHour {
    streams: BTreeMap<StreamId, Ranges>,
    /// They were noted from the hour's first pack on, and none was forgotten.
    are_all: bool,
}

/// All ranges of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HourRanges {
    sources: BTreeMap<String, SourceRanges>,
    /// See [`HourRanges::forgotten`]. Encoded behind the rest, which is a good one without it, too.
    #[serde(skip)]
    forgotten: BTreeMap<String, Hour>,
}

impl HourRanges {
    /// The pack with this number of an hour has the bytes from `from` to `to`.
    pub fn note(&mut self, source: &str, (hour, id): (Hour, u64), stream: StreamId, (from, to): (u64, u64)) {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), SourceRanges::default());
        }
        let forgotten = self.forgotten(source);
        let (name, Some(source)) = (source, self.sources.get_mut(source).filter(|_| from < to)) else {
            return;
        };
        // Numbers begin from 1 again where those of an hour were forgotten, too.
        let are_all = id == 1 && forgotten.is_none_or(|forgotten| hour > forgotten);
        let of_hour = source.hours.entry(hour).or_insert_with(|| OfHour { are_all, ..OfHour::default() });
        let ranges = of_hour.streams.entry(stream).or_default();
        match ranges.last_mut() {
            Some(last) if last.0 <= from && from <= last.1 => last.1 = last.1.max(to),
            Some(last) if last.0 > from => insert_before_end(ranges, from, to, &mut source.count),
            _ => {
                ranges.push((from, to));
                source.count += 1;
            }
        }
        while source.count > RANGES_KEPT_MAX
            && let Some((hour, oldest)) = source.hours.pop_first()
        {
            source.count -= oldest.streams.values().map(Vec::len).sum::<usize>();
            let newest = self.forgotten.entry(name.to_owned()).or_insert(hour);
            *newest = hour.max(*newest);
        }
    }

    /// What is above `frontier` was not shipped as it was noted: it is cut anew.
    pub fn cut_back(&mut self, source: &str, stream: StreamId, frontier: u64) {
        let Some(source) = self.sources.get_mut(source) else { return };
        for OfHour { streams, .. } in source.hours.values_mut() {
            let Some(ranges) = streams.get_mut(&stream) else { continue };
            let before = ranges.len();
            ranges.retain_mut(|range| {
                range.1 = range.1.min(frontier);
                range.0 < range.1
            });
            source.count -= before - ranges.len();
            if ranges.is_empty() {
                streams.remove(&stream);
            }
        }
    }

    /// The ranges of one hour, by stream.
    pub fn of(&self, source: &str, hour: Hour) -> impl Iterator<Item = (StreamId, &[(u64, u64)])> {
        let streams = self.of_hour(source, hour).into_iter().flat_map(|hour| &hour.streams);
        streams.map(|(stream, ranges)| (*stream, ranges.as_slice()))
    }

    /// All ranges of an hour; empty when they are not all known.
    pub fn all_of(&self, source: &str, hour: Hour) -> Vec<HourRange> {
        if !self.of_hour(source, hour).is_some_and(|hour| hour.are_all) {
            return Vec::new();
        }
        let ranges = self
            .of(source, hour)
            .flat_map(|(stream, ranges)| ranges.iter().map(move |range| (stream, *range)));
        ranges.map(|(stream, (from, to))| HourRange { stream, from, to }).collect()
    }

    /// The newest hour of a source of which ranges were forgotten, as perhaps of those before it.
    pub fn forgotten(&self, source: &str) -> Option<Hour> {
        self.forgotten.get(source).copied()
    }

    /// Hours of which there are ranges, and of which others may have been.
    pub fn partly_known(&self, source: &str) -> impl Iterator<Item = Hour> {
        let hours = self.sources.get(source).into_iter().flat_map(|source| &source.hours);
        hours.filter(|(_, of_hour)| !of_hour.are_all).map(|(hour, _)| *hour)
    }

    /// For a snapshot: what is not encoded with the rest.
    pub fn all_forgotten(&self) -> &BTreeMap<String, Hour> {
        &self.forgotten
    }

    /// With what was encoded behind the rest.
    pub fn with_forgotten(self, forgotten: BTreeMap<String, Hour>) -> HourRanges {
        HourRanges { forgotten, ..self }
    }

    fn of_hour(&self, source: &str, hour: Hour) -> Option<&OfHour> {
        self.sources.get(source).and_then(|source| source.hours.get(&hour))
    }

    /// Hours in which there are ranges of a source, in order.
    pub fn hours(&self, source: &str) -> impl Iterator<Item = Hour> {
        self.sources.get(source).into_iter().flat_map(|source| source.hours.keys().copied())
    }
}

/// Packs come in the order of their stream but for those that are cut anew: this is the rare case.
fn insert_before_end(ranges: &mut Ranges, from: u64, to: u64, count: &mut usize) {
    let before = ranges.len();
    ranges.push((from, to));
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (from, to) in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    *ranges = merged;
    *count = *count + ranges.len() - before;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(number: u32) -> Hour {
        format!("20261121{number:02}").parse().expect("an hour")
    }
    fn of(ranges: &HourRanges, number: u32) -> Vec<(StreamId, Vec<(u64, u64)>)> {
        ranges.of("app", hour(number)).map(|(stream, ranges)| (stream, ranges.to_vec())).collect()
    }
    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    #[test]
    fn packs_one_after_the_other_are_one_range_and_each_hour_has_its_own() {
        let mut ranges = HourRanges::default();
        for (number, stream, from, to) in [(1, A, 0, 10), (1, B, 5, 6), (1, A, 10, 30), (2, A, 30, 40)] {
            ranges.note("app", (hour(number), 1), stream, (from, to));
        }
        assert_eq!(of(&ranges, 1), [(A, vec![(0, 30)]), (B, vec![(5, 6)])]);
        assert_eq!(of(&ranges, 2), [(A, vec![(30, 40)])]);
        assert_eq!(ranges.hours("app").collect::<Vec<_>>(), [hour(1), hour(2)]);
        assert_eq!(ranges.of("other", hour(1)).count(), 0);
    }

    #[test]
    fn what_is_cut_anew_is_noted_once_in_its_new_hour() {
        let mut ranges = HourRanges::default();
        ranges.note("app", (hour(1), 1), A, (0, 100));
        ranges.cut_back("app", A, 60);
        ranges.note("app", (hour(2), 1), A, (60, 100));
        ranges.note("app", (hour(1), 1), A, (20, 40));
        assert_eq!(of(&ranges, 1), [(A, vec![(0, 60)])]);
        assert_eq!(of(&ranges, 2), [(A, vec![(60, 100)])]);
        ranges.cut_back("app", A, 0);
        assert_eq!((of(&ranges, 1), of(&ranges, 2)), (vec![], vec![]));
        assert_eq!(ranges.sources["app"].count, 0);
    }

    #[test]
    fn the_oldest_hours_are_forgotten_when_there_are_too_many_ranges() {
        let mut ranges = HourRanges::default();
        for number in 0..RANGES_KEPT_MAX as u64 + 2 {
            let hour = hour(if number < 10 { 1 } else { 2 });
            ranges.note("app", (hour, number % 10 + 1), A, (number * 10, number * 10 + 5));
        }
        assert_eq!(of(&ranges, 1), []);
        assert_eq!(of(&ranges, 2)[0].1.len(), RANGES_KEPT_MAX - 8);
        // What comes late to the forgotten hour is not all of it.
        assert_eq!(ranges.all_of("app", hour(2)).len(), RANGES_KEPT_MAX - 8);
        let late = HourRange { stream: B, from: 0, to: 5 };
        assert_eq!((ranges.forgotten("app"), ranges.forgotten("other")), (Some(hour(1)), None));
        ranges.note("app", (hour(1), 1), B, (0, 5));
        assert_eq!(ranges.partly_known("app").collect::<Vec<_>>(), [hour(1)]);
        ranges.note("app", (hour(3), 1), B, (0, 5));
        assert_eq!((ranges.all_of("app", hour(1)), ranges.all_of("app", hour(3))), (vec![], vec![late]));
    }

    #[test]
    fn a_range_between_others_joins_them() {
        let mut ranges = HourRanges::default();
        for (from, to) in [(0, 10), (20, 30), (10, 20), (40, 50), (35, 36)] {
            ranges.note("app", (hour(1), 1), A, (from, to));
        }
        assert_eq!(of(&ranges, 1), [(A, vec![(0, 30), (35, 36), (40, 50)])]);
        assert_eq!(ranges.sources["app"].count, 3);
    }
}
