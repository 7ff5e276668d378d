//! The folder with the tables of all hours, and how the tables of one hour appear in it: together, or not at all.
//!
//! ```text
//! event_day=20261121/host=web-1/part-web-1_2026112113~access~access~0.parquet
//! etl_done/access/web-1_2026112113            counts of the hour, as JSON; it is there when the tables are whole
//! etl_fail/access/web-1_2026112113            why there are no (new) tables
//! etl_reject/access/web-1_2026112113.ndjson   lines that failed
//! .manifest/access/web-1_2026112113           which files belong to the hour, as JSON
//! .work/                                      what lies aside, and commits that are not carried out yet
//! ```
//!
//! 1. All files of the hour are written in `.work/` and fsynced.
//! 2. The *commit*, one file replaced atomically, lists them, and the hour's old files that have no successor. From here on the new tables win.
//! 3. The mark is removed, then the old files without a successor, the new ones are renamed into place, manifest and mark are written, the
//!    commit is removed. Each step may be done twice; whoever opens the folder after a crash goes on from the first.

use crate::counts::Counts;
use crate::hour::HourKey;
use crate::staging::{Staged, Staging};
use logferry_durable::{Disk, replace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Marks of hours whose tables are whole.
pub const DONE_DIR: &str = "etl_done";
/// Marks of hours whose last run failed.
pub const FAIL_DIR: &str = "etl_fail";
/// What lies aside.
pub const WORK_DIR: &str = ".work";
const MANIFEST_DIR: &str = ".manifest";
const COMMIT_SUFFIX: &str = ".commit";
const DAMAGED_SUFFIX: &str = ".damaged";

/// The folder.
#[derive(Clone)]
pub struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What a mark under `etl_done/` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneMark {
    /// What became of the lines.
    #[serde(flatten)]
    pub counts: Counts,
    /// Table files.
    pub tables: u64,
}

/// What a mark under `etl_fail/` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailMark {
    /// Why.
    pub reason: String,
    /// What became of the lines until then.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Files of an hour.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    files: BTreeSet<String>,
    /// What they were made of.
    #[serde(default)]
    inputs: BTreeSet<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    key: HourKey,
    files: Vec<Staged>,
    stale: Vec<String>,
    mark: DoneMark,
    #[serde(default)]
    inputs: BTreeSet<PathBuf>,
}

/// What [`Store::open`] found to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Hours whose tables were put into place.
    pub finished: u64,
    /// Files of unfinished hours that were removed.
    pub removed: u64,
}

impl Store {
    /// Opens the folder and finishes what a crash left. The caller holds the lock of [`Store::work_dir`].
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<(Store, Recovered)> {
        let store = Store { disk, dir: dir.to_owned() };
        let work = Store::work_dir(dir);
        store.disk.create_dir_all(&work)?;
        let mut recovered = Recovered::default();
        for name in store.disk.list(&work)? {
            if name.ends_with(COMMIT_SUFFIX) {
                store.carry_out(&work.join(&name))?;
                recovered.finished += 1;
            }
        }
        recovered.removed = store.remove_aside(|name| name != "lock" && !name.ends_with(DAMAGED_SUFFIX))?;
        Ok((store, recovered))
    }

    /// Where files lie aside; its lock belongs to the one process that makes tables in `dir`.
    pub fn work_dir(dir: &Path) -> PathBuf {
        dir.join(WORK_DIR)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins an hour; what an earlier attempt left aside is finished if it was committed, else removed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin(&self, key: &HourKey) -> io::Result<Staging> {
        let work = Store::work_dir(&self.dir);
        if self.is_committed(key)? {
            self.carry_out(&self.commit_path(key))?;
        }
        self.abandon(key)?;
        Ok(Staging::new(Arc::clone(&self.disk), &work, key))
    }

    fn is_committed(&self, key: &HourKey) -> io::Result<bool> {
        let name = format!("{}{COMMIT_SUFFIX}", key.id());
        Ok(self.disk.list(&Store::work_dir(&self.dir))?.contains(&name))
    }

    /// Removes what lies aside of an hour, unless it is committed: then it is wanted.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn abandon(&self, key: &HourKey) -> io::Result<()> {
        if self.is_committed(key)? {
            return Ok(());
        }
        let prefix = format!("{}-", key.id());
        self.remove_aside(|name| name.starts_with(&prefix)).map(drop)
    }

    /// Puts the hour's files, made of `inputs`, into place of its old ones.
    ///
    /// # Errors
    /// Those of the disk. The next [`Store::begin`] or [`Store::open`] then finishes or removes what was done.
    pub fn publish(
        &self,
        key: &HourKey,
        staging: Staging,
        counts: &Counts,
        inputs: &[PathBuf],
    ) -> io::Result<DoneMark> {
        let files = staging.into_staged();
        let fresh: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let old = self.manifest(key)?;
        let stale = old.files.into_iter().filter(|path| !fresh.contains(path.as_str())).collect();
        let is_table = |file: &&Staged| !file.path.starts_with(crate::rejects::DIR);
        let mark = DoneMark { counts: *counts, tables: files.iter().filter(is_table).count() as u64 };
        let inputs = inputs.iter().cloned().collect();
        let commit = Commit { key: key.clone(), files, stale, mark: mark.clone(), inputs };
        let path = self.commit_path(key);
        replace(&*self.disk, &path, &serde_json::to_vec(&commit)?)?;
        self.carry_out(&path)?;
        Ok(mark)
    }

