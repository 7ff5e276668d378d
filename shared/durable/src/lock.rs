//! One process at a time in a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Holds the lock of a folder until dropped. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code)] File);

/// Locks `dir` by flock on its file `lock`. Fails with `WouldBlock`, naming folder and holder, when another process has it.
pub fn lock_dir(dir: &Path) -> io::Result<DirLock> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!(
                "{} is in use by process {}: stop it, or give this one a folder of its own",
                dir.display(),
                holder.trim()
            ),
        ));
    }
    // Only a hint for people; the lock itself is the flock.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(DirLock(file))
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
        drop(held);
        lock_dir(dir.path()).unwrap();
    }
}
