//! Holding back what `rate` and `cpu` do not allow yet: of one source, or of all.

use super::{Follower, Source};
use crate::config::LimitSettings;
use crate::pace::Pace;
use crate::tracker::{FileNumber, Place};
use metrics::counter;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Least bytes of a pack that a low `rate` still allows: smaller ones would cost more than they carry.
const PIECE_MIN: u64 = 4 << 10;

/// `[limits]` at work.
pub(super) struct Throttle {
    rate: Option<Pace>,
    cpu: Option<CpuPace>,
}

struct CpuPace {
    /// In seconds of processor time.
    pace: Pace,
    /// Processor time of the process when it was asked last.
    used: Duration,
}

impl Throttle {
    pub(super) fn new(limits: &LimitSettings) -> Throttle {
        let now = Instant::now();
        let cpu = Pace::new(limits.cpu, now).map(|pace| CpuPace { pace, used: processor_time() });
        Throttle { rate: Pace::new(limits.rate.0 as f64, now), cpu }
    }

    /// When the next pack may be cut; `None`: now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let cpu = self.cpu.as_ref().and_then(|cpu| cpu.pace.due(now));
        self.rate.and_then(|rate| rate.due(now)).max(cpu)
    }

    fn spend(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.spend(bytes as f64, now);
        }
    }

    /// Takes into account what the whole process used since the last call.
    pub(super) fn measure(&mut self, now: Instant) {
        if let Some(cpu) = &mut self.cpu {
            let used = processor_time();
            cpu.pace.spend(used.saturating_sub(cpu.used).as_secs_f64(), now);
            cpu.used = used;
        }
    }
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Source {
    /// When its next pack may be cut; `None`: now.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.pace.and_then(|pace| pace.due(now))
    }
}

impl Follower {
    /// Keeps a file whose source has to wait. It stays marked as queued, so nothing else queues it meanwhile.
    pub(super) fn hold_back(&mut self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let is_full = self.has_no_room(&self.sources[file.source]);
        let source = &mut self.sources[file.source];
        let is_throttled = source.due(Instant::now()).is_some();
        if !is_throttled && !is_full {
            return false;
        }
        if is_throttled {
            counter!("logferry_tailer_throttled_total", "source" => source.name.to_string()).increment(1);
        }
        // The order that the queue has, too.
        if file.place == Place::Here {
            source.held.push_back(number);
        } else {
            source.held.push_front(number);
        }
        true
    }

    /// Whether a source has to wait for room: in the spool if it has one, which must not wait for those that have none.
    fn has_no_room(&self, source: &Source) -> bool {
        match source.settings.spool {
            true => self.shared.spool_full.load(Ordering::Acquire),
            false => self.shared.held_bytes.load(Ordering::Relaxed) >= self.window,
        }
    }

    /// Queues one file of each source that may go on.
    pub(super) fn release_held(&mut self) {
        let now = Instant::now();
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            if source.held.is_empty() || source.due(now).is_some() || self.has_no_room(source) {
                continue;
            }
            self.ready.extend(self.sources[index].held.pop_front());
        }
    }

    /// When the first file that is held back may go on.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let now = Instant::now();
        // Those without room are woken when there is some.
        let may_wait = |source: &&Source| !source.held.is_empty() && !self.has_no_room(source);
        let waiting = self.sources.iter().filter(may_wait);
        waiting.map(|source| source.due(now).unwrap_or(now)).min()
    }

    /// Bytes of a file are about to leave.
    pub(super) fn spend(&mut self, source: usize, bytes: u64) {
        let now = Instant::now();
        self.throttle.spend(bytes, now);
        if let Some(pace) = &mut self.sources[source].pace {
            pace.spend(bytes as f64, now);
        }
    }

    /// Most bytes of one pack: with a low rate a full one would stop its source for long.
    pub(super) fn pack_bytes_allowed(&self, source: usize) -> usize {
        let rates = [self.sources[source].settings.rate.0, self.limits.rate.0];
        let second = rates.into_iter().filter(|rate| *rate > 0).map(|rate| rate.max(PIECE_MIN)).min();
        second.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_that_was_used_is_waited_for() {
        let mut throttle = Throttle::new(&LimitSettings { cpu: 0.001, ..Default::default() });
        let begin = throttle.cpu.as_ref().map(|cpu| cpu.used).expect("a limit");
        while processor_time() < begin + Duration::from_millis(5) {}
        let now = Instant::now();
        throttle.measure(now);
        let wait = throttle.due(now).expect("it has to wait").duration_since(now);
        assert!(wait > Duration::from_secs(4), "5 ms at a thousandth of a core are 5 s, not {wait:?}");
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut throttle = Throttle::new(&LimitSettings::default());
        let now = Instant::now();
        throttle.measure(now);
        throttle.spend(u64::MAX, now);
        assert_eq!(throttle.due(now), None);
    }
}
