//! Keeping below a rate: what is spent runs off with time, and the next spending waits until little enough is left.

use std::time::{Duration, Instant};

/// What may be spent at once after a silence, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);

/// A leaky bucket. One spending may go over the rate by its own size; the next one waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Units a second.
    rate: f64,
    /// When all that was spent will have run off.
    empty_at: Instant,
}

impl Pace {
    /// `rate` in units a second; `None` when it is 0, which is no limit.
    pub fn new(rate: f64, now: Instant) -> Option<Pace> {
        (rate > 0.0).then_some(Pace { rate, empty_at: now })
    }

    /// Takes `amount` units into account.
    pub fn spend(&mut self, amount: f64, now: Instant) {
        let time = Duration::try_from_secs_f64(amount / self.rate).unwrap_or(Duration::MAX);
        let from = self.empty_at.max(now);
        self.empty_at = from.checked_add(time).unwrap_or(from);
    }

    /// When the next spending may begin; `None`: now.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.empty_at.checked_sub(BURST).filter(|due| *due > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Pace::new(0.0, Instant::now()).is_none());
    }

    #[test]
    fn a_silence_allows_one_burst_and_no_more() {
        let begin = Instant::now();
        let mut pace = Pace::new(1000.0, begin).expect("a limit");
        let now = begin + Duration::from_secs(3600);
        pace.spend(100.0, now);
        assert_eq!(pace.due(now), None, "a tenth of a second's worth is a burst");
        pace.spend(1.0, now);
        assert_eq!(pace.due(now), Some(now + Duration::from_millis(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Over any time from the first spending on, no more than the rate, one burst, and one spending is spent.
        #[test]
        fn whoever_waits_until_it_is_due_keeps_below_the_rate(
            rate in 1.0f64..1e9,
            spendings in proptest::collection::vec((0.0f64..1e7, 0u64..2_000), 1..60),
        ) {
            let begin = Instant::now();
            let (mut now, mut sum, mut largest) = (begin, 0.0, 0.0f64);
            let mut pace = Pace::new(rate, begin).expect("a limit");
            for (amount, idle_ms) in spendings {
                now += Duration::from_millis(idle_ms);
                now = pace.due(now).unwrap_or(now);
                prop_assert_eq!(pace.due(now), None);
                pace.spend(amount, now);
                (sum, largest) = (sum + amount, largest.max(amount));
                let allowed = rate * ((now - begin) + BURST).as_secs_f64() + largest;
                prop_assert!(sum <= allowed * 1.000_001 + 1.0, "{sum} spent, {allowed} allowed");
            }
        }
    }
}
