//! What a node tells of itself with each heartbeat.

use crate::admin::Status;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A node's status, as it travels to the monitor. What a node does not know is 0, empty or left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Does its work.
    pub ready: bool,
    /// Why not, or what else is wrong, for people.
    pub problems: Vec<String>,
    /// Bytes that wait: in log files (tailer), in memory (others).
    pub lag_bytes: u64,
    /// Seconds that the oldest of it has waited, as far as what has gone since tells; there is a look a second.
    pub lag_s: u64,
    /// Bytes a second since the last heartbeat.
    pub rate_bytes: Option<u64>,
    /// Lines a second since the last heartbeat.
    pub rate_lines: Option<u64>,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Packs in the spool.
    pub spool_packs: u64,
    /// Last warning or error that was logged.
    pub last_error: Option<String>,
    /// Seconds since it was logged.
    pub last_error_s: Option<u64>,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Milliseconds from one heartbeat to the next.
    pub every_ms: u64,
    /// Warnings and errors that found the queue to the monitor full, since the start.
    pub reports_dropped: u64,
    /// All figures of the node's `/readyz`.
    pub figures: BTreeMap<String, u64>,
}

/// Makes a [`NodeStatus`] of a node's own figures: adds what needs a memory, rates and the age of the lag.
#[derive(Default)]
pub(crate) struct Meter {
    last: Option<(Instant, u64, u64)>,
    arrived: Arrived,
}

/// Marks that are kept; of more every second one goes.
const MARKS_MAX: usize = 1_024;

/// How many bytes had come in at each look: what has gone since tells how old the rest is. A node that is never without work is not behind.
#[derive(Default)]
struct Arrived {
    /// When, and how many had come by then; both rise.
    marks: VecDeque<(Instant, u64)>,
    gone: u64,
}

impl Arrived {
    /// So many bytes have gone since the start, and so many wait.
    fn look(&mut self, gone: u64, waiting: u64, now: Instant) {
        if gone < self.gone {
            // it counts anew
            self.marks.clear();
        }
        self.gone = gone;
        let arrived = gone.saturating_add(waiting);
        // what waited and does not any more, although it has not gone, was dropped
        let dropped = self.marks.partition_point(|(_, bytes)| *bytes <= arrived);
        if let Some(first) = self.marks.get_mut(dropped) {
            first.1 = arrived;
            self.marks.truncate(dropped + 1);
        }
        while self.marks.front().is_some_and(|(_, bytes)| *bytes <= gone) {
            self.marks.pop_front();
        }
        if arrived > gone && self.marks.back().is_none_or(|(_, bytes)| *bytes < arrived) {
            self.marks.push_back((now, arrived));
        }
        if self.marks.len() > MARKS_MAX {
            // the first stays
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    fn age(&self, now: Instant) -> Duration {
        self.marks.front().map_or(Duration::ZERO, |(since, _)| now.duration_since(*since))
    }
}

/// The first figure of these names that there is.
pub(crate) fn figure(status: &Status, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| status.figures.get(*name).copied())
}

impl Meter {
    /// Looks at the lag; once a second, so that its age is known to a second.
    pub(crate) fn sample(&mut self, status: &Status, now: Instant) {
        // a last line without its end waits for whoever writes it, not for us
        let partial = figure(status, &["partial_bytes"]).unwrap_or(0);
        let gone = match status.figures.contains_key("lag_bytes") {
            true => figure(status, &["bytes_total"]),
            // of what a queue counts
            false => figure(status, &["forwarded_bytes_total", "committed_bytes_total"]),
        };
        self.arrived.look(gone.unwrap_or(0), lag_bytes(status).saturating_sub(partial), now);
    }

