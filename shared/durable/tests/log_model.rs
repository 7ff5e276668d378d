//! The log against a model, over the faulty disk: what was committed is there after any crash, in order; what was
//! not may be there, but only as a prefix.

#![allow(clippy::unwrap_used)] // a test may panic

use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_durable::{Disk, Log, RECORD_BYTES_MAX, Recovered};
use std::path::Path;
use std::sync::Arc;

const CASES: u64 = 3_000;

fn dir() -> &'static Path {
    Path::new("/state")
}

/// Appended numbers; `committed` of them are promised.
#[derive(Default)]
struct Model {
    appended: Vec<u64>,
    committed: usize,
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number as usize * 37) % 1_500, number as u8);
    bytes
}

fn snapshot(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// All numbers that came back, snapshot first.
fn numbers(recovered: &Recovered) -> Vec<u64> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let mut all: Vec<u64> = recovered.snapshot.iter().flat_map(|bytes| bytes.chunks(8)).map(number).collect();
    for record in &recovered.records {
        assert_eq!(record, &payload(number(record)), "a record came back changed");
        all.push(number(record));
    }
    all
}

fn reopen(disk: &FaultyDisk, model: &mut Model, seed: u64) -> Log {
    let opened = Log::open(Arc::new(disk.clone()), dir(), "log").expect("open never fails by damage");
    check(opened, model, seed)
}

/// What came back must hold all that was promised; it is promised itself, unless the log says that the disk did not take it.
fn check((log, recovered): (Log, Recovered), model: &mut Model, seed: u64) -> Log {
    assert!(!recovered.report.is_suspect(), "seed {seed}: {:?}", recovered.report);
    let found = numbers(&recovered);
    assert!(found.len() >= model.committed, "seed {seed}: {} of {} committed", found.len(), model.committed);
    assert_eq!(found, model.appended[..found.len()], "seed {seed}: not a prefix");
    model.appended.truncate(found.len());
    if !log.is_poisoned() {
        model.committed = found.len();
    }
    log
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let disk = FaultyDisk::new(seed);
    let mut model = Model::default();
    let mut log = reopen(&disk, &mut model, seed);
    for number in 0..60 {
        match random.below(13) {
            0..5 => {
                log.append(&payload(number));
                model.appended.push(number);
            }
            5 => drop(log.write()),
            6..9 => {
                if log.commit().is_ok() {
                    model.committed = model.appended.len();
                }
            }
            9 => {
                if log.snapshot(&snapshot(&model.appended)).is_ok() {
                    model.committed = model.appended.len();
                }
            }
            10 => {
                if random.one_in(4) {
                    disk.fail_dir_sync_in(random.below(3) + 1);
                }
                let capacity = random.one_in(4).then(|| random.below(20_000));
                disk.set_faults(Faults {
                    fail_sync_in: random.one_in(3).then(|| random.below(4) + 1),
                    fail_append_in: random.one_in(3).then(|| random.below(4) + 1),
                    capacity,
                    is_quota: false,
                    die_after: None,
                });
            }
            11 => {
                disk.crash();
                log = reopen(&disk, &mut model, seed);
            }
            // A kill: what was written stays readable, on the disk or not. The next start may meet the faults too.
            _ => {
                if random.one_in(2) {
                    disk.set_faults(Faults::default());
                }
                let open = || Log::open(Arc::new(disk.clone()), dir(), "log");
                let opened = open().or_else(|_| {
                    disk.set_faults(Faults::default());
                    open()
                });
                log = check(opened.expect("opens on a sound disk"), &mut model, seed);
            }
        }
    }
    disk.crash();
    reopen(&disk, &mut model, seed);
}

#[test]
fn what_was_committed_survives_crashes_failed_syncs_and_full_disks() {
    let trial = logferry_trial::trial!();
    trial.seeds("cases of the log model", 0..CASES).for_each(run);
}

