//! The files of an input: appended to, sealed, deleted when they were shipped.
//!
//! ```text
//! 000000000017.lines    logferry-input 1 17 after 16 8388513 salt 5be0cd19\n   the head: one line of text, never shipped
//!                       lines, each with its newline
//! ```
//!
//! The head makes the first line of each file its own, so that files with equal lines are told apart. It also says how long the
//! file before it is, for the case that a failed fsync left bytes there which were then written to this one.
//!
//! A start cuts the last file back to its last newline, writes its bytes again (had an earlier fsync failed, they might be readable and
//! yet not on the disk), and appends to a new file.

use super::shelf::Shelf;
use logferry_durable::{Disk, DiskFile, is_full, replace};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Length at which a file is sealed, in bytes; an eighth of `max_bytes` where that is less.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files that fit into the cap at least, so that room comes back early.
const FILES_IN_CAP_MIN: u64 = 8;
/// Age at which a file is sealed.
pub const FILE_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest head, in bytes.
const HEAD_BYTES_MAX: usize = 256;
/// Bytes read at a time when the last newline is looked for.
const CHUNK_BYTES: u64 = 64 << 10;

/// Why lines were not taken.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The cap is reached.
    #[error("its files have reached max_bytes ({0} bytes)")]
    Full(u64),
    /// The disk says no; nothing of the group counts.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// The file that is appended to.
struct Open {
    number: u64,
    file: Box<dyn DiskFile>,
    head_bytes: u64,
    length: u64,
    since: Instant,
}

/// The files of one input. One owner.
pub struct Store {
    disk: Arc<dyn Disk>,
    shelf: Arc<Shelf>,
    bytes_max: u64,
    open: Option<Open>,
    /// Number and length of the file before the next one.
    last: (u64, u64),
    released: BTreeSet<u64>,
}

impl Store {
    /// Opens the folder, creating it, and makes good what a crash left.
    pub fn open(disk: Arc<dyn Disk>, shelf: Arc<Shelf>, bytes_max: u64) -> io::Result<Store> {
        disk.create_dir_all(&shelf.folder)?;
        let mut store = Store { disk, shelf, bytes_max, open: None, last: (0, 0), released: BTreeSet::new() };
        store.recover()?;
        Ok(store)
    }

