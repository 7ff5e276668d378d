//! Cuts a back-filled pack to what is missing of it.

use super::order::Parcel;
use bytes::Bytes;
use logferry_pack::{Codec, Pack, PackIdentity};
use std::ops::Range;

/// A part of a pack, as a pack of its own.
pub struct Part {
    /// Where it is in the body.
    pub range: Range<usize>,
    /// The pack.
    pub pack: Pack,
}

/// The missing parts of a pack whose body is `raw`. Each header says what is written, so that the header file
/// goes on describing the log file.
pub fn parts(parcel: &Parcel, raw: &[u8]) -> Vec<Part> {
    let index = |offset: u64| usize::try_from(offset - parcel.identity.offset).unwrap_or(usize::MAX);
    let part = |&(from, to): &(u64, u64)| {
        let range = index(from)..index(to);
        let body = Bytes::copy_from_slice(raw.get(range.clone())?);
        let mut header = parcel.pack.header.clone();
        header.lines = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        let ours = header.ours.as_mut()?;
        let crc = logferry_pack::crc32c(&body);
        ours.identity = PackIdentity { offset: from, span: to - from, sum: crc, ..ours.identity };
        (ours.raw, ours.codec, ours.crc) = (to - from, Codec::None, crc);
        Some(Part { range, pack: Pack { header, body } })
    };
    parcel.trimmed_to.iter().filter_map(part).collect()
}
