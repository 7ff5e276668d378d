//! `ferryctl pack inspect` on sound packs, legacy packs and every kind of damage.

use crate::support::{ferryctl, ferryctl_with_input, file};
use logferry_pack::{Codec, Compressor, Header, Hop, Name, Ours, Pack, PackIdentity, StreamId, crc32c};

const LINES: &[u8] = b"GET / 200\nGET /robots.txt 404\n";

/// The pack of `LINES` number `id`, with a hop.
fn pack(codec: Codec, id: u64) -> Pack {
    let body = Compressor::new(codec, 1).expect("a codec").compress(LINES);
    let span = LINES.len() as u64;
    let ours = Ours {
        host: Name::new("web-1").expect("a name"),
        source: Name::new("access").expect("a name"),
        identity: PackIdentity { stream: StreamId(0xabc), offset: (id - 1) * span, span, sum: crc32c(LINES) },
        first: 0,
        raw: span,
        raw_sum: None,
        codec,
        crc: crc32c(&body),
    };
    let header = Header {
        ip: "10.0.0.7".to_owned(),
        hour: "2026112101".parse().expect("an hour"),
        id,
        lines: 2,
        done: false,
        repull: false,
        ours: Some(ours),
        origin_rest: serde_json::from_str(r#"{"stage":"make pack"}"#).expect("an object"),
        hops: Vec::new(),
    };
    let mut pack = Pack { header, body };
    pack.push_hop(&Hop {
        ip: "10.0.0.8".to_owned(),
        stage: "tcp recv",
        st: "2026-11-21 01:00:00.001".to_owned(),
        ed: "2026-11-21 01:00:00.002".to_owned(),
        elapse: "1ms".to_owned(),
    });
    pack
}

fn legacy() -> Vec<u8> {
    let body = Compressor::new(Codec::Zlib, 6).expect("a codec").compress(LINES);
    let header = format!(
        r#"{{"Route":[{{"ip":"10.1.1.1","hour":"2026112101","id":"7","lines":"2","done":"1","stage":"make pack","elapse":"1.2ms"}}],"PackLen":{}}}"#,
        body.len()
    );
    let length = header.len();
    let mut bytes = vec![(length & 0x7f) as u8 | 0x80, (length >> 7) as u8, 0, 0];
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn ours_of(pack: &mut Pack) -> &mut Ours {
    pack.header.ours.as_mut().expect("of ours")
}

/// The JSON objects that `--json` prints.
fn reports(path: &str) -> (i32, Vec<serde_json::Value>) {
    let ran = ferryctl(&["pack", "inspect", "--json", path]);
    (ran.status, ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

/// Exit status and report of a file with one pack.
fn report_of(pack: &Pack) -> (i32, serde_json::Value) {
    let dir = tempfile::tempdir().expect("a folder");
    let (status, mut reports) = reports(&file(&dir, "one.pack", &pack.encode()));
    assert_eq!(reports.len(), 1);
    (status, reports.remove(0))
}

#[test]
fn a_pack_is_shown_with_range_sizes_route_and_checks() {
    let dir = tempfile::tempdir().expect("a folder");
    let sound = pack(Codec::None, 2);
    let path = file(&dir, "a.pack", &sound.encode());
    let ran = ferryctl(&["pack", "inspect", &path]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let header_bytes = sound.encode_header().len();
    let expected = format!(
        "pack at byte 0: web-1 access 2026112101 #2\n\
         \x20 stream  00000000000000000000000000000abc bytes 30 to 60 (first 0)\n\
         \x20 size    2 lines, 30 B (header {header_bytes}, body 30 B none, ratio 1.0)\n\
         \x20 origin  10.0.0.7 stage=make pack\n\
         \x20 hop     10.0.0.8 stage=tcp recv st=2026-11-21 01:00:00.001 ed=2026-11-21 01:00:00.002 elapse=1ms\n\
         \x20 checks  sound: crc ok, raw ok, sum ok, lines ok\n\
         {path}: 1 packs, 2 lines, 30 bytes, all sound\n"
    );
    assert_eq!(ran.out, expected);
}

#[test]
fn packs_of_all_codecs_and_of_legacy_nodes_follow_one_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bytes = Vec::new();
    for (index, codec) in [Codec::Zlib, Codec::Zstd, Codec::None].into_iter().enumerate() {
        bytes.extend_from_slice(&pack(codec, index as u64 + 1).encode());
    }
    let legacy_at = bytes.len();
    bytes.extend_from_slice(&legacy());
    let (status, reports) = reports(&file(&dir, "many.pack", &bytes));
    assert_eq!(status, 0);
    let codecs: Vec<_> = reports.iter().map(|report| report["codec"].clone()).collect();
    assert_eq!(codecs, ["zlib".into(), "zstd".into(), "none".into(), serde_json::Value::Null]);
    assert!(reports.iter().all(|report| report["sound"] == true && report["raw_bytes"] == LINES.len()));
    assert_eq!(reports[3]["at"], legacy_at);
    assert_eq!((&reports[3]["id"], &reports[3]["done"]), (&7.into(), &true.into()));
    assert_eq!(reports[3]["checks"]["crc"], "none");
    assert_eq!(reports[3]["origin"]["elapse"], "1.2ms");
}

#[test]
fn the_lines_alone_come_from_stdin_to_stdout() {
    let bytes = [&pack(Codec::Zstd, 1).encode()[..], &pack(Codec::Zlib, 2).encode()[..]].concat();
    let ran = ferryctl_with_input(&["pack", "inspect", "--body", "--quiet", "-"], &bytes);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out.as_bytes(), [LINES, LINES].concat());
}

#[test]
fn a_wrong_crc_is_told_and_what_the_body_still_holds_too() {
    let mut bad = pack(Codec::Zlib, 1);
    ours_of(&mut bad).crc ^= 1;
    let (status, report) = report_of(&bad);
    assert_eq!((status, &report["sound"]), (1, &false.into()));
    assert!(report["checks"]["crc"].as_str().expect("text").starts_with("header says "));
    assert_eq!((&report["checks"]["sum"], &report["checks"]["raw"]), (&"ok".into(), &"ok".into()));
}

#[test]
fn a_wrong_sum_is_told_and_the_lines_can_be_looked_at() {
    let mut bad = pack(Codec::Zstd, 1);
    ours_of(&mut bad).identity.sum ^= 1;
    let (status, report) = report_of(&bad);
    assert_eq!(status, 1);
    assert_eq!(report["checks"]["sum"], "the body is not what was read from the stream");
    assert_eq!((&report["checks"]["crc"], &report["checks"]["lines"]), (&"ok".into(), &"ok".into()));
    let ran = ferryctl_with_input(&["pack", "inspect", "--body", "--quiet", "-"], &bad.encode());
    assert_eq!((ran.status, ran.out.as_bytes()), (1, LINES));
    assert_eq!(ran.err, "stdin: at byte 0: sum: the body is not what was read from the stream\n");
}

#[test]
fn a_wrong_number_of_lines_is_told() {
    let mut bad = pack(Codec::Zlib, 1);
    bad.header.lines = 3;
    let (status, report) = report_of(&bad);
    assert_eq!((status, &report["checks"]["lines"]), (1, &"header says 3, body has 2".into()));
}

#[test]
fn a_body_that_does_not_inflate_is_told() {
    let mut bad = pack(Codec::Zlib, 1);
    let mut body = bad.body.to_vec();
    body[3..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    ours_of(&mut bad).crc = crc32c(&body);
    bad.body = body.into();
    let (status, report) = report_of(&bad);
    assert_eq!((status, &report["raw_bytes"]), (1, &serde_json::Value::Null));
    assert_eq!(report["checks"]["crc"], "ok");
    assert_ne!(report["checks"]["raw"], "ok");
    assert_eq!(report["checks"]["lines"], "not counted");
}

#[test]
fn a_pack_that_was_cut_off_is_told_with_its_place() {
    let whole = pack(Codec::Zlib, 1).encode();
    for cut in [1, 3, 4, 40, whole.len() - 1] {
        let bytes = [&whole[..], &whole[..cut]].concat();
        let ran = ferryctl_with_input(&["pack", "inspect", "--quiet", "-"], &bytes);
        assert_eq!(ran.status, 1, "{cut}");
        let place = format!("stdin: no pack at byte {}: the file ends after {cut} of ", whole.len());
        assert!(ran.err.starts_with(&place), "{}", ran.err);
    }
}

#[test]
fn what_is_no_pack_is_told_and_not_taken_for_one() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 64], b"\x05\0\0\0hello"] {
        let ran = ferryctl_with_input(&["pack", "inspect", "-"], garbage);
        assert_eq!(ran.status, 1);
        assert!(ran.err.starts_with("stdin: no pack at byte 0: "), "{}", ran.err);
    }
    let ran = ferryctl_with_input(&["pack", "inspect", "-"], b"");
    assert_eq!((ran.status, ran.err.as_str()), (1, "stdin: is empty, there is no pack\n"));
    let ran = ferryctl(&["pack", "inspect", "/nonexistent/file"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("error: cannot open /nonexistent/file: "), "{}", ran.err);
}

#[test]
fn control_characters_from_the_network_do_not_reach_the_terminal() {
    let mut odd = pack(Codec::Zlib, 1);
    odd.header.ip = "\x1b[2J".to_owned();
    odd.header.origin_rest.insert("x".to_owned(), "\x1b]0;title\x07".into());
    let ran = ferryctl_with_input(&["pack", "inspect", "-"], &odd.encode());
    assert!(!ran.out.contains('\x1b') && !ran.out.contains('\x07'), "{:?}", ran.out);
}
