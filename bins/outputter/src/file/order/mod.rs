//! Decides what becomes of each pack: accepted in stream order, held behind a gap, a duplicate, a conflict, or
//! told to come again. Pure: takes packs and the time, gives back actions; no I/O, no clock, no threads.
//!
//! Two layers are judged together: the footprint of what is committed (durable), and the packs that were accepted
//! and are on their way through inflating and writing (pending). A pending pack leaves its layer by
//! [`Order::committed`], [`Order::rejected`] or [`Order::refused`], never otherwise, so that what was accepted
//! is written in the order of acceptance whatever fails in between.

mod hold;
mod judge;
mod stream;

use judge::View;
use logferry_footprint::{Footprint, Verdict};
use logferry_link::Answer;
use logferry_pack::{Ours, Pack, PackIdentity, StreamId};
use std::collections::{BTreeSet, HashMap};
use stream::{Pending, StreamOrder};

/// Streams whose gap is remembered without a pack of theirs being held. Beyond, the wait begins again with each pack.
const GAPS_REMEMBERED_MAX: usize = 65_536;
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
    /// Stream ranges `(from, to)` of it that are to be written; empty: all of it.
    pub trimmed_to: Vec<(u64, u64)>,
    /// It is of a replacement: the path of the file that is to be replaced. `path` is where that is written aside.
    pub replaces: Option<String>,
}

impl Parcel {
    /// Whether it was asked for again. What is before it was asked for too, or is not wanted: nobody waits for it. A pack without lines
    /// has the same mark and does wait: what it counts is before it.
    fn is_back_filled(&self) -> bool {
        self.pack.header.repull && self.identity.span > 0 && self.replaces.is_none()
    }

    /// Whether parts of it may be written without the rest: of a back-filled pack whose body is all the bytes of its range.
    fn can_be_trimmed(&self) -> bool {
        let header = &self.pack.header;
        header.repull && header.ours.as_ref().is_some_and(Ours::is_verbatim)
    }
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

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Everything.
    Works,
    /// Nothing.
    Fails {
        /// When everybody is to come again, in milliseconds.
        retry_ms: u64,
    },
    /// Only what needs no room.
    WithoutRoom {
        /// When everybody else is to come again, in milliseconds.
        retry_ms: u64,
    },
}

impl Writing {
    /// When those are to come again who are not taken now.
    fn retry_ms(self) -> Option<u64> {
        match self {
            Writing::Works => None,
            Writing::Fails { retry_ms } | Writing::WithoutRoom { retry_ms } => Some(retry_ms),
        }
    }
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
    /// Memory of the footprint, in bytes.
    pub footprint_bytes: u64,
    /// Identities of packs that it forgot for want of memory.
    pub packs_forgotten: u64,
    /// It has no room for new streams.
    pub footprint_is_full: bool,
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
    writing: Writing,
    /// Nothing is held any more.
    stopping: bool,
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
            writing: Writing::Works,
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

    /// A pack that was judged before it was kept elsewhere comes once more. What is before it is not waited for, and what is written of
    /// it, all under other identities, was written since.
    pub fn replayed(&mut self, now_ms: u64, parcel: Parcel, waiter: W) -> Vec<Action<W>> {
        let mut actions = Vec::with_capacity(1);
        match self.view(&parcel) {
            View::Gap { frontier } if !self.is_failing() => {
                self.accept(parcel, vec![waiter], Some(frontier), &mut actions);
            }
            View::Settled(Answer::Conflict(_)) if self.footprint.missing(&parcel.identity).is_empty() => {
                actions.push(Action::Answer(waiter, Answer::Duplicate));
            }
            _ => self.judge(now_ms, parcel, vec![waiter], &mut actions),
        }
        actions
    }

    /// Whether packs are not accepted, because writing fails.
    pub fn is_failing(&self) -> bool {
        self.writing != Writing::Works
    }

    /// What can be written.
    pub fn writing(&self) -> Writing {
        self.writing
    }

