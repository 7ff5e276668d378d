//! Decides what becomes of each pack: accepted in stream order, held behind a gap, a duplicate, a conflict, or
//! told to come again. Pure: takes packs and the time, gives back actions; no I/O, no clock, no threads.
//!
//! Two layers are judged together: the footprint of what is committed (durable), and the packs that were accepted
//! and are on their way through inflating and writing (pending). A pending pack leaves its layer by
//! [`Order::committed`], [`Order::rejected`] or [`Order::refused`], never otherwise, so that what was accepted
//! is written in the order of acceptance whatever fails in between.

use logferry_footprint::{Footprint, Verdict};
use logferry_link::Answer;
use logferry_pack::{Pack, PackIdentity, StreamId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// When a pack that overlaps a pending one is to be sent again: it is judged once that one is durable.
const RETRY_OVERLAP_MS: u64 = 500;
/// When a pack is to be sent again that found no room among the held.
const RETRY_NO_ROOM_MS: u64 = 500;
/// When a held pack is to be sent again that waited as long as a sender may be left without an answer.
const RETRY_HELD_MS: u64 = 500;
/// How long the start of a gap is remembered when its packs were told to come again and do not.
const GAP_REMEMBERED_MS: u64 = 3_600_000;

/// What bounds the waiting behind gaps.
#[derive(Clone, Copy, Debug)]
pub struct OrderLimits {
    /// How long a gap is waited for, in milliseconds.
    pub reorder_wait_ms: u64,
    /// How long a held pack is left without an answer, in milliseconds.
    pub hold_answer_ms: u64,
    /// Compressed bytes held.
    pub hold_bytes_max: u64,
}

/// A pack with what is needed to judge and to write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Path of the log file below the folder.
    pub path: String,
    /// The pack.
    pub pack: Pack,
}

/// Names an accepted pack until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Number in the order of acceptance, from 0 without holes.
    pub seq: u64,
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// The pack was accepted although bytes before it are missing: where they begin.
    pub hole_from: Option<u64>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action<W> {
    /// To be inflated and written, in the order of `seq`.
    Write(Accepted, Parcel),
    /// To be answered.
    Answer(W, Answer),
}

/// Numbers for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderFigures {
    /// Packs accepted and not settled.
    pub pending_packs: u64,
    /// Their compressed bytes.
    pub pending_bytes: u64,
    /// Packs held behind gaps.
    pub held_packs: u64,
    /// Their compressed bytes.
    pub held_bytes: u64,
    /// Streams in the footprint.
    pub streams: u64,
}

/// The deciding core. `W` is whoever waits for an answer.
pub struct Order<W> {
    limits: OrderLimits,
    footprint: Footprint,
    streams: HashMap<StreamId, StreamOrder<W>>,
    /// Streams that have held packs.
    holding: BTreeSet<StreamId>,
    figures: OrderFigures,
    next_seq: u64,
    /// The output cannot be written: nothing new is accepted, and everybody is told to come again after this time.
    failing_retry_ms: Option<u64>,
    /// Nothing is held any more.
    stopping: bool,
}

struct StreamOrder<W> {
    /// By offset and span. Ranges do not overlap.
    pending: BTreeMap<(u64, u64), Pending<W>>,
    /// By offset, span and sum.
    held: BTreeMap<(u64, u64, u32), Held<W>>,
    /// When the first pack behind the present gap came, in milliseconds.
    gap_since_ms: Option<u64>,
}

struct Pending<W> {
    accepted: Accepted,
    body_bytes: u64,
    waiters: Vec<W>,
}

struct Held<W> {
    parcel: Parcel,
    waiters: Vec<W>,
    since_ms: u64,
}

/// How a pack stands to what is committed and pending.
enum View {
    Next,
    Gap { frontier: u64 },
    PendingSame,
    PendingOverlap,
    Settled(Answer),
}

impl<W> Order<W> {
    /// Begins with what is durable.
    pub fn new(limits: OrderLimits, footprint: Footprint) -> Order<W> {
        Order {
            limits,
            footprint,
            streams: HashMap::new(),
            holding: BTreeSet::new(),
            figures: OrderFigures::default(),
            next_seq: 0,
            failing_retry_ms: None,
            stopping: false,
        }
    }

    /// A pack came in.
    pub fn offered(&mut self, now_ms: u64, parcel: Parcel, waiter: W) -> Vec<Action<W>> {
        let mut actions = Vec::with_capacity(1);
        let stream = parcel.identity.stream;
        if self.holding.contains(&stream) {
            self.release_overdue(now_ms, stream, &mut actions);
        }
        self.judge(now_ms, parcel, vec![waiter], &mut actions);
        self.tidy(stream);
        actions
    }

