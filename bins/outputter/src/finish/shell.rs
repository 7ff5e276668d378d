//! The finisher's thread: looks for files that are due, and asks the committer.

use super::finisher::{Committed, Finisher, Outcome};
use super::retention::{Candidate, Limits, Round};
use super::settings::{FinishSettings, RetentionSettings};
use crate::figures::Figures;
use crate::file::headers::Finished;
use crate::file::journal::Lengths;
use crate::file::retire::Request;
use crate::hours::calendar::Calendar;
use crate::hours::catch_up;
use crate::hours::keeper::{SharedBooks, lock};
use crate::hours::mailbox::Mailbox;
use crate::hours::marks::Marks;
use crate::hours::runner::HourSink;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use metrics::{counter, gauge};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often files that are due are looked for, unless they are to wait for less.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same, at most so often.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// After so many looks, old files are looked for.
const LOOKS_PER_RETENTION: u32 = 12;
/// How long a file that could not be finished is left alone.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
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
    /// To the keeper of the books.
    pub mailbox: Arc<Mailbox>,
    /// Looks marks up.
    pub marks: Marks,
    /// For the time of the last pack.
    pub calendar: Calendar,
    /// Makes tables of complete hours: an hour that waits for its tables is not finished.
    pub etl: Option<Arc<dyn HourSink>>,
    /// To the committer.
    pub requests: Sender<Request>,
    /// Figures and problems.
    pub figures: Arc<Figures>,
    /// The program stops.
    pub stop: CancellationToken,
}

/// What is known of files, so that they are not looked at again and again.
#[derive(Default)]
struct Memory {
    /// Counted bytes of the header files of files with which nothing is to be done.
    done: HashMap<String, u64>,
    /// When files that could not be finished are tried again.
    retry_at: HashMap<String, Instant>,
    /// Bytes of header files, and when their last packs came.
    last: HashMap<String, (u64, i64)>,
}

