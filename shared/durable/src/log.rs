//! The checksummed append log with snapshots, in two slot files.

use crate::disk::{Disk, DiskFile, parent, replace_with};
use crate::format::{self, Kind, RECORD_BYTES_MAX, Slot};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copies of damaged slots that are kept beside a log.
const SET_ASIDE_MAX: usize = 8;
/// A log that has grown by less than this since its snapshot is not worth another.
const GROWTH_BYTES_MIN: u64 = 1 << 20;

/// What [`Log::open`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Payload of the newest good snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Payloads of the records after it, in order.
    pub records: Vec<Vec<u8>>,
    /// What was wrong and what became of it.
    pub report: RecoveryReport,
}

impl Recovered {
    /// Whether there was no log at all: the first start, or somebody has deleted it.
    pub fn is_new(&self) -> bool {
        self.snapshot.is_none() && self.records.is_empty() && self.report == RecoveryReport::default()
    }
}

/// Damage found when a log was opened. All zero and empty after a clean stop; a crash may leave torn bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of an unfinished last record that were cut.
    pub torn_bytes: u64,
    /// Records in the middle that did not check out and were passed over.
    pub damaged_records: u64,
    /// The newest slot could not be used (or is gone), an older generation was.
    pub from_older_slot: bool,
    /// There were files, but nothing usable in them.
    pub unreadable: bool,
    /// Copies of damaged files that were set aside.
    pub set_aside: Vec<PathBuf>,
}

impl RecoveryReport {
    /// Whether state may be missing: the owner must rebuild or cross-check.
    pub fn is_suspect(&self) -> bool {
        self.damaged_records > 0 || self.from_older_slot || self.unreadable
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecoveryReport { torn_bytes, damaged_records, from_older_slot, unreadable, set_aside } = self;
        let mut found = Vec::new();
        if *unreadable {
            found.push("nothing in its files can be read".to_owned());
        }
        if *from_older_slot {
            found.push("the newer of its files cannot be used, the older one was".to_owned());
        }
        if *damaged_records > 0 {
            let records = if *damaged_records == 1 { "record is" } else { "records are" };
            found.push(format!("{damaged_records} {records} damaged"));
        }
        if *torn_bytes > 0 {
            found.push(format!("{torn_bytes} bytes of a record that was not written whole were cut"));
        }
        if !set_aside.is_empty() {
            let paths: Vec<String> = set_aside.iter().map(|path| path.display().to_string()).collect();
            found.push(format!("copies of what is damaged: {}", paths.join(", ")));
        }
        formatter.write_str(if found.is_empty() { "nothing is damaged" } else { "" })?;
        formatter.write_str(&found.join("; "))
    }
}

/// A checksummed append log with snapshots, in two slots `NAME.0` and `NAME.1`, one for each other generation.
///
/// [`append`](Log::append) only buffers, [`commit`](Log::commit) writes and fsyncs. After an error the log is poisoned and every further commit
/// fails until [`snapshot`](Log::snapshot) has moved it to a fresh file in the other slot. A slot file appears under its name only
/// when it is whole and on the disk, so an unreadable slot is damage and never the trace of a crash.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    name: String,
    file: Box<dyn DiskFile>,
    generation: u64,
    salt: u32,
    sequence_next: u64,
    /// Records below this sequence are on the disk.
    synced_next: u64,
    buffer: Vec<u8>,
    snapshot_bytes: u64,
    grown_bytes: u64,
    unsynced: bool,
    poisoned: bool,
    /// A slot was damaged when the log was opened: only a snapshot puts it away.
    damaged: bool,
}

/// The two slot files of a log, read.
struct Slots {
    newest: Option<Slot>,
    /// Bytes of the files that have something wrong with them.
    damaged: Vec<Vec<u8>>,
    report: RecoveryReport,
}

