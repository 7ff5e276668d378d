//! Reading back in order, and acknowledging.

use crate::error::SpoolError;
use crate::format::{self, DamagedRange, Found, Head};
use crate::scan::{Known, scan};
use crate::segment::Segment;
use crate::spool::{Record, RecordId, Spool};
use crate::window::Window;
use crate::{footer, write::Active};
use bytes::Bytes;
use logferry_durable::DiskFile;
use std::io;
use std::sync::Arc;

/// Indexes of segments in memory: one that is replayed, one whose records are acknowledged without having been read.
const INDEXES_MAX: usize = 2;
/// How often what cannot be read is tried before it is passed over.
pub(crate) const READ_TRIES_MAX: u32 = 5;

/// The records of a segment.
pub(crate) struct Index {
    pub(crate) records: Arc<Vec<Found>>,
    /// Records that were found missing just now: the counts by key are wrong.
    pub(crate) lost: u64,
}

/// Why a record was not read.
enum Unread {
    /// It does not check out, or is not there.
    Damaged(Option<Found>),
    /// The segment's file is gone.
    SegmentGone,
    /// The segment's file cannot be opened.
    SegmentFails(io::Error),
    /// This record cannot be read.
    RecordFails(Found, io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Unread {
        match error.kind() {
            io::ErrorKind::NotFound => Unread::SegmentGone,
            _ => Unread::SegmentFails(error),
        }
    }
}

/// Records of a segment file: by its footer, else by reading all of it.
fn read_index(file: &dyn DiskFile, segment: &mut Segment) -> io::Result<(Vec<Found>, Vec<DamagedRange>)> {
    let length = file.len()?;
    let head = match format::read_head(file, length, segment.number) {
        Head::Good(head) if head.salt == segment.salt => Some(head),
        _ => None,
    };
    if let Some(head) = head.filter(|head| segment.sealed && head.salt.is_some())
        && let Some(found) = footer::read(file, length, segment.number, head)?
        && found.len() as u64 == segment.sequences.end - segment.sequences.start
    {
        return Ok((found, Vec::new()));
    }
    let known = Known {
        first: Some(segment.sequences.start),
        synced_bytes: segment.records_bytes,
        synced_end: segment.sequences.end,
        given_up: Some(segment.sequences.end),
    };
    // What waits for its sync is not for replay.
    let mut window = Window::new(file, length.min(segment.records_bytes));
    let scan = scan(&mut window, segment.number, head, &known);
    segment.unreadable |= window.unreadable;
    Ok((scan.records, scan.damaged))
}

impl Spool {
    fn is_active(&self, index: usize) -> bool {
        self.active.is_some() && index + 1 == self.segments.len()
    }

    /// The records of a segment, from memory or from its file. Records that are newly missing there are given up.
    pub(crate) fn index_of(&mut self, index: usize) -> io::Result<Index> {
        let number = self.segments[index].number;
        if let Some(active) = self.active.as_ref().filter(|_| self.is_active(index)) {
            return Ok(Index { records: Arc::new(active.durable().to_vec()), lost: 0 });
        }
        if let Some(place) = self.indexes.iter().position(|(held, _)| *held == number) {
            return Ok(Index { records: self.indexes[place].1.clone(), lost: 0 });
        }
        let file = self.disk.open(&self.path(number))?;
        let (records, damaged) = read_index(&*file, &mut self.segments[index])?;
        let lost = self.segments[index].settle_missing(&records);
        if lost > 0 {
            self.damage.records_lost += lost;
            for range in damaged {
                self.set_aside(number, range, &*file);
            }
        }
        let records = Arc::new(records);
        self.indexes.push_front((number, records.clone()));
        self.indexes.truncate(INDEXES_MAX);
        Ok(Index { records, lost })
    }

    /// Where a record is; `None` when it is not there.
    fn find(&mut self, index: usize, sequence: u64) -> io::Result<Option<Found>> {
        if let Some(active) = self.active.as_ref().filter(|_| self.is_active(index)) {
            let offset = sequence - self.segments[index].sequences.start;
            return Ok(usize::try_from(offset)
                .ok()
                .and_then(|offset| Active::durable(active).get(offset))
                .copied());
        }
        let Index { records, lost } = self.index_of(index)?;
        if lost > 0 {
            self.recount();
        }
        let place = records.binary_search_by_key(&sequence, |found| found.sequence);
        Ok(place.ok().map(|place| records[place]))
    }

    /// The first record from the cursor on that waits.
    fn next_waiting(&self) -> Option<(usize, u64)> {
        let from = self.segments.partition_point(|segment| segment.sequences.end <= self.cursor);
        (from..self.segments.len())
            .find_map(|index| Some((index, self.segments[index].next_waiting(self.cursor)?)))
    }

