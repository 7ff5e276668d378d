//! Looking at the sources' paths: opening what is new, following what moved, finding again what a restart left.

use super::tally::Counted;
use super::{Followed, Follower};
use crate::config::SourceSettings;
use crate::cutter::{CutLimits, Cutter, Cutting};
use crate::entries::{Entries, encoding_of};
use crate::files::{self, Facts};
use crate::hour::until;
use crate::input::shelf::Shelf;
use crate::legacy::LineRecord;
use crate::pace::Pace;
use crate::pattern::{FileTime, PathPattern};
use crate::tracker::{Decision, FileNumber, Place, Sighting};
use anyhow::Context;
use jiff::Timestamp;
use logferry_pack::{Hour, Name};
use metrics::counter;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Shortest time between two looks at a source whose folders keep changing.
pub(super) const LOOK_APART: Duration = Duration::from_millis(20);

/// A source at work.
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    pub(super) name: Name,
    pub(super) pattern: PathPattern,
    /// How its files are cut.
    pub(super) cutting: Cutting,
    /// Files with times in their names that were not read to their end yet since they were opened.
    pub(super) catching_up: BTreeSet<(FileTime, FileNumber)>,
    /// Its `rate`, and the files that wait for it.
    pub(super) pace: Option<Pace>,
    pub(super) held: VecDeque<FileNumber>,
    pub(super) next_look: Instant,
    pub(super) last_look: Instant,
    /// Watch descriptors of its folders.
    pub(super) watched: BTreeSet<i32>,
    pub(super) folders: BTreeSet<PathBuf>,
    /// A file could not be opened at the last look: its lines are missing.
    pub(super) open_failed: bool,
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
            catching_up: BTreeSet::new(),
            pace: Pace::new(settings.rate.0 as f64, now),
            held: VecDeque::new(),
            next_look: now,
            last_look: now,
            watched: BTreeSet::new(),
            folders,
            open_failed: false,
            line_record: None,
            shelf: None,
        })
    }

    /// Folders in which the clock says that files are, or will be in the next hour, from the fixed one down.
    fn add_folders_of(&mut self, hour: Hour) {
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
}

impl Follower {
    pub(super) fn look_at_due_sources(&mut self) {
        let now = Instant::now();
        for index in 0..self.sources.len() {
            if self.sources[index].next_look <= now {
                self.look(index);
            }
        }
        if !self.searched_lost {
            self.searched_lost = true;
            self.search_lost();
        }
    }

    fn look(&mut self, index: usize) {
        self.read_line_record(index);
        self.watch_folders(index);
        let source = &mut self.sources[index];
        source.last_look = Instant::now();
        source.open_failed = false;
        let now = Timestamp::now();
        let next_hour = self.clock.hour_at(now).map(|hour| until(self.clock.end_of(hour, now), now));
        let wait = next_hour.unwrap_or(Duration::MAX).min(source.settings.poll_interval.0);
        source.next_look = source.last_look + wait.max(LOOK_APART);
        let sightings = files::sightings(&source.pattern);
        for sighting in &sightings {
            let folder = files::folder_of(&sighting.path);
            if !source.folders.contains(&folder) {
                source.folders.insert(folder);
                source.next_look = source.last_look;
            }
        }
        for decision in self.tracker.look(index, &sightings) {
            match decision {
                Decision::Open(sighting) => self.open(index, &sighting),
                Decision::Size(number, size) => self.sized(number, size),
                Decision::Placed(number, place) => self.placed(number, place),
            }
        }
        self.queue_displaced();
        self.give_up_deleted(index);
        self.close_hours(index);
        let name = self.sources[index].settings.name.clone();
        self.ledger.source_started(&name);
    }

    fn watch_folders(&mut self, index: usize) {
        let Some(watch) = &self.watch else { return };
        let source = &mut self.sources[index];
        if let Ok(hour) = self.clock.hour_at(Timestamp::now()) {
            let next = self.clock.after(hour);
            [Some(hour), next].into_iter().flatten().for_each(|hour| source.add_folders_of(hour));
        }
        // Adding a folder again costs one call and finds out when it was replaced by another.
        let fixed = files::fixed_folder(source.pattern.glob());
        source.folders.retain(|folder| match watch.add(folder) {
            Ok(descriptor) => {
                source.watched.insert(descriptor);
                self.folders.insert(descriptor, folder.clone());
                true
            }
            // It comes back with its first file, or when the clock says so.
            Err(error) => error.kind() != io::ErrorKind::NotFound || *folder == fixed,
        });
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
            self.sources[earlier].next_look = Instant::now();
            return;
        }
        if self.is_packed(source, &sighting.path, sighting.key, sighting.size) {
            return;
        }
        match self.try_open(source, &sighting.path, Place::Here) {
            Ok(number) => self.queue(number),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                counter!("logferry_tailer_open_failures_total").increment(1);
                self.sources[source].open_failed = true;
                warn!(path = %sighting.path.display(), %error, "the file cannot be opened: trying again");
            }
        }
    }

    pub(super) fn try_open(&mut self, source: usize, path: &Path, place: Place) -> io::Result<FileNumber> {
        let handle = File::open(path)?;
        let facts = files::facts_of(&handle)?;
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
        let home = attached.home.unwrap_or_else(|| path.to_owned());
        let number = self.tracker.opened(source, home.clone(), facts.key, place);
        let before = self.tracker.predecessor(source, &home, facts.key);
        let predecessor = before.or_else(|| self.input_file_before(source, path));
        let time = self.sources[source].pattern.time_of(&home);
        if let Some(time) = time {
            self.sources[source].catching_up.insert((time, number));
        }
        let now = Instant::now();
        let readable = self.sources[source].readable(path);
        if let Some(stream) = attached.stream {
            self.by_stream.insert(stream, number);
        }
        if place != Place::Here {
            self.displaced.insert(number);
        }
        let target = std::fs::canonicalize(path).ok().filter(|target| target != path);
        if let Some(target) = &target {
            self.sources[source].folders.insert(files::folder_of(target));
            self.by_path.insert(target.clone(), number);
        }
        self.by_path.insert(path.to_owned(), number);
        self.files.insert(
            number,
            Followed {
                source,
                path: path.to_owned(),
                time,
                hour_over: false,
                target,
                handle,
                key: facts.key,
                size: facts.size.min(readable),
                unlinked: false,
                size_trusted: attached.at,
                quiet_since: if time.is_some() { quiet_since(facts.changed_ns, now) } else { now },
                place,
                predecessor,
                successor: None,
                stream: attached.stream,
                cutter: Cutter::new(attached.at),
                end_mark: None,
                verified: false,
                unlinked_since: None,
                recent: VecDeque::new(),
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
        self.tally.touch(number);
        Ok(number)
    }
}

/// When a file last changed, as far as the clock that it was stamped by can be believed.
fn quiet_since(changed_ns: i64, now: Instant) -> Instant {
    let since = Timestamp::from_nanosecond(i128::from(changed_ns)).ok();
    let quiet = since.map_or(Duration::ZERO, |since| until(Timestamp::now(), since));
    now.checked_sub(quiet).unwrap_or(now)
}
