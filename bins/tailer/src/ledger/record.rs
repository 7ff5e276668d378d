//! The records of the state log, and its snapshot.
//!
//! Each payload is one version byte ([`STATE_VERSION`]) and a `postcard` encoding (varints, enum variants by
//! their index). Variants are only ever added at the end; the tests pin the bytes.

use crate::identity::{FileKey, Head};
use crate::ledger::hours::HourBook;
use logferry_pack::{Hour, StreamId};
use std::collections::BTreeSet;

/// Version of the payloads.
pub const STATE_VERSION: u8 = 1;

/// A stream at first sight.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Met {
    /// Id.
    pub stream: StreamId,
    /// Name of the source.
    pub source: String,
    /// Bytes of the path at which the file was met.
    pub path: Vec<u8>,
    /// The file.
    pub key: FileKey,
    /// Its first line.
    pub head: Head,
    /// Generation of the file.
    pub generation: u32,
    /// Offset at which shipping begins.
    pub first: u64,
    /// Ids of earlier generations of the file, newest last.
    pub past: Vec<StreamId>,
}

/// Boundaries of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: u64,
    /// crc32c of the bytes.
    pub sum: u32,
    /// Number of lines.
    pub lines: u64,
    /// Hour.
    pub hour: Hour,
    /// Number within the hour and source.
    pub id: u64,
}

impl Cut {
    /// Offset of the first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.span
    }
}

/// A pack that is cut and not below the frontier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptCut {
    /// Boundaries.
    pub cut: Cut,
    /// The next tier has it, but not everything below it.
    pub acked: bool,
}

/// The last pack below the frontier: tells later whether the file still has the bytes that were shipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tail {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: u64,
    /// crc32c of the bytes.
    pub sum: u32,
}

/// One step in the life of the state.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Record {
    /// The files of a source were looked at for the first time; `start` has no say any more.
    SourceStarted(String),
    /// A stream was met.
    Met(Met),
    /// A pack was cut.
    Cut {
        /// Stream.
        stream: StreamId,
        /// Boundaries.
        cut: Cut,
    },
    /// Everything below `frontier` is acknowledged.
    Frontier {
        /// Stream.
        stream: StreamId,
        /// Offset.
        frontier: u64,
        /// The pack that ends there.
        tail: Option<Tail>,
    },
    /// The packs above the frontier were cut anew.
    Recut {
        /// Stream.
        stream: StreamId,
        /// Offset.
        frontier: u64,
        /// All packs above it.
        cuts: Vec<KeptCut>,
    },
    /// A new generation took over, with these packs.
    Replaced {
        /// The stream that ends.
        old: StreamId,
        /// The stream that begins.
        new: Met,
        /// Its packs.
        cuts: Vec<KeptCut>,
    },
    /// A stream is wholly acknowledged and its file will not grow any more.
    Finished(StreamId),
}

/// A stream in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct StreamSnapshot {
    /// First sight.
    pub met: Met,
    /// Acknowledged frontier.
    pub frontier: u64,
    /// The pack that ends there.
    pub tail: Option<Tail>,
    /// Packs above it.
    pub cuts: Vec<KeptCut>,
}

/// The whole state.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Sources that have started.
    pub sources: BTreeSet<String>,
    /// Streams, in an order that replays: predecessors first.
    pub streams: Vec<StreamSnapshot>,
    /// Numbers of packs.
    pub hours: HourBook,
}

/// Payload of a record or a snapshot.
pub fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let head = vec![STATE_VERSION];
    // Encoding into memory fails for no type of this module: they have known lengths and no maps with odd keys.
    postcard::to_extend(value, head).unwrap_or_default()
}

/// Back from [`encode`]; `None` for bytes of another version or that do not parse.
pub fn decode<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    let (version, rest) = payload.split_first()?;
    if *version != STATE_VERSION {
        return None;
    }
    postcard::from_bytes(rest).ok()
}
