//! What is encoded is decoded to the same, however the bytes arrive.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use bytes::Bytes;
use logferry_pack::*;
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Keys that have a meaning of their own in `Route[0]`.
const KNOWN_KEYS: [&str; 18] = [
    "ip", "hour", "id", "lines", "done", "repull", "v", "host", "source", "stream", "first", "offset",
    "span", "sum", "raw", "rawsum", "codec", "crc",
];

fn name() -> impl Strategy<Value = Name> {
    "[^/\\x00]{1,40}".prop_filter_map("no safe name", |text| Name::new(text).ok())
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), any::<String>(), 0..6).prop_map(|pairs| {
        let texts = pairs.into_iter().filter(|(key, _)| !KNOWN_KEYS.contains(&key.as_str()));
        texts.map(|(key, value)| (key, Value::String(value))).collect()
    })
}

fn hour() -> impl Strategy<Value = Hour> {
    (1970..2200u16, 1..=12u8, 1..=28u8, 0..24u8)
        .prop_map(|(year, month, day, hour)| Hour::new(year, month, day, hour).unwrap())
}

/// Lines, verbatim, with others left out, or shorter or longer in the stream, as a body of any codec.
fn ours() -> impl Strategy<Value = (Ours, Vec<u8>, Bytes)> {
    let lines = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (0..5_000usize).prop_map(|length| b"GET /index.html 200\n".repeat(length)),
    ];
    let filtered = prop_oneof![Just(0), 0..1_000u64];
    let range = (any::<u128>(), any::<u64>(), any::<u64>(), filtered, any::<bool>());
    (name(), name(), range, prop::sample::select(&Codec::ALL), lines).prop_map(
        |(host, source, (stream, offset, first, filtered, summed), codec, lines)| {
            let body = Compressor::new(codec, 1).unwrap().compress(&lines);
            let least =
                if summed { (lines.len() as u64).div_ceil(RAW_PER_SPAN_MAX) } else { lines.len() as u64 };
            let span = least + filtered;
            let offset = offset.min(u64::MAX - span);
            let sum = if summed { 7 } else { crc32c(&lines) };
            let identity = PackIdentity { stream: StreamId(stream), offset, span, sum };
            let raw = lines.len() as u64;
            let raw_sum = summed.then(|| crc32c(&lines));
            let (first, crc) = (first.min(offset), crc32c(&body));
            let ours = Ours { host, source, identity, first, raw, raw_sum, codec, crc };
            (ours, lines, body)
        },
    )
}

fn pack() -> impl Strategy<Value = (Pack, Vec<u8>)> {
    let counts = (1..=u64::MAX, any::<u64>(), any::<bool>(), any::<bool>());
    let route = (object(), prop::collection::vec(object(), 0..4));
    (name(), hour(), counts, ours(), route, any::<bool>()).prop_map(
        |(ip, hour, (id, lines, done, repull), (ours, raw, body), (origin_rest, hops), legacy)| {
            let legacy = legacy && ours.codec == Codec::Zlib;
            let ours = (!legacy).then_some(ours);
            let ip = ip.into_string();
            let header = Header { ip, hour, id, lines, done, repull, ours, origin_rest, hops };
            (Pack { header, body }, raw)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn packs_and_their_bodies_come_back_as_they_were((pack, lines) in pack()) {
        let limits = Limits::default();
        let bytes = pack.encode();
        prop_assert_eq!(&bytes[..bytes.len() - pack.body.len()], &pack.encode_header()[..]);
        let parsed = Pack::parse(bytes, &limits);
        prop_assert_eq!(parsed.as_ref(), Ok(&pack));
        let mut out = b"left over".to_vec();
        Decompressor::new().decompress(&pack, &limits, &mut out).unwrap();
        prop_assert_eq!(out, lines);
    }

    #[test]
    fn a_header_is_the_same_wherever_its_bytes_are_split((pack, _) in pack()) {
        let limits = Limits::default();
        let bytes = pack.encode();
        let whole = decode_header(&bytes, &limits);
        let header_len = pack.encode_header().len();
        for cut in 0..=bytes.len().min(header_len + 40) {
            let decoded = decode_header(&bytes[..cut], &limits);
            if cut >= header_len {
                prop_assert_eq!(&decoded, &whole);
                continue;
            }
            let Ok(Decoded::More { at_least }) = decoded else { panic!("cut at {cut}: {decoded:?}") };
            prop_assert!(cut < at_least && at_least <= header_len);
        }
        let expected = Decoded::Header { header: pack.header, body_at: header_len, pack_len: bytes.len() };
        prop_assert_eq!(whole, Ok(expected));
    }

    #[test]
    fn one_compressor_and_one_decompressor_serve_packs_of_all_sizes(
        codec in prop::sample::select(&Codec::ALL),
        sizes in prop::collection::vec(0..200_000usize, 1..8),
    ) {
        let (mut compressor, mut decompressor) = (Compressor::new(codec, 1).unwrap(), Decompressor::new());
        let mut out = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let lines: Vec<u8> = (0..size).map(|at| (at * (number + 3) / 7) as u8).collect();
            let mut pack = support::pack(&lines, codec, 0);
            pack.body = compressor.compress(&lines);
            decompressor.decompress(&pack, &Limits::default(), &mut out).unwrap();
            prop_assert_eq!(&out, &lines);
        }
    }
}