    /// Time went by: gaps that were waited for long enough are passed over, and packs that waited long enough for an answer get one.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        for stream in self.holding.clone() {
            self.release_overdue(now_ms, stream, &mut actions);
            self.answer_long_held(now_ms, stream, &mut actions);
            self.tidy(stream);
        }
        actions
    }

    /// When [`Order::tick`] is due, if at all.
    pub fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let step_ms = (self.limits.reorder_wait_ms / 10).clamp(2, 250);
        (!self.holding.is_empty()).then_some(now_ms + step_ms)
    }

    /// Packs are durable.
    pub fn committed(&mut self, packs: &[Accepted], now_unix: u64) -> Vec<Action<W>> {
        let mut actions = Vec::with_capacity(packs.len());
        for pack in packs {
            let Some(pending) = self.take_pending(pack) else { continue };
            self.footprint.insert(&pack.identity, pack.first, now_unix);
            let mut waiters = pending.waiters.into_iter();
            actions.extend(waiters.next().map(|waiter| Action::Answer(waiter, Answer::Ok)));
            actions.extend(waiters.map(|waiter| Action::Answer(waiter, Answer::Duplicate)));
        }
        self.figures.streams = self.footprint.streams() as u64;
        actions
    }

    /// A pack was found whole in a file that could not be read before. What is pending of its range is settled with it: it
    /// must not be written again.
    pub fn found_written(&mut self, identity: &PackIdentity, first: u64, now_unix: u64) -> Vec<Action<W>> {
        if self.footprint.judge(identity, first) != Verdict::Duplicate {
            self.footprint.insert(identity, first, now_unix);
        }
        self.figures.streams = self.footprint.streams() as u64;
        let Some(state) = self.streams.get(&identity.stream) else { return Vec::new() };
        let pending = state.pending.values().map(|pending| pending.accepted);
        let overlap = pending
            .filter(|pack| pack.identity.offset < identity.end() && identity.offset < pack.identity.end());
        let mut actions = Vec::new();
        for pack in overlap.collect::<Vec<_>>() {
            let is_same = pack.identity == *identity;
            let answer =
                if is_same { Answer::Duplicate } else { Answer::Busy { retry_ms: RETRY_OVERLAP_MS } };
            answer_all(
                self.take_pending(&pack).map_or_else(Vec::new, |pending| pending.waiters),
                &answer,
                &mut actions,
            );
        }
        actions
    }

    /// A pack is no good: its body does not inflate to what its header says, or it has no place in the folder. What was
    /// accepted behind it goes on, over the hole.
    pub fn rejected(&mut self, pack: &Accepted, reason: &str) -> Vec<Action<W>> {
        let Some(pending) = self.take_pending(pack) else { return Vec::new() };
        let answer = Answer::Rejected { reason: reason.to_owned() };
        pending.waiters.into_iter().map(|waiter| Action::Answer(waiter, answer.clone())).collect()
    }

    /// A pack's file cannot be opened now: it and what was accepted of its stream behind it are to be sent again.
    pub fn refused(&mut self, pack: &Accepted, retry_ms: u64) -> Vec<Action<W>> {
        let Some(state) = self.streams.get(&pack.identity.stream) else { return Vec::new() };
        let behind: Vec<Accepted> = state
            .pending
            .values()
            .map(|pending| pending.accepted)
            .filter(|other| other.seq >= pack.seq)
            .collect();
        let taken: Vec<_> = behind.iter().filter_map(|accepted| self.take_pending(accepted)).collect();
        taken
            .into_iter()
            .flat_map(|pending| pending.waiters)
            .map(|waiter| Action::Answer(waiter, Answer::Busy { retry_ms }))
            .collect()
    }

    /// Whether an accepted pack is still to be written.
    pub fn is_pending(&self, pack: &Accepted) -> bool {
        let state = self.streams.get(&pack.identity.stream);
        let pending = state.and_then(|state| state.pending.get(&(pack.identity.offset, pack.identity.span)));
        pending.is_some_and(|pending| pending.accepted.seq == pack.seq)
    }

    /// Writing fails. What was accepted is kept and written when that is possible again; all who wait are told to come
    /// again, and so is everyone until [`Order::healed`].
    pub fn failing(&mut self, retry_ms: u64) -> Vec<Action<W>> {
        self.failing_retry_ms = Some(retry_ms);
        let mut waiters = self.drain_held();
        for state in self.streams.values_mut() {
            waiters.extend(state.pending.values_mut().flat_map(|pending| pending.waiters.drain(..)));
        }
        waiters.into_iter().map(|waiter| Action::Answer(waiter, Answer::Busy { retry_ms })).collect()
    }

    /// Writing works again.
    pub fn healed(&mut self) {
        self.failing_retry_ms = None;
    }

    /// The program stops: held packs are given up, unanswered, and none is held any more.
    pub fn stop(&mut self) -> Vec<W> {
        self.stopping = true;
        self.drain_held()
    }

    /// What is committed.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Forgets streams whose last pack is older than `keep_secs`, and gaps whose packs never came again.
    pub fn expire(&mut self, now_ms: u64, now_unix: u64, keep_secs: u64) -> usize {
        self.streams.retain(|_, state| {
            let idle = state.pending.is_empty() && state.held.is_empty();
            !idle || state.gap_since_ms.is_some_and(|since| now_ms.saturating_sub(since) < GAP_REMEMBERED_MS)
        });
        let forgotten = self.footprint.expire(now_unix, keep_secs);
        self.figures.streams = self.footprint.streams() as u64;
        forgotten
    }

    /// Numbers for the status.
    pub fn figures(&self) -> OrderFigures {
        self.figures
    }

    /// Judges a pack and, once it is accepted, the held packs that follow it.
    fn judge(&mut self, now_ms: u64, parcel: Parcel, waiters: Vec<W>, actions: &mut Vec<Action<W>>) {
        let stream = parcel.identity.stream;
        if let Some(end) = self.judge_one(now_ms, parcel, waiters, actions) {
            self.follow(now_ms, stream, end, actions);
        }
    }

    /// Judges the held packs again that begin at `end`, where an accepted one ends. A loop, not a recursion: the run of held
    /// packs can be long.
    fn follow(&mut self, now_ms: u64, stream: StreamId, mut end: u64, actions: &mut Vec<Action<W>>) {
        while let Some(held) = self.take_held_at(stream, end) {
            end = self.judge_one(now_ms, held.parcel, held.waiters, actions).unwrap_or(end);
        }
    }

    /// Returns the end of the pack's range if it was accepted.
    fn judge_one(
        &mut self,
        now_ms: u64,
        parcel: Parcel,
        waiters: Vec<W>,
        actions: &mut Vec<Action<W>>,
    ) -> Option<u64> {
        let identity = parcel.identity;
        match (self.view(&identity, parcel.first), self.failing_retry_ms) {
            (View::Settled(answer), _) => answer_all(waiters, &answer, actions),
            (_, Some(retry_ms)) => answer_all(waiters, &Answer::Busy { retry_ms }, actions),
            (View::PendingSame, None) => self.attach(&identity, waiters),
            (View::PendingOverlap, None) => {
                answer_all(waiters, &Answer::Busy { retry_ms: RETRY_OVERLAP_MS }, actions);
            }
            (View::Next, None) => return Some(self.accept(parcel, waiters, None, actions)),
            (View::Gap { frontier }, None) if self.is_waited_for(now_ms, identity.stream) => {
                return Some(self.accept(parcel, waiters, Some(frontier), actions));
            }
            (View::Gap { .. }, None) => self.hold(now_ms, parcel, waiters, actions),
        }
        None
    }

    fn view(&self, identity: &PackIdentity, first: u64) -> View {
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
        match self.footprint.judge(identity, first) {
            Verdict::Next => View::Next,
            Verdict::Duplicate => View::Settled(Answer::Duplicate),
            Verdict::Conflict(remembered) => View::Settled(Answer::Conflict(remembered)),
            Verdict::Gap { frontier } => {
                let follows_pending = state.is_some_and(|state| state.pending_ends_at(identity.offset));
                if follows_pending || self.is_seen_before(identity) {
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

    fn accept(
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

    /// Whether the stream's present gap was waited for long enough, and nothing held comes first.
    fn is_waited_for(&self, now_ms: u64, stream: StreamId) -> bool {
        let Some(state) = self.streams.get(&stream) else { return self.limits.reorder_wait_ms == 0 };
        state.is_overdue(now_ms, &self.limits) && state.held.is_empty()
    }

    fn hold(&mut self, now_ms: u64, parcel: Parcel, waiters: Vec<W>, actions: &mut Vec<Action<W>>) {
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
            return;
        }
        self.figures.held_packs += 1;
        self.figures.held_bytes += bytes;
        state.held.insert(key, Held { parcel, waiters, since_ms: now_ms });
        self.holding.insert(identity.stream);
    }

    /// Passes over gaps of a stream that were waited for long enough, from the lowest offset on.
    fn release_overdue(&mut self, now_ms: u64, stream: StreamId, actions: &mut Vec<Action<W>>) {
        while let Some(state) = self.streams.get(&stream) {
            let (true, Some(&(offset, ..))) =
                (state.is_overdue(now_ms, &self.limits), state.held.keys().next())
            else {
                return;
            };
            let Some(held) = self.take_held_at(stream, offset) else { return };
            let (identity, first) = (held.parcel.identity, held.parcel.first);
            let hole_from = match self.view(&identity, first) {
                View::Gap { frontier } if self.failing_retry_ms.is_none() => frontier,
                _ => {
                    self.judge(now_ms, held.parcel, held.waiters, actions);
                    continue;
                }
            };
            let end = self.accept(held.parcel, held.waiters, Some(hole_from), actions);
            self.follow(now_ms, stream, end, actions);
        }
    }

    fn answer_long_held(&mut self, now_ms: u64, stream: StreamId, actions: &mut Vec<Action<W>>) {
        let Some(state) = self.streams.get(&stream) else { return };
        let is_long = |held: &Held<W>| now_ms.saturating_sub(held.since_ms) >= self.limits.hold_answer_ms;
        let keys: Vec<_> = state.held.iter().filter(|(_, held)| is_long(held)).map(|(key, _)| *key).collect();
        for held in keys.into_iter().filter_map(|key| self.take_held(stream, key)).collect::<Vec<_>>() {
            answer_all(held.waiters, &Answer::Busy { retry_ms: RETRY_HELD_MS }, actions);
        }
    }

    fn take_held_at(&mut self, stream: StreamId, offset: u64) -> Option<Held<W>> {
        let state = self.streams.get(&stream)?;
        let (&key, _) = state.held.range((offset, 0, 0)..).next().filter(|(key, _)| key.0 == offset)?;
        self.take_held(stream, key)
    }

    fn take_held(&mut self, stream: StreamId, key: (u64, u64, u32)) -> Option<Held<W>> {
        let state = self.streams.get_mut(&stream)?;
        let held = state.held.remove(&key)?;
        self.figures.held_packs -= 1;
        self.figures.held_bytes -= held.parcel.pack.body.len() as u64;
        if state.held.is_empty() {
            self.holding.remove(&stream);
        }
        Some(held)
    }

    fn drain_held(&mut self) -> Vec<W> {
        let mut waiters = Vec::new();
        for stream in std::mem::take(&mut self.holding) {
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            waiters.extend(std::mem::take(&mut state.held).into_values().flat_map(|held| held.waiters));
        }
        self.figures.held_packs = 0;
        self.figures.held_bytes = 0;
        waiters
    }

    fn take_pending(&mut self, pack: &Accepted) -> Option<Pending<W>> {
        if !self.is_pending(pack) {
            return None;
        }
        let state = self.streams.get_mut(&pack.identity.stream)?;
        let pending = state.pending.remove(&(pack.identity.offset, pack.identity.span))?;
        self.figures.pending_packs -= 1;
        self.figures.pending_bytes -= pending.body_bytes;
        self.tidy(pack.identity.stream);
        Some(pending)
    }

    fn tidy(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(StreamOrder::is_idle) {
            self.streams.remove(&stream);
        }
    }
}

impl<W> StreamOrder<W> {
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.held.is_empty() && self.gap_since_ms.is_none()
    }

    fn is_overdue(&self, now_ms: u64, limits: &OrderLimits) -> bool {
        self.gap_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= limits.reorder_wait_ms)
            || limits.reorder_wait_ms == 0
    }

    fn overlaps_pending(&self, identity: &PackIdentity) -> bool {
        let end = identity.end();
        // Ranges do not overlap each other, so only the last one that begins before `end` can reach in; packs
        // without a span lie between them.
        let mut before = self.pending.range(..(end, 0)).rev().filter(|((_, span), _)| *span > 0);
        before.next().is_some_and(|((offset, span), _)| offset.saturating_add(*span) > identity.offset)
    }

    fn pending_ends_at(&self, offset: u64) -> bool {
        let mut before = self.pending.range(..(offset, 0)).rev().filter(|((_, span), _)| *span > 0);
        before.next().is_some_and(|((from, span), _)| from.saturating_add(*span) == offset)
    }
}

impl<W> Default for StreamOrder<W> {
    fn default() -> Self {
        StreamOrder { pending: BTreeMap::new(), held: BTreeMap::new(), gap_since_ms: None }
    }
}

fn answer_all<W>(waiters: Vec<W>, answer: &Answer, actions: &mut Vec<Action<W>>) {
    actions.extend(waiters.into_iter().map(|waiter| Action::Answer(waiter, answer.clone())));
}
