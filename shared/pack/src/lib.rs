//! The pack: a run of whole log lines of one stream, as a JSON header and a compressed body.
//!
//! This crate encodes, decodes and checks packs and compresses their bodies. It does no I/O, knows no
//! clock, no sockets and no files. The nouns are [`Pack`], [`Header`], [`PackIdentity`], [`Codec`] and
//! [`Limits`].

use bytes::Bytes;
use std::fmt;

/// 128-bit id of one incarnation of one file. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct StreamId(pub u128);
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What tells one pack from another: the stream range it stands for and the crc32c of those bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct PackIdentity {
    /// Stream.
    pub stream: StreamId,
    /// Offset in the stream of the first byte, in bytes.
    pub offset: u64,
    /// Number of stream bytes the pack stands for.
    pub span: u64,
    /// crc32c of those bytes.
    pub sum: u32,
}

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// RFC 1950, the default and the only one legacy peers read.
    Zlib,
    /// RFC 8878.
    Zstd,
    /// As it is.
    None,
}

/// A host or source name that is safe as one component of a path: 1 to 255 bytes of UTF-8, no `/`, NUL or
/// control character, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Name(String);
impl Name {
    /// Checks `text`.
    pub fn new(text: impl Into<String>) -> Result<Name, BadPack> {
        todo!("{}", text.into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `YYYYMMDDHH`, checked to be a real date and hour.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Hour(u32);

/// What only packs of ours carry in `Route[0]` (wire.md, "Our keys").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ours {
    /// Node name.
    pub host: Name,
    /// Source name.
    pub source: Name,
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Stream offset at which shipping of the stream began.
    pub first: u64,
    /// Length of the body once decompressed.
    pub raw: u64,
    /// Codec of the body.
    pub codec: Codec,
    /// crc32c of the body as sent.
    pub crc: u32,
}

/// Header of a pack: what `Route[0]` says, and the hops after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Address of the host.
    pub ip: String,
    /// Hour of the pack.
    pub hour: Hour,
    /// Number of the pack in its hour, from 1.
    pub id: u64,
    /// Number of lines.
    pub lines: u64,
    /// Last pack of its hour.
    pub done: bool,
    /// A back-filled pack, never dropped as seen before on the way.
    pub repull: bool,
    /// Identity and checks; absent in packs of legacy nodes.
    pub ours: Option<Ours>,
    /// Everything else of `Route[0]` (stage, st, ed, elapse, keys we do not know), and the hops: kept as they came.
    pub origin_rest: serde_json::Map<String, serde_json::Value>,
    /// `Route[1..]`.
    pub hops: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// What a node appends to the route: wire.md "A receiver appends".
#[derive(Clone, Debug)]
pub struct Hop {
    /// Address of the node.
    pub ip: String,
    /// `tcp recv` for receivers.
    pub stage: &'static str,
    /// Start, `YYYY-MM-DD hh:mm:ss.mmm`, local time.
    pub st: String,
    /// End, the same.
    pub ed: String,
    /// Duration as text, `1.234ms`.
    pub elapse: String,
}

/// A header and the body it announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pack {
    /// Header.
    pub header: Header,
    /// Compressed body.
    pub body: Bytes,
}

/// Limits for everything that comes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of header JSON, default 64 KiB.
    pub header_bytes_max: usize,
    /// Bytes of a whole pack, default 16 MiB.
    pub pack_bytes_max: usize,
    /// Bytes of a decompressed body, default 64 MiB.
    pub raw_bytes_max: usize,
}

/// Why bytes are no good pack. `reason()` is a short stable label for counters.
#[derive(Debug, thiserror::Error)]
pub enum BadPack {
    /// Placeholder until the variants are written.
    #[error("{0}")]
    Other(String),
}
impl BadPack {
    /// Label for counters and rejects, such as `header_too_large`.
    pub fn reason(&self) -> &'static str {
        todo!()
    }
}

/// Outcome of looking at the first bytes of a pack.
#[derive(Debug)]
pub enum Decoded {
    /// At least this many bytes in all are needed before the answer can change.
    More {
        /// Total bytes wanted from the start of the pack.
        at_least: usize,
    },
    /// A whole header; the pack ends at `pack_len` bytes from its start.
    Header {
        /// The header.
        header: Header,
        /// Offset of the body.
        body_at: usize,
        /// Length of header and body together.
        pack_len: usize,
    },
}

/// Looks for a pack at the start of `bytes`.
pub fn decode_header(bytes: &[u8], limits: &Limits) -> Result<Decoded, BadPack> {
    todo!("{bytes:?}{limits:?}")
}

impl Pack {
    /// Parses exactly one pack (header and body, nothing behind it). Checks limits, names, numbers and, for packs
    /// of ours, the body's crc.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Pack, BadPack> {
        todo!("{bytes:?}{limits:?}")
    }
    /// The 4-byte length and the header JSON; the body follows as it is.
    pub fn encode_header(&self) -> Bytes {
        todo!()
    }
    /// Header and body in one buffer.
    pub fn encode(&self) -> Bytes {
        todo!()
    }
    /// Appends a hop to the route.
    pub fn push_hop(&mut self, hop: &Hop) {
        todo!("{hop:?}")
    }
}

/// Compresses bodies; keeps its state and buffers between packs.
pub struct Compressor {
    codec: Codec,
}
impl Compressor {
    /// `level` is the codec's own (zlib 1-9, zstd 1-19).
    pub fn new(codec: Codec, level: i32) -> Result<Compressor, BadPack> {
        todo!("{codec:?}{level}")
    }
    /// Compresses `raw` into a buffer of just the right size.
    pub fn compress(&mut self, raw: &[u8]) -> Bytes {
        todo!("{raw:?}{:?}", self.codec)
    }
}

/// Inflates bodies; keeps its state between packs.
pub struct Decompressor {}
impl Decompressor {
    /// New.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Decompressor {
        todo!()
    }
    /// Puts the decompressed body of `pack` into `out` (cleared first). For packs of ours the length must be `raw`
    /// exactly and, where `raw == span`, the crc32c must be `sum`. Never grows `out` past the limits.
    pub fn decompress(&mut self, pack: &Pack, limits: &Limits, out: &mut Vec<u8>) -> Result<(), BadPack> {
        todo!("{pack:?}{limits:?}{out:?}")
    }
}
