//! Appending: records into the active segment, one fsync for a group, sealing.

use crate::books::Entry;
use crate::error::AppendError;
use crate::footer;
use crate::format::{self, Found, HEAD_BYTES, PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES, SEGMENT_RECORDS_MAX};
use crate::segment::Segment;
use crate::spool::{RecordId, Spool};
use logferry_durable::{DiskFile, is_full};
use std::io;

/// Room is reserved in such steps, so that a disk that runs full mostly says so before a record is written.
const RESERVE_BYTES: u64 = 1 << 20;
/// Room that is left on the disk for the books, and the part of the cap that it is at most.
const LEFT_FREE_BYTES: u64 = 1 << 20;
const LEFT_FREE_PART: u64 = 64;

/// The segment that is appended to.
pub(crate) struct Active {
    file: Box<dyn DiskFile>,
    /// All its records; those behind the first `durable` wait for their sync.
    records: Vec<Found>,
    durable: usize,
    /// Length that is on the disk, in bytes; 0 while the file's name is not.
    synced_bytes: u64,
    /// Length with what waits for a sync.
    bytes: u64,
    reserved_bytes: u64,
    pub(crate) name_synced: bool,
}

impl Active {
    pub(crate) fn unsynced(&self) -> &[Found] {
        &self.records[self.durable..]
    }

    pub(crate) fn durable(&self) -> &[Found] {
        &self.records[..self.durable]
    }

    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.bytes - self.synced_bytes
    }
}

impl Spool {
    fn disk_error(&self, number: u64, source: io::Error) -> AppendError {
        AppendError::Disk { path: self.path(number), source }
    }

    /// Number of the segment that is appended to, or that will be.
    fn number(&self) -> u64 {
        let active = self.active.as_ref().and(self.segments.back());
        active.map_or(self.next_segment, |segment| segment.number)
    }

