//! Fuzz targets for stored footprints. CONTRIBUTING.md says how to run them for as long as wished.
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

use logferry_footprint::{Footprint, PackSeen};
use logferry_pack::{PackIdentity, StreamId};
use logferry_trial::spoiled;

const SMOKE_RUNS: usize = 20_000;

fn identity(stream: u128, offset: u64, span: u64) -> PackIdentity {
    PackIdentity { stream: StreamId(stream), offset, span, sum: span as u32 }
}

fn good_footprint() -> Footprint {
    let mut footprint = Footprint::default();
    for stream in 0..3 {
        for number in 0..20 {
            footprint.insert(&identity(stream, number * 300, 200 + number % 3 * 50), 0, 1_000);
        }
    }
    footprint
}

#[test]
fn fuzz_footprint_bytes() {
    let trial = logferry_trial::trial!();
    let good = good_footprint().to_bytes();
    let input = bolero::generator::produce::<(Vec<(u16, u8)>, u16)>();
    bolero::check!().with_iterations(SMOKE_RUNS).with_generator(input).for_each(|(changes, cut)| {
        trial.fuzz_case();
        let Some(mut footprint) = Footprint::from_bytes(&spoiled(&good, changes, *cut)) else { return };
        let bytes = footprint.to_bytes();
        assert_eq!(Footprint::from_bytes(&bytes).expect("reads what it wrote").to_bytes(), bytes);
        // Whatever numbers were in it, it judges and learns.
        for offset in [0, 100, 6_000, u64::MAX - 10] {
            footprint.judge(&identity(1, offset, 10), 0);
            footprint.insert(&identity(1, offset, 10), 0, 2_000);
            assert!(footprint.has_seen(StreamId(1), offset, 10));
        }
    });
}

#[test]
fn fuzz_seen_records() {
    let trial = logferry_trial::trial!();
    bolero::check!().with_iterations(SMOKE_RUNS).for_each(|bytes: &[u8]| {
        trial.fuzz_case();
        let Some(seen) = PackSeen::from_bytes(bytes) else { return };
        assert_eq!(PackSeen::from_bytes(&seen.to_bytes()), Some(seen));
        let mut footprint = good_footprint();
        footprint.apply(&seen);
        Footprint::from_bytes(&footprint.to_bytes()).expect("reads what it wrote");
    });
}
