//! The records of the state log, and its snapshot.
//!
//! Each payload is one version byte ([`STATE_VERSION`], [`SNAPSHOT_VERSION`]) and a `postcard` encoding (varints, enum variants by
//! their index). Variants are only ever added at the end; the tests pin the bytes.

use crate::identity::{FileKey, Head};
use crate::ledger::hours::{HourBook, HourBookV1};
use crate::ledger::looks::{FileLook, LookList};
use crate::ledger::owed::Owed;
use crate::ledger::past::{PastFile, PastFiles};
use crate::ledger::ranges::HourRanges;
use crate::ledger::unseen::FirstLook;
use logferry_pack::{Hour, StreamId};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Version of the records.
pub const STATE_VERSION: u8 = 1;
/// Version of the snapshots. Version 1 had no done packs, version 2 no [`SeenFile`]s; both are still read.
pub const SNAPSHOT_VERSION: u8 = 3;

/// A stream at first sight.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Met {
    /// Id.
    pub stream: StreamId,
    /// Name of the source.
    pub source: String,
    /// Bytes of the path at which the file was met.
    pub path: Vec<u8>,
    /// The file.
    pub key: FileKey,
    /// Its first line.
    pub head: Head,
    /// Generation of the file.
    pub generation: u32,
    /// Offset at which shipping begins.
    pub first: u64,
    /// Ids of earlier generations of the file, newest last.
    pub past: Vec<StreamId>,
}

impl Met {
    /// The path at which the file was met.
    pub fn home(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }
}

/// Boundaries of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: u64,
    /// crc32c of the bytes.
    pub sum: u32,
    /// Number of lines.
    pub lines: u64,
    /// Hour.
    pub hour: Hour,
    /// Number within the hour and source.
    pub id: u64,
}

impl Cut {
    /// Offset of the first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.span
    }

    /// What tells of it when it is below the frontier.
    pub fn tail(&self) -> Tail {
        Tail { offset: self.offset, span: self.span, sum: self.sum }
    }
}

/// A pack without lines: it closes its hour, or takes a number of the hour that nothing else has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Name of the source.
    pub source: String,
    /// Hour.
    pub hour: Hour,
    /// Number within the hour and source; with `done` also the number of its packs.
    pub id: u64,
    /// It closes the hour.
    pub done: bool,
    /// Stream that it travels with.
    pub stream: StreamId,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Offset in the stream.
    pub offset: u64,
}

/// A pack that is cut and not below the frontier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptCut {
    /// Boundaries.
    pub cut: Cut,
    /// The next tier has it, but not everything below it.
    pub acked: bool,
}

/// The last pack below the frontier: tells later whether the file still has the bytes that were shipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tail {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: u64,
    /// crc32c of the bytes.
    pub sum: u32,
}

impl Tail {
    /// Offset of the first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.span
    }

    /// Whether it has more than a first line, which many files may have.
    pub fn is_beyond(&self, head: Head) -> bool {
        self.end() > u64::from(head.length)
    }
}

