//! Names from the network: what could leave the folder is refused, each fault under its own label (which is also that of its
//! counter); what is only odd gets a file of its own inside; whatever comes, good clients go on.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::pack;
use crate::common::running::{Client, folders_in, start};
use logferry_durable::RealDisk;
use logferry_link::frame::{self, Frame, HEAD_BYTES, Hello, KIND_PACK, PREFACE};
use logferry_link::{Answer, Outcome};
use logferry_outputter::file::walk::files_below;
use logferry_pack::{Codec, Pack, StreamId};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

const HOUR: u32 = 2026112100;

fn good(host: &str) -> Pack {
    pack(StreamId(u128::from(logferry_pack::crc32c(host.as_bytes()))), host, HOUR, 0, b"1\n", Codec::None)
}

/// The bytes of a good pack in which the value of `key` is `value`, JSON text without its quotes.
fn bad(key: &str, value: &str) -> Vec<u8> {
    let good = good("stranger");
    let header = String::from_utf8(good.encode_header()[4..].to_vec()).unwrap();
    let at = header.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
    let end = at + header[at..].find('"').unwrap();
    let json = format!("{}{value}{}", &header[..at], &header[end..]);
    let length = [(json.len() & 0x7f) as u8 | 0x80, (json.len() >> 7) as u8, 0, 0];
    [&length, json.as_bytes(), &good.body].concat()
}

/// A connection, and the number of packs sent.
struct Stranger(TcpStream, u64);

impl Stranger {
    fn connect(addr: &str) -> Stranger {
        let mut stranger = Stranger(TcpStream::connect(addr).unwrap(), 0);
        let hello = Hello { role: "tailer".into(), node: "stranger".into(), ..Hello::default() };
        stranger.0.write_all(&PREFACE).unwrap();
        stranger.0.write_all(&frame::encode(&Frame::Hello(hello))).unwrap();
        assert!(matches!(stranger.read(), Frame::Hello(_)));
        stranger
    }

    fn read(&mut self) -> Frame {
        let mut head = [0; HEAD_BYTES];
        self.0.read_exact(&mut head).unwrap();
        let (kind, length) = frame::parse_head(head, 0).unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        frame::decode(kind, &payload).unwrap()
    }

    fn answer_to(&mut self, pack: &[u8]) -> Answer {
        self.1 += 1;
        self.0.write_all(&frame::head(KIND_PACK, 8 + pack.len())).unwrap();
        self.0.write_all(&self.1.to_le_bytes()).unwrap();
        self.0.write_all(pack).unwrap();
        match self.read() {
            Frame::Ack(sequence, answer) if sequence == self.1 => answer,
            other => panic!("{other:?}"),
        }
    }
}

/// Everything below `dir`, without what is below its output folder.
fn outside(dir: &Path) -> BTreeSet<String> {
    let names = |dir: &Path| {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path().display().to_string()).collect()
    };
    let (mut all, out): (BTreeSet<String>, BTreeSet<String>) = (names(dir), names(&dir.join("out")));
    all.extend(out);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_could_leave_the_folder_are_refused_each_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    // The address is in the path too.
    let running = start(dir.path(), |file| file.path = "{source}/{ip}/{host}_{hour}".into()).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver([good("web")].iter()).await, [Outcome::Ok]);
    let before = outside(dir.path());
    let (addr, long) = (running.addr.clone(), "x".repeat(5_000));
    let stranger = move || {
        let mut stranger = Stranger::connect(&addr);
        for key in ["host", "source", "ip"] {
            for (value, expected) in [
                ("..", "name_dots"),
                (".", "name_dots"),
                ("/etc/passwd", "name_slash"),
                ("../../../../tmp/x", "name_slash"),
                ("a/b", "name_slash"),
                ("nul\\u0000", "name_nul"),
                ("line\\nfeed", "name_control"),
                ("web\\u202egol", "name_control"),
                ("", "name_empty"),
                (&long, "name_too_long"),
            ] {
                let answer = stranger.answer_to(&bad(key, value));
                let Answer::Rejected { reason } = answer else { panic!("{key}={value:.40}: {answer:?}") };
                assert_eq!(reason, expected, "{key}={value:.40}");
            }
        }
        assert_eq!(
            stranger.answer_to(&bad("hour", "../../../..")),
            Answer::Rejected { reason: "bad_hour".into() }
        );
    };
    tokio::task::spawn_blocking(stranger).await.unwrap();
    assert_eq!(client.deliver([good("web-2")].iter()).await, [Outcome::Ok]);
    running.stop().await;
    assert_eq!(outside(dir.path()), before);
    let files = files_below(&RealDisk, &folders_in(dir.path()).data, "").unwrap().files;
    assert_eq!(files, ["access/10.0.0.7/web-2_2026112100", "access/10.0.0.7/web_2026112100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_have_files_of_their_own_inside_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |file| file.path = "{host}".into()).await;
    let before = outside(dir.path());
    let long = "ü".repeat(127);
    let names = [
        "...",
        "~",
        "-rf",
        "%2e%2e",
        "..\\..\\x",
        "a b",
        "web.tmp",
        "Web",
        "web",
        "w\u{e9}b",
        "we\u{301}b",
        &long,
    ];
    let packs: Vec<Pack> = names.iter().map(|name| good(name)).collect();
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver(packs.iter()).await, names.map(|_| Outcome::Ok));
    running.stop().await;
    assert_eq!(outside(dir.path()), before);
    let folders = folders_in(dir.path());
    for folder in [&folders.data, &folders.headers] {
        assert_eq!(files_below(&RealDisk, folder, "").unwrap().files.len(), names.len());
    }
}
