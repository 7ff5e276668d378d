//! The machine's file system behind the `Disk` trait, and what [`replace`] leaves behind when it fails.

#![allow(clippy::unwrap_used)] // a test may panic

use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_durable::{Disk, RealDisk, RecoveryReport, replace};
use std::io::ErrorKind;
use std::path::Path;

#[test]
fn all_parts_are_appended_in_order_however_many_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = RealDisk.create(&path).unwrap();
    // More parts than one writev takes, some of them empty.
    let parts: Vec<Vec<u8>> = (0..3_000u32).map(|number| vec![number as u8; number as usize % 5]).collect();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    file.append(&slices).unwrap();
    file.append(&[]).unwrap();
    file.append(&[b"", b""]).unwrap();
    file.append(&[b"end"]).unwrap();
    let expected = [parts.concat(), b"end".to_vec()].concat();
    assert_eq!(RealDisk.read(&path).unwrap(), expected);
    assert_eq!(file.len().unwrap(), expected.len() as u64);
}

#[test]
fn an_append_after_a_cut_goes_to_the_new_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = RealDisk.create(&path).unwrap();
    file.append(&[b"keep", b"drop"]).unwrap();
    file.set_len(4).unwrap();
    file.append(&[b"!"]).unwrap();
    file.sync().unwrap();
    RealDisk.rewrite(&path, 1, 5).unwrap();
    assert_eq!(RealDisk.read(&path).unwrap(), b"keep!");
}

#[test]
fn errors_of_open_files_name_the_file_and_keep_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = RealDisk.create(&path).unwrap();
    let names_it = |error: &std::io::Error| error.to_string().contains(path.to_str().unwrap());
    let error = file.read_exact_at(&mut [0; 4], 0).unwrap_err();
    assert!(error.kind() == ErrorKind::UnexpectedEof && names_it(&error), "{error}");
    let error = RealDisk.rewrite(&path, 0, 1).unwrap_err();
    assert!(error.kind() == ErrorKind::UnexpectedEof && names_it(&error), "{error}");
    assert!(names_it(&file.set_len(u64::MAX).unwrap_err()));
    let error = RealDisk.create(&path).err().unwrap();
    assert!(error.kind() == ErrorKind::AlreadyExists && names_it(&error), "{error}");
}

#[test]
fn a_full_disk_is_named_with_the_file_that_met_it() {
    // /dev/full takes no byte.
    let file = RealDisk.open(Path::new("/dev/full")).unwrap();
    let error = file.append(&[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("/dev/full"), "{error}");
}

#[test]
fn replace_puts_a_stale_temporary_file_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(dir.path().join("state.tmp"), "of an earlier crash").unwrap();
    replace(&RealDisk, &path, b"one").unwrap();
    replace(&RealDisk, &path, b"two").unwrap();
    assert_eq!(RealDisk.read(&path).unwrap(), b"two");
    assert_eq!(RealDisk.list(dir.path()).unwrap(), ["state"]);
}

#[test]
fn a_replacement_that_fails_keeps_the_old_file_and_frees_its_room() {
    let path = Path::new("/state/file");
    let faults = [
        Faults { capacity: Some(10), ..Faults::default() },
        Faults { fail_append_in: Some(1), ..Faults::default() },
        Faults { fail_sync_in: Some(1), ..Faults::default() },
    ];
    for fault in faults {
        let disk = FaultyDisk::new(1);
        replace(&disk, path, b"old").unwrap();
        disk.set_faults(fault);
        assert!(replace(&disk, path, b"longer than there is room for").is_err());
        assert_eq!(disk.read(path).unwrap(), b"old");
        assert_eq!(disk.files(), [path.to_owned()], "what is left of it would keep a full disk full");
    }
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_after_a_crash_at_any_operation() {
    let path = Path::new("/state/file");
    let (old, new) = (vec![1; 3_000], vec![2; 5_000]);
    for at in 1..8 {
        for seed in 0..100 {
            let disk = FaultyDisk::new(seed);
            replace(&disk, path, &old).unwrap();
            disk.set_faults(Faults { die_after: Some(at), ..Faults::default() });
            let done = replace(&disk, path, &new).is_ok();
            disk.crash();
            let found = disk.read(path).unwrap();
            assert!(found == new || !done && found == old, "operation {at}, seed {seed}");
        }
    }
}

/// Device and process files know no fsync and say so: an `Ok` here would mean that the kernel was not asked.
#[test]
fn syncs_ask_the_kernel_and_pass_its_answer_on() {
    let device = Path::new("/dev/null");
    assert!(RealDisk.open(device).unwrap().sync().is_err());
    assert!(RealDisk.rewrite(device, 0, 0).is_err());
    assert!(RealDisk.sync_dir(Path::new("/proc/self")).is_err());
}

/// The kernel syncs a file that was opened for reading, and refuses the write of no bytes that asks whether the file system is alive.
#[test]
fn a_sync_is_believed_only_when_a_write_is_taken_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "bytes").unwrap();
    std::fs::File::open(&path).unwrap().sync_data().unwrap();
    assert!(RealDisk.open_for_reading(&path).unwrap().sync().is_err());
    RealDisk.open(&path).unwrap().sync().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
}

/// A folder whose name is not on the disk takes all that is in it along. Only the system calls show it.
#[test]
fn each_new_folder_is_synced_into_its_parent() {
    const MAKE: &str = "LOGFERRY_TEST_MAKE_FOLDERS";
    if let Some(dir) = std::env::var_os(MAKE) {
        return RealDisk.create_dir_all(Path::new(&dir)).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let run = std::process::Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "each_new_folder_is_synced_into_its_parent"])
        .env(MAKE, dir.path().join("a/b/c"))
        .output();
    match run {
        Err(error) if error.kind() == ErrorKind::NotFound => return println!("SKIPPED: no strace here"),
        run => assert!(run.unwrap().status.success()),
    }
    assert!(dir.path().join("a/b/c").is_dir());
    let trace = std::fs::read_to_string(trace).unwrap();
    for parent in ["", "/a", "/a/b"] {
        let synced = format!("<{}{parent}>)", dir.path().canonicalize().unwrap().display());
        let calls = trace.lines().filter(|line| line.contains(&synced) && line.ends_with("= 0"));
        assert_eq!(calls.count(), 1, "fsyncs of {synced} in:\n{trace}");
    }
}

#[test]
fn what_was_found_damaged_is_told_in_words() {
    let report = RecoveryReport::default();
    assert_eq!(report.to_string(), "nothing is damaged");
    let report = RecoveryReport {
        torn_bytes: 7,
        damaged_records: 1,
        from_older_slot: true,
        unreadable: false,
        set_aside: vec!["/var/journal.0.damaged-1".into()],
    };
    assert_eq!(
        report.to_string(),
        "the newer of its files cannot be used, the older one was; 1 record is damaged; \
         7 bytes of a record that was not written whole were cut; copies of what is damaged: /var/journal.0.damaged-1"
    );
}
