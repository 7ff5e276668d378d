//! Fuzz target for what a log may find in its folder after the years. CONTRIBUTING.md says how to run it for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

use logferry_durable::faulty::FaultyDisk;
use logferry_durable::{Disk, Log, Recovered};
use logferry_trial::spoiled;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SMOKE_RUNS: usize = 10_000;
const SNAPSHOT: &[u8] = b"all that was before";

fn dir() -> &'static Path {
    Path::new("/state")
}

fn open(disk: &FaultyDisk) -> (Log, Recovered) {
    Log::open(Arc::new(disk.clone()), dir(), "log").expect("a log opens over any bytes")
}

fn record(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) * 17]
}

/// Names and bytes of the files of a log that holds a snapshot and some records.
fn good_files() -> Vec<(PathBuf, Vec<u8>)> {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = open(&disk);
    log.append(b"to be replaced by the snapshot");
    log.commit().unwrap();
    log.snapshot(SNAPSHOT).unwrap();
    for number in 1..20 {
        log.append(&record(number));
        log.commit().unwrap();
    }
    disk.files().into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}

fn put(disk: &FaultyDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path).unwrap();
    file.append(&[bytes]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir()).unwrap();
}

#[test]
fn fuzz_log_files() {
    let trial = logferry_trial::trial!();
    let good = good_files();
    assert!(!good.is_empty());
    let input = bolero::generator::produce::<(u8, Vec<(u16, u8)>, u16)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(which, changes, cut)| {
        trial.fuzz_case();
        let disk = FaultyDisk::new(2);
        let which = usize::from(*which) % good.len();
        for (number, (path, bytes)) in good.iter().enumerate() {
            match number == which {
                true => put(&disk, path, &spoiled(bytes, changes, *cut)),
                false => put(&disk, path, bytes),
            }
        }
        let (mut log, recovered) = open(&disk);
        check(&recovered);
        log.append(b"new");
        log.snapshot(b"what the owner knows now").expect("a log over any bytes takes a snapshot");
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.snapshot.as_deref(), Some(&b"what the owner knows now"[..]));
        assert!(!recovered.report.is_suspect(), "{:?}", recovered.report);
    });
}

/// What comes back was put in, in its order; nothing in the middle goes missing unsaid.
fn check(recovered: &Recovered) {
    let known = |bytes: &[u8]| bytes == b"to be replaced by the snapshot" || bytes == record(bytes[0]);
    assert!(recovered.records.iter().all(|bytes| known(bytes)), "a record came back changed");
    if let Some(snapshot) = &recovered.snapshot {
        assert_eq!(snapshot, SNAPSHOT);
    }
    let numbers: Vec<u8> = recovered.records.iter().map(|bytes| bytes[0]).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let whole = (1..).zip(&numbers).all(|(expected, number)| expected == *number);
    assert!(whole && recovered.snapshot.is_some() || recovered.report.is_suspect(), "{:?}", recovered.report);
}
