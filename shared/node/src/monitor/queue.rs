//! Warnings and errors on their way to the monitor: a bounded queue that never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Warnings and errors that wait for the monitor; more are dropped and counted.
const REPORTS_MAX: usize = 1_000;
/// Longest text of a report, in bytes; more is cut.
const REPORT_BYTES_MAX: usize = 4 << 10;

/// One warning or error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// `WARNING` or `ERROR`.
    pub(crate) kind: &'static str,
    /// What was logged, with its fields.
    pub(crate) text: String,
    /// When.
    pub(crate) unix_ms: i64,
}

/// See the module. Off, it takes nothing.
#[derive(Debug, Default)]
pub(crate) struct ReportQueue {
    on: AtomicBool,
    waiting: Mutex<VecDeque<Report>>,
    dropped: AtomicU64,
    pub(crate) arrived: Notify,
}

impl ReportQueue {
    /// Reports are taken from now on: there is a monitor.
    pub(crate) fn switch_on(&self) {
        self.on.store(true, Relaxed);
    }

    /// Takes a report, or counts it as dropped. Never waits for anybody who does I/O.
    pub(crate) fn push(&self, kind: &'static str, text: &str) {
        if !self.on.load(Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= REPORTS_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            metrics::counter!("logferry_node_reports_dropped_total").increment(1);
            return;
        }
        let unix_ms = jiff::Timestamp::now().as_millisecond();
        waiting.push_back(Report { kind, text: cut(text).to_owned(), unix_ms });
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The oldest; it stays until [`pop`](Self::pop).
    pub(crate) fn first(&self) -> Option<Report> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    /// The oldest has arrived.
    pub(crate) fn pop(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    /// Reports dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn cut(text: &str) -> &str {
    let end = text.len().min(REPORT_BYTES_MAX);
    &text[..(0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_keeps_the_oldest() {
        let queue = ReportQueue::default();
        queue.push("ERROR", "nobody listens");
        assert_eq!((queue.first(), queue.dropped()), (None, 0));
        queue.switch_on();
        for number in 0..REPORTS_MAX + 7 {
            queue.push("WARNING", &number.to_string());
        }
        assert_eq!(queue.dropped(), 7);
        assert_eq!(queue.first().map(|report| report.text).as_deref(), Some("0"));
        queue.pop();
        assert_eq!(queue.first().map(|report| report.text).as_deref(), Some("1"));
        queue.push("WARNING", &"é".repeat(REPORT_BYTES_MAX));
        assert_eq!(queue.dropped(), 7);
    }
}
