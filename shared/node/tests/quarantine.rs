//! What is quarantined is on the disk, named and explained, or the caller is told that it is not.

use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_durable::{Disk, RealDisk};
use logferry_node::quarantine::{Quarantine, Sidecar};
use std::path::Path;
use std::sync::Arc;

/// More than any test puts there.
const BYTES_MAX: u64 = 1 << 20;

#[test]
fn bytes_and_reason_are_stored_beside_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let var_dir = dir.path().join("var");
    let folder = var_dir.join("quarantine");
    let quarantine = Quarantine::open(Arc::new(RealDisk), &var_dir, BYTES_MAX).expect("opened");
    assert_eq!(quarantine.totals(), (0, 0));

    let path =
        quarantine.put("bad_checksum", "from 10.0.0.7:4711", &[b"head", b"", b"body"]).expect("stored");
    assert_eq!(std::fs::read(&path).expect("bytes"), b"headbody");
    assert_eq!(path.parent(), Some(folder.as_path()));
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.ends_with("-000001-bad_checksum.bin"), "{name}");

    let sidecar = std::fs::read(path.with_extension("json")).expect("sidecar");
    let sidecar: Sidecar = serde_json::from_slice(&sidecar).expect("JSON");
    assert_eq!((sidecar.reason.as_str(), sidecar.note.as_str()), ("bad_checksum", "from 10.0.0.7:4711"));
    assert_eq!(sidecar.bytes, 8);
    let time: jiff::Timestamp = sidecar.time.parse().expect("RFC 3339");
    assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60);

    assert_eq!(quarantine.totals(), (1, 8));
    quarantine.put("conflict", "", &[b"x"]).expect("stored");
    assert_eq!(quarantine.totals(), (2, 9));
    drop(quarantine);
    let again = Quarantine::open(Arc::new(RealDisk), &var_dir, BYTES_MAX).expect("opened again");
    assert_eq!(again.totals(), (2, 9));
}

#[test]
fn a_reason_from_a_peer_cannot_leave_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let quarantine = Quarantine::open(Arc::new(RealDisk), dir.path(), BYTES_MAX).expect("opened");
    for reason in ["../../etc/passwd", "a/b", "nul\0", "", &"long".repeat(500), "ünïcode\n"] {
        let path = quarantine.put(reason, "note\n\0", &[b"x"]).expect("stored");
        assert_eq!(path.parent(), Some(dir.path().join("quarantine").as_path()), "{reason:?}");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.is_ascii() && name.len() < 120 && !name.contains(".."), "{name}");
    }
    assert_eq!(quarantine.totals(), (6, 6));
}

#[test]
fn what_was_put_survives_a_power_loss() {
    let disk = FaultyDisk::new(1);
    let quarantine = Quarantine::open(Arc::new(disk.clone()), Path::new("/var"), BYTES_MAX).expect("opened");
    let path = quarantine.put("bad_checksum", "note", &[b"bytes"]).expect("stored");
    disk.crash();
    assert_eq!(disk.read(&path).expect("there"), b"bytes");
    let sidecar = disk.read(&path.with_extension("json")).expect("sidecar");
    assert!(serde_json::from_slice::<Sidecar>(&sidecar).is_ok());
}

#[test]
fn a_failing_disk_is_told_to_the_caller_and_leaves_nothing_half_written() {
    let faults = [
        Faults { fail_append_in: Some(1), ..Faults::default() },
        Faults { fail_append_in: Some(2), ..Faults::default() },
        Faults { fail_sync_in: Some(1), ..Faults::default() },
        Faults { fail_sync_in: Some(2), ..Faults::default() },
        Faults { capacity: Some(3), ..Faults::default() },
        Faults { capacity: Some(20), ..Faults::default() },
    ];
    for fault in faults {
        let disk = FaultyDisk::new(7);
        let quarantine =
            Quarantine::open(Arc::new(disk.clone()), Path::new("/var"), BYTES_MAX).expect("opened");
        disk.set_faults(fault.clone());
        quarantine.put("conflict", "note", &[b"bytes"]).expect_err("the disk fails");
        assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new(), "{fault:?}");
        assert_eq!(quarantine.totals(), (0, 0), "{fault:?}");

        disk.set_faults(Faults::default());
        quarantine.put("conflict", "note", &[b"bytes"]).expect("the disk is well again");
        assert_eq!(quarantine.totals(), (1, 5), "{fault:?}");
    }
}

#[test]
fn a_full_quarantine_takes_nothing_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Quarantine::open(Arc::new(RealDisk), dir.path(), 10).expect("opened");
    let path = open().put("conflict", "", &[b"12345", b"678"]).expect("stored");
    for quarantine in [open(), open()] {
        let error = quarantine.put("conflict", "", &[b"9ab"]).expect_err("11 bytes are more than 10");
        assert!(error.to_string().contains("node.quarantine_max"), "{error}");
        assert_eq!(quarantine.totals(), (1, 8));
    }
    open().put("conflict", "", &[b"9a"]).expect("10 bytes are not");
    std::fs::remove_file(path).expect("removed");
    open().put("conflict", "", &[b"12345678"]).expect("there is room again after the next start");
}

#[test]
fn a_name_whose_json_was_left_behind_is_not_used_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Quarantine::open(Arc::new(RealDisk), dir.path(), BYTES_MAX).expect("opened");
    // within a few hundred goes at once many share a millisecond, and each start counts from 1
    for _ in 0..300 {
        let path = open().put("conflict", "", &[b"x"]).expect("the name of a removed file is passed over");
        std::fs::remove_file(path).expect("removed");
    }
    let left = std::fs::read_dir(dir.path().join("quarantine")).expect("listed").count();
    assert_eq!(left, 300, "one .json for each, and nothing else");
}

#[test]
fn what_is_no_file_there_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("quarantine/odd.bin")).expect("a folder in the way");
    std::os::unix::fs::symlink("/nowhere", dir.path().join("quarantine/gone.bin")).expect("a link");
    let quarantine = Quarantine::open(Arc::new(RealDisk), dir.path(), BYTES_MAX).expect("opened");
    quarantine.put("conflict", "", &[b"x"]).expect("stored");
}
