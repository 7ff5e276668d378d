//! What becomes of one pack, and of the held ones that follow it.

use super::stream::{Held, Pending};
use super::{Accepted, Action, Order, Parcel, answer_all};
use logferry_footprint::Verdict;
use logferry_link::Answer;
use logferry_pack::{PackIdentity, StreamId};

/// When a pack that overlaps a pending one is to be sent again: it is judged once that one is durable.
pub(super) const RETRY_OVERLAP_MS: u64 = 500;

/// When a pack is to be sent again that the full footprint has no room for.
const RETRY_FULL_MS: u64 = 5_000;

/// How a pack stands to what is committed and pending.
pub(super) enum View {
    Next,
    Gap {
        frontier: u64,
    },
    PendingSame,
    PendingOverlap,
    /// The footprint is full, and the pack is of a stream or behind a gap that it does not know.
    NoRoom,
    /// A back-filled pack, parts of which are there already.
    Missing(Vec<(u64, u64)>),
    Settled(Answer),
}

impl<W> Order<W> {
    /// Judges a pack and, once it is accepted, the held packs that follow it.
    pub(super) fn judge(
        &mut self,
        now_ms: u64,
        parcel: Parcel,
        waiters: Vec<W>,
        actions: &mut Vec<Action<W>>,
    ) {
        let stream = parcel.identity.stream;
        if let Some(end) = self.judge_one(now_ms, parcel, waiters, actions) {
            self.follow(now_ms, stream, end, actions);
        }
    }

    /// Judges the held packs again that begin at `end`, where an accepted one ends. A loop, not a recursion: the run of held
    /// packs can be long.
    pub(super) fn follow(
        &mut self,
        now_ms: u64,
        stream: StreamId,
        mut end: u64,
        actions: &mut Vec<Action<W>>,
    ) {
        while let Some(next) = self.follow_at(now_ms, stream, end, actions).filter(|next| *next > end) {
            end = next;
        }
    }

    /// Judges each held pack that begins at an offset once: it may be held again, where only a pack without bytes is before it. Returns the
    /// end of the longest that was accepted.
    fn follow_at(
        &mut self,
        now_ms: u64,
        stream: StreamId,
        offset: u64,
        actions: &mut Vec<Action<W>>,
    ) -> Option<u64> {
        let keys = self.held_at(stream, offset);
        let held: Vec<Held<W>> = keys.into_iter().filter_map(|key| self.take_held(stream, key)).collect();
        let ends =
            held.into_iter().filter_map(|held| self.judge_one(now_ms, held.parcel, held.waiters, actions));
        ends.max()
    }

    /// Returns the end of the pack's range if it was accepted.
    fn judge_one(
        &mut self,
        now_ms: u64,
        mut parcel: Parcel,
        waiters: Vec<W>,
        actions: &mut Vec<Action<W>>,
    ) -> Option<u64> {
        let identity = parcel.identity;
        match (self.view(&parcel), self.writing.retry_ms()) {
            (View::Settled(answer), _) => answer_all(waiters, &answer, actions),
            (View::Next, Some(_)) if self.takes_without_room(&parcel) => {
                return Some(self.accept(parcel, waiters, None, actions));
            }
            (_, Some(retry_ms)) => answer_all(waiters, &Answer::Busy { retry_ms }, actions),
            (View::PendingSame, None) => self.attach(&identity, waiters),
            (View::PendingOverlap, None) => {
                answer_all(waiters, &Answer::Busy { retry_ms: RETRY_OVERLAP_MS }, actions);
            }
            (View::NoRoom, None) => {
                answer_all(waiters, &Answer::Busy { retry_ms: RETRY_FULL_MS }, actions);
            }
            (View::Missing(ranges), None) => {
                parcel.trimmed_to = ranges;
                return Some(self.accept(parcel, waiters, None, actions));
            }
            (View::Next, None) => return Some(self.accept(parcel, waiters, None, actions)),
            (View::Gap { frontier }, None) if self.is_waited_for(now_ms, identity.stream) => {
                return Some(self.accept(parcel, waiters, Some(frontier), actions));
            }
            (View::Gap { .. }, None) => self.hold(now_ms, parcel, waiters, actions),
        }
        None
    }

    pub(super) fn view(&self, parcel: &Parcel) -> View {
        let (identity, first) = (&parcel.identity, parcel.first);
        let state = self.streams.get(&identity.stream);
        if let Some(state) = state {
            let same = state.pending.get(&(identity.offset, identity.span));
            if same.is_some_and(|pending| pending.accepted.identity == *identity) {
                // Packs without bytes may be alike and yet say different things: the second waits for the first.
                return if identity.span == 0 { View::PendingOverlap } else { View::PendingSame };
            }
            if state.overlaps_pending(identity) {
                return View::PendingOverlap;
            }
        }
        let verdict = self.footprint.judge(identity, first);
        if matches!(verdict, Verdict::Next | Verdict::Gap { .. }) && !self.footprint.has_room_for(identity) {
            return View::NoRoom;
        }
        match verdict {
            Verdict::Next => View::Next,
            Verdict::Duplicate => View::Settled(Answer::Duplicate),
            Verdict::Conflict(remembered) if parcel.pack.header.repull => {
                match self.footprint.missing(identity) {
                    none if none.is_empty() => View::Settled(Answer::Duplicate),
                    ranges if parcel.can_be_trimmed() => View::Missing(ranges),
                    // What is filtered can be parted only by who has the lines.
                    _ => View::Settled(Answer::Conflict(remembered)),
                }
            }
            Verdict::Conflict(remembered) => View::Settled(Answer::Conflict(remembered)),
            Verdict::Gap { frontier } => {
                let follows_pending = state.is_some_and(|state| state.pending_ends_at(identity.offset));
                if follows_pending || self.is_seen_before(identity) || parcel.is_back_filled() {
                    View::Next
                } else {
                    View::Gap { frontier }
                }
            }
        }
    }

    /// Whether the byte just before the pack is committed: the stream has a hole further back that was
    /// waited for already, and waiting for it again with every pack would only slow the stream down.
    fn is_seen_before(&self, identity: &PackIdentity) -> bool {
        let before = identity.offset.checked_sub(1);
        before.is_some_and(|offset| self.footprint.has_seen(identity.stream, offset, 1))
    }

    fn attach(&mut self, identity: &PackIdentity, waiters: Vec<W>) {
        let state = self.streams.get_mut(&identity.stream);
        if let Some(pending) =
            state.and_then(|state| state.pending.get_mut(&(identity.offset, identity.span)))
        {
            pending.waiters.extend(waiters);
        }
    }

    pub(super) fn accept(
        &mut self,
        parcel: Parcel,
        waiters: Vec<W>,
        hole_from: Option<u64>,
        actions: &mut Vec<Action<W>>,
    ) -> u64 {
        let identity = parcel.identity;
        let accepted = Accepted { seq: self.next_seq, identity, first: parcel.first, hole_from };
        self.next_seq += 1;
        let body_bytes = parcel.pack.body.len() as u64;
        self.figures.pending_packs += 1;
        self.figures.pending_bytes += body_bytes;
        let state = self.streams.entry(identity.stream).or_default();
        state.pending.insert((identity.offset, identity.span), Pending { accepted, body_bytes, waiters });
        state.gap_since_ms = state.held.values().map(|held| held.since_ms).min();
        actions.push(Action::Write(accepted, parcel));
        identity.end()
    }
}
