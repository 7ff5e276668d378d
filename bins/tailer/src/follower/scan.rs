//! Looking at the sources' paths: what is new, and what moved.

use super::Follower;
use crate::config::CatchUp;
use crate::files::{self, Facts};
use crate::hour::until;
use crate::identity::FileKey;
use crate::tracker::{Decision, FileNumber, Place, Sighting};
use crate::walk::Found;
use jiff::Timestamp;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Shortest time between two looks at a source whose folders keep changing.
pub(super) const LOOK_APART: Duration = Duration::from_millis(20);
/// Most files of a look that the log names one by one.
const TOLD_EACH_MAX: usize = 10;
/// Looks at a source may take one part in this many of the time.
pub(super) const LOOK_SHARE: u32 = 10;

impl Follower {
    /// Visits the sources whose time has come, and opens what they found.
    pub(super) fn look_at_due_sources(&mut self) {
        let now = Instant::now();
        for index in 0..self.sources.len() {
            if self.sources[index].next_look <= now {
                self.visit(index);
            }
            if !self.sources[index].to_open.is_empty() {
                self.open_some(index);
            }
        }
        let all_looked_at = || self.sources.iter().all(|source| source.looked && source.to_open.is_empty());
        if !self.searched_lost && all_looked_at() {
            self.searched_lost = true;
            self.first_look_is_over();
        }
    }

    /// When files wait to be opened that may be now.
    pub(super) fn open_due(&self) -> Option<Instant> {
        let waits = self.sources.iter().any(|source| !source.to_open.is_empty());
        (waits && self.ready.len() < self.open_files.waiting_max())
            .then(|| self.open_files.full_until().unwrap_or_else(Instant::now))
    }

    /// What a source needs from time to time. Its files are looked at when names have changed in their folders, when nobody would
    /// tell of that, and every now and then in case somebody did not.
    fn visit(&mut self, index: usize) {
        self.watch_folders(index);
        let now = Instant::now();
        let source = &mut self.sources[index];
        source.last_look = now;
        let time = Timestamp::now();
        let next_hour = self.clock.hour_at(time).map(|hour| until(self.clock.end_of(hour, time), time));
        let wait = next_hour.unwrap_or(Duration::MAX).min(source.settings.poll_interval.0);
        let is_due = source.names_changed || !source.is_watched || source.rescan_at <= now;
        if is_due || source.has_links || !source.failed.is_empty() {
            self.look(index);
        }
        let source = &mut self.sources[index];
        // Looking at very many files must not be all that is done.
        let wait =
            if source.names_changed { Duration::ZERO } else { wait.max(source.look_took * LOOK_SHARE * 2) };
        source.next_look = now + wait.max(source.look_apart());
        self.tend(index);
    }

    fn look(&mut self, index: usize) {
        self.begin_look(index);
        let begin = Instant::now();
        let source = &mut self.sources[index];
        let asks_all = !source.is_watched || source.rescan_at <= begin;
        if asks_all {
            source.rescan_at = begin + self.limits.rescan_interval.0;
        }
        source.names_changed = false;
        let dirty = std::mem::take(&mut source.dirty);
        let walk = source.walk();
        let folders_before = source.folders.len();
        source.folders.extend(walk.folders);
        source.names_changed |= source.folders.len() > folders_before;
        source.has_links = walk.found.iter().any(|found| found.inode.is_none());
        let sightings = self.sightings(index, walk.found, (!asks_all).then_some(&dirty));
        let unlisted: Vec<PathBuf> = walk.unreadable.iter().map(|(folder, _)| folder.clone()).collect();
        self.note_gone_without_room(index, &sightings, &unlisted);
        self.forget_gone_packed();
        let source = &mut self.sources[index];
        source.report_empty(sightings.is_empty() && unlisted.is_empty());
        let problem = source.fixed_folder_problem();
        source.report_unreadable(walk.unreadable.into_iter().chain(problem).collect());
        let mut to_open = VecDeque::new();
        for decision in self.tracker.look_without(index, &sightings, &unlisted) {
            match decision {
                Decision::Open(sighting) => to_open.push_back(sighting),
                Decision::Size(number, size) => self.sized(number, size),
                Decision::Placed(number, place) => self.placed(number, place),
            }
        }
        let held = self.paths_held_without_room(index);
        let source = &mut self.sources[index];
        if !to_open.is_empty() {
            source.tells_each = to_open.len() <= TOLD_EACH_MAX;
            if !source.tells_each {
                info!(source = source.settings.name, files = to_open.len(), "new files were found");
            }
        }
        let sought = to_open.iter().map(|sighting| sighting.path.as_path());
        let sought: HashSet<&Path> = sought.chain(held.iter().map(PathBuf::as_path)).collect();
        source.failed.retain(|path, _| sought.contains(path.as_path()));
        source.to_open = to_open;
        source.looked = true;
        // One that took long because the system was busy with something else is no measure.
        let took = begin.elapsed();
        source.look_took = std::mem::replace(&mut source.last_look_took, took).min(took);
    }

