//! The spool itself: what it holds, and its figures.

use crate::books::{self, Books, State};
use crate::error::SpoolError;
use crate::format::{Found, HEAD_BYTES};
use crate::report::Damage;
use crate::segment::{self, Segment};
use crate::write::Active;
use bytes::Bytes;
use logferry_durable::{Disk, DiskFile, is_full};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Segments that fit into the cap at least, so that acknowledged space comes back early.
const SEGMENTS_IN_CAP_MIN: u64 = 8;

/// Position of a record: ascending in append order. (Over restarts too, unless the books were lost.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecordId(pub u64);

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// Cap for all segment files together, in bytes.
    pub bytes_max: u64,
    /// Size at which a segment is sealed, in bytes; less where an eighth of the cap is less.
    pub segment_bytes: u64,
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Its key.
    pub key: u128,
    /// Its bytes.
    pub payload: Bytes,
}

/// The spool. One owner; the owner keeps other processes out (`logferry_durable::lock_dir`).
///
/// A record that was appended but not synced may come back after a crash, whole and in its place; it never does after a failed sync
/// that the owner was told of, unless the power fails before the file was cut back. A record that was acknowledged may come back
/// too: at most the last 256 after a kill, some 4,400 after a power loss.
pub struct Spool {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: SpoolOptions,
    /// Ascending by number and by sequences.
    pub(crate) segments: VecDeque<Segment>,
    /// The segment that is appended to: the last of `segments`.
    pub(crate) active: Option<Active>,
    pub(crate) books: Books,
    pub(crate) leaving: Vec<Leaving>,
    /// Segments that were left alone, because they cannot be read: the books go on knowing them.
    pub(crate) left_alone: Vec<Segment>,
    /// Waiting records per key.
    pub(crate) pending: HashMap<u128, u64>,
    /// Keys of the records that were read and not acknowledged.
    pub(crate) outstanding: HashMap<u64, u128>,
    /// Replay goes on with the first waiting record from this sequence on.
    pub(crate) cursor: u64,
    /// The segment file that was read last.
    pub(crate) reader: Option<(u64, Box<dyn DiskFile>)>,
    /// The records of segments that were looked into last, the latest first.
    pub(crate) indexes: VecDeque<(u64, Arc<Vec<Found>>)>,
    /// What could not be read lately, and how often.
    pub(crate) read_failures: (u64, u32),
    pub(crate) next_sequence: u64,
    /// Sequence behind the last record that was brought to the disk; those from there on wait or were given up.
    pub(crate) synced_end: u64,
    pub(crate) next_segment: u64,
    pub(crate) damage: Damage,
}

/// A segment whose records have all arrived, until its file is gone for good.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) number: u64,
    pub(crate) salt: Option<u32>,
    pub(crate) bytes: u64,
    /// Something in it could not be read: its file is moved to `damaged/`.
    pub(crate) kept: bool,
    /// Its name is gone, but perhaps not on the disk.
    pub(crate) unlinked: bool,
}

impl Leaving {
    pub(crate) fn of(segment: &Segment) -> Leaving {
        let Segment { number, salt, bytes, unreadable, .. } = *segment;
        Leaving { number, salt, bytes, kept: unreadable, unlinked: false }
    }
}

impl Spool {
    pub(crate) fn segment_bytes_max(&self) -> u64 {
        self.options.segment_bytes.min(self.options.bytes_max / SEGMENTS_IN_CAP_MIN).max(HEAD_BYTES as u64)
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        segment::path(&self.dir, number)
    }

    /// Place of the segment that holds a sequence.
    pub(crate) fn segment_with(&self, sequence: u64) -> Option<usize> {
        let index = self.segments.partition_point(|segment| segment.sequences.end <= sequence);
        self.segments.get(index).filter(|segment| segment.sequences.contains(&sequence)).map(|_| index)
    }

    /// Adds the waiting records among `found` to the counts by key.
    pub(crate) fn count_keys(&mut self, index: usize, found: &[Found]) {
        let segment = &self.segments[index];
        for record in found.iter().filter(|record| !segment.is_settled(record.sequence)) {
            *self.pending.entry(record.key).or_default() += 1;
        }
    }

