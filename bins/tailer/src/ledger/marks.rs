//! Packs without lines: done packs, and numbers that nothing else has.

use super::hours::Position;
use super::record::{Mark, Record};
use super::stream::Fate;
use super::{Effect, Ledger, Ticket};
use crate::identity::hours_stream_id;
use logferry_pack::Hour;
use std::collections::BTreeSet;

impl Ledger {
    /// Closes an hour: a pack without lines for each number that was given back and may belong to nothing, and the done pack.
    pub fn close_hour(&mut self, source: &str, hour: Hour) {
        let total = self.hours.last(source, hour) + 1;
        loop {
            let id = self.hours.next_without_lines(source, hour);
            // An hour without packs has no stream: its done pack travels with one that stands for all such hours.
            let nowhere = u64::from(u32::from(hour));
            let stream = hours_stream_id(&self.host, source);
            let at = self.hours.position(source, hour);
            let Position { stream, first, end } =
                at.unwrap_or(Position { stream, first: nowhere, end: nowhere });
            let done = id == total;
            let mark = Mark { source: source.to_owned(), hour, id, done, stream, first, offset: end };
            self.write(Record::Marked(mark));
            if done {
                return;
            }
        }
    }

    /// The first pack without lines that waits to be sent.
    pub fn next_mark(&self) -> Option<Mark> {
        let unsent = |fate: &Fate| *fate == Fate::Unsent;
        self.marks.iter().find(|(_, fate)| unsent(fate)).map(|(mark, _)| mark.clone())
    }

    /// A pack without lines is put on its way; its ticket.
    pub fn send_mark(&mut self, mark: &Mark) -> Option<u64> {
        let ticket = self.last_ticket + 1;
        *self.marks.get_mut(mark)? = Fate::InFlight(ticket);
        self.last_ticket = ticket;
        self.tickets.insert(ticket, Ticket::Mark(mark.clone()));
        Some(ticket)
    }

    pub(super) fn settle_mark(&mut self, mark: &Mark) -> Effect {
        if !self.marks.contains_key(mark) {
            return Effect::Stale;
        }
        let Mark { source, hour, id, .. } = mark.clone();
        self.write(Record::MarkTaken { source, hour, id });
        Effect::MarkSettled
    }

    pub(super) fn apply_mark(&mut self, record: Record) {
        match record {
            Record::Marked(mark) => {
                self.hours.marked(&mark.source, mark.hour, mark.id, mark.done);
                self.marks.insert(mark, Fate::Unsent);
            }
            Record::MarkTaken { source, hour, id } => {
                self.marks.retain(|mark, _| (&mark.source, mark.hour, mark.id) != (&source, hour, id));
            }
            Record::GivenBack { source, hour, id } => self.hours.give_back(&source, hour, id),
            Record::HoursDue { source, hour } => self.hours.set_due(&source, hour),
            _ => {}
        }
    }

    /// The books.
    pub fn hours(&self) -> &super::hours::HourBook {
        &self.hours
    }

    /// Hours before this one are not looked at any more for lines that they may not have.
    pub fn set_hours_due(&mut self, source: &str, hour: Hour) {
        if self.hours.due(source) != Some(hour) {
            self.write(Record::HoursDue { source: source.to_owned(), hour });
        }
    }

    /// Hours of a source that have packs which are not acknowledged.
    pub fn unsettled_hours(&self, source: &str) -> BTreeSet<Hour> {
        let streams = self.streams.values().filter(|stream| stream.met.source == source);
        let entries = streams.flat_map(|stream| &stream.entries);
        entries.filter(|entry| entry.fate != Fate::Acked).map(|entry| entry.cut.hour).collect()
    }
}
