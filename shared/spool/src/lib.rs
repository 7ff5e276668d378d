//! The spool: append-only segment files of whole packs on disk, replayed in order. Holds opaque records; knows
//! nothing of packs but a 128-bit key (the stream) per record. On `logferry-durable`.

use bytes::Bytes;
use logferry_durable::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Position of a record: ascending in append order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordId(pub u64);

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// Cap for all segment files together, in bytes.
    pub bytes_max: u64,
    /// Size at which a segment is sealed, in bytes.
    pub segment_bytes: u64,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The cap is reached: try again after acks.
    #[error("spool {dir} is full: {used} of {max} bytes")]
    Full {
        /// Folder.
        dir: PathBuf,
        /// Bytes used.
        used: u64,
        /// Cap.
        max: u64,
    },
    /// The disk failed. What was appended since the last successful sync is NOT in the spool (it has been rolled
    /// back; a fresh segment is used from here on).
    #[error("spool {dir}: {source}")]
    Disk {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// What recovery found: everything was opened, damage was set aside.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SpoolReport {
    /// Whole records found and not acknowledged yet.
    pub records: u64,
    /// Bytes cut as a torn tail.
    pub torn_bytes: u64,
    /// Damaged ranges that were copied to the quarantine folder.
    pub damaged_ranges: u64,
    /// Bytes in them.
    pub damaged_bytes: u64,
}

/// A record read back.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Its key.
    pub key: u128,
    /// Its bytes.
    pub payload: Bytes,
}

/// The spool. One owner thread; not `Sync`. The folder is locked with flock while it is open.
pub struct Spool {
    _disk: Arc<dyn Disk>,
}

impl Spool {
    /// Opens or creates the spool in `dir`; damaged ranges are copied to `dir/damaged/`. Never refuses because of damage.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: SpoolOptions) -> io::Result<(Spool, SpoolReport)> {
        todo!("{dir:?}{options:?}{}", Arc::strong_count(&disk))
    }
    /// Appends a record (`parts` are written one after another). Not durable before [`Spool::sync`].
    pub fn append(&mut self, key: u128, parts: &[&[u8]]) -> Result<RecordId, AppendError> {
        todo!("{key}{parts:?}")
    }
    /// Makes all appended records durable: one fsync for the group (and the folder's for a new segment).
    pub fn sync(&mut self) -> Result<(), AppendError> {
        todo!()
    }
    /// Next record in order for replay, durable ones only; `None` when all were read. Damaged records are set aside, counted and
    /// passed over.
    pub fn read_next(&mut self) -> io::Result<Option<Record>> {
        todo!()
    }
    /// Starts replay anew from the oldest record that is not acknowledged.
    pub fn rewind(&mut self) {
        todo!()
    }
    /// The record has arrived: when all records of a segment have, the low mark is persisted and the file unlinked.
    pub fn ack(&mut self, id: RecordId) -> io::Result<()> {
        todo!("{id:?}")
    }
    /// Records of `key` that are not acknowledged.
    pub fn pending(&self, key: u128) -> u64 {
        todo!("{key}")
    }
    /// Records that are not acknowledged, per key that has any.
    pub fn pending_by_key(&self) -> std::collections::HashMap<u128, u64> {
        todo!()
    }
    /// Records that are not acknowledged.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
    /// Damaged ranges seen since the start, at recovery and on reading.
    pub fn damaged(&self) -> (u64, u64) {
        todo!()
    }
}
