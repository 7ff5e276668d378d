//! To the spool and back.

use super::entry::{Entry, PackInfo, Stage};
use super::{Action, Backlog, Now, Ticket};
use logferry_footprint::{PackSeen, Verdict};
use logferry_link::Answer;
use logferry_spool::RecordId;

/// How long it waits after the spool failed.
const SPOOL_RETRY_MS: u64 = 1_000;

impl<P: Clone, W> Backlog<P, W> {
    /// What was appended to the spool is durable from here on: these, a beginning of what was asked for, and why not all.
    pub fn kept(
        &mut self,
        now: Now,
        durable: &[(Ticket, RecordId)],
        trouble: Option<String>,
    ) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        self.appending.clear();
        self.spool_again_ms = if trouble.is_some() { now.ms + SPOOL_RETRY_MS } else { 0 };
        self.spool_trouble = trouble;
        let mut taken = Vec::with_capacity(durable.len());
        for (ticket, record) in durable {
            let Some(entry) = self.packs.get_mut(ticket) else {
                self.arrived(*record, &mut actions);
                continue;
            };
            let is_copy = entry.record.is_some();
            let waits = entry.stage == Stage::Waiting;
            taken.extend(self.in_spool(now, *ticket, *record, &mut actions));
            if waits && !is_copy {
                self.stay_or_leave(*ticket);
            }
        }
        if !taken.is_empty() {
            actions.push(Action::Taken(taken));
        }
        self.advance(now, &mut actions);
        actions
    }

    /// A pack in memory is in the spool, durably.
    fn in_spool(
        &mut self,
        now: Now,
        ticket: Ticket,
        record: RecordId,
        actions: &mut Vec<Action<P, W>>,
    ) -> Option<PackSeen> {
        let entry = self.packs.get_mut(&ticket)?;
        self.by_record.insert(record, ticket);
        if let Some(known) = entry.record {
            entry.copies.push(known.max(record));
            entry.record = Some(known.min(record));
            if self.kept_waiting.remove(&known) {
                self.kept_waiting.insert(known.min(record));
            }
            return None;
        }
        entry.record = Some(record);
        self.unkept.remove(&ticket);
        if self.waiting.remove(&ticket) {
            self.kept_waiting.insert(record);
        }
        let waiters = entry.waiters.drain(..);
        actions.extend(waiters.map(|waiter| Action::Answer(waiter, Answer::Ok)));
        let seen = entry.info.seen(now.unix);
        self.taken.apply(&seen);
        Some(seen)
    }

    /// A kept pack stays in memory, too, if there is room and none before it was left to the spool alone.
    fn stay_or_leave(&mut self, ticket: Ticket) {
        if self.unread || self.bytes > self.limits.queue_bytes_max {
            self.remove(ticket);
            self.unread = true;
            self.left_since_reading = true;
        }
    }

    /// Records were read back, in their order; `is_end`: there were no more.
    pub fn read(
        &mut self,
        now: Now,
        records: Vec<(RecordId, PackInfo, P)>,
        is_end: bool,
    ) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        self.reading = false;
        let arrived = std::mem::take(&mut self.arrived_while_reading);
        for (record, info, pack) in records {
            if arrived.contains(&record) || self.by_record.contains_key(&record) {
                continue;
            }
            if self.stored.judge(&info.identity, info.first) == Verdict::Duplicate {
                self.arrived(record, &mut actions);
                continue;
            }
            let place = (info.identity.stream, info.identity.offset);
            let beside = self.by_place.get(&place).copied();
            let is_same = |ticket: &Ticket| {
                self.packs.get(ticket).is_some_and(|entry| entry.info.identity == info.identity)
            };
            if let Some(ticket) = beside.filter(is_same) {
                // It came again before it was read. Its turn is the one that it had, before what is behind it in the spool.
                self.in_spool(now, ticket, record, &mut actions);
                continue;
            }
            // The footprint's log is not synced for what is kept, so a crash may have cost it.
            self.taken.apply(&info.seen(now.unix));
            self.insert(Entry {
                info,
                pack,
                waiters: Vec::new(),
                record: Some(record),
                copies: Vec::new(),
                stage: Stage::Waiting,
                since_ms: now.ms,
            });
        }
        self.unread = !is_end || self.left_since_reading;
        self.advance(now, &mut actions);
        actions
    }

    /// Whether packs go through the spool. They do from when the output is behind until all that is in the spool is in the output's hands.
    pub(super) fn judge_mode(&mut self, now: Now) {
        let has_more = self.unread || self.reading || !self.kept_waiting.is_empty();
        self.spooling &= has_more || !self.appending.is_empty();
        self.spooling |= self.is_behind(now);
    }

    fn is_behind(&self, now: Now) -> bool {
        let oldest = self.unkept.first().and_then(|ticket| self.packs.get(ticket));
        self.bytes > self.limits.queue_bytes_max
            || oldest.is_some_and(|entry| now.ms.saturating_sub(entry.since_ms) >= self.limits.spool_after_ms)
    }

    /// Gives one group to the spool at a time: what is not in it, in order.
    pub(super) fn keep_some(&mut self, now: Now, actions: &mut Vec<Action<P, W>>) {
        if !self.spooling || !self.appending.is_empty() || now.ms < self.spool_again_ms {
            return;
        }
        let (mut bytes, mut group) = (0, Vec::new());
        for ticket in &self.unkept {
            let Some(entry) = self.packs.get(ticket) else { continue };
            bytes += entry.info.bytes;
            if !group.is_empty() && bytes > self.limits.group_bytes_max {
                break;
            }
            self.appending.push(*ticket);
            group.push((*ticket, entry.pack.clone()));
        }
        if !group.is_empty() {
            actions.push(Action::Keep(group));
        }
    }

    /// Reads on when the output has room.
    pub(super) fn read_some(&mut self, actions: &mut Vec<Action<P, W>>) {
        let has_room = self.storing_cost * 2 <= self.limits.storing_cost_max && self.kept_waiting.is_empty();
        if self.unread && !self.reading && has_room {
            self.reading = true;
            self.left_since_reading = false;
            actions.push(Action::Read(self.limits.group_bytes_max));
        }
    }
}
