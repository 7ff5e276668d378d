//! How much one node may report: a bucket that fills evenly. What a node kept while the monitor was away comes at once, and was not too much
//! when it happened: the bucket fills by the reports' own times. A second one bounds what comes at a time, whatever they say.

use super::Now;
use std::collections::HashMap;
use std::time::Duration;

/// Messages that may come at once beyond those of a minute: as many as a node keeps.
const KEPT_MAX: f64 = 1_000.0;

/// See the module. Messages that fit into the bucket come back in a minute.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    per_minute: f64,
    happened: f64,
    /// The latest own time of a message, in milliseconds since 1970.
    happened_ms: Option<i64>,
    came: f64,
    came_at: Option<Duration>,
    left_out: u64,
}

impl Limiter {
    pub(crate) fn new(per_minute: u32) -> Limiter {
        Limiter::of(f64::from(per_minute))
    }

    fn of(per_minute: f64) -> Limiter {
        let came = per_minute + KEPT_MAX;
        Limiter { per_minute, happened: per_minute, happened_ms: None, came, came_at: None, left_out: 0 }
    }

    /// Whether one more, of `unix_ms`, may pass; if not, it is counted.
    pub(crate) fn take(&mut self, unix_ms: i64, now: Now) -> bool {
        let unix_ms = unix_ms.min(now.unix_ms);
        // a clock that was ahead must not keep the bucket from filling
        let last_ms = self.happened_ms.unwrap_or(unix_ms).min(now.unix_ms);
        self.happened = self.filled(self.happened, self.per_minute, elapsed(last_ms, unix_ms));
        self.happened_ms = Some(last_ms.max(unix_ms));
        let came = now.tick.saturating_sub(self.came_at.unwrap_or(now.tick));
        self.came = self.filled(self.came, self.per_minute + KEPT_MAX, came);
        self.came_at = Some(now.tick);
        let passes = self.happened >= 1.0 && self.came >= 1.0;
        if passes {
            self.happened -= 1.0;
            self.came -= 1.0;
        } else {
            self.left_out += 1;
        }
        passes
    }

    /// One that passed was not stored after all.
    pub(crate) fn give_back(&mut self) {
        self.happened = self.filled(self.happened + 1.0, self.per_minute, Duration::ZERO);
        self.came = self.filled(self.came + 1.0, self.per_minute + KEPT_MAX, Duration::ZERO);
    }

    /// How many were left out, once it is time to say so. What has not come yet may be older than this.
    pub(crate) fn take_left_out(&mut self, now: Now) -> Option<u64> {
        let last_ms = self.happened_ms.unwrap_or(now.unix_ms);
        let happened = self.filled(self.happened, self.per_minute, elapsed(last_ms, now.unix_ms));
        let came = now.tick.saturating_sub(self.came_at.unwrap_or(now.tick));
        let came = self.filled(self.came, self.per_minute + KEPT_MAX, came);
        (self.left_out > 0 && happened >= 1.0 && came >= 1.0).then(|| std::mem::take(&mut self.left_out))
    }

    fn filled(&self, left: f64, most: f64, passed: Duration) -> f64 {
        (left + passed.as_secs_f64() * self.per_minute / 60.0).min(most)
    }
}

/// Those of addresses that are no node: all of them share one. As long as the database has not said who is a node, they may well be nodes that
/// registered before this run, and each has its own.
pub(super) struct Strangers {
    shared: Limiter,
    each: HashMap<String, Limiter>,
    each_max: usize,
}

impl Strangers {
    pub(super) fn new(per_minute: u32, each_max: usize) -> Strangers {
        Strangers { shared: Limiter::new(per_minute), each: HashMap::new(), each_max }
    }

    pub(super) fn of(&mut self, id: &str, is_restored: bool) -> &mut Limiter {
        if is_restored || (self.each.len() >= self.each_max && !self.each.contains_key(id)) {
            return &mut self.shared;
        }
        let anew = Limiter::of(self.shared.per_minute);
        self.each.entry(id.to_owned()).or_insert(anew)
    }

    /// From here on it is known who is a node.
    pub(super) fn forget_each(&mut self) {
        let left_out: u64 = self.each.drain().map(|(_, limiter)| limiter.left_out).sum();
        self.shared.left_out += left_out;
    }

    /// How many were left out, once it is time to say so.
    pub(super) fn take_left_out(&mut self, now: Now) -> Option<u64> {
        let each = self.each.values_mut().filter_map(|limiter| limiter.take_left_out(now)).sum::<u64>();
        let all = self.shared.take_left_out(now).unwrap_or(0) + each;
        (all > 0).then_some(all)
    }
}

fn elapsed(from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now { unix_ms: 1_700_000_000_000 + second as i64 * 1_000, tick: Duration::from_secs(second) }
    }

    #[test]
    fn what_a_node_kept_passes_as_it_would_have_when_it_happened() {
        let (mut limiter, now) = (Limiter::new(5), at(4_000));
        assert!(limiter.take(at(0).unix_ms, at(0)));
        // one each 20 s for an hour, all at once
        let passed = (1..=180).filter(|number| limiter.take(at(number * 20).unix_ms, now)).count();
        assert_eq!((passed, limiter.take_left_out(now)), (180, None));
        let passed = (0..100).filter(|_| limiter.take(now.unix_ms, now)).count();
        assert_eq!((passed, limiter.take_left_out(now)), (5, None));
        assert_eq!(limiter.take_left_out(at(4_013)), Some(95));
    }

    #[test]
    fn whatever_times_messages_claim_no_more_come_at_once_than_a_node_keeps() {
        let (mut limiter, now) = (Limiter::new(5), at(10_000_000));
        let passed = (0..20_000).filter(|number| limiter.take(at(number * 60).unix_ms, now)).count();
        assert_eq!(passed, 1_005);
        // a clock that was ahead has come back
        let mut limiter = Limiter::new(5);
        assert!(limiter.take(at(1_000_000).unix_ms, at(1_000_000)));
        let back =
            |second| Now { unix_ms: at(second).unix_ms, tick: Duration::from_secs(1_000_000 + second) };
        let passed = (0..60).filter(|second| limiter.take(back(*second).unix_ms, back(*second))).count();
        assert!((8..=10).contains(&passed), "{passed}");
    }
}
