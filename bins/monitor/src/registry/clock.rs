//! Whether the machine's clock can be believed: one that is far ahead at the start would make everything old. As long as it is far beyond the
//! newest thing that is known, and no node has the same time, nothing counts as old.

use super::Now;

/// So far from the time of anything else a clock is doubted, in milliseconds.
const FAR_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The newest thing that is known, in milliseconds since 1970.
    newest_ms: Option<i64>,
    /// What the wall's clock was ahead of the one that only goes forward when it was right.
    right_by_ms: Option<i64>,
}

impl Clock {
    /// Something of this time is stored.
    pub(super) fn holds(&mut self, unix_ms: i64) {
        if unix_ms > 0 {
            self.newest_ms = self.newest_ms.max(Some(unix_ms));
        }
    }

    /// Somebody else has this time.
    pub(super) fn compare(&mut self, unix_ms: i64, now: Now) {
        if unix_ms.abs_diff(now.unix_ms) <= FAR_MS.unsigned_abs() {
            self.right_by_ms = Some(ahead(now));
        }
    }

    /// Time has passed. Before all that is stored is known nobody can say whether it is right.
    pub(super) fn tick(&mut self, knows_all: bool, now: Now) {
        if knows_all && self.doubted(now).is_none() {
            self.right_by_ms.get_or_insert(ahead(now));
        }
        if self.is_right(now) {
            self.holds(now.unix_ms);
        }
    }

    /// The time of the newest thing that is known, if the clock is so far beyond it that it may be wrong.
    pub(super) fn doubted(&self, now: Now) -> Option<i64> {
        let is_far = |newest: &i64| now.unix_ms.saturating_sub(*newest) > FAR_MS;
        self.newest_ms.filter(is_far).filter(|_| !self.is_right(now))
    }

    fn is_right(&self, now: Now) -> bool {
        self.right_by_ms.is_some_and(|right| right.abs_diff(ahead(now)) <= FAR_MS.unsigned_abs())
    }
}

fn ahead(now: Now) -> i64 {
    now.unix_ms.saturating_sub(i64::try_from(now.tick.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY_MS: i64 = 24 * 3_600 * 1_000;

    /// On a day, after so many days of running.
    fn on(day: i64, running: u64) -> Now {
        Now { unix_ms: day * DAY_MS, tick: Duration::from_secs(running * 86_400) }
    }

    #[test]
    fn a_clock_far_beyond_all_that_is_known_is_doubted_until_somebody_agrees() {
        let mut clock = Clock::default();
        clock.holds(20_000 * DAY_MS);
        clock.tick(true, on(22_000, 0));
        assert_eq!(clock.doubted(on(22_000, 0)), Some(20_000 * DAY_MS));
        clock.compare(20_001 * DAY_MS, on(22_000, 0));
        assert!(clock.doubted(on(22_000, 0)).is_some(), "its own time is another");
        assert_eq!(clock.doubted(on(20_001, 0)), None, "it was set");
        clock.compare(22_000 * DAY_MS, on(22_000, 0));
        assert_eq!(clock.doubted(on(22_000, 0)), None);
        assert_eq!(clock.doubted(on(22_100, 100)), None, "time passes");
    }

    #[test]
    fn a_clock_that_was_right_and_jumps_is_doubted() {
        for holds in [None, Some(20_000 * DAY_MS)] {
            let mut clock = Clock::default();
            holds.into_iter().for_each(|unix_ms| clock.holds(unix_ms));
            (0..100).for_each(|day| clock.tick(true, on(20_001 + day, day as u64)));
            assert_eq!(clock.doubted(on(20_100, 99)), None);
            assert_eq!(clock.doubted(on(22_000, 99)), Some(20_100 * DAY_MS));
        }
    }
}
