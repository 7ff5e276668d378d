//! Changes of what was cut: after a conflict, when a new generation takes over, when bytes are gone for good.

use super::record::{Cut, KeptCut, Record, Tail};
use super::stream::{Entry, Fate};
use super::{Ledger, Meeting};
use logferry_pack::{Header, Hour, PackIdentity, StreamId};
use std::collections::BTreeSet;

impl Ledger {
    /// After a conflict: the next tier has the same bytes up to `tail`, and `entries` are the packs above that. Packs
    /// that were left alone keep their tickets; numbers of packs that are not needed any more are given back.
    pub fn agree(&mut self, id: StreamId, tail: Tail, entries: Vec<Entry>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.conflict = None;
        let to_ship = entries.iter().filter(|entry| entry.fate != Fate::Acked);
        let needed: BTreeSet<(Hour, u64)> = to_ship.map(|entry| (entry.cut.hour, entry.cut.id)).collect();
        let old = stream.set_entries(entries);
        stream.set_frontier(tail.end(), Some(tail));
        stream.advance();
        let cuts: Vec<KeptCut> = stream.entries.iter().map(Entry::keep).collect();
        let (source, frontier, tail) = (stream.met.source.clone(), stream.frontier, stream.tail);
        self.records.push(Record::Recut { stream: id, frontier, cuts });
        self.records.push(Record::Frontier { stream: id, frontier, tail });
        let unneeded: Vec<Entry> =
            old.into_iter().filter(|entry| !needed.contains(&(entry.cut.hour, entry.cut.id))).collect();
        self.give_back(&source, &unneeded);
        self.forget_tickets(id);
    }

    /// Whether packs of a stream wait to be sent (again).
    pub fn has_unsent(&self, id: StreamId) -> bool {
        let has_mark = || self.marks.iter().any(|(mark, fate)| mark.stream == id && *fate == Fate::Unsent);
        self.streams.get(&id).is_some_and(|stream| stream.next_unsent().is_some()) || has_mark()
    }

    /// The tailer's own spool holds the pack with this header. Whether it was not known to be settled.
    pub fn settle_spooled(&mut self, header: &Header) -> bool {
        let Some(ours) = &header.ours else { return false };
        let PackIdentity { stream: id, offset, span, sum } = ours.identity;
        if span == 0 {
            let (source, hour, id) = (ours.source.as_str(), header.hour, header.id);
            let is_known = self
                .marks
                .keys()
                .any(|mark| (mark.source.as_str(), mark.hour, mark.id) == (source, hour, id));
            if is_known {
                self.write(Record::MarkTaken { source: source.to_owned(), hour, id });
            }
            return is_known;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let is_same = |entry: &&Entry| {
            let Cut { offset: at, span: length, sum: known, .. } = entry.cut;
            entry.fate == Fate::Unsent && (at, length, known) == (offset, span, sum)
        };
        if stream.entries.iter().find(is_same).is_none() {
            return false;
        }
        stream.set_fate(offset, Fate::Acked);
        if stream.advance() {
            let record = Record::Frontier { stream: id, frontier: stream.frontier, tail: stream.tail };
            self.records.push(record);
        }
        true
    }

    /// A new generation takes over from `first`: with the packs as they are cut (`keep`), or with none.
    pub fn regenerate(&mut self, id: StreamId, first: u64, keep: bool) -> Option<StreamId> {
        let source = self.streams.get(&id)?.met.source.clone();
        self.take_over(id, &source, first, keep)
    }

    /// The file belongs to another source now: a new generation of that source takes over behind the frontier. Only once all that
    /// was cut is acknowledged, because packs are numbered by source.
    pub fn change_source(&mut self, id: StreamId, source: &str) -> Option<StreamId> {
        let first = self.streams.get(&id).filter(|stream| stream.entries.is_empty())?.frontier;
        self.take_over(id, source, first, false)
    }

    fn take_over(&mut self, id: StreamId, source: &str, first: u64, keep: bool) -> Option<StreamId> {
        let old = self.streams.get(&id)?;
        let met = old.met.clone();
        let entries: Vec<Entry> = old.entries.iter().copied().collect();
        let meeting = Meeting { source, path: &met.path, key: met.key, head: met.head, first };
        let new = self.generation(&meeting, met.generation + 1, self.past(met.key));
        let stream = new.stream;
        let cuts = if keep { entries.iter().map(Entry::keep).collect() } else { vec![] };
        if !keep {
            self.give_back(&met.source, &entries);
        }
        self.write(Record::Replaced { old: id, new, cuts });
        self.tickets.retain(|_, ticket| !ticket.is_of(id));
        Some(stream)
    }

    /// The bytes of a stream cannot be read any more: packs that are not on their way are lost. Their total length.
    pub fn orphan(&mut self, id: StreamId) -> u64 {
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        stream.orphan = true;
        // What was left of the file is told by now.
        (stream.left, stream.seen) = (0, None);
        self.orphans.insert(id);
        let (lost, kept): (Vec<Entry>, Vec<Entry>) =
            stream.entries.iter().partition(|entry| entry.fate == Fate::Unsent);
        if lost.is_empty() {
            return 0;
        }
        stream.set_entries(kept);
        // Nothing below matters any more: the frontier only tells when the last pack is settled.
        if let Some(first) = stream.entries.front() {
            stream.frontier = stream.frontier.max(first.cut.offset);
        }
        let source = stream.met.source.clone();
        let record = Record::Recut {
            stream: id,
            frontier: stream.frontier,
            cuts: stream.entries.iter().map(Entry::keep).collect(),
        };
        self.records.push(record);
        self.give_back(&source, &lost);
        lost.iter().map(|entry| entry.cut.span).sum()
    }

    /// A stream is done with.
    pub fn finish(&mut self, id: StreamId) {
        self.tickets.retain(|_, ticket| !ticket.is_of(id));
        self.write(Record::Finished(id));
    }

    fn give_back(&mut self, source: &str, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.fate != Fate::Acked) {
            let Cut { hour, id, .. } = entry.cut;
            self.write(Record::GivenBack { source: source.to_owned(), hour, id });
        }
    }

    /// Tickets of packs that are no longer there as they were sent.
    fn forget_tickets(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        let live: BTreeSet<u64> = stream
            .entries
            .iter()
            .filter_map(|entry| match entry.fate {
                Fate::InFlight(ticket) => Some(ticket),
                _ => None,
            })
            .collect();
        self.tickets.retain(|number, ticket| !ticket.is_of(id) || live.contains(number));
    }
}
