//! Rounds through the spool: what is kept is offered to the output, in its order.

use super::{Action, Shelf};
use crate::outputs::backlog::Ticket;
use logferry_link::Answer;
use logferry_pack::StreamId;
use logferry_spool::RecordId;
use std::collections::{HashMap, HashSet};

/// How long the next round is waited for after one in which something was written.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest of the pauses, each twice as long as the one before, after rounds in which nothing could be written: so late at most what
/// is kept begins to be written when it can be.
const PAUSE_MS_MAX: u64 = 4_000;
/// All of a large spool is read for nothing: such a round is followed by so many times its own duration, but for no longer than a minute.
const PAUSES_PER_ROUND: u64 = 4;
const PAUSE_OF_ROUND_MS_MAX: u64 = 60_000;

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
    began_ms: u64,
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
            began_ms: 0,
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

    fn begin(&mut self, now_ms: u64) {
        self.skipped.clear();
        self.began_ms = now_ms;
        (self.is_at_end, self.is_broken, self.has_written, self.next_ms) = (false, false, false, None);
    }

    /// The pause before the next round is over.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let round_ms = now_ms.saturating_sub(self.began_ms);
        let for_nothing_ms = round_ms.saturating_mul(PAUSES_PER_ROUND).min(PAUSE_OF_ROUND_MS_MAX);
        let (pause_ms, wait_ms) = match self.has_written {
            true => (PAUSE_MS_MIN, PAUSE_MS_MIN),
            false => (self.pause_ms, self.pause_ms.max(for_nothing_ms)),
        };
        let next_ms = *self.next_ms.get_or_insert(now_ms + wait_ms);
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
            self.round.begin(now_ms);
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

#[cfg(test)]
mod tests {
    use super::super::ShelfLimits;
    use super::*;
    use logferry_pack::PackIdentity;

    /// Rounds in which the only pack cannot be written, each of which takes so long: when each began.
    fn rounds(count: usize, takes_ms: u64) -> Vec<u64> {
        let limits = ShelfLimits { group_bytes_max: 1, gap_ms: 0, footprint_bytes_max: 1 << 20 };
        let mut shelf: Shelf<u32, ()> = Shelf::new(limits);
        let identity = PackIdentity { stream: StreamId(1), offset: 0, span: 5, sum: 0 };
        shelf.found(&identity, 0, 1);
        let (mut now_ms, mut began) = (0, Vec::new());
        while began.len() < count {
            let actions = shelf.go_on(now_ms, false);
            if !matches!(actions.last(), Some(Action::Read(_))) {
                now_ms += 100;
                continue;
            }
            began.push(now_ms);
            now_ms += takes_ms;
            let record = RecordId(1);
            assert_eq!(shelf.read(vec![(record, identity.stream, 7)], true).len(), 1);
            assert!(shelf.replayed(record, Answer::Busy { retry_ms: 1 }).is_empty());
        }
        began
    }

    fn pauses(began: &[u64]) -> impl Iterator<Item = u64> {
        began.windows(2).map(|two| two[1] - two[0])
    }

    #[test]
    fn however_long_a_file_could_not_be_written_its_packs_are_tried_again_within_seconds() {
        assert_eq!(pauses(&rounds(100, 0)).max(), Some(PAUSE_MS_MAX));
    }

    #[test]
    fn a_spool_that_takes_long_to_read_is_not_read_all_the_time() {
        assert!(pauses(&rounds(10, 2_000)).all(|pause| pause == 10_000));
        assert_eq!(pauses(&rounds(10, 1_000_000)).max(), Some(1_060_000));
    }
}
