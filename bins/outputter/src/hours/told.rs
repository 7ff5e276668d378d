//! What done packs tell of an hour's bytes, and whether all of that is there.

use super::book::{HourBook, NUMBERINGS_MAX, Standing, Sum};
use logferry_footprint::Ranges;
use serde::{Deserialize, Serialize};

/// The bytes of an hour, as its tailer knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Number of packs that the same done pack told.
    pub total: u64,
    /// Stream, first byte, byte after the last.
    pub ranges: Vec<(u128, u64, u64)>,
}

/// What is missing of the bytes that done packs tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingOfTold {
    /// Stream, first byte, byte after the last.
    pub ranges: Vec<(u128, u64, u64)>,
    /// Something may be missing: not all is known that is there.
    pub is_vague: bool,
}

impl HourBook {
    /// A done pack says what the hour has. What it says of streams that were told of before takes the place of that.
    pub(super) fn tell(&mut self, told: Told) {
        if self.told.iter().any(|other| other.shares_streams_with(&told) && other.total > told.total) {
            return;
        }
        self.told.retain(|other| !other.shares_streams_with(&told));
        if self.told.len() < NUMBERINGS_MAX {
            self.told.push(told);
        }
    }

    /// What is missing of the bytes that the hour has; `None` when no done pack with the highest number says what it has. Where the book had
    /// no room for all that came, nothing is called missing.
    pub fn missing_of_told(&self) -> Option<MissingOfTold> {
        let total = self.parts.values().map(|part| part.total).max();
        self.told.iter().find(|told| Some(told.total) == total)?;
        let mut missing = MissingOfTold::default();
        for (stream, from, to) in self.told.iter().flat_map(|told| &told.ranges) {
            let mut seen = Ranges::default();
            for part in self.parts.values().filter_map(|part| part.streams.get(stream)) {
                part.ranges.list().iter().for_each(|(from, to)| seen.insert(*from, *to));
            }
            let of_stream = seen.missing(*from, *to);
            missing.ranges.extend(of_stream.into_iter().map(|(from, to)| (*stream, from, to)));
        }
        if self.has_more_ranges() {
            missing.is_vague = !missing.ranges.is_empty();
            missing.ranges.clear();
        }
        Some(missing)
    }

    pub(super) fn has_more_ranges(&self) -> bool {
        self.parts.values().any(|part| part.has_more_ranges)
    }

    /// How an hour stands that has all its numbers: what done packs say of its bytes has to be there, too. Where numbers were used twice,
    /// nobody may have sent anything that no done pack tells of: of that there may be more.
    pub(super) fn whole_by_bytes(&self) -> Standing {
        let is_told = match self.missing_of_told() {
            Some(missing) if !missing.ranges.is_empty() => return Standing::Missing,
            Some(_) => !self.has_more_ranges() && self.is_all_told(),
            None => false,
        };
        if self.has_numbers_twice() && !is_told { Standing::Late } else { Standing::Whole }
    }

    /// Whether packs have numbers that others have, too. See [`super::part::Part::has_twice`].
    fn has_numbers_twice(&self) -> bool {
        let mut seen = Ranges::default();
        let of_done = self.parts.values().flat_map(|part| part.ids_of_done.list());
        of_done.for_each(|(from, to)| seen.insert(*from, *to));
        self.parts.values().any(|part| {
            let is_new = |(from, to): &(u64, u64)| seen.missing(*from, *to) == [(*from, *to)];
            let is_twice = part.has_twice || !part.ids_with_bytes.list().iter().all(is_new);
            part.ids_with_bytes.list().iter().for_each(|(from, to)| seen.insert(*from, *to));
            is_twice
        })
    }

    /// Whether done packs tell of each stream as far as it is there.
    fn is_all_told(&self) -> bool {
        let told_to = |stream: u128| {
            let of_stream =
                self.told.iter().flat_map(|told| &told.ranges).filter(|(told, ..)| *told == stream);
            of_stream.map(|(_, _, to)| *to).max()
        };
        let mut streams = self.parts.values().flat_map(|part| &part.streams);
        streams.all(|(stream, part)| {
            part.ranges.list().last().is_none_or(|(_, end)| told_to(*stream).is_some_and(|to| *end <= to))
        })
    }

    /// Whether a repull has brought all that was missing, although under other numbers: all bytes are there that the done pack says the
    /// hour to have. Where it does not say so: the hour is of one stream, which has no gap from where it begins to where the done pack
    /// says that the hour ends.
    pub(super) fn is_filled_up(&self, sum: &Sum) -> bool {
        let is_refilled = self.parts.values().any(|part| part.is_refilled);
        let knows_numbers =
            sum.total > 0 && sum.ids.list().last().is_some_and(|(_, end)| *end == sum.total + 1);
        if let Some(missing) = self.missing_of_told() {
            return is_refilled && knows_numbers && missing == MissingOfTold::default();
        }
        let mut streams = self.parts.values().flat_map(|part| &part.streams);
        let (Some((_, stream)), None) = (streams.next(), streams.next()) else { return false };
        let has_begin = |begin: u64| begin == stream.first || sum.ids.covers(1, 2);
        let is_gapless = match stream.ranges.list() {
            [(begin, end)] => has_begin(*begin) && stream.end.is_some_and(|hour_end| hour_end == *end),
            _ => false,
        };
        !self.has_more_ranges() && is_refilled && knows_numbers && is_gapless
    }
}

impl Told {
    fn shares_streams_with(&self, other: &Told) -> bool {
        let is_theirs = |stream: u128| other.ranges.iter().any(|(theirs, ..)| *theirs == stream);
        self.ranges.iter().any(|(stream, ..)| is_theirs(*stream))
    }
}
