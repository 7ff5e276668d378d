//! Counters and gauges of both sides, and a gate that keeps repeated troubles from flooding the log.

use crate::answer::Answer;
use metrics::{Counter, Gauge, counter, gauge};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A counter for each status of an answer.
struct Answers([(&'static str, Counter); 5]);

impl Answers {
    fn new(name: &'static str) -> Answers {
        Answers(
            ["ok", "duplicate", "busy", "rejected", "conflict"]
                .map(|status| (status, counter!(name, "status" => status))),
        )
    }

    fn count(&self, answer: &Answer) {
        let status = answer.status();
        if let Some((_, counter)) = self.0.iter().find(|(name, _)| *name == status) {
            counter.increment(1);
        }
    }
}

/// Figures of a receiver.
pub(crate) struct ReceiverFigures {
    packs: Counter,
    bytes: Counter,
    answers: Answers,
    pub(crate) connections: Gauge,
    pub(crate) refusals: LogGate,
}

impl ReceiverFigures {
    pub(crate) fn new() -> ReceiverFigures {
        ReceiverFigures {
            packs: counter!("logferry_link_packs_received_total"),
            bytes: counter!("logferry_link_bytes_received_total"),
            answers: Answers::new("logferry_link_answers_given_total"),
            connections: gauge!("logferry_link_connections"),
            refusals: LogGate::new(Duration::from_secs(1)),
        }
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.packs.increment(1);
        self.bytes.increment(bytes);
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        self.answers.count(answer);
    }

    /// A pack was answered with `busy` before its owner saw it.
    pub(crate) fn sent_back(&self, reason: &'static str) {
        counter!("logferry_link_sent_back_total", "reason" => reason).increment(1);
        self.answers.count(&Answer::Busy { retry_ms: 0 });
    }
}

/// Counts a connection or a pack that was refused.
pub(crate) fn refused(reason: &'static str) {
    counter!("logferry_link_refused_total", "reason" => reason).increment(1);
}

/// Figures of a sender over all its targets.
pub(crate) struct SenderFigures {
    packs: Counter,
    bytes: Counter,
    answers: Answers,
    targets_up: Gauge,
    unsettled_packs: Gauge,
    unsettled_bytes: Gauge,
}

impl SenderFigures {
    pub(crate) fn new() -> SenderFigures {
        SenderFigures {
            packs: counter!("logferry_link_packs_sent_total"),
            bytes: counter!("logferry_link_bytes_sent_total"),
            answers: Answers::new("logferry_link_answers_total"),
            targets_up: gauge!("logferry_link_targets_up"),
            unsettled_packs: gauge!("logferry_link_unsettled_packs"),
            unsettled_bytes: gauge!("logferry_link_unsettled_bytes"),
        }
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.packs.increment(1);
        self.bytes.increment(bytes);
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        self.answers.count(answer);
    }

    pub(crate) fn pool(&self, figures: crate::pool::PoolFigures) {
        self.targets_up.set(figures.targets_up as f64);
        self.unsettled_packs.set(figures.unsettled_packs as f64);
        self.unsettled_bytes.set(figures.unsettled_bytes as f64);
    }
}

/// Lets one message pass in each interval, and tells how many it held back since the last one.
pub(crate) struct LogGate {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogGate {
    pub(crate) fn new(interval: Duration) -> LogGate {
        LogGate { interval, state: Mutex::new((None, 0)) }
    }

    /// The number of messages held back before this one, if this one may pass.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now < last + self.interval) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_passes_one_message_an_interval_and_counts_the_others() {
        let (gate, now) = (LogGate::new(Duration::from_secs(10)), Instant::now());
        assert_eq!(gate.pass(now), Some(0));
        (1..10).for_each(|second| assert_eq!(gate.pass(now + Duration::from_secs(second)), None));
        assert_eq!(gate.pass(now + Duration::from_secs(10)), Some(9));
    }
}
