//! Makes the packs of a repull those of a replacement: of one new stream without a gap, each with its true place.

use logferry_pack::{Header, Place, StreamId};
use xxhash_rust::xxh3::Xxh3;

/// The replacement of an hour of a source.
pub(super) struct Replacement {
    stream: StreamId,
    /// Bytes in the packs so far.
    at: u64,
    fewer_lines: bool,
}

impl Replacement {
    /// By the repull with this id; ids of a node are never given twice, so neither is the stream. With `fewer_lines` it may have fewer
    /// lines than what it replaces.
    pub(super) fn new(id: &str, host: &str, source: &str, fewer_lines: bool) -> Replacement {
        let mut hasher = Xxh3::new();
        for part in ["replacement", id, host, source] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Replacement { stream: StreamId(hasher.digest128()), at: 0, fewer_lines }
    }

    /// Makes it the header of the next pack.
    pub(super) fn take(&mut self, header: &mut Header) {
        let Some(ours) = &mut header.ours else { return };
        let place = Place { stream: ours.identity.stream, offset: ours.identity.offset, first: ours.first };
        (ours.identity.stream, ours.identity.offset, ours.first) = (self.stream, self.at, 0);
        self.at += ours.identity.span;
        header.set_place(place);
        if self.fewer_lines && header.done {
            header.allow_fewer_lines();
        }
    }
}
