//! All streams' footprints, and the judgement of packs against them.

use crate::memory::Memory;
use crate::recent::{REMEMBERED_PACKS_MAX, RecentPacks};
use crate::slot::Slot;
use crate::{PackSeen, Remembered, SeenPack, ranges::Ranges};
use logferry_pack::{LEGACY_KEEP_SECS, PackIdentity, StreamId};
use std::collections::BTreeMap;

/// Judgement of a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing of it was seen and it starts at the frontier (or the stream is new and starts at `first`).
    Next,
    /// Nothing of it was seen, but what is between `frontier` and its offset has not been seen either, or not all of it.
    Gap {
        /// Where the next byte was expected.
        frontier: u64,
    },
    /// All of it was seen, and its identity is remembered.
    Duplicate,
    /// Some of it was seen, under another identity or under one that is remembered no more.
    ///
    /// Where the remembered packs agree with the sender's file but the frontier is at the very offset of the pack,
    /// going on from the frontier cuts the same pack again: then only a new generation helps.
    Conflict(Remembered),
}

/// All streams' footprints. Two are equal if they say the same, however they keep it.
#[derive(Default, Debug, Clone)]
pub struct Footprint {
    pub(crate) streams: BTreeMap<StreamId, Slot>,
    pub(crate) memory: Memory,
}

/// What was seen of one stream.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// As the last pack had it.
    pub(crate) first: u64,
    /// Seconds since 1970 of the last pack.
    pub(crate) last_unix: u64,
    pub(crate) seen: Ranges,
    pub(crate) recent: RecentPacks,
}

impl Footprint {
    /// Judges without changing anything. `first` is where shipping of the stream began, as the pack says; the
    /// frontier is the end of the seen range that holds `first`, or `first` itself.
    ///
    /// A pack without bytes (a done pack without lines) is never a duplicate nor a conflict: nothing of it can have
    /// been seen, and two of them, for two quiet hours, have the same identity. It is [`Verdict::Next`] once
    /// everything before it was seen, else [`Verdict::Gap`]. Its number in its hour tells one from another.
    pub fn judge(&self, identity: &PackIdentity, first: u64) -> Verdict {
        let (start, end) = (identity.offset, identity.end());
        let Some(stream) = self.streams.get(&identity.stream).map(Slot::stream) else {
            return if start <= first { Verdict::Next } else { Verdict::Gap { frontier: first } };
        };
        if stream.seen.touches(start, end) {
            let known = stream.seen.covers(start, end) && stream.recent.contains(identity.into());
            return if known { Verdict::Duplicate } else { Verdict::Conflict(stream.remembered(first)) };
        }
        let frontier = stream.seen.frontier(first);
        if start <= frontier { Verdict::Next } else { Verdict::Gap { frontier } }
    }

    /// Judges against what either footprint has: as [`Footprint::judge`] against both in one.
    pub fn judge_with(&self, other: &Footprint, identity: &PackIdentity, first: u64) -> Verdict {
        let (start, end) = (identity.offset, identity.end());
        let verdicts = [self.judge(identity, first), other.judge(identity, first)];
        if verdicts.contains(&Verdict::Duplicate) {
            return Verdict::Duplicate;
        }
        let slots = [self, other].map(|footprint| footprint.streams.get(&identity.stream).map(Slot::stream));
        let streams = || slots.iter().flatten();
        // Ranges of the two may take turns.
        let mut frontier = first;
        while let Some(further) = streams().map(|stream| stream.seen.frontier(frontier)).max()
            && further > frontier
        {
            frontier = further;
        }
        if streams().any(|stream| stream.seen.touches(start, end)) {
            let mut packs: Vec<SeenPack> = streams().flat_map(|stream| stream.recent.iter()).collect();
            packs.drain(..packs.len().saturating_sub(REMEMBERED_PACKS_MAX));
            return Verdict::Conflict(Remembered { frontier, packs });
        }
        if start <= frontier { Verdict::Next } else { Verdict::Gap { frontier } }
    }