    /// Whether a pack that was accepted and is not written yet overlaps this one, and is another.
    pub fn is_overlapped(&self, identity: &PackIdentity) -> bool {
        let Some(state) = self.streams.get(&identity.stream) else { return false };
        let same = state.pending.get(&(identity.offset, identity.span));
        let is_same = same.is_some_and(|pending| pending.accepted.identity == *identity);
        !is_same && state.overlaps_pending(identity)
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
        actions
    }

    /// A pack was found whole in a file that could not be read before. What is pending of its range is settled with it: it
    /// must not be written again.
    pub fn found_written(&mut self, identity: &PackIdentity, first: u64, now_unix: u64) -> Vec<Action<W>> {
        if self.footprint.judge(identity, first) != Verdict::Duplicate {
            self.footprint.insert(identity, first, now_unix);
        }
        let Some(state) = self.streams.get(&identity.stream) else { return Vec::new() };
        let pending = state.pending.values().map(|pending| pending.accepted);
        let overlap = pending
            .filter(|pack| pack.identity.offset < identity.end() && identity.offset < pack.identity.end());
        let mut actions = Vec::new();
        for pack in overlap.collect::<Vec<_>>() {
            let is_same = pack.identity == *identity;
            let answer =
                if is_same { Answer::Duplicate } else { Answer::Busy { retry_ms: judge::RETRY_OVERLAP_MS } };
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

    /// A pack's file cannot be opened now: it and what was accepted of its stream behind it, or is held, are to be sent again.
    pub fn refused(&mut self, pack: &Accepted, retry_ms: u64) -> Vec<Action<W>> {
        let Some(state) = self.streams.get(&pack.identity.stream) else { return Vec::new() };
        let behind: Vec<Accepted> = state
            .pending
            .values()
            .map(|pending| pending.accepted)
            .filter(|other| other.seq >= pack.seq)
            .collect();
        let held: Vec<_> = state.held.keys().copied().collect();
        let stream = pack.identity.stream;
        let mut waiters = Vec::new();
        for accepted in &behind {
            waiters.extend(self.take_pending(accepted).into_iter().flat_map(|pending| pending.waiters));
        }
        for key in held {
            waiters.extend(self.take_held(stream, key).into_iter().flat_map(|held| held.waiters));
        }
        self.tidy(stream);
        waiters.into_iter().map(|waiter| Action::Answer(waiter, Answer::Busy { retry_ms })).collect()
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
        self.writing = Writing::Fails { retry_ms };
        let mut waiters = self.drain_held();
        for state in self.streams.values_mut() {
            waiters.extend(state.pending.values_mut().flat_map(|pending| pending.waiters.drain(..)));
        }
        waiters.into_iter().map(|waiter| Action::Answer(waiter, Answer::Busy { retry_ms })).collect()
    }

    /// The same, but for packs without bytes that are next in their stream: they are accepted. They complete hours, and only complete hours
    /// may be removed to make room.
    pub fn without_room(&mut self, retry_ms: u64) -> Vec<Action<W>> {
        let actions = self.failing(retry_ms);
        self.writing = Writing::WithoutRoom { retry_ms };
        actions
    }

    /// Whether a pack is accepted although there is no room.
    pub fn takes_without_room(&self, parcel: &Parcel) -> bool {
        matches!(self.writing, Writing::WithoutRoom { .. })
            && parcel.identity.span == 0
            && parcel.replaces.is_none()
            && matches!(self.view(parcel), View::Next)
    }

    /// Writing works again.
    pub fn healed(&mut self) {
        self.writing = Writing::Works;
    }

    /// The files could be read at last: this is what is durable.
    pub fn recovered(&mut self, footprint: Footprint) {
        self.footprint = footprint;
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
        self.footprint.expire(now_unix, keep_secs)
    }

    /// Numbers for the status.
    pub fn figures(&self) -> OrderFigures {
        OrderFigures {
            streams: self.footprint.streams() as u64,
            footprint_bytes: self.footprint.memory_bytes() as u64,
            packs_forgotten: self.footprint.forgotten().packs,
            footprint_is_full: self.footprint.is_full(),
            ..self.figures
        }
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

fn answer_all<W>(waiters: Vec<W>, answer: &Answer, actions: &mut Vec<Action<W>>) {
    actions.extend(waiters.into_iter().map(|waiter| Action::Answer(waiter, answer.clone())));
}
