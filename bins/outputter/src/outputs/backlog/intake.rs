//! Packs that come in, and answers that are due.

use super::entry::{Entry, Overlap, PackInfo, Stage};
use super::{Action, Backlog, MissingPack, Now, Ticket};
use logferry_footprint::Verdict;
use logferry_link::Answer;
use logferry_pack::PackIdentity;
use std::collections::BTreeSet;

/// When a pack is to be sent again that overlaps one in memory.
const RETRY_OVERLAP_MS: u64 = 500;
/// When a pack is to be sent again for which there is no room.
const RETRY_NO_ROOM_MS: u64 = 1_500;

/// How long a pack waits for one before it.
const GAP_MS_MAX: u64 = 20_000;

/// How a pack stands to those in memory.
enum Beside {
    Nothing,
    Same(Ticket),
    Overlap,
}

impl<P: Clone, W> Backlog<P, W> {
    /// A pack came in.
    pub fn offered(&mut self, now: Now, info: PackInfo, pack: P, waiter: W) -> Vec<Action<P, W>> {
        let mut actions = Vec::with_capacity(2);
        if let Some(answer) = self.judge(&info) {
            actions.push(Action::Answer(waiter, answer));
            return actions;
        }
        let beside = self.beside(&info.identity);
        if matches!(beside, Beside::Nothing) && self.must_wait_for_others(now, &info) {
            actions.push(Action::Answer(waiter, Answer::Busy { retry_ms: RETRY_OVERLAP_MS }));
            return actions;
        }
        match beside {
            Beside::Overlap => {
                actions.push(Action::Answer(waiter, Answer::Busy { retry_ms: RETRY_OVERLAP_MS }));
            }
            Beside::Same(ticket) => self.attach(ticket, waiter),
            Beside::Nothing if self.is_full(&info) => {
                // Those behind it are not to overtake it.
                let frontier = match self.taken.judge(&info.identity, info.first) {
                    Verdict::Gap { frontier } => frontier,
                    _ => info.identity.offset,
                };
                self.gaps.insert(info.identity.stream, MissingPack { frontier, since_ms: now.ms });
                actions.push(Action::Answer(waiter, Answer::Busy { retry_ms: RETRY_NO_ROOM_MS }));
            }
            Beside::Nothing => {
                self.insert(Entry {
                    info,
                    pack,
                    waiters: vec![waiter],
                    record: None,
                    copies: Vec::new(),
                    stage: Stage::Waiting,
                    since_ms: now.ms,
                });
                self.advance(now, &mut actions);
            }
        }
        actions
    }

    /// Where order matters a pack does not overtake what is before it in its stream and was told to come again; but for ever nothing
    /// is waited for: it may be gone.
    fn must_wait_for_others(&mut self, now: Now, info: &PackInfo) -> bool {
        let PackIdentity { stream, offset, .. } = info.identity;
        let follows =
            |ticket: &Ticket| self.packs.get(ticket).is_some_and(|entry| entry.info.identity.end() == offset);
        let before = self.by_place.range((stream, 0)..(stream, offset)).next_back();
        let Verdict::Gap { frontier } = self.taken.judge(&info.identity, info.first) else { return false };
        let is_known = offset.checked_sub(1).is_some_and(|last| self.taken.has_seen(stream, last, 1));
        if !self.limits.in_order || is_known || before.is_some_and(|(_, ticket)| follows(ticket)) {
            return false;
        }
        let missing = self.gaps.entry(stream).or_insert(MissingPack { frontier, since_ms: now.ms });
        if missing.frontier != frontier {
            *missing = MissingPack { frontier, since_ms: now.ms };
        }
        let must_wait = now.ms.saturating_sub(missing.since_ms) < GAP_MS_MAX;
        if !must_wait {
            self.gaps.remove(&stream);
        }
        must_wait
    }

    /// The answer to a pack that need not be taken.
    fn judge(&self, info: &PackInfo) -> Option<Answer> {
        if self.stopping {
            return Some(Answer::Busy { retry_ms: RETRY_NO_ROOM_MS });
        }
        if info.identity.span == 0 {
            // It has no lines, so there is nothing to store.
            return Some(Answer::Ok);
        }
        match self.taken.judge(&info.identity, info.first) {
            Verdict::Duplicate => Some(Answer::Duplicate),
            Verdict::Conflict(remembered) => match info.overlap {
                Overlap::Duplicate if self.taken.missing(&info.identity).is_empty() => {
                    Some(Answer::Duplicate)
                }
                Overlap::Conflict | Overlap::Duplicate => Some(Answer::Conflict(remembered)),
                Overlap::Taken => None,
            },
            Verdict::Next | Verdict::Gap { .. } => None,
        }
    }

    fn beside(&self, identity: &PackIdentity) -> Beside {
        let place = (identity.stream, identity.offset);
        let ends_behind = |ticket: &Ticket| {
            self.packs.get(ticket).is_some_and(|entry| entry.info.identity.end() > identity.offset)
        };
        if let Some(ticket) = self.by_place.get(&place) {
            let same = self.packs.get(ticket).is_some_and(|entry| entry.info.identity == *identity);
            return if same { Beside::Same(*ticket) } else { Beside::Overlap };
        }
        let before = self.by_place.range((identity.stream, 0)..place).next_back();
        let behind = self.by_place.range(place..(identity.stream, identity.end())).next();
        let overlaps = before.is_some_and(|(_, ticket)| ends_behind(ticket)) || behind.is_some();
        if overlaps { Beside::Overlap } else { Beside::Nothing }
    }

    /// A pack that is kept is in the footprint of what is taken, so its waiter never comes here.
    fn attach(&mut self, ticket: Ticket, waiter: W) {
        if let Some(entry) = self.packs.get_mut(&ticket) {
            entry.waiters.push(waiter);
        }
    }

    /// Whether a pack must stay with its sender: packs gather in memory while the spool takes none.
    fn is_full(&self, info: &PackInfo) -> bool {
        self.spool_trouble.is_some() && self.bytes + info.bytes > self.limits.queue_bytes_max
    }

    /// Who waits for too long is told to come again; a pack that nothing happens to is left to its sender, and so are those behind it in
    /// its stream.
    pub(super) fn answer_overdue(&mut self, now: Now, actions: &mut Vec<Action<P, W>>) {
        let due_ms = self.limits.answer_ms_max;
        let (mut left, mut streams) = (Vec::new(), BTreeSet::new());
        for (ticket, entry) in &mut self.packs {
            let stream = entry.info.identity.stream;
            let is_idle =
                entry.stage == Stage::Waiting && entry.record.is_none() && !self.appending.contains(ticket);
            let is_overdue = !entry.waiters.is_empty() && now.ms.saturating_sub(entry.since_ms) >= due_ms;
            if !(is_overdue || is_idle && streams.contains(&stream)) {
                continue;
            }
            let busy = Answer::Busy { retry_ms: RETRY_NO_ROOM_MS };
            actions.extend(entry.waiters.drain(..).map(|waiter| Action::Answer(waiter, busy.clone())));
            if is_idle {
                left.push(*ticket);
                streams.insert(stream);
            } else {
                entry.since_ms = now.ms;
            }
        }
        for ticket in left {
            self.remove(ticket);
        }
        self.gaps.retain(|_, missing| now.ms.saturating_sub(missing.since_ms) < 2 * GAP_MS_MAX);
    }
}
