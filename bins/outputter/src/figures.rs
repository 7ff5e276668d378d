//! Figures and problems of the outputter, for `/readyz`, `ferryctl status` and `/metrics`.

use crate::file::order::OrderFigures;
use crate::file::shelf::ShelfFigures;
use logferry_link::Answer;
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the problem of a single file is shown after it was last met.
const FILE_PROBLEM_SHOWN: Duration = Duration::from_secs(30);

/// Problems of single files that are remembered.
const FILE_PROBLEMS_MAX: usize = 1_000;
/// Problems of single files that are named, the others are counted.
const FILE_PROBLEMS_NAMED: usize = 8;

/// Counters since the start, and what is wrong now.
#[derive(Debug, Default)]
pub struct Figures {
    committed_bytes: AtomicU64,
    lines: AtomicU64,
    commits: AtomicU64,
    inversions: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    busy: AtomicU64,
    files_open: AtomicU64,
    problem: Mutex<Option<String>>,
    files_unusable: AtomicU64,
    shelf: Mutex<(ShelfFigures, bool)>,
    /// By path: when it was last met, and what it is.
    file_problems: Mutex<BTreeMap<String, (Instant, String)>>,
    /// By what they are about.
    notices: Mutex<BTreeMap<String, String>>,
}

impl Figures {
    /// A group was committed.
    pub fn count_commit(&self, bytes: u64, lines: u64, inversions: u64, files_open: u64) {
        self.committed_bytes.fetch_add(bytes, Relaxed);
        self.lines.fetch_add(lines, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.inversions.fetch_add(inversions, Relaxed);
        self.files_open.store(files_open, Relaxed);
        counter!("logferry_outputter_committed_bytes_total").increment(bytes);
        counter!("logferry_outputter_lines_total").increment(lines);
        counter!("logferry_outputter_commits_total").increment(1);
        counter!("logferry_outputter_inversions_total").increment(inversions);
        gauge!("logferry_outputter_files_open").set(files_open as f64);
    }

    /// A pack was answered.
    pub fn count_answer(&self, answer: &Answer) {
        match answer {
            Answer::Duplicate => {
                self.duplicates.fetch_add(1, Relaxed);
                counter!("logferry_outputter_duplicates_total").increment(1);
            }
            Answer::Conflict(_) => {
                self.conflicts.fetch_add(1, Relaxed);
                counter!("logferry_outputter_conflicts_total").increment(1);
            }
            Answer::Busy { .. } => {
                self.busy.fetch_add(1, Relaxed);
                counter!("logferry_outputter_busy_total").increment(1);
            }
            Answer::Ok | Answer::Rejected { .. } => {}
        }
    }

    /// Sets or clears what keeps the output from being written. Returns whether there was something.
    pub fn set_problem(&self, problem: Option<String>) -> bool {
        let mut current = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, problem).is_some()
    }

    /// What waits in the spool to be written, and whether more may be added.
    pub fn set_shelf(&self, figures: ShelfFigures, takes_more: bool) {
        gauge!("logferry_outputter_unwritten_packs").set(figures.packs as f64);
        *self.shelf.lock().unwrap_or_else(PoisonError::into_inner) = (figures, takes_more);
    }

    /// Whether packs that cannot be written are taken all the same, into the spool.
    pub fn takes_unwritten(&self) -> bool {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.1 && shelf.0.trouble.is_none()
    }

    /// A single file cannot be written. Returns whether that is news.
    pub fn set_file_problem(&self, path: &str, error: &io::Error) -> bool {
        let mut problems = self.file_problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() >= FILE_PROBLEMS_MAX {
            problems.retain(|_, (since, _)| since.elapsed() < FILE_PROBLEM_SHOWN);
        }
        let is_news = !problems.contains_key(path);
        if problems.len() < FILE_PROBLEMS_MAX || !is_news {
            problems.insert(path.to_owned(), (Instant::now(), format!("cannot write {path}: {error}")));
        }
        is_news
    }