    /// Leaves a mark that the hour failed. Its old tables, if any, stay as they are.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn fail(&self, key: &HourKey, reason: &str, counts: &Counts) -> io::Result<()> {
        self.check_is_there()?;
        self.abandon(key)?;
        let mark = FailMark { reason: reason.to_owned(), counts: *counts };
        self.replace_in(&self.dir.join(FAIL_DIR).join(key.path()), &serde_json::to_vec(&mark)?)
    }

    /// The mark of an hour whose tables are whole.
    pub fn done(&self, key: &HourKey) -> Option<DoneMark> {
        let bytes = self.disk.read(&self.dir.join(DONE_DIR).join(key.path())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn commit_path(&self, key: &HourKey) -> PathBuf {
        Store::work_dir(&self.dir).join(format!("{}{COMMIT_SUFFIX}", key.id()))
    }

    /// Files of the hour's earlier run. Without knowing them nothing is put into place: rows would be there twice.
    fn manifest(&self, key: &HourKey) -> io::Result<Manifest> {
        let path = self.dir.join(MANIFEST_DIR).join(key.path());
        match self.disk.read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let text = format!(
                    "{}: {error}: which table files the hour has is not known; remove those named {}… and this file, and the hour is made again",
                    path.display(),
                    key.part_prefix()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Manifest::default()),
            Err(error) => Err(error),
        }
    }

    /// Files that the tables of an hour were made of; none where nobody said so.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn inputs(&self, key: &HourKey) -> io::Result<BTreeSet<PathBuf>> {
        self.manifest(key).map(|manifest| manifest.inputs)
    }

    /// Step 3 of the above.
    fn carry_out(&self, path: &Path) -> io::Result<()> {
        let commit: Commit = match serde_json::from_slice(&self.disk.read(path)?) {
            Ok(commit) => commit,
            Err(error) => return self.set_aside(path, &error),
        };
        // It may have been renamed into place just before a kill, or before an fsync of the folder that failed.
        self.check_is_there()?;
        let mark = commit.key.path();
        self.remove_all([DONE_DIR, FAIL_DIR].map(|dir| format!("{dir}/{mark}")).iter())?;
        self.remove_all(commit.stale.iter())?;
        self.move_into_place(&commit.files)?;
        let files = commit.files.iter().map(|file| file.path.clone()).collect();
        let manifest = serde_json::to_vec(&Manifest { files, inputs: commit.inputs })?;
        self.check_is_there()?;
        self.replace_in(&self.dir.join(MANIFEST_DIR).join(&mark), &manifest)?;
        self.replace_in(&self.dir.join(DONE_DIR).join(&mark), &serde_json::to_vec(&commit.mark)?)?;
        self.disk.unlink(path)?;
        self.disk.sync_dir(&Store::work_dir(&self.dir))
    }

    /// Fails when the folder is not there any more: what is at its place then, or can be made there, is the place of a disk that is away.
    fn check_is_there(&self) -> io::Result<()> {
        let work = Store::work_dir(&self.dir);
        self.disk.sync_dir(&work).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let text = format!("{} is not there any more: is its disk mounted?", work.display());
                io::Error::new(io::ErrorKind::NotConnected, text)
            }
            _ => error,
        })
    }

    /// A commit is replaced atomically, so an unreadable one is damage. Its hour is still in the queue, and is made again.
    fn set_aside(&self, path: &Path, error: &serde_json::Error) -> io::Result<()> {
        tracing::error!("{}: {error}; kept as *.damaged, the hour is to be made again", path.display());
        self.disk.rename(path, &path.with_extension("damaged"))
    }

    fn move_into_place(&self, files: &[Staged]) -> io::Result<()> {
        let work = Store::work_dir(&self.dir);
        let mut folders = BTreeSet::new();
        for file in files {
            let target = self.dir.join(&file.path);
            let folder = target.parent().unwrap_or(&self.dir).to_owned();
            if !folders.contains(&folder) {
                self.disk.create_dir_all(&folder)?;
            }
            match self.disk.rename(&work.join(&file.aside), &target) {
                // Done before a crash.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_is_there()?,
                renamed => renamed?,
            }
            folders.insert(folder);
        }
        folders.iter().try_for_each(|folder| self.disk.sync_dir(folder))
    }

    fn remove_all<'a>(&self, paths: impl Iterator<Item = &'a String>) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for path in paths.map(|path| self.dir.join(path)) {
            match self.disk.unlink(&path) {
                Ok(()) => {
                    folders.insert(path.parent().unwrap_or(&self.dir).to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        folders.iter().try_for_each(|folder| self.disk.sync_dir(folder))
    }

    fn replace_in(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk.create_dir_all(path.parent().unwrap_or(&self.dir))?;
        replace(&*self.disk, path, bytes)
    }

    /// Of the files aside that are not commits.
    fn remove_aside(&self, is_unwanted: impl Fn(&str) -> bool) -> io::Result<u64> {
        let work = Store::work_dir(&self.dir);
        let mut removed = 0;
        for name in self.disk.list(&work)? {
            if is_unwanted(&name) && !name.ends_with(COMMIT_SUFFIX) {
                self.disk.unlink(&work.join(&name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
