//! A footprint as bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | rest | postcard of a list of streams by id, each `stream, first, last_unix, ranges [(start, end)], packs [(jump, span, sum)]`, where `jump` is the pack's offset less the end of the one before (of 0 for the oldest) |
//!
//! Where the bytes are kept is under a checksum of the owner's; what is read is checked all the same, so that a wrong
//! file is refused instead of misjudging packs.

use crate::footprint::{Footprint, Stream};
use crate::slot::Slot;
use crate::{REMEMBERED_PACKS_MAX, SeenPack, ranges::Ranges};
use logferry_pack::StreamId;
use serde::{Serialize, de::DeserializeOwned};

const VERSION: u8 = 1;

/// A stream without its id.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Stored {
    first: u64,
    last_unix: u64,
    ranges: Vec<(u64, u64)>,
    packs: Vec<(i64, u64, u32)>,
}

impl Footprint {
    /// Serialized form, versioned. The same footprint always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = put(&self.streams.len(), vec![VERSION]);
        for (id, slot) in &self.streams {
            bytes = put(id, bytes);
            match slot {
                Slot::Live(stream) => bytes = put(&Stored::from(&**stream), bytes),
                Slot::Quiet(stored) => bytes.extend_from_slice(stored),
            }
        }
        bytes
    }

    /// Back from [`Footprint::to_bytes`]; `None` when the bytes are not of a version we read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Footprint> {
        let (&VERSION, mut rest) = bytes.split_first()? else { return None };
        let streams: u64 = take(&mut rest)?;
        let mut footprint = Footprint::default();
        // One at a time: all of them in full would take much more memory than they do afterwards.
        for _ in 0..streams {
            let id: StreamId = take(&mut rest)?;
            let stream = take::<Stored>(&mut rest)?.restored()?;
            if !footprint.restore(id, Slot::restored(stream)) {
                return None;
            }
        }
        rest.is_empty().then_some(footprint)
    }
}

fn put<T: Serialize>(value: &T, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("numbers and lists of them are always written to memory")
}

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

impl From<&Stream> for Stored {
    fn from(stream: &Stream) -> Stored {
        let mut end = 0;
        let packs = stream.recent.iter().map(|SeenPack(offset, span, sum)| {
            let jump = offset.wrapping_sub(end) as i64;
            end = offset.wrapping_add(span);
            (jump, span, sum)
        });
        Stored {
            first: stream.first,
            last_unix: stream.last_unix,
            packs: packs.collect(),
            ranges: stream.seen.list().to_vec(),
        }
    }
}

impl Stored {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        put(self, Vec::new())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Stored> {
        postcard::from_bytes(bytes).ok()
    }

    /// Of [`Stored::to_bytes`], without reading the rest.
    pub(crate) fn last_unix(mut bytes: &[u8]) -> u64 {
        take::<(u64, u64)>(&mut bytes).map_or(0, |(_first, last_unix)| last_unix)
    }

    /// `None` when ranges are not sorted, or when a remembered pack is not in them.
    pub(crate) fn restored(self) -> Option<Stream> {
        let seen = Ranges::from_list(self.ranges)?;
        if self.packs.len() > REMEMBERED_PACKS_MAX {
            return None;
        }
        let mut end = 0u64;
        let packs = self.packs.into_iter().map(|(jump, span, sum)| {
            let offset = end.wrapping_add(jump as u64);
            end = offset.wrapping_add(span);
            let known = span > 0 && seen.covers(offset, offset.saturating_add(span));
            known.then_some(SeenPack(offset, span, sum))
        });
        let recent = packs.collect::<Option<_>>()?;
        Some(Stream { first: self.first, last_unix: self.last_unix, seen, recent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_pack::PackIdentity;

    fn footprint() -> Footprint {
        let mut footprint = Footprint::default();
        for (stream, offset, span) in [(2, 0, 100), (2, 100, 50), (2, 200, 10), (1, 300, 5), (3, 0, 0)] {
            let identity = PackIdentity { stream: StreamId(stream), offset, span, sum: 0x01 };
            footprint.insert(&identity, 0, 1_000);
        }
        footprint
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let expected: &[u8] = &[
            1, 3, // version, streams
            1, 0, 0xe8, 7, 1, 0xac, 2, 0xb1, 2, 1, 0xd8, 4, 5, 1, // stream 1: one range, one pack
            2, 0, 0xe8, 7, 2, 0, 0x96, 1, 0xc8, 1, 0xd2, 1, // stream 2: two ranges
            3, 0, 100, 1, 0, 50, 1, 100, 10, 1, // and three packs, the last after a hole of 50
            3, 0, 0xe8, 7, 0, 0, // stream 3 had no bytes yet
        ];
        assert_eq!(footprint().to_bytes(), expected);
        assert_eq!(Footprint::from_bytes(expected), Some(footprint()));
    }

    #[test]
    fn bytes_that_are_cut_longer_or_of_another_version_are_refused() {
        let mut bytes = footprint().to_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(Footprint::from_bytes(&bytes[..cut]), None, "{cut}");
        }
        bytes.push(0);
        assert_eq!(Footprint::from_bytes(&bytes), None);
        bytes.pop();
        bytes[0] = 2;
        assert_eq!(Footprint::from_bytes(&bytes), None);
    }

    #[test]
    fn a_list_that_claims_more_than_there_is_takes_no_memory() {
        assert_eq!(
            Footprint::from_bytes(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let stream = |ranges: &[(u64, u64)], packs: &[(i64, u64, u32)]| {
            Stored { first: 0, last_unix: 0, ranges: ranges.to_vec(), packs: packs.to_vec() }.restored()
        };
        assert!(stream(&[(0, 10)], &[(0, 10, 1)]).is_some());
        assert_eq!(stream(&[(0, 10)], &[(0, 11, 1)]), None);
        assert_eq!(stream(&[(0, 10)], &[(0, 0, 1)]), None);
        assert_eq!(stream(&[(0, 10), (5, 20)], &[]), None);
        assert_eq!(stream(&[(0, 2_000)], &[(0, 1, 1); REMEMBERED_PACKS_MAX + 1]), None);
        let bytes = footprint().to_bytes();
        let twice = [&[1, 2][..], &bytes[2..16], &bytes[2..16]].concat();
        assert_eq!(Footprint::from_bytes(&twice), None);
    }
}
