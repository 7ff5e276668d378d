//! Fuzz target for what a spool may find in its folder. CONTRIBUTING.md says how to run it for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

use logferry_durable::Disk;
use logferry_durable::faulty::FaultyDisk;
use logferry_spool::{Spool, SpoolOptions, SpoolReport};
use logferry_trial::spoiled;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SMOKE_RUNS: usize = 5_000;
const RECORDS: u8 = 30;
const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 1_000_000, segment_bytes: 1_500 };

fn dir() -> &'static Path {
    Path::new("/spool")
}

fn open(disk: &FaultyDisk) -> (Spool, SpoolReport) {
    Spool::open(Arc::new(disk.clone()), dir(), OPTIONS).expect("a spool opens over any bytes")
}

fn payload(number: u8) -> Vec<u8> {
    vec![number; 20 + usize::from(number) * 7]
}

fn good_files() -> Vec<(PathBuf, Vec<u8>)> {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk);
    for number in 0..RECORDS {
        spool.append(u128::from(number % 3), &[&payload(number)]).unwrap();
        spool.sync().unwrap();
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
fn fuzz_segment_files() {
    let trial = logferry_trial::trial!();
    let good = good_files();
    assert!(good.len() > 2, "several segments");
    let input = bolero::generator::produce::<(u8, Vec<(u16, u8)>, u16)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(which, changes, cut)| {
        trial.fuzz_case();
        let disk = FaultyDisk::new(2);
        let which = usize::from(*which) % good.len();
        let mut harmless = true;
        for (number, (path, bytes)) in good.iter().enumerate() {
            let stored = if number == which { spoiled(bytes, changes, *cut) } else { bytes.clone() };
            harmless &= stored == *bytes;
            put(&disk, path, &stored);
        }
        let (mut spool, report) = open(&disk);
        let mut numbers = Vec::new();
        while let Some(record) = spool.read_next().unwrap() {
            assert_eq!(record.payload, payload(record.payload[0]), "a record came back changed");
            numbers.push(record.payload[0]);
            spool.ack(record.id).unwrap();
        }
        assert!(numbers.is_sorted_by(|one, next| one < next), "out of order or twice: {numbers:?}");
        if harmless {
            assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>());
            assert_eq!((report.damage.is_none(), report.torn_bytes), (true, 0));
        }
        spool.append(7, &[b"new"]).unwrap();
        spool.sync().unwrap();
        drop(spool);
        let (mut spool, _) = open(&disk);
        let mut last = None;
        while let Some(record) = spool.read_next().unwrap() {
            last = Some(record.payload);
        }
        assert_eq!(last.as_deref(), Some(&b"new"[..]));
    });
}
