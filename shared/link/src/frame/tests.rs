use super::*;
use logferry_footprint::SeenPack;

#[test]
fn bytes_are_pinned() {
    assert_eq!(
        &encode(&Frame::Pack(2, Bytes::from_static(b"xyz")))[..],
        b"\x02\x0b\0\0\0\x02\0\0\0\0\0\0\0xyz"
    );
    assert_eq!(&encode(&Frame::Ack(258, Answer::Ok))[..], [3, 9, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&encode(&Frame::Ack(1, Answer::Duplicate))[..], [3, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(&encode(&Frame::Ping(1))[..], [4, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&encode(&Frame::Pong(1))[..], [5, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&encode(&Frame::Bye("stop".to_owned()))[..], b"\x06\x11\0\0\0{\"reason\":\"stop\"}");
    let ack_body = |answer| encode(&Frame::Ack(1, answer)).slice(HEAD_BYTES + SEQUENCE_BYTES..);
    assert_eq!(&ack_body(Answer::Busy { retry_ms: 7 })[..], b"\x02{\"retry_ms\":7}");
    assert_eq!(
        &ack_body(Answer::Rejected { reason: "bad_crc".to_owned() })[..],
        b"\x03{\"reason\":\"bad_crc\"}"
    );
    let remembered = Remembered { frontier: 5, packs: vec![SeenPack(1, 4, 9)] };
    assert_eq!(&ack_body(Answer::Conflict(remembered))[..], b"\x04{\"frontier\":5,\"packs\":[[1,4,9]]}");
    let hello = Hello {
        role: "tailer".to_owned(),
        node: "web-1".to_owned(),
        version: "1".to_owned(),
        codecs: vec!["zlib".to_owned()],
        max_header: 2,
        max_pack: 3,
        window: 4,
        token: None,
        codec: None,
    };
    assert_eq!(
        &encode(&Frame::Hello(hello))[HEAD_BYTES..],
        br#"{"role":"tailer","node":"web-1","version":"1","codecs":["zlib"],"max_header":2,"max_pack":3,"window":4}"#
    );
}

#[test]
fn long_and_unknown_frames_are_refused_by_their_head() {
    let reason = |kind, length| parse_head(head(kind, length), 1_000).map_err(|bad| bad.reason());
    assert_eq!(reason(KIND_PACK, 1_009), Err("frame_too_long"));
    assert_eq!(reason(KIND_PACK, 1_008), Ok((KIND_PACK, 1_008)));
    assert_eq!(reason(KIND_PACK, 7), Err("bad_frame"));
    assert_eq!(reason(KIND_HELLO, HELLO_BYTES_MAX + 1), Err("frame_too_long"));
    assert_eq!(reason(KIND_ACK, ACK_BYTES_MAX + 1), Err("frame_too_long"));
    assert_eq!(reason(KIND_BYE, BYE_BYTES_MAX + 1), Err("frame_too_long"));
    assert_eq!(reason(KIND_PING, 9), Err("frame_too_long"));
    assert_eq!(reason(0x81, usize::MAX), Err("frame_too_long"));
    assert_eq!(reason(0x81, 999), Ok((0x81, 999)));
    assert_eq!(reason(0x70, 0), Err("unknown_frame"));
    assert_eq!(reason(0, 0), Err("unknown_frame"));
}

#[test]
fn the_largest_footprint_of_a_stream_fits_into_an_ack() {
    let packs = vec![SeenPack(u64::MAX, u64::MAX, u32::MAX); logferry_footprint::REMEMBERED_PACKS_MAX];
    let answer = Answer::Conflict(Remembered { frontier: u64::MAX, packs });
    let bytes = encode(&Frame::Ack(1, answer.clone()));
    assert_eq!(decode(KIND_ACK, &bytes[HEAD_BYTES..]), Ok(Frame::Ack(1, answer)));
    assert!(parse_head(bytes[..HEAD_BYTES].try_into().unwrap(), 0).is_ok());
    let packs = (0..9_000).map(|n| SeenPack(n, u64::MAX, u32::MAX)).collect();
    let bytes = encode(&Frame::Ack(1, Answer::Conflict(Remembered { frontier: 1, packs })));
    assert!(parse_head(bytes[..HEAD_BYTES].try_into().unwrap(), 0).is_ok());
    let Ok(Frame::Ack(1, Answer::Conflict(kept))) = decode(KIND_ACK, &bytes[HEAD_BYTES..]) else { panic!() };
    assert_eq!(kept.packs.last(), Some(&SeenPack(8_999, u64::MAX, u32::MAX)));
}

#[test]
fn the_preface_is_told_from_anything_else_at_the_first_byte_that_differs() {
    (0..8).for_each(|end| assert_eq!(sniff(&PREFACE[..end]), Sniffed::More));
    assert_eq!(sniff(&PREFACE), Sniffed::V2);
    assert_eq!(sniff(b"\xff\xff\xff\xffLF2\n\x01"), Sniffed::V2);
    for foreign in [&b"G"[..], b"\xff\xff\xff\xffLF3", b"\x80\x01\0\0"] {
        assert_eq!(sniff(foreign), Sniffed::Foreign);
    }
}
