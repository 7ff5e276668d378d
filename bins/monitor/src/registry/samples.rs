//! An hour of a node's figures, for the curves on its page.

use super::Now;
use logferry_node::monitor::status::NodeStatus;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Time that one sample stands for, in milliseconds.
pub const SAMPLE_MS: i64 = 30_000;
/// Samples that are kept: an hour of them, 4 KiB a node.
pub const SAMPLES_MAX: usize = 120;

/// The figures of one half minute: the largest that were told in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it began, in milliseconds since 1970.
    pub unix_ms: i64,
    /// Bytes a second.
    pub rate_bytes: u64,
    /// Bytes that waited.
    pub lag_bytes: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
}

/// The last hour, oldest first. Where nothing was told there is no sample.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    kept: VecDeque<Sample>,
}

impl Samples {
    pub(super) fn add(&mut self, status: &NodeStatus, now: Now) {
        let unix_ms = now.unix_ms - now.unix_ms.rem_euclid(SAMPLE_MS);
        // a clock that was set back must not make the hour longer
        self.kept.retain(|sample| sample.unix_ms <= unix_ms);
        if self.kept.back().is_none_or(|last| last.unix_ms != unix_ms) {
            self.kept.push_back(Sample { unix_ms, ..Sample::default() });
        }
        if let Some(last) = self.kept.back_mut() {
            last.rate_bytes = last.rate_bytes.max(status.rate_bytes.unwrap_or(0));
            last.lag_bytes = last.lag_bytes.max(status.lag_bytes);
            last.spool_bytes = last.spool_bytes.max(status.spool_bytes);
        }
        let oldest = unix_ms - SAMPLE_MS * SAMPLES_MAX as i64;
        while self.kept.len() > SAMPLES_MAX || self.kept.front().is_some_and(|first| first.unix_ms <= oldest)
        {
            self.kept.pop_front();
        }
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Sample> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn add(samples: &mut Samples, second: i64, lag_bytes: u64) {
        let status = NodeStatus { lag_bytes, rate_bytes: Some(1), ..NodeStatus::default() };
        samples.add(&status, Now { unix_ms: second * 1_000, tick: Duration::ZERO });
    }

    #[test]
    fn a_sample_has_the_largest_of_its_half_minute_and_an_hour_is_kept() {
        let mut samples = Samples::default();
        [(0, 5), (10, 9), (29, 1), (30, 2)]
            .into_iter()
            .for_each(|(second, lag)| add(&mut samples, second, lag));
        let lags: Vec<u64> = samples.all().map(|sample| sample.lag_bytes).collect();
        assert_eq!(lags, [9, 2]);
        (0..10_000).for_each(|second| add(&mut samples, second, 1));
        assert_eq!(samples.all().count(), SAMPLES_MAX);
        add(&mut samples, 100_000, 1);
        assert_eq!(samples.all().count(), 1, "what is older than an hour is gone");
        add(&mut samples, 50_000, 7);
        assert_eq!(samples.all().map(|sample| sample.lag_bytes).collect::<Vec<_>>(), [7]);
    }
}
