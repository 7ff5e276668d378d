//! Promise 5: nothing from the network is trusted. What is bad is refused with a counter of its own; the node stays up and
//! small, good clients go on, and nothing is written outside the output folder.

#![allow(clippy::print_stdout)] // a test talks to who runs it

use bytes::Bytes;
use logferry_link::Answer;
use logferry_link::frame::{self, Frame, HEAD_BYTES, Hello, KIND_PACK, PREFACE};
use logferry_pack::{Codec, Compressor, crc32c};
use logferry_tests::lines::many_lines;
use logferry_tests::{Relay, RelayOptions, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Address in a program's configuration, behind `[listen]`.
fn listen_addr(config: &std::path::Path) -> String {
    let text = std::fs::read_to_string(config).expect("configuration");
    let line = text.lines().find(|line| line.starts_with("addr = ")).expect("[listen] addr");
    line.trim_start_matches("addr = ").trim_matches('"').to_owned()
}

/// A connection with HELLOs exchanged.
fn greeted(addr: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
    stream.write_all(&PREFACE).expect("preface");
    let hello = Hello { role: "tailer".to_owned(), node: "stranger".to_owned(), ..Hello::default() };
    stream.write_all(&frame::encode(&Frame::Hello(hello))).expect("HELLO");
    assert!(matches!(read_frame(&mut stream), Frame::Hello(_)));
    stream
}

fn read_frame(stream: &mut TcpStream) -> Frame {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).expect("a frame");
    let (kind, length) = frame::parse_head(head, 0).expect("a good head");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).expect("a payload");
    frame::decode(kind, &payload).expect("a good frame")
}

/// Sends one pack and gives the answer to it.
fn answer_to(addr: &str, pack: &[u8]) -> Answer {
    let mut stream = greeted(addr);
    let mut bytes = frame::head(KIND_PACK, 8 + pack.len()).to_vec();
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(pack);
    stream.write_all(&bytes).expect("PACK");
    match read_frame(&mut stream) {
        Frame::Ack(1, answer) => answer,
        other => panic!("{other:?} in answer to a pack"),
    }
}

/// Header JSON and body as a pack.
fn pack_of(json: &str, body: &[u8]) -> Vec<u8> {
    let (mut length, mut bytes) = (json.len(), Vec::new());
    while bytes.len() < 4 {
        let more = length > 0x7f;
        bytes.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            bytes.resize(4, 0);
        }
    }
    bytes.extend(json.as_bytes());
    bytes.extend(body);
    bytes
}

/// A good pack's header with one key set to `value`.
fn pack_with(key: &str, value: &str, lines: &[u8], codec: Codec) -> Vec<u8> {
    let body: Bytes = Compressor::new(codec, 1).expect("compressor").compress(lines);
    let mut origin = serde_json::json!({
        "ip": "192.0.2.9", "hour": "2026112101", "id": "1", "lines": "1", "v": "2", "host": "stranger", "source": "app-0",
        "stream": "000000000000000000000000000000ff", "first": "0", "offset": "0", "span": lines.len().to_string(),
        "sum": format!("{:08x}", crc32c(lines)), "raw": lines.len().to_string(), "codec": codec.to_string(),
        "crc": format!("{:08x}", crc32c(&body)),
    });
    if !key.is_empty() {
        origin[key] = serde_json::Value::String(value.to_owned());
    }
    pack_of(&serde_json::json!({"Route": [origin], "PackLen": body.len()}).to_string(), &body)
}

#[track_caller]
fn assert_rejected(addr: &str, pack: &[u8], what: &str) -> String {
    match answer_to(addr, pack) {
        Answer::Rejected { reason } => reason,
        other => panic!("{what}: {other:?}"),
    }
}

/// All paths below a folder.
fn tree(folder: &std::path::Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        paths.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths.extend(tree(&entry.path()));
        }
    }
    paths
}