    /// The status for a heartbeat at `now`, `every` after the last one.
    pub(crate) fn heartbeat(&mut self, status: Status, now: Instant, every: Duration) -> NodeStatus {
        self.sample(&status, now);
        let bytes = figure(&status, &["bytes_total", "committed_bytes_total"]);
        let lines = figure(&status, &["lines_total"]);
        let rates = self.last.map(|(then, bytes_then, lines_then)| {
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            let rate = |count: Option<u64>, before: u64| {
                count.map(|count| (count.saturating_sub(before) as f64 / seconds).round() as u64)
            };
            (rate(bytes, bytes_then), rate(lines, lines_then))
        });
        self.last = Some((now, bytes.unwrap_or(0), lines.unwrap_or(0)));
        NodeStatus {
            ready: status.ready,
            lag_bytes: lag_bytes(&status),
            lag_s: self.arrived.age(now).as_secs(),
            rate_bytes: rates.and_then(|rates| rates.0),
            rate_lines: rates.and_then(|rates| rates.1),
            spool_bytes: figure(&status, &["spool_bytes"]).unwrap_or(0),
            spool_packs: figure(&status, &["spool_packs"]).unwrap_or(0),
            uptime_s: status.uptime_s,
            every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
            reports_dropped: 0,
            problems: status.problems,
            last_error: status.last_error,
            last_error_s: status.last_error_s,
            figures: status.figures,
        }
    }
}

/// Bytes that wait.
pub(crate) fn lag_bytes(status: &Status) -> u64 {
    figure(status, &["lag_bytes", "queue_bytes"]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(figures: &[(&str, u64)]) -> Status {
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Status { ready: true, figures, ..Status::default() }
    }

    #[test]
    fn rates_are_those_since_the_last_heartbeat() {
        let (mut meter, start, every) = (Meter::default(), Instant::now(), Duration::from_secs(10));
        let first = meter.heartbeat(status(&[("bytes_total", 1_000), ("lines_total", 10)]), start, every);
        assert_eq!((first.rate_bytes, first.rate_lines), (None, None));
        let later = status(&[("bytes_total", 21_000), ("lines_total", 110)]);
        let second = meter.heartbeat(later, start + every, every);
        assert_eq!((second.rate_bytes, second.rate_lines), (Some(2_000), Some(10)));
    }

    #[test]
    fn under_steady_load_the_lag_is_as_old_as_what_waits_and_not_as_the_load() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let (every, at) = (Duration::from_secs(10), |second| start + Duration::from_secs(second));
        // 1,000 bytes come each second, and 3,000 wait at each look, for two hours
        for second in 0..7_200 {
            let look = status(&[("lag_bytes", 3_000), ("bytes_total", second * 1_000)]);
            meter.sample(&look, at(second));
            if second > 10 {
                let told = meter.heartbeat(look, at(second), every);
                assert!((2..=4).contains(&told.lag_s), "{} s", told.lag_s);
            }
        }
        // nothing goes any more
        for second in 7_200..20_000 {
            meter.sample(&status(&[("lag_bytes", second), ("bytes_total", 7_199_000)]), at(second));
            assert!(meter.arrived.marks.len() <= MARKS_MAX);
        }
        let stuck = status(&[("lag_bytes", 20_000), ("bytes_total", 7_199_000)]);
        assert!((12_790..=12_810).contains(&meter.heartbeat(stuck, at(20_000), every).lag_s));
        // half of it is dropped, and half of the rest goes
        let some = status(&[("lag_bytes", 5_000), ("bytes_total", 7_204_000)]);
        let told = meter.heartbeat(some, at(20_001), every);
        assert!(told.lag_s > 0 && told.lag_s <= 12_810, "{} s", told.lag_s);
        let none = status(&[("lag_bytes", 0), ("bytes_total", 7_209_000)]);
        assert_eq!(meter.heartbeat(none, at(20_002), every).lag_s, 0);
        let anew = status(&[("lag_bytes", 7), ("bytes_total", 5)]);
        assert_eq!(meter.heartbeat(anew, at(20_003), every).lag_s, 0);
    }

    #[test]
    fn the_lag_is_as_old_as_there_was_always_one_and_a_line_without_its_end_is_none() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let look = |lag| status(&[("queue_bytes", lag)]);
        meter.sample(&look(5), start);
        let told = meter.heartbeat(look(9), start + Duration::from_secs(7), Duration::from_secs(10));
        assert_eq!((told.lag_s, told.lag_bytes), (7, 9));
        let partial = status(&[("lag_bytes", 5), ("partial_bytes", 5)]);
        assert_eq!(
            meter.heartbeat(partial, start + Duration::from_secs(8), Duration::from_secs(10)).lag_s,
            0
        );
        meter.sample(&look(0), start + Duration::from_secs(8));
        let told = meter.heartbeat(look(9), start + Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(told.lag_s, 0);
    }
}
