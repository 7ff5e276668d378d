//! For the operator: looking into a spool without changing it.

use crate::books::{self, Kept};
use crate::format::{self, DamagedRange, Found, Head, SegmentHead};
use crate::report::LostSegment;
use crate::scan::{Known, scan};
use crate::segment::{self, Segment};
use crate::window::Window;
use crate::{Record, RecordId};
use bytes::Bytes;
use logferry_durable::{Disk, DiskFile, Log, RealDisk};
use std::io;
use std::path::{Path, PathBuf};

/// What a segment file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether its head is good.
    pub head_good: bool,
    /// Good records.
    pub records: u64,
    /// Those of them that have not arrived, as the books know. Of a running collector, a few of them may have.
    pub waiting: u64,
    /// Bytes of the payloads of those that wait.
    pub payload_bytes: u64,
    /// Ranges in which nothing could be read; a torn end is among them.
    pub damaged: Vec<DamagedRange>,
}

/// What a spool folder holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Segments that were removed although not all of them had arrived.
    pub lost_segments: Vec<LostSegment>,
    /// Segments that could not be read, or are of a newer version: name and reason.
    pub unreadable: Vec<(String, String)>,
    /// Files that are none of the spool's.
    pub foreign_files: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is damaged or gone. (A number that is missing is no damage: a segment goes when all of it has arrived.)
    pub fn is_good(&self) -> bool {
        let segment_good = |segment: &SegmentReport| segment.head_good && segment.damaged.is_empty();
        self.segments.iter().all(segment_good) && self.lost_segments.is_empty() && self.unreadable.is_empty()
    }
}

/// What lies in the folder.
struct Folder<'a> {
    dir: &'a Path,
    numbers: Vec<u64>,
    foreign: Vec<String>,
}

impl Folder<'_> {
    fn list(dir: &Path) -> io::Result<Folder<'_>> {
        if !dir.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{}: no such folder", dir.display()),
            ));
        }
        let (mut numbers, mut foreign) = (Vec::new(), Vec::new());
        for name in RealDisk.list(dir)? {
            match segment::number(&name) {
                Some(number) => numbers.push(number),
                None if name == "lock" || name.starts_with(&format!("{}.", books::NAME)) => {}
                None => foreign.push(name),
            }
        }
        numbers.sort_unstable();
        Ok(Folder { dir, numbers, foreign })
    }

    fn books(&self) -> io::Result<Kept> {
        let found = Log::look(&RealDisk, self.dir, books::NAME)?;
        Ok(Kept::from_log(found.snapshot.as_deref(), &found.records, &found.report))
    }

    fn head_of(&self, number: u64) -> Option<SegmentHead> {
        let file = RealDisk.open_for_reading(&segment::path(self.dir, number)).ok()?;
        let bytes = file.len().ok()?;
        match format::read_head(&*file, bytes, number) {
            Head::Good(head) => Some(head),
            _ => None,
        }
    }

    /// Opens a segment and finds its records; `None` when it has gone since it was listed.
    fn open(&self, number: u64, kept: &Kept) -> Result<Option<Looked>, String> {
        let path = segment::path(self.dir, number);
        let opened = RealDisk.open_for_reading(&path).and_then(|file| file.len().map(|bytes| (file, bytes)));
        let (file, bytes) = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| error.to_string())?,
        };
        let mut window = Window::new(&*file, bytes);
        let head = match format::read_head(&*file, bytes, number) {
            Head::Good(head) => Some(head),
            Head::Bad => None,
            Head::Newer(version) => {
                return Err(format!("written by a newer program (format version {version})"));
            }
        };
        let kept = kept.segments.get(&number).filter(|kept| head.is_none_or(|head| head.salt == kept.salt));
        let next = self.numbers.contains(&(number + 1)).then(|| self.head_of(number + 1)).flatten();
        let known = Known::new(kept, next);
        let scan = scan(&mut window, number, head, &known);
        let waits = |found: &Found| kept.is_none_or(|kept: &Segment| !kept.is_settled(found.sequence));
        let waiting = scan.records.iter().copied().filter(waits).collect();
        Ok(Some(Looked {
            file,
            bytes,
            head_good: head.is_some(),
            records: scan.records.len() as u64,
            waiting,
            damaged: scan.damaged,
        }))
    }
}

