//! A disk in memory that behaves as badly as real ones may, for tests: it forgets what was not synced, tears writes,
//! leaves zeros where data should be, fails fsyncs (and then drops the dirty data, as Linux does), and runs full.
//!
//! Everything random comes from one seed. After [`FaultyDisk::crash`] the content is what a power loss may leave; files opened before it
//! only fail.

mod content;
mod file;
mod random;

use crate::disk::{Disk, DiskFile, parent};
use content::{Change, Naming, Node};
use file::{FaultyFile, due};
pub use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Faults to come.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// So many syncs from now one fails with EIO and drops the dirty data (1: the next one).
    pub fail_sync_in: Option<u64>,
    /// So many appends from now one fails with EIO, having written a random part.
    pub fail_append_in: Option<u64>,
    /// Bytes of all files together; beyond that ENOSPC, having written what fitted.
    pub capacity: Option<u64>,
    /// That is what a quota allows: EDQUOT instead.
    pub is_quota: bool,
    /// After so many more operations that change something, every operation fails until the crash (0: at once).
    pub die_after: Option<u64>,
}

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// fsyncs of files.
    pub syncs: u64,
    /// fsyncs of folders.
    pub dir_syncs: u64,
    /// Operations that change something, in all.
    pub changes: u64,
    /// Bytes that were read from files.
    pub read_bytes: u64,
}

struct Inner {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    naming: Vec<Naming>,
    faults: Faults,
    fail_dir_sync_in: Option<u64>,
    unreadable: BTreeSet<PathBuf>,
    bad_ranges: Vec<(PathBuf, Range<u64>)>,
    counts: Counts,
    epoch: u64,
    random: Random,
    /// Apart from `random`, so that what is written does not depend on the faults.
    salts: Random,
}

/// The faulty disk. Clones are handles to the same disk. Folders need not be made.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<Inner>>);

