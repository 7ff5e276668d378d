//! A stream's footprint as it is kept: in full, or, of a stream that was quiet for long, packed into a few bytes.

use crate::footprint::Stream;
use crate::snapshot::Stored;
use logferry_pack::PackIdentity;
use std::borrow::Cow;

/// Packs that a quiet stream goes on remembering, besides those at the end of a seen range.
pub const QUIET_PACKS: usize = 16;

/// Memory of an entry of the map: key and slot, and the room that a tree leaves free.
const ENTRY_BYTES: usize = 48;
/// Memory of an allocation beyond what was asked for.
const ALLOCATION_BYTES: usize = 16;

/// What is kept of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Live(Box<Stream>),
    /// As in a snapshot, without the stream's id.
    Quiet(Box<[u8]>),
}

impl Slot {
    /// What an empty stream takes.
    pub(crate) const NEW_BYTES: usize = ENTRY_BYTES + ALLOCATION_BYTES + size_of::<Stream>();

    /// Packs what a snapshot says, if it is little.
    pub(crate) fn restored(stream: Stream) -> Slot {
        if stream.recent.len() > QUIET_PACKS { Slot::Live(Box::new(stream)) } else { Slot::quiet(&stream) }
    }

    fn quiet(stream: &Stream) -> Slot {
        Slot::Quiet(Stored::from(stream).to_bytes().into())
    }

    /// The stream, unpacked if need be.
    pub(crate) fn stream(&self) -> Cow<'_, Stream> {
        match self {
            Slot::Live(stream) => Cow::Borrowed(stream),
            Slot::Quiet(bytes) => Cow::Owned(unpack(bytes)),
        }
    }

    /// The stream, to be changed; it is in full from here on.
    pub(crate) fn live(&mut self) -> &mut Stream {
        if let Slot::Quiet(bytes) = self {
            *self = Slot::Live(Box::new(unpack(bytes)));
        }
        match self {
            Slot::Live(stream) => stream,
            Slot::Quiet(_) => unreachable!("it was unpacked above"),
        }
    }

    /// Packs the stream; all but its last packs are forgotten. Returns how many were.
    pub(crate) fn pack(&mut self) -> usize {
        let Slot::Live(stream) = self else { return 0 };
        let before = stream.recent.len();
        let ends: Vec<u64> = stream.seen.list().iter().map(|range| range.1).collect();
        let first_kept = before.saturating_sub(QUIET_PACKS);
        // A tailer that has to compare its file with what is remembered needs the pack at the frontier.
        let is_at_end = |pack: &crate::SeenPack| ends.binary_search(&pack.0.saturating_add(pack.1)).is_ok();
        let kept = stream.recent.iter().enumerate().filter(|(at, pack)| *at >= first_kept || is_at_end(pack));
        stream.recent = kept.map(|(_, pack)| pack).collect();
        let forgotten = before - stream.recent.len();
        *self = Slot::quiet(stream);
        forgotten
    }

    /// Seconds since 1970 of the last pack.
    pub(crate) fn last_unix(&self) -> u64 {
        match self {
            Slot::Live(stream) => stream.last_unix,
            Slot::Quiet(bytes) => Stored::last_unix(bytes),
        }
    }

    /// Memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Slot::Live(stream) => ALLOCATION_BYTES + size_of::<Stream>() + stream.heap_bytes(),
                Slot::Quiet(bytes) => ALLOCATION_BYTES + bytes.len(),
            }
    }

    /// Whether a pack can be told without another range: it touches what was seen.
    pub(crate) fn adjoins(&self, identity: &PackIdentity) -> bool {
        let stream = self.stream();
        let (from, to) = (identity.offset.saturating_sub(1), identity.end().saturating_add(1));
        stream.seen.is_empty() || stream.seen.touches(from, to)
    }
}

impl Stream {
    fn heap_bytes(&self) -> usize {
        let ranges = size_of_val(self.seen.list());
        let packs = self.recent.heap_bytes();
        let allocations = usize::from(ranges > 0) + usize::from(packs > 0);
        ranges + packs + allocations * ALLOCATION_BYTES
    }
}

/// Bytes that this module has packed.
fn unpack(bytes: &[u8]) -> Stream {
    Stored::from_bytes(bytes).and_then(Stored::restored).unwrap_or_default()
}
