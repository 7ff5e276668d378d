//! A pack on its way in, by either protocol: how long it may wait for memory, and how slowly it may come.

use std::time::{Duration, Instant};

/// A pack that gets no memory for so long is sent back: its peer must neither run into its own time-out nor stay without answers.
pub(crate) const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the pace of a pack is looked at, and how much of it has its first look.
const PACE_INTERVAL: Duration = Duration::from_secs(1);
/// A pack of which nothing comes for so long is sent back, whatever its pace was: before those are that wait for its memory.
const STALL_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(STALL_MAX.as_secs() < MEMORY_WAIT_MAX.as_secs());

/// A pack that has begun and is not whole.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// Not read on, as there is no memory for it.
    Waiting { until: Instant },
    /// Being read.
    Reading { since: Instant, received: usize, received_at: Instant, look_at: Instant },
}

impl Arrival {
    /// A pack of so many bytes begins to be read.
    pub(crate) fn new(bytes: usize, now: Instant) -> Arrival {
        let look_at = now + PACE_INTERVAL;
        Arrival { bytes, state: State::Reading { since: now, received: 0, received_at: now, look_at } }
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
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) {
        if let State::Reading { received, received_at, .. } = &mut self.state
            && bytes > *received
        {
            (*received, *received_at) = (bytes, now);
        }
    }

    /// Time has passed: why it is to be sent back, if so. One that would take longer than `all_in` at its pace so far is: the memory
    /// that it holds is of use to others.
    pub(crate) fn time(&mut self, now: Instant, all_in: Duration) -> Option<&'static str> {
        match &mut self.state {
            State::Waiting { until } => (now >= *until).then_some("no_memory"),
            State::Reading { look_at, .. } if now < *look_at => None,
            State::Reading { since, received, received_at, look_at } => {
                *look_at = now + PACE_INTERVAL;
                let is_stalled = now - *received_at >= STALL_MAX;
                // received / elapsed < bytes / all_in
                let is_slow =
                    *received as u128 * all_in.as_millis() < self.bytes as u128 * (now - *since).as_millis();
                (is_stalled || is_slow).then_some("slow_pack")
            }
        }
    }

    /// When [`Arrival::time`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        match self.state {
            State::Waiting { until } => until,
            State::Reading { look_at, .. } => look_at,
        }
    }
}