impl FaultyDisk {
    /// An empty disk; everything random on it comes from `seed`.
    pub fn new(seed: u64) -> FaultyDisk {
        FaultyDisk(Arc::new(Mutex::new(Inner {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            naming: Vec::new(),
            faults: Faults::default(),
            fail_dir_sync_in: None,
            unreadable: BTreeSet::new(),
            bad_ranges: Vec::new(),
            counts: Counts::default(),
            epoch: 0,
            random: Random::new(seed),
            salts: Random::new(!seed),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sets the faults to come, in place of all that were asked for.
    pub fn set_faults(&self, faults: Faults) {
        let mut inner = self.inner();
        inner.faults = faults;
        inner.fail_dir_sync_in = None;
    }

    /// So many fsyncs of folders from now one fails with EIO (1: the next one); its names stay unsynced.
    pub fn fail_dir_sync_in(&self, syncs: u64) {
        self.inner().fail_dir_sync_in = Some(syncs);
    }

    /// Reading the file fails with EIO from now on, as of a bad sector, until the crash.
    pub fn make_unreadable(&self, path: &Path) {
        self.inner().unreadable.insert(path.to_owned());
    }

    /// Reading any of these bytes of an open file fails with EIO from now on, as of bad sectors, until the crash.
    pub fn make_range_unreadable(&self, path: &Path, range: Range<u64>) {
        self.inner().bad_ranges.push((path.to_owned(), range));
    }

    /// How often something was done so far.
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Power loss: what was not synced is lost, torn, turned to zeros or kept, at random. Clears all faults.
    pub fn crash(&self) {
        self.inner().crash();
    }

    /// Damage at rest: passes the bytes of a file to `damage`, durably. False when there is no such file.
    pub fn damage(&self, path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut inner = self.inner();
        let Some(number) = inner.names.get(path).copied() else { return false };
        let node = &mut inner.nodes[number];
        damage(&mut node.data);
        node.durable = node.data.clone();
        node.pending.clear();
        true
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inner().names.keys().cloned().collect()
    }
}

impl Inner {
    /// Counts an operation that changes something; fails when the disk is to be dead by now.
    fn changing(&mut self) -> io::Result<()> {
        self.alive()?;
        if let Some(left) = &mut self.faults.die_after {
            *left = left.saturating_sub(1);
        }
        self.counts.changes += 1;
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.faults.die_after == Some(0) { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn readable(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        if self.unreadable.contains(path) {
            return Err(io::Error::other(format!("{}: input/output error on read", path.display())));
        }
        Ok(())
    }

    fn range_readable(&self, node: usize, wanted: Range<u64>) -> io::Result<()> {
        let overlaps = |bad: &Range<u64>| bad.start < wanted.end && wanted.start < bad.end;
        let bad =
            self.bad_ranges.iter().find(|(path, bad)| self.names.get(path) == Some(&node) && overlaps(bad));
        match bad {
            Some((path, _)) => {
                Err(io::Error::other(format!("{}: input/output error on read", path.display())))
            }
            None => Ok(()),
        }
    }

    fn room(&self) -> u64 {
        self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn no_room(&self) -> io::Error {
        if self.faults.is_quota { ErrorKind::QuotaExceeded.into() } else { ErrorKind::StorageFull.into() }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|node| self.nodes[*node].data.len() as u64).sum()
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.naming.push(naming);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let missing = || io::Error::new(ErrorKind::NotFound, format!("{}: no such file", path.display()));
        self.names.get(path).copied().ok_or_else(missing)
    }

    fn crash(&mut self) {
        let random = &mut self.random;
        // Within a folder names reach the disk in their order; how far they came is chance.
        let mut reached: BTreeMap<PathBuf, bool> = BTreeMap::new();
        for naming in self.naming.drain(..) {
            let goes_on = reached.entry(naming.folder().to_owned()).or_insert(true);
            *goes_on &= !random.one_in(3);
            if *goes_on {
                naming.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        self.nodes.iter_mut().for_each(|node| node.crash(random));
        self.faults = Faults::default();
        self.fail_dir_sync_in = None;
        self.unreadable.clear();
        self.bad_ranges.clear();
        self.epoch += 1;
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.changing()?;
        if inner.names.contains_key(path) {
            return Err(io::Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        let node = inner.nodes.len();
        inner.nodes.push(Node::default());
        inner.name(Naming::Link(path.to_owned(), node));
        Ok(Box::new(FaultyFile { disk: self.clone(), node, epoch: inner.epoch }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner();
        inner.readable(path)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), node: inner.find(path)?, epoch: inner.epoch }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inner = self.inner();
        inner.readable(path)?;
        let data = inner.nodes[inner.find(path)?].data.clone();
        inner.counts.read_bytes += data.len() as u64;
        Ok(data)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.changing()?;
        inner.find(from)?;
        inner.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.changing()?;
        inner.find(path)?;
        inner.name(Naming::Unlink(path.to_owned()));
        Ok(())
    }

    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        self.inner().alive()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.changing()?;
        inner.counts.dir_syncs += 1;
        if due(&mut inner.fail_dir_sync_in) {
            return Err(io::Error::other("input/output error on fsync of a folder"));
        }
        let (reached, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.naming).into_iter().partition(|naming| naming.folder() == dir);
        inner.naming = rest;
        reached.iter().for_each(|naming| naming.apply(&mut inner.durable_names));
        Ok(())
    }

    fn rewrite(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        let mut inner = self.inner();
        inner.changing()?;
        let node = inner.find(path)?;
        let (offset, end) = (from as usize, to as usize);
        let bytes = inner.nodes[node].data.get(offset..end).ok_or(ErrorKind::UnexpectedEof)?.to_vec();
        inner.nodes[node].change(Change::Write { offset, bytes });
        let file = FaultyFile { disk: self.clone(), node, epoch: inner.epoch };
        drop(inner);
        file.sync()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        inner.alive()?;
        let names = inner.names.keys().filter(|path| parent(path) == dir);
        Ok(names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        inner.alive()?;
        let below = inner.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        let nested = below.filter(|path| path.components().count() > 1);
        let names: BTreeSet<String> =
            nested.filter_map(|path| path.iter().next()?.to_str().map(str::to_owned)).collect();
        Ok(names.into_iter().collect())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let inner = self.inner();
        inner.alive()?;
        Ok(inner.room())
    }

    fn salt(&self) -> u32 {
        self.inner().salts.next_u64() as u32
    }
}
