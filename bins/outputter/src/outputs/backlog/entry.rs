//! A pack in memory.

use logferry_footprint::PackSeen;
use logferry_pack::PackIdentity;
use logferry_spool::RecordId;

/// Names a pack while it is in memory; later ones are greater.
pub type Ticket = u64;

/// What is known of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackInfo {
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Bytes in memory and in the spool.
    pub bytes: u64,
    /// Memory that storing it takes, in bytes.
    pub cost: u64,
    /// It is taken even if its range was seen under another identity: another output has judged it already, or it was asked for again.
    /// Each of its lines is known by its own place, so nothing is stored twice.
    pub may_overlap: bool,
}

impl PackInfo {
    pub(super) fn seen(&self, unix: u64) -> PackSeen {
        PackSeen { identity: self.identity, first: self.first, unix }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For room in the output, or for its turn in the spool.
    Waiting,
    /// Given to the output.
    Storing,
    /// In the output, and on its way into the footprint.
    Stored,
    /// Refused by the output.
    Refused,
}

pub(super) struct Entry<P, W> {
    pub(super) info: PackInfo,
    pub(super) pack: P,
    pub(super) waiters: Vec<W>,
    /// Where it is in the spool.
    pub(super) record: Option<RecordId>,
    /// Where it is in the spool once more, because it came again before what the spool has was read back after a crash.
    pub(super) copies: Vec<RecordId>,
    pub(super) stage: Stage,
    pub(super) since_ms: u64,
}

impl<P, W> Entry<P, W> {
    /// All places where it is in the spool.
    pub(super) fn records(&self) -> impl Iterator<Item = RecordId> {
        self.record.iter().chain(&self.copies).copied()
    }
}
