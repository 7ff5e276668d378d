//! Each way in which bytes can fail to be a pack has its own reason, and none takes memory first.

#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use bytes::Bytes;
use logferry_pack::*;
use support::*;

const LINES: &[u8] = b"GET / 200\nGET /robots.txt 404\n";

/// The header JSON of a good pack with `from` replaced by `to`, and the pack's body behind it.
fn changed(from: &str, to: &str) -> Bytes {
    let pack = pack(LINES, Codec::Zlib, 400);
    let json = String::from_utf8(pack.encode_header()[4..].to_vec()).unwrap();
    assert_eq!(json.matches(from).count(), 1, "{from} in {json}");
    with_json(&json.replace(from, to), &pack.body)
}

fn reason(bytes: Bytes) -> &'static str {
    Pack::parse(bytes, &Limits::default()).expect_err("no pack").reason()
}

fn reason_of_change(from: &str, to: &str) -> &'static str {
    reason(changed(from, to))
}

#[test]
fn lengths_that_lie_are_refused_before_memory_is_taken_for_them() {
    assert_eq!(reason(Bytes::from_static(b"\xff\xff\xff\xffLF2\n")), "length_unterminated");
    assert_eq!(reason(Bytes::from_static(b"\x85\x80\0\0{}")), "length_overlong");
    assert_eq!(reason(Bytes::from_static(b"\x02\0\x01\0{}")), "length_padding");
    assert_eq!(reason(Bytes::from_static(b"\0\0\0\0")), "header_empty");
    assert_eq!(reason(Bytes::from_static(b"\x81\x80\x04\0")), "header_too_large");
    assert_eq!(reason(Bytes::from_static(b"\xff\xff\xff\x7f")), "header_too_large");
    let body_len = format!(r#""PackLen":{}"#, pack(LINES, Codec::Zlib, 400).body.len());
    assert_eq!(reason_of_change(&body_len, r#""PackLen":16777216"#), "pack_too_large");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":18446744073709551615"#), "pack_too_large");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":18446744073709551616"#), "wrong_type");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":-1"#), "negative_number");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":0"#), "body_empty");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":1.5"#), "wrong_type");
    assert_eq!(reason_of_change(&body_len, r#""PackLen":"9""#), "wrong_type");
}

#[test]
fn a_header_at_the_limit_is_read_and_one_byte_more_is_not() {
    let mut pack = pack(LINES, Codec::Zlib, 400);
    let spare = (64 << 10) - (pack.encode_header().len() - 4);
    pack.header.origin_rest["future"] = "x".repeat("kept".len() + spare).into();
    let bytes = pack.encode();
    assert_eq!(Pack::parse(bytes, &Limits::default()), Ok(pack.clone()));
    pack.header.origin_rest["future"] = "x".repeat("kept".len() + spare + 1).into();
    assert_eq!(reason(pack.encode()), "header_too_large");
}

#[test]
fn a_header_that_is_no_json_object_of_strings_is_refused() {
    let padded = |json: &str| with_json(&format!("{json:<200}"), b"");
    for text in ["{{{{{ invalid", "{", "", r#"{"Route":[{"ip":"1"#, "{\"Route\":\"\x01\"}", "{} {}"] {
        assert_eq!(reason(padded(text)), "not_json", "{text}");
    }
    assert_eq!(reason(padded(&"[".repeat(400))), "wrong_type");
    assert_eq!(reason(padded("[]")), "wrong_type");
    assert_eq!(reason(padded("null")), "wrong_type");
    assert_eq!(reason(padded(r#"{"Route":{},"PackLen":1}"#)), "wrong_type");
    assert_eq!(reason(padded(r#"{"Route":[[]],"PackLen":1}"#)), "wrong_type");
    assert_eq!(reason(padded(r#"{"Route":[],"PackLen":1}"#)), "missing_key");
    assert_eq!(reason(padded(r#"{"Route":[{}]}"#)), "missing_key");
    assert_eq!(reason(padded(r#"{"PackLen":1}"#)), "missing_key");
    assert_eq!(reason(padded(r#"{"Route":[{}],"PackLen":1,"PackLen":2}"#)), "duplicate_key");
    assert_eq!(reason(padded(r#"{"Route":[{}],"PackLen":1,"Route":[{}]}"#)), "duplicate_key");
    let mut bytes = changed("web-1", "web-X").to_vec();
    let at = bytes.windows(5).position(|window| window == b"web-X").unwrap();
    bytes[at + 4] = 0xff;
    assert_eq!(reason(bytes.into()), "not_json");
}

#[test]
fn route_objects_hold_strings_by_unique_keys() {
    for value in ["3", "-3", "null", "true", "1.5", "[1]", r#"{"a":{"b":[]}}"#] {
        assert_eq!(reason_of_change(r#""id":"3""#, &format!(r#""id":{value}"#)), "wrong_type", "{value}");
        assert_eq!(reason_of_change(r#""kept""#, value), "wrong_type", "{value}");
    }
    assert_eq!(reason_of_change(r#""id":"3""#, r#""id":"3","id":"4""#), "duplicate_key");
    assert_eq!(reason_of_change(r#""future":"kept""#, r#""future":"kept","future":"kept""#), "duplicate_key");
    assert_eq!(reason_of_change(r#""v":"2"}]"#, r#""v":"2"},{"ip":7}]"#), "wrong_type");
}

#[test]
fn a_route_that_goes_in_circles_is_refused() {
    let mut pack = pack(LINES, Codec::Zlib, 400);
    pack.header.hops = vec![Default::default(); ROUTE_OBJECTS_MAX - 1];
    assert!(Pack::parse(pack.encode(), &Limits::default()).is_ok());
    pack.header.hops.push(Default::default());
    assert_eq!(reason(pack.encode()), "route_too_long");
}

#[test]
fn every_key_of_ours_is_missed() {
    for key in [
        "ip", "hour", "id", "lines", "v", "host", "source", "stream", "first", "offset", "span", "sum",
        "raw", "crc",
    ] {
        let renamed = changed(&format!("\"{key}\":"), &format!("\"no {key}\":"));
        // Without a version a pack that has a stream is not taken for a legacy one, and the other way round.
        assert_eq!(Pack::parse(renamed, &Limits::default()), Err(BadPack::MissingKey { key }));
    }
}

#[test]
fn numbers_are_plain_decimals_of_64_bits() {
    let keys =
        [("id", "3"), ("lines", "2"), ("first", "0"), ("offset", "400"), ("span", "30"), ("raw", "30")];
    for (key, value) in keys {
        let reason =
            |to: &str| reason_of_change(&format!(r#""{key}":"{value}""#), &format!(r#""{key}":"{to}""#));
        for text in ["", "-", "+3", " 3", "3 ", "0x3", "03", "3.0", "1e3", "٣", "--3", "-03"] {
            assert_eq!(reason(text), "bad_number", "{key} {text}");
        }
        assert_eq!(reason("-3"), "negative_number");
        assert_eq!(reason("18446744073709551616"), "number_too_large");
    }
    assert_eq!(reason_of_change(r#""id":"3""#, r#""id":"0""#), "id_zero");
}

#[test]
fn sums_flags_hours_versions_and_codecs_have_their_forms() {
    let pack = pack(LINES, Codec::Zlib, 400);
    let crc = format!(r#""crc":"{:08x}""#, pack.header.ours.unwrap().crc);
    for text in ["", "1234567", "123456789", "+1234567", "0x123456", "1234567g"] {
        assert_eq!(reason_of_change(&crc, &format!(r#""crc":"{text}""#)), "bad_hex", "{text}");
    }
    assert_eq!(reason_of_change(r#""stream":"000"#, r#""stream":"00"#), "bad_hex");
    assert_eq!(reason_of_change(r#""v":"2""#, r#""v":"2","done":"yes""#), "bad_flag");
    assert_eq!(reason_of_change(r#""v":"2""#, r#""v":"2","repull":"2""#), "bad_flag");
    assert_eq!(reason_of_change("2026112101", "2026112124"), "bad_hour");
    assert_eq!(reason_of_change(r#""v":"2""#, r#""v":"3""#), "unknown_version");
    assert_eq!(reason_of_change(r#""codec":"zlib""#, r#""codec":"lz4""#), "unknown_codec");
}

#[test]
fn names_that_could_leave_the_output_folder_are_refused() {
    let long = "x".repeat(5_000);
    for (name, expected) in [
        ("", "name_empty"),
        (".", "name_dots"),
        ("..", "name_dots"),
        ("../../etc", "name_slash"),
        ("/etc/passwd", "name_slash"),
        ("web\\u0000", "name_nul"),
        ("web\\n1", "name_control"),
        ("web\\u202egol", "name_control"),
        (&long, "name_too_long"),
    ] {
        for (key, value) in [("host", "web-1"), ("source", "access"), ("ip", "10.0.0.7")] {
            let given = reason_of_change(&format!(r#""{key}":"{value}""#), &format!(r#""{key}":"{name}""#));
            assert_eq!(given, expected, "{key} {name}");
        }
    }
}

#[test]
fn ranges_and_lengths_that_contradict_each_other_are_refused() {
    assert_eq!(reason_of_change(r#""offset":"400""#, r#""offset":"18446744073709551600""#), "range_overflow");
    assert_eq!(reason_of_change(r#""first":"0""#, r#""first":"401""#), "offset_before_first");
    assert_eq!(reason_of_change(r#""raw":"30""#, r#""raw":"31""#), "raw_above_span");
    let with_sum = |raw| {
        let mut pack = pack(LINES, Codec::Zlib, 400);
        let ours = pack.header.ours.as_mut().unwrap();
        (ours.raw, ours.raw_sum) = (raw, Some(1));
        Pack::parse(pack.encode(), &Limits::default()).map(|parsed| assert_eq!(parsed, pack))
    };
    assert_eq!(with_sum(30 * RAW_PER_SPAN_MAX), Ok(()));
    assert_eq!(with_sum(30 * RAW_PER_SPAN_MAX + 1), Err(BadPack::RawAboveSpan));
    let span = |raw| {
        let mut pack = pack(LINES, Codec::Zlib, 400);
        let ours = pack.header.ours.as_mut().unwrap();
        (ours.raw, ours.identity.span) = (raw, raw);
        reason(pack.encode())
    };
    assert_eq!(span((64 << 20) + 1), "raw_too_large");
    assert_eq!(span(1 << 20), "raw_impossible");
    let mut plain = pack(LINES, Codec::None, 400);
    plain.header.ours.as_mut().unwrap().raw -= 1;
    assert_eq!(reason(plain.encode()), "raw_impossible");
}

#[test]
fn a_pack_ends_where_its_header_says() {
    let bytes = pack(LINES, Codec::Zlib, 400).encode();
    for cut in 0..bytes.len() {
        assert_eq!(reason(bytes.slice(..cut)), "truncated", "cut at {cut}");
    }
    let mut longer = bytes.to_vec();
    longer.push(b'x');
    assert_eq!(reason(longer.into()), "trailing_bytes");
}

#[test]
fn any_flipped_bit_of_a_body_is_found_by_its_checksum() {
    let bytes = pack(LINES, Codec::Zlib, 400).encode();
    let body_at = pack(LINES, Codec::Zlib, 400).encode_header().len();
    for at in body_at..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            assert_eq!(reason(flipped.into()), "bad_crc");
        }
    }
}

#[test]
fn any_flipped_bit_of_a_header_is_found_or_harmless() {
    let good = pack(LINES, Codec::Zlib, 400);
    let header = good.encode_header();
    let what_counts =
        |header: &Header| (header.ip.clone(), header.hour, header.id, header.lines, header.ours.clone());
    let mut found = 0;
    for (at, bit) in (0..header.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = good.encode().to_vec();
        bytes[at] ^= 1 << bit;
        match Pack::parse(bytes.into(), &Limits::default()) {
            Ok(parsed) => {
                assert_eq!(what_counts(&parsed.header), what_counts(&good.header), "byte {at}, bit {bit}")
            }
            Err(_) => found += 1,
        }
    }
    assert!(found > header.len() * 6, "{found} of {} flips were found", header.len() * 8);
}

#[test]
fn the_check_of_the_header_is_crc32c_of_its_keys_and_values() {
    let good = pack(LINES, Codec::None, 400);
    let bytes = good.encode_header();
    let json: serde_json::Value = serde_json::from_slice(&bytes[4..]).unwrap();
    let keys = [
        "codec", "crc", "first", "host", "hour", "id", "ip", "lines", "offset", "raw", "source", "span",
        "stream", "sum", "v",
    ];
    let text: String =
        keys.iter().map(|key| format!("{key}={}\n", json["Route"][0][key].as_str().unwrap())).collect();
    assert_eq!(json["Route"][0]["check"], format!("{:08x}", crc32c(text.as_bytes())));
}

#[test]
fn messages_show_a_strangers_keys_cut_and_escaped() {
    let key = format!("\\u001b[31m{}", "k".repeat(500));
    let error =
        Pack::parse(changed(r#""future":"kept""#, &format!(r#""{key}":7"#)), &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("\\u{{1b}}[31m{} has the wrong type in the header", "k".repeat(27))
    );
}

// Bodies

fn decompress(pack: &Pack, limits: &Limits) -> Result<Vec<u8>, &'static str> {
    let mut out = b"left over from the pack before".to_vec();
    let outcome = Decompressor::new().decompress(pack, limits, &mut out);
    assert!(outcome.is_ok() || out.is_empty(), "nothing of a bad body is handed on");
    outcome.map(|()| out).map_err(|error| error.reason())
}

#[test]
fn a_bomb_is_stopped_at_what_its_header_announces() {
    let zeros = vec![0; 8 << 20];
    for codec in [Codec::Zlib, Codec::Zstd] {
        let mut bomb = pack(&zeros, codec, 0);
        assert!(bomb.body.len() < 40_000);
        bomb.header.ours.as_mut().unwrap().raw = 10_000;
        let mut out = Vec::new();
        let error = Decompressor::new().decompress(&bomb, &Limits::default(), &mut out).unwrap_err();
        assert_eq!(error, BadPack::RawMismatch, "{codec}");
        assert!(out.capacity() < 20_000, "{}", out.capacity());
    }
}

#[test]
fn a_legacy_bomb_is_stopped_at_the_limit() {
    let bomb = legacy_pack(Compressor::new(Codec::Zlib, 9).unwrap().compress(&vec![0; 4 << 20]));
    let limits = |raw_bytes_max| Limits { raw_bytes_max, ..Limits::default() };
    for max in [0, 1, 1_000, 65_535, 65_536, 65_537, (4 << 20) - 1] {
        let mut out = Vec::new();
        let error = Decompressor::new().decompress(&bomb, &limits(max), &mut out).unwrap_err();
        assert_eq!(error, BadPack::RawTooLarge { max });
        assert!(out.capacity() <= max, "{} for {max}", out.capacity());
    }
    // A buffer that has more room than the limit, from the time before the limit was lowered.
    let mut out = Vec::with_capacity(8 << 20);
    let error = Decompressor::new().decompress(&bomb, &limits((4 << 20) - 1), &mut out).unwrap_err();
    assert_eq!((error, out.len()), (BadPack::RawTooLarge { max: (4 << 20) - 1 }, 0));
    assert_eq!(decompress(&bomb, &limits(4 << 20)).map(|out| out.len()), Ok(4 << 20));
}

#[test]
fn bodies_that_are_no_whole_stream_are_refused() {
    for codec in [Codec::Zlib, Codec::Zstd] {
        let good = pack(LINES, codec, 0);
        for cut in 0..good.body.len() {
            let mut short = good.clone();
            short.body.truncate(cut);
            assert!(decompress(&short, &Limits::default()).is_err(), "{codec} cut at {cut}");
        }
        let mut noise = good.clone();
        noise.body = Bytes::from(vec![0x5a; 64]);
        assert_eq!(decompress(&noise, &Limits::default()), Err("body_corrupt"));
    }
    let body = pack(LINES, Codec::Zlib, 0).body;
    for cut in 0..body.len() {
        assert_eq!(
            decompress(&legacy_pack(body.slice(..cut)), &Limits::default()),
            Err("body_corrupt"),
            "{cut}"
        );
    }
    let longer = Bytes::from([&body[..], b"x"].concat());
    assert_eq!(decompress(&legacy_pack(longer), &Limits::default()), Err("body_trailing_bytes"));
}

#[test]
fn a_body_has_the_length_and_the_sum_of_its_header() {
    for codec in Codec::ALL {
        let good = pack(LINES, codec, 0);
        assert_eq!(decompress(&good, &Limits::default()).as_deref(), Ok(LINES));
        let with = |change: fn(&mut Ours)| {
            let mut pack = good.clone();
            change(pack.header.ours.as_mut().unwrap());
            decompress(&pack, &Limits::default())
        };
        assert_eq!(with(|ours| ours.identity.sum ^= 1), Err("bad_sum"));
        assert_eq!(with(|ours| ours.raw -= 1), Err("raw_mismatch"));
        let longer = if codec == Codec::None { "raw_impossible" } else { "raw_mismatch" };
        assert_eq!(with(|ours| ours.raw += 1), Err(longer));
        assert_eq!(with(|ours| ours.raw = u64::MAX), Err("raw_too_large"));
        // A filtered body is shorter than its range, so the range's sum says nothing about it.
        assert_eq!(with(|ours| (ours.identity.span, ours.identity.sum) = (50, 1)).as_deref(), Ok(LINES));
        // Its own sum does, also where it happens to be as long as the range.
        for span in [20, 30, 50] {
            let summed = |sum| {
                let mut pack = good.clone();
                let ours = pack.header.ours.as_mut().unwrap();
                (ours.identity.span, ours.identity.sum, ours.raw_sum) = (span, 1, Some(sum));
                decompress(&pack, &Limits::default())
            };
            assert_eq!(summed(crc32c(LINES)).as_deref(), Ok(LINES));
            assert_eq!(summed(crc32c(LINES) ^ 1), Err("bad_sum"));
        }
    }
}

#[test]
fn levels_that_a_codec_does_not_have_are_refused() {
    for (codec, good, bad) in [(Codec::Zlib, 1..=9, [0, 10]), (Codec::Zstd, 1..=19, [0, 20])] {
        for level in good {
            assert!(Compressor::new(codec, level).is_ok());
        }
        for level in bad {
            assert_eq!(Compressor::new(codec, level).err(), Some(BadPack::BadLevel { codec, level }));
        }
    }
}
