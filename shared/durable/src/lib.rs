//! What everything durable is made of: a small [`Disk`] trait (real and faulty), a checksummed append [`Log`]
//! with snapshots, and atomic file replacement. Knows nothing of packs or of any other crate of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file opened for appending and reading.
pub trait DiskFile: Send + Sync {
    /// Writes all of `parts` at the end. On an error nothing is known of what was written: see [`DiskFile::set_len`].
    fn append(&self, parts: &[&[u8]]) -> io::Result<()>;
    /// Reads exactly `buf.len()` bytes at `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts back (or grows with zeros) to `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// fdatasync: bytes and length are on the disk when it returns `Ok`. After an error the descriptor is not to
    /// be trusted again.
    fn sync(&self) -> io::Result<()>;
}

/// What the durable parts ask of a file system. Two implementations: [`RealDisk`] and `FaultyDisk`.
pub trait Disk: Send + Sync {
    /// Creates a new file; fails when it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Whole file, or `NotFound`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames within one file system, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and its parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// fsync of a folder: its names are on the disk when it returns `Ok`.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in a folder, sorted; empty when there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// Replaces `path` by `bytes`: temporary file in the same folder, fsync, rename, fsync of the folder.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    todo!("{}{path:?}{bytes:?}", disk.list(path).is_ok())
}

/// What [`Log::open`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Payload of the newest good snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Payloads of the records after it, in order.
    pub records: Vec<Vec<u8>>,
    /// What was wrong and what became of it.
    pub report: RecoveryReport,
}

/// Damage found when a log was opened. All zero and empty after a clean stop or a plain crash without a torn tail.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of an unfinished last record that were cut.
    pub torn_bytes: u64,
    /// Records in the middle that did not check out and were passed over.
    pub damaged_records: u64,
    /// The newest slot could not be used, an older generation was.
    pub from_older_slot: bool,
    /// There were files, but nothing usable in them.
    pub unreadable: bool,
    /// Copies of damaged files that were set aside.
    pub set_aside: Vec<PathBuf>,
}
impl RecoveryReport {
    /// Whether state may be missing: the owner must rebuild or cross-check.
    pub fn is_suspect(&self) -> bool {
        self.damaged_records > 0 || self.from_older_slot || self.unreadable
    }
}

/// A checksummed append log with snapshots, in two slots `NAME.0` and `NAME.1`.
///
/// `append` only buffers. `commit` writes and fsyncs; after an error the log is poisoned and every further commit
/// fails until `snapshot` has moved it to a fresh file in the other slot.
pub struct Log {
    _disk: Arc<dyn Disk>,
}

impl Log {
    /// Opens or creates the log `name` in `dir`. Never refuses because of damage: that is set aside and reported.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> io::Result<(Log, Recovered)> {
        todo!("{dir:?}{name}{}", Arc::strong_count(&disk))
    }
    /// Buffers one record.
    pub fn append(&mut self, payload: &[u8]) {
        todo!("{payload:?}")
    }
    /// Writes what is buffered, without fsync.
    pub fn write(&mut self) -> io::Result<()> {
        todo!()
    }
    /// Writes what is buffered and fsyncs everything written so far.
    pub fn commit(&mut self) -> io::Result<()> {
        todo!()
    }
    /// Replaces the log's content by a snapshot (which must include all that was appended, buffered records too),
    /// in the other slot; durable when it returns. Heals a poisoned log.
    pub fn snapshot(&mut self, payload: &[u8]) -> io::Result<()> {
        todo!("{payload:?}")
    }
    /// Whether the log has grown enough that a snapshot is worth it.
    pub fn wants_snapshot(&self) -> bool {
        todo!()
    }
    /// A commit or write failed since the last snapshot.
    pub fn is_poisoned(&self) -> bool {
        todo!()
    }
}
