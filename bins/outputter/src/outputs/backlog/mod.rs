//! Decides what becomes of packs that go to an output which can be away, such as a database: stored at once, kept in the spool
//! until the output is back, or told to come again. Pure: takes events and the time, gives back actions; no I/O, no clock, no
//! threads.
//!
//! ```text
//! offered ─▶ waiting ─▶ storing ─▶ stored ─▶ recorded in the footprint: answered, gone from the spool
//!               │ the output is away or slow, or the spool has older packs
//!               └─▶ kept in the spool (answered) ─▶ read back in order ─▶ storing …
//! ```
//!
//! A pack is answered when it is recorded or kept. There are two footprints: of what is *taken* (stored or kept), by which packs that
//! come in are judged, and of what is *stored*, by which packs are judged that are read back.

mod entry;
mod intake;
mod settle;
mod spill;

pub use entry::{Overlap, PackInfo, Ticket};

use entry::{Entry, Stage};
use logferry_footprint::{Footprint, PackSeen};
use logferry_link::Answer;
use logferry_pack::StreamId;
use logferry_spool::RecordId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

/// What bounds it.
#[derive(Clone, Copy, Debug)]
pub struct BacklogLimits {
    /// Bytes of packs in memory above which they go to the spool.
    pub queue_bytes_max: u64,
    /// Costs of packs that are being stored at the same time; a single one may cost more.
    pub storing_cost_max: u64,
    /// How long a pack waits for the output before it goes to the spool, in milliseconds.
    pub spool_after_ms: u64,
    /// How long a pack is left without an answer, in milliseconds.
    pub answer_ms_max: u64,
    /// Bytes of one group that is written to the spool.
    pub group_bytes_max: u64,
    /// Packs are recorded in the order in which they came: what came later is not known to be stored before what came earlier is.
    pub in_order: bool,
}

/// The time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds since any begin.
    pub ms: u64,
    /// Seconds since 1970.
    pub unix: u64,
}

/// What is to be done. `P` is a pack, `W` whoever waits for an answer.
#[derive(Debug)]
pub enum Action<P, W> {
    /// To be answered.
    Answer(W, Answer),
    /// To be stored in the output: [`Backlog::stored`] or [`Backlog::refused`] follow.
    Store(Ticket, P),
    /// To be appended to the spool in this order, and synced: [`Backlog::kept`] follows.
    Keep(Vec<(Ticket, P)>),
    /// To be written into the footprint's log as kept, whenever.
    Taken(Vec<PackSeen>),
    /// To be written into the footprint's log as stored, and synced: [`Backlog::recorded`] follows.
    Record(Vec<PackSeen>),
    /// The footprint's log is to begin anew with these bytes.
    Snapshot(Vec<u8>),
    /// Records of up to so many bytes are to be read back: [`Backlog::read`] follows.
    Read(u64),
    /// The spool need not keep these any longer.
    Arrived(Vec<RecordId>),
    /// To be set aside for good, with the reason: [`Backlog::set_aside`] follows.
    SetAside(Ticket, P, String),
}

/// Numbers for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BacklogFigures {
    /// Packs in memory.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that are being stored.
    pub storing: u64,
    /// Packs go to the spool.
    pub spooling: bool,
    /// Why the spool takes none.
    pub spool_trouble: Option<String>,
    /// Why stored packs are not recorded.
    pub record_trouble: bool,
    /// Memory of both footprints, in bytes.
    pub footprint_bytes: u64,
}

/// The pack that others of its stream wait for.
#[derive(Clone, Copy, Debug)]
struct MissingPack {
    /// Up to where the stream is known: another frontier is another gap.
    frontier: u64,
    since_ms: u64,
}

