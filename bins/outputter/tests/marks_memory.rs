//! What looking for marks takes, measured. The only test of its process, because the measure is the process's.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use logferry_durable::RealDisk;
use logferry_outputter::hours::fact::HourKey;
use logferry_outputter::hours::marks::Marks;
use peak_alloc::PeakAlloc;
use std::fs::File;
use std::sync::Arc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Hours of all hosts of a source, ever.
const MARKS: usize = 20_000;
/// Less than a byte for each of them.
const MEMORY_BYTES_MAX: usize = MARKS / 2 + READ_BYTES;
/// What the system gives of a folder at a time.
const READ_BYTES: usize = 64 << 10;

#[test]
fn marks_are_found_without_memory_for_those_of_other_hours() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("access");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..MARKS {
        File::create(folder.join(format!("web-{number}_2026112013_{}", 7 * number))).unwrap();
    }
    let marks = Marks::new(Arc::new(RealDisk), dir.path().to_owned(), None);
    let hour = 2026112013.try_into().unwrap();
    let key = HourKey { source: "access".into(), host: "web-17".into(), hour };
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let found = marks.look([&key].into_iter()).unwrap();
    let taken = MEMORY.peak_usage() - before;
    assert_eq!((found.names, &found.lines[&key]), (MARKS, &vec![7 * 17]));
    assert!(taken < MEMORY_BYTES_MAX, "{taken} bytes for {MARKS} names");
}
