//! Fuzz target for what a peer may send on a connection. CONTRIBUTING.md says how to run it for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

use logferry_footprint::{Remembered, SeenPack};
use logferry_link::Answer;
use logferry_link::decoder::{Decoded, Decoder};
use logferry_link::frame::{self, Frame, Hello};
use logferry_trial::spoiled;

const SMOKE_RUNS: usize = 20_000;
const PACK_BYTES_MAX: usize = 20_000;

/// One stream of bytes with every kind of frame, one of a kind to come among them.
fn good_stream() -> Vec<u8> {
    let hello =
        Hello { version: "1".into(), node: "web-1".into(), role: "tailer".into(), ..Hello::default() };
    let remembered = Remembered { frontier: 10, packs: vec![SeenPack(0, 10, 7)] };
    let frames = [
        Frame::Hello(hello),
        Frame::Pack(1, vec![b'x'; 5_000].into()),
        Frame::Pack(2, vec![0xf3; 10].into()),
        Frame::Ack(1, Answer::Ok),
        Frame::Ack(2, Answer::Busy { retry_ms: 200 }),
        Frame::Ack(3, Answer::Rejected { reason: "bad checksum".into() }),
        Frame::Ack(4, Answer::Conflict(remembered)),
        Frame::Ping(7),
        Frame::Pong(7),
        Frame::Bye("stopped".into()),
    ];
    let mut bytes: Vec<u8> = frames.iter().flat_map(|frame| frame::encode(frame).to_vec()).collect();
    bytes.extend_from_slice(&frame::head(0x91, 3));
    bytes.extend_from_slice(b"new");
    bytes.extend_from_slice(&frame::encode(&Frame::Ping(8)));
    bytes
}

/// The frames in `bytes`, which come in pieces of `piece` bytes; every third pack is passed over.
fn frames_of(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let mut decoder = Decoder::new(PACK_BYTES_MAX);
    let (mut frames, mut packs) = (Vec::new(), 0);
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let fed = decoder.feed(rest);
            assert!(fed > 0, "a decoder that takes nothing stands still for ever");
            rest = &rest[fed..];
            loop {
                match decoder.decode() {
                    Ok(Decoded::More) => break,
                    Ok(Decoded::PackBegun { bytes, .. }) => {
                        assert!(bytes <= PACK_BYTES_MAX);
                        packs += 1;
                        if packs % 3 == 0 { decoder.skip_pack() } else { decoder.take_pack() }
                    }
                    Ok(Decoded::Frame(frame)) => frames.push(frame),
                    Err(_) => return frames,
                }
            }
        }
    }
    frames
}

#[test]
fn fuzz_frames() {
    let trial = logferry_trial::trial!();
    let good = good_stream();
    assert_eq!(frames_of(&good, usize::MAX).len(), 11);
    let input = bolero::generator::produce::<(Vec<(u16, u8)>, u16, u16)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(changes, cut, piece)| {
        trial.fuzz_case();
        let bytes = spoiled(&good, changes, *cut);
        let frames = frames_of(&bytes, usize::from(*piece).max(1));
        assert_eq!(frames, frames_of(&bytes, 4_096), "what is read depends on the pieces");
        for frame in frames {
            let Frame::Pack(..) = frame else {
                let again = frames_of(&frame::encode(&frame), usize::MAX);
                assert_eq!(again, [frame]);
                continue;
            };
        }
    });
}

#[test]
fn fuzz_frame_payloads() {
    let trial = logferry_trial::trial!();
    let input = bolero::generator::produce::<(u8, Vec<u8>)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(kind, payload)| {
        trial.fuzz_case();
        if let Ok(frame) = frame::decode(*kind % 8, payload) {
            assert!(payload.len() < 1 << 20, "{frame:?}");
        }
    });
}