/// Lives until the disk refuses: twelve records, each committed, every fourth time by a snapshot.
fn live(disk: &FaultyDisk, model: &mut Model) {
    let Ok((mut log, _)) = Log::open(Arc::new(disk.clone()), dir(), "log") else { return };
    for number in 0..12 {
        log.append(&payload(number));
        model.appended.push(number);
        let snapshot_now = number % 4 == 3;
        let done = if snapshot_now { log.snapshot(&snapshot(&model.appended)) } else { log.commit() };
        if done.is_ok() {
            model.committed = model.appended.len();
        }
    }
}

#[test]
fn a_crash_at_each_operation_of_a_run_loses_nothing_that_was_committed() {
    for at in 1..60 {
        for seed in 0..40 {
            let disk = FaultyDisk::new(seed);
            disk.set_faults(Faults { die_after: Some(at), ..Faults::default() });
            let mut model = Model::default();
            live(&disk, &mut model);
            disk.crash();
            reopen(&disk, &mut model, seed);
        }
    }
}

/// The second life finds in the page cache what the first left there, and must not build on it before it is on the disk.
#[test]
fn a_power_loss_after_a_kill_at_each_operation_loses_nothing_that_was_committed() {
    for at in 1..60 {
        for seed in 0..40 {
            let disk = FaultyDisk::new(seed);
            disk.set_faults(Faults { die_after: Some(at), ..Faults::default() });
            let mut model = Model::default();
            live(&disk, &mut model);
            disk.set_faults(Faults::default());
            let mut log = reopen(&disk, &mut model, seed);
            log.append(&payload(100));
            model.appended.push(100);
            log.commit().unwrap();
            model.committed = model.appended.len();
            disk.crash();
            reopen(&disk, &mut model, seed);
        }
    }
}

/// Linux marks the pages of a failed fsync clean: the next process reads them, and its own fsync does not write them.
#[test]
fn a_commit_after_a_failed_sync_and_a_kill_promises_what_was_read_back() {
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let mut model = Model::default();
        let mut log = reopen(&disk, &mut model, seed);
        log.append(&payload(0));
        log.commit().unwrap();
        log.append(&payload(1));
        disk.set_faults(Faults { fail_sync_in: Some(1), ..Faults::default() });
        assert!(log.commit().is_err());
        model.appended = vec![0, 1];
        model.committed = 1;
        let mut log = reopen(&disk, &mut model, seed);
        log.append(&payload(2));
        model.appended.push(2);
        log.commit().unwrap();
        model.committed = model.appended.len();
        disk.crash();
        reopen(&disk, &mut model, seed);
    }
}

#[test]
fn any_flipped_byte_is_reported_and_costs_only_what_it_hit() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    for number in 0..3 {
        log.append(&number_bytes(number));
    }
    log.commit().unwrap();
    let path = dir().join("log.1");
    let mut length = 0;
    disk.damage(&path, |bytes| length = bytes.len());
    for byte in 0..length {
        for bit in 0..8 {
            disk.damage(&path, |bytes| bytes[byte] ^= 1 << bit);
            let copy = disk.clone();
            let (_, recovered) = Log::open(Arc::new(copy), dir(), "log").expect("opens");
            let whole = recovered.records.len() == 3;
            let told = recovered.report.is_suspect() || recovered.report.torn_bytes > 0;
            assert!(whole || told, "byte {byte} bit {bit}: {recovered:?}");
            for record in &recovered.records {
                assert!((0..3).any(|number| *record == number_bytes(number)));
            }
            rewrite(&disk, &path);
        }
    }
}

fn number_bytes(number: u64) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

/// Puts the undamaged file back.
fn rewrite(disk: &FaultyDisk, path: &Path) {
    let fresh = FaultyDisk::new(1);
    let (mut log, _) = Log::open(Arc::new(fresh.clone()), dir(), "log").unwrap();
    for number in 0..3 {
        log.append(&number_bytes(number));
    }
    log.commit().unwrap();
    let mut good = Vec::new();
    fresh.damage(path, |bytes| good = bytes.clone());
    disk.damage(path, |bytes| *bytes = good);
}

