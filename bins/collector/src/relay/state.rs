//! The relay's state, and the order in which an event is handled: the event itself, what time has brought, then
//! whatever may go on now.

use super::*;
use logferry_footprint::{Footprint, SeenPack};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// Where a pack in memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In memory only (or on its way to the spool).
    Waiting,
    /// At the sender.
    Flight,
    /// Settled while its copy is being written; the copy is acknowledged as soon as it is there.
    Settled,
    /// On its way to the quarantine.
    Quarantine,
}

/// Whether a pack in memory is in the spool too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnDisk {
    /// No, and it need not be.
    No,
    /// To be appended by the next group commit.
    Wanted,
    /// In the group commit that is going on.
    Writing,
    /// Fsynced.
    Durable(RecordId),
}

/// A pack in memory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pack: PackInfo,
    /// Arrival, or when somebody began to wait for it.
    pub(super) since: Mono,
    /// Somebody waits for an answer.
    pub(super) waited_for: bool,
    pub(super) place: Place,
    pub(super) disk: OnDisk,
    /// When it was first to be spooled.
    pub(super) wanted_since: Option<Mono>,
    /// Was read back from the spool.
    pub(super) replayed: bool,
}

/// What is known of a stream that has packs in memory or in the spool.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    /// Packs that somebody waits for, in order of arrival.
    pub(super) live: BTreeSet<Ticket>,
    /// Packs that wait behind packs in the spool.
    pub(super) parked: BTreeSet<Ticket>,
    /// Records in the spool that are not acknowledged.
    pub(super) on_disk: u64,
    /// Those of them that are not at the sender.
    pub(super) unsent: u64,
    /// Packs that are being written and are not at the sender.
    pub(super) writing_unsent: u64,
    /// Packs lately spooled, for telling duplicates.
    pub(super) spooled: VecDeque<SeenPack>,
}

impl Stream {
    /// Whether a pack that passed through now would overtake one of its stream.
    pub(super) fn is_blocked(&self) -> bool {
        self.unsent > 0 || self.writing_unsent > 0
    }

    fn is_idle(&self) -> bool {
        self.live.is_empty() && self.on_disk == 0 && self.writing_unsent == 0
    }
}

/// A stream that has packs which were answered `busy` and did not come back yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    /// Their offsets.
    pub(super) offsets: BTreeSet<u64>,
    pub(super) until: Mono,
}

/// The state machine; see the module.
pub struct Relay {
    pub(super) options: RelayOptions,
    pub(super) footprint: Footprint,
    pub(super) entries: BTreeMap<Ticket, Entry>,
    pub(super) by_identity: HashMap<PackIdentity, Ticket>,
    /// Packs that are not to be spooled, and have bytes to be known by.
    pub(super) end_to_end: HashMap<PackIdentity, Ticket>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) holds: HashMap<StreamId, Hold>,
    /// Packs that somebody waits for.
    pub(super) unanswered: BTreeSet<Ticket>,
    /// Packs that wait for room in the window.
    pub(super) ready: BTreeSet<Ticket>,
    /// Packs to append to the spool.
    pub(super) wanted: BTreeSet<Ticket>,
    /// Packs in the group commit that is going on.
    pub(super) writing: Vec<Ticket>,
    /// Packs read back, not at the sender yet.
    pub(super) replay_queue: VecDeque<Ticket>,
    pub(super) replay_bytes: u64,
    /// Records in memory, so that they are not read a second time.
    pub(super) records: HashMap<RecordId, Ticket>,
    pub(super) queue_bytes: u64,
    pub(super) flight_packs: u64,
    pub(super) flight_bytes: u64,
    pub(super) spool_packs: u64,
    pub(super) unsent_total: u64,

    pub(super) targets_up: usize,
    pub(super) down_since: Option<Mono>,
    pub(super) withdrawing: bool,
    /// What was in flight when this outage began has been taken back.
    pub(super) withdrawn: bool,
    /// Last time that a pack was settled, or the first one came in flight, or a target came up.
    pub(super) progress_at: Mono,
    pub(super) stop_at: Option<Mono>,

    pub(super) epoch: u64,
    pub(super) reading: bool,
    /// Records acknowledged while a read is going on: its answer may still hold them.
    pub(super) acked_while_reading: HashSet<RecordId>,
    pub(super) read_retry_at: Option<Mono>,
    pub(super) recounting: bool,
    /// Acknowledgements kept back while records are being counted.
    pub(super) acks_held: Vec<(StreamId, RecordId)>,
    pub(super) append_retry_at: Mono,
    pub(super) append_trouble: Option<SpoolTrouble>,
    pub(super) read_trouble: Option<SpoolTrouble>,

    pub(super) next_sweep: Mono,
    expire_at: Mono,
    pub(super) duplicates_total: u64,
    pub(super) bytes_total: u64,
    pub(super) forwarded_bytes_total: u64,
}

