//! One stream: its acknowledged frontier and the packs above it.

use crate::identity::FileKey;
use crate::ledger::record::{Cut, KeptCut, Met, SeenFile, StreamSnapshot, Tail};
use logferry_footprint::Remembered;
use std::collections::VecDeque;

/// What became of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Journaled, not (or no longer) on its way.
    Unsent,
    /// On its way under this ticket.
    InFlight(u64),
    /// The next tier has it.
    Acked,
}

/// A pack above the frontier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Boundaries.
    pub cut: Cut,
    /// What became of it.
    pub fate: Fate,
}

impl Entry {
    pub(crate) fn kept(kept: &KeptCut) -> Entry {
        Entry { cut: kept.cut, fate: if kept.acked { Fate::Acked } else { Fate::Unsent } }
    }
    pub(crate) fn keep(&self) -> KeptCut {
        KeptCut { cut: self.cut, acked: self.fate == Fate::Acked }
    }
}

/// A stream that is not finished.
#[derive(Clone, Debug)]
pub struct Stream {
    /// First sight.
    pub met: Met,
    /// Everything below is acknowledged.
    pub frontier: u64,
    /// The pack that ends there.
    pub tail: Option<Tail>,
    /// Packs above the frontier: the first begins there, each begins where the one before it ends.
    pub entries: VecDeque<Entry>,
    /// The next tier has taken something new of it since this process started, so that it is known to agree on where
    /// the stream stands. Until then one pack goes at a time: a conflict then finds nothing else on its way.
    pub confirmed: bool,
    /// A later generation of the file has begun: no byte of this stream can be read any more.
    pub orphan: bool,
    /// The last answer `conflict`, not dealt with yet.
    pub conflict: Option<Remembered>,
    /// Files that it was in before.
    pub(crate) was: Vec<FileKey>,
    /// Length and time of change of its file when it was asked last.
    pub(crate) seen: Option<(u64, i64)>,
    /// Length of its file when it was left: by an earlier process, or because its bytes are not there any more. What of them is in no
    /// pack is lost, should nobody find them elsewhere.
    pub(crate) left: u64,
    in_flight: usize,
    unsent: usize,
}

impl Stream {
    /// Whether all of it that was cut is acknowledged, and that is so many bytes.
    pub fn is_settled_to(&self, length: u64) -> bool {
        self.entries.is_empty() && self.conflict.is_none() && !self.orphan && self.frontier == length
    }

    pub(crate) fn new(met: Met) -> Stream {
        let frontier = met.first;
        Stream {
            met,
            frontier,
            tail: None,
            entries: VecDeque::new(),
            confirmed: false,
            orphan: false,
            conflict: None,
            was: Vec::new(),
            seen: None,
            left: 0,
            in_flight: 0,
            unsent: 0,
        }
    }

    pub(crate) fn snapshot(&self) -> StreamSnapshot {
        let cuts = self.entries.iter().map(Entry::keep).collect();
        let (met, was) = (self.met.clone(), self.was.clone());
        StreamSnapshot { met, frontier: self.frontier, tail: self.tail, cuts, was }
    }

    pub(crate) fn seen_file(&self) -> Option<SeenFile> {
        self.seen.map(|(size, touched_ns)| SeenFile { stream: self.met.stream, size, touched_ns })
    }

    /// Whether everything in a file that looks like this is known to be acknowledged.
    pub fn has_all_of(&self, size: u64, touched_ns: i64) -> bool {
        let is_settled = self.entries.is_empty() && self.conflict.is_none() && !self.orphan;
        is_settled && size == self.frontier && self.seen == Some((size, touched_ns))
    }

    pub(crate) fn restored(snapshot: StreamSnapshot) -> Stream {
        let mut stream = Stream::new(snapshot.met);
        stream.frontier = snapshot.frontier;
        stream.tail = snapshot.tail;
        stream.was = snapshot.was;
        stream.entries = snapshot.cuts.iter().map(Entry::kept).collect();
        stream.drop_broken_chain();
        stream
    }

    /// Offset up to which packs are cut.
    pub fn cut_end(&self) -> u64 {
        self.entries.back().map_or(self.frontier, |entry| entry.cut.end())
    }