/// One step in the life of the state.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Record {
    /// The files of a source were looked at for the first time; `start` has no say any more.
    SourceStarted(String),
    /// A stream was met.
    Met(Met),
    /// A pack was cut.
    Cut {
        /// Stream.
        stream: StreamId,
        /// Boundaries.
        cut: Cut,
    },
    /// Everything below `frontier` is acknowledged.
    Frontier {
        /// Stream.
        stream: StreamId,
        /// Offset.
        frontier: u64,
        /// The pack that ends there.
        tail: Option<Tail>,
    },
    /// The packs above the frontier were cut anew.
    Recut {
        /// Stream.
        stream: StreamId,
        /// Offset.
        frontier: u64,
        /// All packs above it.
        cuts: Vec<KeptCut>,
    },
    /// A new generation took over, with these packs.
    Replaced {
        /// The stream that ends.
        old: StreamId,
        /// The stream that begins.
        new: Met,
        /// Its packs.
        cuts: Vec<KeptCut>,
    },
    /// A stream is wholly acknowledged and its file will not grow any more.
    Finished(StreamId),
    /// A pack without lines was numbered.
    Marked(Mark),
    /// The next tier has the pack without lines of this number.
    MarkTaken {
        /// Name of the source.
        source: String,
        /// Hour.
        hour: Hour,
        /// Number.
        id: u64,
    },
    /// A pack was given up before it was delivered: its number is free again.
    GivenBack {
        /// Name of the source.
        source: String,
        /// Hour.
        hour: Hour,
        /// Number.
        id: u64,
    },
    /// Hours before this one are not looked at any more for lines that they may not have.
    HoursDue {
        /// Name of the source.
        source: String,
        /// Hour.
        hour: Hour,
    },
    /// The bytes of a stream are in another file from now on: the one it was in was cut after it had been copied.
    Rehomed {
        /// Stream.
        stream: StreamId,
        /// The other file.
        key: FileKey,
        /// Bytes of its path.
        path: Vec<u8>,
    },
    /// A file is a copy of what was read.
    CopyKnown {
        /// Name of the source.
        source: String,
        /// The copy.
        file: PastFile,
    },
    /// The first look at a source did not see everything.
    Unseen(FirstLook),
    /// A later look at a source saw everything.
    AllSeen(String),
    /// The content of a compressed file is known.
    ContentKnown {
        /// The file.
        key: FileKey,
        /// How it looked then.
        look: FileLook,
    },
    /// A file is not shipped, and that was told.
    Missed {
        /// The file.
        key: FileKey,
        /// How it looked then.
        look: FileLook,
    },
    /// A compressed file is to be read.
    Owed(Owed),
    /// Files that were made since this time, in nanoseconds since 1970, may be missed; `None` when all of them were looked for.
    MissedSince(Option<i64>),
}

/// A stream in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct StreamSnapshot {
    /// First sight.
    pub met: Met,
    /// Acknowledged frontier.
    pub frontier: u64,
    /// The pack that ends there.
    pub tail: Option<Tail>,
    /// Packs above it.
    pub cuts: Vec<KeptCut>,
    /// Files that it was in before.
    pub was: Vec<FileKey>,
}

/// The whole state.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// Sources that have started.
    pub sources: BTreeSet<String>,
    /// Streams, in an order that replays: predecessors first.
    pub streams: Vec<StreamSnapshot>,
    /// Numbers of packs.
    pub hours: HourBook,
    /// Packs without lines that the next tier does not have yet.
    pub marks: Vec<Mark>,
    /// Files that were read to their ends.
    pub past_files: PastFiles,
    /// How the files of streams looked last. Encoded behind the rest, so that version 2 is what stands before it.
    #[serde(skip)]
    pub seen: Vec<SeenFile>,
    /// Which bytes were shipped in which hour. Stands behind all else: a snapshot without it is a good one too.
    #[serde(skip)]
    pub ranges: HourRanges,
    /// First looks that did not see everything. Stand behind all else, if there are any.
    #[serde(skip)]
    pub unseen: Vec<FirstLook>,
    /// Compressed files whose content is known, and files that are not shipped. Stand behind all else, if there are any.
    #[serde(skip)]
    pub looks: (LookList, LookList),
    /// Compressed files that are to be read. Stand behind all else, if there are any.
    #[serde(skip)]
    pub owed: Vec<Owed>,
    /// Since when files may be missed. Stands behind all else, if it is known.
    #[serde(skip)]
    pub missed_since: Option<i64>,
}

/// How a file looked when it was asked last. One that looks the same after a restart has the same content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SeenFile {
    /// Stream.
    pub stream: StreamId,
    /// Length in bytes.
    pub size: u64,
    /// Time at which the system noted a change of it (ctime, which no program can set), in nanoseconds since 1970.
    pub touched_ns: i64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StreamSnapshotV1 {
    met: Met,
    frontier: u64,
    tail: Option<Tail>,
    cuts: Vec<KeptCut>,
}