impl Relay {
    /// `footprint` is what the last run left; `pending` the records per stream in the spool. No target is up yet.
    pub fn new(options: RelayOptions, footprint: Footprint, pending: HashMap<StreamId, u64>) -> Relay {
        let spool_packs = pending.values().sum();
        let streams = pending
            .into_iter()
            .filter(|(_, records)| *records > 0)
            .map(|(id, records)| (id, Stream { on_disk: records, unsent: records, ..Stream::default() }))
            .collect();
        Relay {
            options,
            footprint,
            streams,
            spool_packs,
            unsent_total: spool_packs,
            entries: BTreeMap::new(),
            by_identity: HashMap::new(),
            end_to_end: HashMap::new(),
            holds: HashMap::new(),
            unanswered: BTreeSet::new(),
            ready: BTreeSet::new(),
            wanted: BTreeSet::new(),
            writing: Vec::new(),
            replay_queue: VecDeque::new(),
            replay_bytes: 0,
            records: HashMap::new(),
            queue_bytes: 0,
            flight_packs: 0,
            flight_bytes: 0,
            targets_up: 0,
            down_since: Some(Mono::ZERO),
            withdrawing: false,
            withdrawn: false,
            progress_at: Mono::ZERO,
            stop_at: None,
            epoch: 0,
            reading: false,
            acked_while_reading: HashSet::new(),
            read_retry_at: None,
            recounting: false,
            acks_held: Vec::new(),
            append_retry_at: Mono::ZERO,
            append_trouble: None,
            read_trouble: None,
            next_sweep: Mono::ZERO,
            expire_at: EXPIRE_INTERVAL,
            duplicates_total: 0,
            bytes_total: 0,
            forwarded_bytes_total: 0,
        }
    }

