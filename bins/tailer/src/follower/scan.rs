//! Looking at the sources' paths: opening what is new, following what moved.

use super::attach::Attached;
use super::backlog::Backlog;
use super::tally::Counted;
use super::{Followed, Follower};
use crate::config::{CatchUp, SourceSettings};
use crate::cutter::{CutLimits, Cutter, Cutting};
use crate::entries::{Entries, encoding_of};
use crate::files::{self, Facts};
use crate::hour::until;
use crate::identity::FileKey;
use crate::input::shelf::Shelf;
use crate::legacy::LineRecord;
use crate::pace::Pace;
use crate::pattern::{FileTime, PathPattern};
use crate::tracker::{Decision, FileNumber, Place, Sighting};
use crate::walk::{Found, walk};
use anyhow::Context;
use jiff::Timestamp;
use logferry_pack::{Hour, Name};
use metrics::counter;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Shortest time between two looks at a source whose folders keep changing.
pub(super) const LOOK_APART: Duration = Duration::from_millis(20);
/// Looks at a source may take one part in this many of the time.
const LOOK_SHARE: u32 = 10;
/// Files of a source that are opened before others get their turn.
const OPENED_AT_ONCE: usize = 64;

/// Why a file is not read.
#[derive(PartialEq, Eq)]
struct Failure {
    reason: String,
    /// It lies outside of the source's `roots`: it is none of its files.
    is_outside: bool,
}

/// A source at work.
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    pub(super) name: Name,
    pub(super) pattern: PathPattern,
    /// How its files are cut.
    pub(super) cutting: Cutting,
    /// Files with times in their names that were not read to their end yet since they were opened.
    pub(super) backlog: Backlog,
    /// Its `rate`, and the files that wait for it.
    pub(super) pace: Option<Pace>,
    pub(super) held: VecDeque<FileNumber>,
    pub(super) next_look: Instant,
    pub(super) last_look: Instant,
    /// Folders in which names matter, and the last of them whose watch was renewed.
    pub(super) folders: BTreeSet<PathBuf>,
    pub(super) renewed_to: Option<PathBuf>,
    /// inotify tells of everything that happens to its files; why not, if it should.
    pub(super) is_watched: bool,
    pub(super) watch_problem: Option<String>,
    pub(super) has_remote: bool,
    pub(super) fixed_is_missing: bool,
    /// Names have changed in its folders since the last look; these.
    pub(super) names_changed: bool,
    pub(super) dirty: HashSet<OsString>,
    /// Files are found over links: what these lead to may change where nobody watches.
    has_links: bool,
    /// When all its files are asked, whatever inotify told.
    pub(super) rescan_at: Instant,
    look_took: Duration,
    /// It was looked at, and what was found and waits to be opened.
    pub(super) looked: bool,
    pub(super) to_open: VecDeque<Sighting>,
    /// Files that could not be opened, and folders that could not be listed, with the reason: their lines are missing.
    failed: BTreeMap<PathBuf, Failure>,
    unreadable: BTreeMap<PathBuf, String>,
    /// When all of it could be seen.
    pub(super) seen_to: Timestamp,
    /// The device of its fixed folder when files were there.
    device: Option<u64>,
    is_empty: bool,
    /// Where a legacy system left off, until the first look is over.
    pub(super) line_record: Option<LineRecord>,
    /// What the input knows of its files, if the source is one.
    pub(super) shelf: Option<Arc<Shelf>>,
}

impl Source {
    /// `buffer_bytes` is the size of the buffers that its files are read into.
    pub(super) fn new(
        settings: &SourceSettings,
        limits: CutLimits,
        buffer_bytes: usize,
    ) -> anyhow::Result<Source> {
        let now = Instant::now();
        let name = Name::new(settings.name.as_str()).with_context(|| format!("source {}", settings.name))?;
        let pattern = PathPattern::parse(&settings.path)
            .with_context(|| format!("path of source {}", settings.name))?;
        let entries = Entries::new(settings).map_err(anyhow::Error::msg)?;
        let encoding = encoding_of(settings).map_err(anyhow::Error::msg)?;
        let folders = BTreeSet::from([files::fixed_folder(pattern.glob())]);
        Ok(Source {
            settings: settings.clone(),
            name,
            pattern,
            cutting: Cutting::new(limits, encoding, entries, buffer_bytes),
            backlog: Backlog::default(),
            pace: Pace::new(settings.rate.0 as f64, now),
            held: VecDeque::new(),
            next_look: now,
            last_look: now,
            folders,
            renewed_to: None,
            is_watched: false,
            watch_problem: None,
            has_remote: false,
            fixed_is_missing: false,
            names_changed: true,
            dirty: HashSet::new(),
            has_links: false,
            rescan_at: now,
            look_took: Duration::ZERO,
            looked: false,
            to_open: VecDeque::new(),
            failed: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            seen_to: Timestamp::MIN,
            device: None,
            is_empty: false,
            line_record: None,
            shelf: None,
        })
    }

