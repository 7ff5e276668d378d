//! Files that are being written, and get the name of their time when that is over: `current` of a source.

use super::Follower;
use crate::files::{self, Facts};
use crate::hour::later;
use crate::pattern::FileTime;
use crate::tracker::{FileNumber, Place};
use jiff::Timestamp;
use logferry_pack::Hour;
use std::path::{Path, PathBuf};
use tracing::{debug, warn};

impl Follower {
    /// The time that a file is of, and whether that is presumed: it was met at `home`, is at `path` now, and has no name of its own yet.
    pub(super) fn time_of_file(
        &self,
        source: usize,
        home: &Path,
        path: &Path,
        facts: &Facts,
    ) -> (Option<FileTime>, bool) {
        let paths = &self.sources[source].paths;
        match paths.time_of(home).or_else(|| paths.time_of(path)) {
            Some(time) => (Some(time), false),
            None if paths.is_current(home) || paths.is_current(path) => {
                let time = self.presumed_time(source, None, facts);
                (time, time.is_some())
            }
            None => (None, false),
        }
    }

    /// The time by which a file will be named: it begins with its time, so that is when it was made. One that was made long before it was
    /// written to last was emptied since, or its file system keeps no such times: then its last change tells.
    fn presumed_time(&self, source: usize, before: Option<FileTime>, facts: &Facts) -> Option<FileTime> {
        let changed = Timestamp::from_nanosecond(i128::from(facts.changed_ns)).ok()?;
        let last = self.period_at(source, changed)?;
        let born = Timestamp::from_nanosecond(i128::from(facts.key.born_ns)).ok();
        let born = born.filter(|_| facts.key.born_ns != 0).and_then(|born| self.period_at(source, born));
        let fits = |hour: &Hour| {
            // Its last lines may be written just when the time is over.
            let end = later(self.end_of_period(source, *hour), self.sources[source].settings.grace.0);
            *hour <= last && changed <= end
        };
        let hour = [before.map(|time| time.hour), born].into_iter().flatten().find(fits).unwrap_or(last);
        Some(FileTime { hour, minute: 0 })
    }

    /// The hour, or the first one of the day, by which files of a moment are named.
    fn period_at(&self, source: usize, at: Timestamp) -> Option<Hour> {
        let hour = self.clock.hour_at(at).ok()?;
        if self.sources[source].paths.has_hours() { Some(hour) } else { in_day_of(hour, 0) }
    }

    fn end_of_period(&self, source: usize, hour: Hour) -> Timestamp {
        let last = if self.sources[source].paths.has_hours() { None } else { in_day_of(hour, 23) };
        self.clock.end_of(last.unwrap_or(hour), Timestamp::now())
    }

    /// A file that has no name of its own yet was written to. One that was not renamed though its time is over goes on with the present.
    pub(super) fn presume_again(&mut self, number: FileNumber, facts: &Facts) {
        let Some(file) = self.files.get(&number).filter(|file| file.is_presumed) else { return };
        let (before, source) = (file.time, file.source);
        let now = self.presumed_time(source, before, facts);
        if now.is_none() || now == before {
            return;
        }
        let has_packs = file.end_mark.is_some();
        if let Some(before) = before.filter(|_| has_packs) {
            warn!(
                path = %file.path.display(), hour = %before.hour,
                "the file goes on though the time that it was begun in is over, and was not renamed: its new lines are of the hour in which \
                 they were written. Does the application rotate as often as the source's path says?"
            );
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.time = now;
        }
    }

    /// A file was found under another name: if that tells its time, it is known now.
    pub(super) fn named_at_last(&mut self, number: FileNumber, path: &Path) {
        let Some(file) = self.files.get_mut(&number) else { return };
        let Some(time) = self.sources[file.source].paths.time_of(path).filter(|_| file.is_presumed) else {
            return;
        };
        debug!(from = %file.path.display(), to = %path.display(), "the file has its name");
        (file.time, file.is_presumed) = (Some(time), false);
    }

    /// A file that was renamed to the name of its time, and is finished, is at home there: what is written now has its old path.
    pub(super) fn settle_at_name(&mut self, number: FileNumber) {
        let Some(file) = self.files.get(&number) else { return };
        let paths = &self.sources[file.source].paths;
        if !paths.has_current() || !matches!(file.place, Place::Moved { .. }) {
            return;
        }
        let leads_to = |path: &&PathBuf| files::facts_at(path).is_ok_and(|facts| facts.key == file.key);
        let mut names = std::iter::once(&file.path).chain(&file.names);
        let Some(name) = names.find(|path| paths.time_of(path).is_some() && leads_to(path)).cloned() else {
            return;
        };
        self.tracker.settled(number, name.clone());
        self.displaced.remove(&number);
        self.is_named(number, name);
        if let Some(file) = self.files.get_mut(&number) {
            file.place = Place::Here;
        }
    }
}

/// An hour of the same day.
fn in_day_of(hour: Hour, number: u8) -> Option<Hour> {
    Hour::new(hour.year(), hour.month(), hour.day(), number).ok()
}
