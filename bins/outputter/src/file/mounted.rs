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

/// File in the folder by which another one is known: who removes empty folders leaves that one. The lock of the folder of tables is in its one,
/// too, so it is the same name.
const KEEP: &str = "lock";

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
    let (data, headers) = (&folders.data, &folders.headers);
    let lost_if = |error: io::Error, is_lost: &dyn Fn(&str, &Lengths) -> bool| {
        let is_any_lost = journaled()?.iter().any(|(path, lengths)| is_lost(path, lengths));
        if is_any_lost { Err(error) } else { Ok(()) }
    };
    match [data, headers].map(|folder| Content::of(folder)) {
        [Content::Missing, Content::Missing] => lost_if(nothing_there(data), &|_, _| true),
        // A header file that ends where the journal says tells of all that its log file has; behind that it may say that the log file is gone.
        [Content::Nothing, Content::Something] => lost_if(emptied(data, data), &|path, lengths| {
            lengths.data > 0 && length_of(&headers.join(path)) == lengths.headers
        }),
        [Content::Something, Content::Nothing] => lost_if(emptied(headers, headers), &|path, lengths| {
            lengths.data > 0 && lengths.headers > 0 && length_of(&folders.log_file(path)) == lengths.data
        }),
        // Each may be the place of a disk. Without the folder of header files it is meant so.
        [Content::Nothing, Content::Nothing] => {
            lost_if(emptied(data, headers), &|_, lengths| lengths.data > 0)
        }
        _ => Ok(()),
    }
}

fn emptied(folder: &Path, to_be_removed: &Path) -> io::Error {
    let (folder, to_be_removed) = (folder.display(), to_be_removed.display());
    let text = format!(
        "{folder} has none of the files that were there: is its disk mounted? If they were taken away on purpose, remove {to_be_removed}"
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
        RealDisk.create_dir_all(&self.sign).map_err(|error| self.not_made(&error))?;
        // Where somebody else made the folder it may be his: it is known without the file, too.
        if RealDisk.create(&self.sign.join(KEEP)).is_ok() {
            RealDisk.sync_dir(&self.sign)?;
        }
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
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.was_used()? => Err(self.lost()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn lost(&self) -> io::Error {
        let (dir, sign) = (self.dir.display(), self.sign.display());
        let text = format!(
            "{dir} has no folder {sign}, by which it is known: is its disk mounted? If it is, or if all was taken away on purpose, make that folder again, with a file in it: mkdir -p {sign} && touch {sign}/{KEEP}"
        );
        io::Error::new(io::ErrorKind::NotConnected, text)
    }

    fn not_made(&self, error: &io::Error) -> io::Error {
        let (dir, sign) = (self.dir.display(), self.sign.display());
        let text = format!(
            "{dir} is known by the folder {sign}, which cannot be made: {error}. Make it (mkdir -p {sign} && touch {sign}/{KEEP}), or let the outputter write to {dir}"
        );
        io::Error::new(error.kind(), text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_empty_folders_are_two_disks_that_are_away_unless_that_of_header_files_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path());
        std::fs::create_dir(&folders.data).unwrap();
        std::fs::create_dir(&folders.headers).unwrap();
        let journaled = |data| {
            let lengths = Lengths { data, headers: 1, ..Lengths::default() };
            move || Ok(BTreeMap::from([("file".to_owned(), lengths)]))
        };
        let error = check_files(&folders, journaled(1)).unwrap_err();
        let advice = format!("remove {}", folders.headers.display());
        assert!(error.to_string().ends_with(&advice), "{error}");
        check_files(&folders, journaled(0)).unwrap();
        std::fs::remove_dir(&folders.headers).unwrap();
        check_files(&folders, journaled(1)).unwrap();
    }

    #[test]
    fn a_folder_stays_known_when_empty_folders_are_removed_and_who_lost_it_is_told_what_to_make() {
        let (dir, var) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sign = dir.path().join(".sign");
        let ground = Ground::new("a.dir", dir.path(), ".sign", var.path());
        // As the version before left it.
        std::fs::create_dir(&sign).unwrap();
        for _ in 0..2 {
            ground.open().unwrap();
            std::fs::remove_dir(&sign).unwrap_err();
            ground.check().unwrap();
        }
        std::fs::remove_dir_all(&sign).unwrap();
        let error = ground.check().unwrap_err();
        assert!(error.to_string().contains(&format!("mkdir -p {}", sign.display())), "{error}");
        std::fs::create_dir(&sign).unwrap();
        ground.check().unwrap();
    }
}
