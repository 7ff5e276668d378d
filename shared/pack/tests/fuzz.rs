//! Fuzz targets for all that reads foreign bytes. In a normal test run each is a short smoke run;
//! CONTRIBUTING.md says how to run one for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use bytes::Bytes;
use logferry_pack::*;

/// Small, so that the fuzzer meets each limit often.
const LIMITS: Limits = Limits { header_bytes_max: 4_096, pack_bytes_max: 16 << 10, raw_bytes_max: 64 << 10 };

/// Runs of each target in a normal test run: about a second.
const SMOKE_RUNS: usize = 20_000;

#[test]
fn fuzz_header_bytes() {
    let trial = logferry_trial::trial!();
    bolero::check!().with_iterations(SMOKE_RUNS).for_each(|bytes: &[u8]| {
        trial.fuzz_case();
        check_header(bytes);
        check_header(&framed(bytes));
    });
}

#[test]
fn fuzz_header_json() {
    let trial = logferry_trial::trial!();
    let good = good_packs();
    let input = bolero::generator::produce::<(u8, u16, u8)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(which, at, byte)| {
        trial.fuzz_case();
        let header = good[usize::from(*which) % good.len()].encode_header();
        check_header(&framed(&changed(&header[4..], &[(*at, *byte)])));
    });
}

#[test]
fn fuzz_header_values() {
    let trial = logferry_trial::trial!();
    // JSON that is well formed, with values that are not: these reach the checks that random bytes never do.
    let good: Vec<serde_json::Value> =
        good_packs().iter().map(|pack| serde_json::from_slice(&pack.encode_header()[4..]).unwrap()).collect();
    let input = bolero::generator::produce::<(u8, Vec<(u8, u8, String, u64)>)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(which, changes)| {
        trial.fuzz_case();
        let mut json = good[usize::from(*which) % good.len()].clone();
        for (key, kind, text, number) in changes.iter().take(2) {
            put_hostile_value(&mut json, *key, *kind, text, *number);
        }
        check_header(&framed(json.to_string().as_bytes()));
    });
}

/// Replaces one of the values of `Route[0]`, or the length of the body.
fn put_hostile_value(json: &mut serde_json::Value, key: u8, kind: u8, text: &str, number: u64) {
    let number = number >> (number % 64);
    let value = match kind % 12 {
        0 => number.into(),
        1 => (-1).into(),
        2 => serde_json::Value::Null,
        3 => "".into(),
        4 => "..".into(),
        5 => "../x".into(),
        6 => "-1".into(),
        7 => "18446744073709551616".into(),
        8 => u64::MAX.to_string().into(),
        9 => format!("{:08x}", number as u32).into(),
        10 => text.into(),
        _ => number.to_string().into(),
    };
    let origin = json["Route"][0].as_object_mut().unwrap();
    let keys = origin.len();
    match origin.values_mut().nth(usize::from(key) % (keys + 1)) {
        Some(old) => *old = value,
        None => json["PackLen"] = value,
    }
}

#[test]
fn fuzz_pack_bytes() {
    let trial = logferry_trial::trial!();
    let good: Vec<Bytes> = good_packs().iter().map(Pack::encode).collect();
    let input = bolero::generator::produce::<(u8, Vec<(u16, u8)>, u16)>();
    let mut out = Vec::new();
    let mut decompressor = Decompressor::new();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(which, changes, cut)| {
        trial.fuzz_case();
        let bytes = &good[usize::from(*which) % good.len()];
        let mut bytes = changed(bytes, &changes[..changes.len() % 3]);
        if *cut % 4 == 0 {
            bytes.truncate(usize::from(*cut));
        }
        let Ok(pack) = Pack::parse(bytes.into(), &LIMITS) else { return };
        assert_eq!(
            Pack::parse(pack.encode(), &LIMITS).as_ref(),
            Ok(&pack),
            "what is read is written and read again"
        );
        check_body(&mut decompressor, &pack, &mut out);
    });
}

