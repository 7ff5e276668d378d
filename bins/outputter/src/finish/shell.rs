//! The finisher's thread: looks for files that are due, and asks the committer.

use super::finisher::{Committed, Finisher, Outcome};
use super::overlooked::{AtOnce, Overlooked};
use super::retention::{Candidate, Limits, Round};
use super::settings::{FinishSettings, RetentionSettings};
use super::spread::{Told, as_old_as_their_hours};
use crate::figures::Figures;
use crate::file::headers::Finished;
use crate::file::if_there;
use crate::file::journal::Lengths;
use crate::file::layout::Layout;
use crate::file::past::Past;
use crate::file::retire::Request;
use crate::hours::calendar::Calendar;
use crate::hours::catch_up;
use crate::hours::fact::HourKey;
use crate::hours::keeper::{SharedBooks, lock};
use crate::hours::marks::Marks;
use crate::hours::other_files::FilesOf;
use crate::hours::runner::HourSink;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use metrics::{counter, gauge};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often files that are due are looked for, unless they are to wait for less.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same, at most so often.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// After so many looks, old files and what is left of removed ones are looked for.
const LOOKS_PER_RETENTION: u32 = 12;
/// How long a file that could not be finished is left alone.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// Where trouble with the folder of finished files is shown.
pub const FINISH_DIR: &str = "finish.dir";
/// Where problems of retention are shown.
const RETENTION: &str = "retention";

/// Everything the thread needs.
pub struct FinishThread {
    /// Does it.
    pub finisher: Finisher,
    /// `[finish]`.
    pub finish: FinishSettings,
    /// `[retention]`.
    pub retention: RetentionSettings,
    /// The books, once they are open.
    pub books: Arc<OnceLock<SharedBooks>>,
    /// Looks marks up.
    pub marks: Marks,
    /// For the time of the last pack.
    pub calendar: Calendar,
    /// Makes tables of complete hours: an hour that waits for its tables is not finished.
    pub etl: Option<Arc<dyn HourSink>>,
    /// To the committer.
    pub requests: Sender<Request>,
    /// Where hours may be spread over several files: which these are.
    pub files_of: Option<FilesOf>,
    /// How long it is known of a removed file which packs it had, after the last of them.
    pub removed_keep: Duration,
    /// Figures and problems.
    pub figures: Arc<Figures>,
    /// The program stops.
    pub stop: CancellationToken,
}

/// What is known of files, so that they are not looked at again and again.
#[derive(Default)]
pub(super) struct Memory {
    /// When files that could not be finished are tried again.
    pub(super) retry_at: HashMap<String, Instant>,
    pub(super) overlooked: Overlooked,
    /// What header files say.
    known: HashMap<String, Arc<Known>>,
}

/// What a header file says.
#[derive(Debug)]
pub(super) struct Known {
    /// Bytes of it that were read.
    headers: u64,
    /// When the last pack came, in milliseconds since 1970.
    pub(super) last_ms: i64,
    past: Past,
}

