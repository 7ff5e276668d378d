//! The spool itself: appending, syncing, replaying, acknowledging, recovery.

use crate::format::{self, DamagedRange, PAYLOAD_BYTES_MAX, Scan};
use crate::segment::{self, Segment};
use bytes::Bytes;
use logferry_durable::{Disk, DiskFile};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Segments that fit into the cap at least, so that acknowledged space comes back early.
const SEGMENTS_IN_CAP_MIN: u64 = 8;
/// Copies of damaged ranges that are kept in `damaged/`; more are counted only.
const DAMAGED_COPIES_MAX: usize = 1_000;

/// Position of a record: ascending in append order, over restarts.
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

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The cap is reached: try again after acks.
    #[error("spool {dir} is full: {used} of {max} bytes")]
    Full {
        /// Folder.
        dir: PathBuf,
        /// Bytes used.
        used: u64,
        /// Cap.
        max: u64,
    },
    /// The disk failed. What was appended since the last successful sync is NOT in the spool; a fresh segment is used from here on.
    #[error("spool {dir}: {source}")]
    Disk {
        /// Folder.
        dir: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// What recovery found: everything was opened, damage was set aside.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SpoolReport {
    /// Whole records found; some may have been acknowledged before a crash and will be replayed.
    pub records: u64,
    /// Bytes cut as a torn tail.
    pub torn_bytes: u64,
    /// Damaged ranges that were copied to the folder `damaged`.
    pub damaged_ranges: u64,
    /// Bytes in them.
    pub damaged_bytes: u64,
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

/// The segment that is appended to. It is the last of `segments`.
struct Active {
    file: Box<dyn DiskFile>,
    /// Length that is on the disk, in bytes; 0 while the file's name is not.
    synced_bytes: u64,
    /// Length with what waits for a sync.
    bytes: u64,
    name_synced: bool,
}

/// The spool. One owner; the owner keeps other processes out (`logferry_durable::lock_dir`).
///
/// A record that was appended but not synced may come back after a crash, whole and in its place; it never does after a failed sync
/// that the owner was told of, unless the power fails before the file was cut back.
pub struct Spool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: SpoolOptions,
    segments: VecDeque<Segment>,
    active: Option<Active>,
    /// Records that were appended and not synced.
    unsynced: Vec<format::Found>,
    pending: HashMap<u128, u64>,
    /// Keys of the records that were read and not acknowledged.
    outstanding: HashMap<u64, u128>,
    records: u64,
    next_sequence: u64,
    next_segment: u64,
    damaged: (u64, u64),
}

