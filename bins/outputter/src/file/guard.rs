//! Keeps paths below a folder: before a file is opened by name, the kernel is asked to walk there without leaving the
//! folder and without following a symbolic link.
//!
//! Names from the network are checked when a pack is parsed, so they cannot climb out; what is left is a link that
//! stands in the folder. The folder itself may be one, to a larger disk say, and somebody may put another one in its place.

use super::journal::Lengths;
use super::store::Folders;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that are looked for in a folder that is on another disk than it was.
const FILES_LOOKED_FOR_MAX: usize = 256;

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

    /// Fails while the disk of the committed files is away: what is at its place then, the folder on which it is to be mounted, is no
    /// place for files.
    pub fn check_mounted(&self, committed: &BTreeMap<String, Lengths>) -> io::Result<()> {
        if committed.is_empty() {
            return Ok(());
        }
        let of_headers = committed.iter().filter(|(_, lengths)| lengths.headers > 0);
        let of_data = committed.iter().filter(|(_, lengths)| lengths.data > 0);
        let headers = self.headers.mounted(of_headers.map(|(path, _)| path.clone()))?;
        match (headers, self.data.mounted(of_data.map(|(path, _)| self.log_file(path)))?) {
            (Mounted::Nothing, Mounted::Nothing) => Err(nothing_there(&self.data.root)),
            (Mounted::Other, _) => Err(other_disk(&self.headers.root)),
            (_, Mounted::Other) => Err(other_disk(&self.data.root)),
            _ => Ok(()),
        }
    }

    fn log_file(&self, path: &str) -> String {
        format!("{path}{}", self.suffix)
    }
}

/// What is where a folder was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mounted {
    /// The folder, or one that was made in its place.
    Folder,
    /// Nothing.
    Nothing,
    /// A folder on another disk that has none of its files.
    Other,
}

/// The folder of log files is not there, nor that of header files, although there were files in them.
pub fn nothing_there(data: &Path) -> io::Error {
    let dir = data.parent().unwrap_or(data).display();
    let text = format!(
        "{dir} has none of the files that were there: is its disk mounted? If they were taken away on purpose, create the folder {}",
        data.display()
    );
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// Fails when `folder` is not there, nor the one `beside` it: their disk is away.
pub fn check_beside(folder: &Path, beside: &str) -> io::Result<()> {
    let beside = folder.with_file_name(beside);
    match [folder, &beside].map(|folder| rustix::fs::stat(folder).map(drop)) {
        [Err(Errno::NOENT), Err(Errno::NOENT)] => Err(nothing_there(&beside)),
        _ => Ok(()),
    }
}

fn other_disk(folder: &Path) -> io::Error {
    let folder = folder.display();
    let text = format!(
        "{folder} is on another disk than before and has none of the files that were there: is its disk mounted? If they were taken away \
         on purpose, start the outputter anew"
    );
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// Checks paths below one folder.
#[derive(Debug)]
pub struct Guard {
    root: PathBuf,
    /// The folder that `root` meant when it was last looked at.
    folder: Mutex<Arc<Folder>>,
    /// Number of the device that had its files last.
    device: AtomicU64,
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
        let folder = Folder::open(root)?;
        let device = AtomicU64::new(folder.identity.0);
        Ok(Guard { root: root.to_owned(), folder: Mutex::new(Arc::new(folder)), device })
    }

    /// What is where the folder was. A disk may have another number when it is mounted again: its files tell.
    fn mounted(&self, files: impl Iterator<Item = String> + Clone) -> io::Result<Mounted> {
        let device = match rustix::fs::stat(&self.root) {
            Ok(found) => found.st_dev,
            Err(Errno::NOENT) => return Ok(Mounted::Nothing),
            Err(error) => return Err(error.into()),
        };
        if device == self.device.load(Relaxed) {
            return Ok(Mounted::Folder);
        }
        // Every so many-th: those of a host, or of an old hour, may all be gone.
        let count = files.clone().count();
        let mut looked_for = files.step_by(count.div_ceil(FILES_LOOKED_FOR_MAX).max(1));
        if count > 0 && !looked_for.any(|file| self.identity(&file).is_some()) {
            return Ok(Mounted::Other);
        }
        self.device.store(device, Relaxed);
        Ok(Mounted::Folder)
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
    fn a_disk_that_is_unmounted_is_noticed_and_so_is_its_return() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path());
        let folder = |name: &str| {
            let there = dir.path().join(format!("disk-{name}"));
            std::fs::create_dir(&there).unwrap();
            std::fs::write(there.join("file"), "x").unwrap();
            there
        };
        let (data, headers) = (folder("data"), folder("headers"));
        // A link stands for what is mounted: /proc is a disk of its own, without our files.
        let mount = |at: &Path, to: &Path| {
            let _ = std::fs::remove_file(at);
            std::os::unix::fs::symlink(to, at).unwrap();
        };
        mount(&folders.data, &data);
        mount(&folders.headers, &headers);
        let guards = Guards::new(&folders).unwrap();
        let lengths = Lengths { data: 1, headers: 1, ..Lengths::default() };
        let files = BTreeMap::from([("file".to_owned(), lengths)]);
        guards.check_mounted(&files).unwrap();
        for (at, there) in [(&folders.data, &data), (&folders.headers, &headers)] {
            mount(at, Path::new("/proc"));
            let error = guards.check_mounted(&files).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
            assert!(error.to_string().starts_with(at.to_str().unwrap()), "{error}");
            guards.check_mounted(&BTreeMap::new()).unwrap();
            mount(at, there);
            guards.check_mounted(&files).unwrap();
        }
        let received = dir.path().join("received");
        check_beside(&received, "log_data").unwrap();
        std::fs::remove_file(&folders.data).unwrap();
        guards.check_mounted(&files).unwrap();
        std::fs::remove_file(&folders.headers).unwrap();
        assert!(guards.check_mounted(&files).unwrap_err().to_string().contains("is its disk mounted?"));
        assert!(check_beside(&received, "log_data").is_err());
        // On purpose, on the same disk.
        std::fs::create_dir(&folders.data).unwrap();
        guards.check_mounted(&files).unwrap();
    }

    #[test]
    fn a_disk_with_another_number_is_known_by_any_of_its_files_whatever_their_names_are() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path());
        std::fs::create_dir(&folders.data).unwrap();
        std::fs::create_dir(&folders.headers).unwrap();
        let lengths = Lengths { data: 1, headers: 1, ..Lengths::default() };
        let names = || (0..4 * FILES_LOOKED_FOR_MAX).map(|number| format!("{number:06}"));
        let files = names().map(|name| (name, lengths)).collect();
        let guards = Guards::new(&folders).unwrap();
        let is_there_again = || {
            for guard in [&guards.data, &guards.headers] {
                guard.device.store(u64::MAX, Relaxed);
            }
            guards.check_mounted(&files)
        };
        is_there_again().unwrap_err();
        // The oldest hosts are gone for good.
        for name in names().skip(3 * FILES_LOOKED_FOR_MAX) {
            std::fs::write(folders.data.join(&name), "x").unwrap();
            std::fs::write(folders.headers.join(&name), "x").unwrap();
        }
        is_there_again().unwrap();
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