    /// The bytes by which a file is known to be the stream's: those that were acknowledged last, or else the first that were cut. The first
    /// line tells only if there is nothing else: many files have the same.
    pub(crate) fn evidence(&self) -> Option<Tail> {
        let first_cut = self.entries.front().map(|entry| entry.cut.tail());
        self.tail.filter(|_| !self.is_only_head_acked()).or(first_cut).or(self.tail)
    }

    /// Whether no more than the first line of its file is acknowledged.
    pub(crate) fn is_only_head_acked(&self) -> bool {
        self.tail.is_some_and(|tail| !tail.is_beyond(self.met.head))
    }

    /// Bytes above `from` that the file had when it was left and that are in no pack.
    pub(crate) fn unread(&self, from: u64) -> u64 {
        self.left.saturating_sub(self.cut_end().max(from))
    }

    /// Packs on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The first pack that waits to be sent (again).
    pub fn next_unsent(&self) -> Option<Cut> {
        if self.unsent == 0 {
            return None;
        }
        self.entries.iter().find(|entry| entry.fate == Fate::Unsent).map(|entry| entry.cut)
    }

    /// Whether another pack may be put on its way.
    pub fn may_send(&self) -> bool {
        self.conflict.is_none() && (self.confirmed || self.in_flight() == 0)
    }

    pub(crate) fn push(&mut self, cut: Cut) {
        if cut.offset == self.cut_end() && cut.span > 0 {
            self.entries.push_back(Entry { cut, fate: Fate::Unsent });
            self.unsent += 1;
        }
    }

    /// Fate of the pack at `offset`.
    pub(crate) fn fate(&self, offset: u64) -> Option<Fate> {
        let index = self.entries.binary_search_by_key(&offset, |entry| entry.cut.offset).ok()?;
        self.entries.get(index).map(|entry| entry.fate)
    }

    /// Changes the fate of the pack at `offset`; false when there is none.
    pub(crate) fn set_fate(&mut self, offset: u64, fate: Fate) -> bool {
        let found = self.entries.binary_search_by_key(&offset, |entry| entry.cut.offset);
        let Some(entry) = found.ok().and_then(|index| self.entries.get_mut(index)) else { return false };
        let before = std::mem::replace(&mut entry.fate, fate);
        for (fate, count) in [(before, -1), (fate, 1)] {
            let counter = match fate {
                Fate::Unsent => &mut self.unsent,
                Fate::InFlight(_) => &mut self.in_flight,
                Fate::Acked => continue,
            };
            *counter = counter.saturating_add_signed(count);
        }
        true
    }

    /// Puts other packs in the place of those there are; what was there.
    pub(crate) fn set_entries(&mut self, entries: Vec<Entry>) -> VecDeque<Entry> {
        let old = std::mem::replace(&mut self.entries, entries.into());
        self.recount();
        old
    }

    fn recount(&mut self) {
        self.unsent = self.entries.iter().filter(|entry| entry.fate == Fate::Unsent).count();
        self.in_flight = self.entries.iter().filter(|entry| matches!(entry.fate, Fate::InFlight(_))).count();
    }

    /// Moves the frontier over what is acknowledged without a gap. Whether it moved.
    pub(crate) fn advance(&mut self) -> bool {
        let before = self.frontier;
        while let Some(entry) = self.entries.front().filter(|entry| entry.fate == Fate::Acked) {
            let cut = entry.cut;
            self.frontier = cut.end();
            self.tail = Some(cut.tail());
            self.entries.pop_front();
        }
        self.frontier > before
    }

    /// Takes over a frontier from the log.
    pub(crate) fn set_frontier(&mut self, frontier: u64, tail: Option<Tail>) {
        if frontier < self.frontier {
            return;
        }
        self.frontier = frontier;
        self.tail = tail;
        while self.entries.front().is_some_and(|entry| entry.cut.end() <= frontier) {
            self.entries.pop_front();
        }
        self.drop_broken_chain();
    }

    /// Forgets packs that do not follow on the frontier without a gap, as after damage to the log: they are cut anew,
    /// and the next tier tells what it has of them.
    fn drop_broken_chain(&mut self) {
        let mut at = self.frontier;
        let whole = self.entries.iter().take_while(|entry| {
            let follows = entry.cut.offset == at && entry.cut.span > 0;
            at = entry.cut.end();
            follows
        });
        let whole = whole.count();
        self.entries.truncate(whole);
        self.recount();
    }
}
