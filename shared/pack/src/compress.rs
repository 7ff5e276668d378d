//! Bodies, compressed.
//!
//! Zlib bodies are made and read by libdeflate, because packs are whole buffers. Measured in CPU time on a real access
//! log in packs of 1 MiB, one core of a busy two-core machine, MB of lines per second (three runs):
//!
//! | level 1 | compress | decompress | ratio |
//! |---|---|---|---|
//! | libdeflate | 514-534 | 2,290-2,630 | 8.70 |
//! | flate2 with zlib-rs | 533-542 | 920-960 | 6.52 |
//! | flate2 with zlib-ng | 647-670 | 1,440-1,510 | 6.52 |
//! | zstd | 1,014-1,047 | 2,630-2,780 | 11.31 |
//!
//! zlib-ng compresses a quarter faster, but its bodies are a third longer on each network and in each spool, and it
//! needs cmake to build; at the level that gives libdeflate's ratio, 3, it is slower (401). Bodies of unknown length,
//! those of legacy packs, are inflated by zlib-rs, which can stop on the way.

use crate::{BadPack, Codec};
use bytes::Bytes;

/// Compresses bodies; keeps its state and buffers between packs.
pub struct Compressor {
    state: State,
    /// Where a body is built before its length is known. Stays at its greatest length, so that it is zeroed once.
    room: Vec<u8>,
}

enum State {
    Zlib(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
    None,
}

impl Compressor {
    /// `level` is the codec's own (zlib 1-9, zstd 1-19; `none` has no levels and takes any).
    ///
    /// # Errors
    /// [`BadPack::BadLevel`] for a level that the codec does not have.
    pub fn new(codec: Codec, level: i32) -> Result<Compressor, BadPack> {
        let bad_level = || BadPack::BadLevel { codec, level };
        let state = match codec {
            Codec::Zlib if (1..=9).contains(&level) => {
                let level = libdeflater::CompressionLvl::new(level).map_err(|_| bad_level())?;
                State::Zlib(libdeflater::Compressor::new(level))
            }
            Codec::Zstd if (1..=19).contains(&level) => {
                State::Zstd(zstd::bulk::Compressor::new(level).map_err(|_| bad_level())?)
            }
            Codec::None => State::None,
            Codec::Zlib | Codec::Zstd => return Err(bad_level()),
        };
        Ok(Compressor { state, room: Vec::new() })
    }

    /// Codec of the bodies made here.
    pub fn codec(&self) -> Codec {
        match self.state {
            State::Zlib(_) => Codec::Zlib,
            State::Zstd(_) => Codec::Zstd,
            State::None => Codec::None,
        }
    }

    /// Compresses `raw` into a buffer of just the right size.
    pub fn compress(&mut self, raw: &[u8]) -> Bytes {
        let length = match &mut self.state {
            State::None => return Bytes::copy_from_slice(raw),
            State::Zlib(zlib) => {
                let room = at_least(&mut self.room, zlib.zlib_compress_bound(raw.len()));
                zlib.zlib_compress(raw, room).expect("the bound is enough for any input")
            }
            State::Zstd(zstd) => {
                let room = at_least(&mut self.room, zstd::zstd_safe::compress_bound(raw.len()));
                zstd.compress_to_buffer(raw, room).expect("the bound is enough for any input")
            }
        };
        Bytes::copy_from_slice(&self.room[..length])
    }
}

fn at_least(room: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if room.len() < length {
        room.resize(length, 0);
    }
    room
}
