//! Protocol v1, the legacy one (wire.md, "Session v1"): a pack, then its answer, then the next pack. No frames, no greeting, no
//! sequence numbers, so both ends are plain loops over one connection at a time.

mod footprint;
mod receiving;
mod sending;
mod transcode;

pub use footprint::LegacyFootprint;
pub(crate) use receiving::serve;
pub(crate) use sending::run;

/// The answer to a pack that was taken.
const OK: &[u8] = b"ok";
/// The answer to a pack that is refused; the connection is closed after it.
const WRONG_HEADER: &[u8] = b"wrong header";