/// What chance may make of a slot: garbage, zeros, or a slot cut, mixed up, or with bytes changed.
fn mangle(random: &mut Random, bytes: &mut Vec<u8>) {
    let length = bytes.len() as u64;
    match random.below(5) {
        0 => {
            bytes.resize(random.below(400) as usize, 0);
            bytes.iter_mut().for_each(|byte| *byte = random.next_u64() as u8);
        }
        1 => bytes.fill(0),
        2 => bytes.truncate(random.below(length + 1) as usize),
        3 => {
            let (from, to) = (random.below(length), random.below(length));
            let moved = bytes[from.min(to) as usize..from.max(to) as usize].to_vec();
            let at = random.below(length) as usize;
            bytes.splice(at..at, moved);
        }
        _ => {
            for _ in 0..random.below(9) {
                let at = random.below(length) as usize;
                bytes[at] = random.next_u64() as u8;
            }
        }
    }
}

#[test]
fn whatever_became_of_the_slots_a_log_opens_and_goes_on() {
    for case in 0..2_000 {
        let mut random = Random::new(case);
        let disk = FaultyDisk::new(case);
        let mut model = Model::default();
        live(&disk, &mut model);
        let mut log = reopen(&disk, &mut model, case);
        for number in [12, 13] {
            log.append(&payload(number));
            log.commit().unwrap();
            model.appended.push(number);
        }
        for slot in ["log.0", "log.1"] {
            if random.one_in(2) {
                disk.damage(&dir().join(slot), |bytes| mangle(&mut random, bytes));
            }
        }
        let (mut log, recovered) = Log::open(Arc::new(disk.clone()), dir(), "log").expect("opens");
        let mut found = numbers(&recovered);
        assert!(found.iter().all(|number| model.appended.contains(number)), "case {case}: {found:?}");
        let told = recovered.report.is_suspect() || recovered.report.torn_bytes > 0;
        // A file that was cut between two records looks like one that never held more.
        assert!(told || model.appended.starts_with(&found), "case {case}: {found:?}");
        log.append(&payload(100));
        log.commit().unwrap();
        found.push(100);
        drop(log);
        disk.crash();
        let (_, recovered) = Log::open(Arc::new(disk), dir(), "log").unwrap();
        assert_eq!(numbers(&recovered), found, "case {case}");
    }
}

#[test]
fn the_older_slot_stands_in_for_an_unusable_newer_one() {
    let newest_in_slot_0 = || {
        let disk = FaultyDisk::new(1);
        let (mut log, _) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
        log.append(&payload(0));
        log.commit().unwrap();
        log.snapshot(&snapshot(&[0, 1])).unwrap();
        disk
    };
    let open = |disk: &FaultyDisk| Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    let newest = dir().join("log.0");

    let disk = newest_in_slot_0();
    assert_eq!(open(&disk).1, Recovered { snapshot: Some(snapshot(&[0, 1])), ..Recovered::default() });

    disk.damage(&newest, |bytes| bytes[30] ^= 1);
    let (mut log, recovered) = open(&disk);
    assert_eq!(numbers(&recovered), [0]);
    assert!(recovered.report.from_older_slot && recovered.report.set_aside.len() == 1);
    log.snapshot(&snapshot(&[0])).unwrap();
    assert!(!open(&disk).1.report.is_suspect(), "the snapshot took the place of the damaged slot");

    // Not told of the first snapshot's slot: without it the log looks like one that had none yet.
    let disk = FaultyDisk::new(1);
    live(&disk, &mut Model::default());
    disk.unlink(&newest).unwrap();
    assert!(open(&disk).1.report.from_older_slot, "a slot that vanished is no fresh start");
}

/// The rename may have come through: then the newer slot wins at the next start, whatever is written to the older one.
#[test]
fn after_a_snapshot_whose_folder_was_not_synced_nothing_is_promised_until_the_next() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    disk.fail_dir_sync_in(1);
    log.snapshot(&snapshot(&[0])).unwrap_err();
    log.append(&payload(1));
    assert!(log.commit().is_err() && log.wants_snapshot());
    log.snapshot(&snapshot(&[0, 1])).unwrap();
    log.append(&payload(2));
    log.commit().unwrap();
    disk.crash();
    let (_, recovered) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    assert_eq!(numbers(&recovered), [0, 1, 2]);
}

