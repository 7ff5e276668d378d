//! Waits between connection attempts.

use std::time::Duration;

/// Doubles from attempt to attempt, up to a limit, with jitter.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), next: min }
    }

    /// The next wait: between half of the length and all of it, as `random` (0 to 1) says, so that many clients of a target that
    /// comes back do not arrive at once.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let length = self.next;
        self.next = (length * 2).min(self.max);
        length.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// The target has worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_anew_after_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(200), ms(1_000));
        let waits: Vec<_> = (0..5).map(|_| backoff.next(1.0)).collect();
        assert_eq!(waits, [ms(200), ms(400), ms(800), ms(1_000), ms(1_000)]);
        assert_eq!(backoff.next(0.0), ms(500));
        backoff.reset();
        assert_eq!(backoff.next(0.5), ms(150));
    }
}
