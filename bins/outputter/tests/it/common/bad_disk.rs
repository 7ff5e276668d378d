//! A disk on which one path fails, or all of them.

use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What of the path fails, with EIO, while `is_bad`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    Opening,
    Listing,
    Appending,
    Syncing,
    /// Appending, to this path and all below it.
    AppendingBelow,
}

#[derive(Clone)]
pub struct BadDisk<D> {
    pub disk: D,
    pub path: PathBuf,
    pub bad: Bad,
    pub is_bad: Arc<AtomicBool>,
}

impl<D> BadDisk<D> {
    pub fn new(disk: D, path: PathBuf, bad: Bad) -> BadDisk<D> {
        BadDisk { disk, path, bad, is_bad: Arc::new(AtomicBool::new(true)) }
    }

    fn check(&self, path: &Path, bad: Bad) -> io::Result<()> {
        let is_met = match self.bad {
            Bad::AppendingBelow => bad == Bad::Appending && path.starts_with(&self.path),
            one => one == bad && path == self.path,
        };
        let fails = self.is_bad.load(Relaxed) && is_met;
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn file(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile>
    where
        D: Clone + Send + Sync + 'static,
    {
        Box::new(BadFile { disk: self.clone(), path: path.to_owned(), file })
    }
}

struct BadFile<D> {
    disk: BadDisk<D>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl<D: Send + Sync> DiskFile for BadFile<D> {
    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        self.disk.check(&self.path, Bad::Appending)?;
        self.file.append(parts)
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.check(&self.path, Bad::Syncing)?;
        self.file.sync()
    }
}

impl<D: Disk + Clone + 'static> Disk for BadDisk<D> {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(path, self.disk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check(path, Bad::Opening)?;
        Ok(self.file(path, self.disk.open(path)?))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn rewrite(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        self.check(path, Bad::Syncing)?;
        self.disk.rewrite(path, from, to)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check(dir, Bad::Listing)?;
        self.disk.list(dir)
    }
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list_dirs(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
    fn salt(&self) -> u32 {
        self.disk.salt()
    }
}