    /// Appends a record (`parts` are written one after another). Not durable, nor counted, before [`Spool::sync`].
    pub fn append(&mut self, key: u128, parts: &[&[u8]]) -> Result<RecordId, AppendError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: length, max: PAYLOAD_BYTES_MAX });
        }
        let bytes = (RECORD_HEAD_BYTES + length) as u64;
        let seal = self.active.as_ref().is_some_and(|active| {
            let full = active.bytes + bytes > self.segment_bytes_max();
            !active.records.is_empty() && (full || active.records.len() >= SEGMENT_RECORDS_MAX)
        });
        self.check_cap(bytes, seal)?;
        if seal {
            self.seal()?;
        }
        if self.active.is_none() {
            self.start_segment()?;
        }
        self.reserve(bytes)?;
        let number = self.number();
        if let Err(error) = self.append_record(key, parts, length as u32) {
            self.abandon_active();
            return Err(self.disk_error(number, error));
        }
        Ok(RecordId(self.next_sequence - 1))
    }

    /// Whether a record of `bytes` fits below the cap, with the footer that will be needed.
    fn check_cap(&self, bytes: u64, seal: bool) -> Result<(), AppendError> {
        let (head, footer) = match &self.active {
            Some(active) if !seal => (0, footer::bytes_max(active.records.len() + 1)),
            Some(active) => {
                (HEAD_BYTES as u64, footer::bytes_max(active.records.len()) + footer::bytes_max(1))
            }
            None => (HEAD_BYTES as u64, footer::bytes_max(1)),
        };
        let (used, max) = (self.bytes(), self.options.bytes_max);
        if used + head + bytes + footer > max {
            return Err(AppendError::Full { dir: self.dir.clone(), used, max });
        }
        Ok(())
    }

    /// Sets room aside for a record, and leaves some for the books.
    fn reserve(&mut self, bytes: u64) -> Result<(), AppendError> {
        let no_room = |source| AppendError::NoRoom { dir: self.dir.clone(), source };
        let left_free = LEFT_FREE_BYTES.min(self.options.bytes_max / LEFT_FREE_PART);
        let Some(active) = &mut self.active else { return Ok(()) };
        let needed = bytes + footer::bytes_max(active.records.len() + 1);
        if active.bytes + needed <= active.reserved_bytes {
            return Ok(());
        }
        let free = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX).saturating_sub(left_free);
        if free < needed {
            return Err(no_room(io::ErrorKind::StorageFull.into()));
        }
        let step = needed.max(RESERVE_BYTES).min(free);
        active.file.reserve(step).map_err(no_room)?;
        active.reserved_bytes = active.bytes + step;
        Ok(())
    }

    fn append_record(&mut self, key: u128, parts: &[&[u8]], length: u32) -> io::Result<()> {
        let (synced, sequence) = (self.synced_sequence(), self.next_sequence);
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back()) else {
            return Err(io::Error::other("no segment is open"));
        };
        let salt = segment.salt.unwrap_or_default();
        let head = format::record_head(segment.number, salt, sequence, key, synced, parts);
        let mut all: Vec<&[u8]> = Vec::with_capacity(1 + parts.len());
        all.push(&head);
        all.extend_from_slice(parts);
        active.file.append(&all)?;
        let found = Found { at: active.bytes, head_bytes: RECORD_HEAD_BYTES as u32, length, sequence, key };
        active.bytes = found.end();
        active.records.push(found);
        self.next_sequence += 1;
        Ok(())
    }

    /// Sequence up to which all records are on the disk (or given up).
    fn synced_sequence(&self) -> u64 {
        let unsynced = self.active.as_ref().and_then(|active| active.unsynced().first());
        unsynced.map_or(self.next_sequence, |found| found.sequence)
    }

    fn start_segment(&mut self) -> Result<(), AppendError> {
        let number = self.next_segment;
        // Used up even if this fails: a half-made file of this number may be left.
        self.next_segment += 1;
        let file = self.disk.create(&self.path(number)).map_err(|error| self.start_error(number, error))?;
        let (first, salt) = (self.next_sequence, self.disk.salt());
        let before = self.synced_end;
        self.segments.push_back(Segment {
            number,
            salt: Some(salt),
            sequences: first..first,
            ..Segment::default()
        });
        let begun = file.append(&[&format::head(number, first, before, salt)]);
        self.active = Some(Active {
            file,
            records: Vec::new(),
            durable: 0,
            synced_bytes: 0,
            bytes: HEAD_BYTES as u64,
            reserved_bytes: 0,
            name_synced: false,
        });
        begun.map_err(|error| {
            self.abandon_active();
            self.start_error(number, error)
        })
    }

    /// Nothing waits for a sync when a segment is started, so a full disk has harmed nothing.
    fn start_error(&self, number: u64, source: io::Error) -> AppendError {
        match is_full(&source) {
            true => AppendError::NoRoom { dir: self.dir.clone(), source },
            false => self.disk_error(number, source),
        }
    }

    /// Gives up the active segment after an error: it ends at its last synced byte, and its descriptor is not used again.
    fn abandon_active(&mut self) {
        let Some(Active { synced_bytes, .. }) = self.active.take() else { return };
        let Some(last) = self.segments.back_mut() else { return };
        last.sealed = true;
        let (number, end, bytes) = (last.number, last.sequences.end, synced_bytes);
        let path = self.path(number);
        let cut = if synced_bytes == 0 {
            self.segments.pop_back();
            self.disk.unlink(&path)
        } else {
            self.books.write(&[Entry::Synced { number, end, bytes, sealed: true }]);
            self.disk.open(&path).and_then(|file| file.set_len(synced_bytes).and_then(|()| file.sync()))
        };
        if let Err(error) = cut {
            tracing::warn!(file = %path.display(), %error, "the end of a failed segment could not be cut; recovery will see it");
        }
        if let Err(error) = self.drop_done() {
            tracing::warn!(%error, "a segment that is done stays for now");
        }
    }

    /// Makes all appended records durable: one fsync for the group, and the folder's for a new segment.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        let Some(active) = self.active.as_ref().filter(|active| !active.unsynced().is_empty()) else {
            return Ok(());
        };
        let (number, name_synced) = (self.number(), active.name_synced);
        let synced = active.file.sync();
        let synced = synced.and_then(|()| if name_synced { Ok(()) } else { self.disk.sync_dir(&self.dir) });
        if let Err(error) = synced {
            self.abandon_active();
            return Err(self.disk_error(number, error));
        }
        let path = self.path(number);
        if self.disk.open(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let lost = self.lose_segment(self.segments.len() - 1);
            return Err(AppendError::Vanished { path, lost });
        }
        self.is_synced();
        Ok(())
    }

    /// The books are written without an fsync: what they say of a synced end only helps to tell rot from a torn end.
    fn is_synced(&mut self) {
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else { return };
        for found in active.unsynced() {
            *self.pending.entry(found.key).or_default() += 1;
        }
        segment.bytes = active.bytes;
        segment.records_bytes = active.bytes;
        segment.sequences.end = self.next_sequence;
        self.synced_end = self.next_sequence;
        active.durable = active.records.len();
        active.synced_bytes = active.bytes;
        let number = segment.number;
        let synced = Entry::Synced { number, end: self.next_sequence, bytes: active.bytes, sealed: false };
        let opened = Entry::Opened { number, salt: segment.salt, first: segment.sequences.start };
        let is_new = !std::mem::replace(&mut active.name_synced, true);
        match is_new {
            true => self.books.write(&[opened, synced]),
            false => self.books.write(&[synced]),
        }
        self.tend_books();
    }

    /// Syncs what waits, and ends the active segment with its footer.
    pub(crate) fn seal(&mut self) -> Result<(), AppendError> {
        self.sync()?;
        let (Some(active), Some(segment)) = (self.active.take(), self.segments.back_mut()) else {
            return Ok(());
        };
        if active.records.is_empty() {
            // Only its head was written: nobody waits for it.
            let number = segment.number;
            self.segments.pop_back();
            // What is left of it holds nothing.
            let _ = self.disk.unlink(&self.path(number));
            return Ok(());
        }
        segment.sealed = true;
        let salt = segment.salt.unwrap_or_default();
        let bytes = footer::encode(segment.number, segment.sequences.start, salt, &active.records);
        match active.file.append(&[&bytes]) {
            Ok(()) => segment.bytes += bytes.len() as u64,
            // The segment is good without it.
            Err(error) => tracing::debug!(%error, "a footer could not be written"),
        }
        // Gives back what was reserved for more records.
        let _ = active.file.set_len(segment.bytes);
        let (number, end) = (segment.number, segment.sequences.end);
        self.books.write(&[Entry::Synced { number, end, bytes: segment.records_bytes, sealed: true }]);
        Ok(())
    }
}
