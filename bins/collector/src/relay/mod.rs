//! The relay: decides for each pack whether it passes through, waits, or goes to the spool, and when its sender
//! may be told that it is safe.
//!
//! A pure state machine. [`Relay::on`] takes one [`Event`] and the time and gives back [`Action`]s; the shell owns
//! the bytes, the sockets and the disk. Times are [`Mono`]: monotonic, since the start of the process.
//!
//! # Where a pack can be
//!
//! | place | bytes | its sender |
//! |---|---|---|
//! | waiting | in memory | waits |
//! | in flight | in memory, at the sender of the next tier | waits |
//! | in flight with a copy in the spool | in memory and on disk | was told `ok` when the copy was fsynced |
//! | in the spool only | on disk | was told `ok` |
//!
//! # When a pack goes to the spool
//!
//! - No target has been up for `spool_after`: all packs are withdrawn from the sender and spooled.
//! - A target is up but nothing was acknowledged for `spool_after` (a *stall*): the packs in flight are copied to the
//!   spool and stay in flight, because sending them again would only make a slow target slower.
//! - Packs of its stream are in the spool and have not been sent: it waits behind them for `spool_after`, which lets the
//!   stream leave the spool as soon as the backlog is gone, and is then spooled.
//! - It is older than `slow_after`, whatever the reason.
//!
//! A pack that is shipped again goes to no spool: whoever asked for it wants to know what the store says of it. Where the others
//! would be spooled it is answered `busy`, alone of its stream, and comes again.
//!
//! A full window with acks flowing is none of these: packs wait in memory, which is bounded by the memory budget of
//! the receiver, so the peers wait too.
//!
//! # Order
//!
//! Within a stream, packs go to the next tier in the order of their arrival: a pack passes through only when
//! everything of its stream that is on disk has been sent. When a pack is answered `busy`, all later packs of its stream are
//! too, until it has come back.

mod disk;
mod flight;
mod intake;
mod state;

pub use state::Relay;

use logferry_link::{Answer, Outcome};
use logferry_pack::{PackIdentity, StreamId};
use logferry_spool::RecordId;
use std::collections::HashMap;
use std::time::Duration;

/// Time since the start of the process.
pub type Mono = Duration;

/// Number that the shell gives to a pack in memory; ascending, never used twice.
pub type Ticket = u64;

/// Most packs held in memory: bounds the bookkeeping where packs are tiny.
pub const PACKS_MAX: usize = 16_384;
/// Most bytes of packs in one group commit of the spool.
pub const APPEND_BYTES_MAX: u64 = 8 << 20;
/// Most packs in one group commit of the spool.
pub const APPEND_PACKS_MAX: usize = 1_024;
/// Identities of spooled packs remembered per stream, to tell duplicates.
pub const SPOOLED_REMEMBERED_MAX: usize = 1_024;
/// The same over all streams (3 MiB), so that an outage with thousands of streams takes no more memory; each has an equal share.
pub const SPOOLED_REMEMBERED_TOTAL: usize = 128 << 10;
/// The least share: more than what a tailer has on its way of one stream when an answer is lost.
pub const SPOOLED_REMEMBERED_MIN: usize = 16;
/// Wait before a full spool is tried again.
pub const FULL_RETRY: Duration = Duration::from_millis(200);
/// Wait before a failing spool is tried again.
pub const FAILED_RETRY: Duration = Duration::from_secs(1);
/// How long a trouble of the spool is shown after the last pack that needed the spool.
pub const TROUBLE_FORGOTTEN: Duration = Duration::from_secs(2);
/// How long the packs behind a pack that was answered `busy` are refused too, while it does not come back.
pub const HOLD: Duration = Duration::from_secs(10);
/// Packs per stream that are waited for after `busy`.
pub const HELD_MAX: usize = 1_024;

/// What the relay is told once.
#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    /// Bytes that may be in flight.
    pub window_bytes: u64,
    /// Bytes read back from the spool that may be in memory.
    pub replay_bytes_max: u64,
    /// See `[relay] spool_after`.
    pub spool_after: Duration,
    /// See `[relay] slow_after`.
    pub slow_after: Duration,
    /// See `[relay] busy_after`.
    pub busy_after: Duration,
    /// See `[relay] stop_grace`.
    pub stop_grace: Duration,
    /// See `[relay] footprint_keep`.
    pub footprint_keep: Duration,
    /// Unix time at [`Mono`] zero, in seconds: for the expiry of the footprint only.
    pub unix_at_start: u64,
}

/// What the relay knows of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackInfo {
    /// Identity.
    pub identity: PackIdentity,
    /// Stream offset at which shipping of the stream began.
    pub first: u64,
    /// A back-filled pack: never told to be a duplicate here.
    pub repull: bool,
    /// Somebody waits for what the store says of it: it is answered by what the next tier answers, and never spooled here.
    pub end_to_end: bool,
    /// Bytes of header and body.
    pub bytes: u64,
}

