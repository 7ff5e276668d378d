//! Keeps paths below a folder: before a file is opened by name, the kernel is asked to walk there without leaving the
//! folder and without following a symbolic link.
//!
//! Names from the network are checked when a pack is parsed, so they cannot climb out; what is left is a link that
//! stands in the folder. The folder itself may be one, to a larger disk say, and somebody may put another one in its place.

use super::store::Folders;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the files of both folders from being links to elsewhere, and tells one file from another of the same name.
#[derive(Debug)]
pub struct Guards {
    data: Guard,
    headers: Guard,
    /// What names of log files end with.
    suffix: &'static str,
}

/// Device and inode of a log file and of its header file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    data: (u64, u64),
    headers: (u64, u64),
}

impl Guards {
    /// For folders that exist.
    pub fn new(folders: &Folders) -> io::Result<Guards> {
        let (data, headers) = (Guard::new(&folders.data)?, Guard::new(&folders.headers)?);
        Ok(Guards { data, headers, suffix: folders.form.suffix() })
    }

    /// Fails when the walk to a file (its path relative to both folders) meets a symbolic link or leaves the folder.
    pub fn check(&self, path: &str) -> io::Result<()> {
        self.headers.check(Path::new(path))?;
        self.data.check(Path::new(&self.log_file(path)))
    }

    /// Which files the path means now; `None` when one of them is not there.
    pub fn identity(&self, path: &str) -> Option<FileIdentity> {
        let (data, headers) = (self.data.identity(&self.log_file(path))?, self.headers.identity(path)?);
        Some(FileIdentity { data, headers })
    }

    fn log_file(&self, path: &str) -> String {
        format!("{path}{}", self.suffix)
    }
}

/// Checks paths below one folder.
#[derive(Debug)]
pub struct Guard {
    root: PathBuf,
    /// The folder that `root` meant when it was last looked at.
    folder: Mutex<Arc<Folder>>,
}

#[derive(Debug)]
struct Folder {
    descriptor: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
}

impl Folder {
    fn open(path: &Path) -> Result<Folder, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&descriptor)?;
        Ok(Folder { descriptor, identity: (found.st_dev, found.st_ino) })
    }
}

impl Guard {
    /// Guards `root`, which exists.
    pub fn new(root: &Path) -> io::Result<Guard> {
        let folder = Mutex::new(Arc::new(Folder::open(root)?));
        Ok(Guard { root: root.to_owned(), folder })
    }

    /// The folder that the path means now: a descriptor of one that was removed would find nothing, and so refuse nothing.
    fn folder(&self) -> Result<Arc<Folder>, Errno> {
        let found = rustix::fs::stat(&self.root)?;
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.identity != (found.st_dev, found.st_ino) {
            *folder = Arc::new(Folder::open(&self.root)?);
        }
        Ok(folder.clone())
    }

    /// Fails when the walk to `path` (relative) meets a symbolic link or leaves the folder. A path that does not exist yet is fine.
    pub fn check(&self, path: &Path) -> io::Result<()> {
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(Errno::XDEV.into());
        }
        // No NOFOLLOW: with PATH that would open a link in the last place instead of refusing it.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = self
            .folder()
            .and_then(|folder| rustix::fs::openat2(&folder.descriptor, path, flags, Mode::empty(), resolve));
        match opened {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.check_each(path),
            Err(error) => Err(error.into()),
        }
    }

    fn identity(&self, path: &str) -> Option<(u64, u64)> {
        let folder = self.folder().ok()?;
        let found = rustix::fs::statat(&folder.descriptor, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((found.st_dev, found.st_ino))
    }

    fn check_each(&self, path: &Path) -> io::Result<()> {
        let mut walked = self.root.clone();
        for part in path.components() {
            walked.push(part);
            match std::fs::symlink_metadata(&walked) {
                Ok(metadata) if metadata.is_symlink() => return Err(Errno::LOOP.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_removed_and_made_again_is_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let guard = Guard::new(&root).unwrap();
        std::fs::remove_dir(&root).unwrap();
        guard.check(Path::new("link/file")).unwrap();
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("link")).unwrap();
        assert!(guard.check(Path::new("link/file")).is_err());
        assert!(guard.identity("link").is_some());
    }

    #[test]
    fn links_and_climbing_are_refused_and_new_paths_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), dir.path().join("real/dangling")).unwrap();
        let guard = Guard::new(dir.path()).unwrap();
        type Check = fn(&Guard, &Path) -> io::Result<()>;
        for check in [Guard::check as Check, Guard::check_each as Check] {
            check(&guard, Path::new("real/new")).unwrap();
            check(&guard, Path::new("new/new")).unwrap();
            assert!(check(&guard, Path::new("link/file")).is_err());
            assert!(check(&guard, Path::new("real/dangling")).is_err());
        }
        for path in ["../x", "/etc/passwd", "real/../../x", "./x/.."] {
            assert!(guard.check(Path::new(path)).is_err(), "{path}");
        }
    }
}
