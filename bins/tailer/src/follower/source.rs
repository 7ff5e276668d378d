//! A source at work: its settings, where its files are looked for, and what is known to be missing of them.

use super::backlog::Backlog;
use super::packed_room::is_want_of_room;
use super::scan::{LOOK_APART, LOOK_SHARE};
use crate::body::BodyRules;
use crate::config::SourceSettings;
use crate::cutter::{CutLimits, Cutting};
use crate::files;
use crate::hour::until;
use crate::identity::FileKey;
use crate::input::shelf::Shelf;
use crate::legacy::LineRecord;
use crate::pace::Pace;
use crate::pattern::{FileTime, SourcePaths};
use crate::recut;
use crate::tracker::{FileNumber, Sighting};
use crate::walk::{Found, Walk, walk};
use anyhow::Context;
use jiff::Timestamp;
use logferry_pack::{Hour, Name};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// A source whose path has led to no file for so long is told of in the status.
const EMPTY_TOLD_AFTER: Duration = Duration::from_secs(60);

/// Why a file is not read.
#[derive(PartialEq, Eq)]
pub(super) struct Failure {
    reason: String,
    /// It lies outside of the source's `roots`: it is none of its files.
    is_outside: bool,
    /// It is a compressed file that was changed just now: whoever writes it may not have finished.
    is_young: bool,
}

