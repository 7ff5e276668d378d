//! A pack on its way in: how long it may wait for memory, and how slowly it may come.

use std::time::{Duration, Instant};

/// A pack that gets no memory for so long is sent back: its peer must neither run into its own time-out nor stay without answers.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the pace of a pack is looked at, and how much of it has its first look.
const PACE_INTERVAL: Duration = Duration::from_secs(1);
/// A pack that would take longer than so many times the time-out for a frame, at its pace so far, is sent back: the memory that it
/// holds is of use to others.
const PACE_TIMEOUTS: u32 = 2;

/// A pack that has begun and is not whole.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Not read on, as there is no memory for it.
    Waiting { until: Instant },
    /// Being read.
    Reading { since: Instant, received: usize, look_at: Instant },
}

impl Arrival {
    /// A pack of so many bytes begins to be read.
    pub(super) fn new(bytes: usize, now: Instant) -> Arrival {
        Arrival { bytes, state: State::Reading { since: now, received: 0, look_at: now + PACE_INTERVAL } }
    }

    /// It waits for memory.
    pub(super) fn wait(&mut self, now: Instant) {
        self.state = State::Waiting { until: now + MEMORY_WAIT_MAX };
    }

    /// There is memory for it.
    pub(super) fn go_on(&mut self, now: Instant) {
        *self = Arrival::new(self.bytes, now);
    }

    /// So many of its bytes are there.
    pub(super) fn received(&mut self, bytes: usize) {
        if let State::Reading { received, .. } = &mut self.state {
            *received = bytes;
        }
    }

    /// Time has passed: why it is to be sent back, if so. `frame_timeout` is what a frame may take.
    pub(super) fn time(&mut self, now: Instant, frame_timeout: Duration) -> Option<&'static str> {
        match &mut self.state {
            State::Waiting { until } => (now >= *until).then_some("no_memory"),
            State::Reading { look_at, .. } if now < *look_at => None,
            State::Reading { since, received, look_at } => {
                *look_at = now + PACE_INTERVAL;
                // received / elapsed < bytes / all_in
                let (all_in, elapsed) = (frame_timeout.saturating_mul(PACE_TIMEOUTS), now - *since);
                let is_slow =
                    *received as u128 * all_in.as_millis() < self.bytes as u128 * elapsed.as_millis();
                is_slow.then_some("slow_pack")
            }
        }
    }

    /// When [`Arrival::time`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::Waiting { until } => until,
            State::Reading { look_at, .. } => look_at,
        }
    }
}