/// The deciding core.
pub struct Backlog<P, W> {
    limits: BacklogLimits,
    taken: Footprint,
    stored: Footprint,
    packs: BTreeMap<Ticket, Entry<P, W>>,
    /// Packs in memory by stream and offset; their ranges do not overlap.
    by_place: BTreeMap<(StreamId, u64), Ticket>,
    by_record: HashMap<RecordId, Ticket>,
    /// Packs that wait and are not in the spool.
    waiting: BTreeSet<Ticket>,
    /// Packs that wait and are in the spool, by where they are there: that is the order in which they came first.
    kept_waiting: BTreeSet<RecordId>,
    /// Packs that are neither in the spool nor recorded as stored, nor refused by the output.
    unkept: BTreeSet<Ticket>,
    next_ticket: Ticket,
    /// Of all packs in memory.
    bytes: u64,
    storing_cost: u64,
    /// Packs that were given to the output, in that order, until they are to be recorded.
    storing: VecDeque<Ticket>,
    /// Stored packs that wait for the next record.
    to_record: Vec<Ticket>,
    /// What is being recorded.
    recording: Vec<Ticket>,
    /// Recording failed: when to try again.
    record_again_ms: Option<u64>,
    /// All packs go through the spool.
    spooling: bool,
    /// The group that is being appended.
    appending: Vec<Ticket>,
    /// Records are being read.
    reading: bool,
    /// The spool may hold records that are not in memory.
    unread: bool,
    /// Since the last reading began, packs were left to the spool alone.
    left_since_reading: bool,
    /// Records that arrived while others were read: those may be among them.
    arrived_while_reading: HashSet<RecordId>,
    /// Streams of which a pack was told to come again, or did not come, before others.
    gaps: HashMap<StreamId, MissingPack>,
    /// The footprint's log is to begin anew once nothing is being recorded: else the snapshot would lack that.
    snapshot_due: bool,
    spool_trouble: Option<String>,
    /// The spool failed: when to try again.
    spool_again_ms: u64,
    stopping: bool,
}

impl<P: Clone, W> Backlog<P, W> {
    /// Over the footprints of what is taken and stored; `spooled` says whether the spool holds packs.
    pub fn new(limits: BacklogLimits, taken: Footprint, stored: Footprint, spooled: bool) -> Backlog<P, W> {
        Backlog {
            limits,
            taken,
            stored,
            packs: BTreeMap::new(),
            by_place: BTreeMap::new(),
            by_record: HashMap::new(),
            waiting: BTreeSet::new(),
            kept_waiting: BTreeSet::new(),
            unkept: BTreeSet::new(),
            next_ticket: 0,
            bytes: 0,
            storing_cost: 0,
            storing: VecDeque::new(),
            to_record: Vec::new(),
            recording: Vec::new(),
            record_again_ms: None,
            spooling: spooled,
            appending: Vec::new(),
            reading: false,
            unread: spooled,
            left_since_reading: false,
            arrived_while_reading: HashSet::new(),
            gaps: HashMap::new(),
            snapshot_due: false,
            spool_trouble: None,
            spool_again_ms: 0,
            stopping: false,
        }
    }