    /// Folders in which the clock says that files are, or will be in the next hour, from the fixed one down.
    pub(super) fn add_folders_of(&mut self, hour: Hour) {
        if !self.pattern.has_hours() {
            return;
        }
        let fixed = files::fixed_folder(self.pattern.glob());
        let path = PathBuf::from(self.pattern.expand(FileTime { hour, minute: 0 }));
        let below =
            path.ancestors().skip(1).take_while(|folder| *folder != fixed && folder.starts_with(&fixed));
        let plain = below.filter(|folder| !files::is_glob(&folder.to_string_lossy()));
        self.folders.extend(plain.map(Path::to_owned));
    }

    /// Shortest time between two looks.
    pub(super) fn look_apart(&self) -> Duration {
        LOOK_APART.max(self.look_took * LOOK_SHARE)
    }

    /// Names have changed, or so it seems.
    pub(super) fn look_soon(&mut self, now: Instant) {
        self.names_changed = true;
        self.next_look = now.max(self.last_look + self.look_apart()).min(self.next_look);
    }

    /// Files and folders whose lines are missing.
    pub(super) fn unreadable(&self) -> usize {
        self.failed.len() + self.unreadable.len()
    }

    /// No file is where its path leads, though somebody else should have put one there: an input has none until lines come.
    pub(super) fn is_without_files(&self) -> bool {
        self.looked && self.is_empty && self.shelf.is_none()
    }

    fn open_failed(&mut self, path: &Path, error: &io::Error) {
        let failure = || Failure { reason: error.to_string(), is_outside: files::is_outside(error) };
        if self.failed.insert(path.to_owned(), failure()) != Some(failure()) {
            warn!(path = %path.display(), %error, "the file cannot be opened: trying again");
        }
    }

    /// Files that could not be opened, and should have been.
    pub(super) fn failed_within_roots(&self) -> impl Iterator<Item = &Path> {
        self.failed.iter().filter(|(_, failure)| !failure.is_outside).map(|(path, _)| path.as_path())
    }

