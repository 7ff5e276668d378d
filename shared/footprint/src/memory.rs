//! The memory of a footprint, and what is forgotten when it becomes too much.
//!
//! Above the limit, streams are packed, those first that were quiet for longest: of a packed stream all seen ranges stay known, but
//! of its packs only the last [`QUIET_PACKS`](crate::QUIET_PACKS) and those at the end of a range. A pack that is remembered no more is a
//! conflict when it comes again, never a duplicate; its tailer compares its file with what is remembered and goes on
//! from the frontier. So packing costs a question now and then, and nothing is written twice.
//!
//! When all are packed and it is still too much, [`WhenFull`] says what gives way.

use crate::Footprint;
use crate::slot::Slot;
use logferry_pack::{PackIdentity, StreamId};

/// What gives way when packing is not enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// New streams and new gaps: [`Footprint::has_room_for`] says no until old streams have expired. For who decides what is
    /// written.
    #[default]
    RefuseNew,
    /// Streams, those first that were quiet for longest. For who only spares others duplicates.
    ForgetStreams,
}

/// How much memory there is, and how much is taken.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) bytes: usize,
    bytes_max: usize,
    when_full: WhenFull,
    /// Where packing begins the next time: it goes through all streams, so it must be worth it.
    pack_at: usize,
    is_full: bool,
    packs_forgotten: u64,
    streams_forgotten: u64,
}

/// What was forgotten for want of memory since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Identities of packs.
    pub packs: u64,
    /// Streams.
    pub streams: u64,
}

/// The part of the limit that is made free at a time.
const FREED_PART: usize = 8;

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            bytes: 0,
            bytes_max: usize::MAX,
            when_full: WhenFull::default(),
            pack_at: usize::MAX,
            is_full: false,
            packs_forgotten: 0,
            streams_forgotten: 0,
        }
    }
}

impl Memory {
    /// What packing and forgetting come down to.
    fn target(&self) -> usize {
        self.bytes_max - self.bytes_max / FREED_PART
    }

    /// Streams have gone.
    pub(crate) fn is_lighter(&mut self) {
        if self.bytes <= self.target() {
            self.is_full = false;
            self.pack_at = self.bytes_max;
        }
    }
}

impl Footprint {
    /// Sets the limit of its memory, in bytes, and what gives way at it.
    pub fn limited(mut self, bytes_max: usize, when_full: WhenFull) -> Footprint {
        self.memory.bytes_max = bytes_max;
        self.memory.pack_at = bytes_max;
        self.memory.when_full = when_full;
        self.keep_to_limit();
        self
    }

