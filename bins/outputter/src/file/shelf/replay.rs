//! Rounds through the spool: what is kept is offered to the output, in its order.

use super::{Action, Shelf};
use crate::outputs::backlog::Ticket;
use logferry_link::Answer;
use logferry_pack::StreamId;
use logferry_spool::RecordId;
use std::collections::{HashMap, HashSet};

/// How long the next round is waited for after one in which something was written.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest of the pauses, each twice as long as the one before, after rounds in which nothing could be written.
const PAUSE_MS_MAX: u64 = 60_000;

/// Where the present round is.
pub(super) struct Round<P> {
    /// Offered to the output, and not answered.
    outstanding: HashMap<RecordId, (StreamId, P)>,
    /// Being set aside.
    asides: HashMap<RecordId, StreamId>,
    /// Streams that wait for the next round, because a pack of theirs could not be written.
    skipped: HashSet<StreamId>,
    is_reading: bool,
    /// All that is kept was read.
    is_at_end: bool,
    /// The output failed: the next round is to begin as soon as it does not.
    is_broken: bool,
    has_written: bool,
    pause_ms: u64,
    next_ms: Option<u64>,
}

impl<P> Default for Round<P> {
    fn default() -> Self {
        Round {
            outstanding: HashMap::new(),
            asides: HashMap::new(),
            skipped: HashSet::new(),
            is_reading: false,
            is_at_end: false,
            is_broken: false,
            has_written: false,
            pause_ms: PAUSE_MS_MIN,
            next_ms: None,
        }
    }
}

impl<P> Round<P> {
    /// The spool has more than was read.
    pub(super) fn has_more(&mut self) {
        self.is_at_end = false;
    }

    fn is_idle(&self) -> bool {
        !self.is_reading && self.outstanding.is_empty() && self.asides.is_empty()
    }

    fn begin(&mut self) {
        self.skipped.clear();
        (self.is_at_end, self.is_broken, self.has_written, self.next_ms) = (false, false, false, None);
    }

    /// The pause before the next round is over.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let pause_ms = match self.has_written {
            true => PAUSE_MS_MIN,
            false => self.pause_ms,
        };
        let next_ms = *self.next_ms.get_or_insert(now_ms + pause_ms);
        if now_ms >= next_ms {
            self.pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
        }
        now_ms >= next_ms
    }
}

impl<P: Clone, W> Shelf<P, W> {
    /// Goes on with the round, if there is anything to do; to be called often. `is_failing`: the output takes nothing now.
    pub fn go_on(&mut self, now_ms: u64, is_failing: bool) -> Vec<Action<P, W>> {
        self.round.is_broken |= is_failing;
        if is_failing || self.kept.is_empty() || !self.round.is_idle() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        if self.round.is_broken || self.round.is_at_end {
            if !self.round.is_broken && self.round.skipped.is_empty() {
                self.nothing_left();
                return actions;
            }
            if !self.round.is_broken && !self.round.is_due(now_ms) {
                return actions;
            }
            self.round.begin();
            actions.push(Action::Rewind);
        }
        self.round.is_reading = true;
        actions.push(Action::Read(self.limits.group_bytes_max));
        actions
    }

    /// All was read and written, and yet packs are missing: the spool has lost them, and says so itself.
    fn nothing_left(&mut self) {
        if !self.keeping.is_empty() {
            return;
        }
        let packs: u64 = self.kept.values().sum();
        tracing::error!(packs, "packs that were kept for the files are not in the spool any more");
        for (stream, _) in self.kept.drain() {
            self.footprint.forget(stream);
        }
    }

    /// Records were read, in their order; `is_end`: there were no more.
    pub fn read(&mut self, records: Vec<(RecordId, StreamId, P)>, is_end: bool) -> Vec<Action<P, W>> {
        let round = &mut self.round;
        (round.is_reading, round.is_at_end) = (false, is_end);
        let mut packs = Vec::new();
        for (record, stream, pack) in records {
            if !round.skipped.contains(&stream) {
                round.outstanding.insert(record, (stream, pack.clone()));
                packs.push((record, pack));
            }
        }
        if packs.is_empty() { Vec::new() } else { vec![Action::Replay(packs)] }
    }

    /// What became of a pack that was offered to the output.
    pub fn replayed(&mut self, record: RecordId, answer: Answer) -> Vec<Action<P, W>> {
        let Some((stream, pack)) = self.round.outstanding.remove(&record) else { return Vec::new() };
        let reason = match answer {
            Answer::Ok | Answer::Duplicate => {
                self.round.has_written = true;
                return self.arrived(record, stream);
            }
            Answer::Busy { .. } => {
                self.round.skipped.insert(stream);
                return Vec::new();
            }
            Answer::Conflict(_) => "conflict".to_owned(),
            Answer::Rejected { reason } => reason,
        };
        self.round.asides.insert(record, stream);
        vec![Action::SetAside(record.0, pack, reason)]
    }

    /// A pack that can never be written is safe where it was set aside.
    pub fn set_aside(&mut self, ticket: Ticket) -> Vec<Action<P, W>> {
        let record = RecordId(ticket);
        let stream = self.round.asides.remove(&record);
        stream.map_or_else(Vec::new, |stream| self.arrived(record, stream))
    }

    fn arrived(&mut self, record: RecordId, stream: StreamId) -> Vec<Action<P, W>> {
        if let Some(count) = self.kept.get_mut(&stream) {
            *count -= 1;
            if *count == 0 {
                self.kept.remove(&stream);
                self.footprint.forget(stream);
            }
        }
        vec![Action::Arrived(record)]
    }
}
