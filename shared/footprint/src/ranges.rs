//! Sorted ranges of numbers (stream offsets, ids of packs), nearly always one.

/// A set of numbers as half-open ranges: sorted, not empty, neither overlapping nor touching.
#[derive(Clone, Default, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges {
    list: Vec<(u64, u64)>,
}

impl Ranges {
    /// From a stored list; `None` when it is not sorted and merged.
    pub(crate) fn from_list(list: Vec<(u64, u64)>) -> Option<Ranges> {
        let each_holds_something = list.iter().all(|(start, end)| start < end);
        let apart = list.windows(2).all(|pair| pair[0].1 < pair[1].0);
        (each_holds_something && apart).then_some(Ranges { list })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The ranges, `(start, end)` without the end, in order.
    pub fn list(&self) -> &[(u64, u64)] {
        &self.list
    }

    /// Adds `start..end`, whatever of it is there already.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let from = self.list.partition_point(|range| range.1 < start);
        let to = self.list.partition_point(|range| range.0 <= end);
        match self.list.get(from..to) {
            Some([touched @ .., last]) => {
                let low = touched.first().unwrap_or(last).0.min(start);
                let high = last.1.max(end);
                self.list[from] = (low, high);
                self.list.drain(from + 1..to);
            }
            _ => {
                // One at a time: a stream that is read in order never has a second range, and there are many streams.
                if self.list.len() < 4 {
                    self.list.reserve_exact(1);
                }
                self.list.insert(from, (start, end));
            }
        }
    }

    /// Whether all of `start..end` is there. Of an empty range everything is.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.holding(start).is_some_and(|range| end <= range.1)
    }

    /// Whether anything of `start..end` is there.
    pub(crate) fn touches(&self, start: u64, end: u64) -> bool {
        let next = self.list.partition_point(|range| range.1 <= start);
        start < end && self.list.get(next).is_some_and(|range| range.0 < end)
    }

    /// What of `start..end` is not there, in order.
    pub fn missing(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = start;
        let next = self.list.partition_point(|range| range.1 <= start);
        for &(from, to) in self.list[next..].iter().take_while(|range| range.0 < end) {
            if at < from {
                missing.push((at, from));
            }
            at = to;
        }
        if at < end {
            missing.push((at, end));
        }
        missing
    }

    /// End of the range that holds `offset`; `offset` itself if there is none.
    pub(crate) fn frontier(&self, offset: u64) -> u64 {
        self.holding(offset).map_or(offset, |range| range.1)
    }

    fn holding(&self, offset: u64) -> Option<(u64, u64)> {
        let next = self.list.partition_point(|range| range.1 <= offset);
        self.list.get(next).copied().filter(|range| range.0 <= offset)
    }
}

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = &'static str;
    fn try_from(list: Vec<(u64, u64)>) -> Result<Ranges, &'static str> {
        Ranges::from_list(list).ok_or("ranges that are not sorted and merged")
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Vec<(u64, u64)> {
        ranges.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for (start, end) in list {
            ranges.insert(*start, *end);
        }
        ranges
    }

    #[test]
    fn what_touches_or_overlaps_becomes_one() {
        assert_eq!(ranges(&[(0, 10), (10, 20)]).list(), [(0, 20)]);
        assert_eq!(ranges(&[(10, 20), (0, 10)]).list(), [(0, 20)]);
        assert_eq!(ranges(&[(0, 10), (20, 30), (10, 20)]).list(), [(0, 30)]);
        assert_eq!(ranges(&[(0, 10), (20, 30), (40, 50), (5, 45)]).list(), [(0, 50)]);
        assert_eq!(ranges(&[(5, 6), (0, 10)]).list(), [(0, 10)]);
        assert_eq!(ranges(&[(0, 10), (5, 6)]).list(), [(0, 10)]);
        assert_eq!(ranges(&[(0, 10), (11, 12), (3, 3), (9, 2)]).list(), [(0, 10), (11, 12)]);
        assert_eq!(ranges(&[(u64::MAX - 1, u64::MAX), (0, u64::MAX)]).list(), [(0, u64::MAX)]);
    }

    #[test]
    fn what_is_missing_is_told_piece_by_piece() {
        let some = ranges(&[(10, 20), (30, 40)]);
        assert_eq!(some.missing(0, 50), [(0, 10), (20, 30), (40, 50)]);
        assert_eq!(some.missing(15, 35), [(20, 30)]);
        assert_eq!(some.missing(20, 30), [(20, 30)]);
        assert_eq!(some.missing(12, 18), []);
        assert_eq!(some.missing(45, 45), []);
        assert_eq!(Ranges::default().missing(3, 4), [(3, 4)]);
    }

    #[test]
    fn stored_lists_that_are_not_sorted_and_merged_are_refused() {
        assert!(Ranges::from_list(vec![(0, 10), (11, 12)]).is_some());
        for list in [vec![(0, 0)], vec![(3, 2)], vec![(0, 10), (10, 12)], vec![(5, 6), (0, 1)]] {
            assert_eq!(Ranges::from_list(list), None);
        }
    }
}
