//! Opening: what a stop, a crash or damage has left is made a spool again. Nothing of it keeps the spool from starting.

use crate::books::{Books, Kept};
use crate::error::SpoolError;
use crate::footer;
use crate::format::{self, Found, Head, SegmentHead};
use crate::report::{Damage, LostSegment, SpoolReport};
use crate::scan::{Known, Scan, scan};
use crate::segment::{self, Segment};
use crate::spool::{Leaving, Spool, SpoolOptions};
use crate::window::Window;
use logferry_durable::{Disk, DiskFile};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A segment file that was opened.
struct Opened {
    number: u64,
    file: Box<dyn DiskFile>,
    length: u64,
    head: Option<SegmentHead>,
}

/// What is there under a segment's name.
enum Look {
    Opened(Opened),
    Gone,
    /// Not to be touched: why, and how long it is.
    LeftAlone(String, u64),
}

fn look(disk: &dyn Disk, path: &Path, number: u64) -> Look {
    let opened = disk.open(path).and_then(|file| file.len().map(|length| (file, length)));
    let (file, length) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Gone,
        Err(error) => return Look::LeftAlone(error.to_string(), 0),
    };
    let head = match format::read_head(&*file, length, number) {
        Head::Good(head) => Some(head),
        Head::Bad => None,
        Head::Newer(version) => {
            let why = format!(
                "it was written by a newer program (format version {version}): drain the spool with that one, or upgrade this one"
            );
            return Look::LeftAlone(why, length);
        }
    };
    Look::Opened(Opened { number, file, length, head })
}