/// As when somebody restores one file under the name of the other.
#[test]
fn a_slot_under_the_name_of_the_other_is_damage_and_no_reason_not_to_start() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    log.snapshot(&snapshot(&[0])).unwrap();
    let newest = disk.read(&dir().join("log.0")).unwrap();
    disk.damage(&dir().join("log.1"), |bytes| *bytes = newest);
    disk.unlink(&dir().join("log.0")).unwrap();
    let (mut log, recovered) = Log::open(Arc::new(disk.clone()), dir(), "log").expect("opens");
    assert!(recovered.report.is_suspect() && recovered.report.set_aside.len() == 1, "{:?}", recovered.report);
    log.append(&payload(1));
    log.commit().unwrap();
}

#[test]
fn looking_into_a_log_gives_what_opening_it_would_and_changes_nothing() {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    log.snapshot(&snapshot(&[0])).unwrap();
    log.append(&payload(1));
    log.commit().unwrap();
    disk.damage(&dir().join("log.0"), |bytes| bytes.extend([7; 30]));
    let changes = disk.counts().changes;
    let looked = Log::look(&disk, dir(), "log").unwrap();
    assert_eq!((disk.counts().changes, looked.report.torn_bytes), (changes, 30));
    assert_eq!(looked, Log::open(Arc::new(disk.clone()), dir(), "log").unwrap().1);
    assert_eq!(Log::look(&disk, dir(), "none").unwrap(), Recovered::default());
}

/// A bad sector may be read tomorrow; a log begun anew in its place would end that.
#[test]
fn a_slot_that_cannot_be_read_now_is_not_taken_for_a_missing_one() {
    let disk = FaultyDisk::new(1);
    let mut model = Model::default();
    live(&disk, &mut model);
    let files = disk.files();
    disk.make_unreadable(&dir().join("log.0"));
    assert!(Log::open(Arc::new(disk.clone()), dir(), "log").is_err());
    assert_eq!(disk.files(), files);
    disk.crash();
    reopen(&disk, &mut model, 1);
}

#[test]
fn a_snapshot_that_could_not_be_read_back_is_refused_and_harms_nothing() {
    let disk = FaultyDisk::new(1);
    let mut model = Model::default();
    let mut log = reopen(&disk, &mut model, 1);
    log.append(&payload(0));
    log.commit().unwrap();
    let error = log.snapshot(&vec![0; RECORD_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    log.append(&payload(1));
    log.commit().expect("the log goes on in its slot");
    model = Model { appended: vec![0, 1], committed: 2 };
    disk.crash();
    reopen(&disk, &mut model, 1);
}

#[test]
fn damage_is_told_at_each_start_until_a_snapshot_is_written() {
    let disk = FaultyDisk::new(1);
    let open = || Log::open(Arc::new(disk.clone()), dir(), "log").unwrap();
    let (mut log, _) = open();
    for number in 0..3 {
        log.append(&payload(number));
        log.commit().unwrap();
    }
    assert!(!log.wants_snapshot());
    let middle = 24 + 25 + 25 + payload(0).len() + 30;
    assert!(disk.damage(&dir().join("log.1"), |bytes| bytes[middle] ^= 4));
    let (mut log, recovered) = open();
    assert_eq!(numbers(&recovered), [0, 2]);
    assert_eq!((recovered.report.damaged_records, recovered.report.set_aside.len()), (1, 1));
    assert!(log.wants_snapshot(), "else the next start would tell it again");
    log.snapshot(&snapshot(&[0, 2])).unwrap();
    assert!(!log.wants_snapshot());
    // The damaged slot is the older one now: nothing depends on it.
    assert!(!open().1.report.is_suspect());
}

#[test]
fn a_torn_tail_is_cut_for_good() {
    for seed in 0..50 {
        let disk = FaultyDisk::new(seed);
        let mut model = Model::default();
        live(&disk, &mut model);
        disk.damage(&dir().join("log.0"), |bytes| bytes.extend([7; 700]));
        let open = || Log::open(Arc::new(disk.clone()), dir(), "log").unwrap().1;
        assert_eq!(open().report.torn_bytes, 700);
        disk.crash();
        let recovered = open();
        assert_eq!((numbers(&recovered), recovered.report.torn_bytes), (model.appended, 0), "seed {seed}");
    }
}
