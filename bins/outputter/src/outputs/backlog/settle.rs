//! Packs that the output has, or refuses.

use super::entry::{Entry, Stage};
use super::{Action, Backlog, Now, Ticket};
use logferry_link::Answer;

/// How long it waits after the footprint could not be written.
const RECORD_RETRY_MS: u64 = 1_000;

impl<P: Clone, W> Backlog<P, W> {
    /// The output has all of a pack, durably.
    pub fn stored(&mut self, now: Now, ticket: Ticket) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        if self.leaves_output(ticket, Stage::Stored) {
            self.settle();
            self.record(now, &mut actions);
            self.advance(now, &mut actions);
        }
        actions
    }

    /// The output can never take a pack.
    pub fn refused(&mut self, now: Now, ticket: Ticket, reason: &str) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        if !self.leaves_output(ticket, Stage::Refused) {
            return actions;
        }
        self.settle();
        self.record(now, &mut actions);
        let kept = self.packs.get(&ticket).is_some_and(|entry| entry.record.is_some());
        if kept {
            let pack = self.packs.get(&ticket).map(|entry| entry.pack.clone());
            actions.extend(pack.map(|pack| Action::SetAside(ticket, pack, reason.to_owned())));
        } else if let Some(entry) = self.remove(ticket) {
            let answer = Answer::Rejected { reason: reason.to_owned() };
            actions.extend(entry.waiters.into_iter().map(|waiter| Action::Answer(waiter, answer.clone())));
        }
        self.advance(now, &mut actions);
        actions
    }

    /// A refused pack is safe where it was set aside.
    pub fn set_aside(&mut self, now: Now, ticket: Ticket) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        let entry = self.remove(ticket);
        for record in entry.iter().flat_map(Entry::records) {
            self.arrived(record, &mut actions);
        }
        self.advance(now, &mut actions);
        actions
    }

    /// The footprint's log has what was to be recorded, or failed to take it.
    pub fn recorded(&mut self, now: Now, is_good: bool) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        if !is_good {
            self.record_again_ms = Some(now.ms + RECORD_RETRY_MS);
            return actions;
        }
        self.record_again_ms = None;
        for ticket in std::mem::take(&mut self.recording) {
            let Some(entry) = self.remove(ticket) else { continue };
            let seen = entry.info.seen(now.unix);
            self.stored.apply(&seen);
            self.taken.apply(&seen);
            for record in entry.records() {
                self.arrived(record, &mut actions);
            }
            actions.extend(entry.waiters.into_iter().map(|waiter| Action::Answer(waiter, Answer::Ok)));
        }
        self.snapshot_if_due(&mut actions);
        self.record(now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// Tries again to record, with a fresh log.
    pub(super) fn record_again(&mut self, now: Now, actions: &mut Vec<Action<P, W>>) {
        if self.record_again_ms.is_some_and(|at| now.ms >= at) {
            self.record_again_ms = Some(now.ms + RECORD_RETRY_MS);
            actions.push(Action::Snapshot(self.snapshot()));
            actions.push(Action::Record(self.seen_of(&self.recording, now)));
        }
    }

    fn leaves_output(&mut self, ticket: Ticket, stage: Stage) -> bool {
        let Some(entry) = self.packs.get_mut(&ticket).filter(|entry| entry.stage == Stage::Storing) else {
            return false;
        };
        entry.stage = stage;
        // What is stored is still to be kept until it is recorded: a newer pack of the spool must not be known while this one is not.
        if stage == Stage::Refused {
            self.unkept.remove(&ticket);
        }
        true
    }

    /// Moves what may be recorded out of the row of those that are stored.
    fn settle(&mut self) {
        let Backlog { storing, packs, to_record, limits, .. } = self;
        let stage = |ticket: &Ticket| packs.get(ticket).map(|entry| entry.stage);
        if limits.in_order {
            while let Some(ticket) = storing.front().copied()
                && stage(&ticket) != Some(Stage::Storing)
            {
                storing.pop_front();
                to_record.extend((stage(&ticket) == Some(Stage::Stored)).then_some(ticket));
            }
        } else {
            storing.retain(|ticket| match stage(ticket) {
                Some(Stage::Storing) => true,
                other => {
                    to_record.extend((other == Some(Stage::Stored)).then_some(*ticket));
                    false
                }
            });
        }
    }

    /// One record at a time covers all that wait.
    fn record(&mut self, now: Now, actions: &mut Vec<Action<P, W>>) {
        if self.recording.is_empty() && !self.to_record.is_empty() {
            self.recording = std::mem::take(&mut self.to_record);
            actions.push(Action::Record(self.seen_of(&self.recording, now)));
        }
    }

    fn seen_of(&self, tickets: &[Ticket], now: Now) -> Vec<logferry_footprint::PackSeen> {
        tickets
            .iter()
            .filter_map(|ticket| self.packs.get(ticket))
            .map(|entry| entry.info.seen(now.unix))
            .collect()
    }
}
