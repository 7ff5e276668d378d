//! A source whose files a legacy system shipped until now: which of them its record is of, and which it shipped whole. Asked at the very
//! first start of the source only.

use super::Follower;
use super::missed::is_rotated_from;
use super::source::Source;
use crate::config::Start;
use crate::files;
use crate::identity::{FileKey, Head};
use crate::ledger::past::PastFile;
use crate::legacy::{self, LineRecord};
use crate::tracker::Place;
use crate::unpack::plain_path;
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
    /// What a legacy system left, at the very first start.
    pub(super) fn read_line_record(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.line_record = None;
        let path = source.settings.line_record.clone();
        if path.is_empty() || self.ledger.is_source_started(&source.settings.name) {
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
        let at = record.find(|path| !has_time && is_rotated_from(path, &record.file));
        match &at {
            Some((at, _)) => {
                info!(path, file = %at.display(), lines = record.lines, "going on where the legacy state ends");
            }
            None => warn!(
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
        if self.tracker.find(key).is_some() || self.packed.contains_key(&key) {
            return;
        }
        let size = files::facts_at(&path).map_or(0, |facts| facts.size);
        if self.is_packed(index, &path, key, size) {
            return;
        }
        match self.try_open(index, &path, Place::Gone { replaced: true }) {
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
        if self.ledger.is_source_started(&settings.name) {
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
