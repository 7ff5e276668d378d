//! Packs one after another out of a reader, with no more than one of them in memory.

use bytes::{Bytes, BytesMut};
use logferry_pack::{Decoded, Limits, Pack, decode_header};
use std::io::{self, Read};

/// Why no further pack comes.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The reader failed.
    Unreadable(io::Error),
    /// The bytes at this place are no pack. Where the next one begins cannot be known.
    NoPack {
        /// Offset in the file, in bytes.
        at: u64,
        /// What becomes of the rest.
        left: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// How much is read at a time when the size of what comes is not known.
const READ_BYTES: usize = 64 << 10;

/// A pack that was found; its body is not checked.
#[derive(Debug)]
pub(crate) struct Found {
    /// Offset in the input, in bytes.
    pub(crate) at: u64,
    /// Length and header as they came, in bytes.
    pub(crate) header_bytes: u64,
    pub(crate) pack: Pack,
}

/// Reads packs from `R`.
pub(crate) struct PackStream<R> {
    input: R,
    limits: Limits,
    /// Bytes read and not given out.
    held: BytesMut,
    /// Offset of `held` in the input.
    at: u64,
}

impl<R: Read> PackStream<R> {
    pub(crate) fn new(input: R, limits: Limits) -> PackStream<R> {
        PackStream { input, limits, held: BytesMut::new(), at: 0 }
    }

    /// The next pack; `None` at the end of the input.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, Stopped> {
        loop {
            let wanted = match decode_header(&self.held, &self.limits) {
                Err(bad) => {
                    return Err(self.no_pack("the rest of the file is not looked at", bad.to_string()));
                }
                Ok(Decoded::More { at_least }) => at_least,
                Ok(Decoded::Header { pack_len, .. }) if self.held.len() < pack_len => pack_len,
                Ok(Decoded::Header { header, body_at, pack_len }) => {
                    let bytes: Bytes = self.held.split_to(pack_len).freeze();
                    let at = self.at;
                    self.at += pack_len as u64;
                    let pack = Pack { header, body: bytes.slice(body_at..) };
                    return Ok(Some(Found { at, header_bytes: body_at as u64, pack }));
                }
            };
            if self.fill(wanted).map_err(Stopped::Unreadable)? {
                continue;
            }
            if self.held.is_empty() {
                return Ok(None);
            }
            let reason = format!("the file ends after {} of {wanted} bytes or more", self.held.len());
            return Err(self.no_pack("the pack was cut off", reason));
        }
    }

    fn no_pack(&self, left: &'static str, reason: String) -> Stopped {
        Stopped::NoPack { at: self.at, left, reason }
    }

    /// Reads until `wanted` bytes are held; false when the input ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.held.len() < wanted {
            let held = self.held.len();
            // in steps: a length that lies does not get its memory before its bytes have come
            self.held.resize(held + (wanted - held).clamp(1, READ_BYTES), 0);
            let read = loop {
                match self.input.read(&mut self.held[held..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            self.held.truncate(held + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
