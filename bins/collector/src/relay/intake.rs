//! Packs that come in, and those that have to be sent back with `busy`.

use super::state::{Entry, OnDisk, Place};
use super::*;
use logferry_footprint::{SeenPack, Verdict};

impl Relay {
    pub(super) fn arrive(&mut self, now: Mono, ticket: Ticket, pack: PackInfo, out: &mut Vec<Action>) {
        if pack.can_be_duplicate() {
            if self.is_safe_already(&pack) {
                self.duplicates_total += 1;
                self.came_back(now, &pack);
                return refuse(ticket, Answer::Duplicate, out);
            }
            if let Some(&known) = self.by_identity.get(&pack.identity) {
                self.came_back(now, &pack);
                return self.attach(ticket, known, out);
            }
            if self.is_held(now, &pack) {
                self.hold_behind(&pack);
                let retry_ms = retry_ms(pack.identity.stream);
                return refuse(ticket, Answer::Busy { retry_ms }, out);
            }
            self.came_back(now, &pack);
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
        self.stream(pack.identity.stream).spooled.contains(&SeenPack::from(&pack.identity))
            || self.footprint.judge(&pack.identity, pack.first) == Verdict::Duplicate
    }

    /// The same pack came over another connection while the first one is not settled.
    fn attach(&mut self, ticket: Ticket, known: Ticket, out: &mut Vec<Action>) {
        self.duplicates_total += 1;
        match self.entries[&known].disk {
            OnDisk::Durable(_) => refuse(ticket, Answer::Duplicate, out),
            _ => out.push(Action::Attach { from: ticket, to: known }),
        }
    }

    /// Marks a pack and all before it in its stream for the spool, so that the stream's order there is that of arrival.
    pub(super) fn want_stream_up_to(&mut self, now: Mono, ticket: Ticket) {
        let Some(entry) = self.entries.get(&ticket) else { return };
        let tickets: Vec<Ticket> =
            self.stream(entry.pack.identity.stream).live.range(..=ticket).copied().collect();
        for ticket in tickets {
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            if entry.disk == OnDisk::No {
                entry.disk = OnDisk::Wanted;
                entry.wanted_since.get_or_insert(now);
                self.wanted.insert(ticket);
            }
        }
    }

    /// Neither the spool nor a target takes the pack: tells its peer, and those of all later packs of the stream, to come
    /// back. Packs in flight stay: they may be with the next tier already.
    pub(super) fn answer_busy(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(stream) = self.entries.get(&ticket).map(|entry| entry.pack.identity.stream) else { return };
        let tickets: Vec<Ticket> = self.stream(stream).live.range(ticket..).copied().collect();
        for ticket in tickets {
            let Some(entry) = self.entries.get(&ticket) else { continue };
            if entry.place != Place::Waiting || entry.disk == OnDisk::Writing {
                continue;
            }
            let pack = entry.pack;
            out.push(Action::Answer { ticket, answer: Answer::Busy { retry_ms: retry_ms(stream) } });
            self.hold(now, &pack);
            self.remove_entry(ticket, out);
        }
    }

    /// The pack will come back: those behind it in its stream are to wait for that.
    pub(super) fn hold(&mut self, now: Mono, pack: &PackInfo) {
        if !pack.can_be_duplicate() {
            return;
        }
        let hold = self.holds.entry(pack.identity.stream).or_default();
        hold.until = now + HOLD;
        if hold.offsets.len() < HELD_MAX {
            hold.offsets.insert(pack.identity.offset);
        }
    }

    /// A pack behind the one that is to come back has to come back too; that buys the first one no time.
    fn hold_behind(&mut self, pack: &PackInfo) {
        let Some(hold) = self.holds.get_mut(&pack.identity.stream) else { return };
        if hold.offsets.len() < HELD_MAX {
            hold.offsets.insert(pack.identity.offset);
        }
    }

    /// Whether a pack is behind one that was answered `busy` and has not come back.
    fn is_held(&self, now: Mono, pack: &PackInfo) -> bool {
        self.holds.get(&pack.identity.stream).is_some_and(|hold| {
            now < hold.until && hold.offsets.first().is_some_and(|&first| first < pack.identity.offset)
        })
    }

    fn came_back(&mut self, now: Mono, pack: &PackInfo) {
        let Some(hold) = self.holds.get_mut(&pack.identity.stream) else { return };
        if hold.offsets.remove(&pack.identity.offset) {
            hold.until = now + HOLD;
        }
        if hold.offsets.is_empty() {
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
