//! Figures for the admin endpoint, written by the follower and read by whoever asks.

use crate::event::Shared;
use logferry_link::Sender;
use logferry_node::admin::Status;
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures of the follower, in bytes or numbers.
#[derive(Default, Debug)]
pub struct Figures {
    /// All sources were looked at, and what was found is followed.
    pub looked: AtomicBool,
    /// Followed files.
    pub files: AtomicU64,
    /// Of these, files that are open.
    pub files_open: AtomicU64,
    /// Files that cannot be opened, and folders that cannot be listed.
    pub unreadable: AtomicU64,
    /// Sources whose path leads to no file.
    pub sources_empty: AtomicU64,
    /// Sources whose files are asked one by one, because nobody would tell of changes.
    pub sources_polled: AtomicU64,
    /// Bytes in the files that are not acknowledged.
    pub lag_bytes: AtomicU64,
    /// Of these, bytes of last lines that have no end yet.
    pub partial_bytes: AtomicU64,
    /// Packs that are not settled.
    pub queue_packs: AtomicU64,
    /// Lines cut.
    pub lines_total: AtomicU64,
    /// Bytes cut.
    pub bytes_total: AtomicU64,
    /// Packs cut.
    pub packs_total: AtomicU64,
    /// Hours closed by a done pack, each time one is.
    pub hours_closed: AtomicU64,
    /// Hours that are over, and not closed yet.
    pub hours_waiting: AtomicU64,
    /// Files that were cut, or replaced in place, and began again.
    pub restarts: AtomicU64,
    /// Compressed files that were unpacked.
    pub files_unpacked: AtomicU64,
    /// Compressed files that were gone before they were read.
    pub packed_files_lost: AtomicU64,
    /// Compressed files that are remembered.
    pub packed_files_known: AtomicU64,
    /// Bytes that are known to be lost.
    pub lost_bytes: AtomicU64,
    /// What is missing of the files of sources, for people.
    pub source_problems: Mutex<Vec<String>>,
}

impl Figures {
    /// A pack was cut.
    pub fn cut(&self, span: u64, lines: u64) {
        self.packs_total.fetch_add(1, Ordering::Relaxed);
        self.lines_total.fetch_add(lines, Ordering::Relaxed);
        self.bytes_total.fetch_add(span, Ordering::Relaxed);
        counter!("logferry_tailer_packs_total").increment(1);
        counter!("logferry_tailer_lines_total").increment(lines);
        counter!("logferry_tailer_bytes_total").increment(span);
    }

    /// An hour was closed.
    pub fn hour_closed(&self) {
        self.hours_closed.fetch_add(1, Ordering::Relaxed);
        counter!("logferry_tailer_hours_closed_total").increment(1);
    }

    /// Whether all was looked at, and no hour that is over waits for its done pack, nor that for its answer.
    pub fn has_closed_hours(&self) -> bool {
        let is_none = |figure: &AtomicU64| figure.load(Ordering::Acquire) == 0;
        self.looked.load(Ordering::Acquire) && is_none(&self.hours_waiting) && is_none(&self.queue_packs)
    }

    /// Bytes cannot be shipped any more.
    pub fn lost(&self, bytes: u64, reason: &'static str) {
        self.lost_bytes.fetch_add(bytes, Ordering::Relaxed);
        counter!("logferry_tailer_lost_bytes_total", "reason" => reason).increment(bytes);
    }

    /// A compressed file was gone before it was read.
    pub fn packed_file_lost(&self, reason: &'static str) {
        self.packed_files_lost.fetch_add(1, Ordering::Relaxed);
        counter!("logferry_tailer_packed_files_lost_total", "reason" => reason).increment(1);
    }

    /// What `/readyz` answers.
    pub fn status(&self, name: &str, shared: &Shared, sender: &Sender) -> Status {
        let health = sender.health();
        let journal_down = shared.journal_down.load(Ordering::Acquire);
        let mut problems = Vec::new();
        if journal_down {
            problems.push("the state log cannot be written: reading has stopped".to_owned());
        }
        if shared.spool_full.load(Ordering::Acquire) {
            problems.push("the spool takes nothing more: sources with spool = true are not read".to_owned());
        }
        if health.targets_up == 0 {
            let cause = health.last_error.as_deref().unwrap_or("not connected yet");
            problems.push(format!("no target is up: {cause}"));
        }
        // A restart would not help, and the other sources go on: such a node is ready, and says what it lacks.
        let ready = problems.is_empty();
        problems.extend(self.source_problems.lock().map(|told| told.clone()).unwrap_or_default());
        Status {
            role: "tailer".to_owned(),
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready,
            problems,
            figures: self.figures(shared, health.targets_up as u64, journal_down),
            ..Status::default()
        }
    }

    fn figures(&self, shared: &Shared, targets_up: u64, journal_down: bool) -> BTreeMap<String, u64> {
        let get = |figure: &AtomicU64| figure.load(Ordering::Acquire);
        let (lag, partial) = (get(&self.lag_bytes), get(&self.partial_bytes));
        let settled = self.looked.load(Ordering::Acquire) && get(&self.queue_packs) == 0;
        let figures = [
            ("files", get(&self.files)),
            ("files_open", get(&self.files_open)),
            ("unreadable", get(&self.unreadable)),
            ("sources_empty", get(&self.sources_empty)),
            ("sources_polled", get(&self.sources_polled)),
            ("lag_bytes", lag),
            ("partial_bytes", partial),
            ("caught_up", u64::from(lag == partial && settled)),
            ("queue_bytes", shared.held_bytes.load(Ordering::Relaxed)),
            ("queue_packs", get(&self.queue_packs)),
            ("spool_packs", shared.spool_packs.load(Ordering::Relaxed)),
            ("spool_full", u64::from(shared.spool_full.load(Ordering::Acquire))),
            ("spool_bytes", shared.spool_bytes.load(Ordering::Relaxed)),
            ("targets_up", targets_up),
            ("journal_down", u64::from(journal_down)),
            ("lines_total", get(&self.lines_total)),
            ("bytes_total", get(&self.bytes_total)),
            ("packs_total", get(&self.packs_total)),
            ("hours_closed", get(&self.hours_closed)),
            ("hours_waiting", get(&self.hours_waiting)),
            ("file_restarts", get(&self.restarts)),
            ("files_unpacked", get(&self.files_unpacked)),
            ("packed_files_lost", get(&self.packed_files_lost)),
            ("packed_files_known", get(&self.packed_files_known)),
            ("lost_bytes", get(&self.lost_bytes)),
        ];
        let gauges = [
            ("logferry_tailer_lag_bytes", lag),
            ("logferry_tailer_queue_bytes", shared.held_bytes.load(Ordering::Relaxed)),
            ("logferry_tailer_files", get(&self.files)),
            ("logferry_tailer_files_open", get(&self.files_open)),
            ("logferry_tailer_unreadable", get(&self.unreadable)),
            ("logferry_tailer_sources_empty", get(&self.sources_empty)),
            ("logferry_tailer_sources_polled", get(&self.sources_polled)),
        ];
        for (name, value) in gauges {
            gauge!(name).set(value as f64);
        }
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
