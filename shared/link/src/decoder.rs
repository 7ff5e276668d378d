//! The incremental decoder of frames: takes bytes in whatever pieces they come, and gives frames.
//!
//! Small frames are gathered in a small buffer. A PACK is announced first, so that its owner can take the bytes from a budget
//! before they are read; then it is read into a buffer of exactly its size, which becomes the pack without a copy.

use crate::frame::{self, BadFrame, Frame, HEAD_BYTES, KIND_PACK, SEQUENCE_BYTES};
use bytes::buf::Limit;
use bytes::{Buf, BufMut, BytesMut};

/// Size of the buffer that an idle connection holds, in bytes.
pub const READ_BUFFER_BYTES: usize = 4 << 10;
/// A PACK is announced when this much of the pack (or all of it) has arrived, so that a peer that only promises packs takes
/// nothing from the budget.
pub const PACK_BEGUN_BYTES: usize = 2 << 10;
const PACK_FRONT_BYTES: usize = HEAD_BYTES + SEQUENCE_BYTES;
// The front and the beginning of a pack must fit into the read buffer.
const _: () = assert!(PACK_FRONT_BYTES + PACK_BEGUN_BYTES <= READ_BUFFER_BYTES);

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// More bytes are needed.
    More,
    /// A PACK of so many bytes has begun: [`Decoder::take_pack`] or [`Decoder::skip_pack`] is next.
    PackBegun {
        /// Its sequence.
        sequence: u64,
        /// Bytes of the pack.
        bytes: usize,
    },
    /// A whole frame.
    Frame(Frame),
}

#[derive(Debug)]
enum State {
    Head,
    Begun { sequence: u64, bytes: usize },
    Pack { sequence: u64, bytes: usize, pack: BytesMut },
    Skip { left: usize },
}

/// Decodes one direction of a connection, from the first frame on.
#[derive(Debug)]
pub struct Decoder {
    pack_bytes_max: usize,
    small: BytesMut,
    /// Bytes that `small` must hold before there is anything new to see.
    wanted: usize,
    state: State,
}

impl Decoder {
    /// A decoder that refuses packs above `pack_bytes_max` bytes.
    pub fn new(pack_bytes_max: usize) -> Decoder {
        Decoder { pack_bytes_max, small: BytesMut::new(), wanted: HEAD_BYTES, state: State::Head }
    }

    /// Where to put the next bytes; never without room, and never more than the current buffer should hold. Not to be used
    /// between [`Decoded::PackBegun`] and the decision on that pack.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        if let State::Pack { bytes, pack, .. } = &mut self.state {
            let missing = *bytes - pack.len();
            return pack.limit(missing);
        }
        let missing = self.wanted.max(READ_BUFFER_BYTES).saturating_sub(self.small.len()).max(1);
        self.small.reserve(missing);
        (&mut self.small).limit(missing)
    }

    /// Puts bytes in, as many as fit into the buffer of the moment; gives that number.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut room = self.room();
        let count = bytes.len().min(room.remaining_mut());
        room.put_slice(&bytes[..count]);
        count
    }

    /// The bytes that are not decoded yet, as long as no frame is being read: for what comes before the first frame.
    pub fn peek(&self) -> &[u8] {
        &self.small
    }

    /// The bytes of [`Decoder::peek`], for somebody else.
    pub fn into_bytes(self) -> BytesMut {
        self.small
    }

    /// Drops bytes of [`Decoder::peek`].
    pub fn discard(&mut self, count: usize) {
        self.small.advance(count.min(self.small.len()));
    }

    /// Whether a frame has begun and is not whole.
    pub fn in_frame(&self) -> bool {
        !self.small.is_empty() || !matches!(self.state, State::Head)
    }

    /// Whether a pack has begun and waits for the decision to take or to skip it.
    pub fn at_pack(&self) -> bool {
        matches!(self.state, State::Begun { .. })
    }

    /// Bytes so far of the pack that is being read.
    pub fn pack_received(&self) -> usize {
        match &self.state {
            State::Pack { pack, .. } => pack.len(),
            _ => 0,
        }
    }

    /// The next frame of the bytes so far. After an error the place in the stream is lost.
    pub fn decode(&mut self) -> Result<Decoded, BadFrame> {
        loop {
            match &mut self.state {
                State::Head => match self.decode_head()? {
                    Some(decoded) => return Ok(decoded),
                    None => continue,
                },
                State::Begun { sequence, bytes } => {
                    return Ok(Decoded::PackBegun { sequence: *sequence, bytes: *bytes });
                }
                State::Pack { bytes, pack, .. } if pack.len() < *bytes => return Ok(Decoded::More),
                State::Pack { sequence, pack, .. } => {
                    let frame = Frame::Pack(*sequence, std::mem::take(pack).freeze());
                    self.back_to_head();
                    return Ok(Decoded::Frame(frame));
                }
                State::Skip { left } => {
                    let count = self.small.len().min(*left);
                    self.small.advance(count);
                    *left -= count;
                    if *left > 0 {
                        return Ok(Decoded::More);
                    }
                    self.back_to_head();
                }
            }
        }
    }

    fn back_to_head(&mut self) {
        self.state = State::Head;
        self.wanted = HEAD_BYTES;
    }

    /// `None` when the state has changed and decoding goes on from there.
    fn decode_head(&mut self) -> Result<Option<Decoded>, BadFrame> {
        let Some(head) = self.small.first_chunk::<HEAD_BYTES>() else { return Ok(Some(Decoded::More)) };
        let (kind, length) = frame::parse_head(*head, self.pack_bytes_max)?;
        match kind {
            KIND_PACK => Ok(self.begin_pack(length - SEQUENCE_BYTES)),
            0x80.. => {
                self.small.advance(HEAD_BYTES);
                self.state = State::Skip { left: length };
                Ok(None)
            }
            _ => {
                self.wanted = HEAD_BYTES + length;
                let Some(payload) = self.small.get(HEAD_BYTES..self.wanted) else {
                    return Ok(Some(Decoded::More));
                };
                let frame = frame::decode(kind, payload)?;
                self.small.advance(self.wanted);
                self.back_to_head();
                Ok(Some(Decoded::Frame(frame)))
            }
        }
    }

    fn begin_pack(&mut self, bytes: usize) -> Option<Decoded> {
        self.wanted = PACK_FRONT_BYTES + bytes.min(PACK_BEGUN_BYTES);
        if self.small.len() < self.wanted {
            return Some(Decoded::More);
        }
        self.small.advance(HEAD_BYTES);
        let sequence = self.small.get_u64_le();
        self.state = State::Begun { sequence, bytes };
        None
    }

    /// Reads the pack that has begun, into a buffer of its size.
    pub fn take_pack(&mut self) {
        if let State::Begun { sequence, bytes } = self.state {
            let mut pack = BytesMut::with_capacity(bytes);
            let count = self.small.len().min(bytes);
            pack.put_slice(&self.small[..count]);
            self.small.advance(count);
            self.state = State::Pack { sequence, bytes, pack };
        }
    }

    /// Passes over the pack that has begun or is being read.
    pub fn skip_pack(&mut self) {
        match &self.state {
            State::Begun { bytes, .. } => self.state = State::Skip { left: *bytes },
            State::Pack { bytes, pack, .. } => self.state = State::Skip { left: bytes - pack.len() },
            State::Head | State::Skip { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
