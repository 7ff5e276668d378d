//! How long what the monitor refused is kept back, while everything else goes on over the same connection.

use super::client::fraction_of_now;
use std::time::{Duration, Instant};

/// First wait after a refusal; doubles.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Of one kind of message, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Longest wait after the next refusal; zero before the first.
    wait: Duration,
    until: Option<Instant>,
}

impl Patience {
    /// Whether it is too early for another try.
    pub(crate) fn is_waiting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It was refused, again or, which is news, for the first time.
    pub(crate) fn refused(&mut self, now: Instant) -> bool {
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.until.replace(now + self.wait / 2 + self.wait.mul_f64(fraction_of_now() / 2.0)).is_none()
    }

    /// It was taken; whether it had been refused before.
    pub(crate) fn taken(&mut self) -> bool {
        self.wait = Duration::ZERO;
        self.until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_waited_for_longer_and_longer_and_are_news_once() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        assert!(!patience.is_waiting(now) && !patience.taken());
        assert!(patience.refused(now));
        let mut tries = 1;
        for _ in 0..600 {
            now += Duration::from_millis(100);
            if !patience.is_waiting(now) {
                assert!(!patience.refused(now));
                tries += 1;
            }
        }
        assert!((6..=15).contains(&tries), "{tries} tries in a minute");
        assert!(patience.taken() && !patience.is_waiting(now));
        assert!(patience.refused(now) && !patience.is_waiting(now + WAIT_MIN));
    }
}
