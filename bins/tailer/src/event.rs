//! What the threads of the tailer tell each other. Two threads decide: the follower owns files and ledger, the
//! shipper owns the state log and the sender. Everything else carries bytes between them.

use crate::body::Lead;
use crate::input::shelf::Shelf;
use crate::ledger::Verdict;
use crate::ledger::record::Cut;
use crate::repull::known::Question;
use crate::unpack::{UnpackJob, Unpacked};
use bytes::Bytes;
use logferry_link::{Outgoing, Settled};
use logferry_pack::{HourRange, Name, StreamId};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// What wakes the follower.
#[derive(Debug)]
pub enum Event {
    /// Files changed.
    Changes(Changes),
    /// An input brought bytes of this file to the disk, or sealed it.
    Written(PathBuf),
    /// A pack was settled. `pack` comes with a conflict, in case nothing but these bytes is left.
    Settled {
        /// Ticket.
        ticket: u64,
        /// How.
        verdict: Verdict,
        /// The pack.
        pack: Option<Outgoing>,
    },
    /// A compressed file was unpacked, or could not be.
    Unpacked {
        /// What was asked for.
        job: UnpackJob,
        /// What it holds.
        unpacked: std::io::Result<Unpacked>,
    },
    /// inotify stopped working.
    WatchEnded,
    /// Somebody asks what is known of a source.
    Asked(Question),
    /// A read buffer is free again.
    Buffer(Vec<u8>),
    /// The shipper asks for a snapshot of the ledger.
    SnapshotWanted,
    /// The state log takes records again, or the spool packs.
    Resume,
    /// Stop reading, wait so long for answers, and end.
    Stop(Duration),
}

/// What inotify told, each thing once.
#[derive(Default, Debug)]
pub struct Changes {
    /// Files that were written to: watch descriptor of the folder, name.
    pub written: BTreeSet<(i32, OsString)>,
    /// Folders in which names appeared or went away.
    pub listings: BTreeSet<i32>,
    /// These names: watch descriptor of the folder, name.
    pub names: BTreeSet<(i32, OsString)>,
    /// Folders that are watched no more.
    pub unwatched: BTreeSet<i32>,
    /// Events were lost: anything may have changed.
    pub overflow: bool,
}

impl Changes {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.listings.is_empty() && !self.overflow
    }
}

/// What wakes the shipper.
#[derive(Debug)]
pub enum ToShipper {
    /// A record for the state log.
    Record(Vec<u8>),
    /// The pack with this ticket is next in order; its record came before.
    Expect(u64),
    /// A pack is compressed.
    Packed(Outgoing),
    /// The next tier answered.
    Settled(Settled),
    /// Put a pack whose answer was a conflict into quarantine, then settle it as such.
    Quarantine {
        /// The pack.
        pack: Outgoing,
        /// Label.
        reason: String,
    },
    /// A file of an input was wholly acknowledged: it may go when the records so far are on the disk.
    Release(Arc<Shelf>, u64),
    /// A snapshot that includes all records so far.
    Snapshot(Vec<u8>),
    /// The last snapshot: write it and end.
    Finish(Vec<u8>),
}

/// What a pack carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Lines.
    Lines,
    /// Nothing; `done` closes the hour.
    Mark {
        /// It closes the hour.
        done: bool,
    },
}

/// Bytes to compress.
#[derive(Debug)]
pub struct Job {
    /// Ticket of the pack.
    pub ticket: u64,
    /// What it carries.
    pub load: Load,
    /// Buffer of the pool; empty for a mark.
    pub buffer: Vec<u8>,
    /// Boundaries; the first `span` bytes of the buffer are the pack.
    pub cut: Cut,
    /// What the file says of it beside its bytes.
    pub lead: Lead,
    /// Stream.
    pub stream: StreamId,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Source.
    pub source: Name,
    /// Of a done pack: all bytes of its hour, if they are known.
    pub hour_ranges: Vec<HourRange>,
}

/// Counters that all threads see.
#[derive(Default, Debug)]
pub struct Shared {
    /// Bytes of packs that are compressed and not settled.
    pub held_bytes: AtomicU64,
    /// The state log cannot be written: nothing may be cut.
    pub journal_down: AtomicBool,
    /// Packs in the spool.
    pub spool_packs: AtomicU64,
    /// The spool does not take what it should: its sources are not read.
    pub spool_full: AtomicBool,
    /// Bytes of the spool's files.
    pub spool_bytes: AtomicU64,
}

/// Length of a pack in bytes.
pub fn pack_bytes(header: &Bytes, body: &Bytes) -> u64 {
    (header.len() + body.len()) as u64
}