impl FinishThread {
    /// Works until nothing more comes over `ended`.
    pub fn run(self, ended: &Receiver<()>) {
        let mut memory = Memory::default();
        let look_interval = self.finish.wait.0.clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL);
        let mut retention_at = Instant::now();
        while matches!(ended.recv_timeout(look_interval), Err(RecvTimeoutError::Timeout)) {
            let Some(books) = self.books.get() else { continue };
            self.finish_due(books, &mut memory);
            if self.retention.is_on() && Instant::now() >= retention_at {
                retention_at = Instant::now() + look_interval * LOOKS_PER_RETENTION;
                match self.remove_due(books, &mut memory) {
                    Ok(()) => self.figures.clear_file_problem(RETENTION),
                    Err(error) => drop(self.figures.set_file_problem(RETENTION, &error)),
                }
            }
        }
    }

    fn finish_due(&self, books: &SharedBooks, memory: &mut Memory) {
        let quiet_ms = i64::try_from(self.finish.wait.0.as_millis()).unwrap_or(i64::MAX);
        let due = lock(books).finishable(now_ms().saturating_sub(quiet_ms));
        memory.done.retain(|path, _| due.contains_key(path));
        memory.retry_at.retain(|path, _| due.contains_key(path));
        for (path, (counted, hours)) in due {
            let waits = memory.retry_at.get(&path).is_some_and(|at| Instant::now() < *at);
            let is_busy = || self.etl.as_ref().is_some_and(|etl| hours.iter().any(|hour| etl.holds(hour)));
            if self.stop.is_cancelled() || waits || memory.done.get(&path) == Some(&counted) || is_busy() {
                continue;
            }
            match self.finisher.finish(&path, &mut self.committed(), || self.stop.is_cancelled()) {
                Ok(Outcome::Nothing) => drop(memory.done.insert(path, counted)),
                Ok(Outcome::Finished(bytes)) => {
                    counter!("logferry_outputter_files_finished_total").increment(1);
                    counter!("logferry_outputter_finished_bytes_total").increment(bytes);
                    tracing::info!(path, bytes, "the file is finished");
                    self.figures.clear_file_problem(&path);
                }
                Ok(Outcome::Later) => {}
                Err(_) if self.stop.is_cancelled() => return,
                Err(error) => {
                    counter!("logferry_outputter_finish_failures_total").increment(1);
                    tracing::error!(path, "the file cannot be finished, it stays as it is: {error}");
                    self.figures.set_file_problem(&path, &error);
                    memory.retry_at.insert(path, Instant::now() + RETRY_INTERVAL);
                }
            }
        }
    }

    fn remove_due(&self, books: &SharedBooks, memory: &mut Memory) -> io::Result<()> {
        let (answer, answered) = bounded(1);
        let asked = self.requests.send(Request::Files(answer)).ok();
        let Some(files) = asked.and_then(|()| answered.recv().ok()) else { return Ok(()) };
        memory.last.retain(|path, _| files.contains_key(path));
        let mut candidates = Vec::new();
        for (path, lengths) in &files {
            let bytes = lengths.data + self.finisher.finished_bytes(path);
            candidates.push(Candidate {
                path: path.clone(),
                last_ms: self.last_ms(path, *lengths, memory)?,
                bytes,
            });
        }
        let free = self.finisher.disk.free_bytes(&self.finisher.folders.data)?;
        let mut round = Round::new(self.limits(), &mut candidates, free);
        for file in &candidates {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            if !round.has_to_go(file) {
                continue;
            }
            match self.remove(books, file, files.get(&file.path).copied().unwrap_or_default())? {
                true => round.went(file),
                false => round.stayed(),
            }
        }
        gauge!("logferry_outputter_retention_kept_files").set(round.kept as f64);
        if round.kept > 0 {
            let kept = round.kept;
            let text = format!(
                "{kept} files are over the limits of [retention] and stay, because they are not known to be complete: see ferryctl hours --missing"
            );
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    fn remove(&self, books: &SharedBooks, file: &Candidate, lengths: Lengths) -> io::Result<bool> {
        let layout = self.finisher.layout(&file.path, lengths)?;
        let is_open = layout.hours.iter().any(|key| lock(books).has_open(key));
        if is_open || self.marks.find(layout.hours.iter())?.len() < layout.hours.len() {
            return Ok(false);
        }
        let told = || self.mailbox.put_removed(file.path.clone(), layout.hours.clone());
        if !self.finisher.remove(&file.path, &layout, &mut self.committed(), told)? {
            return Ok(false);
        }
        counter!("logferry_outputter_files_removed_total").increment(1);
        counter!("logferry_outputter_removed_bytes_total").increment(file.bytes);
        tracing::info!(path = file.path, bytes = file.bytes, "the file was removed, as [retention] says");
        Ok(true)
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

    fn last_ms(&self, path: &str, lengths: Lengths, memory: &mut Memory) -> io::Result<i64> {
        if let Some((_, last_ms)) = memory.last.get(path).filter(|(headers, _)| *headers == lengths.headers) {
            return Ok(*last_ms);
        }
        let last_ms = match self.finisher.disk.open(&self.finisher.folders.headers.join(path)) {
            Ok(file) => catch_up::last_ms(&*file, lengths.headers, self.calendar.own_zone())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // What does not tell its time is as new as can be.
        let last_ms = last_ms.unwrap_or(i64::MAX);
        memory.last.insert(path.to_owned(), (lengths.headers, last_ms));
        Ok(last_ms)
    }

    fn committed(&self) -> Asking<'_> {
        Asking(&self.requests)
    }
}

/// The committer, asked from another thread.
struct Asking<'a>(&'a Sender<Request>);

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

    fn remove(&mut self, path: &str) -> io::Result<bool> {
        self.ask(|answer| Request::Remove(path.to_owned(), answer)).unwrap_or(Err(ended()))
    }
}

/// The answer did not come: whether it was done is found out at the next start.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the program stops")
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
