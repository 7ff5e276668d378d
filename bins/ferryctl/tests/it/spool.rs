//! `ferryctl spool check` and `spool export` on spools that the spool crate wrote.

use crate::support::{ferryctl, ferryctl_with_input};
use logferry_durable::RealDisk;
use logferry_pack::{Codec, Compressor, Header, Pack};
use logferry_spool::{Spool, SpoolOptions};
use std::path::Path;
use std::sync::Arc;

fn pack(id: u64) -> Pack {
    let lines = format!("line one of {id}\nline two of {id}\n");
    Pack {
        header: Header {
            ip: "10.0.0.7".to_owned(),
            hour: "2026112101".parse().expect("an hour"),
            id,
            lines: 2,
            done: false,
            repull: false,
            ours: None,
            origin_rest: serde_json::Map::new(),
            hops: Vec::new(),
        },
        body: Compressor::new(Codec::Zlib, 1).expect("a codec").compress(lines.as_bytes()),
    }
}

/// A spool of three packs in segments of two.
fn spool(dir: &Path) {
    let pack_bytes = pack(1).encode().len() as u64;
    let options = SpoolOptions { bytes_max: 1 << 20, segment_bytes: 2 * pack_bytes };
    let (mut spool, _) = Spool::open(Arc::new(RealDisk), dir, options).expect("opened");
    for id in 1..=3 {
        let pack = pack(id);
        spool.append(u128::from(id), &[&pack.encode_header(), &pack.body]).expect("appended");
        spool.sync().expect("synced");
    }
}

/// The segment files, oldest first.
fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    paths.sort();
    paths
}

/// Flips a bit in the body of the first pack.
fn damage(dir: &Path) {
    let path = &segments(dir)[0];
    let mut bytes = std::fs::read(path).expect("read");
    bytes[40 + 48 + 60] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_good_spool_is_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(dir.path());
    let ran = ferryctl(&["spool", "check", text(dir.path())]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let segments = segments(dir.path()).len();
    assert!(segments >= 2, "{segments}");
    let last = ran.out.lines().last().expect("a line");
    assert!(last.starts_with(&format!("{}: 3 packs, ", dir.path().display())), "{last}");
    assert!(last.ends_with(&format!(" in {segments} segments, good")), "{last}");
}

#[test]
fn an_exported_spool_is_read_by_pack_inspect() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(&dir.path().join("spool"));
    let (from, to) = (dir.path().join("spool"), dir.path().join("packs"));
    let ran = ferryctl(&["spool", "export", text(&from), "--to", text(&to)]);
    assert_eq!((ran.status, ran.out.as_str()), (0, ""));
    assert!(ran.err.starts_with("3 packs, "), "{}", ran.err);
    let whole: Vec<u8> = (1..=3).flat_map(|id| pack(id).encode().to_vec()).collect();
    assert_eq!(std::fs::read(&to).expect("exported"), whole);

    let ran = ferryctl(&["pack", "inspect", "--body", "--quiet", text(&to)]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let lines = "line one of 1\nline two of 1\nline one of 2\nline two of 2\nline one of 3\nline two of 3\n";
    assert_eq!(ran.out, lines);
}

#[test]
fn an_export_does_not_replace_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(&dir.path().join("spool"));
    let to = crate::support::file(&dir, "precious", b"keep me");
    let ran = ferryctl(&["spool", "export", text(&dir.path().join("spool")), "--to", &to]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("exists already"), "{}", ran.err);
    assert_eq!(std::fs::read(&to).expect("there"), b"keep me");
}