impl Spool {
    /// Opens or creates the spool in `dir`; damaged ranges are copied to `dir/damaged/`. Damage never keeps it from opening.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: SpoolOptions,
    ) -> Result<(Spool, SpoolReport), SpoolError> {
        let folder = |source| SpoolError::Folder { dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(folder)?;
        let mut numbers: Vec<u64> =
            disk.list(dir).map_err(folder)?.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        let (books, mut kept) = Books::open(disk.clone(), dir);
        let mut spool = Spool {
            disk,
            dir: dir.to_owned(),
            options,
            segments: VecDeque::new(),
            active: None,
            books,
            leaving: Vec::new(),
            left_alone: Vec::new(),
            pending: HashMap::new(),
            outstanding: HashMap::new(),
            cursor: 0,
            reader: None,
            indexes: VecDeque::new(),
            read_failures: (0, 0),
            next_sequence: kept.next_sequence,
            synced_end: 0,
            next_segment: numbers.last().map_or(0, |last| last.saturating_add(1)).max(kept.next_segment),
            damage: Damage::default(),
        };
        let mut report = SpoolReport::default();
        for (place, number) in numbers.iter().enumerate() {
            // Only the segment made right after it can tell where it ended.
            let next = numbers.get(place + 1).copied().filter(|next| *next == number + 1);
            spool.recover(*number, next, &mut kept, &mut report);
        }
        spool.finish_recovery(&kept, &mut report);
        Ok((spool, report))
    }

    fn recover(&mut self, number: u64, next: Option<u64>, kept: &mut Kept, report: &mut SpoolReport) {
        let path = self.path(number);
        let opened = match look(&*self.disk, &path, number) {
            Look::Opened(opened) => opened,
            // Then the books tell below whether it is missed.
            Look::Gone => return,
            Look::LeftAlone(why, bytes) => {
                let known = kept.segments.remove(&number).unwrap_or_default();
                return self.leave_file_alone(Segment { number, bytes, ..known }, why, report);
            }
        };
        if let Some(head) = opened.head.filter(|head| kept.leaving.contains(&(number, head.salt))) {
            let (salt, bytes) = (head.salt, opened.length);
            return self.leaving.push(Leaving { number, salt, bytes, kept: false, unlinked: false });
        }
        // The books may speak of another file of this number, from before somebody put an older copy here.
        let same = |segment: &Segment| {
            opened.head.is_none_or(|head| head.salt == segment.salt && head.first == segment.sequences.start)
        };
        let books =
            if kept.segments.get(&number).is_some_and(same) { kept.segments.remove(&number) } else { None };
        let next = next.and_then(|next| self.head_of(next));
        let mut known = Known::new(books.as_ref(), next);
        // The books would know it, as they know a later one, if any of it had ever been synced.
        let unknown = number < kept.next_segment && !kept.suspect;
        if books.is_none() && (unknown || known.synced_end <= self.synced_end) {
            known.synced_end = 0;
        }
        let (segment, found) = match by_footer(&opened, books.as_ref()) {
            Some(sealed) => sealed,
            None => self.by_scan(&opened, books, &known, report),
        };
        if segment.sequences.start < self.segments.back().map_or(0, |last| last.sequences.end) {
            let why = "its records have the numbers of others: it is read when those are gone".to_owned();
            return self.leave_file_alone(segment, why, report);
        }
        self.next_sequence = self.next_sequence.max(segment.sequences.end);
        self.synced_end = self.synced_end.max(segment.sequences.end);
        self.segments.push_back(segment);
        self.count_keys(self.segments.len() - 1, &found);
    }

    fn leave_file_alone(&mut self, segment: Segment, why: String, report: &mut SpoolReport) {
        let name = segment::name(segment.number);
        tracing::error!(spool = %self.dir.display(), segment = name, why, "a segment of the spool is left alone");
        self.left_alone.push(segment);
        report.left_alone.push((name, why));
    }

    fn head_of(&self, number: u64) -> Option<SegmentHead> {
        match look(&*self.disk, &self.path(number), number) {
            Look::Opened(opened) => opened.head,
            _ => None,
        }
    }

    fn by_scan(
        &mut self,
        opened: &Opened,
        books: Option<Segment>,
        known: &Known,
        report: &mut SpoolReport,
    ) -> (Segment, Vec<Found>) {
        let Opened { number, file, length, head } = opened;
        let mut window = Window::new(&**file, *length);
        let scan = scan(&mut window, *number, *head, known);
        let unreadable = window.unreadable;
        report.segments_scanned += 1;
        report.torn_bytes += scan.torn_bytes;
        for range in &scan.damaged {
            self.set_aside(*number, *range, &**file);
        }
        let first =
            head.map(|head| head.first).or(known.first).or(scan.records.first().map(|found| found.sequence));
        // Without head and records it holds nothing, and stands behind those before it.
        let first = first.unwrap_or(self.segments.back().map_or(0, |last| last.sequences.end));
        let end = scan
            .records
            .last()
            .map_or(first, |found| found.sequence + 1)
            .max(books.as_ref().map_or(first, |segment| segment.sequences.end));
        let books = books.unwrap_or_default();
        let mut segment = Segment {
            number: *number,
            salt: scan.salt.flatten().or(books.salt),
            bytes: scan.good_bytes,
            records_bytes: scan.good_bytes,
            sequences: first..end,
            settled: books.settled,
            sealed: true,
            unreadable,
        };
        self.damage.records_lost += segment.settle_missing(&scan.records);
        if let Err(error) = self.secure(opened, &scan, &mut segment) {
            tracing::error!(file = %self.path(*number).display(), %error, "what was found could not be brought to the disk");
            report.unsecured = Some(error.to_string());
        }
        (segment, scan.records)
    }

    /// Cuts what is torn, brings to the disk what a killed process may have left in memory only (its fsync may have failed, so
    /// another one would not do), and writes the footer.
    fn secure(&self, opened: &Opened, scan: &Scan, segment: &mut Segment) -> io::Result<()> {
        let Opened { number, file, length, head } = opened;
        if scan.good_bytes < *length {
            file.set_len(scan.good_bytes)?;
            file.sync()?;
        }
        if scan.synced_bytes < scan.good_bytes {
            self.disk.rewrite(&self.path(*number), scan.synced_bytes, scan.good_bytes)?;
        }
        let Some(SegmentHead { first, salt: Some(salt), .. }) = *head else { return Ok(()) };
        let whole = segment.sequences.end - segment.sequences.start == scan.records.len() as u64;
        if whole && !scan.records.is_empty() && scan.damaged.is_empty() {
            let footer = footer::encode(*number, first, salt, &scan.records);
            file.append(&[&footer])?;
            segment.bytes += footer.len() as u64;
        }
        Ok(())
    }

    fn finish_recovery(&mut self, kept: &Kept, report: &mut SpoolReport) {
        for (number, segment) in &kept.segments {
            let lost = LostSegment { name: segment::name(*number), records: segment.waiting() };
            if kept.suspect || lost.records == 0 {
                // Perhaps it had arrived, and that is what the books have lost.
                continue;
            }
            tracing::error!(spool = %self.dir.display(), segment = lost.name, lost = lost.records, "a segment of the spool was removed");
            self.damage.segments_lost += 1;
            self.damage.records_lost += lost.records;
            report.lost_segments.push(lost);
        }
        if let Err(error) = self.drop_done() {
            tracing::warn!(%error, "a segment that is done stays for now");
        }
        // This syncs the folder too: names that a killed process had not synced count from here on.
        if let Err(error) = self.keep_books() {
            report.unsecured = Some(error.to_string());
        }
        report.records = self.len();
        report.damage = self.damage;
    }
}

/// A sealed segment, if it has a good footer that does not know less than the books.
fn by_footer(opened: &Opened, books: Option<&Segment>) -> Option<(Segment, Vec<Found>)> {
    let head = opened.head.filter(|head| head.salt.is_some())?;
    // A disk that cannot read the footer may read the rest.
    let found = footer::read(&*opened.file, opened.length, opened.number, head).ok().flatten()?;
    let end = head.first + found.len() as u64;
    let known_end = books.map_or(0, |segment| segment.sequences.end);
    let segment = Segment {
        number: opened.number,
        salt: head.salt,
        bytes: opened.length,
        records_bytes: found.last().map_or(head.bytes(), Found::end),
        sequences: head.first..end,
        settled: books.map(|segment| segment.settled.clone()).unwrap_or_default(),
        sealed: true,
        unreadable: false,
    };
    (known_end <= end).then_some((segment, found))
}
