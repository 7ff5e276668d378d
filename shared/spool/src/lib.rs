//! The spool: append-only segment files of records on disk, replayed in order, under a cap.
//!
//! Its nouns are [`Spool`], [`Record`], [`RecordId`] and, for the operator, [`check`] and [`export`]. Records are opaque
//! but for a 128-bit key (the stream); a record is promised once [`Spool::sync`] has returned `Ok` after it was appended. Not in here:
//! packs, networks, threads, clocks.
//!
//! ```
//! use logferry_durable::RealDisk;
//! use logferry_spool::{Spool, SpoolOptions};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let options = SpoolOptions { bytes_max: 1 << 30, segment_bytes: 64 << 20 };
//! let (mut spool, _report) = Spool::open(Arc::new(RealDisk), dir.path(), options)?;
//! spool.append(7, &[b"header", b"body"])?;
//! spool.sync()?; // promised from here on
//! let record = spool.read_next()?.expect("a record");
//! assert_eq!(&record.payload[..], b"headerbody");
//! spool.ack(record.id)?;
//! assert!(spool.is_empty());
//! # Ok(())
//! # }
//! ```

mod books;
mod damage;
mod error;
mod footer;
mod format;
mod offline;
mod recover;
mod replay;
mod report;
mod scan;
mod segment;
mod spool;
mod window;
mod write;

pub use error::{AppendError, SpoolError};
pub use format::{DamagedRange, PAYLOAD_BYTES_MAX};
pub use offline::{CheckReport, ExportReport, SegmentReport, check, export};
pub use report::{Damage, LostSegment, SpoolReport};
pub use spool::{Record, RecordId, Spool, SpoolOptions};