    /// Next record in order for replay, durable ones only; `None` when all were read. Damaged records are set aside, counted and
    /// passed over; so is what cannot be read after a few tries, and a segment that is gone.
    pub fn read_next(&mut self) -> Result<Option<Record>, SpoolError> {
        while let Some((index, sequence)) = self.next_waiting() {
            match self.read_record(index, sequence) {
                Ok(record) => {
                    self.cursor = sequence + 1;
                    self.read_failures = (0, 0);
                    self.outstanding.insert(sequence, record.key);
                    return Ok(Some(record));
                }
                Err(Unread::Damaged(found)) => self.give_up(index, sequence, found),
                Err(Unread::SegmentGone) => drop(self.lose_segment(index)),
                Err(Unread::SegmentFails(source)) => {
                    self.try_again(index, sequence, source)?;
                    self.leave_alone(index);
                }
                Err(Unread::RecordFails(found, source)) => {
                    self.try_again(index, sequence, source)?;
                    self.segments[index].unreadable = true;
                    self.give_up(index, sequence, Some(found));
                }
            }
        }
        Ok(None)
    }

    /// An error while there are tries left.
    fn try_again(&mut self, index: usize, sequence: u64, source: io::Error) -> Result<(), SpoolError> {
        let path = self.path(self.segments[index].number);
        self.reader = None;
        let tries = if self.read_failures.0 == sequence { self.read_failures.1 + 1 } else { 1 };
        self.read_failures = (sequence, tries);
        match READ_TRIES_MAX - tries.min(READ_TRIES_MAX) {
            0 => {
                tracing::error!(file = %path.display(), error = %source, "tried in vain");
                Ok(())
            }
            tries_left => Err(SpoolError::Read { path, source, tries_left }),
        }
    }

    fn read_record(&mut self, index: usize, sequence: u64) -> Result<Record, Unread> {
        let number = self.segments[index].number;
        let found = self.find(index, sequence)?.ok_or(Unread::Damaged(None))?;
        if self.reader.as_ref().is_none_or(|(held, _)| *held != number) {
            self.reader = Some((number, self.disk.open(&self.path(number))?));
        }
        let Some((_, file)) = &self.reader else { return Err(Unread::Damaged(Some(found))) };
        let mut bytes = vec![0; usize::try_from(found.bytes()).unwrap_or(usize::MAX)];
        match file.read_exact_at(&mut bytes, found.at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Unread::Damaged(Some(found)));
            }
            Err(error) => return Err(Unread::RecordFails(found, error)),
            Ok(()) => {}
        }
        let good = format::parse_record_head(&bytes, number).is_some_and(|head| {
            head.sequence == sequence
                && head.key == found.key
                && head.salt == self.segments[index].salt
                && head.checks([&bytes[found.head_bytes as usize..]])
        });
        if !good {
            return Err(Unread::Damaged(Some(found)));
        }
        let payload = Bytes::from(bytes).slice(found.head_bytes as usize..);
        Ok(Record { id: RecordId(sequence), key: found.key, payload })
    }

    /// A record that cannot be read: what is there of it is copied, and it is waited for no more.
    fn give_up(&mut self, index: usize, sequence: u64, found: Option<Found>) {
        // It may have been counted as lost already, when the index was read.
        if self.segments[index].is_settled(sequence) {
            return;
        }
        self.damage.records_lost += 1;
        let number = self.segments[index].number;
        if let Some(found) = found {
            let range = DamagedRange { at: found.at, bytes: found.bytes() };
            match self.disk.open(&self.path(number)) {
                Ok(file) => self.set_aside(number, range, &*file),
                Err(error) => tracing::error!(%error, "a damaged record cannot be copied"),
            }
        }
        self.settle(index, sequence, found.map(|found| found.key));
        if let Err(error) = self.drop_done() {
            tracing::warn!(%error, "a segment that is done stays for now");
        }
    }

    /// A durable record has arrived, whether it was read or its owner still had it: it will not be read (again). When all records of a
    /// segment have arrived, its file is unlinked. Acknowledging twice changes nothing.
    pub fn ack(&mut self, id: RecordId) -> Result<(), SpoolError> {
        let read = self.outstanding.remove(&id.0);
        let Some(index) = self.segment_with(id.0) else { return Ok(()) };
        if self.segments[index].is_settled(id.0) {
            return Ok(());
        }
        let key = match read {
            Some(key) => Some(key),
            None => match self.find(index, id.0) {
                Ok(found) => found.map(|found| found.key),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.lose_segment(index);
                    return Ok(());
                }
                // It has arrived all the same; the count of its key is set right when the segment is read.
                Err(_) => None,
            },
        };
        self.settle(index, id.0, key);
        if self.segments[index].is_done() || self.has_files_to_remove() { self.drop_done() } else { Ok(()) }
    }
}
