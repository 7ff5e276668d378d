//! What can go wrong, with the file and what to do.

use std::io;
use std::path::PathBuf;

/// Why a record was not taken. Nothing that was appended since the last successful sync is promised.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The cap is reached: try again after acks.
    #[error("the spool {dir} is full: {used} of {max} bytes")]
    Full {
        /// Folder.
        dir: PathBuf,
        /// Bytes used.
        used: u64,
        /// Cap.
        max: u64,
    },
    /// The disk has no room for the record. Nothing was written, and what was appended before still waits for its sync.
    #[error(
        "the disk of the spool {dir} is full: {source}; free room on it, or give the spool a smaller max_bytes"
    )]
    NoRoom {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Larger than a record can be.
    #[error(
        "a record of {bytes} bytes is over the limit of {max} and cannot be spooled: lower the limit of packs"
    )]
    TooLarge {
        /// Length of its payload.
        bytes: usize,
        /// [`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX).
        max: usize,
    },
    /// The disk failed. What was appended since the last successful sync is not in the spool; a fresh segment is used from here on.
    #[error(
        "the spool's segment {path} cannot be written: {source}; a new one is tried, check the disk if this stays"
    )]
    Disk {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Somebody removed the file that was written to. What was appended since the last successful sync is not in the spool.
    #[error(
        "the spool's segment {path} was removed while it was written, with {lost} packs in it: nothing may delete files of a running spool"
    )]
    Vanished {
        /// File.
        path: PathBuf,
        /// Records in it that had been promised and did not arrive.
        lost: u64,
    },
}

/// Why the spool cannot be opened, read or tidied.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be made or listed.
    #[error(
        "the spool's folder {dir} cannot be used: {source}; see that it is a folder this program may write to"
    )]
    Folder {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A segment cannot be read. After a few tries what cannot be read is passed over and counted, and its file kept.
    #[error(
        "the spool's segment {path} cannot be read: {source}; it is tried {tries_left} more times, check the disk"
    )]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
        /// How often it is tried again.
        tries_left: u32,
    },
    /// The books cannot be written: segments whose records have all arrived take room until they can.
    #[error(
        "the books of the spool {dir} cannot be written: {source}; segments that are done stay until they can be, check the disk"
    )]
    Books {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A segment whose records have all arrived cannot be removed. It takes room until it can.
    #[error(
        "the spool's segment {path} is done but cannot be removed: {source}; it takes room until it can be, check the disk"
    )]
    Remove {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}