impl Slots {
    fn read(disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<Slots> {
        let mut found = 0;
        let mut slots = Slots { newest: None, damaged: Vec::new(), report: RecoveryReport::default() };
        for number in 0..2 {
            let bytes = match disk.read(&slot_path(dir, name, number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes?,
            };
            found += 1;
            let slot = format::parse(&bytes).filter(|slot| slot.generation % 2 == number);
            if slot.as_ref().is_none_or(|slot| slot.damaged_records > 0) {
                slots.damaged.push(bytes);
            }
            slots.report.from_older_slot |= slot.is_none();
            let generation = slots.newest.as_ref().map(|newest| newest.generation);
            if slot.as_ref().is_some_and(|slot| generation < Some(slot.generation)) {
                slots.newest = slot;
            }
        }
        let report = &mut slots.report;
        match &slots.newest {
            None => (report.unreadable, report.from_older_slot) = (found > 0, false),
            Some(slot) => {
                // From the second generation on both slots exist: a missing one may have been the newer.
                report.from_older_slot |= found < 2 && slot.generation > 1;
                report.torn_bytes = slot.torn_bytes;
                report.damaged_records = slot.damaged_records;
            }
        }
        Ok(slots)
    }
}

impl Log {
    /// Opens or creates the log `name` in `dir`. Never refuses because of damage: damaged files are copied aside, and the
    /// report says what may be missing. Fails only when nothing can be read or made; a disk that reads but takes no writes gives a
    /// poisoned log. What is given back is on the disk unless the log is poisoned.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> io::Result<(Log, Recovered)> {
        disk.create_dir_all(dir)?;
        let Slots { newest, damaged, mut report } = Slots::read(&*disk, dir, name)?;
        for bytes in &damaged {
            report.set_aside.extend(set_aside(&*disk, dir, name, bytes));
        }
        match newest {
            Some(slot) => Log::reopen(disk, dir, name, slot, report),
            None => Log::create(disk, dir, name, report),
        }
    }

    /// What [`Log::open`] would give back, without changing anything, so that it works beside the process that owns the log: its newest
    /// record may then look torn.
    pub fn look(disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<Recovered> {
        let Slots { newest, report, .. } = Slots::read(disk, dir, name)?;
        Ok(match newest {
            Some(slot) => Recovered { snapshot: slot.snapshot, records: slot.records, report },
            None => Recovered { report, ..Recovered::default() },
        })
    }

    fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &str,
        report: RecoveryReport,
    ) -> io::Result<(Log, Recovered)> {
        let generation = 1;
        let salt = disk.salt();
        let file = write_slot(&*disk, dir, name, (generation, salt), Kind::Start, &[])?;
        let mut log = Log::over(disk, dir, name, file, (generation, salt));
        log.damaged = report.is_suspect();
        Ok((log, Recovered { report, ..Recovered::default() }))
    }

    fn reopen(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &str,
        slot: Slot,
        report: RecoveryReport,
    ) -> io::Result<(Log, Recovered)> {
        let path = slot_path(dir, name, slot.generation % 2);
        let file = disk.open(&path)?;
        let secured = secure(&*disk, &path, &*file, &slot);
        let mut log = Log::over(disk, dir, name, file, (slot.generation, slot.salt));
        // A disk that takes no more writes must not keep the state from being read: the owner's snapshot heals it.
        log.poisoned = secured.is_err();
        log.damaged = report.is_suspect();
        log.sequence_next = slot.sequence_next;
        log.synced_next = slot.sequence_next;
        log.snapshot_bytes = slot.snapshot.as_ref().map_or(0, |payload| payload.len() as u64);
        log.grown_bytes = slot.good_bytes.saturating_sub(log.snapshot_bytes);
        Ok((log, Recovered { snapshot: slot.snapshot, records: slot.records, report }))
    }

    fn over(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &str,
        file: Box<dyn DiskFile>,
        (generation, salt): (u64, u32),
    ) -> Log {
        Log {
            disk,
            dir: dir.to_owned(),
            name: name.to_owned(),
            file,
            generation,
            salt,
            sequence_next: 1,
            synced_next: 1,
            buffer: Vec::new(),
            snapshot_bytes: 0,
            grown_bytes: 0,
            unsynced: false,
            poisoned: false,
            damaged: false,
        }
    }

    /// Buffers one record. Its payload must be at most [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX) bytes.
    pub fn append(&mut self, payload: &[u8]) {
        assert!(
            payload.len() <= RECORD_BYTES_MAX,
            "a record of {} bytes in log {}",
            payload.len(),
            self.name
        );
        let head =
            format::record_head(self.salt, Kind::Record, self.sequence_next, self.synced_next, payload);
        self.sequence_next += 1;
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(payload);
    }

    /// Writes what is buffered, without fsync: it survives a kill, perhaps not a power loss.
    pub fn write(&mut self) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::other(format!(
                "log {} failed earlier and waits for a snapshot",
                self.name
            )));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.file.append(&[&self.buffer]);
        self.poisoned = written.is_err();
        self.grown_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.unsynced = true;
        written
    }

    /// Writes what is buffered and fsyncs everything written so far.
    pub fn commit(&mut self) -> io::Result<()> {
        self.write()?;
        if self.unsynced {
            let synced = self.file.sync();
            self.poisoned = synced.is_err();
            synced?;
            self.unsynced = false;
            self.synced_next = self.sequence_next;
        }
        Ok(())
    }

    /// Replaces the log's content by a snapshot, in the other slot; durable when it returns. The payload must include all
    /// that was appended, buffered records too. Heals a poisoned log; on an error the old slot stays. Refuses a payload of more
    /// than [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX) bytes with `InvalidInput`, and the log goes on as it was.
    pub fn snapshot(&mut self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > RECORD_BYTES_MAX {
            let message = format!(
                "a snapshot of {} bytes for log {}: more than {RECORD_BYTES_MAX} cannot be read back",
                payload.len(),
                self.name
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let generation = self.generation + 1;
        let salt = self.disk.salt();
        let file =
            write_slot(&*self.disk, &self.dir, &self.name, (generation, salt), Kind::Snapshot, payload);
        // Had the rename come through but not its fsync, later records must not go to the older slot.
        self.poisoned = self.poisoned || file.is_err();
        let disk = self.disk.clone();
        *self = Log::over(disk, &self.dir.clone(), &self.name.clone(), file?, (generation, salt));
        self.snapshot_bytes = payload.len() as u64;
        Ok(())
    }

    /// Whether a snapshot is worth it: the log has grown enough, is poisoned, or was opened with damage, which would be told
    /// again at each start.
    pub fn wants_snapshot(&self) -> bool {
        self.poisoned || self.damaged || self.grown_bytes > GROWTH_BYTES_MIN.max(2 * self.snapshot_bytes)
    }

    /// A write, commit or snapshot failed since the last good snapshot.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

fn slot_path(dir: &Path, name: &str, number: u64) -> PathBuf {
    dir.join(format!("{name}.{number}"))
}

/// Brings to the disk what an earlier process left in the page cache only: the slot's name, if it was killed between the rename and
/// the fsync of the folder, and the records whose fsync failed or never came. Cuts the torn tail.
fn secure(disk: &dyn Disk, path: &Path, file: &dyn DiskFile, slot: &Slot) -> io::Result<()> {
    disk.sync_dir(parent(path))?;
    if slot.torn_bytes > 0 {
        file.set_len(slot.good_bytes)?;
        file.sync()?;
    }
    if slot.synced_bytes < slot.good_bytes {
        disk.rewrite(path, slot.synced_bytes, slot.good_bytes)?;
    }
    Ok(())
}

fn write_slot(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    (generation, salt): (u64, u32),
    kind: Kind,
    payload: &[u8],
) -> io::Result<Box<dyn DiskFile>> {
    let head = format::head(generation, salt);
    let record = format::record_head(salt, kind, 0, 0, payload);
    replace_with(disk, &slot_path(dir, name, generation % 2), &[&head, &record, payload])
}

/// Keeps a copy of damaged bytes, if there are not too many already and the disk takes it.
fn set_aside(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Option<PathBuf> {
    let prefix = format!("{name}.damaged-");
    let taken = disk.list(dir).ok()?;
    let number = (0..SET_ASIDE_MAX).find(|number| !taken.contains(&format!("{prefix}{number}")))?;
    let path = dir.join(format!("{prefix}{number}"));
    crate::disk::replace(disk, &path, bytes).ok()?;
    Some(path)
}