#[test]
fn bad_packs_are_refused_and_nothing_is_written_outside() {
    let mut relay = Relay::new("bad-packs", &RelayOptions::default());
    relay.start();
    let before = tree(relay.dir.path()).len();
    for program in [&relay.collectors[0], &relay.outputter] {
        let addr = listen_addr(&program.config);
        let long = "x".repeat(5_000);
        for (key, value) in [
            ("host", ".."),
            ("host", "/etc"),
            ("host", "a/../../b"),
            ("host", "nul\0"),
            ("host", &long),
            ("host", ""),
            ("source", ".."),
            ("source", "../../../tmp/x"),
            ("source", "a\nb"),
            ("source", &long),
            ("offset", "-1"),
            ("span", "18446744073709551616"),
            ("raw", "99999999999"),
            ("id", "-5"),
            ("lines", "many"),
            ("hour", "../../etc"),
            ("hour", "2026993199"),
            ("stream", "xyz"),
            ("crc", "00000000"),
            ("codec", "rar"),
        ] {
            let reason = assert_rejected(
                &addr,
                &pack_with(key, value, b"x\n", Codec::Zlib),
                &format!("{key}={value:.20}"),
            );
            let counted =
                || program.counter("logferry_link_refused_total", &format!("reason=\"{reason}\"")) >= 1.0;
            wait_until(&format!("{reason} is counted"), counted);
        }
        assert_rejected(&addr, &pack_of("{\"Route\":[]}", b""), "no route");
        assert_rejected(&addr, &pack_of("not json", b""), "not json");
        assert_rejected(
            &addr,
            &pack_of(&format!("{{\"Route\":[{{\"ip\":\"{}\"}}]}}", "i".repeat(80_000)), b""),
            "long header",
        );
        assert_rejected(
            &addr,
            &pack_of("{\"Route\":[{}],\"PackLen\":4000000000}", b"x"),
            "a length that lies",
        );
        assert_rejected(&addr, &[0xff; 40], "no varint");
    }
    // Only the outputter inflates: a bomb, and a checksum of the lines that is wrong.
    let addr = listen_addr(&relay.outputter.config);
    let zeros = vec![0; 200 << 20];
    assert_rejected(&addr, &pack_with("", "", &zeros, Codec::Zlib), "a bomb over the limit");
    assert_rejected(&addr, &pack_with("raw", "1000000", &zeros, Codec::Zstd), "a bomb that lies");
    assert_rejected(&addr, &pack_with("sum", "00000001", b"y\n", Codec::Zlib), "a wrong sum");

    let written = many_lines(80, 2_000);
    std::fs::write(&relay.log_files[0], &written).expect("log file");
    relay.wait_identical(&[written]);
    let stored: Vec<String> = tree(&relay.output);
    assert!(stored.iter().all(|path| !path.contains("stranger")), "{stored:?}");
    let after = tree(relay.dir.path()).len() - stored.len();
    assert!(after <= before + 20, "{before} paths before, {after} after: {:?}", tree(relay.dir.path()));
    for program in [&relay.collectors[0], &relay.outputter] {
        assert!(program.memory_peak() < 128 * MIB, "{}: {} MiB", program.name, program.memory_peak() / MIB);
    }
}

#[test]
fn random_bytes_idle_and_slow_connections_leave_good_clients_alone() {
    let mut relay = Relay::new("bad-connections", &RelayOptions::default());
    relay.start();
    let mut random = StdRng::seed_from_u64(81);
    let addrs = [listen_addr(&relay.collectors[0].config), listen_addr(&relay.outputter.config)];
    let connect = |addr: &String| TcpStream::connect(addr).expect("connect");
    for number in 0..200 {
        let mut bytes = vec![0; random.random_range(1..400)];
        random.fill_bytes(&mut bytes);
        if number % 2 == 0 {
            // Past the preface and HELLO, then anything.
            let _ = greeted(&addrs[number % 4 / 2]).write_all(&bytes);
        } else {
            let _ = connect(&addrs[number % 4 / 2]).write_all(&bytes);
        }
    }
    let idle: Vec<TcpStream> = (0..300).map(|number| connect(&addrs[number % 2])).collect();
    let mut slow: Vec<TcpStream> = (0..100).map(|number| greeted(&addrs[number % 2])).collect();
    let pack = pack_with("", "", b"slow\n", Codec::Zlib);
    let mut bytes = frame::head(KIND_PACK, 8 + pack.len()).to_vec();
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(pack);
    // Every tenth promises as much as a pack may have, and begins with it: memory is taken for it.
    let mut greedy = frame::head(KIND_PACK, 16 << 20).to_vec();
    greedy.extend(1u64.to_le_bytes());
    greedy.resize(3 << 10, b'x');
    slow.iter_mut().step_by(10).for_each(|stream| stream.write_all(&greedy).expect("begin a large pack"));

    let written = many_lines(82, 2_000);
    std::fs::write(&relay.log_files[0], &written).expect("log file");
    for byte in bytes.iter().take(60) {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(&[*byte])));
    }
    relay.wait_identical(&[written]);
    for program in [&relay.collectors[0], &relay.outputter] {
        wait_until("strangers are refused", || {
            program.counter("logferry_link_refused_total", "not_v2") > 0.0
        });
        assert!(program.memory_peak() < 64 * MIB, "{}: {} MiB", program.name, program.memory_peak() / MIB);
    }
    drop(idle);
}
