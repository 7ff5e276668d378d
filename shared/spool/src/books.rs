//! The books: a [`Log`] named `books` beside the segments. It says which segments there are, how far they are on the disk, and which of their
//! records have arrived, so that a restart sends little again, tells rot from a torn end, and notices a segment that somebody removed.
//!
//! Its records and its snapshot are [`Entry`]s in the encoding of `postcard` (integers as varints, a variant's number first). A
//! snapshot is version, `next_sequence`, `next_segment` and a list of entries.
//!
//! All in it can be lost without losing a record of the spool: then more is sent again, and less is noticed.

use crate::segment::{Segment, merge};
use crate::spool::Leaving;
use logferry_durable::{Disk, Log, RecoveryReport};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the log.
pub(crate) const NAME: &str = "books";
/// Acknowledgements that are gathered before they are written: a killed process sends as many records again at most.
pub(crate) const ACKS_UNWRITTEN_MAX: usize = 256;
/// Acknowledgements that are written before they are synced: after a power loss as many are sent again at most.
pub(crate) const ACKS_UNSYNCED_MAX: usize = 4_096;
/// Ranges of acknowledged records in a snapshot; what is beyond is forgotten by it, and may be sent again.
const RANGES_MAX: usize = 65_536;
const VERSION: u8 = 1;

/// One thing to remember.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A segment's file and name are on the disk.
    Opened { number: u64, salt: Option<u32>, first: u64 },
    /// It is on the disk up to this sequence and this length. Sealed: nothing but its footer comes behind that.
    Synced { number: u64, end: u64, bytes: u64, sealed: bool },
    /// Records have arrived (or are known to be lost): ranges of offset from the segment's first and number.
    Settled { number: u64, ranges: Vec<(u32, u32)> },
    /// All of it has arrived: its file may go.
    Leaving { number: u64, salt: Option<u32> },
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u8,
    next_sequence: u64,
    next_segment: u64,
    entries: Vec<Entry>,
}

/// What the books say.
#[derive(Default, Debug)]
pub(crate) struct Kept {
    pub(crate) next_sequence: u64,
    pub(crate) next_segment: u64,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) leaving: BTreeSet<(u64, Option<u32>)>,
    /// Something of them is missing, so that what they do not say means nothing.
    pub(crate) suspect: bool,
}

impl Kept {
    /// What a log holds.
    pub(crate) fn from_log(snapshot: Option<&[u8]>, records: &[Vec<u8>], report: &RecoveryReport) -> Kept {
        let mut kept = Kept { suspect: report.is_suspect(), ..Kept::default() };
        if let Some(bytes) = snapshot {
            match postcard::from_bytes::<Snapshot>(bytes) {
                Ok(snapshot) if snapshot.version == VERSION => {
                    (kept.next_sequence, kept.next_segment) = (snapshot.next_sequence, snapshot.next_segment);
                    snapshot.entries.into_iter().for_each(|entry| kept.apply(entry));
                }
                _ => kept.suspect = true,
            }
        }
        for record in records {
            match postcard::from_bytes(record) {
                Ok(entry) => kept.apply(entry),
                Err(_) => kept.suspect = true,
            }
        }
        kept
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Opened { number, salt, first } => {
                let segment = Segment { number, salt, sequences: first..first, ..Segment::default() };
                self.segments.insert(number, segment);
                self.next_segment = self.next_segment.max(number.saturating_add(1));
                self.next_sequence = self.next_sequence.max(first);
            }
            Entry::Synced { number, end, bytes, sealed } => {
                let Some(segment) = self.segments.get_mut(&number) else { return };
                segment.sequences.end = end.max(segment.sequences.start);
                (segment.records_bytes, segment.sealed) = (bytes, sealed);
                self.next_sequence = self.next_sequence.max(end);
            }
            Entry::Settled { number, ranges } => {
                let Some(segment) = self.segments.get_mut(&number) else { return };
                for (offset, count) in ranges {
                    let first = segment.sequences.start.saturating_add(u64::from(offset));
                    // No more than there are: the entry that says how many there are comes first.
                    let end = first.saturating_add(u64::from(count)).min(segment.sequences.end);
                    for sequence in first..end {
                        segment.settle(sequence);
                    }
                }
            }
            Entry::Leaving { number, salt } => {
                self.segments.remove(&number);
                self.leaving.insert((number, salt));
            }
        }
    }
}

/// What the spool knows, for a snapshot.
pub(crate) struct State<'a> {
    pub(crate) next_sequence: u64,
    pub(crate) next_segment: u64,
    pub(crate) segments: &'a mut dyn Iterator<Item = &'a Segment>,
    pub(crate) leaving: &'a [(u64, Option<u32>)],
}

