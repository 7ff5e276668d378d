//! A source whose files a legacy system shipped until now: which of them its record is of, and which it shipped whole. Asked at the very
//! first start of the source only, and later of what could not be seen then.

use super::Follower;
use super::missed::is_rotated_from;
use super::source::Source;
use crate::config::Start;
use crate::files;
use crate::identity::{FileKey, Head};
use crate::ledger::past::PastFile;
use crate::ledger::unseen::FirstLook;
use crate::legacy::{self, LineRecord};
use crate::tracker::Place;
use crate::unpack::plain_path;
use jiff::Timestamp;
use logferry_pack::StreamId;
use metrics::counter;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tracing::{info, warn};

/// What of a file a legacy system has shipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shipped {
    /// All of it.
    Whole,
    /// So many lines.
    Lines(u64),
    /// None of it.
    Nothing,
    /// The record says nothing of it.
    Unknown,
}

impl Follower {
    /// A look at a source begins: what a legacy system left is read at the very first start.
    pub(super) fn begin_look(&mut self, index: usize) {
        let source = &mut self.sources[index];
        (source.line_record, source.record_read) = (None, false);
        source.first_look.get_or_insert_with(Timestamp::now);
        if !self.ledger.is_source_started(&source.settings.name) {
            self.read_line_record(index);
        }
    }

    /// Whether a file was there at the very first look at its source, also where it is met only now.
    pub(super) fn is_of_first_look(&self, index: usize, path: &Path, key: FileKey) -> bool {
        let name = &self.sources[index].settings.name;
        !self.ledger.is_source_started(name) || self.ledger.is_of_first_look(name, path, key)
    }

    /// What a legacy system left matters for this file: it is read now, if it was not since the look.
    pub(super) fn need_line_record(&mut self, index: usize, path: &Path, key: FileKey) {
        if !self.sources[index].record_read && self.is_of_first_look(index, path, key) {
            self.read_line_record(index);
        }
    }

    /// All that a look has found was opened, as far as it could be: what the first one did not see, and when all of it was seen.
    pub(super) fn note_first_look(&mut self, index: usize) {
        let source = &self.sources[index];
        let name = source.settings.name.clone();
        let is_first = !self.ledger.is_source_started(&name);
        if !is_first && !self.ledger.has_unseen(&name) {
            return;
        }
        let has_say = source.settings.start != Start::Beginning || !source.settings.line_record.is_empty();
        let folders = source.unseen_folders();
        let failed: Vec<&Path> = source.failed_within_roots().collect();
        let is_whole = failed.is_empty() && folders.is_empty();
        if !is_first && is_whole && !self.unpacks() {
            self.ledger.all_seen(&name);
        }
        if is_first && !is_whole && has_say && source.shelf.is_none() {
            let files =
                failed.into_iter().filter_map(|path| files::facts_at(path).ok()).map(|facts| facts.key);
            let at = source.first_look.unwrap_or_else(Timestamp::now);
            let at_ns = i64::try_from(at.as_nanosecond()).unwrap_or(0);
            let files = files.collect();
            let folders = folders.iter().map(|folder| folder.as_os_str().as_bytes().to_vec()).collect();
            self.ledger.first_look(FirstLook { source: name, at_ns, files, folders });
        }
    }

    fn read_line_record(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.record_read = true;
        let path = source.settings.line_record.clone();
        if path.is_empty() {
            return;
        }
        match legacy::read(Path::new(&path)) {
            Ok(record) => self.take_line_record(index, record),
            Err(error) => {
                counter!("logferry_tailer_line_record_failures_total").increment(1);
                warn!(path, %error, start = ?source.settings.start, "the legacy state cannot be read: beginning as `start` says");
            }
        }
    }

