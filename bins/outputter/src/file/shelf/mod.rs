//! Packs that the file output cannot write now: kept in the spool, acknowledged from there, and written in their order when it can
//! again. Pure: takes events and the time, gives back actions; no I/O, no clock, no threads.
//!
//! ```text
//! the output fails, or the stream has packs here ─▶ judged ─▶ into the spool ─▶ answered
//!                                      read back in order ─▶ offered to the output again ─▶ written: gone from the spool
//! ```
//!
//! Whoever is told that a pack is safe deletes it, so a pack is judged before it is kept, against what is written *and* what is kept:
//! a conflict goes back to its sender, who can still do something about it. Packs of one stream that are kept are not overtaken:
//! while there are any, all of the stream come here. A pack that cannot be written yet when it is offered again makes its stream wait
//! for the next *round* through the spool; the other streams go on.

mod replay;
mod shell;

pub(crate) use shell::Wake;
pub use shell::{Back, Door, ShelfAction, Shelving, is_apart};

use crate::outputs::backlog::Ticket;
use logferry_footprint::{Footprint, Verdict, WhenFull};
use logferry_link::Answer;
use logferry_pack::{PackIdentity, StreamId};
use logferry_spool::RecordId;
use replay::Round;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// When a pack is to be sent again that overlaps one on its way, or is behind one that has not come.
const RETRY_OVERLAP_MS: u64 = 500;
/// When a pack is to be sent again that the spool has no room for, or fails to take.
const RETRY_NO_ROOM_MS: u64 = 1_500;
/// How long nothing is given to the spool after it failed.
const SPOOL_RETRY_MS: u64 = 1_000;
/// Gaps that are remembered; beyond, the wait for what is missing begins again with each pack.
const GAPS_MAX: usize = 65_536;

/// What bounds it.
#[derive(Clone, Copy, Debug)]
pub struct ShelfLimits {
    /// Bytes that go to the spool, or come from there, together.
    pub group_bytes_max: u64,
    /// How long a gap is waited for, in milliseconds.
    pub gap_ms: u64,
    /// Memory of the footprint of what is kept, in bytes.
    pub footprint_bytes_max: usize,
}

/// What is to be done. `P` is a pack, `W` whoever waits for an answer.
#[derive(Debug)]
pub enum Action<P, W> {
    /// To be answered.
    Answer(W, Answer),
    /// To be appended to the spool in this order, and synced: [`Shelf::kept`] follows.
    Keep(Vec<(Ticket, P)>),
    /// Reading is to begin anew.
    Rewind,
    /// Records of up to so many bytes are to be read: [`Shelf::read`] follows.
    Read(u64),
    /// To be offered to the output: [`Shelf::replayed`] follows for each.
    Replay(Vec<(RecordId, P)>),
    /// The spool need not keep this any longer.
    Arrived(RecordId),
    /// To be set aside for good, with the reason: [`Shelf::set_aside`] follows, with the record's number for a ticket.
    SetAside(Ticket, P, String),
}

/// A pack to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Offset at which shipping of the stream began.
    pub first: u64,
    /// Bytes in the spool.
    pub bytes: u64,
}

/// What the output has.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// What is written.
    pub footprint: &'a Footprint,
    /// A pack that is to be written overlaps the candidate, and is another one.
    pub is_overlapped: bool,
}

/// Numbers for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShelfFigures {
    /// Packs kept.
    pub packs: u64,
    /// Memory of the footprint, in bytes.
    pub footprint_bytes: u64,
    /// Why the spool takes none.
    pub trouble: Option<String>,
}

/// Stream, offset, span.
type Place = (StreamId, u64, u64);

/// A pack on its way into the spool.
struct Keeping<P, W> {
    candidate: Candidate,
    pack: P,
    waiters: Vec<W>,
}

