//! Bodies, inflated and checked.

use crate::{BadPack, Codec, Limits, Ours, Pack, crc32c};
use flate2::{Decompress, FlushDecompress, Status};

/// Inflates bodies; keeps its state between packs.
pub struct Decompressor {
    /// For bodies whose length is announced: one call into a buffer of that length.
    zlib: libdeflater::Decompressor,
    zstd: zstd::bulk::Decompressor<'static>,
    /// For bodies of legacy packs, which do not say what they hold.
    zlib_streaming: Decompress,
}

/// The least that the buffer grows by for a body of unknown length.
const GROWTH_BYTES_MIN: usize = 64 << 10;

impl Decompressor {
    /// New.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Decompressor {
        Decompressor {
            zlib: libdeflater::Decompressor::new(),
            zstd: zstd::bulk::Decompressor::new()
                .expect("a zstd context without a dictionary needs memory only"),
            zlib_streaming: Decompress::new(true),
        }
    }

    /// Puts the decompressed body of `pack` into `out`, in place of what is there. For packs of ours the length must
    /// be `raw` exactly, and the crc32c [`Ours::body_sum`] where there is one. Never grows `out` past the limits.
    ///
    /// Hand over the same `out` for pack after pack without clearing it: bytes that it has already are written
    /// over, only what it lacks has to be zeroed first. After an error it is empty.
    ///
    /// # Errors
    /// [`BadPack`] when the body is not what its header says.
    pub fn decompress(&mut self, pack: &Pack, limits: &Limits, out: &mut Vec<u8>) -> Result<(), BadPack> {
        let outcome = match &pack.header.ours {
            Some(ours) => self.decompress_ours(ours, &pack.body, limits, out),
            None => self.decompress_legacy(&pack.body, limits, out),
        };
        if outcome.is_err() {
            out.clear();
        }
        outcome
    }

    fn decompress_ours(
        &mut self,
        ours: &Ours,
        body: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPack> {
        let raw = usize::try_from(ours.raw)
            .ok()
            .filter(|raw| *raw <= limits.raw_bytes_max)
            .ok_or(BadPack::RawTooLarge { max: limits.raw_bytes_max })?;
        if ours.raw > ours.codec.raw_bytes_possible(body.len() as u64) {
            return Err(BadPack::RawImpossible { raw: ours.raw, body_len: body.len() as u64 });
        }
        match ours.codec {
            Codec::Zlib => self.one_shot_zlib(body, raw, out)?,
            Codec::Zstd => self.one_shot_zstd(body, raw, out)?,
            Codec::None => {
                out.clear();
                out.extend_from_slice(body);
            }
        }
        if out.len() != raw {
            return Err(BadPack::RawMismatch);
        }
        if ours.body_sum().is_some_and(|sum| crc32c(out) != sum) {
            return Err(BadPack::BadSum);
        }
        Ok(())
    }

    fn one_shot_zlib(&mut self, body: &[u8], raw: usize, out: &mut Vec<u8>) -> Result<(), BadPack> {
        out.resize(raw, 0);
        let length = self.zlib.zlib_decompress(body, out).map_err(|error| match error {
            libdeflater::DecompressionError::BadData => BadPack::BodyCorrupt,
            libdeflater::DecompressionError::InsufficientSpace => BadPack::RawMismatch,
        })?;
        out.truncate(length);
        Ok(())
    }

    fn one_shot_zstd(&mut self, body: &[u8], raw: usize, out: &mut Vec<u8>) -> Result<(), BadPack> {
        out.resize(raw, 0);
        // The library's errors are text only; a frame that says its length lets "too long" be told from "damaged".
        let announced = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
        if announced.is_some_and(|length| length > raw as u64) {
            return Err(BadPack::RawMismatch);
        }
        let length =
            self.zstd.decompress_to_buffer(body, out.as_mut_slice()).map_err(|_| BadPack::BodyCorrupt)?;
        out.truncate(length);
        Ok(())
    }

    /// Grows `out` step by step, so that a body of a few bytes never takes the memory of the limit at once.
    fn decompress_legacy(&mut self, body: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(), BadPack> {
        self.zlib_streaming.reset(true);
        out.clear();
        loop {
            if out.len() >= limits.raw_bytes_max {
                return self.end_at_limit(body, limits);
            }
            if out.len() == out.capacity() {
                let wanted = out.len().saturating_mul(2).max(GROWTH_BYTES_MIN).min(limits.raw_bytes_max);
                out.reserve_exact(wanted - out.len());
            }
            let before = out.len();
            let rest = rest_of(body, &self.zlib_streaming);
            let status = self
                .zlib_streaming
                .decompress_vec(rest, out, FlushDecompress::Finish)
                .map_err(|_| BadPack::BodyCorrupt)?;
            if out.len() > limits.raw_bytes_max {
                // The caller's buffer had more room than the limit.
                return Err(BadPack::RawTooLarge { max: limits.raw_bytes_max });
            }
            if status == Status::StreamEnd {
                return self.check_whole(body);
            }
            if out.len() == before {
                return Err(BadPack::BodyCorrupt); // There was room, and nothing more came: the stream is cut short.
            }
        }
    }

    /// With `out` at the limit: whether the stream is at its end, or has more. Told by one byte of room beside
    /// `out`, because growing it by that byte would take its memory twice.
    fn end_at_limit(&mut self, body: &[u8], limits: &Limits) -> Result<(), BadPack> {
        let written = self.zlib_streaming.total_out();
        let rest = rest_of(body, &self.zlib_streaming);
        let status = self
            .zlib_streaming
            .decompress(rest, &mut [0], FlushDecompress::Finish)
            .map_err(|_| BadPack::BodyCorrupt)?;
        if self.zlib_streaming.total_out() > written {
            return Err(BadPack::RawTooLarge { max: limits.raw_bytes_max });
        }
        if status == Status::StreamEnd { self.check_whole(body) } else { Err(BadPack::BodyCorrupt) }
    }

    fn check_whole(&self, body: &[u8]) -> Result<(), BadPack> {
        let whole = rest_of(body, &self.zlib_streaming).is_empty();
        if whole { Ok(()) } else { Err(BadPack::BodyTrailingBytes) }
    }
}

/// What `zlib` has not read of `body` yet.
fn rest_of<'a>(body: &'a [u8], zlib: &Decompress) -> &'a [u8] {
    let read = usize::try_from(zlib.total_in()).unwrap_or(usize::MAX);
    body.get(read..).unwrap_or_default()
}
