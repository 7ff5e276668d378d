//! What the outputter's journal holds: the snapshot of everything that is committed, and one record per group commit.
//!
//! | bytes | field |
//! |---|---|
//! | u8 | version, 2; 3 for a [`Replaced`] |
//! | rest | postcard of [`Snapshot`] (in a snapshot), [`Commit`] or [`Replaced`] (in a record) |
//!
//! Checksums are the log's own (`logferry_durable::Log`).

use logferry_footprint::Footprint;
use logferry_pack::{PackIdentity, StreamId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the bytes.
pub const JOURNAL_VERSION: u8 = 2;
/// First byte of the records of replacements.
const REPLACED_VERSION: u8 = 3;

/// Holes that are remembered; older ones are forgotten (they stay in the counters and in the log).
pub const HOLES_MAX: usize = 4_096;

/// Committed lengths of a log file and its header file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// Of the log file.
    pub data: u64,
    /// Of the header file.
    pub headers: u64,
    /// The next header line must say at which byte of the log file the next body stands: bytes before it came from elsewhere, or
    /// were taken away.
    pub mark_due: bool,
}

impl std::fmt::Display for Lengths {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} bytes of lines, {} of headers", self.data, self.headers)
    }
}

impl Lengths {
    /// The two lengths.
    pub fn both(&self) -> (u64, u64) {
        (self.data, self.headers)
    }
}

/// A committed pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedPack {
    /// Stream.
    pub stream: u128,
    /// Offset in the stream.
    pub offset: u64,
    /// Stream bytes.
    pub span: u64,
    /// crc32c.
    pub sum: u32,
    /// Where shipping of the stream began.
    pub first: u64,
}

impl CommittedPack {
    /// From a pack's identity.
    pub fn new(identity: &PackIdentity, first: u64) -> CommittedPack {
        CommittedPack {
            stream: identity.stream.0,
            offset: identity.offset,
            span: identity.span,
            sum: identity.sum,
            first,
        }
    }

    /// The identity.
    pub fn identity(&self) -> PackIdentity {
        PackIdentity { stream: StreamId(self.stream), offset: self.offset, span: self.span, sum: self.sum }
    }
}

/// A place in a log file where stream bytes were passed over: what is missing may come later, behind, so the
/// file is out of stream order until somebody puts it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Path of the log file below the folder.
    pub path: String,
    /// Stream.
    pub stream: u128,
    /// First missing byte of the stream.
    pub from: u64,
    /// First byte of the stream after the hole.
    pub to: u64,
    /// Byte of the log file at which the pack after the hole was written.
    pub data_at: u64,
}

/// One group commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Seconds since 1970, for the expiry of footprints.
    pub now_unix: u64,
    /// Files and their new lengths.
    pub files: Vec<(String, Lengths)>,
    /// Packs.
    pub packs: Vec<CommittedPack>,
    /// Holes that were passed over.
    pub holes: Vec<Hole>,
}

/// A file was replaced by another one: decided, and done at the latest at the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Path of the log file below the folder.
    pub path: String,
    /// Path under which the new log file is aside.
    pub staged: String,
    /// Path under which the new header file is aside.
    pub headers: String,
    /// Lengths of the new files.
    pub lengths: Lengths,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A group commit.
    Commit(Commit),
    /// A replacement.
    Replaced(Replaced),
}

/// Everything committed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Snapshot {
    footprint: Vec<u8>,
    files: BTreeMap<String, Lengths>,
    holes: Vec<Hole>,
    unread: BTreeSet<String>,
}

/// What the journal says is committed.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Packs seen.
    pub footprint: Footprint,
    /// Files and their committed lengths.
    pub files: BTreeMap<String, Lengths>,
    /// Holes, oldest first, at most [`HOLES_MAX`].
    pub holes: Vec<Hole>,
    /// Files (and folders, with a `/` at the end) whose packs are not in the footprint: an earlier journal that had them was lost, and they
    /// could not be read since.
    pub unread: BTreeSet<String>,
    /// Replacements since the last snapshot, which has none.
    pub replaced: Vec<Replaced>,
}

impl State {
    /// From what `Log::open` found. `None` when the snapshot is not of a version we read.
    pub fn from_snapshot(bytes: &[u8]) -> Option<State> {
        let snapshot: Snapshot = from_bytes(bytes)?;
        let footprint = Footprint::from_bytes(&snapshot.footprint)?;
        let Snapshot { files, holes, unread, .. } = snapshot;
        Some(State { footprint, files, holes, unread, replaced: Vec::new() })
    }

    /// Bytes of a snapshot.
    pub fn snapshot_bytes(&self) -> Vec<u8> {
        snapshot_bytes(&self.footprint, &self.files, &self.holes, &self.unread)
    }

