//! Hours that wait for their tables. The [`Queue`] decides, the [`DurableQueue`] keeps it over restarts.
//!
//! At least once: an hour leaves the queue when its tables are in place (or it has failed for good). Making them again is harmless.

use crate::hour::HourKey;
use logferry_durable::{Disk, Log};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First wait after a failure of the disk, in milliseconds; doubles.
const BACKOFF_MIN_MS: u64 = 1_000;
/// Longest wait between two attempts, in milliseconds.
const BACKOFF_MAX_MS: u64 = 60_000;

/// A complete hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name.
    pub key: HourKey,
    /// Packs that it has; grows when late lines complete it again.
    pub total: u64,
    /// Lines that it has; grows also when a repull brings some.
    #[serde(default)]
    pub lines: u64,
    /// Its files, in order.
    pub paths: Vec<PathBuf>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Tables are in place, or the hour has failed for good.
    Settled,
    /// To be tried again later.
    TryAgain,
    /// To be tried again at once, or after the next start.
    Stopped,
}

/// Which hours wait, which are being worked on. Pure.
#[derive(Debug, Default)]
pub struct Queue {
    /// Oldest hours first.
    waiting: BTreeMap<(Option<logferry_pack::Hour>, HourKey), Waiting>,
}

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    due_ms: u64,
    failures: u32,
    is_running: bool,
    /// It was wanted again while it ran: what it had then may not be in the tables.
    is_wanted_again: bool,
}

fn place(key: &HourKey) -> (Option<logferry_pack::Hour>, HourKey) {
    (key.hour, key.clone())
}

impl Queue {
    /// An hour is complete (again). Gives whether that is news.
    pub fn want(&mut self, wanted: Wanted) -> bool {
        match self.waiting.get_mut(&place(&wanted.key)) {
            Some(waiting) if waiting.wanted == wanted && !waiting.is_running => false,
            Some(waiting) => {
                waiting.wanted = wanted;
                waiting.is_wanted_again = waiting.is_running;
                true
            }
            None => {
                let waiting =
                    Waiting { wanted, due_ms: 0, failures: 0, is_running: false, is_wanted_again: false };
                self.waiting.insert(place(&waiting.wanted.key), waiting);
                true
            }
        }
    }

    /// The oldest hour that is due, which counts as running from now on.
    pub fn start(&mut self, now_ms: u64) -> Option<Wanted> {
        let waiting =
            self.waiting.values_mut().find(|waiting| !waiting.is_running && waiting.due_ms <= now_ms)?;
        (waiting.is_running, waiting.is_wanted_again) = (true, false);
        Some(waiting.wanted.clone())
    }

    /// An attempt at `wanted` has ended. Gives whether the hour left the queue.
    pub fn ended(&mut self, wanted: &Wanted, ended: Ended, now_ms: u64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&place(&wanted.key)) else { return false };
        waiting.is_running = false;
        match ended {
            Ended::TryAgain => {
                let wait_ms = BACKOFF_MIN_MS << waiting.failures.min(16);
                waiting.failures += 1;
                waiting.due_ms = now_ms + wait_ms.min(BACKOFF_MAX_MS);
            }
            Ended::Stopped => waiting.due_ms = now_ms,
            // More has come meanwhile.
            Ended::Settled if waiting.is_wanted_again => {
                waiting.due_ms = now_ms;
                waiting.failures = 0;
            }
            Ended::Settled => {
                self.waiting.remove(&place(&wanted.key));
                return true;
            }
        }
        false
    }

    /// Whether an hour waits or runs.
    pub fn holds(&self, key: &HourKey) -> bool {
        self.waiting.contains_key(&place(key))
    }

    /// When the next hour is due that is not running, in the caller's milliseconds.
    pub fn due_ms(&self) -> Option<u64> {
        self.waiting.values().filter(|waiting| !waiting.is_running).map(|waiting| waiting.due_ms).min()
    }

    /// Hours that wait or run.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn wanted(&self) -> Vec<&Wanted> {
        self.waiting.values().map(|waiting| &waiting.wanted).collect()
    }
}

/// Name of the log.
const LOG_NAME: &str = "etl";

#[derive(Serialize, Deserialize)]
enum Change {
    Want(Wanted),
    Settled(HourKey),
}

/// A [`Queue`] that survives restarts.
pub struct DurableQueue {
    queue: Queue,
    log: Log,
    /// A write failed: the log lacks something that the queue has, until the next one comes through.
    is_behind: bool,
}