/// The deciding core.
pub struct Shelf<P, W> {
    limits: ShelfLimits,
    /// Of what is kept.
    footprint: Footprint,
    /// How many packs are kept, by stream.
    kept: HashMap<StreamId, u64>,
    /// Ranges do not overlap.
    keeping: BTreeMap<Place, Keeping<P, W>>,
    /// Those of them that are not given to the spool yet, in order.
    queue: VecDeque<Place>,
    /// The group that is being appended.
    appending: Vec<Place>,
    /// Where a stream was expected to go on, and since when, in milliseconds.
    gaps: HashMap<StreamId, (u64, u64)>,
    trouble: Option<String>,
    /// The spool failed: when to try again.
    again_ms: u64,
    round: Round<P>,
}

impl<P: Clone, W> Shelf<P, W> {
    /// With nothing kept.
    pub fn new(limits: ShelfLimits) -> Shelf<P, W> {
        Shelf {
            limits,
            footprint: Footprint::default().limited(limits.footprint_bytes_max, WhenFull::RefuseNew),
            kept: HashMap::new(),
            keeping: BTreeMap::new(),
            queue: VecDeque::new(),
            appending: Vec::new(),
            gaps: HashMap::new(),
            trouble: None,
            again_ms: 0,
            round: Round::default(),
        }
    }

    /// A pack was found in the spool at the start.
    pub fn found(&mut self, identity: &PackIdentity, first: u64, unix: u64) {
        self.footprint.insert(identity, first, unix);
        *self.kept.entry(identity.stream).or_default() += 1;
    }

    /// Whether packs of a stream must come here, because older ones are here.
    pub fn holds(&self, stream: StreamId) -> bool {
        self.kept.contains_key(&stream) || self.keeps_some_of(stream)
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.keeping.is_empty()
    }

    /// Numbers for the status.
    pub fn figures(&self) -> ShelfFigures {
        ShelfFigures {
            packs: self.kept.values().sum(),
            footprint_bytes: self.footprint.memory_bytes() as u64,
            trouble: self.trouble.clone(),
        }
    }

    /// A pack came that the output cannot write.
    pub fn offered(
        &mut self,
        now_ms: u64,
        written: Written<'_>,
        candidate: Candidate,
        pack: P,
        waiter: W,
    ) -> Vec<Action<P, W>> {
        let identity = candidate.identity;
        let place = (identity.stream, identity.offset, identity.span);
        if let Some(answer) = self.judge(now_ms, written, &candidate) {
            return vec![Action::Answer(waiter, answer)];
        }
        let mut actions = Vec::new();
        match self.keeping.get_mut(&place) {
            Some(same) => same.waiters.push(waiter),
            None => {
                self.gaps.remove(&identity.stream);
                self.keeping.insert(place, Keeping { candidate, pack, waiters: vec![waiter] });
                self.queue.push_back(place);
                self.keep_some(&mut actions);
            }
        }
        actions
    }

    /// The answer to a pack that is not to be kept.
    fn judge(&mut self, now_ms: u64, written: Written<'_>, candidate: &Candidate) -> Option<Answer> {
        let Candidate { identity, first, .. } = candidate;
        let busy = |retry_ms| Some(Answer::Busy { retry_ms });
        let frontier = match written.footprint.judge_with(&self.footprint, identity, *first) {
            Verdict::Duplicate => return Some(Answer::Duplicate),
            Verdict::Conflict(remembered) => return Some(Answer::Conflict(remembered)),
            Verdict::Gap { frontier } => Some(frontier),
            Verdict::Next => None,
        };
        let same = self.keeping.get(&(identity.stream, identity.offset, identity.span));
        if same.is_some_and(|same| same.candidate.identity == *identity && identity.span > 0) {
            return None;
        }
        if same.is_some() || written.is_overlapped || self.overlaps_keeping(identity) {
            return busy(RETRY_OVERLAP_MS);
        }
        let has_room = self.footprint.has_room_for(identity) && written.footprint.has_room_for(identity);
        if now_ms < self.again_ms || !has_room {
            return busy(RETRY_NO_ROOM_MS);
        }
        let must_wait = frontier.is_some_and(|frontier| self.must_wait(now_ms, written, identity, frontier));
        if must_wait { busy(RETRY_OVERLAP_MS) } else { None }
    }

