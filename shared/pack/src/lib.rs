//! The pack: a run of whole log lines of one stream, as a JSON header and a compressed body.
//!
//! This crate encodes, decodes and checks packs and compresses their bodies. It does no I/O, knows no
//! clock, no sockets and no files, and trusts nothing it is given: each length is compared with the
//! [`Limits`] before memory is taken for it, each name with the rules of [`Name`].
//!
//! The nouns: a [`Pack`] is a [`Header`] and a body; a [`PackIdentity`] tells it from all others; a [`Codec`]
//! says how the body is compressed, by a [`Compressor`], and back by a [`Decompressor`]. What is no pack is a
//! [`BadPack`].
//!
//! ```
//! use logferry_pack::*;
//!
//! let lines = b"GET / 200\nGET /robots.txt 404\n";
//! let body = Compressor::new(Codec::Zlib, 1)?.compress(lines);
//! let header = Header {
//!     ip: "10.0.0.7".into(),
//!     hour: "2026112101".parse()?,
//!     id: 1,
//!     lines: 2,
//!     done: false,
//!     repull: false,
//!     ours: Some(Ours {
//!         host: Name::new("web-1")?,
//!         source: Name::new("access")?,
//!         identity: PackIdentity { stream: StreamId(7), offset: 0, span: 30, sum: crc32c(lines) },
//!         first: 0,
//!         raw: 30,
//!         raw_sum: None,
//!         codec: Codec::Zlib,
//!         crc: crc32c(&body),
//!     }),
//!     origin_rest: Default::default(),
//!     hops: Vec::new(),
//! };
//! let bytes = Pack { header, body }.encode();
//!
//! let limits = Limits::default();
//! let pack = Pack::parse(bytes, &limits)?;
//! let mut out = Vec::new();
//! Decompressor::new().decompress(&pack, &limits, &mut out)?;
//! assert_eq!(out, lines);
//! # Ok::<(), BadPack>(())
//! ```

mod checksum;
mod codec;
mod compress;
mod decompress;
mod error;
mod header;
mod hour;
mod hour_ranges;
mod identity;
mod json;
mod legacy;
mod limits;
mod name;
mod pack;
mod replacement;
mod repull;

pub use checksum::{crc32c, crc32c_append, crc32c_combine};
pub use codec::Codec;
pub use compress::Compressor;
pub use decompress::Decompressor;
pub use error::{BadPack, NameFault};
pub use header::{Header, Hop, Ours, RAW_PER_SPAN_MAX};
pub use hour::Hour;
pub use hour_ranges::{HOUR_RANGES_MAX, HourRange};
pub use identity::{PackIdentity, StreamId};
pub use legacy::{LEGACY_KEEP_SECS, LEGACY_SOURCE};
pub use limits::{Limits, ROUTE_OBJECTS_MAX};
pub use name::Name;
pub use pack::{Decoded, Pack, decode_header};
pub use replacement::Place;
