//! What is not there is no error: files that may be gone already, or not be made yet.

use logferry_durable::{Disk, DiskFile};
use std::io;
use std::path::Path;

/// Opens a file; `None` when there is none.
pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
    or_none(disk.open(path))
}

/// Removes a file. Returns whether there was one.
pub fn unlink(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    or_none(disk.unlink(path)).map(|unlinked| unlinked.is_some())
}

/// Gives a file another name. Returns whether there was one.
pub fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<bool> {
    or_none(disk.rename(from, to)).map(|renamed| renamed.is_some())
}

fn or_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