    /// Whether what is missing before a pack is still waited for.
    fn must_wait(
        &mut self,
        now_ms: u64,
        written: Written<'_>,
        identity: &PackIdentity,
        frontier: u64,
    ) -> bool {
        let PackIdentity { stream, offset, .. } = *identity;
        let has = |footprint: &Footprint, last| footprint.has_seen(stream, last, 1);
        let is_known = offset
            .checked_sub(1)
            .is_some_and(|last| has(written.footprint, last) || has(&self.footprint, last));
        if is_known || self.keeping_ends_at(stream, offset) {
            return false;
        }
        if self.gaps.len() >= GAPS_MAX {
            self.gaps.clear();
        }
        let gap = self.gaps.entry(stream).or_insert((frontier, now_ms));
        if gap.0 != frontier {
            *gap = (frontier, now_ms);
        }
        now_ms.saturating_sub(gap.1) < self.limits.gap_ms
    }

    /// What was appended to the spool is durable from here on: these, a beginning of what was asked for, and why not all.
    pub fn kept(
        &mut self,
        now_ms: u64,
        unix: u64,
        durable: usize,
        trouble: Option<String>,
    ) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        let mut group = std::mem::take(&mut self.appending);
        let mut lost: Vec<Place> = group.split_off(durable.min(group.len()));
        for place in group {
            let Some(keeping) = self.keeping.remove(&place) else { continue };
            let Candidate { identity, first, .. } = keeping.candidate;
            self.found(&identity, first, unix);
            let mut waiters = keeping.waiters.into_iter();
            actions.extend(waiters.next().map(|waiter| Action::Answer(waiter, Answer::Ok)));
            actions.extend(waiters.map(|waiter| Action::Answer(waiter, Answer::Duplicate)));
        }
        self.round.has_more();
        self.again_ms = if trouble.is_some() { now_ms + SPOOL_RETRY_MS } else { 0 };
        self.trouble = trouble;
        if self.trouble.is_some() {
            // What is behind must not get there first.
            lost.extend(self.queue.drain(..));
        }
        let busy = Answer::Busy { retry_ms: RETRY_NO_ROOM_MS };
        let waiters =
            lost.iter().filter_map(|place| self.keeping.remove(place)).flat_map(|lost| lost.waiters);
        actions.extend(waiters.map(|waiter| Action::Answer(waiter, busy.clone())));
        self.keep_some(&mut actions);
        actions
    }

    /// Gives one group to the spool at a time.
    fn keep_some(&mut self, actions: &mut Vec<Action<P, W>>) {
        if !self.appending.is_empty() {
            return;
        }
        let (mut bytes, mut group) = (0, Vec::new());
        while let Some(place) = self.queue.front()
            && let Some(keeping) = self.keeping.get(place)
        {
            bytes += keeping.candidate.bytes;
            if !group.is_empty() && bytes > self.limits.group_bytes_max {
                break;
            }
            group.push((group.len() as Ticket, keeping.pack.clone()));
            self.appending.extend(self.queue.pop_front());
        }
        if !group.is_empty() {
            actions.push(Action::Keep(group));
        }
    }

    fn keeps_some_of(&self, stream: StreamId) -> bool {
        self.keeping.range((stream, 0, 0)..=(stream, u64::MAX, u64::MAX)).next().is_some()
    }

    fn overlaps_keeping(&self, identity: &PackIdentity) -> bool {
        let before = self.last_keeping_before(identity.stream, identity.end());
        before.is_some_and(|(offset, span)| offset.saturating_add(span) > identity.offset)
    }

    fn keeping_ends_at(&self, stream: StreamId, offset: u64) -> bool {
        let before = self.last_keeping_before(stream, offset);
        before.is_some_and(|(from, span)| from.saturating_add(span) == offset)
    }

    /// The last pack with bytes that begins before `end`.
    fn last_keeping_before(&self, stream: StreamId, end: u64) -> Option<(u64, u64)> {
        let before = self.keeping.range((stream, 0, 0)..(stream, end, 0)).rev();
        before.map(|(place, _)| (place.1, place.2)).find(|(_, span)| *span > 0)
    }
}
