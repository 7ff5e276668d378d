//! Figures of ETL, for `/metrics` and `/readyz`.

use super::lock;
use logferry_etl::counts::Counts;
use logferry_etl::hour::HourKey;
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Hours whose problems are remembered.
const PROBLEMS_MAX: usize = 1_000;
/// Those that are named, the others are counted.
const PROBLEMS_NAMED: usize = 8;

/// Counters since the start, and what is wrong now.
#[derive(Debug, Default)]
pub struct EtlFigures {
    waiting: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    counts: Mutex<Counts>,
    problems: Mutex<Problems>,
}

/// What keeps tables from being made.
#[derive(Debug, Default)]
struct Problems {
    /// Of all hours: program, columns, lists, folder.
    setup: Option<String>,
    /// Of hours that wait.
    hours: BTreeMap<HourKey, String>,
}

impl EtlFigures {
    /// Hours in the queue.
    pub(super) fn set_waiting(&self, hours: usize) {
        self.waiting.store(hours as u64, Relaxed);
        gauge!("logferry_outputter_etl_hours_waiting").set(hours as f64);
    }

    /// An hour's tables are in place.
    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Relaxed);
        counter!("logferry_outputter_etl_hours_done_total").increment(1);
    }

    /// An hour has failed for good.
    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        counter!("logferry_outputter_etl_hours_failed_total").increment(1);
    }

    /// More lines of an hour; those of attempts that are repeated count again.
    pub(super) fn count(&self, new: &Counts) {
        counter!("logferry_outputter_etl_lines_total").increment(new.lines);
        counter!("logferry_outputter_etl_bytes_total").increment(new.bytes);
        counter!("logferry_outputter_etl_rows_total").increment(new.rows);
        counter!("logferry_outputter_etl_rejected_total").increment(new.rejected);
        counter!("logferry_outputter_etl_spiders_total").increment(new.spiders);
        for (rule, count) in [
            ("program", new.dropped_program),
            ("hosts_white_list", new.dropped_host),
            ("ip_black_list", new.dropped_ip),
            ("blank", new.blank),
        ] {
            counter!("logferry_outputter_etl_dropped_total", "rule" => rule).increment(count);
        }
        lock(&self.counts).add(new);
    }

    /// Sets or clears what keeps tables of any hour from being made. Gives whether that is news.
    pub(super) fn set_setup_problem(&self, problem: Option<String>) -> bool {
        let mut problems = lock(&self.problems);
        let is_news = problems.setup != problem;
        problems.setup = problem;
        is_news
    }

    /// Sets what keeps the tables of an hour that waits from being made. Gives whether that is news.
    pub(super) fn set_problem(&self, key: &HourKey, problem: String) -> bool {
        let hours = &mut lock(&self.problems).hours;
        let is_news = hours.get(key) != Some(&problem);
        if hours.len() < PROBLEMS_MAX || hours.contains_key(key) {
            hours.insert(key.clone(), problem);
        }
        is_news
    }

    /// The hour does not wait any more.
    pub(super) fn clear_problem(&self, key: &HourKey) {
        lock(&self.problems).hours.remove(key);
    }

    /// What keeps tables from being made, a few of them.
    pub(super) fn problems(&self) -> Vec<String> {
        let Problems { setup, hours } = &*lock(&self.problems);
        let setup = setup.iter().map(|problem| format!("etl: complete hours wait: {problem}"));
        let of_hours = hours.iter().map(|(key, problem)| format!("etl: {key} waits: {problem}"));
        let more = hours.len().saturating_sub(PROBLEMS_NAMED);
        let rest = (more > 0).then(|| format!("etl: and {more} more hours wait: see the log"));
        setup.chain(of_hours.take(PROBLEMS_NAMED)).chain(rest).collect()
    }

    /// By name, as the admin endpoint shows them.
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        let mut figures: BTreeMap<String, u64> = [
            ("etl_hours_waiting", self.waiting.load(Relaxed)),
            ("etl_hours_done_total", self.done.load(Relaxed)),
            ("etl_hours_failed_total", self.failed.load(Relaxed)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let counts = lock(&self.counts).by_name();
        figures.extend(counts.map(|(name, value)| (format!("etl_{name}_total"), value)));
        figures
    }
}
