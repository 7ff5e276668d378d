//! The book of one hour: the packs that the output has of it.

use super::fact::Fact;
use super::hooks::{Extent, HookKind};
pub use super::part::{ID_RUNS_MAX, Part, STREAM_RANGES_MAX, StreamPart};
pub use super::told::{MissingOfTold, Told};
use logferry_footprint::Ranges;
use logferry_pack::{HOUR_RANGES_MAX, HourRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tailers of an hour, one after another, that each began to number from 1: what so many of them tell is remembered.
pub const NUMBERINGS_MAX: usize = 4;
/// Streams of an hour whose byte ranges are known: all that done packs can tell of.
pub const STREAMS_MAX: usize = NUMBERINGS_MAX * HOUR_RANGES_MAX;
/// What the output has of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourBook {
    /// By the path of the log file: nearly always one.
    pub parts: BTreeMap<String, Part>,
    /// Lines that its mark tells; `None`: it has none, or it is not known.
    pub marked: Option<u64>,
    /// Packs that it had when it got the mark; 0: not known.
    pub marked_packs: u64,
    /// For each kind of hook what the complete hour had that it was told of.
    pub hooked: [Extent; HookKind::ALL.len()],
    /// How often a repull was asked for.
    pub asked: u32,
    /// When last, in milliseconds since 1970.
    pub asked_ms: i64,
    /// What the newest done pack says that the hour has; more than one where packs were numbered from 1 again, because a tailer had lost its
    /// state: of each numbering what its newest done pack says.
    pub told: Vec<Told>,
}

/// An hour over all its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Numbers of packs.
    pub ids: Ranges,
    /// Number of packs; 0: not known yet.
    pub total: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the first pack was received, in milliseconds since 1970.
    pub first_ms: i64,
    /// When the last was.
    pub last_ms: i64,
}

/// How an hour stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The number of packs is known, and exactly those are there.
    Whole,
    /// It was whole, and more has come since: it waits for a done pack with the new number, or for one that tells of what came under numbers
    /// that other packs had.
    Late,
    /// No done pack has come, and nothing is known to be missing.
    Open,
    /// Packs are missing.
    Missing,
}

impl HourBook {
    /// A pack is in the file with this path.
    pub fn add(&mut self, path: &str, fact: &Fact) {
        self.parts.entry(path.to_owned()).or_default().add(fact);
        if let Some(ranges) = &fact.hour_ranges {
            let ranges = ranges.iter().map(|HourRange { stream, from, to }| (stream.0, *from, *to));
            self.tell(Told { total: fact.id, ranges: ranges.collect() });
        }
    }

    /// Whether nobody knows if an hour whose packs are missing has their bytes by now: a repull has brought some, of more streams or in more
    /// pieces than are told apart.
    pub fn is_vague(&self) -> bool {
        self.has_more_ranges() && self.parts.values().any(|part| part.is_refilled)
    }

    /// Over all files.
    pub fn sum(&self) -> Sum {
        let mut parts = self.parts.values();
        let mut sum = parts.next().map(Sum::of).unwrap_or_default();
        for part in parts {
            part.ids.list().iter().for_each(|(from, to)| sum.ids.insert(*from, *to));
            sum.total = sum.total.max(part.total);
            sum.lines = sum.lines.saturating_add(part.lines);
            sum.bytes = sum.bytes.saturating_add(part.bytes);
            sum.first_ms = sum.first_ms.min(part.first_ms);
            sum.last_ms = sum.last_ms.max(part.last_ms);
        }
        sum
    }

    /// How it stands. Where files that it was whole by may not be known, packs that are missing here may be in them: then they count as late.
    pub fn standing(&self) -> Standing {
        match self.standing_of_parts() {
            Standing::Missing | Standing::Open if self.may_have_other_files() => Standing::Late,
            standing => standing,
        }
    }

    /// Whether a mark was found that the files which are known were never whole by: it may be of others.
    pub fn may_have_other_files(&self) -> bool {
        self.marked.is_some() && self.marked_packs == 0
    }

    fn standing_of_parts(&self) -> Standing {
        if self.parts.values().any(|part| part.is_scattered) {
            return Standing::Missing;
        }
        let sum = self.sum();
        match sum.standing() {
            Standing::Missing | Standing::Open if self.is_filled_up(&sum) => self.whole_by_bytes(),
            Standing::Whole => self.whole_by_bytes(),
            standing => standing,
        }
    }

    /// What hooks are to be told: what its mark says, of an hour that is complete, or was until lines came late.
    pub fn extent(&self) -> Option<Extent> {
        let lines = self.marked?;
        let sum = self.sum();
        // Of one that may have other files nobody is told: they could not be named.
        match self.standing_of_parts() {
            Standing::Whole if lines == sum.lines => Some(Extent { packs: sum.total, lines }),
            Standing::Late if self.marked_packs > 0 => Some(Extent { packs: self.marked_packs, lines }),
            Standing::Late => Some(Extent { packs: sum.total, lines }),
            _ => None,
        }
    }

