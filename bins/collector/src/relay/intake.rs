//! Packs that come in, and those that have to be sent back with `busy`.

use super::state::{Entry, Hold, OnDisk, Place};
use super::*;
use logferry_footprint::Verdict;

impl Relay {
    pub(super) fn arrive(&mut self, now: Mono, ticket: Ticket, pack: PackInfo, out: &mut Vec<Action>) {
        if pack.can_be_duplicate() {
            if self.is_safe_already(&pack) {
                self.duplicates_total += 1;
                self.advance_hold(&pack);
                return refuse(ticket, Answer::Duplicate, out);
            }
            if let Some(&known) = self.by_identity.get(&pack.identity) {
                self.advance_hold(&pack);
                return self.attach(now, ticket, known, out);
            }
            if self.is_held(now, &pack) {
                let retry_ms = retry_ms(pack.identity.stream);
                return refuse(ticket, Answer::Busy { retry_ms }, out);
            }
            self.advance_hold(&pack);
            self.by_identity.insert(pack.identity, ticket);
        }
        self.take_in(now, ticket, pack);
    }

    fn take_in(&mut self, now: Mono, ticket: Ticket, pack: PackInfo) {
        self.queue_bytes += pack.bytes;
        self.unanswered.insert(ticket);
        let stream = self.stream_mut(pack.identity.stream);
        stream.live.insert(ticket);
        if stream.is_blocked() {
            stream.parked.insert(ticket);
        } else {
            self.ready.insert(ticket);
        }
        let entry = Entry {
            pack,
            since: now,
            waited_for: true,
            place: Place::Waiting,
            disk: OnDisk::No,
            wanted_since: None,
            replayed: false,
        };
        self.entries.insert(ticket, entry);
        if self.spools_at_once(now) {
            self.want_stream_up_to(now, ticket);
        }
    }

    /// The next tier has this very pack, or it was fsynced in the spool by this process.
    fn is_safe_already(&self, pack: &PackInfo) -> bool {
        self.stream(pack.identity.stream).spooled.contains(&pack.identity)
            || self.footprint.judge(&pack.identity, pack.first) == Verdict::Duplicate
    }

    /// The same pack came over another connection while the first one is not settled.
    fn attach(&mut self, now: Mono, ticket: Ticket, known: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&known) else { return };
        self.duplicates_total += 1;
        if let OnDisk::Durable(_) = entry.disk {
            return refuse(ticket, Answer::Duplicate, out);
        }
        if !entry.waited_for {
            entry.waited_for = true;
            entry.since = now;
            entry.wanted_since = None;
            let stream = entry.pack.identity.stream;
            self.unanswered.insert(known);
            self.stream_mut(stream).live.insert(known);
        }
        out.push(Action::Attach { from: ticket, to: known });
    }

    /// Marks a pack and all before it in its stream for the spool, so that the stream's order there is that of arrival.
    pub(super) fn want_stream_up_to(&mut self, now: Mono, ticket: Ticket) {
        let Some(entry) = self.entries.get(&ticket) else { return };
        let tickets: Vec<Ticket> = self.stream(entry.pack.identity.stream).live.range(..=ticket).copied().collect();
        for ticket in tickets {
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            if entry.disk == OnDisk::No {
                entry.disk = OnDisk::Wanted;
                entry.wanted_since.get_or_insert(now);
                self.wanted.insert(ticket);
            }
        }
    }

    /// Neither the spool nor a target takes the pack: tells its peer, and those of all later packs of the stream, to come back.
    pub(super) fn answer_busy(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(pack) = self.entries.get(&ticket).map(|entry| entry.pack) else { return };
        let stream = pack.identity.stream;
        let tickets: Vec<Ticket> = self.stream(stream).live.range(ticket..).copied().collect();
        let mut last = pack.identity.offset;
        for ticket in tickets {
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            if matches!(entry.disk, OnDisk::Writing | OnDisk::Durable(_)) {
                continue;
            }
            last = last.max(entry.pack.identity.offset);
            entry.waited_for = false;
            entry.disk = OnDisk::No;
            let in_flight = entry.place == Place::Flight;
            out.push(Action::Answer { ticket, answer: Answer::Busy { retry_ms: retry_ms(stream) } });
            if in_flight {
                self.wanted.remove(&ticket);
                self.nobody_waits_for(ticket, stream);
            } else {
                self.remove_entry(ticket, out);
            }
        }
        self.stream_changed(stream);
        if pack.can_be_duplicate() {
            self.holds.insert(stream, Hold { next: pack.identity.offset, last, until: now + HOLD });
        }
    }

    /// Whether a pack is behind one that was answered `busy` and has not come back.
    fn is_held(&self, now: Mono, pack: &PackInfo) -> bool {
        self.holds
            .get(&pack.identity.stream)
            .is_some_and(|hold| now < hold.until && pack.identity.offset > hold.next)
    }

    fn advance_hold(&mut self, pack: &PackInfo) {
        let Some(hold) = self.holds.get_mut(&pack.identity.stream) else { return };
        hold.next = hold.next.max(pack.identity.offset.saturating_add(pack.identity.span));
        if hold.next > hold.last {
            self.holds.remove(&pack.identity.stream);
        }
    }
}

/// Answers a pack that is not taken in.
fn refuse(ticket: Ticket, answer: Answer, out: &mut Vec<Action>) {
    out.push(Action::Answer { ticket, answer });
    out.push(Action::Forget { ticket });
}

/// When to come back: 1 to 3 s, spread over the streams, the same for all packs of one.
fn retry_ms(stream: StreamId) -> u64 {
    let mixed = (stream.0 as u64 ^ (stream.0 >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    1_000 + (mixed >> 32) % 2_000
}
