//! Files of an hour that lie aside until they are published.

use crate::hour::HourKey;
use logferry_durable::{Disk, DiskFile};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that is whole and on the disk, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Name in the folder of what lies aside.
    pub aside: String,
    /// Path below the folder of all tables.
    pub path: String,
    /// Rows, or rejected lines.
    pub rows: u64,
}

/// Makes the files of one hour.
pub struct Staging {
    disk: Arc<dyn Disk>,
    work: PathBuf,
    id: String,
    next: u32,
    staged: Vec<Staged>,
}

/// A file that is being written aside.
pub struct Aside {
    /// To append to.
    pub file: Arc<dyn DiskFile>,
    name: String,
}

impl Staging {
    /// Files of `key` in the folder `work`.
    pub(crate) fn new(disk: Arc<dyn Disk>, work: &Path, key: &HourKey) -> Staging {
        Staging { disk, work: work.to_owned(), id: key.id(), next: 0, staged: Vec::new() }
    }

    /// A new file.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn create(&mut self) -> io::Result<Aside> {
        let name = format!("{}-{}", self.id, self.next);
        self.next += 1;
        let file = self.disk.create(&self.work.join(&name))?;
        Ok(Aside { file: Arc::from(file), name })
    }

    /// `aside` is whole: syncs it and remembers that it belongs at `path`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(&mut self, aside: Aside, path: String, rows: u64) -> io::Result<()> {
        aside.file.sync()?;
        self.staged.push(Staged { aside: aside.name, path, rows });
        Ok(())
    }

    /// Files so far, finished or not.
    pub fn len(&self) -> usize {
        self.next as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// All that are whole.
    pub(crate) fn into_staged(self) -> Vec<Staged> {
        self.staged
    }
}
