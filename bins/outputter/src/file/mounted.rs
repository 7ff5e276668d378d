//! Tells a folder whose disk is away from one that is new or was emptied: the folder on which a disk is mounted is there without it, too, and
//! what was made in it then would be hidden by the disk.
//!
//! Something else remembers that there was something: for log files and header files the journal, for the other folders a note in `var_dir`.

use super::guard::nothing_there;
use super::journal::Lengths;
use super::store::Folders;
use logferry_durable::{Disk, RealDisk, replace};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// There is no such folder.
    Missing,
    /// Nothing, or it is a link to nothing.
    Nothing,
    Something,
}

impl Content {
    fn of(folder: &Path) -> Content {
        match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Content::Nothing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.is_symlink() {
                true => Content::Nothing,
                false => Content::Missing,
            },
            // Who opens it tells what is wrong with it.
            Ok(false) | Err(_) => Content::Something,
        }
    }
}

/// Fails while the disk of the folders of log files and header files, or that of one of them, is away; `journaled` tells which files there were.
pub fn check_files(
    folders: &Folders,
    journaled: impl FnOnce() -> io::Result<BTreeMap<String, Lengths>>,
) -> io::Result<()> {
    let length_of = |file: &Path| std::fs::metadata(file).map_or(0, |found| found.len());
    match [&folders.data, &folders.headers].map(|folder| Content::of(folder)) {
        [Content::Missing, Content::Missing] => match journaled()?.is_empty() {
            true => Ok(()),
            false => Err(nothing_there(&folders.data)),
        },
        // A header file that ends where the journal says tells of all that its log file has; behind that it may say that the log file is gone.
        [Content::Nothing, Content::Something] => {
            let is_lost = |path: &str, lengths: &Lengths| {
                lengths.data > 0 && length_of(&folders.headers.join(path)) == lengths.headers
            };
            match journaled()?.iter().any(|(path, lengths)| is_lost(path, lengths)) {
                true => Err(emptied(&folders.data)),
                false => Ok(()),
            }
        }
        [Content::Something, Content::Nothing] => {
            let is_lost = |path: &str, lengths: &Lengths| {
                lengths.data > 0 && lengths.headers > 0 && length_of(&folders.log_file(path)) == lengths.data
            };
            match journaled()?.iter().any(|(path, lengths)| is_lost(path, lengths)) {
                true => Err(emptied(&folders.headers)),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn emptied(folder: &Path) -> io::Error {
    let folder = folder.display();
    let text = format!(
        "{folder} has none of the files that were there: is its disk mounted? If they were taken away on purpose, remove {folder}"
    );
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// A folder that a setting names. Once it was used, it is known by something in it.
#[derive(Clone, Debug)]
pub struct Ground {
    dir: PathBuf,
    /// Folder in it that is there as long as the disk is.
    sign: PathBuf,
    /// Has the path of the folder once it was used.
    note: PathBuf,
}

impl Ground {
    /// The folder `dir` of a `setting`, with the folder `sign` in it. It is remembered in `var_dir`.
    pub fn new(setting: &str, dir: &Path, sign: &str, var_dir: &Path) -> Ground {
        Ground { dir: dir.to_owned(), sign: dir.join(sign), note: var_dir.join(setting) }
    }

    /// Makes the folder, when it is used for the first time.
    ///
    /// # Errors
    /// As [`Ground::check`], and those of the disk.
    pub fn open(&self) -> io::Result<()> {
        self.check()?;
        RealDisk.create_dir_all(&self.sign)?;
        if !self.was_used()? {
            if let Some(var_dir) = self.note.parent() {
                RealDisk.create_dir_all(var_dir)?;
            }
            replace(&RealDisk, &self.note, self.dir.as_os_str().as_bytes())?;
        }
        Ok(())
    }

    /// Fails while the folder was used and what it is known by is not there.
    ///
    /// # Errors
    /// `NotConnected` then; those of the disk.
    pub fn check(&self) -> io::Result<()> {
        match std::fs::metadata(&self.sign) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.was_used()? => {
                Err(nothing_there(&self.sign))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether it was used before.
    ///
    /// # Errors
    /// Nobody knows: `var_dir` cannot be read.
    pub fn was_used(&self) -> io::Result<bool> {
        match std::fs::read(&self.note) {
            Ok(noted) => Ok(noted == self.dir.as_os_str().as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