struct Looked {
    file: Box<dyn DiskFile>,
    bytes: u64,
    head_good: bool,
    records: u64,
    waiting: Vec<Found>,
    damaged: Vec<DamagedRange>,
}

/// Checks every record of the spool in `dir`. Reads only; works beside a running collector, whose newest records may then look torn.
pub fn check(dir: &Path) -> io::Result<CheckReport> {
    let folder = Folder::list(dir)?;
    let kept = folder.books()?;
    let mut report = CheckReport { foreign_files: folder.foreign.clone(), ..CheckReport::default() };
    for &number in &folder.numbers {
        match folder.open(number, &kept) {
            Ok(Some(looked)) => report.segments.push(SegmentReport {
                path: segment::path(dir, number),
                bytes: looked.bytes,
                head_good: looked.head_good,
                records: looked.records,
                waiting: looked.waiting.len() as u64,
                payload_bytes: looked.waiting.iter().map(|found| u64::from(found.length)).sum(),
                damaged: looked.damaged,
            }),
            Ok(None) => {}
            Err(why) => report.unreadable.push((segment::name(number), why)),
        }
    }
    report.lost_segments = lost_segments(dir)?;
    Ok(report)
}

/// Segments of which the books say that they should be there. The folder is listed after the books were read: a collector that
/// runs removes a segment only after its books say so, and enters it in its books only when it is there.
fn lost_segments(dir: &Path) -> io::Result<Vec<LostSegment>> {
    let missing = |kept: &Kept| -> io::Result<Vec<LostSegment>> {
        let there = Folder::list(dir)?.numbers;
        let gone = kept.segments.iter().filter(|(number, _)| there.binary_search(number).is_err());
        let lost = gone.map(|(number, segment)| LostSegment {
            name: segment::name(*number),
            records: segment.waiting(),
        });
        Ok(lost.filter(|lost| lost.records > 0).collect())
    };
    let first = missing(&Folder::list(dir)?.books()?)?;
    if first.is_empty() {
        return Ok(first);
    }
    // Removed between the two looks, after all of it had arrived: then the books know by now.
    let kept = Folder::list(dir)?.books()?;
    let again = missing(&kept)?;
    Ok(if kept.suspect { Vec::new() } else { again })
}

/// What [`export`] gave out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// Records.
    pub records: u64,
    /// Segments that could not be read, or went while they were read: name and reason.
    pub unreadable: Vec<(String, String)>,
}

/// Gives every readable record of the spool in `dir` that has not arrived to `take`, in order. Reads only.
pub fn export(dir: &Path, mut take: impl FnMut(Record) -> io::Result<()>) -> io::Result<ExportReport> {
    let folder = Folder::list(dir)?;
    let kept = folder.books()?;
    let mut report = ExportReport::default();
    for &number in &folder.numbers {
        let looked = match folder.open(number, &kept) {
            Ok(Some(looked)) => looked,
            Ok(None) => continue,
            Err(why) => {
                report.unreadable.push((segment::name(number), why));
                continue;
            }
        };
        for found in looked.waiting {
            let mut bytes = vec![0; usize::try_from(found.bytes()).unwrap_or(usize::MAX)];
            looked.file.read_exact_at(&mut bytes, found.at)?;
            let payload = Bytes::from(bytes).slice(found.head_bytes as usize..);
            take(Record { id: RecordId(found.sequence), key: found.key, payload })?;
            report.records += 1;
        }
    }
    Ok(report)
}
