//! One process at a time in a folder.

use crate::disk::context;
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock is waited for whose holder has ended: a program that it was about to start has all its descriptors until it runs.
const ENDED_HOLDER_WAIT: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const TRY_INTERVAL: Duration = Duration::from_millis(10);

/// Holds the lock of a folder until dropped. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock(#[allow(dead_code)] File);

/// Locks `dir` by flock on its file `lock`. Fails with `WouldBlock`, naming folder and holder, when another process has it; blocks for some
/// seconds before that if the holder has ended.
pub fn lock_dir(dir: &Path) -> io::Result<DirLock> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(context("open", &path))?;
    let began = Instant::now();
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(&mut file);
                if !has_ended(&holder) || began.elapsed() >= ENDED_HOLDER_WAIT {
                    return Err(in_use(dir, &holder));
                }
                std::thread::sleep(TRY_INTERVAL);
            }
            // A file system that knows no locks, for one: nobody else is to blame.
            Err(error) => return Err(context("lock", &path)(error.into())),
        }
    }
    // Only a hint for people; the lock itself is the flock.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(DirLock(file))
}

/// Number of the holder; it may be about to write it, then there is none.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.trim().to_owned()
}

fn has_ended(holder: &str) -> bool {
    let pid = holder.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

fn in_use(dir: &Path, holder: &str) -> io::Error {
    let holder = match holder {
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
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A program that one of these tests starts has the descriptors of the others for a moment.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_locked_folder_names_its_holder() {
        let _alone = alone();
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
    fn a_lock_that_outlives_its_holder_for_a_moment_is_waited_for() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        std::fs::write(dir.path().join("lock"), ended.id().to_string()).unwrap();
        let path = dir.path().to_owned();
        let waiting = std::thread::spawn(move || lock_dir(&path));
        std::thread::sleep(5 * TRY_INTERVAL);
        assert!(!waiting.is_finished(), "it does not wait");
        drop(held);
        let _held = waiting.join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("lock")).unwrap(), std::process::id().to_string());
    }

    #[test]
    fn a_program_that_is_started_does_not_get_the_lock() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        let flags = rustix::io::fcntl_getfd(&held.0).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        drop(held);
        let again = lock_dir(dir.path());
        other.kill().and_then(|()| other.wait()).unwrap();
        again.unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = lock_dir(Path::new("/no/such/folder")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/no/such/folder/lock"), "{error}");
    }
}