    /// Lines of an hour that is whole.
    pub fn whole_lines(&self) -> Option<u64> {
        (self.standing() == Standing::Whole).then(|| self.sum().lines)
    }

    /// Leaves of a whole hour what its mark and hooks need: its numbers are then taken for whole, and nothing is known of its bytes.
    pub fn slim(&mut self) {
        if self.standing() != Standing::Whole {
            return;
        }
        let total = self.sum().total;
        self.parts.values_mut().for_each(Part::slim);
        if let Some(part) = self.parts.values_mut().next() {
            // What a repull has filled up keeps holes.
            part.ids.insert(1, total.saturating_add(1));
        }
        self.told.clear();
    }

    /// Memory that it takes, about, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let of_streams = |part: &Part| {
            part.streams.values().map(|stream| 128 + 16 * stream.ranges.list().len()).sum::<usize>()
        };
        let of_part = |(path, part): (&String, &Part)| {
            let runs =
                part.ids.list().len() + part.ids_with_bytes.list().len() + part.ids_of_done.list().len();
            2 * path.len() + 256 + 16 * runs + of_streams(part)
        };
        let of_told = self.told.iter().map(|told| 32 * told.ranges.len()).sum::<usize>();
        256 + self.parts.iter().map(of_part).sum::<usize>() + of_told
    }
}

impl Sum {
    fn of(part: &Part) -> Sum {
        let Part { total, lines, bytes, first_ms, last_ms, .. } = *part;
        Sum { ids: part.ids.clone(), total, lines, bytes, first_ms, last_ms }
    }

    /// How the hour stands.
    pub fn standing(&self) -> Standing {
        match (self.ids.list(), self.total) {
            ([(1, end)], total) if total > 0 && *end == total.saturating_add(1) => Standing::Whole,
            ([(1, end)], total) if total > 0 && *end > total => Standing::Late,
            ([] | [(1, _)], 0) => Standing::Open,
            _ => Standing::Missing,
        }
    }

    /// Numbers of packs that are known to be missing, as ranges without their ends.
    pub fn missing_ids(&self) -> Vec<(u64, u64)> {
        let seen_to = self.ids.list().last().map_or(1, |(_, end)| *end);
        self.ids.missing(1, seen_to.max(self.total.saturating_add(1)))
    }

