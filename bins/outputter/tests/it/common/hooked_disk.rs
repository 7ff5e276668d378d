//! The real disk, and something that happens before a file or folder of it is opened.

use logferry_durable::{Disk, DiskFile, RealDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone)]
pub struct HookedDisk {
    before_open: Arc<dyn Fn(&Path) + Send + Sync>,
}

impl HookedDisk {
    pub fn new(before_open: impl Fn(&Path) + Send + Sync + 'static) -> HookedDisk {
        HookedDisk { before_open: Arc::new(before_open) }
    }
}

impl Disk for HookedDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        (self.before_open)(path);
        RealDisk.open(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn rewrite(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        RealDisk.rewrite(path, from, to)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        (self.before_open)(dir);
        RealDisk.list(dir)
    }
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list_dirs(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
    fn modified_ms(&self, path: &Path) -> Option<i64> {
        RealDisk.modified_ms(path)
    }
    fn salt(&self) -> u32 {
        RealDisk.salt()
    }
}