    /// Time went by. To be called every [`Backlog::TICK_MS`] while there is anything in memory, and once at the start.
    pub fn tick(&mut self, now: Now) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        self.answer_overdue(now, &mut actions);
        self.record_again(now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// How often [`Backlog::tick`] is due.
    pub const TICK_MS: u64 = 100;

    /// The program stops: nothing new is taken or given to the output. Who waits unanswered is to send again.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether a stop need not wait: nothing is on its way into the footprint or the spool, and what the output has not finished is in
    /// the spool.
    pub fn is_settled(&self) -> bool {
        let busy = |entry: &Entry<P, W>| entry.stage == Stage::Storing && entry.record.is_none();
        let recording = !self.recording.is_empty() || !self.to_record.is_empty();
        !recording && self.appending.is_empty() && !self.packs.values().any(busy)
    }

    /// Forgets streams whose last pack is older than `keep_secs`.
    pub fn expire(&mut self, now: Now, keep_secs: u64) -> usize {
        self.stored.expire(now.unix, keep_secs);
        self.taken.expire(now.unix, keep_secs)
    }

    /// The footprint's log is long enough to begin anew.
    pub fn snapshot_wanted(&mut self) -> Vec<Action<P, W>> {
        let mut actions = Vec::new();
        self.snapshot_due = true;
        self.snapshot_if_due(&mut actions);
        actions
    }

    fn snapshot_if_due(&mut self, actions: &mut Vec<Action<P, W>>) {
        if self.snapshot_due && self.recording.is_empty() {
            self.snapshot_due = false;
            actions.push(Action::Snapshot(self.snapshot()));
        }
    }

    /// Bytes of both footprints, for [`Action::Snapshot`]: see [`super::log`].
    fn snapshot(&self) -> Vec<u8> {
        super::log::snapshot_bytes(&self.taken, &self.stored)
    }

    /// Numbers for the status.
    pub fn figures(&self) -> BacklogFigures {
        BacklogFigures {
            packs: self.packs.len() as u64,
            bytes: self.bytes,
            storing: self.storing.len() as u64,
            spooling: self.spooling,
            spool_trouble: self.spool_trouble.clone(),
            record_trouble: self.record_again_ms.is_some(),
            footprint_bytes: (self.taken.memory_bytes() + self.stored.memory_bytes()) as u64,
        }
    }

    /// Does all that has become possible.
    fn advance(&mut self, now: Now, actions: &mut Vec<Action<P, W>>) {
        if self.stopping {
            return;
        }
        self.judge_mode(now);
        self.start_storing(actions);
        self.keep_some(now, actions);
        self.read_some(actions);
    }

    /// Gives waiting packs to the output, in order, while there is room. While packs go through the spool only those that are
    /// in it: the others are newer.
    fn start_storing(&mut self, actions: &mut Vec<Action<P, W>>) {
        while let Some(ticket) = self.next_to_store() {
            let Some(entry) = self.packs.get_mut(&ticket) else { return };
            if self.storing_cost > 0 && self.storing_cost + entry.info.cost > self.limits.storing_cost_max {
                return;
            }
            self.storing_cost += entry.info.cost;
            entry.stage = Stage::Storing;
            actions.push(Action::Store(ticket, entry.pack.clone()));
            self.storing.push_back(ticket);
            self.waiting.remove(&ticket);
            if let Some(record) = &entry.record {
                self.kept_waiting.remove(record);
            }
        }
    }

    fn next_to_store(&self) -> Option<Ticket> {
        let kept = self.kept_waiting.first().and_then(|record| self.by_record.get(record));
        let fresh = self.waiting.first().filter(|_| !self.spooling);
        kept.or(fresh).copied()
    }

    fn insert(&mut self, entry: Entry<P, W>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.bytes += entry.info.bytes;
        self.by_place.insert((entry.info.identity.stream, entry.info.identity.offset), ticket);
        if let Some(record) = entry.record {
            self.by_record.insert(record, ticket);
            self.kept_waiting.insert(record);
        } else {
            self.waiting.insert(ticket);
            self.unkept.insert(ticket);
        }
        self.packs.insert(ticket, entry);
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Entry<P, W>> {
        let entry = self.packs.remove(&ticket)?;
        self.bytes -= entry.info.bytes;
        if entry.stage != Stage::Waiting {
            // Until here: what is stored and cannot be recorded takes memory too.
            self.storing_cost -= entry.info.cost;
        }
        let place = (entry.info.identity.stream, entry.info.identity.offset);
        if self.by_place.get(&place) == Some(&ticket) {
            self.by_place.remove(&place);
        }
        for record in entry.records() {
            self.by_record.remove(&record);
            self.kept_waiting.remove(&record);
        }
        self.waiting.remove(&ticket);
        self.unkept.remove(&ticket);
        Some(entry)
    }

    /// The spool need not keep a record any longer.
    fn arrived(&mut self, record: RecordId, actions: &mut Vec<Action<P, W>>) {
        if self.reading {
            self.arrived_while_reading.insert(record);
        }
        match actions.last_mut() {
            Some(Action::Arrived(records)) => records.push(record),
            _ => actions.push(Action::Arrived(vec![record])),
        }
    }
}
