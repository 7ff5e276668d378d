//! Packs at the sender of the next tier: submitted, settled, withdrawn.

use super::state::{OnDisk, Place};
use super::*;

impl Relay {
    /// Submits packs from the spool first (they are older), then those that wait, while the window has room.
    pub(super) fn submit_what_may_go(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.withdrawing || self.is_down(now) {
            return;
        }
        while let Some(&ticket) = self.replay_queue.front() {
            if !self.window_has_room(ticket) {
                return;
            }
            self.replay_queue.pop_front();
            self.submit(now, ticket, out);
            let id = self.entries[&ticket].pack.identity.stream;
            self.unsent_total = self.unsent_total.saturating_sub(1);
            let stream = self.stream_mut(id);
            stream.unsent = stream.unsent.saturating_sub(1);
            self.stream_changed(id);
        }
        // A stalled target gets no new packs, unless they have nowhere else to go.
        if self.spools_at_once(now) && self.append_trouble.is_none() {
            return;
        }
        self.submit_ready(now, out);
    }

    fn submit_ready(&mut self, now: Mono, out: &mut Vec<Action>) {
        while let Some(&ticket) = self.ready.first() {
            let stream = self.entries[&ticket].pack.identity.stream;
            if self.stream(stream).is_blocked() {
                self.ready.remove(&ticket);
                self.stream_mut(stream).parked.insert(ticket);
                continue;
            }
            if !self.window_has_room(ticket) {
                return;
            }
            self.ready.remove(&ticket);
            // A pack wanted for the spool stays wanted: those behind it may get there, and must not be there without it.
            self.submit(now, ticket, out);
        }
    }

    fn window_has_room(&self, ticket: Ticket) -> bool {
        self.flight_packs == 0
            || self.flight_bytes + self.entries[&ticket].pack.bytes <= self.options.window_bytes
    }

    fn submit(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.place = Place::Flight;
        if self.flight_packs == 0 {
            self.progress_at = now;
        }
        self.flight_packs += 1;
        self.flight_bytes += entry.pack.bytes;
        out.push(Action::Submit { ticket });
    }

    /// Takes a pack off the flight's books; `None` when it is not in flight.
    fn land(&mut self, ticket: Ticket) -> Option<&mut super::state::Entry> {
        let entry = self.entries.get_mut(&ticket).filter(|entry| entry.place == Place::Flight)?;
        self.flight_packs -= 1;
        self.flight_bytes -= entry.pack.bytes;
        Some(entry)
    }

    pub(super) fn settle(&mut self, now: Mono, ticket: Ticket, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(entry) = self.land(ticket) else { return };
        let (pack, disk, waited_for) = (entry.pack, entry.disk, entry.waited_for);
        self.progress_at = now;
        let refusal = match &outcome {
            Outcome::Ok | Outcome::Duplicate => None,
            Outcome::Rejected { reason } => Some(reason.clone()),
            Outcome::Conflict(_) => Some("conflict".to_owned()),
        };
        if let (Some(reason), OnDisk::Durable(_)) = (&refusal, disk) {
            // Its peer was told that it is safe, so nobody will send it again.
            if let Some(entry) = self.entries.get_mut(&ticket) {
                entry.place = Place::Quarantine;
            }
            return out.push(Action::Quarantine { ticket, reason: reason.clone() });
        }
        if refusal.is_none() {
            self.bytes_total += pack.identity.span;
            self.forwarded_bytes_total += pack.bytes;
            self.remember(now, &pack, out);
        }
        if waited_for {
            out.push(Action::Answer { ticket, answer: mirror(outcome) });
        }
        self.close_settled(ticket, pack.identity.stream, disk, out);
    }

    /// The pack is where it belongs; what is left is its copy in the spool.
    fn close_settled(&mut self, ticket: Ticket, stream: StreamId, disk: OnDisk, out: &mut Vec<Action>) {
        match disk {
            OnDisk::Writing => {
                self.nobody_waits_for(ticket, stream);
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.place = Place::Settled;
                    entry.waited_for = false;
                    let identity = entry.pack.identity;
                    self.no_longer_known_as(&identity, ticket);
                }
            }
            OnDisk::Durable(record) => {
                self.ack_record(stream, record, out);
                self.remove_entry(ticket, out);
            }
            OnDisk::No | OnDisk::Wanted => self.remove_entry(ticket, out),
        }
    }

    fn remember(&mut self, now: Mono, pack: &PackInfo, out: &mut Vec<Action>) {
        let now_unix = self.unix(now);
        self.footprint.insert(&pack.identity, pack.first, now_unix);
        out.push(Action::Remember { identity: pack.identity, first: pack.first, now_unix });
    }

    pub(super) fn quarantined(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get(&ticket) else { return };
        let (stream, disk) = (entry.pack.identity.stream, entry.disk);
        if let OnDisk::Durable(record) = disk {
            self.ack_record(stream, record, out);
        }
        self.remove_entry(ticket, out);
    }

    /// The sender gave packs back, because no target has been up for a while: all go to the spool.
    pub(super) fn take_back(&mut self, now: Mono, tickets: &[Ticket], out: &mut Vec<Action>) {
        self.withdrawing = false;
        self.withdrawn = true;
        let mut rewind = false;
        for &ticket in tickets {
            let Some(entry) = self.land(ticket) else { continue };
            entry.place = Place::Waiting;
            let (stream, disk, end_to_end) = (entry.pack.identity.stream, entry.disk, entry.pack.end_to_end);
            let is_waited_for = entry.waited_for;
            match disk {
                // Sent back by the next sweep, unless a target is up again.
                _ if end_to_end && is_waited_for => drop(self.ready.insert(ticket)),
                _ if end_to_end => self.remove_entry(ticket, out),
                OnDisk::Durable(_) => {
                    rewind = true;
                    self.unsent_total += 1;
                    self.stream_mut(stream).unsent += 1;
                    self.remove_entry(ticket, out);
                }
                OnDisk::Writing => self.stream_mut(stream).writing_unsent += 1,
                OnDisk::No | OnDisk::Wanted => {
                    self.ready.insert(ticket);
                    self.want_stream_up_to(now, ticket);
                }
            }
        }
        if rewind {
            self.read_anew(out);
        }
    }

    /// Forgets what was read back and not submitted, and reads the spool from its oldest record on.
    pub(super) fn read_anew(&mut self, out: &mut Vec<Action>) {
        for ticket in std::mem::take(&mut self.replay_queue) {
            self.remove_entry(ticket, out);
        }
        self.epoch += 1;
        self.reading = false;
        out.push(Action::Rewind);
    }
}

/// What the next tier said, said to the one before.
fn mirror(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Ok => Answer::Ok,
        Outcome::Duplicate => Answer::Duplicate,
        Outcome::Rejected { reason } => Answer::Rejected { reason },
        Outcome::Conflict(remembered) => Answer::Conflict(remembered),
    }
}