    /// Handles an event. Actions are appended to `out` and are to be carried out in order.
    pub fn on(&mut self, now: Mono, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Arrived { ticket, pack } => self.arrive(now, ticket, pack, out),
            Event::Settled { ticket, outcome } => self.settle(now, ticket, outcome, out),
            Event::Targets { up } => self.targets(now, up),
            Event::Withdrawn { tickets } => self.take_back(now, &tickets, out),
            Event::Appended { durable, trouble } => self.appended(now, &durable, trouble, out),
            Event::Fetched(fetched) => self.fetched(now, fetched, out),
            Event::Counted(counts) => self.counted(counts, out),
            Event::Quarantined { ticket } => self.quarantined(ticket, out),
            Event::Stop => self.stop_at = Some(now + self.options.stop_grace),
            Event::Tick => {}
        }
        if now >= self.next_sweep {
            self.next_sweep = now + self.sweep_interval();
            self.sweep(now, out);
        }
        self.forget_trouble(now);
        self.submit_what_may_go(now, out);
        self.append_what_is_wanted(now, out);
        self.read_on(now, out);
    }

    /// When to come back with [`Event::Tick`] if nothing else happens; `None` when there is nothing to wait for.
    pub fn deadline(&self) -> Option<Mono> {
        let waiting = !self.unanswered.is_empty()
            || self.flight_packs > 0
            || self.read_retry_at.is_some()
            || self.append_trouble.is_some()
            || !self.holds.is_empty();
        waiting.then_some(self.next_sweep)
    }

    /// Whether another pack may be taken from the receiver.
    pub fn wants_more(&self) -> bool {
        self.entries.len() < PACKS_MAX
    }

    /// Whether nobody waits for an answer and nothing is being written: the node may stop.
    pub fn is_drained(&self) -> bool {
        self.unanswered.is_empty() && self.writing.is_empty()
    }

    /// The footprint, for a snapshot of it.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Figures of now.
    pub fn figures(&self, now: Mono) -> RelayFigures {
        RelayFigures {
            queue_packs: self.entries.len() as u64,
            queue_bytes: self.queue_bytes,
            flight_packs: self.flight_packs,
            unanswered: self.unanswered.len() as u64,
            spool_packs: self.spool_packs,
            streams: self.footprint.streams() as u64,
            footprint_bytes: self.footprint.memory_bytes() as u64,
            streams_forgotten: self.footprint.forgotten().streams,
            streams_active: self.streams.len() as u64,
            duplicates_total: self.duplicates_total,
            bytes_total: self.bytes_total,
            forwarded_bytes_total: self.forwarded_bytes_total,
            targets_up: self.targets_up as u64,
            stalled: self.is_stalled(now),
            trouble: self.append_trouble.clone().or_else(|| self.read_trouble.clone()),
        }
    }

    /// What time brings: outages, stalls, packs that became too old.
    fn sweep(&mut self, now: Mono, out: &mut Vec<Action>) {
        if self.is_down(now) && self.flight_packs > 0 && !self.withdrawn && !self.withdrawing {
            self.withdrawing = true;
            out.push(Action::Withdraw);
        }
        if self.read_retry_at.is_some_and(|at| now >= at) {
            self.read_retry_at = None;
        }
        self.holds.retain(|_, hold| now < hold.until);
        self.sweep_unanswered(now, out);
        if now >= self.expire_at {
            self.expire_at = now + EXPIRE_INTERVAL;
            self.footprint.expire(self.unix(now), self.options.footprint_keep.as_secs());
        }
    }

    /// Goes through the packs that somebody waits for, oldest first, as far as one may have become too old.
    fn sweep_unanswered(&mut self, now: Mono, out: &mut Vec<Action>) {
        let all = self.spools_at_once(now);
        let tickets: Vec<Ticket> = self
            .unanswered
            .iter()
            .copied()
            .take_while(|ticket| {
                all || now.saturating_sub(self.entries[ticket].since) >= self.options.spool_after
            })
            .collect();
        for ticket in tickets {
            // An earlier turn may have answered this one too.
            let Some(entry) = self.entries.get(&ticket) else { continue };
            match (entry.disk, entry.place) {
                _ if entry.pack.end_to_end => self.send_back(now, ticket, out),
                (OnDisk::No, _) if all || self.is_too_old(now, entry) => self.want_stream_up_to(now, ticket),
                (OnDisk::Wanted, Place::Waiting) if self.has_no_prospect(now, entry) => {
                    self.answer_busy(now, ticket, out);
                }
                _ => {}
            }
        }
    }

    /// Whether every pack that comes in goes to the spool without being tried first.
    pub(super) fn spools_at_once(&self, now: Mono) -> bool {
        self.is_down(now) || self.is_stalled(now) || self.is_over(now)
    }

    /// The node stops, and its grace is over.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        self.stop_at.is_some_and(|at| now >= at)
    }

    pub(super) fn is_too_old(&self, now: Mono, entry: &Entry) -> bool {
        let age = now.saturating_sub(entry.since);
        let behind_spooled =
            entry.place == Place::Waiting && self.stream(entry.pack.identity.stream).is_blocked();
        age >= self.options.slow_after || (age >= self.options.spool_after && behind_spooled)
    }

    fn has_no_prospect(&self, now: Mono, entry: &Entry) -> bool {
        entry.wanted_since.is_some_and(|since| now.saturating_sub(since) >= self.options.busy_after)
    }

    /// No target has been up for `spool_after`.
    pub(super) fn is_down(&self, now: Mono) -> bool {
        self.down_since.is_some_and(|since| now.saturating_sub(since) >= self.options.spool_after)
    }

    /// A target is up, but it has not settled anything for `spool_after`.
    pub(super) fn is_stalled(&self, now: Mono) -> bool {
        self.targets_up > 0
            && self.flight_packs > 0
            && now.saturating_sub(self.progress_at) >= self.options.spool_after
    }

    fn targets(&mut self, now: Mono, up: usize) {
        if up > 0 && self.down_since.take().is_some() {
            self.progress_at = now;
            self.withdrawn = false;
        }
        if up == 0 && self.down_since.is_none() {
            self.down_since = Some(now);
        }
        self.targets_up = up;
    }

    fn sweep_interval(&self) -> Duration {
        (self.options.spool_after / 8).clamp(Duration::from_millis(5), Duration::from_millis(125))
    }

    pub(super) fn unix(&self, now: Mono) -> u64 {
        self.options.unix_at_start + now.as_secs()
    }

    pub(super) fn stream(&self, id: StreamId) -> &Stream {
        self.streams.get(&id).unwrap_or(&IDLE_STREAM)
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> &mut Stream {
        self.streams.entry(id).or_default()
    }

    /// After something changed for a stream: packs behind it may be ready, or nothing is left to know of it.
    pub(super) fn stream_changed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.is_blocked() {
            self.ready.append(&mut stream.parked);
        }
        if stream.is_idle() {
            self.streams.remove(&id);
        }
    }

    /// Forgets a pack in memory.
    pub(super) fn remove_entry(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.remove(&ticket) else { return };
        self.queue_bytes -= entry.pack.bytes;
        if entry.replayed {
            self.replay_bytes -= entry.pack.bytes;
        }
        if let OnDisk::Durable(record) = entry.disk {
            self.records.remove(&record);
        }
        self.no_longer_known_as(&entry.pack.identity, ticket);
        self.ready.remove(&ticket);
        self.wanted.remove(&ticket);
        self.nobody_waits_for(ticket, entry.pack.identity.stream);
        if let Some(stream) = self.streams.get_mut(&entry.pack.identity.stream) {
            stream.parked.remove(&ticket);
        }
        self.stream_changed(entry.pack.identity.stream);
        out.push(Action::Forget { ticket });
    }

    /// Packs with this identity that come in from now on are new ones.
    pub(super) fn no_longer_known_as(&mut self, identity: &PackIdentity, ticket: Ticket) {
        for known in [&mut self.by_identity, &mut self.end_to_end] {
            if known.get(identity) == Some(&ticket) {
                known.remove(identity);
            }
        }
    }

    /// Strikes a pack from the lists of those that somebody waits for.
    pub(super) fn nobody_waits_for(&mut self, ticket: Ticket, stream: StreamId) {
        self.unanswered.remove(&ticket);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.live.remove(&ticket);
        }
    }
}

/// How often streams are looked at that may be forgotten.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(3_600);

static IDLE_STREAM: Stream = Stream {
    live: BTreeSet::new(),
    parked: BTreeSet::new(),
    on_disk: 0,
    unsent: 0,
    writing_unsent: 0,
    spooled: VecDeque::new(),
};