/// A source at work.
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    pub(super) name: Name,
    pub(super) paths: SourcePaths,
    /// How its files are cut.
    pub(super) cutting: Cutting,
    /// Which lines are shipped; counts nothing.
    pub(super) body: BodyRules,
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
    pub(super) has_links: bool,
    /// When all its files are asked, whatever inotify told.
    pub(super) rescan_at: Instant,
    pub(super) look_took: Duration,
    pub(super) last_look_took: Duration,
    /// It was looked at, and what was found and waits to be opened.
    pub(super) looked: bool,
    /// Hours that are over and not closed yet.
    pub(super) hours_waiting: u64,
    pub(super) to_open: VecDeque<Sighting>,
    /// Files that could not be opened, and folders that could not be listed, with the reason: their lines are missing.
    pub(super) failed: BTreeMap<PathBuf, Failure>,
    pub(super) unreadable: BTreeMap<PathBuf, String>,
    /// When all of it could be seen.
    pub(super) seen_to: Timestamp,
    /// The device of its fixed folder when files were there.
    device: Option<u64>,
    pub(super) is_empty: bool,
    empty_since: Option<Instant>,
    /// Few new files at a time are told one by one.
    pub(super) tells_each: bool,
    /// Sources that follow files which it leads to as well, as far as was told.
    pub(super) shares_with: BTreeSet<usize>,
    /// Where a legacy system left off, and the file that has the recorded lines now; until the look is over. Whether it was read since the look.
    pub(super) line_record: Option<(LineRecord, Option<(PathBuf, FileKey)>)>,
    pub(super) record_read: bool,
    /// When this process looked at it first.
    pub(super) first_look: Option<Timestamp>,
    /// What the input knows of its files, if the source is one.
    pub(super) shelf: Option<Arc<Shelf>>,
    /// An earlier process has looked at it.
    pub(super) was_started: bool,
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
        let paths = SourcePaths::new(&settings.path, &settings.current)
            .with_context(|| format!("source {}", settings.name))?;
        let cutting = recut::cutting(settings, limits, buffer_bytes).map_err(anyhow::Error::msg)?;
        let body = BodyRules::new(settings, limits.line_bytes).map_err(anyhow::Error::msg)?.uncounted();
        let folders = paths.fixed_folders();
        Ok(Source {
            settings: settings.clone(),
            name,
            paths,
            cutting,
            body,
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
            last_look_took: Duration::ZERO,
            looked: false,
            hours_waiting: 0,
            to_open: VecDeque::new(),
            failed: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            seen_to: Timestamp::MIN,
            device: None,
            is_empty: false,
            empty_since: None,
            tells_each: true,
            shares_with: BTreeSet::new(),
            line_record: None,
            record_read: false,
            first_look: None,
            shelf: None,
            was_started: false,
        })
    }

    /// Folders in which the clock says that files are, or will be in the next hour, from the fixed one down.
    pub(super) fn add_folders_of(&mut self, hour: Hour) {
        if !self.paths.has_times() {
            return;
        }
        let named = self.paths.named();
        let fixed = files::fixed_folder(named.glob());
        let path = PathBuf::from(named.expand(FileTime { hour, minute: 0 }));
        let below =
            path.ancestors().skip(1).take_while(|folder| *folder != fixed && folder.starts_with(&fixed));
        let plain = below.filter(|folder| !files::is_glob(&folder.to_string_lossy()));
        self.folders.extend(plain.map(Path::to_owned));
    }

    /// Looks at all its folders.
    pub(super) fn walk(&self) -> Walk {
        let mut all = Walk::default();
        for (nth, glob) in self.paths.globs().enumerate() {
            let Walk { mut found, folders, unreadable } = walk(glob);
            // Either glob may cover files of the other; and a link that is none of the files is not to be asked again and again.
            let is_sought = |found: &Found| {
                (nth == 0) != self.paths.is_current(&found.path)
                    && (found.inode.is_some() || self.paths.admits(&found.path))
            };
            found.retain(is_sought);
            all.found.extend(found);
            all.folders.extend(folders);
            all.unreadable.extend(unreadable);
        }
        all
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
        self.failed.values().filter(|failure| !failure.is_young).count() + self.unreadable.len()
    }

    /// No file is where its path leads, though somebody else should have put one there: an input has none until lines come.
    pub(super) fn is_without_files(&self) -> bool {
        self.looked && self.is_empty && self.shelf.is_none()
    }

    pub(super) fn open_failed(&mut self, path: &Path, error: &io::Error) {
        let failure =
            || Failure { reason: error.to_string(), is_outside: files::is_outside(error), is_young: false };
        if self.failed.insert(path.to_owned(), failure()) != Some(failure()) {
            warn!(path = %path.display(), %error, "the file cannot be opened: trying again");
        }
    }

    /// A compressed file could not be unpacked: its hour stays open. If it may still be being written, nobody is told yet.
    pub(super) fn unpacking_failed(&mut self, path: &Path, error: &io::Error) {
        let changed = files::facts_at(path).ok().map(|facts| i128::from(facts.changed_ns));
        let changed = changed.and_then(|changed| Timestamp::from_nanosecond(changed).ok());
        let is_without_room = is_want_of_room(error);
        let is_young = !is_without_room
            && changed.is_none_or(|changed| until(Timestamp::now(), changed) < self.settings.rotate_wait.0);
        let (reason, is_outside) = (error.to_string(), files::is_outside(error));
        let is_told = self.failed.get(path).is_some_and(|failure| failure.reason == reason);
        if is_without_room && is_told {
            debug!(path = %path.display(), reason, "there is still no room to unpack the compressed file");
        } else if is_without_room {
            warn!(path = %path.display(), reason, "there is no room to unpack the compressed file: trying again until there is");
        } else if is_young {
            debug!(path = %path.display(), reason, "the compressed file cannot be read yet");
        } else {
            warn!(path = %path.display(), reason, "the compressed file cannot be read: trying again when it has changed");
        }
        self.failed.insert(path.to_owned(), Failure { reason, is_outside, is_young });
    }

    /// Files that could not be opened, and should have been.
    pub(super) fn failed_within_roots(&self) -> impl Iterator<Item = &Path> {
        self.failed.iter().filter(|(_, failure)| !failure.is_outside).map(|(path, _)| path.as_path())
    }

    /// Whether there may be files that nobody sees.
    pub(super) fn has_hidden_folders(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Folders of which nobody knows what is in them, or which are empty as they are before a file system is mounted there.
    pub(super) fn unseen_folders(&self) -> Vec<PathBuf> {
        let fixed = if self.is_empty { self.paths.fixed_folders() } else { BTreeSet::new() };
        self.unreadable.keys().cloned().chain(fixed).collect()
    }

    /// What keeps the files of the fixed folder from being seen, though the folder has nothing to list: it was taken away, or the
    /// file system that the files were on was.
    pub(super) fn fixed_folder_problem(&mut self) -> Option<(PathBuf, String)> {
        // That of an input comes with its first line.
        if self.shelf.is_some() {
            return None;
        }
        let folders = self.paths.fixed_folders();
        let missing = |folder: &&PathBuf| files::facts_at(&folder.join(".")).is_err();
        let folder = folders.iter().find(missing).or(folders.first())?.clone();
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

    pub(super) fn report_unreadable(&mut self, unreadable: Vec<(PathBuf, String)>) {
        let unreadable: BTreeMap<PathBuf, String> = unreadable.into_iter().collect();
        for (folder, error) in unreadable.iter().filter(|(folder, _)| !self.unreadable.contains_key(*folder))
        {
            warn!(source = self.settings.name, folder = %folder.display(), error, "the folder cannot be listed: trying again");
        }
        // Nobody tells when it can be.
        self.is_watched &= unreadable.is_empty();
        self.unreadable = unreadable;
    }

    pub(super) fn report_empty(&mut self, is_empty: bool) {
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
        self.empty_since = if is_empty { self.empty_since.or(Some(Instant::now())) } else { None };
    }

    /// What is missing of its files, for people: each keeps lines from being shipped, or may.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let name = &self.settings.name;
        let told = self.failed.iter().filter(|(_, failure)| !failure.is_young);
        let files = told.map(move |(path, failure)| {
            format!("source {name}: {} cannot be opened: {}", path.display(), failure.reason)
        });
        let folders = self.unreadable.iter().map(move |(folder, error)| {
            format!("source {name}: the folder {} cannot be listed: {error}", folder.display())
        });
        let is_long = self.empty_since.is_some_and(|since| since.elapsed() >= EMPTY_TOLD_AFTER);
        let is_told = is_long && self.is_without_files() && self.unreadable.is_empty();
        let empty = is_told.then(|| format!("source {name}: no file is at {}", self.settings.path));
        files.chain(folders).chain(empty)
    }
}
