//! Packs that come in, and those that have to be sent back with `busy`.

use super::state::{Entry, OnDisk, Place};
use super::*;
use logferry_footprint::{SeenPack, Verdict};

impl Relay {
    pub(super) fn arrive(&mut self, now: Mono, ticket: Ticket, pack: PackInfo, out: &mut Vec<Action>) {
        if pack.end_to_end {
            if let Some(&known) = self.end_to_end.get(&pack.identity) {
                return self.wait_on(now, ticket, known, out);
            }
            if self.spools_at_once(now) || self.stream(pack.identity.stream).is_blocked() {
                let retry_ms = retry_ms(pack.identity.stream);
                return refuse(ticket, Answer::Busy { retry_ms }, out);
            }
            // Packs without bytes are all alike.
            if pack.identity.span > 0 {
                self.end_to_end.insert(pack.identity, ticket);
            }
        }
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

    /// A pack that was answered `busy` while it was in flight, because that took long, came back: what becomes of it is not known yet.
    fn wait_on(&mut self, now: Mono, ticket: Ticket, known: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&known) else { return };
        (entry.waited_for, entry.wanted_since) = (true, Some(now));
        let stream = entry.pack.identity.stream;
        self.unanswered.insert(known);
        self.stream_mut(stream).live.insert(known);
        out.push(Action::Attach { from: ticket, to: known });
    }

    /// Tells the peer of a pack that is not to be spooled to come back, when nothing becomes of it here for long. In flight it stays:
    /// what is said of it is the answer to whoever came back meanwhile.
    pub(super) fn send_back(&mut self, now: Mono, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get(&ticket) else { return };
        let (stream, place) = (entry.pack.identity.stream, entry.place);
        let waited = now.saturating_sub(entry.wanted_since.unwrap_or(entry.since));
        let is_due = match place {
            Place::Waiting => self.spools_at_once(now) || self.is_too_old(now, entry),
            _ => self.is_over(now) || waited >= self.options.slow_after,
        };
        if !is_due {
            return;
        }
        out.push(Action::Answer { ticket, answer: Answer::Busy { retry_ms: retry_ms(stream) } });
        if place == Place::Waiting {
            return self.remove_entry(ticket, out);
        }
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.waited_for = false;
        }
        self.nobody_waits_for(ticket, stream);
    }

    /// Marks a pack and all before it in its stream for the spool, so that the stream's order there is that of arrival.
    pub(super) fn want_stream_up_to(&mut self, now: Mono, ticket: Ticket) {
        let Some(entry) = self.entries.get(&ticket) else { return };
        let tickets: Vec<Ticket> =
            self.stream(entry.pack.identity.stream).live.range(..=ticket).copied().collect();
        for ticket in tickets {
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            if entry.disk == OnDisk::No && !entry.pack.end_to_end {
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

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_footprint::{Footprint, Remembered};

    const STREAM: StreamId = StreamId(1);

    /// A relay, and what it said since it was asked last.
    struct Test {
        relay: Relay,
        out: Vec<Action>,
    }

    impl Test {
        fn new() -> Test {
            let second = Duration::from_secs(1);
            let options = RelayOptions {
                window_bytes: 1 << 20,
                replay_bytes_max: 1 << 20,
                spool_after: second,
                slow_after: second * 10,
                busy_after: second * 5,
                stop_grace: second,
                footprint_keep: second,
                unix_at_start: 0,
            };
            Test { relay: Relay::new(options, Footprint::default(), HashMap::new()), out: Vec::new() }
        }

        fn at(&mut self, seconds: u64, event: Event) -> Vec<Action> {
            self.relay.on(Duration::from_secs(seconds), event, &mut self.out);
            std::mem::take(&mut self.out)
        }

        fn arrives(&mut self, seconds: u64, ticket: Ticket, offset: u64, end_to_end: bool) -> Vec<Action> {
            let identity = PackIdentity { stream: STREAM, offset, span: 10, sum: 1 };
            let pack = PackInfo { identity, first: 0, repull: end_to_end, end_to_end, bytes: 10 };
            self.at(seconds, Event::Arrived { ticket, pack })
        }
    }

    fn answers(actions: &[Action]) -> Vec<(Ticket, &'static str)> {
        let answer = |action: &Action| match action {
            Action::Answer { ticket, answer } => Some((*ticket, answer.status())),
            _ => None,
        };
        actions.iter().filter_map(answer).collect()
    }

    fn appended(actions: &[Action]) -> Vec<Ticket> {
        let tickets = |action: &Action| match action {
            Action::Append { tickets } => tickets.clone(),
            _ => Vec::new(),
        };
        actions.iter().flat_map(tickets).collect()
    }

    #[test]
    fn a_pack_that_is_shipped_again_is_sent_back_where_the_others_are_spooled() {
        let mut test = Test::new();
        let down = test.arrives(5, 1, 0, true);
        assert_eq!((answers(&down), appended(&down)), (vec![(1, "busy")], vec![]));
        assert_eq!(appended(&test.arrives(5, 2, 10, false)), [2]);
        let durable = vec![(2, RecordId(1))];
        test.at(5, Event::Appended { durable, trouble: None });
        // What was acknowledged here, and is not in the store yet, is not overtaken.
        test.at(6, Event::Targets { up: 1 });
        assert_eq!(answers(&test.arrives(6, 3, 0, true)), [(3, "busy")]);
    }

    #[test]
    fn a_pack_that_is_shipped_again_comes_back_from_a_lost_target_and_hinders_no_other() {
        let mut test = Test::new();
        test.at(1, Event::Targets { up: 1 });
        test.arrives(1, 1, 0, true);
        test.arrives(1, 2, 10, false);
        test.at(2, Event::Targets { up: 0 });
        let mut all = test.at(4, Event::Tick);
        assert!(all.iter().any(|action| matches!(action, Action::Withdraw)), "{all:?}");
        all.extend(test.at(4, Event::Withdrawn { tickets: vec![1, 2] }));
        all.extend(test.at(5, Event::Tick));
        assert_eq!((answers(&all), appended(&all)), (vec![(1, "busy")], vec![2]));
    }

    #[test]
    fn what_a_slow_next_tier_says_of_a_pack_that_is_shipped_again_reaches_whoever_came_back_for_it() {
        let mut test = Test::new();
        test.at(1, Event::Targets { up: 1 });
        let sent = test.arrives(1, 1, 0, true);
        assert!(sent.iter().any(|action| matches!(action, Action::Submit { ticket: 1 })));
        assert_eq!(answers(&test.at(10, Event::Tick)), []);
        assert_eq!(answers(&test.at(11, Event::Tick)), [(1, "busy")]);
        let back = test.arrives(13, 2, 0, true);
        assert!(back.iter().any(|action| matches!(action, Action::Attach { from: 2, to: 1 })), "{back:?}");
        let outcome = Outcome::Conflict(Remembered::default());
        let settled = test.at(14, Event::Settled { ticket: 1, outcome });
        assert_eq!((answers(&settled), appended(&settled)), (vec![(1, "conflict")], vec![]));
        // It is forgotten now, and comes again as a new one.
        let again = test.arrives(15, 3, 0, true);
        assert!(again.iter().any(|action| matches!(action, Action::Submit { ticket: 3 })), "{again:?}");
    }
}
