//! The spool as the relay sees it: group commits, acknowledgements, reading back.

use super::state::{Entry, OnDisk, Place};
use super::*;
use logferry_footprint::SeenPack;
use std::collections::HashSet;

impl Relay {
    /// Starts a group commit with all that is wanted, one at a time.
    pub(super) fn append_what_is_wanted(&mut self, now: Mono, out: &mut Vec<Action>) {
        if !self.writing.is_empty() || self.wanted.is_empty() || now < self.append_retry_at {
            return;
        }
        let mut bytes = 0;
        while let Some(&ticket) = self.wanted.first() {
            let size = self.entries[&ticket].pack.bytes;
            let fits = bytes + size <= APPEND_BYTES_MAX && self.writing.len() < APPEND_PACKS_MAX;
            if !fits && !self.writing.is_empty() {
                break;
            }
            bytes += size;
            self.wanted.remove(&ticket);
            self.begin_writing(ticket);
        }
        out.push(Action::Append { tickets: self.writing.clone() });
    }

    /// The spool was in trouble, and nothing has needed it for a while: what is true of it now shows with the next append.
    pub(super) fn forget_trouble(&mut self, now: Mono) {
        let unused = self.wanted.is_empty() && self.writing.is_empty();
        if self.append_trouble.is_some() && unused && now >= self.append_retry_at + TROUBLE_FORGOTTEN {
            self.append_trouble = None;
        }
    }