    /// Forgets a stream.
    pub fn forget(&mut self, stream: StreamId) {
        self.memory.bytes -= self.streams.remove(&stream).as_ref().map_or(0, Slot::bytes);
        self.memory.is_lighter();
    }

    /// Remembers a pack. `now_unix` in seconds, for expiry. Inserting a remembered pack again changes
    /// nothing but its stream's time and `first`, so a log may be applied twice; whatever overlaps is merged.
    pub fn insert(&mut self, identity: &PackIdentity, first: u64, now_unix: u64) {
        let slot = self.streams.entry(identity.stream).or_insert_with(|| {
            self.memory.bytes += Slot::NEW_BYTES;
            Slot::Live(Box::default())
        });
        let before = slot.bytes();
        let stream = slot.live();
        stream.first = first;
        stream.last_unix = stream.last_unix.max(now_unix);
        let (start, end) = (identity.offset, identity.end());
        let pack = SeenPack::from(identity);
        let is_known = start == end || (stream.seen.covers(start, end) && stream.recent.contains(pack));
        if !is_known {
            stream.seen.insert(start, end);
            stream.recent.push(pack);
        }
        self.memory.bytes = self.memory.bytes + slot.bytes() - before;
        self.keep_to_limit();
    }

    /// Takes a stream in that is not there yet; false if it is.
    pub(crate) fn restore(&mut self, stream: StreamId, slot: Slot) -> bool {
        self.memory.bytes += slot.bytes();
        self.streams.insert(stream, slot).is_none()
    }

    /// Remembers what a record of the owner's log says.
    pub fn apply(&mut self, seen: &PackSeen) {
        self.insert(&seen.identity, seen.first, seen.unix);
    }

    /// Whether all of the `span` bytes from `offset` were seen, under whatever identity.
    pub fn has_seen(&self, stream: StreamId, offset: u64, span: u64) -> bool {
        self.streams
            .get(&stream)
            .is_some_and(|slot| slot.stream().seen.covers(offset, offset.saturating_add(span)))
    }

    /// The ranges `(from, to)` of a pack that were not seen yet, in order.
    pub fn missing(&self, identity: &PackIdentity) -> Vec<(u64, u64)> {
        let (start, end) = (identity.offset, identity.end());
        self.streams
            .get(&identity.stream)
            .map_or_else(|| vec![(start, end)], |slot| slot.stream().seen.missing(start, end))
    }

    /// What is remembered of a stream, its frontier counted from the `first` of its last pack.
    pub fn remembered(&self, stream: StreamId) -> Option<Remembered> {
        self.streams.get(&stream).map(Slot::stream).map(|stream| stream.remembered(stream.first))
    }

    /// Forgets streams whose last pack is older than `keep_secs` (30 days by default), those of adopted legacy packs after a day.
    /// Returns how many.
    pub fn expire(&mut self, now_unix: u64, keep_secs: u64) -> usize {
        let before = self.streams.len();
        let bytes = &mut self.memory.bytes;
        self.streams.retain(|id, slot| {
            let keep_secs = if id.is_legacy() { keep_secs.min(LEGACY_KEEP_SECS) } else { keep_secs };
            let is_kept = now_unix.saturating_sub(slot.last_unix()) <= keep_secs;
            *bytes -= if is_kept { 0 } else { slot.bytes() };
            is_kept
        });
        self.memory.is_lighter();
        before - self.streams.len()
    }