    fn take_line_record(&mut self, index: usize, mut record: LineRecord) {
        let source = &mut self.sources[index];
        let (path, start) = (&source.settings.line_record, source.settings.start);
        if !source.paths.covers(&record.file) {
            // The legacy system may have been told another way to it.
            let Some(found) = source.walk().found.into_iter().find(|found| record.is_of(&found.path)) else {
                counter!("logferry_tailer_line_record_failures_total").increment(1);
                warn!(
                    path, file = %record.file.display(), source = source.settings.name, ?start,
                    "the legacy state names a file that the source does not lead to: beginning as `start` says"
                );
                return;
            };
            record.file = found.path;
        }
        let has_time = source.paths.time_of(&record.file).is_some();
        // What other files have its lines is told when it can be read.
        let hidden = record.why_unreadable();
        let find = || record.find(|path| !has_time && is_rotated_from(path, &record.file));
        let at = if hidden.is_some() { None } else { find() };
        match (&at, hidden) {
            (Some((at, key)), _) => {
                info!(path, file = %at.display(), lines = record.lines, "going on where the legacy state ends");
                // What has the path by now waits until it is unpacked and read.
                let now = files::facts_at(&record.file).ok().filter(|_| plain_path(at) != *at);
                if let Some(now) = now.map(|facts| facts.key).filter(|now| now != key) {
                    self.successions.add(None, vec![*key, now]);
                }
            }
            (None, Some(error)) => {
                warn!(path, file = %record.file.display(), %error, "the file that the legacy state names cannot be read yet");
            }
            (None, None) => warn!(
                path, file = %record.file.display(), lines = record.lines,
                "no file has the lines that line.rec says were shipped: what is under its name is read from its start"
            ),
        }
        source.line_record = Some((record, at));
    }

    /// What the record says of a file.
    pub(super) fn shipped_by_legacy(&self, source: usize, path: &Path, key: FileKey) -> Shipped {
        let Source { paths, line_record, .. } = &self.sources[source];
        let Some((record, at)) = line_record else { return Shipped::Unknown };
        if at.as_ref().is_some_and(|(_, at)| *at == key) {
            return Shipped::Lines(record.lines);
        }
        if let (Some(time), Some(of_record)) = (paths.time_of(path), paths.time_of(&record.file)) {
            // Hours before the record were shipped whole, those after it were not begun.
            return if time < of_record { Shipped::Whole } else { Shipped::Nothing };
        }
        if path == record.file {
            return Shipped::Nothing;
        }
        if !is_rotated_from(&plain_path(path), &record.file) {
            return Shipped::Unknown;
        }
        // What was rotated before the record was written was shipped before.
        match files::facts_at(path) {
            Ok(facts) if record.is_after(path, &facts) => Shipped::Whole,
            _ => Shipped::Nothing,
        }
    }

    /// The recorded file may be where no path of its source leads to by now: it was rotated since.
    pub(super) fn follow_recorded(&mut self, index: usize) {
        let Some((record, Some((path, key)))) = self.sources[index].line_record.clone() else { return };
        let is_met = self.tracker.find(key).is_some() || self.packed.contains_key(&key);
        if is_met || !self.is_of_first_look(index, &path, key) {
            return;
        }
        let look = files::facts_at(&path).map(|facts| facts.look()).unwrap_or_default();
        if self.is_packed(index, &path, key, look) {
            return;
        }
        match self.try_open_known(index, &path, key, Place::Gone { replaced: true }) {
            Ok(number) => {
                if let Some(live) = self.by_path.get(&record.file).copied() {
                    self.goes_before(number, live);
                }
                self.queue(number);
            }
            Err(error) => warn!(path = %path.display(), %error, "the file cannot be opened"),
        }
    }

    /// How many lines of a compressed file are not to be shipped; `None` when all of it is not.
    pub(super) fn lines_before_start(&self, source: usize, path: &Path, key: FileKey) -> Option<u64> {
        let Source { settings, .. } = &self.sources[source];
        if !self.is_of_first_look(source, path, key) {
            return Some(0);
        }
        match self.shipped_by_legacy(source, path, key) {
            Shipped::Whole => None,
            Shipped::Lines(lines) => Some(lines),
            Shipped::Nothing => Some(0),
            Shipped::Unknown => (settings.start == Start::Beginning).then_some(0),
        }
    }

    /// A file of which nothing is to be shipped is known from now on, without being read.
    pub(super) fn know_unread(&mut self, source: usize, path: &Path, key: FileKey) {
        let name = self.sources[source].settings.name.clone();
        let (path, keys) = (path.as_os_str().as_bytes().to_vec(), vec![key]);
        let head = Head { length: 0, hash: 0 };
        let file = PastFile { stream: StreamId(0), keys, path, head, length: 0, tail: None };
        self.ledger.past_copy_known(&name, file);
    }
}
