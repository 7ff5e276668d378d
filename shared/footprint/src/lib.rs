//! Footprints: what has been seen. Per stream a set of byte ranges and the identities of its last packs, and the
//! judgement of a pack against them. Does no I/O; owners keep it in a `durable::Log`.

use logferry_pack::{PackIdentity, StreamId};

/// Packs remembered per stream.
pub const REMEMBERED_PACKS_MAX: usize = 1_024;

/// A remembered pack of a stream, as on the wire: `[offset, span, sum]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SeenPack(pub u64, pub u64, pub u32);

/// What an answer `conflict` carries.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// End of the range that holds `first`: everything below has been seen.
    pub frontier: u64,
    /// Last packs, oldest first.
    pub packs: Vec<SeenPack>,
}

/// Judgement of a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing of it was seen and it starts at the frontier (or the stream is new and starts at `first`).
    Next,
    /// Nothing of it was seen, but what is between `frontier` and its offset has not been seen either.
    Gap {
        /// Where the next byte was expected.
        frontier: u64,
    },
    /// All of it was seen, and its identity is remembered.
    Duplicate,
    /// Some of it was seen, under another identity.
    Conflict(Remembered),
}

/// All streams' footprints.
#[derive(Default, Debug, Clone)]
pub struct Footprint {}

impl Footprint {
    /// Judges without changing anything.
    pub fn judge(&self, identity: &PackIdentity, first: u64) -> Verdict {
        todo!("{identity:?}{first}")
    }
    /// Remembers a pack. `now_unix` in seconds, for expiry.
    pub fn insert(&mut self, identity: &PackIdentity, first: u64, now_unix: u64) {
        todo!("{identity:?}{first}{now_unix}")
    }
    /// What is remembered of a stream.
    pub fn remembered(&self, stream: StreamId) -> Option<Remembered> {
        todo!("{stream:?}")
    }
    /// Forgets streams whose last pack is older than `keep_secs` (30 days by default). Returns how many.
    pub fn expire(&mut self, now_unix: u64, keep_secs: u64) -> usize {
        todo!("{now_unix}{keep_secs}")
    }
    /// Number of streams.
    pub fn streams(&self) -> usize {
        todo!()
    }
    /// Serialized form, versioned.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
    /// Back from [`Footprint::to_bytes`]; `None` when the bytes are not of a version we read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Footprint> {
        todo!("{bytes:?}")
    }
}