    /// Whether there may be files that nobody sees.
    pub(super) fn has_hidden_folders(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// What keeps the files of the fixed folder from being seen, though the folder has nothing to list: it was taken away, or the
    /// file system that the files were on was.
    fn fixed_folder_problem(&mut self) -> Option<(PathBuf, String)> {
        // That of an input comes with its first line.
        if self.shelf.is_some() {
            return None;
        }
        let folder = files::fixed_folder(self.pattern.glob());
        let problem = match files::facts_at(&folder.join(".")) {
            Err(error) => error.to_string(),
            Ok(facts) => {
                if !self.is_empty {
                    self.device = Some(facts.key.device);
                }
                let is_other = self.device.is_some_and(|device| device != facts.key.device);
                is_other.then(|| "it is empty, and of another file system than its files were".to_owned())?
            }
        };
        Some((folder, problem))
    }

    fn report_unreadable(&mut self, unreadable: Vec<(PathBuf, String)>) {
        let unreadable: BTreeMap<PathBuf, String> = unreadable.into_iter().collect();
        for (folder, error) in unreadable.iter().filter(|(folder, _)| !self.unreadable.contains_key(*folder))
        {
            warn!(source = self.settings.name, folder = %folder.display(), error, "the folder cannot be listed: trying again");
        }
        // Nobody tells when it can be.
        self.is_watched &= unreadable.is_empty();
        self.unreadable = unreadable;
    }

    fn report_empty(&mut self, is_empty: bool) {
        if self.shelf.is_some() {
            return;
        }
        if is_empty && (!self.is_empty || !self.looked) {
            warn!(
                source = self.settings.name,
                path = self.settings.path,
                "no file is there: waiting for one"
            );
        } else if !is_empty && self.is_empty && self.looked {
            info!(source = self.settings.name, "files are there now");
        }
        self.is_empty = is_empty;
    }
}

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
        (waits && self.ready.len() < self.open_files.waiting_max()).then(Instant::now)
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
        self.read_line_record(index);
        let begin = Instant::now();
        let source = &mut self.sources[index];
        let asks_all = !source.is_watched || source.rescan_at <= begin;
        if asks_all {
            source.rescan_at = begin + self.limits.rescan_interval.0;
        }
        source.names_changed = false;
        let dirty = std::mem::take(&mut source.dirty);
        let walk = walk(source.pattern.glob());
        let folders_before = source.folders.len();
        source.folders.extend(walk.folders);
        source.names_changed |= source.folders.len() > folders_before;
        source.has_links = walk.found.iter().any(|found| found.inode.is_none());
        let sightings = self.sightings(index, walk.found, (!asks_all).then_some(&dirty));
        let source = &mut self.sources[index];
        source.report_empty(sightings.is_empty());
        let problem = source.fixed_folder_problem();
        source.report_unreadable(walk.unreadable.into_iter().chain(problem).collect());
        let mut to_open = VecDeque::new();
        for decision in self.tracker.look(index, &sightings) {
            match decision {
                Decision::Open(sighting) => to_open.push_back(sighting),
                Decision::Size(number, size) => self.sized(number, size),
                Decision::Placed(number, place) => self.placed(number, place),
            }
        }
        let source = &mut self.sources[index];
        source.failed.retain(|path, _| to_open.iter().any(|sighting| sighting.path == *path));
        source.to_open = to_open;
        source.looked = true;
        source.look_took = begin.elapsed();
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
                sightings.push(Sighting { path, key, size, touched_ns: 0 });
                continue;
            }
            let pattern = &self.sources[index].pattern;
            let Some(facts) = Some(&path)
                .filter(|path| pattern.admits(path))
                .and_then(|path| files::facts_at(path).ok())
                .filter(|facts| facts.is_file)
            else {
                continue;
            };
            let order = (pattern.time_of(&path), facts.changed_ns);
            if let Some(number) = self.tracker.find(facts.key) {
                self.also_at(number, &path);
            }
            let Facts { key, size, touched_ns, .. } = facts;
            asked.push((order, Sighting { path, key, size, touched_ns }));
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

    /// inotify may name the file by this path.
    fn also_at(&mut self, number: FileNumber, path: &Path) {
        if self.by_path.get(path) == Some(&number) {
            return;
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.names.push(path.to_owned());
            self.by_path.insert(path.to_owned(), number);
        }
    }

    /// Opens files that were found, a few at a time, and not many more than can be read soon.
    fn open_some(&mut self, index: usize) {
        for _ in 0..OPENED_AT_ONCE {
            if self.ready.len() >= self.open_files.waiting_max() {
                return;
            }
            let Some(sighting) = self.sources[index].to_open.pop_front() else { break };
            self.open(index, &sighting);
        }
        if self.sources[index].to_open.is_empty() {
            self.all_opened(index);
        }
    }

    /// What can be told only when all files of a source are known.
    fn all_opened(&mut self, index: usize) {
        self.close_hours(index);
        let name = self.sources[index].settings.name.clone();
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
        info!(path = %file.path.display(), ?place, "the file is at another place");
        file.place = place;
        if place == Place::Here {
            self.displaced.remove(&number);
        } else {
            self.displaced.insert(number);
        }
        file.quiet_since = Instant::now();
        self.queue(number);
    }

    fn open(&mut self, source: usize, sighting: &Sighting) {
        // It may have come between the looks: it belongs to the first source whose path leads to it.
        let earlier = self.sources[..source].iter().position(|other| other.pattern.covers(&sighting.path));
        if let Some(earlier) = earlier {
            let earlier = &mut self.sources[earlier];
            (earlier.names_changed, earlier.next_look) = (true, Instant::now());
            return;
        }
        if self.tracker.find(sighting.key).is_some() || self.open_unchanged(source, sighting) {
            return;
        }
        if self.is_packed(source, &sighting.path, sighting.key, sighting.size) {
            return;
        }
        match self.try_open(source, &sighting.path, Place::Here) {
            Ok(number) => {
                self.sources[source].failed.remove(&sighting.path);
                self.queue(number);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                counter!("logferry_tailer_open_failures_total").increment(1);
                self.sources[source].open_failed(&sighting.path, &error);
            }
        }
    }

    /// A file that looks as it did when all of it was acknowledged is followed without being opened.
    fn open_unchanged(&mut self, source: usize, sighting: &Sighting) -> bool {
        if sighting.key.born_ns == 0 {
            // Another file may have the same number, and have been changed in the same second.
            return false;
        }
        let stream = self.ledger.current(sighting.key).and_then(|id| self.ledger.stream(id));
        let Some(stream) = stream.filter(|stream| stream.has_all_of(sighting.size, sighting.touched_ns))
        else {
            return false;
        };
        let home = stream.met.home();
        let attached = Attached { stream: Some(stream.met.stream), at: sighting.size, home: Some(home) };
        let Ok(facts) = files::facts_at(&sighting.path) else { return false };
        let is_same =
            (facts.key, facts.size, facts.touched_ns) == (sighting.key, sighting.size, sighting.touched_ns);
        if is_same {
            let number = self.follow_as_attached(source, &sighting.path, None, &facts, Place::Here, attached);
            self.caught_up(number);
        }
        is_same
    }

    pub(super) fn try_open(&mut self, source: usize, path: &Path, place: Place) -> io::Result<FileNumber> {
        let handle = files::open_below(path, &self.sources[source].settings.roots)?;
        let facts = files::facts_of(&handle)?;
        // One that the source's path leads to is found by the next look, however long that takes: it is not to be let go before, or it
        // would be new then.
        let place = match place {
            Place::Gone { replaced } if self.sources[source].pattern.covers(path) => {
                Place::Moved { replaced }
            }
            _ => place,
        };
        // Between the look and the opening another file may have come there.
        match self.tracker.find(facts.key) {
            Some(known) => Ok(known),
            None => self.follow(source, path, handle, &facts, place),
        }
    }

    /// Follows an open file; `facts` are those of the file that the path leads to.
    pub(super) fn follow(
        &mut self,
        source: usize,
        path: &Path,
        handle: File,
        facts: &Facts,
        place: Place,
    ) -> io::Result<FileNumber> {
        let attached = self.attach(source, path, &handle, facts.key, facts.size)?;
        let number = self.follow_as_attached(source, path, Some(handle), facts, place, attached);
        self.opened(number);
        Ok(number)
    }

    fn follow_as_attached(
        &mut self,
        source: usize,
        path: &Path,
        handle: Option<File>,
        facts: &Facts,
        place: Place,
        attached: Attached,
    ) -> FileNumber {
        let home = attached.home.unwrap_or_else(|| path.to_owned());
        let number = self.tracker.opened(source, home.clone(), facts.key, place);
        let before = self.tracker.predecessor(source, &home, facts.key);
        let predecessor = before.or_else(|| self.input_file_before(source, path));
        let time = self.sources[source].pattern.time_of(&home);
        let is_behind_at_start = !self.searched_lost && facts.size > attached.at;
        let rank = self.sources[source].rank_of(time, facts.changed_ns, is_behind_at_start);
        let now = Instant::now();
        let readable = self.sources[source].readable(path);
        if let Some(stream) = attached.stream {
            self.by_stream.insert(stream, number);
        }
        if place != Place::Here {
            self.displaced.insert(number);
        }
        let target = self.target_of(path);
        if let Some(target) = &target {
            if self.sources[source].folders.insert(files::folder_of(target)) {
                // It must be watched from now on.
                self.sources[source].next_look = now;
            }
            self.by_path.insert(target.clone(), number);
        }
        self.by_path.insert(path.to_owned(), number);
        self.files.insert(
            number,
            Followed {
                source,
                path: path.to_owned(),
                time,
                rank,
                hour_over: false,
                target,
                names: Vec::new(),
                handle,
                active: true,
                key: facts.key,
                size: facts.size.min(readable),
                unlinked: false,
                size_trusted: attached.at,
                quiet_since: if time.is_some() { quiet_since(facts.changed_ns, now) } else { now },
                place,
                predecessor,
                successor: None,
                stream: attached.stream,
                begun: None,
                cutter: Cutter::new(attached.at),
                end_mark: None,
                verified: false,
                suspicious: false,
                unlinked_since: None,
                recent: VecDeque::new(),
                compressed_at: None,
                suspect: None,
                packed: false,
                waiting_since: None,
                line_bytes: 0,
                queued: false,
                failing: false,
                counted: Counted::default(),
            },
        );
        if let Some(before) = predecessor {
            self.successors.entry(before).or_default().push(number);
        }
        self.enter_backlog(number);
        self.tally.touch(number);
        number
    }

    /// What a path leads to over symbolic links, if it has any. Asking for a folder once is enough for a while.
    fn target_of(&mut self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name()?;
        let target = if path.is_symlink() {
            std::fs::canonicalize(path).ok()?
        } else {
            let folder = files::folder_of(path);
            if self.real_folder.0 != folder {
                self.real_folder = (folder.clone(), std::fs::canonicalize(&folder).ok()?);
            }
            self.real_folder.1.join(name)
        };
        (target != path).then_some(target)
    }
}

/// When a file last changed, as far as the clock that it was stamped by can be believed.
fn quiet_since(changed_ns: i64, now: Instant) -> Instant {
    let since = Timestamp::from_nanosecond(i128::from(changed_ns)).ok();
    let quiet = since.map_or(Duration::ZERO, |since| until(Timestamp::now(), since));
    now.checked_sub(quiet).unwrap_or(now)
}
