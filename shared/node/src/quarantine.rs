//! The quarantine folder: bytes that could not be delivered, set aside with the reason, counted, never deleted.

use logferry_durable::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `VAR_DIR/quarantine`.
pub struct Quarantine {
    _disk: Arc<dyn Disk>,
}
impl Quarantine {
    /// Opens the folder.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Quarantine> {
        todo!("{dir:?}{}", Arc::strong_count(&disk))
    }
    /// Stores `parts` durably under a name made of time, counter and `reason`; logs an error with `note` and counts
    /// `logferry_quarantined_total{reason}`.
    pub fn put(&self, reason: &str, note: &str, parts: &[&[u8]]) -> io::Result<PathBuf> {
        todo!("{reason}{note}{parts:?}")
    }
    /// Files and bytes there.
    pub fn totals(&self) -> (u64, u64) {
        todo!()
    }
}
