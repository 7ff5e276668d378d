//! Compressed files that could not be unpacked, most of all for want of room: tried again later, and held open until then, in case they are
//! deleted meanwhile.

use super::Follower;
use super::copies::is_named_after_any;
use super::listings::is_without_descriptors;
use super::packed::Packed;
use crate::files;
use crate::identity::FileKey;
use crate::ledger::record::Met;
use crate::tracker::Sighting;
use crate::unpack::{FirstBytes, UnpackJob};
use logferry_durable::is_full;
use metrics::counter;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A compressed file that could not be unpacked is tried again when it has changed, or after this time, which doubles so often.
const UNPACK_RETRY: Duration = Duration::from_secs(60);
const UNPACK_RETRY_DOUBLED_MAX: u32 = 6;
/// One that there is no room for is tried again after this time, which doubles so often: each try may take the room that there is.
const ROOM_RETRY: Duration = Duration::from_secs(5);
const ROOM_RETRY_DOUBLED_MAX: u32 = 9;

/// A compressed file that could not be unpacked.
pub(super) struct Failed {
    /// As it was tried. It is held open only if there was no room for it.
    pub(super) job: Box<UnpackJob>,
    pub(super) retry_at: Instant,
    /// There was no room for it: what it holds is only to come.
    pub(super) lacks_room: bool,
}

impl Failed {
    fn waits_for_room(&self) -> bool {
        self.lacks_room && self.job.held.is_some()
    }
}

/// Whether something failed because there was no room, on the disk or for one more descriptor.
pub(super) fn is_want_of_room(error: &io::Error) -> bool {
    is_full(error) || is_without_descriptors(error)
}

fn retry_after(failures: u32, lacks_room: bool) -> Duration {
    let (first, doubled_max) = if lacks_room {
        (ROOM_RETRY, ROOM_RETRY_DOUBLED_MAX)
    } else {
        (UNPACK_RETRY, UNPACK_RETRY_DOUBLED_MAX)
    };
    first * (1 << failures.saturating_sub(1).min(doubled_max))
}

impl Follower {
    pub(super) fn unpacking_failed(&mut self, job: UnpackJob, error: &io::Error) {
        counter!("logferry_tailer_unpack_failures_total").increment(1);
        self.sources[job.source].unpacking_failed(&job.path, error);
        let (failures, lacks_room) = (job.failures + 1, is_want_of_room(error));
        let retry_at = Instant::now() + retry_after(failures, lacks_room);
        if lacks_room {
            self.room_looked_at = self.room_looked_at.into_iter().chain([retry_at]).min();
        }
        let key = job.key;
        let held = job.held.filter(|_| lacks_room);
        let job = Box::new(UnpackJob { held, failures, may_be: Vec::new(), ..job });
        let failed = Failed { job, retry_at, lacks_room };
        self.packed.insert(key, Packed::Failed(failed));
    }

    /// Files that there was no room for.
    fn without_room(&self) -> impl Iterator<Item = (&FileKey, &Failed)> {
        let are_some = self.room_looked_at.is_some();
        self.packed.iter().filter(move |_| are_some).filter_map(|(key, packed)| match packed {
            Packed::Failed(failed) if failed.lacks_room => Some((key, failed)),
            _ => None,
        })
    }

    /// How many files are held open until there is room for them.
    pub(super) fn held_without_room(&self) -> usize {
        self.without_room().filter(|(_, failed)| failed.waits_for_room()).count()
    }

    /// The paths of a source's files that are.
    pub(super) fn paths_held_without_room(&self, source: usize) -> Vec<PathBuf> {
        let held = self.without_room().filter(|(_, failed)| failed.waits_for_room());
        held.filter(|(_, failed)| failed.job.source == source)
            .map(|(_, failed)| failed.job.path.clone())
            .collect()
    }

    /// Looks again for files that there was no room for, wherever they are by now: there may be room.
    pub(super) fn retry_without_room(&mut self) {
        let now = Instant::now();
        if self.room_looked_at.is_none_or(|due| now < due) {
            return;
        }
        let lacking = self.without_room().map(|(key, failed)| (*key, failed.retry_at));
        let (mut due, later): (HashMap<_, _>, HashMap<_, _>) =
            lacking.partition(|(_, retry_at)| *retry_at <= now);
        // Those that are not found until then are looked for again.
        let again = (!due.is_empty()).then_some(now + ROOM_RETRY);
        self.room_looked_at = later.into_values().chain(again).min();
        if due.is_empty() {
            return;
        }
        // Those that no look finds.
        let beside: Vec<FileKey> =
            due.keys().copied().filter(|key| self.is_held_and_away(*key) || !self.is_covered(*key)).collect();
        for key in beside {
            due.remove(&key);
            match self.is_asked_for(key) {
                true => self.retry_beside(key),
                false => drop(self.packed.remove(&key)),
            }
        }
        due.keys().for_each(|key| self.asked.forget(*key));
        for source in &mut self.sources {
            source.rescan_at = now;
            source.look_soon(now);
        }
        self.search_lost();
    }

    /// Whether a file that there was no room for is held open, and not under its path any more.
    fn is_held_and_away(&self, key: FileKey) -> bool {
        let Some(Packed::Failed(failed)) = self.packed.get(&key) else { return false };
        failed.waits_for_room() && !files::facts_at(&failed.job.path).is_ok_and(|facts| facts.key == key)
    }