    fn recover(&mut self) -> io::Result<()> {
        let folder = self.shelf.folder.clone();
        let names = self.disk.list(&folder)?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            self.disk.unlink(&folder.join(name))?;
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| Shelf::number_of(name.as_ref())).collect();
        numbers.sort_unstable();
        let mut next_says: Option<(u64, u64)> = None;
        for number in numbers.into_iter().rev() {
            let path = self.shelf.path(number);
            let file = self.disk.open(&path)?;
            let Some((head, head_bytes)) = read_head(&*file, number)? else {
                error!(path = %path.display(), "a file of an input has no head of ours: it is left alone, and not shipped");
                self.disk.rename(&path, &path.with_extension("damaged"))?;
                self.last.0 = self.last.0.max(number);
                continue;
            };
            let length = file.len()?;
            let end = match next_says {
                Some((before, end)) if before == number => end.min(length),
                Some(_) => length,
                None => last_newline(&*file, length)?,
            };
            if end < length {
                info!(path = %path.display(), bytes = length - end, "an unfinished message that nobody was promised is cut off");
                file.set_len(end)?;
                file.sync()?;
            }
            if next_says.is_none() {
                self.disk.rewrite(&path, 0, end)?;
                self.last = (self.last.0.max(number), end);
            }
            self.shelf.set_head(number, head_bytes);
            self.shelf.set_length(number, end);
            next_says = Some(head);
        }
        self.disk.sync_dir(&folder)
    }

    /// Lets the files take so many bytes more than their cap.
    pub fn allow(&mut self, bytes: u64) {
        self.bytes_max = self.bytes_max.saturating_add(bytes);
    }

    fn file_bytes_max(&self) -> u64 {
        FILE_BYTES_MAX.min(self.bytes_max / FILES_IN_CAP_MIN)
    }

    /// Appends whole lines durably; the number of their file.
    ///
    /// # Errors
    /// Nothing of it counts then, and nothing of it will be shipped by this process.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, StoreError> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.length > open.head_bytes && open.length + bytes > self.file_bytes_max())
        {
            self.seal();
        }
        if self.shelf.bytes() + HEAD_BYTES_MAX as u64 + bytes > self.bytes_max {
            // What is in it could not be released otherwise.
            self.seal();
            return Err(StoreError::Full(self.bytes_max));
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create()?,
        };
        if let Err(error) = open.file.append(parts) {
            // A part may be there: as long as it can be cut off, the file is as it was.
            let is_good = open.file.set_len(open.length).is_ok();
            self.open = Some(open);
            if !is_good || is_full(&error) {
                self.seal_if_used(is_good);
            }
            return Err(error.into());
        }
        if let Err(error) = open.file.sync() {
            // Its descriptor is not to be trusted again. The next file's head says where this one ends.
            if let Err(error) = open.file.set_len(open.length) {
                warn!(%error, "what was not promised stays in a file until the next start");
            }
            self.open = Some(open);
            self.seal();
            return Err(error.into());
        }
        open.length += bytes;
        self.shelf.set_length(open.number, open.length);
        let number = open.number;
        self.open = Some(open);
        Ok(number)
    }

    fn create(&mut self) -> io::Result<Open> {
        let number = self.last.0 + 1;
        let (before, end) = self.last;
        let head = format!("logferry-input 1 {number} after {before} {end} salt {:08x}\n", self.disk.salt());
        let path = self.shelf.path(number);
        replace(&*self.disk, &path, head.as_bytes())?;
        let file = self.disk.open(&path)?;
        let head_bytes = head.len() as u64;
        self.shelf.set_head(number, head_bytes);
        self.shelf.set_length(number, head_bytes);
        self.shelf.set_open(Some(number));
        self.last = (number, head_bytes);
        Ok(Open { number, file, head_bytes, length: head_bytes, since: Instant::now() })
    }

    /// Nothing more is appended to the open file. Gives its number.
    pub fn seal(&mut self) -> Option<u64> {
        let open = self.open.take()?;
        self.last = (open.number, open.length);
        self.shelf.set_open(None);
        Some(open.number)
    }

    /// A full disk must not gather files without lines.
    fn seal_if_used(&mut self, is_good: bool) {
        if self.open.as_ref().is_some_and(|open| !is_good || open.length > open.head_bytes) {
            self.seal();
        }
    }

    /// When the open file will have been open for long enough.
    pub fn seal_at(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since + FILE_AGE_MAX)
    }

    /// A file was shipped. Files go in their order: a head may be needed that tells of the file before it.
    pub fn release(&mut self, number: u64) -> io::Result<()> {
        self.released.insert(number);
        while let Some(first) = self.shelf.first().filter(|first| self.released.contains(first)) {
            match self.disk.unlink(&self.shelf.path(first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.released.remove(&first);
            self.shelf.remove(first);
        }
        Ok(())
    }
}

/// What the head of a file says of the one before it, number and length, and how long the head is; `None` if it is none.
fn read_head(file: &dyn DiskFile, number: u64) -> io::Result<Option<((u64, u64), u64)>> {
    let length = file.len()?.min(HEAD_BYTES_MAX as u64) as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    let newline = memchr::memchr(b'\n', &bytes).map_or(0, |newline| newline as u64 + 1);
    Ok(parse_head(&bytes, number).map(|before| (before, newline)))
}

fn parse_head(bytes: &[u8], number: u64) -> Option<(u64, u64)> {
    let line = &bytes[..memchr::memchr(b'\n', bytes)?];
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let ["logferry-input", "1", own, "after", before, end, "salt", _] = words[..] else { return None };
    (own.parse() == Ok(number)).then_some(())?;
    Some((before.parse().ok()?, end.parse().ok()?))
}

/// Offset after the last newline; the head always has one.
fn last_newline(file: &dyn DiskFile, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES);
        let mut chunk = vec![0; (end - start) as usize];
        file.read_exact_at(&mut chunk, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', &chunk) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::faulty::{Faults, FaultyDisk};
    use std::path::Path;

    fn shelf() -> Arc<Shelf> {
        Arc::new(Shelf::new("lines", Path::new("/inputs/lines"), crossbeam_channel::unbounded().0))
    }

    fn open(disk: &FaultyDisk, bytes_max: u64) -> (Store, Arc<Shelf>) {
        let shelf = shelf();
        (Store::open(Arc::new(disk.clone()), shelf.clone(), bytes_max).expect("opens"), shelf)
    }

    /// The lines of all files, in order, as far as they may be shipped.
    fn shipped(disk: &FaultyDisk, shelf: &Shelf) -> Vec<String> {
        let mut lines = Vec::new();
        for name in disk.list(&shelf.folder).expect("listed") {
            let path = shelf.folder.join(&name);
            let bytes = disk.read(&path).expect("read");
            let length = shelf.readable(&path).min(bytes.len() as u64) as usize;
            let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
            assert!(text.ends_with('\n'), "{name}: {text:?}");
            lines.extend(text.lines().skip(1).map(str::to_owned));
        }
        lines
    }

    #[test]
    fn files_are_sealed_by_size_and_released_in_their_order() {
        let disk = FaultyDisk::new(1);
        let (mut store, shelf) = open(&disk, 1 << 20);
        let line = [&[b'x'; 100_000][..], b"\n"].concat();
        let numbers: Vec<u64> = (0..3).map(|_| store.append(&[&line]).expect("appended")).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(shelf.lines_bytes(), 3 * line.len() as u64, "heads are no lines");
        assert_eq!(open(&disk, 1 << 20).1.lines_bytes(), 3 * line.len() as u64, "nor after a restart");
        assert!(shelf.may_release(1, shelf.readable(&shelf.path(1))));
        assert!(!shelf.may_release(3, shelf.readable(&shelf.path(3))), "the open file may still grow");
        store.release(2).expect("released");
        assert_eq!(disk.list(&shelf.folder).expect("listed").len(), 3, "the first is still there");
        store.release(1).expect("released");
        assert_eq!(disk.list(&shelf.folder).expect("listed"), ["000000000003.lines"]);
    }

    #[test]
    fn the_cap_holds_and_room_comes_back() {
        let disk = FaultyDisk::new(2);
        let (mut store, shelf) = open(&disk, 4_000);
        let line = [&[b'x'; 400][..], b"\n"].concat();
        let mut taken = 0;
        while store.append(&[&line]).is_ok() {
            taken += 1;
            assert!(shelf.bytes() <= 4_000);
        }
        assert!(taken >= 5, "{taken}");
        assert!(matches!(store.append(&[&line]), Err(StoreError::Full(4_000))));
        store.release(1).expect("released");
        store.append(&[&line]).expect("there is room again");
    }

    #[test]
    fn a_file_for_which_there_is_no_room_is_sealed_so_that_it_can_go_whatever_bounds_the_room() {
        for is_quota in [false, true] {
            let disk = FaultyDisk::new(2);
            let (mut store, shelf) = open(&disk, 1 << 20);
            store.append(&[b"one\n"]).expect("appended");
            disk.set_faults(Faults { capacity: Some(0), is_quota, ..Faults::default() });
            store.append(&[b"two\n"]).unwrap_err();
            assert!(shelf.may_release(1, shelf.readable(&shelf.path(1))), "quota: {is_quota}");
        }
    }

    #[test]
    fn a_failed_sync_doubles_nothing_even_after_the_next_start() {
        for seed in 0..200 {
            let disk = FaultyDisk::new(seed);
            let (mut store, shelf) = open(&disk, 1 << 20);
            store.append(&[b"one\n"]).expect("appended");
            disk.set_faults(Faults { fail_sync_in: Some(1), ..Faults::default() });
            assert!(store.append(&[b"two\n"]).is_err());
            disk.set_faults(Faults::default());
            assert_eq!(shipped(&disk, &shelf), ["one"], "seed {seed}");
            store.append(&[b"two\n", b"three\n"]).expect("appended");
            assert_eq!(shipped(&disk, &shelf), ["one", "two", "three"], "seed {seed}");
            disk.crash();
            let (_, shelf) = open(&disk, 1 << 20);
            assert_eq!(shipped(&disk, &shelf), ["one", "two", "three"], "seed {seed}");
        }
    }

    #[test]
    fn what_was_promised_survives_a_power_loss_whole_and_once() {
        for seed in 0..300 {
            let disk = FaultyDisk::new(seed);
            let mut random = logferry_durable::faulty::Random::new(seed);
            let mut promised = Vec::new();
            for round in 0..4 {
                let (mut store, _) = open(&disk, 1 << 20);
                disk.set_faults(Faults { die_after: Some(random.below(30)), ..Faults::default() });
                for number in 0..20 {
                    let line = format!("{round} {number} {}", "x".repeat(random.below(2_000) as usize));
                    match store.append(&[line.as_bytes(), b"\n"]) {
                        Ok(_) => promised.push(line),
                        Err(_) => break,
                    }
                }
                disk.crash();
                disk.set_faults(Faults::default());
                let (_, shelf) = open(&disk, 1 << 20);
                // What was promised to nobody may be there, or be there in part.
                let mut found = shipped(&disk, &shelf);
                found.retain(|line| promised.contains(line));
                assert_eq!(found.len(), promised.len(), "seed {seed}");
                assert!(found == promised, "seed {seed}: another order");
            }
        }
    }
}
