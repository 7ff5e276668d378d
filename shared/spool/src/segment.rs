//! One segment file as the spool knows it.

use crate::format::{DamagedRange, Found, RECORD_HEAD_BYTES};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

/// A segment: figures always, the index of its records only while it is replayed.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Length of the file that is kept, in bytes.
    pub(crate) bytes: u64,
    /// Good records in it.
    pub(crate) records: u64,
    /// Sequence of its first record, and behind its last.
    pub(crate) sequences: std::ops::Range<u64>,
    /// Acknowledged sequences; all of them once their number reaches `records`.
    pub(crate) acked: HashSet<u64>,
    /// Records that are not read yet, while this segment is replayed.
    pub(crate) unread: Option<VecDeque<Found>>,
}

impl Segment {
    pub(crate) fn is_done(&self) -> bool {
        self.acked.len() as u64 >= self.records
    }
}

/// Path of a segment file.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.seg"))
}

/// Number of a segment file; `None` for foreign names.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Bytes of a record in the file.
pub(crate) fn record_bytes(length: u32) -> u64 {
    RECORD_HEAD_BYTES as u64 + u64::from(length)
}

/// Adds up records by key.
pub(crate) fn count_keys(records: &[Found], pending: &mut HashMap<u128, u64>) {
    records.iter().for_each(|record| *pending.entry(record.key).or_default() += 1);
}

/// Sum of the lengths of ranges, in bytes.
pub(crate) fn damaged_bytes(ranges: &[DamagedRange]) -> u64 {
    ranges.iter().map(|range| range.bytes).sum()
}