impl DurableQueue {
    /// Opens the queue in `dir`. Damage is told; hours that it took are complete again when somebody says so, or can be made by hand.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<DurableQueue> {
        let (log, found) = Log::open(disk, dir, LOG_NAME)?;
        if found.report.is_suspect() {
            tracing::error!(
                "the queue of hours for ETL was damaged, some may be missing from it: compare received/ with etl_done/"
            );
        }
        let mut queue = Queue::default();
        let snapshot: Vec<Wanted> =
            found.snapshot.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        for wanted in snapshot {
            queue.want(wanted);
        }
        for record in &found.records {
            match serde_json::from_slice(record) {
                Ok(Change::Want(wanted)) => drop(queue.want(wanted)),
                Ok(Change::Settled(key)) => drop(queue.waiting.remove(&place(&key))),
                Err(error) => {
                    tracing::error!("an entry of the queue of hours for ETL is unreadable: {error}")
                }
            }
        }
        let is_behind = log.is_poisoned();
        Ok(DurableQueue { queue, log, is_behind })
    }

    /// [`Queue::want`], durable when it returns.
    ///
    /// # Errors
    /// Those of the disk; the hour then waits, but perhaps not over a restart: say it again, and it is written then.
    pub fn want(&mut self, wanted: Wanted) -> io::Result<bool> {
        let record = serde_json::to_vec(&Change::Want(wanted.clone()))?;
        let is_news = self.queue.want(wanted);
        if is_news || self.is_behind {
            self.write(&record)?;
        }
        Ok(is_news)
    }

    /// [`Queue::start`].
    pub fn start(&mut self, now_ms: u64) -> Option<Wanted> {
        self.queue.start(now_ms)
    }

    /// [`Queue::ended`]. If that cannot be made durable, the hour's tables are made again after a restart.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn ended(&mut self, wanted: &Wanted, ended: Ended, now_ms: u64) -> io::Result<()> {
        match self.queue.ended(wanted, ended, now_ms) {
            true => self.write(&serde_json::to_vec(&Change::Settled(wanted.key.clone()))?),
            false => Ok(()),
        }
    }

    /// The hours.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// A write that comes through after one that failed is a snapshot, so it has all that the queue has.
    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.is_behind = true;
        if self.log.wants_snapshot() {
            self.log.snapshot(&serde_json::to_vec(&self.queue.wanted())?)?;
        } else {
            self.log.append(record);
            self.log.commit()?;
        }
        self.is_behind = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::faulty::{Faults, FaultyDisk, Random};

    fn wanted(host: &str, hour: &str, total: u64) -> Wanted {
        let key = HourKey::new("access", host, Some(hour.parse().unwrap())).unwrap();
        Wanted { key, total, lines: 10 * total, paths: vec![format!("/data/{host}_{hour}").into()] }
    }

    #[test]
    fn old_hours_come_first_and_each_runs_once_at_a_time() {
        let mut queue = Queue::default();
        assert!(queue.want(wanted("b", "2026112101", 2)));
        assert!(queue.want(wanted("a", "2026112102", 2)));
        assert!(!queue.want(wanted("a", "2026112102", 2)));
        let first = queue.start(0).unwrap();
        assert_eq!(first.key.host, "b");
        assert_eq!(queue.start(0).unwrap().key.host, "a");
        assert_eq!(queue.start(0), None);
        assert!(queue.ended(&first, Ended::Settled, 0));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn an_hour_that_grew_while_it_ran_runs_again() {
        let mut queue = Queue::default();
        queue.want(wanted("a", "2026112101", 2));
        let first = queue.start(0).unwrap();
        assert!(queue.want(wanted("a", "2026112101", 3)));
        assert!(!queue.ended(&first, Ended::Settled, 5));
        let again = queue.start(5).unwrap();
        assert_eq!(again.total, 3);
        assert!(queue.ended(&again, Ended::Settled, 5) && queue.is_empty());
    }

    #[test]
    fn an_hour_that_got_other_lines_or_files_without_another_pack_is_made_of_these() {
        let mut queue = Queue::default();
        queue.want(wanted("a", "2026112101", 2));
        let more = Wanted { lines: 25, ..wanted("a", "2026112101", 2) };
        assert!(queue.want(more.clone()), "it waits");
        let first = queue.start(0).unwrap();
        assert_eq!(first.lines, 25);
        assert!(queue.want(more), "it was replaced by as many lines while it ran");
        assert!(!queue.ended(&first, Ended::Settled, 5));
        let again = queue.start(5).unwrap();
        assert!(queue.ended(&again, Ended::Settled, 5) && queue.is_empty());
    }

    #[test]
    fn an_hour_that_the_disk_refused_waits_longer_each_time() {
        let mut queue = Queue::default();
        queue.want(wanted("a", "2026112101", 2));
        let mut now_ms = 0;
        for wait_ms in [1_000, 2_000, 4_000] {
            let running = queue.start(now_ms).unwrap();
            queue.ended(&running, Ended::TryAgain, now_ms);
            assert_eq!(queue.due_ms(), Some(now_ms + wait_ms));
            assert_eq!(queue.start(now_ms + wait_ms - 1), None);
            now_ms += wait_ms;
        }
        let running = queue.start(now_ms).unwrap();
        queue.ended(&running, Ended::Stopped, now_ms);
        assert!(queue.start(now_ms).is_some());
    }

    #[test]
    fn what_was_wanted_and_not_settled_is_wanted_after_a_crash() {
        let trial = logferry_trial::trial!();
        for seed in trial.seeds("queues", 0..50) {
            let disk = FaultyDisk::new(seed);
            let dir = Path::new("/var");
            let mut queue = DurableQueue::open(Arc::new(disk.clone()), dir).unwrap();
            for host in ["a", "b", "c"] {
                queue.want(wanted(host, "2026112101", 1)).unwrap();
            }
            let running = queue.start(0).unwrap();
            queue.ended(&running, Ended::Settled, 0).unwrap();
            queue.want(wanted("b", "2026112101", 7)).unwrap();
            drop(queue);
            disk.crash();
            let queue = DurableQueue::open(Arc::new(disk.clone()), dir).unwrap();
            let left: Vec<(String, u64)> =
                queue.queue().wanted().iter().map(|wanted| (wanted.key.host.clone(), wanted.total)).collect();
            assert_eq!(left, [("b".to_owned(), 7), ("c".to_owned(), 1)]);
        }
    }

    #[test]
    fn an_hour_that_could_not_be_written_is_written_when_it_is_wanted_again() {
        let disk = FaultyDisk::new(1);
        let dir = Path::new("/var");
        let mut queue = DurableQueue::open(Arc::new(disk.clone()), dir).unwrap();
        disk.set_faults(Faults { fail_sync_in: Some(1), ..Faults::default() });
        queue.want(wanted("a", "2026112101", 1)).unwrap_err();
        assert!(!queue.want(wanted("a", "2026112101", 1)).unwrap(), "it waited in memory already");
        drop(queue);
        disk.crash();
        let queue = DurableQueue::open(Arc::new(disk.clone()), dir).unwrap();
        assert_eq!(queue.queue().wanted(), [&wanted("a", "2026112101", 1)]);
    }

    #[test]
    fn what_the_queue_took_is_there_after_crashes_whatever_writes_fail() {
        let trial = logferry_trial::trial!();
        for seed in trial.seeds("lives of a queue of hours", 0..300) {
            let (disk, mut random) = (FaultyDisk::new(seed), Random::new(seed));
            let open = || DurableQueue::open(Arc::new(disk.clone()), Path::new("/var"));
            let mut queue = open().unwrap();
            // What was taken and is not made yet, by host.
            let mut taken = BTreeMap::new();
            for total in 1..60 {
                match random.below(8) {
                    0 => disk.set_faults(Faults { fail_sync_in: Some(1), ..Faults::default() }),
                    1 => disk.set_faults(Faults { fail_append_in: Some(1), ..Faults::default() }),
                    2 => {
                        drop(queue);
                        disk.crash();
                        queue = open().unwrap();
                        for (host, total) in &taken {
                            let is_there =
                                |there: &&&Wanted| there.key.host == *host && there.total >= *total;
                            assert!(queue.queue().wanted().iter().find(is_there).is_some(), "{host} {total}");
                        }
                    }
                    3 => {
                        if let Some(running) = queue.start(u64::MAX / 2) {
                            // If that cannot be written, the hour is made again.
                            let _ = queue.ended(&running, Ended::Settled, 0);
                            taken.remove(&running.key.host);
                        }
                    }
                    _ => {
                        let wanted = wanted(["a", "b", "c"][random.below(3) as usize], "2026112101", total);
                        for _ in 0..random.below(3) {
                            if queue.want(wanted.clone()).is_ok() {
                                taken.insert(wanted.key.host.clone(), total);
                                break;
                            }
                        }
                    }
                }
            }
        }
    }
}