impl From<StreamSnapshotV1> for StreamSnapshot {
    fn from(old: StreamSnapshotV1) -> StreamSnapshot {
        let StreamSnapshotV1 { met, frontier, tail, cuts } = old;
        StreamSnapshot { met, frontier, tail, cuts, was: Vec::new() }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct SnapshotV1 {
    sources: BTreeSet<String>,
    streams: Vec<StreamSnapshotV1>,
    hours: HourBookV1,
}

/// Payload of a snapshot.
pub fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    // Encoding into memory fails for no type of this module.
    let bytes =
        postcard::to_extend(&snapshot.seen, encode_as(SNAPSHOT_VERSION, snapshot)).unwrap_or_default();
    let bytes = postcard::to_extend(&snapshot.ranges, bytes).unwrap_or_default();
    let bytes = postcard::to_extend(snapshot.ranges.all_forgotten(), bytes).unwrap_or_default();
    let has_owed = !snapshot.owed.is_empty() || snapshot.missed_since.is_some();
    let has_looks = has_owed || !(snapshot.looks.0.is_empty() && snapshot.looks.1.is_empty());
    if snapshot.unseen.is_empty() && !has_looks {
        return bytes;
    }
    let bytes = postcard::to_extend(&snapshot.unseen, bytes).unwrap_or_default();
    if !has_looks {
        return bytes;
    }
    let bytes = postcard::to_extend(&snapshot.looks, bytes).unwrap_or_default();
    if !has_owed {
        return bytes;
    }
    let bytes = postcard::to_extend(&snapshot.owed, bytes).unwrap_or_default();
    postcard::to_extend(&snapshot.missed_since, bytes).unwrap_or_default()
}

/// Back from [`encode_snapshot`], of this version or one before.
pub fn decode_snapshot(payload: &[u8]) -> Option<Snapshot> {
    match payload.split_first()? {
        (&(SNAPSHOT_VERSION | 2), rest) => {
            let (snapshot, rest) = postcard::take_from_bytes::<Snapshot>(rest).ok()?;
            let nothing: (Vec<SeenFile>, &[u8]) = (Vec::new(), &[]);
            let (seen, rest) =
                if payload[0] == 2 { nothing } else { postcard::take_from_bytes(rest).ok()? };
            let (ranges, rest) = postcard::take_from_bytes::<HourRanges>(rest).unwrap_or_default();
            let (forgotten, rest) = postcard::take_from_bytes(rest).unwrap_or_default();
            let ranges = ranges.with_forgotten(forgotten);
            let (unseen, rest) = postcard::take_from_bytes(rest).unwrap_or_default();
            let (looks, rest) = postcard::take_from_bytes(rest).unwrap_or_default();
            let (owed, rest) = postcard::take_from_bytes(rest).unwrap_or_default();
            let missed_since = postcard::from_bytes(rest).unwrap_or_default();
            let hours = snapshot.hours.restored();
            Some(Snapshot { hours, seen, ranges, unseen, looks, owed, missed_since, ..snapshot })
        }
        (1, rest) => {
            let SnapshotV1 { sources, streams, hours } = postcard::from_bytes(rest).ok()?;
            let streams = streams.into_iter().map(StreamSnapshot::from).collect();
            Some(Snapshot { sources, streams, hours: hours.into(), ..Snapshot::default() })
        }
        _ => None,
    }
}

/// Payload of a record.
pub fn encode(record: &Record) -> Vec<u8> {
    encode_as(STATE_VERSION, record)
}

fn encode_as<T: serde::Serialize>(version: u8, value: &T) -> Vec<u8> {
    let head = vec![version];
    // Encoding into memory fails for no type of this module: they have known lengths and no maps with odd keys.
    postcard::to_extend(value, head).unwrap_or_default()
}

/// Back from [`encode`]; `None` for bytes of another version or that do not parse.
pub fn decode(payload: &[u8]) -> Option<Record> {
    let (version, rest) = payload.split_first()?;
    if *version != STATE_VERSION {
        return None;
    }
    postcard::from_bytes(rest).ok()
}