    /// The file was written.
    pub fn clear_file_problem(&self, path: &str) {
        self.file_problems.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Somebody should look at `subject`, although packs are taken as before. Returns whether that is news.
    pub fn set_notice(&self, subject: &str, text: String) -> bool {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = notices.contains_key(subject);
        let is_news = notices.get(subject) != Some(&text);
        if is_known || notices.len() < FILE_PROBLEMS_MAX {
            notices.insert(subject.to_owned(), text);
        }
        is_news
    }

    /// `subject` is as it should be.
    pub fn clear_notice(&self, subject: &str) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).remove(subject);
    }

    /// What somebody should look at, although packs are taken as before.
    pub fn notices(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let more = notices.len().saturating_sub(FILE_PROBLEMS_NAMED);
        let rest = (more > 0).then(|| format!("and {more} more things to look at: see the log"));
        notices.values().take(FILE_PROBLEMS_NAMED).cloned().chain(rest).collect()
    }

    /// How many files cannot be written until they are recovered.
    pub fn set_files_unusable(&self, count: u64) {
        self.files_unusable.store(count, Relaxed);
        gauge!("logferry_outputter_files_unusable").set(count as f64);
    }

    /// What is wrong now.
    pub fn problems(&self) -> Vec<String> {
        let whole = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let files = self.file_problems.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = files.values().filter(|(since, _)| since.elapsed() < FILE_PROBLEM_SHOWN);
        let mut texts: Vec<String> = recent.map(|(_, text)| text.clone()).collect();
        let more = texts.len().saturating_sub(FILE_PROBLEMS_NAMED);
        texts.truncate(FILE_PROBLEMS_NAMED);
        let rest = (more > 0).then(|| format!("and {more} more files cannot be written"));
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let waiting = shelf.packs;
        let kept =
            (waiting > 0).then(|| format!("{waiting} packs wait in the spool to be written into files"));
        let trouble =
            shelf.trouble.map(|trouble| format!("the spool takes no packs for the files: {trouble}"));
        whole.into_iter().chain(texts).chain(rest).chain(kept).chain(trouble).collect()
    }

    /// By name, as the admin endpoint shows them. Sets the gauges of `/metrics` on the way.
    pub fn by_name(&self, order: &OrderFigures) -> BTreeMap<String, u64> {
        gauge!("logferry_outputter_queue_packs").set(order.pending_packs as f64);
        gauge!("logferry_outputter_queue_bytes").set(order.pending_bytes as f64);
        gauge!("logferry_outputter_held_packs").set(order.held_packs as f64);
        gauge!("logferry_outputter_held_bytes").set(order.held_bytes as f64);
        gauge!("logferry_outputter_streams").set(order.streams as f64);
        gauge!("logferry_outputter_footprint_bytes").set(order.footprint_bytes as f64);
        counter!("logferry_outputter_packs_forgotten_total").absolute(order.packs_forgotten);
        let unwritten = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let figures = [
            ("queue_packs", order.pending_packs),
            ("queue_bytes", order.pending_bytes),
            ("held_packs", order.held_packs),
            ("unwritten_packs", unwritten.packs),
            ("unwritten_footprint_bytes", unwritten.footprint_bytes),
            ("held_bytes", order.held_bytes),
            ("streams", order.streams),
            ("footprint_bytes", order.footprint_bytes),
            ("packs_forgotten_total", order.packs_forgotten),
            ("files_open", self.files_open.load(Relaxed)),
            ("files_unusable", self.files_unusable.load(Relaxed)),
            ("committed_bytes_total", self.committed_bytes.load(Relaxed)),
            ("lines_total", self.lines.load(Relaxed)),
            ("commits_total", self.commits.load(Relaxed)),
            ("inversions_total", self.inversions.load(Relaxed)),
            ("duplicates_total", self.duplicates.load(Relaxed)),
            ("conflicts_total", self.conflicts.load(Relaxed)),
            ("busy_total", self.busy.load(Relaxed)),
        ];
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
