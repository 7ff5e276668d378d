//! Packs behind a gap: held until it closes or was waited for long enough.

use super::judge::{RETRY_OVERLAP_MS, View};
use super::stream::Held;
use super::{Action, GAPS_REMEMBERED_MAX, Order, Parcel, answer_all};
use logferry_link::Answer;
use logferry_pack::StreamId;

/// When a pack is to be sent again that found no room among the held.
const RETRY_NO_ROOM_MS: u64 = 500;
/// When a held pack is to be sent again that waited as long as a sender may be left without an answer.
const RETRY_HELD_MS: u64 = 500;

impl<W> Order<W> {
    /// Whether the stream's present gap was waited for long enough, and nothing held comes first.
    pub(super) fn is_waited_for(&self, now_ms: u64, stream: StreamId) -> bool {
        let Some(state) = self.streams.get(&stream) else { return self.limits.reorder_wait_ms == 0 };
        state.is_overdue(now_ms, &self.limits) && state.held.is_empty()
    }

    pub(super) fn hold(
        &mut self,
        now_ms: u64,
        parcel: Parcel,
        waiters: Vec<W>,
        actions: &mut Vec<Action<W>>,
    ) {
        if self.stopping {
            return;
        }
        let identity = parcel.identity;
        let state = self.streams.entry(identity.stream).or_default();
        state.gap_since_ms.get_or_insert(now_ms);
        let key = (identity.offset, identity.span, identity.sum);
        if let Some(held) = state.held.get_mut(&key) {
            if identity.span == 0 {
                answer_all(waiters, &Answer::Busy { retry_ms: RETRY_OVERLAP_MS }, actions);
            } else {
                held.waiters.extend(waiters);
            }
            return;
        }
        let bytes = parcel.pack.body.len() as u64;
        if self.figures.held_bytes + bytes > self.limits.hold_bytes_max {
            answer_all(waiters, &Answer::Busy { retry_ms: RETRY_NO_ROOM_MS }, actions);
            if state.pending.is_empty() && state.held.is_empty() && self.streams.len() > GAPS_REMEMBERED_MAX {
                self.streams.remove(&identity.stream);
            }
            return;
        }
        self.figures.held_packs += 1;
        self.figures.held_bytes += bytes;
        state.held.insert(key, Held { parcel, waiters, since_ms: now_ms });
        self.holding.insert(identity.stream);
    }

    /// Passes over gaps of a stream that were waited for long enough, from the lowest offset on.
    pub(super) fn release_overdue(&mut self, now_ms: u64, stream: StreamId, actions: &mut Vec<Action<W>>) {
        while let Some(state) = self.streams.get(&stream) {
            let (true, Some(&first)) = (state.is_overdue(now_ms, &self.limits), state.held.keys().next())
            else {
                return;
            };
            let Some(held) = self.take_held(stream, first) else { return };
            let hole_from = match self.view(&held.parcel) {
                View::Gap { frontier } if !self.is_failing() => frontier,
                _ => {
                    self.judge(now_ms, held.parcel, held.waiters, actions);
                    continue;
                }
            };
            let end = self.accept(held.parcel, held.waiters, Some(hole_from), actions);
            self.follow(now_ms, stream, end, actions);
        }
    }

    pub(super) fn answer_long_held(&mut self, now_ms: u64, stream: StreamId, actions: &mut Vec<Action<W>>) {
        let Some(state) = self.streams.get(&stream) else { return };
        let is_long = |held: &Held<W>| now_ms.saturating_sub(held.since_ms) >= self.limits.hold_answer_ms;
        let keys: Vec<_> = state.held.iter().filter(|(_, held)| is_long(held)).map(|(key, _)| *key).collect();
        for held in keys.into_iter().filter_map(|key| self.take_held(stream, key)).collect::<Vec<_>>() {
            answer_all(held.waiters, &Answer::Busy { retry_ms: RETRY_HELD_MS }, actions);
        }
    }

    /// The keys of the held packs that begin at an offset, those without bytes first.
    pub(super) fn held_at(&self, stream: StreamId, offset: u64) -> Vec<(u64, u64, u32)> {
        let Some(state) = self.streams.get(&stream) else { return Vec::new() };
        let from = state.held.range((offset, 0, 0)..).map(|(key, _)| *key);
        from.take_while(|key| key.0 == offset).collect()
    }

    pub(super) fn take_held(&mut self, stream: StreamId, key: (u64, u64, u32)) -> Option<Held<W>> {
        let state = self.streams.get_mut(&stream)?;
        let held = state.held.remove(&key)?;
        self.figures.held_packs -= 1;
        self.figures.held_bytes -= held.parcel.pack.body.len() as u64;
        if state.held.is_empty() {
            self.holding.remove(&stream);
        }
        Some(held)
    }

    pub(super) fn drain_held(&mut self) -> Vec<W> {
        let mut waiters = Vec::new();
        for stream in std::mem::take(&mut self.holding) {
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            waiters.extend(std::mem::take(&mut state.held).into_values().flat_map(|held| held.waiters));
        }
        self.figures.held_packs = 0;
        self.figures.held_bytes = 0;
        waiters
    }
}