    /// Takes a record off all counts.
    pub(crate) fn settle(&mut self, index: usize, sequence: u64, key: Option<u128>) {
        if !self.segments[index].settle(sequence) {
            return;
        }
        if self.books.note(&self.segments[index], sequence) {
            self.books.write_acks();
        }
        let Some(key) = key else { return };
        if let Some(count) = self.pending.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&key);
            }
        }
    }

    /// Writes a snapshot of the books if that is worth it, or needed after a failure.
    pub(crate) fn tend_books(&mut self) {
        if self.books.wants_snapshot()
            && let Err(error) = self.keep_books()
        {
            books::warn(&self.dir, &error);
        }
    }

    /// A log that has failed takes nothing more: says so, and moves the books to a fresh file.
    fn keep_books_after(&mut self, error: &io::Error) -> io::Result<()> {
        books::warn(&self.dir, error);
        self.keep_books()
    }

    /// Writes a snapshot of the books.
    pub(crate) fn keep_books(&mut self) -> io::Result<()> {
        let leaving: Vec<_> = self.leaving.iter().map(|leaving| (leaving.number, leaving.salt)).collect();
        let unnamed = self.active.as_ref().is_some_and(|active| !active.name_synced);
        let named = self.segments.len() - usize::from(unnamed);
        self.books.snapshot(State {
            next_sequence: self.next_sequence,
            next_segment: self.next_segment,
            segments: &mut self.left_alone.iter().chain(self.segments.iter().take(named)),
            leaving: &leaving,
        })?;
        self.leaving.retain(|leaving| !leaving.unlinked);
        Ok(())
    }

    /// Writes the acknowledgements that are gathered: for a moment when the owner has nothing else to do. Without it a killed
    /// process sends at most 256 records again.
    pub fn write_acks(&mut self) {
        if self.books.has_acks() {
            self.books.write_acks();
            self.tend_books();
        }
    }

    /// For a graceful stop: seals the segment that is written to and brings the books to the disk, so that the next start finds
    /// everything quickly and sends nothing again.
    pub fn save(&mut self) -> Result<(), crate::AppendError> {
        self.seal()?;
        // Without them more is sent again, and that is all.
        if let Err(error) = self.books.sync().or_else(|error| self.keep_books_after(&error)) {
            books::warn(&self.dir, &error);
        }
        Ok(())
    }

    /// Starts replay anew from the oldest record that is not acknowledged.
    pub fn rewind(&mut self) {
        self.cursor = 0;
        self.outstanding.clear();
    }

    /// Unlinks segments whose records have all arrived; the active one too once nothing waits for its sync.
    pub(crate) fn drop_done(&mut self) -> Result<(), SpoolError> {
        if self.active.as_ref().is_some_and(|active| active.unsynced().is_empty())
            && self.segments.back().is_some_and(Segment::is_done)
        {
            self.active = None;
        }
        let last = self.active.as_ref().and(self.segments.back()).map(|segment| segment.number);
        let is_leaving = |segment: &Segment| segment.is_done() && Some(segment.number) != last;
        let done: Vec<Leaving> =
            self.segments.iter().filter(|segment| is_leaving(segment)).map(Leaving::of).collect();
        self.segments.retain(|segment| !is_leaving(segment));
        self.leave(done)
    }

    pub(crate) fn has_files_to_remove(&self) -> bool {
        self.leaving.iter().any(|leaving| !leaving.unlinked)
    }

    /// The books first, then the files: a segment that is gone without their knowing would look lost. The unlinking needs no fsync of
    /// its own: until a snapshot of the books has synced the folder, they say that the file may go, should it come back.
    pub(crate) fn leave(&mut self, done: Vec<Leaving>) -> Result<(), SpoolError> {
        if done.is_empty() && !self.has_files_to_remove() {
            return Ok(());
        }
        done.iter().for_each(|leaving| self.forget_open_files(leaving.number));
        let known = self.books.leave(&done);
        self.leaving.extend(done);
        if let Err(source) = known.or_else(|error| self.keep_books_after(&error))
            && !is_full(&source)
        {
            // (On a full disk the room is needed more: a crash before the next snapshot makes it look as if somebody had removed the file.)
            return Err(SpoolError::Books { dir: self.dir.clone(), source });
        }
        let mut failed = Ok(());
        for index in 0..self.leaving.len() {
            if let Err(error) = self.remove_file(index) {
                failed = Err(error);
            }
        }
        failed
    }

    fn remove_file(&mut self, index: usize) -> Result<(), SpoolError> {
        let Leaving { number, kept, unlinked, .. } = self.leaving[index];
        if unlinked {
            return Ok(());
        }
        let path = self.path(number);
        let removed = if kept { self.keep_file(number) } else { self.disk.unlink(&path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError::Remove { path, source })
            }
            _ => {
                self.leaving[index].unlinked = true;
                Ok(())
            }
        }
    }

    /// Waiting records of `key`: durable and not acknowledged.
    pub fn pending(&self, key: u128) -> u64 {
        self.pending.get(&key).copied().unwrap_or(0)
    }

    /// Such records, per key that has any.
    pub fn pending_by_key(&self) -> HashMap<u128, u64> {
        self.pending.clone()
    }

    /// Records that are durable and not acknowledged.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(Segment::waiting).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(Segment::is_done)
    }

    /// Bytes of the segment files, with what waits for a sync. (The books take a few kilobytes more.)
    pub fn bytes(&self) -> u64 {
        let kept: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let leaving: u64 =
            self.leaving.iter().filter(|leaving| !leaving.unlinked).map(|leaving| leaving.bytes).sum();
        let unsynced = self.active.as_ref().map_or(0, Active::unsynced_bytes);
        let left_alone: u64 = self.left_alone.iter().map(|segment| segment.bytes).sum();
        kept + leaving + unsynced + left_alone
    }

    /// What was found damaged or gone since the start, at recovery and later.
    pub fn damage(&self) -> Damage {
        self.damage
    }
}
