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
                    Decoded::PackBegun { bytes, .. } => {
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
        assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { sequence: 1, bytes: 9_000 }));
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
    assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { sequence: 1, bytes: 16 << 20 }));
}

#[test]
fn a_pack_buffer_has_exactly_the_size_of_the_pack() {
    let mut decoder = Decoder::new(PACK_MAX);
    decoder.feed(&encode(&Frame::Pack(1, Bytes::from(vec![7; 3_000]))));
    assert_eq!(decoder.decode(), Ok(Decoded::PackBegun { sequence: 1, bytes: 3_000 }));
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
