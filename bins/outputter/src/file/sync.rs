//! Makes many files durable at once: their fsyncs wait in parallel, so that the file system puts them into few of its own
//! commits and a group of a thousand files costs little more than a group of one.

use super::own_fault::at;
use logferry_durable::DiskFile;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Syncs all files, each with its path, on at most `threads_max` threads, this one included. All are synced even when one
/// fails; an error is returned with the path.
pub fn sync_files(files: &[(&str, &dyn DiskFile)], threads_max: usize) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let sync_some = || {
        let mut outcome = Ok(());
        while let Some((path, file)) = files.get(next.fetch_add(1, Relaxed)) {
            outcome = outcome.and(file.sync().map_err(at(path)));
        }
        outcome
    };
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().name("sync".into()).spawn_scoped(scope, sync_some);
        // A thread that cannot be had is done without: this one takes its share.
        let others: Vec<_> =
            (1..threads_max.min(files.len())).map_while(|number| spawn(number).ok()).collect();
        let own = sync_some();
        // A panic aborts the process, so there is always an outcome.
        others.into_iter().filter_map(|thread| thread.join().ok()).fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::super::own_fault::path_of;
    use super::*;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    /// Counts its syncs; each waits until `together` are under way at the same time.
    #[derive(Default)]
    struct Slow {
        together: usize,
        fails: bool,
        under_way: Mutex<(usize, usize)>,
        changed: Condvar,
        syncs: AtomicUsize,
    }

    impl DiskFile for Slow {
        fn append(&self, _: &[&[u8]]) -> io::Result<()> {
            Ok(())
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn reserve(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            self.syncs.fetch_add(1, Relaxed);
            let mut under_way = self.under_way.lock().unwrap();
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
            self.changed.notify_all();
            let limit = Duration::from_secs(10);
            let all_there = |state: &mut (usize, usize)| state.1 < self.together;
            let (mut under_way, waited) =
                self.changed.wait_timeout_while(under_way, limit, all_there).unwrap();
            assert!(!waited.timed_out(), "syncs run at the same time");
            under_way.0 -= 1;
            if self.fails { Err(io::Error::other("bad sector")) } else { Ok(()) }
        }
    }

    #[test]
    fn files_are_synced_at_the_same_time_on_a_bounded_number_of_threads() {
        let slow = Slow { together: 4, ..Slow::default() };
        let files: Vec<(&str, &dyn DiskFile)> = (0..50).map(|_| ("", &slow as &dyn DiskFile)).collect();
        sync_files(&files, 4).unwrap();
        assert_eq!(slow.syncs.load(Relaxed), 50);
        assert_eq!(slow.under_way.lock().unwrap().1, 4);
    }

    #[test]
    fn a_failure_is_returned_and_the_others_are_synced() {
        let (good, bad) = (Slow::default(), Slow { fails: true, ..Slow::default() });
        for threads in [1, 3] {
            let files: [(&str, &dyn DiskFile); 4] = [("a", &good), ("b", &bad), ("c", &good), ("d", &good)];
            let error = sync_files(&files, threads).unwrap_err();
            assert_eq!(path_of(&error), Some("b"));
        }
        assert_eq!(good.syncs.load(Relaxed), 6);
        sync_files(&[], 3).unwrap();
    }
}
