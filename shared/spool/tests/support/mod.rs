//! What the tests of the spool share: a folder on the faulty disk, records that can be told from each other, and the segment files.

#![allow(dead_code)] // each test file uses a part of it
#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

use logferry_durable::Disk;
use logferry_durable::faulty::FaultyDisk;
use logferry_spool::{Spool, SpoolOptions, SpoolReport};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of the spool.
pub(crate) fn dir() -> &'static Path {
    Path::new("/spool")
}

/// Opens the spool, which never fails by damage.
pub(crate) fn open(disk: &FaultyDisk, options: SpoolOptions) -> (Spool, SpoolReport) {
    Spool::open(Arc::new(disk.clone()), dir(), options).expect("opens whatever is damaged")
}

/// Key of a record.
pub(crate) fn key(number: u64) -> u128 {
    u128::from(number % 5)
}

/// Payload of a record: its number, and up to 300 bytes more.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number as usize * 31) % 300, number as u8);
    bytes
}

/// Number of a record; panics when its payload is not the one that was written.
pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, payload(number), "a record came back changed");
    number
}

/// Appends records and syncs each.
pub(crate) fn fill(spool: &mut Spool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        spool.append(key(number), &[&payload(number)]).expect("appended");
        spool.sync().expect("synced");
    }
}

/// Numbers of all records that are read from here on, without acknowledging them.
pub(crate) fn read_all(spool: &mut Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(record) = spool.read_next().expect("readable") {
        let number = number_of(&record.payload);
        assert_eq!(record.key, key(number));
        numbers.push(number);
    }
    numbers
}

/// The segment files, oldest first.
pub(crate) fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    disk.files()
        .into_iter()
        .filter(|path| path.parent() == Some(dir()) && path.extension().is_some_and(|end| end == "seg"))
        .collect()
}

/// All files of the spool: names and bytes.
pub(crate) fn all_files(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}

/// Puts a file onto a disk, durably.
pub(crate) fn put(disk: &FaultyDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path).unwrap();
    file.append(&[bytes]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir()).unwrap();
}

/// Removes a file, as somebody does who tidies up.
pub(crate) fn remove(disk: &FaultyDisk, path: &Path) {
    disk.unlink(path).unwrap();
    disk.sync_dir(dir()).unwrap();
}
