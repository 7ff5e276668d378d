//! Memory that strangers' bytes can make a node take, measured. The only test of its process, because the measure is
//! the process's.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use bytes::Bytes;
use logferry_pack::*;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a header may cost for a moment: its strings and maps, some 40 times its largest size.
const HEADER_COST_MAX: usize = 3 << 20;

#[test]
fn memory_is_bounded_by_the_limits_whatever_arrives() {
    headers_that_announce_much_take_nothing();
    headers_full_of_small_things_take_little();
    bodies_take_what_their_header_announces();
}

fn headers_that_announce_much_take_nothing() {
    let huge = [
        &b"\xff\xff\xff\x7f{\"Route\":["[..],
        b"\x80\x80\x04\0", // 64 KiB, which is allowed, but nothing has come yet
        br#"{"Route":[{}],"PackLen":18446744073709551615}"#,
    ];
    for bytes in huge {
        let (_, taken) = measured(|| decode_header(bytes, &Limits::default()));
        assert!(taken < 4_096, "{taken} bytes for {}", bytes.escape_ascii());
    }
}

fn headers_full_of_small_things_take_little() {
    let keys: String = (0..6_000).map(|n| format!("\"{n:x}\":\"\",")).collect();
    let rooms = (64 << 10) - 200;
    let fillings = [
        format!(r#"{{"Route":[{{{keys}"z":""}}],"PackLen":1}}"#),
        format!(r#"{{"Route":[{{"a":{}0{}}}],"PackLen":1}}"#, "[".repeat(60), "]".repeat(60)),
        format!(r#"{{"Route":[{}{{}}],"PackLen":1}}"#, "{},".repeat(rooms / 3)),
        format!(r#"{{"Route":[{{"a":[{}0]}}],"PackLen":1}}"#, "0,".repeat(rooms / 2)),
        format!(r#"{{"Route":[{{}}],"PackLen":1,"x":[{}0]}}"#, "0,".repeat(rooms / 2)),
        format!(r#"{{"Route":[{{"a":{}"#, "[".repeat(rooms)),
        format!(r#"{{"Route":[{{"a":"{}"}}],"PackLen":1}}"#, "\\n".repeat(rooms / 2)),
    ];
    for json in fillings {
        let length = json.len();
        assert!(length <= 64 << 10, "{length}");
        let prefix =
            [(length & 0x7f) as u8 | 0x80, (length >> 7 & 0x7f) as u8 | 0x80, (length >> 14) as u8, 0];
        let prefix = if length < 1 << 14 { [prefix[0], prefix[1] & 0x7f, 0, 0] } else { prefix };
        let bytes = [&prefix, json.as_bytes()].concat();
        let (decoded, taken) = measured(|| decode_header(&bytes, &Limits::default()));
        assert!(decoded.is_err(), "{decoded:?}");
        assert!(taken < HEADER_COST_MAX, "{taken} bytes for {}", &json[..60.min(length)]);
    }
}

fn bodies_take_what_their_header_announces() {
    let zeros = vec![0; 200 << 20];
    for codec in [Codec::Zlib, Codec::Zstd] {
        let body = Compressor::new(codec, 1).unwrap().compress(&zeros);
        for raw in [1_000, 1 << 20] {
            let mut bomb = support::pack(b"", codec, 0);
            bomb.body = body.clone();
            let ours = bomb.header.ours.as_mut().unwrap();
            (ours.raw, ours.identity.span, ours.crc) = (raw, raw, crc32c(&body));
            let bytes = bomb.encode();
            let limits = Limits::default();
            let pack = Pack::parse(bytes, &limits).unwrap();
            let (outcome, taken) = decompressed(&pack, &limits);
            assert_eq!(outcome, Err(BadPack::RawMismatch));
            assert!(taken < raw as usize + (1 << 20), "{taken} bytes for {codec} {raw}");
        }
    }
    let legacy = support::legacy_pack(Compressor::new(Codec::Zlib, 1).unwrap().compress(&zeros));
    let (outcome, taken) = decompressed(&legacy, &Limits::default());
    assert_eq!(outcome, Err(BadPack::RawTooLarge { max: 64 << 20 }));
    // While the buffer grows, the smaller one is there as well.
    assert!(taken < 97 << 20, "{taken}");
    let (outcome, taken) =
        decompressed(&support::legacy_pack(Bytes::from_static(b"\x78\x9c\xff")), &Limits::default());
    assert_eq!(outcome, Err(BadPack::BodyCorrupt));
    assert!(taken < 1 << 20, "{taken}");
}

fn decompressed(pack: &Pack, limits: &Limits) -> (Result<(), BadPack>, usize) {
    let mut decompressor = Decompressor::new();
    measured(|| decompressor.decompress(pack, limits, &mut Vec::new()))
}

/// What `work` gives, and how many bytes more than before were in use at its worst moment.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let outcome = work();
    (outcome, MEMORY.peak_usage().saturating_sub(before))
}
