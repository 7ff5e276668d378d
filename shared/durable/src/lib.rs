//! What everything durable is made of: a small [`Disk`] trait (the [real one](RealDisk) and a
//! [faulty one](faulty::FaultyDisk) for tests), a checksummed append [`Log`] with snapshots, atomic file [`replace`]ment and
//! the [lock](lock_dir) of a folder.
//!
//! Not in here: anything about packs, spools or programs. It depends on no other crate of ours.
//!
//! ```
//! use logferry_durable::{Log, RealDisk};
//! use std::sync::Arc;
//!
//! # fn main() -> std::io::Result<()> {
//! # let dir = tempfile::tempdir()?;
//! let (mut log, recovered) = Log::open(Arc::new(RealDisk), dir.path(), "books")?;
//! assert!(recovered.records.is_empty() && !recovered.report.is_suspect());
//! log.append(b"one");
//! log.commit()?; // on the disk from here on
//! drop(log);
//! let (_, recovered) = Log::open(Arc::new(RealDisk), dir.path(), "books")?;
//! assert_eq!(recovered.records, [b"one".to_vec()]);
//! # Ok(())
//! # }
//! ```

mod disk;
pub mod faulty;
mod format;
mod lock;
mod log;

pub use disk::{Disk, DiskFile, RealDisk, is_full, replace, replace_by};
pub use format::RECORD_BYTES_MAX;
pub use lock::{DirLock, lock_dir};
pub use log::{Log, Recovered, RecoveryReport};