    /// Applies a record.
    pub fn apply(&mut self, commit: Commit) {
        self.files.extend(commit.files);
        for pack in &commit.packs {
            self.footprint.insert(&pack.identity(), pack.first, commit.now_unix);
        }
        remember_holes(&mut self.holes, commit.holes);
    }
}

impl State {
    /// Applies a record of a replacement.
    pub fn apply_replaced(&mut self, replaced: Replaced) {
        self.files.remove(&replaced.staged);
        self.files.insert(replaced.path.clone(), replaced.lengths);
        self.holes.retain(|hole| hole.path != replaced.path && hole.path != replaced.staged);
        self.unread.remove(&replaced.path);
        self.replaced.push(replaced);
    }
}

impl Replaced {
    /// Bytes of a record.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![REPLACED_VERSION]).unwrap_or_default()
    }
}

impl Record {
    /// Back from its bytes; `None` when they are not of a version we read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Record> {
        match bytes.split_first()? {
            (&REPLACED_VERSION, rest) => postcard::from_bytes(rest).ok().map(Record::Replaced),
            _ => Commit::from_bytes(bytes).map(Record::Commit),
        }
    }
}

/// Adds holes, and forgets the oldest above the limit.
pub fn remember_holes(holes: &mut Vec<Hole>, new: Vec<Hole>) {
    holes.extend(new);
    holes.drain(..holes.len().saturating_sub(HOLES_MAX));
}

/// Bytes of a snapshot of the parts of a [`State`].
pub fn snapshot_bytes(
    footprint: &Footprint,
    files: &BTreeMap<String, Lengths>,
    holes: &[Hole],
    unread: &BTreeSet<String>,
) -> Vec<u8> {
    to_bytes(&(footprint.to_bytes(), files, holes, unread))
}

impl Commit {
    /// Bytes of a record.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Back from [`Commit::to_bytes`]; `None` when they are not of a version we read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Commit> {
        from_bytes(bytes)
    }
}

fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: postcard has no way to fail here.
    postcard::to_extend(value, vec![JOURNAL_VERSION]).unwrap_or_default()
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    (*version == JOURNAL_VERSION).then(|| postcard::from_bytes(rest).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_commit_are_pinned() {
        let commit = Commit {
            now_unix: 1,
            files: vec![("a/b".into(), Lengths { data: 300, headers: 2, mark_due: true })],
            packs: vec![CommittedPack { stream: 5, offset: 6, span: 7, sum: 8, first: 0 }],
            holes: vec![Hole { path: "a/b".into(), stream: 5, from: 3, to: 6, data_at: 4 }],
        };
        let bytes = commit.to_bytes();
        assert_eq!(
            bytes,
            b"\x02\x01\x01\x03a/b\xac\x02\x02\x01\x01\x05\x06\x07\x08\x00\x01\x03a/b\x05\x03\x06\x04"
        );
        assert_eq!(Commit::from_bytes(&bytes), Some(commit));
    }

    #[test]
    fn the_bytes_of_a_replacement_are_pinned() {
        let replaced = Replaced {
            path: "a".into(),
            staged: "b".into(),
            headers: "c".into(),
            lengths: Lengths { data: 300, headers: 2, mark_due: false },
        };
        assert_eq!(replaced.to_bytes(), b"\x03\x01a\x01b\x01c\xac\x02\x02\x00");
        assert_eq!(Record::from_bytes(&replaced.to_bytes()), Some(Record::Replaced(replaced)));
    }

    #[test]
    fn a_snapshot_is_read_back_whole() {
        let mut state = State::default();
        let pack = CommittedPack { stream: 5, offset: 6, span: 7, sum: 8, first: 6 };
        state.apply(Commit {
            now_unix: 9,
            files: vec![("a/b".into(), Lengths { data: 300, headers: 2, mark_due: true })],
            packs: vec![pack],
            holes: vec![Hole { path: "a/b".into(), stream: 5, from: 3, to: 6, data_at: 4 }],
        });
        state.unread.insert("a/c".into());
        let read = State::from_snapshot(&state.snapshot_bytes()).unwrap();
        assert_eq!((read.footprint, read.files), (state.footprint, state.files));
        assert_eq!((read.holes, read.unread), (state.holes, state.unread));
    }

    #[test]
    fn bytes_of_another_version_are_not_read() {
        let mut bytes = Commit::default().to_bytes();
        bytes[0] = 1;
        assert_eq!(Commit::from_bytes(&bytes), None);
        assert!(State::from_snapshot(&bytes).is_none());
        assert!(State::from_snapshot(&[]).is_none());
    }

    #[test]
    fn only_so_many_holes_are_remembered() {
        let hole = |from| Hole { path: String::new(), stream: 0, from, to: 0, data_at: 0 };
        let mut holes = Vec::new();
        remember_holes(&mut holes, (0..HOLES_MAX as u64 + 3).map(hole).collect());
        assert_eq!((holes.len(), holes[0].from), (HOLES_MAX, 3));
    }
}
