//! One process at a time in a folder.

use crate::disk::context;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Holds the lock of a folder until dropped. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code)] File);

/// Locks `dir` by flock on its file `lock`. Fails with `WouldBlock`, naming folder and holder, when another process has it.
pub fn lock_dir(dir: &Path) -> io::Result<DirLock> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(context("open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(dir, &mut file)),
        // A file system that knows no locks, for one: nobody else is to blame.
        Err(error) => return Err(context("lock", &path)(error.into())),
    }
    // Only a hint for people; the lock itself is the flock.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(DirLock(file))
}

fn in_use(dir: &Path, file: &mut File) -> io::Error {
    let mut text = String::new();
    // The holder may be about to write its number: then there is none to name.
    let _ = file.read_to_string(&mut text);
    let holder = match text.trim() {
        "" => "another process".to_owned(),
        number => format!("process {number}"),
    };
    let message =
        format!("{} is in use by {holder}: stop it, or give this one a folder of its own", dir.display());
    io::Error::new(io::ErrorKind::WouldBlock, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_folder_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        let error = lock_dir(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        std::fs::write(dir.path().join("lock"), "").unwrap();
        let error = lock_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(held);
        lock_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = lock_dir(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/no/such/folder/lock"), "{error}");
    }
}