#[test]
fn damage_is_told_with_its_place_and_the_rest_is_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(dir.path());
    damage(dir.path());
    let ran = ferryctl(&["spool", "check", "--json", text(dir.path())]);
    assert_eq!(ran.status, 1);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&report["good"], &report["records"]), (&false.into(), &2.into()));
    assert_eq!(report["damaged_ranges"], 1);
    assert_eq!(report["segments"][0]["damaged"][0]["at"], 40);

    let ran = ferryctl(&["spool", "check", text(dir.path())]);
    assert!(
        ran.out.contains(" bytes from 40 on cannot be read\n") && ran.out.contains("DAMAGED"),
        "{}",
        ran.out
    );

    let ran = ferryctl(&["spool", "export", text(dir.path()), "--to", "-"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.starts_with("2 packs, ") && ran.err.contains("not in it: "), "{}", ran.err);
}

#[test]
fn an_export_to_stdout_is_the_packs_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(dir.path());
    let command = format!(
        "'{tool}' spool export '{dir}' --to - | '{tool}' pack inspect --json -",
        tool = env!("CARGO_BIN_EXE_ferryctl"),
        dir = dir.path().display()
    );
    let output = std::process::Command::new("sh").args(["-c", &command]).output().expect("sh runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 3);
}

#[test]
fn a_segment_that_somebody_removed_is_named_with_its_packs() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(dir.path());
    std::fs::remove_file(&segments(dir.path())[0]).expect("removed");
    let ran = ferryctl(&["spool", "check", text(dir.path())]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    let lost = "0000000000000000.seg: REMOVED, with ";
    assert!(ran.out.contains(lost) && ran.out.contains(" packs lost with removed files"), "{}", ran.out);
    let ran = ferryctl(&["spool", "export", text(dir.path()), "--to", "-"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("of 1 removed files"), "{}", ran.err);
}

#[test]
fn packs_that_have_arrived_are_told_from_those_that_wait_and_not_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = SpoolOptions { bytes_max: 1 << 20, segment_bytes: 1 << 20 };
    let (mut spool, _) = Spool::open(Arc::new(RealDisk), dir.path(), options).expect("opened");
    for id in 1..=3 {
        spool.append(1, &[&pack(id).encode()]).expect("appended");
    }
    spool.sync().expect("synced");
    let first = spool.read_next().expect("readable").expect("a record");
    spool.ack(first.id).expect("acknowledged");
    spool.save().expect("saved");
    let ran = ferryctl(&["spool", "check", text(dir.path())]);
    assert!(ran.out.contains(": 3 packs, ") && ran.out.contains(", 1 of them have arrived\n"), "{}", ran.out);
    assert!(ran.out.contains(": 2 packs, "), "{}", ran.out);
    let ran = ferryctl(&["spool", "export", text(dir.path()), "--to", "-"]);
    assert!(ran.err.starts_with("2 packs, "), "{}", ran.err);
}

#[test]
fn looking_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    spool(dir.path());
    damage(dir.path());
    let read =
        || -> Vec<_> { segments(dir.path()).iter().map(|path| std::fs::read(path).expect("read")).collect() };
    let before = read();
    ferryctl(&["spool", "check", text(dir.path())]);
    ferryctl(&["spool", "export", text(dir.path()), "--to", "-"]);
    assert_eq!(read(), before);
}

#[test]
fn what_is_no_spool_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    crate::support::file(&dir, "admin.addr", b"127.0.0.1:1\n");
    spool(&dir.path().join("spool"));
    let ran = ferryctl(&["spool", "check", text(dir.path())]);
    assert_eq!(ran.status, 1);
    let inner = dir.path().join("spool");
    assert!(ran.err.contains(&format!(
        "is no spool: it has files, but no segments, perhaps {} is meant",
        inner.display()
    )));

    let ran = ferryctl(&["spool", "check", "/nonexistent"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, "error: /nonexistent: no such folder\n"));
    assert_eq!(ferryctl_with_input(&["spool", "export", "x"], b"").status, 2);

    let empty = tempfile::tempdir().expect("a folder");
    let ran = ferryctl(&["spool", "check", text(empty.path())]);
    assert_eq!(ran.status, 0);
    assert!(ran.out.ends_with(": 0 packs, 0 B in 0 segments, good\n"), "{}", ran.out);
}
