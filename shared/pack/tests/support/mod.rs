//! Packs that several tests start from.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses a part of it

use bytes::Bytes;
use logferry_pack::*;

/// A pack of ours for `lines`, which stand at `offset` of stream 7.
pub fn pack(lines: &[u8], codec: Codec, offset: u64) -> Pack {
    let body = Compressor::new(codec, 1).unwrap().compress(lines);
    let span = lines.len() as u64;
    let header = Header {
        ip: "10.0.0.7".into(),
        hour: "2026112101".parse().unwrap(),
        id: 3,
        lines: lines.iter().filter(|byte| **byte == b'\n').count() as u64,
        done: false,
        repull: false,
        ours: Some(Ours {
            host: Name::new("web-1").unwrap(),
            source: Name::new("access").unwrap(),
            identity: PackIdentity { stream: StreamId(0x7_0000_0001), offset, span, sum: crc32c(lines) },
            first: 0,
            raw: span,
            raw_sum: None,
            codec,
            crc: crc32c(&body),
        }),
        origin_rest: serde_json::from_str(r#"{"stage":"make pack","future":"kept"}"#).unwrap(),
        hops: Vec::new(),
    };
    Pack { header, body }
}

/// A legacy pack around `body`.
pub fn legacy_pack(body: Bytes) -> Pack {
    let mut pack = pack(b"", Codec::None, 0);
    pack.header.ours = None;
    pack.body = body;
    pack
}

/// The bytes of a pack with this header JSON.
pub fn with_json(json: &str, body: &[u8]) -> Bytes {
    let length = json.len();
    assert!((128..16_384).contains(&length), "two groups of length");
    let mut bytes = vec![(length & 0x7f) as u8 | 0x80, (length >> 7) as u8, 0, 0];
    bytes.extend_from_slice(json.as_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// One recording of several packs, cut into them.
pub fn recorded(recording: &'static [u8]) -> Vec<Bytes> {
    let mut rest = Bytes::from_static(recording);
    let mut packs = Vec::new();
    while !rest.is_empty() {
        let Ok(Decoded::Header { pack_len, .. }) = decode_header(&rest, &Limits::default()) else {
            panic!("pack {} of the recording is not read", packs.len());
        };
        packs.push(rest.split_to(pack_len));
    }
    packs
}

/// What a legacy tail sent: tests/data/README.md.
pub const TAIL_PACKS: &[u8] = include_bytes!("../data/tail-packs.bin");
/// The same after a legacy collector.
pub const COLLECTOR_PACKS: &[u8] = include_bytes!("../data/collector-packs.bin");