impl FinishThread {
    /// Works until nothing more comes over `ended`.
    pub fn run(self, ended: &Receiver<()>) {
        let mut memory = Memory::default();
        let look_interval = self.finish.wait.0.clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL);
        let mut files_at = Instant::now();
        while matches!(ended.recv_timeout(look_interval), Err(RecvTimeoutError::Timeout)) {
            let Some(books) = self.books.get() else { continue };
            if self.finds_folder() {
                self.finish_due(books, &mut memory, files_at);
                self.finish_overlooked(books, &mut memory, files_at);
            }
            if Instant::now() >= files_at {
                self.look_after_files(books, &mut memory);
                files_at = Instant::now() + look_interval * LOOKS_PER_RETENTION;
            }
        }
    }

    /// Whether the folder of finished files is there. What is removed need not be.
    fn finds_folder(&self) -> bool {
        match self.finisher.check_ground() {
            Ok(()) => self.figures.clear_notice(FINISH_DIR),
            Err(error) => {
                tell_of_folder(&self.figures, &error);
                return false;
            }
        }
        true
    }

    /// Nothing may have come since then of what is finished now.
    pub(super) fn quiet_since_ms(&self) -> i64 {
        now_ms().saturating_sub(i64::try_from(self.finish.wait.0.as_millis()).unwrap_or(i64::MAX))
    }

    /// The committed lengths of all files; none when the program stops.
    pub(super) fn committed_files(&self) -> Option<BTreeMap<String, Lengths>> {
        self.committed().ask(Request::Files)
    }

    /// As many as there is time for `until` others are to go: finishing takes room, and they may be what makes it.
    fn finish_due(&self, books: &SharedBooks, memory: &mut Memory, until: Instant) {
        let due = lock(books).finishable(self.quiet_since_ms());
        memory.retry_at.retain(|path, _| {
            let is_due = due.contains_key(path) || memory.overlooked.waits_for(path);
            if !is_due {
                self.figures.clear_notice(path);
            }
            is_due
        });
        for (path, (counted, hours)) in due {
            if Instant::now() >= until {
                return;
            }
            let waits = memory.retry_at.get(&path).is_some_and(|at| Instant::now() < *at);
            if self.stop.is_cancelled() || waits || self.is_read(hours.iter()) {
                continue;
            }
            // Another hour of the file is complete for long, and was put into the queue again.
            if self.is_read_of(&path) {
                memory.retry_at.insert(path, Instant::now() + RETRY_INTERVAL);
                continue;
            }
            if self.finish_file(&path, memory) {
                lock(books).finished(&path, counted);
            }
        }
    }

    /// Whether nothing is left to be done with a file now.
    pub(super) fn finish_file(&self, path: &str, memory: &mut Memory) -> bool {
        match self.finisher.finish(path, &mut self.committed(), || self.stop.is_cancelled()) {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Finished(bytes)) => {
                counter!("logferry_outputter_files_finished_total").increment(1);
                counter!("logferry_outputter_finished_bytes_total").increment(bytes);
                tracing::info!(path, bytes, "the file is finished");
            }
            Ok(Outcome::Later) => return self.is_gone(path),
            Err(_) if self.stop.is_cancelled() => return false,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_gone(path) => {}
            Err(error) => {
                self.cannot_finish(path, &error, memory);
                return false;
            }
        }
        self.figures.clear_notice(path);
        true
    }

    /// Says so, and lets the file alone for a while.
    pub(super) fn cannot_finish(&self, path: &str, error: &io::Error, memory: &mut Memory) {
        counter!("logferry_outputter_finish_failures_total").increment(1);
        tracing::error!(path, "the file cannot be finished, it stays as it is: {error}");
        self.figures.set_notice(path, format!("{path} cannot be finished: {error}"));
        memory.retry_at.insert(path.to_owned(), Instant::now() + RETRY_INTERVAL);
    }

    /// Whether somebody took log file and header file away. Where there is no header file at all, their disk may be.
    pub(super) fn is_gone(&self, path: &str) -> bool {
        let folders = &self.finisher.folders;
        let is_missing =
            |file: &Path| std::fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let has_files = || std::fs::read_dir(&folders.headers).is_ok_and(|mut found| found.next().is_some());
        is_missing(&folders.headers.join(path)) && is_missing(&folders.log_file(path)) && has_files()
    }

    /// Looks after what was removed, whether or not anything else is ever to be, and removes what is due. One file that cannot be read or
    /// removed keeps no other from going.
    fn look_after_files(&self, books: &SharedBooks, memory: &mut Memory) {
        let Some(mut files) = self.committed_files() else { return };
        if !self.retention.is_on() {
            files.retain(|_, lengths| lengths.data == 0);
        }
        memory.known.retain(|path, _| files.contains_key(path));
        let mut trouble = Trouble::default();
        let mut others = Vec::new();
        for (path, lengths) in &files {
            let looked = self.known(path, *lengths, memory).and_then(|known| {
                if lengths.data == 0 && known.past.is_removed() {
                    return self.look_after_removed(path, &known);
                }
                others.push((path.as_str(), *lengths, known));
                Ok(())
            });
            if let Err(error) = looked {
                trouble.met(path, &error);
            }
        }
        if self.retention.is_on() {
            self.remove_due(books, &others, trouble);
        }
    }

    fn remove_due(&self, books: &SharedBooks, files: &[(&str, Lengths, Arc<Known>)], mut trouble: Trouble) {
        let data = &self.finisher.folders.data;
        let disk = self.finisher.disk.free_bytes(data).and_then(|free| Ok((free, device(data)?)));
        let (free, device) = match disk {
            Ok(found) => found,
            Err(error) => {
                return self.notice(Some(format!("{} cannot be looked at: {error}", data.display())));
            }
        };
        let candidate = |(path, lengths, known): &(&str, Lengths, Arc<Known>)| {
            self.candidate(path, known, lengths.data, device)
        };
        let mut candidates: Vec<Candidate> = files.iter().map(candidate).collect();
        if self.files_of.is_some() {
            as_old_as_their_hours(&mut candidates);
        }
        let lengths: HashMap<&str, Lengths> =
            files.iter().map(|(path, lengths, _)| (*path, *lengths)).collect();
        let lengths_of = |file: &Candidate| lengths.get(file.path.as_str()).copied().unwrap_or_default();
        let mut round = Round::new(self.limits(), &mut candidates, free);
        let (mut rest, mut at_least) = (candidates.as_slice(), 1);
        loop {
            let mut at_once = AtOnce::default();
            let some = round.next_of(&mut rest, at_least, |file| at_once.takes(lengths_of(file).headers));
            if some.is_empty() {
                break;
            }
            if !self.remove_some(books, &some, lengths_of, &mut round, &mut trouble) {
                return;
            }
            at_least = 2 * some.len();
        }
        gauge!("logferry_outputter_retention_kept_files").set((round.kept + trouble.files) as f64);
        self.notice(trouble.text(round.kept));
    }

    /// Removes those of these files that have to go and may; what is known of all is read first. False: the program stops.
    fn remove_some(
        &self,
        books: &SharedBooks,
        files: &[&Candidate],
        lengths_of: impl Fn(&Candidate) -> Lengths,
        round: &mut Round,
        trouble: &mut Trouble,
    ) -> bool {
        let mut layouts = Vec::new();
        for file in files {
            if self.stop.is_cancelled() {
                return false;
            }
            layouts.push(self.finisher.layout(&file.path, lengths_of(file)));
        }
        let hours = || layouts.iter().flatten().flat_map(|layout| layout.hours.keys());
        let (marks, others) = (self.marks.find(hours()), self.others_of(hours()));
        for (file, layout) in files.iter().zip(&layouts) {
            if !round.has_to_go(file) {
                continue;
            }
            let removed = match (layout, &marks, &others) {
                (Ok(layout), Ok(marks), Ok(others)) => {
                    self.remove(books, file, layout, &Told { marks, others })
                }
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                    Err(io::Error::new(error.kind(), error.to_string()))
                }
            };
            match removed {
                _ if self.stop.is_cancelled() => return false,
                Ok(true) => round.went(file),
                Ok(false) => round.stayed(),
                Err(error) => trouble.met(&file.path, &error),
            }
        }
        true
    }

    /// Something that keeps files from being removed, or nothing.
    fn notice(&self, text: Option<String>) {
        let Some(text) = text else { return self.figures.clear_notice(RETENTION) };
        if self.figures.set_notice(RETENTION, format!("[retention]: {text}")) {
            tracing::warn!("[retention] keeps what is over its limits: {text}");
        }
    }

    fn candidate(&self, path: &str, known: &Known, committed: u64, device: u64) -> Candidate {
        let mut candidate =
            Candidate { path: path.to_owned(), last_ms: known.last_ms, bytes: committed, bytes_there: 0 };
        // A folder below may be another disk.
        let is_there = |found: &std::fs::Metadata| found.dev() == device;
        let log_file = std::fs::metadata(self.finisher.folders.log_file(path));
        if log_file.is_ok_and(|found| is_there(&found)) {
            candidate.bytes_there = committed;
        }
        for found in known.past.files().iter().filter_map(|file| std::fs::metadata(file).ok()) {
            candidate.bytes += found.size();
            candidate.bytes_there += if is_there(&found) { found.size() } else { 0 };
        }
        candidate
    }

    /// A file that was removed is forgotten when the footprints of its packs are. Finished files that a kill left there go.
    fn look_after_removed(&self, path: &str, known: &Known) -> io::Result<()> {
        let files = known.past.files_removed();
        self.finisher.check_ground_of(&files)?;
        if !files.is_empty() {
            let said = std::fs::metadata(self.finisher.folders.headers.join(path))?;
            let said_at = (said.mtime(), said.mtime_nsec());
            for file in files {
                // What somebody put there since is not ours.
                let is_left = |found: std::fs::Metadata| (found.ctime(), found.ctime_nsec()) <= said_at;
                if std::fs::metadata(&file).is_ok_and(is_left) {
                    self.finisher.unlink(&file)?;
                }
            }
        }
        let keep_ms = i64::try_from(self.removed_keep.as_millis()).unwrap_or(i64::MAX);
        if now_ms().saturating_sub(known.last_ms) > keep_ms {
            self.committed().forget(path)?;
        }
        Ok(())
    }

    fn remove(
        &self,
        books: &SharedBooks,
        file: &Candidate,
        layout: &Layout,
        told: &Told<'_>,
    ) -> io::Result<bool> {
        let is_open = layout.hours.keys().any(|key| lock(books).has_open(key));
        if is_open || self.is_read(layout.hours.keys()) || !self.are_all_told(&file.path, layout, told)? {
            return Ok(false);
        }
        if !self.finisher.remove(&file.path, layout, &mut self.committed())? {
            return Ok(false);
        }
        counter!("logferry_outputter_files_removed_total").increment(1);
        counter!("logferry_outputter_removed_bytes_total").increment(file.bytes);
        tracing::info!(path = file.path, bytes = file.bytes, "the file was removed, as [retention] says");
        Ok(true)
    }

    /// Whether tables are to be made of one of these hours.
    pub(super) fn is_read<'a>(&self, mut hours: impl Iterator<Item = &'a HourKey>) -> bool {
        self.etl.as_ref().is_some_and(|etl| hours.any(|hour| etl.holds(hour)))
    }

    /// The same of all hours of the file, forgotten ones, too. What keeps it from being known keeps the file from being finished.
    fn is_read_of(&self, path: &str) -> bool {
        let layout_of = |lengths| self.finisher.layout(path, lengths).ok();
        self.etl.is_some()
            && self
                .committed()
                .lengths(path)
                .and_then(layout_of)
                .is_some_and(|layout| self.is_read(layout.hours.keys()))
    }

    fn limits(&self) -> Limits {
        let RetentionSettings { age, bytes, free } = &self.retention;
        let age_ms = i64::try_from(age.0.as_millis()).unwrap_or(i64::MAX);
        Limits {
            old_before_ms: (age_ms > 0).then(|| now_ms().saturating_sub(age_ms)),
            bytes_max: Some(bytes.0).filter(|bytes| *bytes > 0),
            free_min: Some(free.0).filter(|bytes| *bytes > 0),
        }
    }

    pub(super) fn known(&self, path: &str, lengths: Lengths, memory: &mut Memory) -> io::Result<Arc<Known>> {
        if let Some(known) = memory.known.get(path).filter(|known| known.headers == lengths.headers) {
            return Ok(known.clone());
        }
        let headers = lengths.headers;
        let opened = if_there::open(&*self.finisher.disk, &self.finisher.folders.headers.join(path))?;
        // What does not tell its time is as new as can be. A file that is not there may be back.
        let Some(file) = opened else {
            return Ok(Arc::new(Known { headers, last_ms: i64::MAX, past: Past::default() }));
        };
        let last = catch_up::last(&*file, headers, self.calendar.own_zone())?;
        let last_ms = last.map_or(i64::MAX, |last| last.at_ms);
        let known = Arc::new(Known { headers, last_ms, past: Past::read(&*file, headers)? });
        memory.known.insert(path.to_owned(), known.clone());
        Ok(known)
    }

    pub(super) fn committed(&self) -> Asking<'_> {
        Asking(&self.requests)
    }
}