impl State<'_> {
    fn encode(self) -> Result<Vec<u8>, postcard::Error> {
        let mut entries = Vec::new();
        let mut ranges_left = RANGES_MAX;
        for segment in self.segments {
            let Segment { number, salt, sealed, .. } = *segment;
            if segment.sequences.is_empty() && segment.salt.is_none() {
                // Left alone, and not known.
                continue;
            }
            entries.push(Entry::Opened { number, salt, first: segment.sequences.start });
            let (end, bytes) = (segment.sequences.end, segment.records_bytes);
            entries.push(Entry::Synced { number, end, bytes, sealed });
            let mut ranges = segment.settled.ranges();
            ranges.truncate(ranges_left);
            ranges_left -= ranges.len();
            if !ranges.is_empty() {
                entries.push(Entry::Settled { number, ranges });
            }
        }
        entries.extend(
            self.leaving.iter().map(|(number, salt)| Entry::Leaving { number: *number, salt: *salt }),
        );
        let State { next_sequence, next_segment, .. } = self;
        postcard::to_stdvec(&Snapshot { version: VERSION, next_sequence, next_segment, entries })
    }
}

/// The log, and what waits to be written to it.
pub(crate) struct Books {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// `None` while it cannot be opened.
    log: Option<Log>,
    /// Acknowledged and not written: segment and offset.
    acks: Vec<(u64, u32)>,
    acks_unsynced: usize,
}

impl Books {
    /// Opens them. A disk that does not let it is no reason not to start.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> (Books, Kept) {
        let opened = Log::open(disk.clone(), dir, NAME);
        let (log, kept) = match opened {
            Ok((log, recovered)) => {
                let kept =
                    Kept::from_log(recovered.snapshot.as_deref(), &recovered.records, &recovered.report);
                if kept.suspect {
                    tracing::warn!(spool = %dir.display(), report = %recovered.report, "the spool's books were damaged: packs may be sent again");
                }
                (Some(log), kept)
            }
            Err(error) => {
                warn(dir, &error);
                (None, Kept { suspect: true, ..Kept::default() })
            }
        };
        (Books { disk, dir: dir.to_owned(), log, acks: Vec::new(), acks_unsynced: 0 }, kept)
    }

    /// Writes entries, without fsync. After a failure only [`Books::snapshot`] helps.
    pub(crate) fn write(&mut self, entries: &[Entry]) {
        if let Err(error) = self.try_write(entries) {
            warn(&self.dir, &error);
        }
    }

    /// The log, if it takes anything.
    fn healthy(&mut self) -> Option<&mut Log> {
        self.log.as_mut().filter(|log| !log.is_poisoned())
    }

    fn try_write(&mut self, entries: &[Entry]) -> io::Result<()> {
        // What is not written now is in the next snapshot.
        let Some(log) = self.healthy() else { return Ok(()) };
        for entry in entries {
            log.append(&postcard::to_stdvec(entry).map_err(io::Error::other)?);
        }
        log.write()
    }

    /// A record has arrived. True when so many wait that they are to be written.
    pub(crate) fn note(&mut self, segment: &Segment, sequence: u64) -> bool {
        self.acks.push((segment.number, (sequence - segment.sequences.start) as u32));
        self.acks.len() >= ACKS_UNWRITTEN_MAX
    }

    /// Whether acknowledgements wait to be written.
    pub(crate) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// Writes the acknowledgements that wait, and syncs when there are many.
    pub(crate) fn write_acks(&mut self) {
        if self.acks.is_empty() {
            return;
        }
        let mut acks = std::mem::take(&mut self.acks);
        acks.sort_unstable();
        self.acks_unsynced += acks.len();
        let of_segments = acks.chunk_by(|one, other| one.0 == other.0);
        let settled = of_segments
            .map(|acks| Entry::Settled { number: acks[0].0, ranges: merge(acks.iter().map(|ack| ack.1)) });
        self.write(&settled.collect::<Vec<_>>());
        if self.acks_unsynced >= ACKS_UNSYNCED_MAX
            && let Err(error) = self.sync()
        {
            warn(&self.dir, &error);
        }
    }

    /// Segments are done: this is on the disk before their files go.
    pub(crate) fn leave(&mut self, done: &[Leaving]) -> io::Result<()> {
        self.write_acks();
        let leaving =
            done.iter().map(|leaving| Entry::Leaving { number: leaving.number, salt: leaving.salt });
        self.try_write(&leaving.collect::<Vec<_>>())?;
        self.sync()
    }

    /// Writes what waits and syncs all.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.write_acks();
        self.acks_unsynced = 0;
        let waits = || io::Error::other("the spool's books failed earlier and wait for a snapshot");
        self.healthy().ok_or_else(waits)?.commit()
    }

    /// Whether a snapshot is worth it or needed.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.log.as_ref().is_none_or(Log::wants_snapshot)
    }

    /// Replaces all that was written.
    pub(crate) fn snapshot(&mut self, state: State<'_>) -> io::Result<()> {
        if self.log.is_none() {
            self.log = Some(Log::open(self.disk.clone(), &self.dir, NAME)?.0);
        }
        let bytes = state.encode().map_err(io::Error::other)?;
        if let Some(log) = &mut self.log {
            log.snapshot(&bytes)?;
        }
        self.acks.clear();
        self.acks_unsynced = 0;
        Ok(())
    }
}

pub(crate) fn warn(dir: &Path, error: &io::Error) {
    tracing::warn!(
        spool = %dir.display(), %error,
        "the spool's books cannot be written: no pack is lost, but after a restart more are sent again; check the disk"
    );
}