    fn begin_writing(&mut self, ticket: Ticket) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.disk = OnDisk::Writing;
        self.writing.push(ticket);
        if entry.place == Place::Waiting {
            let id = entry.pack.identity.stream;
            self.ready.remove(&ticket);
            let stream = self.stream_mut(id);
            stream.parked.remove(&ticket);
            stream.writing_unsent += 1;
        }
    }

    pub(super) fn appended(
        &mut self,
        now: Mono,
        durable: &[(Ticket, RecordId)],
        trouble: Option<SpoolTrouble>,
        out: &mut Vec<Action>,
    ) {
        for &(ticket, record) in durable {
            self.is_durable(ticket, record, out);
        }
        for ticket in std::mem::take(&mut self.writing) {
            // What is durable is not `Writing` any more.
            if self.entries.get(&ticket).is_some_and(|entry| entry.disk == OnDisk::Writing) {
                self.is_not_durable(ticket, out);
            }
        }
        self.append_retry_at = match trouble {
            None => now,
            Some(SpoolTrouble::Full(_)) => now + FULL_RETRY,
            Some(SpoolTrouble::Failed(_)) => now + FAILED_RETRY,
        };
        self.append_trouble = trouble;
    }

    fn is_durable(&mut self, ticket: Ticket, record: RecordId, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let (place, pack) = (entry.place, entry.pack);
        let id = pack.identity.stream;
        self.spool_packs += 1;
        if place == Place::Settled {
            self.stream_mut(id).on_disk += 1;
            self.ack_record(id, record, out);
            return self.remove_entry(ticket, out);
        }
        entry.disk = OnDisk::Durable(record);
        if std::mem::take(&mut entry.waited_for) {
            out.push(Action::Answer { ticket, answer: Answer::Ok });
        }
        self.nobody_waits_for(ticket, id);
        let share = self.spooled_share();
        let stream = self.stream_mut(id);
        stream.on_disk += 1;
        if pack.can_be_duplicate() {
            let surplus = (stream.spooled.len() + 1).saturating_sub(share);
            stream.spooled.drain(..surplus);
            stream.spooled.shrink_to(share);
            stream.spooled.push_back(SeenPack::from(&pack.identity));
        }
        if place == Place::Flight {
            self.records.insert(record, ticket);
        } else {
            stream.writing_unsent -= 1;
            stream.unsent += 1;
            self.unsent_total += 1;
            self.remove_entry(ticket, out);
        }
    }

    /// How many spooled packs each stream may remember now.
    fn spooled_share(&self) -> usize {
        let share = SPOOLED_REMEMBERED_TOTAL / self.streams.len().max(1);
        share.clamp(SPOOLED_REMEMBERED_MIN, SPOOLED_REMEMBERED_MAX)
    }

    fn is_not_durable(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let id = entry.pack.identity.stream;
        match entry.place {
            Place::Settled => return self.remove_entry(ticket, out),
            Place::Waiting => {
                self.ready.insert(ticket);
                self.stream_mut(id).writing_unsent -= 1;
            }
            Place::Flight | Place::Quarantine => {}
        }
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.disk = OnDisk::Wanted;
        }
        self.wanted.insert(ticket);
        self.stream_changed(id);
    }

    /// A record has arrived at the next tier.
    pub(super) fn ack_record(&mut self, id: StreamId, record: RecordId, out: &mut Vec<Action>) {
        let stream = self.stream_mut(id);
        // Damaged records are taken off the count before their copies in flight are settled.
        stream.on_disk = stream.on_disk.saturating_sub(1);
        self.spool_packs = self.spool_packs.saturating_sub(1);
        if self.reading {
            self.acked_while_reading.insert(record);
        }
        if self.recounting {
            self.acks_held.push((id, record));
        } else {
            out.push(Action::AckRecord { record });
        }
    }

    /// Reads on while packs in the spool wait to be sent and their share of the memory has room.
    pub(super) fn read_on(&mut self, now: Mono, out: &mut Vec<Action>) {
        let nothing_to_read = self.unsent_total <= self.replay_queue.len() as u64;
        let not_now = self.targets_up == 0 || self.is_down(now) || self.stop_at.is_some() || self.withdrawing;
        if nothing_to_read || not_now || self.reading || self.recounting || self.read_retry_at.is_some() {
            return;
        }
        if self.replay_bytes >= self.options.replay_bytes_max {
            return;
        }
        self.reading = true;
        self.acked_while_reading.clear();
        out.push(Action::Read {
            epoch: self.epoch,
            bytes_max: self.options.replay_bytes_max - self.replay_bytes,
        });
    }

    pub(super) fn fetched(&mut self, now: Mono, fetched: Fetched, out: &mut Vec<Action>) {
        if fetched.epoch != self.epoch {
            for pack in fetched.packs {
                out.push(Action::Forget { ticket: pack.ticket });
            }
            return;
        }
        self.reading = false;
        for pack in fetched.packs {
            self.take_back_from_disk(now, pack, out);
        }
        self.acked_while_reading.clear();
        self.read_trouble = fetched.trouble;
        let records_are_missing = fetched.end && self.unsent_total > self.replay_queue.len() as u64;
        if self.read_trouble.is_some() || records_are_missing {
            // Damaged records are passed over by the spool: see how many are left, and look at all of them again.
            self.read_retry_at = Some(now + FAILED_RETRY);
            self.read_anew(out);
            self.recounting = true;
            out.push(Action::Recount);
        }
    }

    fn take_back_from_disk(&mut self, now: Mono, fetched: FetchedPack, out: &mut Vec<Action>) {
        let FetchedPack { ticket, record, pack } = fetched;
        if self.records.contains_key(&record) || self.acked_while_reading.contains(&record) {
            return out.push(Action::Forget { ticket });
        }
        self.queue_bytes += pack.bytes;
        self.replay_bytes += pack.bytes;
        self.records.insert(record, ticket);
        if pack.can_be_duplicate() {
            self.by_identity.entry(pack.identity).or_insert(ticket);
        }
        let entry = Entry {
            pack,
            since: now,
            waited_for: false,
            place: Place::Waiting,
            disk: OnDisk::Durable(record),
            wanted_since: None,
            replayed: true,
        };
        self.entries.insert(ticket, entry);
        self.replay_queue.push_back(ticket);
    }

    /// Sets the books right after damage. No acknowledgement was sent since the count was asked for, and what was appended
    /// meanwhile is reported after it.
    pub(super) fn counted(&mut self, mut counts: HashMap<StreamId, u64>, out: &mut Vec<Action>) {
        self.recounting = false;
        for (stream, record) in std::mem::take(&mut self.acks_held) {
            if let Some(count) = counts.get_mut(&stream) {
                *count = count.saturating_sub(1);
            }
            out.push(Action::AckRecord { record });
        }
        let mut sent: HashMap<StreamId, u64> = HashMap::new();
        for entry in self.entries.values() {
            let at_sender = matches!(entry.place, Place::Flight | Place::Quarantine);
            if at_sender && matches!(entry.disk, OnDisk::Durable(_)) {
                *sent.entry(entry.pack.identity.stream).or_default() += 1;
            }
        }
        let known: HashSet<StreamId> = self.streams.keys().chain(counts.keys()).copied().collect();
        for &id in &known {
            let sent = sent.get(&id).copied().unwrap_or(0);
            let on_disk = counts.get(&id).copied().unwrap_or(0).max(sent);
            let stream = self.stream_mut(id);
            stream.on_disk = on_disk;
            stream.unsent = on_disk - sent;
            // Some of them may be lost: they are welcome again.
            stream.spooled.clear();
        }
        self.spool_packs = self.streams.values().map(|stream| stream.on_disk).sum();
        self.unsent_total = self.streams.values().map(|stream| stream.unsent).sum();
        for id in known {
            self.stream_changed(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_footprint::Footprint;

    fn relay() -> Relay {
        let second = Duration::from_secs(1);
        let options = RelayOptions {
            window_bytes: 1 << 20,
            replay_bytes_max: 1 << 20,
            spool_after: second,
            slow_after: second,
            busy_after: second,
            stop_grace: second,
            footprint_keep: second,
            unix_at_start: 0,
        };
        Relay::new(options, Footprint::default(), HashMap::new())
    }

    fn pack(stream: usize, number: usize) -> PackInfo {
        let (stream, offset) = (StreamId(stream as u128), number as u64 * 10);
        PackInfo {
            identity: PackIdentity { stream, offset, span: 10, sum: 1 },
            first: 0,
            repull: false,
            end_to_end: false,
            bytes: 10,
        }
    }

    /// A pack arrives while no target is up, and is fsynced; the answer to it.
    fn spool(relay: &mut Relay, ticket: Ticket, pack: PackInfo) -> Option<Answer> {
        let (now, mut out) = (Duration::from_secs(100), Vec::new());
        relay.on(now, Event::Arrived { ticket, pack }, &mut out);
        let durable = vec![(ticket, RecordId(ticket))];
        relay.on(now, Event::Appended { durable, trouble: None }, &mut out);
        out.into_iter().find_map(|action| match action {
            Action::Answer { answer, .. } => Some(answer),
            _ => None,
        })
    }

    #[test]
    fn what_is_remembered_of_spooled_packs_is_bounded_over_all_streams() {
        const STREAMS: usize = 4_000;
        let (mut relay, mut ticket) = (relay(), 0);
        for number in 0..40 {
            for stream in 0..STREAMS {
                ticket += 1;
                assert_eq!(spool(&mut relay, ticket, pack(stream, number)), Some(Answer::Ok));
            }
        }
        let remembered: usize = relay.streams.values().map(|stream| stream.spooled.capacity()).sum();
        assert!(remembered <= SPOOLED_REMEMBERED_TOTAL, "{remembered}");
        for stream in 0..STREAMS {
            ticket += 1;
            assert_eq!(spool(&mut relay, ticket, pack(stream, 39)), Some(Answer::Duplicate));
        }
    }
}
