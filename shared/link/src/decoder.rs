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

    /// Drops bytes of [`Decoder::peek`].
    pub fn discard(&mut self, count: usize) {
        self.small.advance(count.min(self.small.len()));
    }

    /// Whether a frame has begun and is not whole.
    pub fn in_frame(&self) -> bool {
        !self.small.is_empty() || !matches!(self.state, State::Head)
    }

    /// The next frame of the bytes so far. After an error the place in the stream is lost.
    pub fn decode(&mut self) -> Result<Decoded, BadFrame> {
        loop {
            match &mut self.state {
                State::Head => match self.decode_head()? {
                    Some(decoded) => return Ok(decoded),
                    None => continue,
                },
                State::Begun { bytes, .. } => return Ok(Decoded::PackBegun { bytes: *bytes }),
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
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::frame::{Hello, encode, head};
    use bytes::Bytes;
    use logferry_footprint::{Remembered, SeenPack};
    use proptest::prelude::*;

    const PACK_MAX: usize = 10_000;

    /// Everything the decoder makes of pieces.
    fn decode_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Frame>, BadFrame> {
        let mut decoder = Decoder::new(PACK_MAX);
        let mut frames = Vec::new();
        for mut piece in pieces {
            while !piece.is_empty() {
                let count = decoder.feed(piece);
                assert!(count > 0, "there is always room");
                piece = &piece[count..];
                loop {
                    match decoder.decode()? {
                        Decoded::More => break,
                        Decoded::PackBegun { bytes } => {
                            assert!(bytes <= PACK_MAX);
                            decoder.take_pack();
                        }
                        Decoded::Frame(frame) => frames.push(frame),
                    }
                }
            }
        }
        assert!(decoder.small.capacity() <= 4 * frame::ACK_BYTES_MAX);
        Ok(frames)
    }

    fn all_kinds() -> Vec<Frame> {
        let packs = (0..300).map(|n| SeenPack(n, u64::MAX, u32::MAX)).collect();
        vec![
            Frame::Hello(Hello { node: "web-1".to_owned(), window: 5, ..Hello::default() }),
            Frame::Pack(1, Bytes::from(vec![7; 5_000])),
            Frame::Pack(2, Bytes::new()),
            Frame::Ping(9),
            Frame::Pack(3, Bytes::from_static(b"small")),
            Frame::Ack(1, Answer::Ok),
            Frame::Ack(2, Answer::Busy { retry_ms: 9 }),
            Frame::Ack(u64::MAX, Answer::Conflict(Remembered { frontier: 9, packs })),
            Frame::Pong(9),
            Frame::Bye("stop".to_owned()),
        ]
    }

    #[test]
    fn frames_come_back_whole_at_every_split_point() {
        let frames = all_kinds();
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        for split in 0..=bytes.len() {
            let (left, right) = bytes.split_at(split);
            assert_eq!(decode_all([left, right]).as_ref(), Ok(&frames), "split at {split}");
        }
        assert_eq!(decode_all(bytes.chunks(1)).as_ref(), Ok(&frames));
    }

    #[test]
    fn a_frame_of_a_later_version_is_skipped_without_being_held() {
        let mut bytes = head(0x90, PACK_MAX).to_vec();
        bytes.extend(vec![1; PACK_MAX]);
        bytes.extend(encode(&Frame::Ping(3)));
        assert_eq!(decode_all([&bytes[..]]), Ok(vec![Frame::Ping(3)]));
    }

    #[test]
    fn a_pack_can_be_skipped_before_and_while_it_is_read() {
        let pack = encode(&Frame::Pack(1, Bytes::from(vec![7; 9_000])));
        for take_first in [false, true] {
            let mut decoder = Decoder::new(PACK_MAX);
            let mut fed = 0;
            while decoder.decode() == Ok(Decoded::More) {
                fed += decoder.feed(&pack[fed..]);
            }
            assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { bytes: 9_000 }));
            if take_first {
                decoder.take_pack();
                fed += decoder.feed(&pack[fed..fed + 100]);
            }
            decoder.skip_pack();
            while fed < pack.len() {
                fed += decoder.feed(&pack[fed..]);
                assert_eq!(decoder.decode(), Ok(Decoded::More));
            }
            assert!(!decoder.in_frame());
            decoder.feed(&encode(&Frame::Ping(1)));
            assert_eq!(decoder.decode(), Ok(Decoded::Frame(Frame::Ping(1))));
        }
    }

    #[test]
    fn a_pack_takes_no_memory_until_it_has_really_begun() {
        let mut decoder = Decoder::new(16 << 20);
        decoder.feed(&frame::pack_front(1, 16 << 20));
        decoder.feed(&[0; 100]);
        assert_eq!(decoder.decode(), Ok(Decoded::More));
        assert!(decoder.small.capacity() <= 2 * READ_BUFFER_BYTES);
        decoder.feed(&[0; PACK_BEGUN_BYTES]);
        assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { bytes: 16 << 20 }));
    }

    #[test]
    fn a_pack_buffer_has_exactly_the_size_of_the_pack() {
        let mut decoder = Decoder::new(PACK_MAX);
        decoder.feed(&encode(&Frame::Pack(1, Bytes::from(vec![7; 3_000]))));
        assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { bytes: 3_000 }));
        decoder.take_pack();
        let State::Pack { pack, .. } = &decoder.state else { panic!("{decoder:?}") };
        assert_eq!(pack.capacity(), 3_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn frames_come_back_whole_from_any_pieces(sizes in proptest::collection::vec(1usize..3_000, 1..40)) {
            let frames = all_kinds();
            let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
            let (mut rest, mut pieces) = (&bytes[..], Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(decode_all(pieces), Ok(frames));
        }

        #[test]
        fn foreign_bytes_never_panic_nor_grow_the_buffer(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1usize..50,
        ) {
            let _ = decode_all(bytes.chunks(size));
        }

        #[test]
        fn frames_with_foreign_payloads_never_panic(
            frames in proptest::collection::vec((0u8..9, proptest::collection::vec(any::<u8>(), 0..80)), 1..6),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(kind, payload)| [&head(*kind, payload.len())[..], payload].concat()).collect();
            let _ = decode_all([&bytes[..]]);
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0usize..6_000, bit in 0u8..8) {
            let mut bytes: Vec<u8> = all_kinds().iter().flat_map(encode).collect();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = decode_all([&bytes[..]]);
        }
    }
}
