//! When streams that could not be looked for, or not be opened, are looked for again.

use std::time::{Duration, Instant};

/// The first wait, which doubles up to the longest.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The next search, and how long it was waited for the last one.
#[derive(Debug, Default)]
pub(super) struct SearchAgain {
    due: Option<Instant>,
    wait: Option<Duration>,
}

impl SearchAgain {
    /// When the next search is due, if there is to be one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Not all could be seen, or opened, just now.
    pub(super) fn soon(&mut self, now: Instant) {
        let soon = now + RETRY;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        self.wait = Some(RETRY);
    }

    /// Once more it could not be: after ever longer waits.
    pub(super) fn later(&mut self, now: Instant) {
        if self.due.is_none() {
            let wait = self.wait.map_or(RETRY, |wait| (wait * 2).min(RETRY_MAX));
            (self.due, self.wait) = (Some(now + wait), Some(wait));
        }
    }

    /// Whether a search is due, which begins then.
    pub(super) fn begins(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// A search is over: unless it asked for another, all was found.
    pub(super) fn is_over(&mut self) {
        if self.due.is_none() {
            self.wait = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_could_not_see_is_searched_for_again_and_at_last_no_more() {
        let begin = Instant::now();
        let mut again = SearchAgain::default();
        assert_eq!(again.due(), None);
        again.soon(begin);
        again.later(begin);
        assert_eq!(again.due(), Some(begin + RETRY));
        assert!(!again.begins(begin));
        let mut now = begin + RETRY;
        // One that is asked for while it runs is another.
        for ask in [SearchAgain::soon, SearchAgain::later] {
            assert!(again.begins(now));
            ask(&mut again, now);
            again.is_over();
            let due = again.due().expect("another");
            assert!(due > now);
            now = due;
        }
        assert!(again.begins(now));
        again.is_over();
        assert_eq!(again.due(), None);
        again.later(now);
        assert_eq!(again.due(), Some(now + RETRY));
    }

    #[test]
    fn the_waits_grow_and_a_new_trouble_shortens_them() {
        let mut now = Instant::now();
        let mut again = SearchAgain::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            again.later(now);
            let due = again.due().expect("due");
            waits.push(due - now);
            now = due;
            assert!(again.begins(now));
        }
        assert!(waits.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(RETRY_MAX)), "{waits:?}");
        assert_eq!(waits.last(), Some(&RETRY_MAX));
        again.later(now);
        again.soon(now);
        assert_eq!(again.due(), Some(now + RETRY));
    }
}