    /// The files behind names. Those that are known and have not changed, by what inotify tells, are not asked.
    fn sightings(
        &mut self,
        index: usize,
        found: Vec<Found>,
        dirty: Option<&HashSet<OsString>>,
    ) -> Vec<Sighting> {
        let mut sightings = Vec::with_capacity(found.len());
        let mut asked = Vec::new();
        for Found { path, inode } in found {
            let known = dirty.and_then(|dirty| self.known_as(&path, inode?, dirty));
            if let Some((key, size)) = known {
                sightings.push(Sighting { path, key, size, touched_ns: 0, changed_ns: 0 });
                continue;
            }
            let paths = &self.sources[index].paths;
            let Some(facts) = Some(&path)
                .filter(|path| paths.admits(path))
                .and_then(|path| files::facts_at(path).ok())
                .filter(|facts| facts.is_file)
            else {
                continue;
            };
            // What is being written has no time in its name yet, and comes last.
            let time = paths.time_of(&path);
            let order = (paths.is_current(&path), time, facts.changed_ns);
            if let Some(number) = self.tracker.find(facts.key) {
                self.also_at(number, &path);
                self.report_shared(index, number, &path);
            }
            let Facts { key, size, touched_ns, changed_ns, .. } = facts;
            asked.push((order, Sighting { path, key, size, touched_ns, changed_ns }));
        }
        asked.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
        if self.sources[index].settings.catch_up == CatchUp::Newest {
            asked.reverse();
        }
        sightings.extend(asked.into_iter().map(|(_, sighting)| sighting));
        sightings
    }

    fn known_as(&self, path: &Path, inode: u64, dirty: &HashSet<OsString>) -> Option<(FileKey, u64)> {
        let file = self.by_path.get(path).and_then(|number| self.files.get(number))?;
        let is_same = file.key.inode == inode && path.file_name().is_some_and(|name| !dirty.contains(name));
        is_same.then_some((file.key, file.size))
    }

    /// Says once of two sources that a file has come from one to the other.
    fn report_shared(&mut self, index: usize, number: FileNumber, path: &Path) {
        let Some(other) = self.files.get(&number).map(|file| file.source).filter(|other| *other != index)
        else {
            return;
        };
        // It is of the first source whose path leads to it: nothing to wonder about.
        if other < index && self.sources[other].paths.covers(path) {
            return;
        }
        let by = self.sources[other].settings.name.clone();
        let source = &mut self.sources[index];
        if source.shares_with.insert(other) {
            warn!(
                path = %path.display(), source = source.settings.name, by,
                "two sources lead to the same file: it is shipped once, by the one that was there first. For a log that is renamed when its \
                 hour or day is over, use one source with `current`"
            );
        }
    }

    /// inotify may name the file by this path.
    fn also_at(&mut self, number: FileNumber, path: &Path) {
        if self.by_path.get(path) == Some(&number) {
            return;
        }
        self.named_at_last(number, path);
        if let Some(file) = self.files.get_mut(&number) {
            file.names.push(path.to_owned());
            self.by_path.insert(path.to_owned(), number);
        }
    }

    /// What can be told only when all files of a source are known.
    pub(super) fn all_opened(&mut self, index: usize) {
        let name = self.sources[index].settings.name.clone();
        self.follow_recorded(index);
        self.close_hours(index);
        self.note_first_look(index);
        self.ledger.source_started(&name);
    }

    fn tend(&mut self, index: usize) {
        self.queue_displaced(Some(index));
        let linked: Vec<FileNumber> = self.linked.iter().copied().collect();
        linked.into_iter().for_each(|number| self.queue(number));
        self.give_up_deleted(index);
        if self.sources[index].looked && self.sources[index].to_open.is_empty() {
            self.all_opened(index);
        }
    }

    fn sized(&mut self, number: FileNumber, size: u64) {
        let Some(file) = self.files.get_mut(&number) else { return };
        let size = size.min(self.sources[file.source].readable(&file.path));
        if file.size == size {
            return;
        }
        // It may be long until it is read: what it holds is known at once.
        if size > file.size {
            file.size = size;
            file.quiet_since = Instant::now();
            file.waiting_since.get_or_insert_with(Instant::now);
        }
        self.queue(number);
    }

    fn placed(&mut self, number: FileNumber, place: Place) {
        let Some(file) = self.files.get_mut(&number) else { return };
        info!(path = %file.path.display(), %place, "the file is not where it was, or is there again");
        file.place = place;
        if place == Place::Here {
            self.displaced.remove(&number);
        } else {
            self.displaced.insert(number);
        }
        file.quiet_since = Instant::now();
        self.queue(number);
    }
}
