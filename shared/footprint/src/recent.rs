//! The identities of a stream's last packs, packed into few bytes.
//!
//! A stream in use has [`REMEMBERED_PACKS_MAX`] of them and a node has thousands of streams, so each takes 7 or 8
//! bytes instead of 24. Oldest first, each is
//!
//! | field | bytes | what |
//! |---|---|---|
//! | jump | LEB128, zigzag | offset less the end of the pack before; 0 in a run of packs without holes |
//! | span | LEB128 | |
//! | sum | 4, little-endian | |
//!
//! They are read from the oldest on; only packs whose range was seen before are looked up, so hardly any.

use crate::SeenPack;
use std::collections::VecDeque;

/// Packs remembered per stream.
pub const REMEMBERED_PACKS_MAX: usize = 1_024;

/// The last packs of a stream, oldest first.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct RecentPacks {
    /// Where the jump of the oldest starts from.
    start: u64,
    /// End of the newest.
    end: u64,
    count: usize,
    bytes: VecDeque<u8>,
}

impl RecentPacks {
    /// Remembers `pack` as the newest, and forgets the oldest above the limit.
    pub(crate) fn push(&mut self, pack: SeenPack) {
        let SeenPack(offset, span, sum) = pack;
        // First, so that a full list of packs of up to 2 MiB stays within 8 KiB and its memory is not doubled.
        if self.count == REMEMBERED_PACKS_MAX {
            self.pop();
        }
        if self.count == 0 {
            (self.start, self.end) = (offset, offset);
        }
        push_varint(&mut self.bytes, zigzag(offset.wrapping_sub(self.end)));
        push_varint(&mut self.bytes, span);
        self.bytes.extend(sum.to_le_bytes());
        self.end = offset.wrapping_add(span);
        self.count += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Memory of the list, which grows by doubling.
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.bytes.is_empty() { 0 } else { self.bytes.len().next_power_of_two() }
    }

    pub(crate) fn contains(&self, pack: SeenPack) -> bool {
        self.iter().any(|remembered| remembered == pack)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SeenPack> + '_ {
        let mut end = self.start;
        let mut bytes = self.bytes.iter().copied();
        std::iter::from_fn(move || {
            let pack = read(end, &mut bytes)?;
            end = pack.0.wrapping_add(pack.1);
            Some(pack)
        })
    }

    fn pop(&mut self) {
        let mut bytes = self.bytes.iter().copied();
        let Some(oldest) = read(self.start, &mut bytes) else { return };
        let taken = self.bytes.len() - bytes.len();
        self.bytes.drain(..taken);
        self.start = oldest.0.wrapping_add(oldest.1);
        self.count -= 1;
    }
}

impl FromIterator<SeenPack> for RecentPacks {
    fn from_iter<I: IntoIterator<Item = SeenPack>>(packs: I) -> RecentPacks {
        let mut recent = RecentPacks::default();
        packs.into_iter().for_each(|pack| recent.push(pack));
        recent
    }
}

fn read(end: u64, bytes: &mut impl Iterator<Item = u8>) -> Option<SeenPack> {
    let offset = end.wrapping_add(unzigzag(read_varint(bytes)?));
    let span = read_varint(bytes)?;
    let sum = [bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?];
    Some(SeenPack(offset, span, u32::from_le_bytes(sum)))
}

/// Small distances in either direction become small numbers.
fn zigzag(distance: u64) -> u64 {
    (distance << 1) ^ ((distance as i64 >> 63) as u64)
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

fn push_varint(bytes: &mut VecDeque<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push_back(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push_back(number as u8);
}

fn read_varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_packs_takes_at_most_eight_bytes_each() {
        let spans = (2 << 20) - 1;
        let run: RecentPacks = (0..5_000).map(|n| SeenPack(n * spans, spans, n as u32)).collect();
        assert_eq!((run.bytes.len(), run.bytes.capacity()), (1_024 * 8, 1_024 * 8));
        assert_eq!(run.iter().last(), Some(SeenPack(4_999 * spans, spans, 4_999)));
    }

    #[test]
    fn the_oldest_packs_are_forgotten_above_the_limit() {
        let run: RecentPacks = (0..3_000).map(|n| SeenPack(n * 10, 10, 7)).collect();
        let kept: Vec<_> = run.iter().collect();
        assert_eq!(kept.len(), REMEMBERED_PACKS_MAX);
        assert_eq!((kept[0], kept[1_023]), (SeenPack(19_760, 10, 7), SeenPack(29_990, 10, 7)));
        assert!(run.contains(kept[500]));
        assert!(!run.contains(SeenPack(19_750, 10, 7)));
    }

    #[test]
    fn packs_in_any_order_and_of_any_size_are_read_back() {
        let packs = [
            SeenPack(u64::MAX, 0, 1),
            SeenPack(0, u64::MAX, u32::MAX),
            SeenPack(5, 3, 0),
            SeenPack(5, 3, 0),
            SeenPack(u64::MAX - 1, 1, 9),
            SeenPack(1 << 63, 1, 2),
        ];
        assert_eq!(packs.into_iter().collect::<RecentPacks>().iter().collect::<Vec<_>>(), packs);
        for distance in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
            assert_eq!(unzigzag(zigzag(distance)), distance);
        }
        assert_eq!((zigzag(1), zigzag(u64::MAX)), (2, 1));
    }
}
