//! The bytes of packs, ours and those of legacy nodes, are pinned here.

#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use bytes::Bytes;
use logferry_pack::*;
use support::*;

const LIMITS: fn() -> Limits = Limits::default;

const OURS: &[u8] = b"\xc1\x02\0\0{\"Route\":[{\"check\":\"50ba10a9\",\"codec\":\"none\",\"crc\":\"fcac93a4\",\"first\":\"100\",\"future\":\"kept\",\
\"host\":\"web-1\",\"hour\":\"2026112101\",\"id\":\"3\",\"ip\":\"10.0.0.7\",\"lines\":\"2\",\"offset\":\"400\",\"raw\":\"8\",\
\"source\":\"access\",\"span\":\"8\",\"stage\":\"make pack\",\"stream\":\"00000000000000000000000700000001\",\
\"sum\":\"fcac93a4\",\"v\":\"2\"}],\"PackLen\":8}one\ntwo\n";

fn ours() -> Pack {
    let mut pack = pack(b"one\ntwo\n", Codec::None, 400);
    pack.header.ours.as_mut().unwrap().first = 100;
    pack
}

#[test]
fn our_layout_does_not_change() {
    assert_eq!(ours().encode().escape_ascii().to_string(), OURS.escape_ascii().to_string());
    assert_eq!(Pack::parse(Bytes::from_static(OURS), &LIMITS()).unwrap(), ours());
}

#[test]
fn flags_and_hops_have_their_place_in_the_layout() {
    let mut pack = ours();
    pack.header.done = true;
    pack.header.repull = true;
    pack.push_hop(&Hop {
        ip: "10.0.0.8".into(),
        stage: "tcp recv",
        st: "2026-11-21 01:18:33.744".into(),
        ed: "2026-11-21 01:18:33.749".into(),
        elapse: "4.954ms".into(),
    });
    let bytes = pack.encode();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""crc":"fcac93a4","done":"1","first":"100""#), "{text}");
    assert!(text.contains(r#""raw":"8","repull":"1","source":"access""#), "{text}");
    assert!(
        text.ends_with(
            "\"v\":\"2\"},{\"ed\":\"2026-11-21 01:18:33.749\",\"elapse\":\"4.954ms\",\"ip\":\"10.0.0.8\",\
             \"st\":\"2026-11-21 01:18:33.744\",\"stage\":\"tcp recv\"}],\"PackLen\":8}one\ntwo\n"
        ),
        "{text}"
    );
    assert_eq!(Pack::parse(bytes, &LIMITS()).unwrap(), pack);
}

#[test]
fn keys_may_come_in_any_order_and_outer_ones_we_do_not_know_are_skipped() {
    let turned = r#" { "PackLen" : 8 , "Extra":{"a":[1,{"b":null}]},"Route":[{"v":"2","sum":"FCAC93A4","stream":"00000000000000000000000700000001",
        "stage":"make pack","span":"8","source":"access","raw":"8","offset":"400","lines":"2","ip":"10.0.0.7","id":"3","done":"0",
        "hour":"2026112101","host":"web-1","first":"100","crc":"fcac93a4","codec":"none","fu\u0074ure":"kept"}]}"#;
    assert_eq!(Pack::parse(with_json(turned, b"one\ntwo\n"), &LIMITS()).unwrap(), ours());
}

#[test]
fn an_absent_codec_is_zlib_and_a_header_without_a_check_is_taken() {
    let pack = pack(b"one\ntwo\n", Codec::Zlib, 0);
    let text = String::from_utf8(pack.encode_header()[4..].to_vec()).unwrap();
    let (check, without) = text.split_once(r#""codec":"zlib","#).unwrap();
    let without = format!("{}{without}", check.split_once("\"check\"").unwrap().0);
    assert_eq!(Pack::parse(with_json(&without, &pack.body), &LIMITS()).unwrap(), pack);
}

#[test]
fn recorded_packs_of_a_legacy_tail_are_read_and_written_byte_for_byte() {
    let packs = recorded(TAIL_PACKS);
    let told: Vec<_> = packs
        .iter()
        .map(|bytes| {
            let pack = Pack::parse(bytes.clone(), &LIMITS()).unwrap();
            assert_eq!(pack.encode(), bytes);
            let header = pack.header;
            assert_eq!(header.ours, None);
            assert_eq!(header.ip, "10.0.0.7");
            assert_eq!(header.origin_rest.keys().collect::<Vec<_>>(), ["ed", "elapse", "st", "stage"]);
            (header.hour.to_string(), header.id, header.lines, header.done, header.repull)
        })
        .collect();
    let hour = |text: &str, id, lines, done, repull| (text.to_owned(), id, lines, done, repull);
    assert_eq!(
        told,
        [
            hour("2026112023", 1, 50, false, false),
            hour("2026112023", 2, 50, false, false),
            hour("2026112023", 3, 0, true, true),
            hour("2026112100", 1, 50, false, false),
            hour("2026112100", 2, 50, false, false),
            hour("2026112100", 3, 20, true, false),
            hour("2026112101", 1, 50, false, false),
        ]
    );
}

#[test]
fn recorded_bodies_hold_the_lines_that_their_headers_count() {
    let mut decompressor = Decompressor::new();
    let mut lines = Vec::new();
    for bytes in recorded(TAIL_PACKS) {
        let pack = Pack::parse(bytes, &LIMITS()).unwrap();
        decompressor.decompress(&pack, &LIMITS(), &mut lines).unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count() as u64, pack.header.lines);
        assert!(lines.is_empty() || lines.ends_with(b"\n"));
    }
}

#[test]
fn our_hop_makes_of_a_recorded_pack_what_a_legacy_collector_made_of_it() {
    let sent = recorded(TAIL_PACKS);
    let forwarded = recorded(COLLECTOR_PACKS);
    assert_eq!((sent.len(), forwarded.len()), (7, 7));
    for (sent, forwarded) in sent.into_iter().zip(forwarded) {
        let mut pack = Pack::parse(sent, &LIMITS()).unwrap();
        let expected = Pack::parse(forwarded.clone(), &LIMITS()).unwrap();
        let [hop] = expected.header.hops.as_slice() else { panic!("one hop") };
        let text = |key: &str| hop[key].as_str().unwrap().to_owned();
        assert_eq!(text("stage"), "tcp recv");
        pack.push_hop(&Hop {
            ip: text("ip"),
            stage: "tcp recv",
            st: text("st"),
            ed: text("ed"),
            elapse: text("elapse"),
        });
        assert_eq!(pack, expected);
        assert_eq!(pack.encode(), forwarded);
    }
}

#[test]
fn a_pack_of_ours_keeps_its_identity_through_a_legacy_node() {
    // A legacy node reads objects of strings, appends its own, and writes all keys sorted.
    let bytes = ours().encode();
    let json: serde_json::Value = serde_json::from_slice(&bytes[4..bytes.len() - 8]).unwrap();
    let mut outer = json.as_object().unwrap().clone();
    let hop = serde_json::json!({"ip": "10.0.0.9", "stage": "tcp recv"});
    outer["Route"].as_array_mut().unwrap().push(hop.clone());
    let forwarded = with_json(&serde_json::to_string(&outer).unwrap(), b"one\ntwo\n");
    let mut expected = ours();
    expected.header.hops.push(hop.as_object().unwrap().clone());
    assert_eq!(Pack::parse(forwarded, &LIMITS()).unwrap(), expected);
}