    /// Number of streams.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}

impl PartialEq for Footprint {
    fn eq(&self, other: &Footprint) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Footprint {}

impl Stream {
    fn remembered(&self, first: u64) -> Remembered {
        Remembered { frontier: self.seen.frontier(first), packs: self.recent.iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(7);

    fn pack(offset: u64, span: u64, sum: u32) -> PackIdentity {
        PackIdentity { stream: STREAM, offset, span, sum }
    }

    fn with(packs: &[PackIdentity]) -> Footprint {
        let mut footprint = Footprint::default();
        packs.iter().for_each(|pack| footprint.insert(pack, 0, 1_000));
        footprint
    }

    #[test]
    fn an_unknown_stream_begins_at_its_first_offset() {
        let footprint = Footprint::default();
        assert_eq!(footprint.judge(&pack(500, 10, 1), 500), Verdict::Next);
        assert_eq!(footprint.judge(&pack(510, 10, 1), 500), Verdict::Gap { frontier: 500 });
        assert_eq!(footprint.remembered(STREAM), None);
    }

    #[test]
    fn packs_in_order_are_next_and_a_hole_is_a_gap_until_it_is_filled() {
        let footprint = with(&[pack(0, 10, 1), pack(20, 10, 3)]);
        assert_eq!(footprint.judge(&pack(10, 10, 2), 0), Verdict::Next);
        assert_eq!(footprint.judge(&pack(10, 5, 2), 0), Verdict::Next);
        assert_eq!(footprint.judge(&pack(30, 10, 4), 0), Verdict::Gap { frontier: 10 });
        let filled = with(&[pack(0, 10, 1), pack(20, 10, 3), pack(10, 10, 2)]);
        assert_eq!(filled.judge(&pack(30, 10, 4), 0), Verdict::Next);
        // Order of arrival is remembered, not order in the stream.
        let packs = vec![SeenPack(0, 10, 1), SeenPack(20, 10, 3), SeenPack(10, 10, 2)];
        assert_eq!(filled.remembered(STREAM), Some(Remembered { frontier: 30, packs }));
    }

    #[test]
    fn a_seen_range_is_a_duplicate_only_under_its_own_identity() {
        let footprint = with(&[pack(0, 10, 1), pack(10, 10, 2)]);
        let packs = vec![SeenPack(0, 10, 1), SeenPack(10, 10, 2)];
        let conflict = Verdict::Conflict(Remembered { frontier: 20, packs });
        assert_eq!(footprint.judge(&pack(10, 10, 2), 0), Verdict::Duplicate);
        for other in [pack(10, 10, 3), pack(0, 20, 1), pack(5, 10, 1), pack(0, 5, 1), pack(15, 10, 9)] {
            assert_eq!(footprint.judge(&other, 0), conflict, "{other:?}");
        }
    }

    #[test]
    fn two_footprints_judge_as_one_that_has_all_that_they_have() {
        let mut random = 7_u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        for _ in 0..300 {
            let (mut both, mut parts) = (Footprint::default(), [Footprint::default(), Footprint::default()]);
            for _ in 0..below(12) {
                let pack = pack(below(12) * 10, 10, 1);
                both.insert(&pack, 0, 1_000);
                parts[below(2) as usize].insert(&pack, 0, 1_000);
            }
            for offset in 0..13 {
                let pack = pack(offset * 10 + below(2) * 5, below(3) * 10, 1 + below(2) as u32);
                let expected = both.judge(&pack, 0);
                match (parts[0].judge_with(&parts[1], &pack, 0), &expected) {
                    (Verdict::Conflict(one), Verdict::Conflict(other)) => {
                        assert_eq!(one.frontier, other.frontier, "{pack:?} {parts:?}");
                    }
                    (verdict, _) => assert_eq!(verdict, expected, "{pack:?} {parts:?}"),
                }
            }
        }
    }

    #[test]
    fn a_forgotten_stream_gives_its_memory_back() {
        let mut footprint = with(&[pack(0, 10, 1), pack(20, 10, 3)]);
        footprint.forget(STREAM);
        footprint.forget(StreamId(8));
        assert_eq!((footprint.streams(), footprint.memory_bytes()), (0, 0));
    }

    #[test]
    fn a_pack_that_is_remembered_no_more_is_a_conflict_not_a_duplicate() {
        let packs: Vec<_> = (0..1_025).map(|n| pack(n * 10, 10, 1)).collect();
        let footprint = with(&packs);
        assert!(matches!(footprint.judge(&packs[0], 0), Verdict::Conflict(_)));
        assert_eq!(footprint.judge(&packs[1], 0), Verdict::Duplicate);
    }

    #[test]
    fn a_pack_without_bytes_waits_for_what_is_before_it_and_is_never_a_duplicate() {
        let footprint = with(&[pack(0, 10, 1), pack(10, 0, 0)]);
        assert_eq!(footprint.judge(&pack(10, 0, 0), 0), Verdict::Next);
        assert_eq!(footprint.judge(&pack(5, 0, 0), 0), Verdict::Next);
        assert_eq!(footprint.judge(&pack(11, 0, 0), 0), Verdict::Gap { frontier: 10 });
        assert_eq!(footprint.remembered(STREAM).unwrap().packs, [SeenPack(0, 10, 1)]);
        assert_eq!(Footprint::default().judge(&pack(0, 0, 0), 0), Verdict::Next);
    }

    #[test]
    fn the_frontier_is_counted_from_where_the_sender_began() {
        let footprint = with(&[pack(0, 10, 1)]);
        assert_eq!(footprint.judge(&pack(50, 10, 2), 50), Verdict::Next);
        assert_eq!(footprint.judge(&pack(60, 10, 2), 50), Verdict::Gap { frontier: 50 });
        let mut footprint = Footprint::default();
        footprint.insert(&pack(50, 10, 2), 50, 1_000);
        assert_eq!(footprint.judge(&pack(0, 10, 1), 0), Verdict::Next);
        footprint.insert(&pack(0, 10, 1), 0, 1_000);
        assert_eq!(footprint.remembered(STREAM).unwrap().frontier, 10);
        assert!(footprint.has_seen(STREAM, 52, 8));
        assert!(!footprint.has_seen(STREAM, 52, 9));
        assert!(!footprint.has_seen(StreamId(8), 0, 1));
    }

    #[test]
    fn a_range_at_the_end_of_all_numbers_does_not_overflow() {
        let footprint = with(&[pack(u64::MAX - 5, 100, 1)]);
        assert!(matches!(footprint.judge(&pack(u64::MAX - 1, 100, 2), 0), Verdict::Conflict(_)));
    }

    #[test]
    fn streams_expire_after_their_last_pack_and_not_when_the_clock_goes_back() {
        let mut footprint = with(&[pack(0, 10, 1)]);
        footprint.insert(&PackIdentity { stream: StreamId(8), ..pack(0, 10, 1) }, 0, 1_500);
        footprint.insert(&pack(0, 10, 1), 0, 900);
        assert_eq!(footprint.expire(0, 100), 0);
        assert_eq!(footprint.expire(1_100, 100), 0);
        assert_eq!(footprint.expire(1_101, 100), 1);
        assert_eq!(footprint.remembered(STREAM), None);
        assert_eq!(footprint.streams(), 1);
    }

    #[test]
    fn each_legacy_pack_is_a_stream_that_is_forgotten_after_a_day() {
        let mut footprint = with(&[pack(0, 10, 1)]);
        let legacy =
            PackIdentity { stream: StreamId::of_legacy("10.0.0.7_2026112101_1", [7; 16]), ..pack(0, 10, 1) };
        footprint.insert(&legacy, 0, 1_000);
        assert_eq!(footprint.judge(&legacy, 0), Verdict::Duplicate);
        assert_eq!(footprint.expire(1_000 + LEGACY_KEEP_SECS, 30 * LEGACY_KEEP_SECS), 0);
        assert_eq!(footprint.expire(1_001 + LEGACY_KEEP_SECS, 30 * LEGACY_KEEP_SECS), 1);
        assert_eq!(footprint.judge(&legacy, 0), Verdict::Next);
        assert!(footprint.has_seen(STREAM, 0, 10));
    }
}
