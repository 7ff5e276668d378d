//! Fuzz target for what a spool may find in its folder. CONTRIBUTING.md says how to run it for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;
use logferry_durable::faulty::FaultyDisk;
use logferry_spool::SpoolOptions;
use logferry_trial::spoiled;
use std::path::PathBuf;
use support::{all_files, open, put};

const SMOKE_RUNS: usize = 5_000;
const RECORDS: u8 = 30;
const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 1_000_000, segment_bytes: 1_500 };

fn payload(number: u8) -> Vec<u8> {
    vec![number; 20 + usize::from(number) * 7]
}

fn good_files() -> Vec<(PathBuf, Vec<u8>)> {
    let disk = FaultyDisk::new(1);
    let (mut spool, _) = open(&disk, OPTIONS);
    for number in 0..RECORDS {
        spool.append(u128::from(number % 3), &[&payload(number)]).unwrap();
        spool.sync().unwrap();
    }
    all_files(&disk)
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
        let (mut spool, report) = open(&disk, OPTIONS);
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
        let (mut spool, _) = open(&disk, OPTIONS);
        let mut last = None;
        while let Some(record) = spool.read_next().unwrap() {
            last = Some(record.payload);
        }
        assert_eq!(last.as_deref(), Some(&b"new"[..]));
    });
}