impl Spool {
    /// Opens or creates the spool in `dir`; damaged ranges are copied to `dir/damaged/`. Never refuses because of damage.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: SpoolOptions) -> io::Result<(Spool, SpoolReport)> {
        disk.create_dir_all(dir)?;
        let mut numbers: Vec<u64> = disk.list(dir)?.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        let mut spool = Spool {
            disk,
            dir: dir.to_owned(),
            options,
            segments: VecDeque::new(),
            active: None,
            unsynced: Vec::new(),
            pending: HashMap::new(),
            outstanding: HashMap::new(),
            records: 0,
            next_sequence: 0,
            next_segment: 0,
            damaged: (0, 0),
        };
        let mut report = SpoolReport::default();
        for (position, number) in numbers.iter().enumerate() {
            spool.recover(*number, position + 1 == numbers.len(), &mut report)?;
            spool.next_segment = number + 1;
        }
        spool.disk.sync_dir(dir)?;
        spool.drop_done_segments()?;
        report.records = spool.records;
        spool.damaged = (report.damaged_ranges, report.damaged_bytes);
        Ok((spool, report))
    }

    /// Reads a segment of an earlier run; it is never appended to again.
    fn recover(&mut self, number: u64, newest: bool, report: &mut SpoolReport) -> io::Result<()> {
        let path = segment::path(&self.dir, number);
        let bytes = self.disk.read(&path)?;
        let scan = format::scan(&bytes, number, newest);
        let file = self.disk.open(&path)?;
        if scan.torn_bytes > 0 {
            file.set_len(scan.good_bytes)?;
            report.torn_bytes += scan.torn_bytes;
        }
        // What a killed process had not synced may stand in the page cache only; from here on it counts.
        file.sync()?;
        for range in &scan.damaged {
            self.set_aside(number, *range, &bytes);
        }
        report.damaged_ranges += scan.damaged.len() as u64;
        report.damaged_bytes += segment::damaged_bytes(&scan.damaged);
        self.adopt(number, &scan);
        Ok(())
    }

    fn adopt(&mut self, number: u64, scan: &Scan) {
        let first = scan
            .records
            .first()
            .map(|record| record.sequence)
            .or(scan.head_first)
            .unwrap_or(self.next_sequence);
        let end = scan.records.last().map_or(first, |record| record.sequence + 1);
        segment::count_keys(&scan.records, &mut self.pending);
        self.records += scan.records.len() as u64;
        self.next_sequence = self.next_sequence.max(end);
        self.segments.push_back(Segment {
            number,
            bytes: scan.good_bytes,
            records: scan.records.len() as u64,
            sequences: first..end,
            ..Segment::default()
        });
    }

    /// Copies a damaged range to `damaged/`, if the disk takes it and there are not too many.
    fn set_aside(&self, number: u64, range: DamagedRange, bytes: &[u8]) {
        let folder = self.dir.join("damaged");
        let path = folder.join(format!("{number:016x}-{}-{}", range.at, range.bytes));
        let start = usize::try_from(range.at).unwrap_or(usize::MAX).min(bytes.len());
        let end = usize::try_from(range.at + range.bytes).unwrap_or(usize::MAX).min(bytes.len());
        tracing::error!(spool = %self.dir.display(), segment = number, at = range.at, bytes = range.bytes, "damaged range in the spool set aside");
        if self.disk.list(&folder).is_ok_and(|names| names.len() < DAMAGED_COPIES_MAX) {
            let copied = self
                .disk
                .create_dir_all(&folder)
                .and_then(|()| logferry_durable::replace(&*self.disk, &path, &bytes[start..end]));
            if let Err(error) = copied {
                tracing::error!(%error, "the damaged range could not be copied");
            }
        }
    }

    fn segment_bytes_max(&self) -> u64 {
        self.options.segment_bytes.min(self.options.bytes_max / SEGMENTS_IN_CAP_MIN).max(1)
    }

    fn disk_error(&self, source: io::Error) -> AppendError {
        AppendError::Disk { dir: self.dir.clone(), source }
    }

    /// Appends a record (`parts` are written one after another). Not durable, nor counted, before [`Spool::sync`].
    pub fn append(&mut self, key: u128, parts: &[&[u8]]) -> Result<RecordId, AppendError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > PAYLOAD_BYTES_MAX {
            let message = format!("a record of {length} bytes is over the limit of {PAYLOAD_BYTES_MAX}");
            return Err(self.disk_error(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let bytes = segment::record_bytes(length as u32);
        let seal = self.active.as_ref().is_some_and(|active| {
            active.bytes > format::HEAD_BYTES as u64 && active.bytes + bytes > self.segment_bytes_max()
        });
        let head = if seal || self.active.is_none() { format::HEAD_BYTES as u64 } else { 0 };
        let used = self.bytes();
        if used + head + bytes > self.options.bytes_max {
            return Err(AppendError::Full { dir: self.dir.clone(), used, max: self.options.bytes_max });
        }
        if seal {
            self.sync()?;
            self.active = None;
        }
        let result = self.append_record(key, parts, length as u32);
        if let Err(error) = result {
            self.abandon_active();
            return Err(self.disk_error(error));
        }
        Ok(RecordId(self.next_sequence - 1))
    }

    fn append_record(&mut self, key: u128, parts: &[&[u8]], length: u32) -> io::Result<()> {
        if self.active.is_none() {
            self.start_segment()?;
        }
        let (number, synced) = (self.next_segment - 1, self.synced_sequence());
        let sequence = self.next_sequence;
        let Some(active) = &mut self.active else { return Err(io::Error::other("no segment")) };
        let head = format::record_head(number, sequence, key, synced, parts);
        let mut all: Vec<&[u8]> = Vec::with_capacity(1 + parts.len());
        all.push(&head);
        all.extend_from_slice(parts);
        let found = format::Found { at: active.bytes, length, sequence, key };
        active.file.append(&all)?;
        active.bytes += segment::record_bytes(length);
        self.next_sequence += 1;
        self.unsynced.push(found);
        Ok(())
    }

    /// Sequence up to which all records are on the disk (or given up).
    fn synced_sequence(&self) -> u64 {
        self.unsynced.first().map_or(self.next_sequence, |found| found.sequence)
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let number = self.next_segment;
        // Used up even if this fails: a half-made file of this number may be left.
        self.next_segment += 1;
        let file = self.disk.create(&segment::path(&self.dir, number))?;
        let first = self.next_sequence;
        self.segments.push_back(Segment { number, sequences: first..first, ..Segment::default() });
        self.active =
            Some(Active { file, synced_bytes: 0, bytes: format::HEAD_BYTES as u64, name_synced: false });
        let head = format::head(number, first);
        match &self.active {
            Some(active) => active.file.append(&[&head]),
            None => Ok(()),
        }
    }

    /// Gives up the active segment after an error: it ends at its last synced byte, and its descriptor is not used again.
    fn abandon_active(&mut self) {
        self.unsynced.clear();
        let Some(active) = self.active.take() else { return };
        let Some(last) = self.segments.back() else { return };
        let path = segment::path(&self.dir, last.number);
        let cut = if active.synced_bytes == 0 {
            self.segments.pop_back();
            self.disk.unlink(&path)
        } else {
            self.disk
                .open(&path)
                .and_then(|file| file.set_len(active.synced_bytes).and_then(|()| file.sync()))
        };
        if let Err(error) = cut {
            tracing::warn!(file = %path.display(), %error, "the end of a failed segment could not be cut; recovery will see it");
        }
    }

    /// Makes all appended records durable: one fsync for the group, and the folder's for a new segment.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let synced = active
            .file
            .sync()
            .and_then(|()| if active.name_synced { Ok(()) } else { self.disk.sync_dir(&self.dir) });
        if let Err(error) = synced {
            self.abandon_active();
            return Err(self.disk_error(error));
        }
        active.name_synced = true;
        active.synced_bytes = active.bytes;
        let group = std::mem::take(&mut self.unsynced);
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes = active.bytes;
            segment.records += group.len() as u64;
            segment.sequences.end = self.next_sequence;
            if let Some(unread) = &mut segment.unread {
                unread.extend(&group);
            }
        }
        self.records += group.len() as u64;
        segment::count_keys(&group, &mut self.pending);
        Ok(())
    }

    /// Next record in order for replay, durable ones only; `None` when all were read. Damaged records are set aside, counted and
    /// passed over.
    pub fn read_next(&mut self) -> io::Result<Option<Record>> {
        for index in 0..self.segments.len() {
            if self.segments[index].unread.is_none() {
                self.load_index(index)?;
            }
            while let Some(found) = self.segments[index].unread.as_mut().and_then(VecDeque::pop_front) {
                if self.segments[index].acked.contains(&found.sequence) {
                    continue;
                }
                match self.read_record(self.segments[index].number, &found) {
                    Ok(Some(record)) => {
                        self.outstanding.insert(record.id.0, record.key);
                        return Ok(Some(record));
                    }
                    Ok(None) => self.give_up(index, &found),
                    Err(error) => {
                        if let Some(unread) = &mut self.segments[index].unread {
                            unread.push_front(found);
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    fn load_index(&mut self, index: usize) -> io::Result<()> {
        let segment = &self.segments[index];
        let mut bytes = self.disk.read(&segment::path(&self.dir, segment.number))?;
        // What waits for its sync is not for replay.
        bytes.truncate(usize::try_from(segment.bytes).unwrap_or(usize::MAX));
        let scan = format::scan(&bytes, segment.number, false);
        let lost = segment.records.saturating_sub(scan.records.len() as u64);
        self.segments[index].unread = Some(scan.records.into());
        if lost > 0 {
            tracing::error!(spool = %self.dir.display(), lost, "records of a segment were damaged since it was opened");
            for range in &scan.damaged {
                self.set_aside(self.segments[index].number, *range, &bytes);
                self.damaged.0 += 1;
                self.damaged.1 += range.bytes;
            }
            self.recount()?;
        }
        Ok(())
    }

    /// Counts records and keys anew, from all segments, after damage has made the counts wrong.
    fn recount(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.records = 0;
        for segment in &mut self.segments {
            let mut bytes = self.disk.read(&segment::path(&self.dir, segment.number))?;
            bytes.truncate(usize::try_from(segment.bytes).unwrap_or(usize::MAX));
            let mut found = format::scan(&bytes, segment.number, false).records;
            segment.records = found.len() as u64;
            segment.acked.retain(|sequence| found.iter().any(|record| record.sequence == *sequence));
            found.retain(|record| !segment.acked.contains(&record.sequence));
            self.records += found.len() as u64;
            segment::count_keys(&found, &mut self.pending);
        }
        self.drop_done_segments()
    }

    /// A record as it is on the disk; `None` when it is damaged.
    fn read_record(&self, number: u64, found: &format::Found) -> io::Result<Option<Record>> {
        let mut bytes = vec![0; usize::try_from(segment::record_bytes(found.length)).unwrap_or(usize::MAX)];
        let file = self.disk.open(&segment::path(&self.dir, number))?;
        match file.read_exact_at(&mut bytes, found.at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let good = format::parse_record_head(&bytes).is_some_and(|head| {
            let (front, payload) = bytes.split_at(format::RECORD_HEAD_BYTES);
            head.sequence == found.sequence && head.checks(number, front, payload)
        });
        Ok(good.then(|| Record {
            id: RecordId(found.sequence),
            key: found.key,
            payload: Bytes::from(bytes).slice(format::RECORD_HEAD_BYTES..),
        }))
    }

    /// A record that went bad between indexing and reading.
    fn give_up(&mut self, index: usize, found: &format::Found) {
        let number = self.segments[index].number;
        let range = DamagedRange { at: found.at, bytes: segment::record_bytes(found.length) };
        if let Ok(bytes) = self.disk.read(&segment::path(&self.dir, number)) {
            self.set_aside(number, range, &bytes);
        }
        self.damaged.0 += 1;
        self.damaged.1 += range.bytes;
        self.settle(index, found.sequence, found.key);
    }

    /// Starts replay anew from the oldest record that is not acknowledged.
    pub fn rewind(&mut self) {
        self.segments.iter_mut().for_each(|segment| segment.unread = None);
    }

    /// A durable record has arrived, whether it was read or its owner still had it: it will not be read (again). When all records of a
    /// segment have arrived, its file is unlinked. Acknowledging twice changes nothing.
    pub fn ack(&mut self, id: RecordId) -> io::Result<()> {
        let read = self.outstanding.remove(&id.0);
        let Some(key) = read.map_or_else(|| self.key_of_unread(id), |key| Ok(Some(key)))? else {
            return Ok(());
        };
        if let Some(index) = self.segments.iter().position(|segment| segment.sequences.contains(&id.0)) {
            self.settle(index, id.0, key);
        }
        self.drop_done_segments()
    }

    /// Key of a record that was not read yet; `None` when there is no such record, or it was acknowledged.
    fn key_of_unread(&mut self, id: RecordId) -> io::Result<Option<u128>> {
        let holds = |segment: &Segment| segment.sequences.contains(&id.0);
        let Some(index) = self.segments.iter().position(holds) else { return Ok(None) };
        if self.segments[index].unread.is_none() {
            self.load_index(index)?;
        }
        // Loading drops segments when it meets damage.
        let Some(segment) = self.segments.iter().find(|segment| holds(segment)) else { return Ok(None) };
        let Some(unread) = segment.unread.as_ref().filter(|_| !segment.acked.contains(&id.0)) else {
            return Ok(None);
        };
        Ok(unread.binary_search_by_key(&id.0, |found| found.sequence).ok().map(|at| unread[at].key))
    }

    fn settle(&mut self, index: usize, sequence: u64, key: u128) {
        if !self.segments[index].acked.insert(sequence) {
            return;
        }
        self.records -= 1;
        if let Some(count) = self.pending.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&key);
            }
        }
    }

    /// Unlinks segments whose records have all arrived; the active one too once nothing waits for its sync.
    fn drop_done_segments(&mut self) -> io::Result<()> {
        let mut dropped = false;
        let mut index = 0;
        while index < self.segments.len() {
            let is_active = self.active.is_some() && index + 1 == self.segments.len();
            let idle = self.unsynced.is_empty();
            if !self.segments[index].is_done() || (is_active && !idle) {
                index += 1;
                continue;
            }
            if is_active {
                self.active = None;
            }
            match self.disk.unlink(&segment::path(&self.dir, self.segments[index].number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.segments.remove(index);
            dropped = true;
        }
        if dropped { self.disk.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// Records of `key` that are durable and not acknowledged.
    pub fn pending(&self, key: u128) -> u64 {
        self.pending.get(&key).copied().unwrap_or(0)
    }

    /// Such records, per key that has any.
    pub fn pending_by_key(&self) -> HashMap<u128, u64> {
        self.pending.clone()
    }

    /// Records that are durable and not acknowledged.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes on disk, with what waits for a sync.
    pub fn bytes(&self) -> u64 {
        let kept: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let unsynced = self.active.as_ref().map_or(0, |active| active.bytes - active.synced_bytes);
        kept + unsynced
    }

    /// Damaged ranges seen since the start, at recovery and on reading, and the bytes in them.
    pub fn damaged(&self) -> (u64, u64) {
        self.damaged
    }
}