    /// How many packs are there.
    pub fn packs(&self) -> u64 {
        self.ids.list().iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::HourKey;
    use super::*;
    use Standing::{Late, Missing, Open, Whole};
    use logferry_pack::{PackIdentity, StreamId};

    fn fact(id: u64, done: bool) -> Fact {
        let hour = 2026112100.try_into().unwrap();
        let key = HourKey { source: "access".into(), host: "web-1".into(), hour };
        Fact { at_ms: 1_000 * id as i64, ..Fact::of_a_test(key, id, done) }
    }

    fn book(facts: &[Fact]) -> HourBook {
        let mut book = HourBook::default();
        facts.iter().for_each(|fact| book.add("a", fact));
        book
    }

    #[test]
    fn an_hour_is_whole_with_exactly_the_packs_that_its_done_pack_tells() {
        let packs = [fact(1, false), fact(2, false), fact(3, true)];
        assert_eq!(book(&packs).standing(), Whole);
        assert_eq!(book(&[fact(1, true)]).standing(), Whole);
        assert_eq!(book(&[fact(3, true), fact(1, false), fact(2, false)]).standing(), Whole);
        assert_eq!(book(&packs[..2]).standing(), Open);
        assert_eq!(book(&packs[1..]).standing(), Missing);
        assert_eq!(book(&packs[..1]).standing(), Open);
        assert_eq!(book(&[]).standing(), Open);
    }

    #[test]
    fn more_packs_than_the_done_pack_told_wait_for_the_next_one() {
        let mut packs = vec![fact(1, false), fact(2, true), fact(3, false)];
        assert_eq!(book(&packs).standing(), Late);
        packs.push(fact(5, true));
        assert_eq!((book(&packs).standing(), book(&packs).sum().missing_ids()), (Missing, vec![(4, 5)]));
        packs.push(fact(4, false));
        assert_eq!(book(&packs).standing(), Whole);
        assert_eq!(book(&packs).sum().lines, 50);
    }

    #[test]
    fn parts_in_several_files_make_one_hour() {
        let mut book = book(&[fact(1, false), fact(4, true)]);
        [2, 3].iter().for_each(|id| book.parts.entry("b".into()).or_default().add(&fact(*id, false)));
        let sum = book.sum();
        assert_eq!((book.standing(), sum.lines, sum.packs()), (Whole, 40, 4));
        assert_eq!((sum.first_ms, sum.last_ms), (1_000, 4_000));
    }

    fn of_stream(stream: u128, offset: u64, span: u64, fact: Fact) -> Fact {
        let identity = PackIdentity { stream: StreamId(stream), offset, span, sum: 0 };
        Fact { range: Some((identity, 0)), ..fact }
    }

    fn repulled(stream: u128, offset: u64, span: u64) -> Fact {
        Fact { is_numbered: false, ..of_stream(stream, offset, span, fact(2, false)) }
    }

    #[test]
    fn what_a_repull_brought_fills_an_hour_of_one_stream_by_its_bytes_and_never_by_its_numbers() {
        let first = of_stream(1, 0, 100, fact(1, false));
        let done = of_stream(1, 400, 0, fact(5, true));
        assert_eq!(book(&[first.clone(), done.clone()]).standing(), Missing);
        let half = [first.clone(), done.clone(), repulled(1, 100, 200)];
        assert_eq!(book(&half).standing(), Missing);
        let all = [&half[..], &[repulled(1, 300, 100)]].concat();
        assert_eq!((book(&all).standing(), book(&all).sum().lines), (Whole, 40));
        // The tail is only known to be there when the done pack says where the hour ends.
        let without_done = [first.clone(), repulled(1, 100, 300)];
        assert_eq!(book(&without_done).standing(), Open);
        // Of another stream nobody knows where it begins and ends.
        let of_two = [&all[..], &[of_stream(2, 0, 10, fact(3, false))]].concat();
        assert_eq!(book(&of_two).standing(), Missing);
        let without_first = [done, repulled(1, 100, 300)];
        assert_eq!(book(&without_first).standing(), Missing);
    }

    #[test]
    fn an_hour_of_several_streams_is_filled_when_all_bytes_are_there_that_the_done_pack_tells() {
        let range = |stream, from, to| HourRange { stream: StreamId(stream), from, to };
        let told = vec![range(1, 0, 100), range(2, 50, 90)];
        let done = Fact { hour_ranges: Some(told), ..of_stream(2, 90, 0, fact(4, true)) };
        let lost = [done.clone(), repulled(1, 0, 100), repulled(2, 50, 30)];
        assert_eq!(book(&lost).standing(), Missing);
        assert_eq!(book(&lost).missing_of_told().unwrap().ranges, [(2, 80, 90)]);
        let all = [&lost[..], &[repulled(2, 80, 10)]].concat();
        assert_eq!((book(&all).standing(), book(&all).sum().lines), (Whole, 40));
        // A later done pack that does not say what it has: nobody knows what came with it.
        let late = [&all[..], &[of_stream(2, 200, 10, fact(6, true))]].concat();
        assert_eq!(book(&late).standing(), Missing);
        // Of packs that came as they were first sent only the numbers count.
        let missing_one = [done, of_stream(1, 0, 100, fact(1, false)), of_stream(2, 50, 40, fact(2, false))];
        assert_eq!(book(&missing_one).standing(), Missing);
    }

    fn done_telling(id: u64, stream: u128, to: u64) -> Fact {
        let told = vec![HourRange { stream: StreamId(stream), from: 0, to }];
        Fact { hour_ranges: Some(told), ..of_stream(stream, to, 0, fact(id, true)) }
    }

    #[test]
    fn an_hour_whose_numbers_were_used_by_two_tailers_is_whole_only_when_all_is_there_that_both_tell() {
        let first = [
            of_stream(1, 0, 10, fact(1, false)),
            of_stream(1, 10, 10, fact(2, false)),
            done_telling(3, 1, 20),
        ];
        assert_eq!(book(&first).standing(), Whole);
        let begun = [&first[..], &[of_stream(2, 0, 10, fact(1, false))]].concat();
        assert_eq!(book(&begun).standing(), Late, "of the second nobody knows how much there is");
        let told = [&begun[..], &[done_telling(3, 2, 20)]].concat();
        assert_eq!(book(&told).standing(), Missing);
        assert_eq!(book(&told).missing_of_told().unwrap().ranges, [(2, 10, 20)]);
        let all = [&told[..], &[of_stream(2, 10, 10, fact(2, false))]].concat();
        assert_eq!((book(&all).standing(), book(&all).sum().lines), (Whole, 60));
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(book(&reversed).standing(), Whole);
        // The number of a done pack is that of a pack with bytes.
        let lost = [
            of_stream(1, 10, 10, fact(2, false)),
            of_stream(2, 0, 10, fact(1, false)),
            done_telling(2, 2, 10),
        ];
        assert_eq!(book(&lost).standing(), Late);
        // Of a part in a file of its own, too.
        let mut parted = book(&first);
        parted.add("b", &of_stream(2, 0, 10, fact(1, false)));
        assert_eq!(parted.standing(), Late);
        // Without a word of the bytes nobody knows.
        let mute: Vec<Fact> = all.iter().map(|fact| Fact { hour_ranges: None, ..fact.clone() }).collect();
        assert_eq!(book(&mute).standing(), Late);
    }

    #[test]
    fn a_done_pack_that_tells_of_bytes_that_are_not_there_closes_no_hour() {
        let packs = [of_stream(1, 0, 10, fact(1, false)), done_telling(2, 1, 20)];
        assert_eq!(book(&packs).standing(), Missing);
        // A later one of the same tailer takes the place of what it told before.
        let again = [&packs[..], &[fact(3, false), done_telling(4, 1, 10)]].concat();
        assert_eq!(book(&again).standing(), Whole);
    }

    #[test]
    fn a_pack_without_bytes_may_have_the_number_of_another() {
        let mark = |id| of_stream(1, 30, 0, fact(id, false));
        let packs = [of_stream(1, 0, 10, fact(1, false)), mark(1), mark(2), done_telling(3, 1, 10)];
        assert_eq!(book(&packs).standing(), Whole);
        let late = [&packs[..], &[of_stream(2, 0, 10, fact(2, false))]].concat();
        assert_eq!(book(&late).standing(), Whole, "the pack arrived after all");
        // Numbers that were used again for the same stream, cut otherwise.
        let again = [of_stream(1, 0, 5, fact(1, false)), of_stream(1, 5, 15, fact(1, false)), mark(2)];
        assert_eq!(book(&[&again[..], &[done_telling(3, 1, 20)]].concat()).standing(), Whole);
    }

    /// A done pack that tells of so many streams, ten bytes each, of which one came; a repull brings the others.
    fn lost_of_streams(streams: u128) -> Vec<Fact> {
        let range = |stream| HourRange { stream: StreamId(stream), from: 0, to: 10 };
        let told = (1..=streams).map(range).collect();
        let total = streams as u64 + 1;
        let done = Fact { hour_ranges: Some(told), ..of_stream(1, 10, 0, fact(total, true)) };
        let repulled = (2..=streams).map(|stream| repulled(stream, 0, 10));
        [of_stream(1, 0, 10, fact(1, false)), done].into_iter().chain(repulled).collect()
    }

    #[test]
    fn an_hour_of_as_many_streams_as_a_done_pack_can_tell_of_is_filled_by_a_repull() {
        let facts = lost_of_streams(HOUR_RANGES_MAX as u128);
        let (all_but_one, _) = facts.split_at(facts.len() - 1);
        assert_eq!(book(all_but_one).missing_of_told().unwrap().ranges, [(HOUR_RANGES_MAX as u128, 0, 10)]);
        assert_eq!(book(all_but_one).standing(), Missing);
        assert_eq!(book(&facts).standing(), Whole);
        assert!(!book(&facts).is_vague());
    }

    #[test]
    fn what_a_book_has_no_room_for_is_not_called_missing() {
        let strangers =
            (0..STREAMS_MAX as u128).map(|stream| of_stream(stream + 10_000, 0, 10, fact(1, false)));
        let lost: Vec<Fact> = strangers.chain(lost_of_streams(100)).collect();
        let vague = MissingOfTold { ranges: Vec::new(), is_vague: true };
        assert_eq!(book(&lost).missing_of_told(), Some(vague));
        assert!(book(&lost).is_vague(), "and nobody asks for it for ever");
    }

    #[test]
    fn a_stream_in_more_pieces_than_are_told_apart_is_known_again_when_a_repull_closes_them() {
        let pieces = 2 * STREAM_RANGES_MAX as u64;
        let scattered: Vec<Fact> =
            (0..pieces).map(|piece| of_stream(1, 20 * piece, 10, fact(piece + 1, false))).collect();
        let done = done_telling(2 * pieces + 1, 1, 20 * pieces);
        let mut filled = [scattered, vec![done]].concat();
        assert_eq!(book(&filled).parts["a"].streams[&1].ranges.list().len(), STREAM_RANGES_MAX);
        filled.extend((0..pieces).map(|piece| repulled(1, 20 * piece, 20)));
        assert_eq!(book(&filled).standing(), Whole);
    }

    #[test]
    fn scattered_numbers_of_a_stranger_take_bounded_memory_and_are_never_whole() {
        let mut part = Part::default();
        (0..3 * ID_RUNS_MAX as u64).for_each(|number| part.add(&fact(2 * number + 2, false)));
        assert_eq!(part.ids.list().len(), ID_RUNS_MAX);
        assert!(part.is_scattered);
        let book = HourBook { parts: BTreeMap::from([("a".into(), part)]), ..HourBook::default() };
        assert_eq!(book.standing(), Missing);
    }
}
