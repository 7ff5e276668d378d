//! When a pack leaves: at once while nothing of its stream is in flight, else when enough has gathered in the file.

use std::time::{Duration, Instant};

/// How much gathers while packs are in flight.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Bytes that make a pack leave.
    pub bytes: u64,
    /// Lines that make a pack leave; 0: no limit.
    pub lines: u64,
    /// Age of the oldest unread byte that makes a pack leave.
    pub age: Duration,
}

/// A stream as far as batching goes.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Bytes in the file that were not looked at yet.
    pub unread: u64,
    /// When the first of them was noticed.
    pub since: Instant,
    /// Packs of the stream that are not settled.
    pub in_flight: usize,
    /// Usual length of a line in bytes, as seen so far; 0: not known.
    pub line_bytes: u64,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// There is nothing.
    Nothing,
    /// Read and cut.
    Now,
    /// Look again at this time.
    At(Instant),
}

/// Decides. Lines are estimated from bytes, because bytes that gather are not read before they leave.
pub fn decide(waiting: &Waiting, limits: &BatchLimits, now: Instant) -> Leave {
    if waiting.unread == 0 {
        return Leave::Nothing;
    }
    let many_lines =
        limits.lines > 0 && waiting.line_bytes > 0 && waiting.unread / waiting.line_bytes >= limits.lines;
    let due = waiting.since + limits.age;
    if waiting.in_flight == 0 || waiting.unread >= limits.bytes || many_lines || due <= now {
        Leave::Now
    } else {
        Leave::At(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BatchLimits = BatchLimits { bytes: 1000, lines: 10, age: Duration::from_millis(200) };

    fn leave(unread: u64, in_flight: usize, line_bytes: u64, age_ms: u64) -> (Leave, Instant) {
        let since = Instant::now();
        let waiting = Waiting { unread, since, in_flight, line_bytes };
        (decide(&waiting, &LIMITS, since + Duration::from_millis(age_ms)), since)
    }

    #[test]
    fn with_nothing_in_flight_a_pack_leaves_at_once() {
        assert_eq!(leave(1, 0, 0, 0).0, Leave::Now);
        assert_eq!(leave(0, 0, 0, 500).0, Leave::Nothing);
    }

    #[test]
    fn with_packs_in_flight_bytes_lines_or_age_decide() {
        let (decision, since) = leave(999, 1, 0, 199);
        assert_eq!(decision, Leave::At(since + LIMITS.age));
        assert_eq!(leave(1000, 1, 0, 0).0, Leave::Now);
        assert_eq!(leave(100, 1, 10, 0).0, Leave::Now);
        assert_eq!(leave(1, 1, 0, 200).0, Leave::Now);
    }
}
