//! A pack in memory.

use logferry_footprint::PackSeen;
use logferry_pack::{Ours, Pack, PackIdentity};
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
    /// What becomes of it when its range was seen under another identity.
    pub overlap: Overlap,
}

/// What becomes of a pack whose range was seen, wholly or in part, in packs that were cut otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// It is a conflict.
    Conflict,
    /// Wholly: it is a duplicate. In part: a conflict, so that its sender, who has the lines, sends the parts. With lines left out on the host
    /// it is not known where each of the others stands, and storing them once more would double them.
    Duplicate,
    /// It is taken: each of its lines is known by its own place, so nothing is stored twice.
    Taken,
}

impl Overlap {
    /// Of a pack that another output has.
    pub fn of_stored(pack: &Pack) -> Overlap {
        if is_verbatim(pack) { Overlap::Taken } else { Overlap::Duplicate }
    }

    /// Of a pack that no output has judged.
    pub fn of_new(pack: &Pack) -> Overlap {
        match (pack.header.repull, is_verbatim(pack)) {
            (false, _) => Overlap::Conflict,
            (true, false) => Overlap::Duplicate,
            (true, true) => Overlap::Taken,
        }
    }
}

fn is_verbatim(pack: &Pack) -> bool {
    pack.header.ours.as_ref().is_some_and(Ours::is_verbatim)
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
