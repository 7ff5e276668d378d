//! `ferryctl quarantine list` and `send` against a real receiver.

use crate::support::ferryctl;
use logferry_durable::RealDisk;
use logferry_footprint::Remembered;
use logferry_link::{Answer, Budget, Receiver, ReceiverOptions};
use logferry_node::config::{ListenSettings, NodeSettings};
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Codec, Compressor, Header, Pack};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

fn pack(id: u64) -> Pack {
    let lines = format!("a line of {id}\n");
    Pack {
        header: Header {
            ip: "10.0.0.7".to_owned(),
            hour: "2026112101".parse().expect("an hour"),
            id,
            lines: 1,
            done: false,
            repull: false,
            ours: None,
            origin_rest: serde_json::Map::new(),
            hops: Vec::new(),
        },
        body: Compressor::new(Codec::Zlib, 1).expect("a codec").compress(lines.as_bytes()),
    }
}

/// Four packs, the last of which is damaged.
fn fill(var_dir: &Path) {
    let quarantine = Quarantine::open(Arc::new(RealDisk), var_dir, 1 << 20).expect("opened");
    for id in 1..=3 {
        quarantine.put("conflict", &format!("pack {id}"), &[&pack(id).encode()]).expect("stored");
    }
    let bytes = pack(4).encode();
    quarantine.put("bad_crc", "pack 4", &[&bytes[..bytes.len() - 1]]).expect("stored");
}

/// A next tier that gives `answers` in turn, and remembers what came: id and whether it is back-filled.
async fn tier(answers: Vec<Answer>) -> (SocketAddr, Arc<Mutex<Vec<(u64, bool)>>>) {
    let settings = ListenSettings { addr: "127.0.0.1:0".into(), ..Default::default() };
    let node = NodeSettings { name: "store".into(), ..Default::default() };
    let options = ReceiverOptions::new(&settings, &node, "outputter", Budget::new(64 << 20));
    let receiver = Receiver::bind(options).await.expect("a free port");
    let addr = receiver.local_addr();
    let (packs, mut incoming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(receiver.run(packs, CancellationToken::new()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let taken = seen.clone();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Some(pack) = incoming.recv().await {
            taken.lock().expect("no panic").push((pack.pack.header.id, pack.pack.header.repull));
            pack.answer.send(answers.next().expect("an answer for each pack"));
        }
    });
    (addr, seen)
}

#[test]
fn what_is_there_is_listed_with_its_reasons() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path());
    let ran = ferryctl(&["quarantine", "list", dir.path().to_str().expect("UTF-8"), "--json"]);
    assert_eq!(ran.status, 1, "it is not empty: {}", ran.err);
    let rows: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[0]["reason"], &rows[0]["id"]), (&"conflict".into(), &1.into()));
    assert_eq!((&rows[0]["host"], &rows[0]["fault"]), (&"10.0.0.7".into(), &serde_json::Value::Null));
    assert!(rows[3]["fault"].is_string(), "{}", rows[3]);
    let table = ferryctl(&["quarantine", "list", dir.path().join("quarantine").to_str().expect("UTF-8")]);
    assert!(table.out.contains("bad_crc") && table.out.contains("4 files"), "{}", table.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_deleted_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path());
    let nothing_alike = Remembered { frontier: 0, packs: Vec::new() };
    let (addr, seen) = tier(vec![Answer::Ok, Answer::Conflict(nothing_alike), Answer::Duplicate]).await;
    let folder = dir.path().to_str().expect("UTF-8").to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        ferryctl(&["quarantine", "send", &folder, "--to", &addr.to_string(), "--timeout", "30s"])
    });
    let ran = ran.await.expect("it ran");
    assert_eq!(ran.status, 1, "two are left: {} {}", ran.out, ran.err);
    assert!(ran.err.contains("2 delivered, 2 kept"), "{}", ran.err);
    assert!(ran.err.contains("other bytes") && ran.err.contains("no sound pack"), "{}", ran.err);
    let seen = seen.lock().expect("no panic").clone();
    assert_eq!(seen, [(1, true), (2, true), (3, true)], "back-filled, oldest first");
    let left: Vec<String> = std::fs::read_dir(dir.path().join("quarantine"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left.len(), 4, "two packs with their reasons: {left:?}");
    assert!(left.iter().all(|name| name.contains("-000002-") || name.contains("-000004-")), "{left:?}");
}

#[test]
fn a_target_that_is_not_there_deletes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path());
    let folder = dir.path().to_str().expect("UTF-8");
    let ran = ferryctl(&["quarantine", "send", folder, "--to", "127.0.0.1:1", "--timeout", "300ms"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("no answer from 127.0.0.1:1"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(dir.path().join("quarantine")).expect("a folder").count(), 8);
}