#[test]
fn fuzz_decompress() {
    let trial = logferry_trial::trial!();
    let good: Vec<Pack> = good_packs();
    let input = bolero::generator::produce::<(u8, u32, Vec<u8>, Vec<(u16, u8)>)>();
    let mut out = Vec::new();
    let mut decompressor = Decompressor::new();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(
        |(which, raw, body, changes)| {
            trial.fuzz_case();
            let mut pack = good[usize::from(*which) % good.len()].clone();
            pack.body = match raw % 8 {
                0 => Bytes::copy_from_slice(body),
                _ => changed(&pack.body, &changes[..changes.len() % 3]).into(),
            };
            if let Some(ours) = pack.header.ours.as_mut() {
                match raw % 5 {
                    0 => ours.raw = u64::from(*raw >> 15),
                    1 => ours.raw = ours.raw.saturating_sub(1),
                    2 => ours.raw += 1,
                    _ => {}
                }
            }
            check_body(&mut decompressor, &pack, &mut out);
        },
    );
}

/// Whatever the bytes: no panic, nothing over the limits, and what is read is written back to the same.
fn check_header(bytes: &[u8]) {
    match decode_header(bytes, &LIMITS) {
        Ok(Decoded::More { at_least }) => {
            assert!(bytes.len() < at_least && at_least <= 4 + LIMITS.header_bytes_max);
        }
        Ok(Decoded::Header { header, body_at, pack_len }) => {
            assert!(body_at <= bytes.len() && body_at <= pack_len && pack_len <= LIMITS.pack_bytes_max);
            assert!(header.hops.len() < ROUTE_OBJECTS_MAX);
            assert!(Name::new(header.ip.as_str()).is_ok());
            let raw = header.ours.as_ref().map_or(0, |ours| ours.raw);
            assert!(raw <= LIMITS.raw_bytes_max as u64);
            let again = Pack { header, body: vec![0; pack_len - body_at].into() };
            let written = again.encode_header();
            let wide = Limits { header_bytes_max: 1 << 20, pack_bytes_max: 2 << 20, ..LIMITS };
            let Ok(Decoded::Header { header, .. }) = decode_header(&written, &wide) else {
                panic!("{again:?} is not read back")
            };
            assert_eq!(header, again.header);
        }
        Err(bad) => assert!(!bad.reason().is_empty() && bad.to_string().len() < 300, "{bad}"),
    }
}

fn check_body(decompressor: &mut Decompressor, pack: &Pack, out: &mut Vec<u8>) {
    let inflated = decompressor.decompress(pack, &LIMITS, out);
    if pack.header.ours.is_none() {
        let mut adopted = pack.clone();
        assert_eq!(adopted.adopt(&LIMITS).is_ok(), inflated.is_ok());
        let ours = adopted.header.ours.map(|ours| (ours.raw, ours.identity.sum));
        assert_eq!(ours, inflated.is_ok().then(|| (out.len() as u64, crc32c(out))));
    }
    match (inflated, &pack.header.ours) {
        (Ok(()), Some(ours)) => assert_eq!(out.len() as u64, ours.raw),
        (Ok(()), None) => assert!(out.len() <= LIMITS.raw_bytes_max),
        (Err(_), _) => assert!(out.is_empty()),
    }
    assert!(out.capacity() <= LIMITS.raw_bytes_max * 2, "{}", out.capacity());
}

fn good_packs() -> Vec<Pack> {
    let lines = b"GET / 200\nGET /robots.txt 404\n".repeat(20);
    let ours = Codec::ALL.into_iter().map(|codec| support::pack(&lines, codec, 400));
    let legacy = support::recorded(support::COLLECTOR_PACKS).into_iter();
    ours.chain(legacy.map(|bytes| Pack::parse(bytes, &Limits::default()).unwrap())).collect()
}

fn framed(json: &[u8]) -> Vec<u8> {
    let length = json.len().min((1 << 14) - 1);
    let prefix = match length {
        0..128 => [length as u8, 0, 0, 0],
        _ => [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8, 0, 0],
    };
    [&prefix, &json[..length]].concat()
}

fn changed(bytes: &[u8], changes: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in changes {
        let at = usize::from(*at) % bytes.len();
        bytes[at] = *byte;
    }
    bytes
}