    /// Memory it takes, in bytes: what it is made of, and an allowance for the allocator.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes
    }

    /// What was forgotten for want of memory.
    pub fn forgotten(&self) -> Forgotten {
        Forgotten { packs: self.memory.packs_forgotten, streams: self.memory.streams_forgotten }
    }

    /// Whether the limit keeps new streams out.
    pub fn is_full(&self) -> bool {
        self.memory.is_full
    }

    /// Whether a pack may be inserted: always, unless it is full and the pack would make a new stream or a new range.
    pub fn has_room_for(&self, identity: &PackIdentity) -> bool {
        !self.memory.is_full || self.streams.get(&identity.stream).is_some_and(|slot| slot.adjoins(identity))
    }

    pub(crate) fn keep_to_limit(&mut self) {
        if self.memory.bytes <= self.memory.pack_at {
            return;
        }
        let target = self.memory.target();
        let mut oldest: Vec<(u64, StreamId)> =
            self.streams.iter().map(|(id, slot)| (slot.last_unix(), *id)).collect();
        oldest.sort_unstable();
        let mut by_age = oldest.iter();
        while self.memory.bytes > target
            && let Some((_, id)) = by_age.next()
        {
            if let Some(slot) = self.streams.get_mut(id) {
                let before = slot.bytes();
                self.memory.packs_forgotten += slot.pack() as u64;
                self.memory.bytes = self.memory.bytes + slot.bytes() - before;
            }
        }
        if self.memory.when_full == WhenFull::ForgetStreams {
            let mut by_age = oldest.iter();
            while self.memory.bytes > target
                && let Some((_, id)) = by_age.next()
            {
                self.memory.bytes -= self.streams.remove(id).as_ref().map_or(0, Slot::bytes);
                self.memory.streams_forgotten += 1;
            }
        }
        self.memory.is_full = self.memory.bytes > target;
        let worth_it = self.memory.bytes + self.memory.bytes_max / FREED_PART;
        self.memory.pack_at = worth_it.max(self.memory.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QUIET_PACKS, Remembered, SeenPack, Verdict};

    const LIMIT: usize = 64 << 10;

    fn pack(stream: u128, offset: u64, span: u64) -> PackIdentity {
        PackIdentity { stream: StreamId(stream), offset, span, sum: offset as u32 }
    }

    /// A stream of `count` packs, the last one seen at `unix`.
    fn fill(footprint: &mut Footprint, stream: u128, count: u64, unix: u64) {
        (0..count).for_each(|index| footprint.insert(&pack(stream, index * 100, 100), 0, unix));
    }

    fn remembered(footprint: &Footprint, stream: u128) -> Remembered {
        footprint.remembered(StreamId(stream)).expect("a known stream")
    }

    fn counted_anew(footprint: &Footprint) -> usize {
        footprint.streams.values().map(Slot::bytes).sum()
    }

    #[test]
    fn the_streams_that_were_quiet_for_longest_forget_first_and_only_packs() {
        let mut footprint = Footprint::default().limited(LIMIT, WhenFull::RefuseNew);
        for stream in 0..12 {
            fill(&mut footprint, stream, 1_000, 1_000 + stream as u64);
        }
        assert!(footprint.memory_bytes() <= LIMIT);
        let packs = |stream| remembered(&footprint, stream).packs.len();
        assert_eq!((packs(0), packs(11)), (QUIET_PACKS, 1_000));
        assert!((1..12).all(|stream| packs(stream - 1) <= packs(stream)));
        assert!((0..12).all(|stream| footprint.has_seen(StreamId(stream), 0, 100_000)));
        assert_eq!(footprint.forgotten().streams, 0);
        // A pack of a packed stream: known if it is one of the last, never taken for a duplicate otherwise.
        assert_eq!(footprint.judge(&pack(0, 99_900, 100), 0), Verdict::Duplicate);
        let Verdict::Conflict(remembered) = footprint.judge(&pack(0, 500, 100), 0) else {
            panic!("a conflict")
        };
        assert_eq!(remembered.frontier, 100_000);
        assert_eq!(remembered.packs.last(), Some(&SeenPack(99_900, 100, 99_900)));
        assert_eq!(footprint.judge(&pack(0, 100_000, 100), 0), Verdict::Next);
    }

    #[test]
    fn the_pack_at_the_frontier_is_kept_whatever_came_after_it() {
        let mut footprint = Footprint::default();
        fill(&mut footprint, 1, 3, 1);
        (0..50).for_each(|index| footprint.insert(&pack(1, 1_000 + index * 10, 10), 0, 1));
        let footprint = footprint.limited(1, WhenFull::RefuseNew);
        let remembered = remembered(&footprint, 1);
        assert_eq!((remembered.frontier, remembered.packs[0]), (300, SeenPack(200, 100, 200)));
        assert_eq!(remembered.packs.len(), 1 + QUIET_PACKS);
    }

    #[test]
    fn a_full_footprint_takes_no_new_stream_until_old_ones_expire_and_forgets_none() {
        let mut footprint = Footprint::default().limited(LIMIT, WhenFull::RefuseNew);
        let mut taken = 0;
        while footprint.has_room_for(&pack(taken, 0, 100)) {
            fill(&mut footprint, taken, 2, 1_000 + taken as u64);
            taken += 1;
        }
        assert!(taken > 300, "{taken} streams in {LIMIT} bytes");
        assert!(footprint.is_full() && footprint.memory_bytes() <= LIMIT);
        assert!((0..taken).all(|stream| footprint.has_seen(StreamId(stream), 0, 200)));
        // Known streams go on, without new gaps.
        assert!(footprint.has_room_for(&pack(0, 200, 100)));
        assert!(!footprint.has_room_for(&pack(0, 900, 100)));
        let before = footprint.streams();
        let gone = footprint.expire(1_000 + taken as u64 / 2, 0);
        assert_eq!(footprint.streams(), before - gone);
        assert!(!footprint.is_full() && footprint.has_room_for(&pack(taken, 0, 100)));
        assert_eq!(footprint.memory_bytes(), counted_anew(&footprint));
    }

    #[test]
    fn who_only_spares_others_duplicates_forgets_whole_streams() {
        let mut footprint = Footprint::default().limited(LIMIT, WhenFull::ForgetStreams);
        for stream in 0..2_000 {
            fill(&mut footprint, stream, 2, stream as u64);
            assert!(footprint.memory_bytes() <= LIMIT);
        }
        assert!(footprint.streams() > 300 && !footprint.is_full());
        assert_eq!(footprint.forgotten().streams, 2_000 - footprint.streams() as u64);
        assert_eq!(footprint.remembered(StreamId(0)), None);
        assert!(footprint.has_seen(StreamId(1_999), 0, 200));
    }

    #[test]
    fn with_a_limit_it_judges_as_without_but_for_packs_that_it_forgot() {
        let mut random = 1_u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        let mut free = Footprint::default();
        let mut limited = Footprint::default().limited(8 << 10, WhenFull::RefuseNew);
        let (mut conflicts, mut duplicates) = (0, 0);
        for step in 0..30_000 {
            let pack = pack(below(12).into(), below(300) * 10, 10 + below(2) * 10);
            match (free.judge(&pack, 0), limited.judge(&pack, 0)) {
                (Verdict::Duplicate, Verdict::Conflict(_)) => conflicts += 1,
                (Verdict::Conflict(free), Verdict::Conflict(limited)) => {
                    assert_eq!(free.frontier, limited.frontier);
                    assert!(limited.packs.iter().all(|pack| free.packs.contains(pack)));
                }
                (free, limited) => {
                    duplicates += u64::from(free == Verdict::Duplicate);
                    assert_eq!(free, limited);
                }
            }
            if limited.has_room_for(&pack) {
                free.insert(&pack, 0, step);
                limited.insert(&pack, 0, step);
            }
            if step % 1_000 == 0 {
                assert_eq!(limited.memory_bytes(), counted_anew(&limited));
                limited = Footprint::from_bytes(&limited.to_bytes()).expect("own bytes");
                assert_eq!(limited.memory_bytes(), counted_anew(&limited));
                limited = limited.limited(8 << 10, WhenFull::RefuseNew);
            }
        }
        assert!(conflicts > 100 && duplicates > 100, "{conflicts} {duplicates}");
        assert!(free.memory_bytes() > 8 << 10);
    }
}