    /// Whether a path of its source leads to where a file was that there was no room for.
    fn is_covered(&self, key: FileKey) -> bool {
        let Some(Packed::Failed(failed)) = self.packed.get(&key) else { return false };
        self.sources[failed.job.source].paths.covers(&failed.job.path)
    }

    /// Whether somebody needs what is in a compressed file: its source, or a stream whose file is gone.
    fn is_asked_for(&self, key: FileKey) -> bool {
        let is_for_stream = || self.asked.by(key).any(|id| self.is_lost(id));
        self.is_covered(key)
            || self.missed_packed.contains(&key)
            || self.lost_in(key).is_some()
            || is_for_stream()
    }

    /// It has its turn again, as it is held or where it was.
    fn retry_beside(&mut self, key: FileKey) {
        let Some(Packed::Failed(failed)) = self.packed.remove(&key) else { return };
        let job = *failed.job;
        let paths = &self.sources[job.source].paths;
        let hour = paths.time_of(&job.path).filter(|_| paths.has_hours()).map(|time| time.hour);
        self.packed.insert(key, Packed::Waiting { source: job.source, hour });
        self.to_unpack.add(job, false);
        self.unpack_next();
    }

    /// Whether a stream may go on in a file that no path leads to any more, and that is held open until its turn comes, or there is room.
    pub(super) fn awaits_held(&mut self, source: usize, met: &Met, names: &[PathBuf]) -> bool {
        let paths = &self.sources[source].paths;
        let may_be = |job: &&UnpackJob| {
            job.source == source
                && job.held.is_some()
                && is_named_after_any(&job.path, names)
                && !paths.differ_in_time(&job.path, &met.home())
        };
        let without_room = self.without_room().map(|(_, failed)| &*failed.job);
        let held =
            without_room.chain(self.to_unpack.waiting()).filter(may_be).map(|job| (met.stream, job.key));
        let held: Vec<_> = held.filter(|(id, key)| !self.is_whole_copy(*id, *key)).collect();
        held.into_iter().for_each(|(id, key)| _ = self.asked.insert(id, key));
        self.asked.of(met.stream).filter_map(|key| self.packed.get(&key)).any(|packed| match packed {
            Packed::Waiting { .. } | Packed::Unpacking { .. } => true,
            Packed::Failed(failed) => failed.waits_for_room(),
            Packed::Known(_) => false,
        })
    }

    /// What stands under the path of a file that there was no room for begins otherwise by now.
    pub(super) fn note_overwritten(&mut self, key: FileKey, now: FirstBytes, first_bytes: &[u8]) {
        let Some(Packed::Failed(failed)) = self.packed.get(&key) else { return };
        let UnpackJob { source, ref path, look, begins, .. } = *failed.job;
        if !failed.lacks_room || begins == now || begins.agrees(first_bytes) {
            return;
        }
        let path = path.clone();
        self.packed_lost(source, &path, key, look, "replaced");
    }

    /// Whether a compressed file is in the folder where it was, or may be.
    fn may_be_in_folder(&self, job: &UnpackJob) -> bool {
        match self.find_in(&files::folder_of(&job.path), job.key) {
            Ok(found) => found.is_some(),
            Err(error) => !files::is_absent(&error),
        }
    }

    /// Files that there was no room for, and that are gone now. Those that are held open are kept, for `hold_deleted`.
    pub(super) fn note_gone_without_room(
        &mut self,
        index: usize,
        sightings: &[Sighting],
        unlisted: &[PathBuf],
    ) {
        let seen: BTreeSet<FileKey> = match self.room_looked_at {
            Some(_) => sightings.iter().map(|sighting| sighting.key).collect(),
            None => return,
        };
        let is_gone = |key: &FileKey, job: &UnpackJob| {
            let is_hidden = || unlisted.iter().any(|folder| job.path.starts_with(folder));
            let has_no_name = || match &job.held {
                _ if self.is_covered(*key) => !is_hidden() && !self.is_named_elsewhere(index, *key),
                // Looks are not for those.
                Some(held) => files::facts_of(held).is_ok_and(|facts| facts.links == 0),
                None => !self.may_be_in_folder(job),
            };
            job.source == index && !seen.contains(key) && has_no_name()
        };
        let gone: Vec<FileKey> = self
            .without_room()
            .filter(|(key, failed)| is_gone(key, &failed.job))
            .map(|(key, _)| *key)
            .collect();
        let (now, hold) = (Instant::now(), self.sources[index].settings.hold_deleted.0);
        for key in gone {
            let Some(Packed::Failed(failed)) = self.packed.get_mut(&key) else { continue };
            let since = *failed.job.gone_since.get_or_insert(now);
            let is_held = failed.waits_for_room();
            if is_held && now.saturating_duration_since(since) < hold {
                continue;
            }
            let reason = if is_held { "held_too_long" } else { "deleted" };
            let (path, look) = (failed.job.path.clone(), failed.job.look);
            self.packed.remove(&key);
            self.sources[index].failed.remove(&path);
            self.packed_lost(index, &path, key, look, reason);
            // Who waited for it waits no more.
            self.search_again.later(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_unpacked_is_tried_after_ever_longer_waits() {
        let waits = |lacks_room| [1, 2, 3, 100].map(|failures| retry_after(failures, lacks_room).as_secs());
        assert_eq!(waits(false), [60, 120, 240, 3_840]);
        assert_eq!(waits(true), [5, 10, 20, 2_560]);
    }
}
