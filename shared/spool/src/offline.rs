//! For the operator: looking into a spool without changing it.

use crate::format::{self, DamagedRange};
use crate::segment;
use crate::{Record, RecordId};
use bytes::Bytes;
use logferry_durable::{Disk, RealDisk};
use std::io;
use std::path::{Path, PathBuf};

/// What a segment file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether its head is good.
    pub head_good: bool,
    /// Good records. Which of them have arrived already is known only to the running collector.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Ranges in which nothing could be read; a torn end is among them.
    pub damaged: Vec<DamagedRange>,
}

/// What a spool folder holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Files that are none of the spool's.
    pub foreign_files: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is damaged. (A number that is missing is no damage: a segment goes when all of it has arrived.)
    pub fn is_good(&self) -> bool {
        self.segments.iter().all(|segment| segment.head_good && segment.damaged.is_empty())
    }
}

fn numbers(dir: &Path) -> io::Result<(Vec<u64>, Vec<String>)> {
    if !dir.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: no such folder", dir.display())));
    }
    let (mut numbers, mut foreign) = (Vec::new(), Vec::new());
    for name in RealDisk.list(dir)? {
        match segment::number(&name) {
            Some(number) => numbers.push(number),
            None if name == "lock" => {}
            None => foreign.push(name),
        }
    }
    numbers.sort_unstable();
    Ok((numbers, foreign))
}

/// Checks every record of the spool in `dir`. Reads only; works beside a running collector, whose newest records may then look torn.
pub fn check(dir: &Path) -> io::Result<CheckReport> {
    let (numbers, foreign_files) = numbers(dir)?;
    let mut report = CheckReport { foreign_files, ..CheckReport::default() };
    for number in numbers {
        let path = segment::path(dir, number);
        let bytes = RealDisk.read(&path)?;
        let scan = format::scan(&bytes, number, false);
        report.segments.push(SegmentReport {
            path,
            bytes: bytes.len() as u64,
            head_good: scan.head_first.is_some(),
            records: scan.records.len() as u64,
            payload_bytes: scan.records.iter().map(|record| u64::from(record.length)).sum(),
            damaged: scan.damaged,
        });
    }
    Ok(report)
}

/// Gives every readable record of the spool in `dir` to `take`, in order. Reads only. Returns how many there were.
pub fn export(dir: &Path, mut take: impl FnMut(Record) -> io::Result<()>) -> io::Result<u64> {
    let mut count = 0;
    for number in numbers(dir)?.0 {
        let bytes = Bytes::from(RealDisk.read(&segment::path(dir, number))?);
        for found in format::scan(&bytes, number, false).records {
            let start = usize::try_from(found.at).unwrap_or(usize::MAX) + format::RECORD_HEAD_BYTES;
            let payload = bytes.slice(start..start + found.length as usize);
            take(Record { id: RecordId(found.sequence), key: found.key, payload })?;
            count += 1;
        }
    }
    Ok(count)
}