impl PackInfo {
    /// Whether an equal identity means an equal pack. Packs without bytes (done packs of quiet hours) have nothing to be told by.
    fn can_be_duplicate(&self) -> bool {
        !self.repull && self.identity.span > 0
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pack came in; its peer waits for an answer.
    Arrived {
        /// New ticket.
        ticket: Ticket,
        /// The pack.
        pack: PackInfo,
    },
    /// The sender settled a pack.
    Settled {
        /// Its ticket.
        ticket: Ticket,
        /// How.
        outcome: Outcome,
    },
    /// Number of targets with a live session.
    Targets {
        /// Targets.
        up: usize,
    },
    /// Done with [`Action::Withdraw`].
    Withdrawn {
        /// What the sender gave back, in order of submission.
        tickets: Vec<Ticket>,
    },
    /// Done with [`Action::Append`].
    Appended {
        /// Packs that are fsynced.
        durable: Vec<(Ticket, RecordId)>,
        /// Why the others are not in the spool.
        trouble: Option<SpoolTrouble>,
    },
    /// Done with [`Action::Read`].
    Fetched(Fetched),
    /// Done with [`Action::Recount`]: records per stream that are not acknowledged.
    Counted(HashMap<StreamId, u64>),
    /// Done with [`Action::Quarantine`]: the bytes are safe in the quarantine.
    Quarantined {
        /// Ticket of the pack.
        ticket: Ticket,
    },
    /// The node is to stop: nothing new comes in but what was read already.
    Stop,
    /// Only time has passed.
    Tick,
}

/// Records read back.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// `epoch` of the action.
    pub epoch: u64,
    /// Records in order.
    pub packs: Vec<FetchedPack>,
    /// The end of the spool was reached, or it could not be read on.
    pub end: bool,
    /// Reading failed.
    pub trouble: Option<SpoolTrouble>,
}

/// A pack read back from the spool.
#[derive(Clone, Copy, Debug)]
pub struct FetchedPack {
    /// New ticket.
    pub ticket: Ticket,
    /// Its record.
    pub record: RecordId,
    /// The pack.
    pub pack: PackInfo,
}

/// What is wrong with the spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpoolTrouble {
    /// At its cap.
    Full(String),
    /// The disk failed.
    Failed(String),
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Answer all who wait for this pack.
    Answer {
        /// Ticket.
        ticket: Ticket,
        /// Answer.
        answer: Answer,
    },
    /// The pack `from` is the pack `to` once more: who waits for it waits for `to`. `from` is forgotten.
    Attach {
        /// New ticket.
        from: Ticket,
        /// Known ticket.
        to: Ticket,
    },
    /// Hand the pack to the sender.
    Submit {
        /// Ticket.
        ticket: Ticket,
    },
    /// Take back what the sender has; answered by [`Event::Withdrawn`] before any other event.
    Withdraw,
    /// Append these packs to the spool, in order, and sync once; answered by [`Event::Appended`].
    Append {
        /// Tickets.
        tickets: Vec<Ticket>,
    },
    /// Acknowledge a record in the spool.
    AckRecord {
        /// Record.
        record: RecordId,
    },
    /// Read records back; answered by [`Event::Fetched`].
    Read {
        /// To tell answers from before a [`Action::Rewind`].
        epoch: u64,
        /// Stop after this many bytes.
        bytes_max: u64,
    },
    /// Read from the oldest record again.
    Rewind,
    /// Count the records per stream; answered by [`Event::Counted`].
    Recount,
    /// Set the pack aside durably, then report [`Event::Quarantined`].
    Quarantine {
        /// Ticket.
        ticket: Ticket,
        /// `conflict`, or the reason of the refusal.
        reason: String,
    },
    /// The next tier has it: append to the footprint's log.
    Remember {
        /// Identity.
        identity: PackIdentity,
        /// Start of shipping.
        first: u64,
        /// When, in seconds.
        now_unix: u64,
    },
    /// Drop the pack's bytes and whoever still waits for it.
    Forget {
        /// Ticket.
        ticket: Ticket,
    },
}

/// Figures for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayFigures {
    /// Packs in memory.
    pub queue_packs: u64,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Packs at the sender.
    pub flight_packs: u64,
    /// Packs whose peers wait for an answer.
    pub unanswered: u64,
    /// Packs in the spool that did not arrive yet.
    pub spool_packs: u64,
    /// Streams in the footprint.
    pub streams: u64,
    /// Memory of the footprint, in bytes.
    pub footprint_bytes: u64,
    /// Streams that it forgot for want of memory.
    pub streams_forgotten: u64,
    /// Streams that have packs in memory or in the spool.
    pub streams_active: u64,
    /// Packs answered as duplicates here.
    pub duplicates_total: u64,
    /// Bytes of the hosts' files that the next tier has taken.
    pub bytes_total: u64,
    /// The same as they were sent: compressed, with headers.
    pub forwarded_bytes_total: u64,
    /// Targets with a live session.
    pub targets_up: u64,
    /// Nothing was acknowledged for `spool_after` although a target is up.
    pub stalled: bool,
    /// What is wrong with the spool.
    pub trouble: Option<SpoolTrouble>,
}