/// Whether each of these hours of a file has a mark that tells of all its lines. One that tells fewer is of before lines came late; one that
/// tells more counts those of other files, too.
pub(super) fn are_told(hours: &BTreeMap<HourKey, u64>, marks: &BTreeMap<&HourKey, Vec<u64>>) -> bool {
    let told = |key: &HourKey| marks.get(key).and_then(|told| told.iter().max());
    hours.iter().all(|(key, lines)| told(key).is_some_and(|told| lines <= told))
}

/// Files that could not be read or removed.
#[derive(Default)]
struct Trouble {
    files: u64,
    first: Option<String>,
}

impl Trouble {
    fn met(&mut self, path: &str, error: &io::Error) {
        tracing::debug!(path, %error, "the file stays, whatever the limits of [retention] are");
        self.files += 1;
        self.first.get_or_insert_with(|| format!("{path}: {error}"));
    }

    /// With the files that stay because they are not complete.
    fn text(&self, incomplete: u64) -> Option<String> {
        let unreadable = self.first.as_ref().map(|first| {
            let files = self.files;
            format!("{files} files stay because they or what is known of them cannot be read or removed, such as {first}")
        });
        let incomplete = (incomplete > 0).then(|| {
            format!("{incomplete} files are over the limits and stay, because they are not known to be complete: see ferryctl hours --missing")
        });
        let texts: Vec<String> = unreadable.into_iter().chain(incomplete).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// The folder of finished files cannot be used: says and counts it, once.
pub fn tell_of_folder(figures: &Figures, error: &io::Error) {
    if figures.set_notice(FINISH_DIR, format!("no file is finished: {error}")) {
        counter!("logferry_outputter_finish_failures_total").increment(1);
        tracing::error!("finish.dir cannot be used, it is tried again: {error}");
    }
}

fn device(folder: &Path) -> io::Result<u64> {
    std::fs::metadata(folder).map(|found| found.dev())
}

/// The committer, asked from another thread.
pub(super) struct Asking<'a>(&'a Sender<Request>);

impl Asking<'_> {
    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = bounded(1);
        self.0.send(request(answer)).ok()?;
        answered.recv().ok()
    }
}

impl Committed for Asking<'_> {
    fn lengths(&mut self, path: &str) -> Option<Lengths> {
        self.ask(|answer| Request::Lengths(path.to_owned(), answer))?
    }

    fn retire(&mut self, path: &str, expected: Lengths, finished: Finished) -> io::Result<bool> {
        self.ask(|answer| Request::Retire(path.to_owned(), expected, finished, answer))
            .unwrap_or(Err(ended()))
    }

    fn forget(&mut self, path: &str) -> io::Result<bool> {
        self.ask(|answer| Request::Forget(path.to_owned(), answer)).unwrap_or(Err(ended()))
    }
}

/// The answer did not come: whether it was done is found out at the next start.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the program stops")
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
