//! How much one node may report: a bucket that fills evenly.

use std::time::Duration;

/// Messages that fit into the bucket, and as many come back in a minute.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    per_minute: f64,
    left: f64,
    last: Option<Duration>,
    left_out: u64,
}

impl Limiter {
    pub(crate) fn new(per_minute: u32) -> Limiter {
        let per_minute = f64::from(per_minute);
        Limiter { per_minute, left: per_minute, last: None, left_out: 0 }
    }

    /// Whether one more may pass; if not, it is counted.
    pub(crate) fn take(&mut self, tick: Duration) -> bool {
        self.fill(tick);
        let passes = self.left >= 1.0;
        if passes {
            self.left -= 1.0;
        } else {
            self.left_out += 1;
        }
        passes
    }

    /// One that passed was not stored after all.
    pub(crate) fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(self.per_minute);
    }

    /// How many were left out, once it is time to say so.
    pub(crate) fn take_left_out(&mut self, tick: Duration) -> Option<u64> {
        self.fill(tick);
        (self.left_out > 0 && self.left >= 1.0).then(|| std::mem::take(&mut self.left_out))
    }

    fn fill(&mut self, tick: Duration) {
        let passed = tick.saturating_sub(self.last.unwrap_or(tick));
        self.last = Some(tick);
        self.left = (self.left + passed.as_secs_f64() * self.per_minute / 60.0).min(self.per_minute);
    }
}
