//! Packs on their way to an output that can be away, under crashes, lost answers, full spools and slow databases: what is
//! acknowledged is in the output or in the spool, all arrives, and in order where that is asked for.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use logferry_footprint::PackSeen;
use logferry_link::Answer;
use logferry_outputter::outputs::backlog::{Action, Backlog, BacklogLimits, Now, Overlap, PackInfo, Ticket};
use logferry_outputter::outputs::log::{Seen, kept_record, stored_record};
use logferry_pack::{PackIdentity, StreamId};
use logferry_spool::RecordId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const STREAMS: u128 = 3;
const PACKS: u64 = 12;
const SPAN: u64 = 10;
/// Packs of a stream that are sent and not answered.
const WINDOW: usize = 4;
const BYTES: u64 = 100;
const STEPS_MAX: u64 = 60_000;

/// A pack: stream and number.
type Pack = (u128, u64);

fn info(pack: Pack) -> PackInfo {
    let identity =
        PackIdentity { stream: StreamId(pack.0), offset: pack.1 * SPAN, span: SPAN, sum: pack.1 as u32 };
    PackInfo { identity, first: 0, bytes: BYTES, cost: BYTES, overlap: Overlap::Conflict }
}

#[derive(Debug)]
enum Job {
    Keep(Vec<(Ticket, Pack)>),
    Taken(Vec<PackSeen>),
    Record(Vec<PackSeen>),
    Snapshot(Vec<u8>),
    Read(u64),
    Arrived(Vec<RecordId>),
}

/// A sender of one stream, as the link has it: in order, again after busy answers and lost connections.
#[derive(Default)]
struct Sender {
    acknowledged: BTreeSet<u64>,
    in_flight: BTreeSet<u64>,
    /// Its connections so far: answers to an earlier one are lost.
    connection: u64,
}

/// A pack and the connection on which it came.
type Waiter = (Pack, u64);

struct World {
    random: StdRng,
    now: Now,
    limits: BacklogLimits,
    backlog: Backlog<Pack, Waiter>,
    senders: BTreeMap<u128, Sender>,
    jobs: VecDeque<Job>,
    /// Record, pack, whether it arrived.
    spool: Vec<(u64, Pack, bool)>,
    spool_cursor: u64,
    spool_room: usize,
    snapshot: Option<Vec<u8>>,
    log: Vec<Vec<u8>>,
    log_synced: usize,
    log_fails: bool,
    snapshot_asked: bool,
    storing: VecDeque<(Ticket, Pack)>,
    database: Vec<Pack>,
    database_up: bool,
    memory_max: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let limits = BacklogLimits {
            queue_bytes_max: random.random_range(1..8) * BYTES,
            storing_cost_max: random.random_range(1..6) * BYTES,
            spool_after_ms: random.random_range(1..500),
            answer_ms_max: 2_000,
            group_bytes_max: random.random_range(1..4) * BYTES,
            in_order: seed.is_multiple_of(2),
        };
        World {
            now: Now { ms: 0, unix: 1_000 },
            limits,
            backlog: Backlog::new(limits, Default::default(), Default::default(), false),
            senders: (0..STREAMS).map(|stream| (stream, Sender::default())).collect(),
            jobs: VecDeque::new(),
            spool: Vec::new(),
            spool_cursor: 0,
            spool_room: random.random_range(2..100),
            snapshot: None,
            log: Vec::new(),
            log_synced: 0,
            log_fails: false,
            snapshot_asked: false,
            storing: VecDeque::new(),
            database: Vec::new(),
            database_up: true,
            memory_max: 0,
            random,
        }
    }

    fn is_safe(&self, pack: Pack) -> bool {
        self.database.contains(&pack) || self.spool.iter().any(|(_, kept, arrived)| *kept == pack && !arrived)
    }

    fn act(&mut self, actions: Vec<Action<Pack, Waiter>>) {
        for action in actions {
            match action {
                Action::Answer(pack, answer) => self.answer(pack, &answer),
                Action::Store(ticket, pack) => self.storing.push_back((ticket, pack)),
                Action::Keep(group) => self.jobs.push_back(Job::Keep(group)),
                Action::Taken(packs) => self.jobs.push_back(Job::Taken(packs)),
                Action::Record(packs) => self.jobs.push_back(Job::Record(packs)),
                Action::Snapshot(bytes) => self.jobs.push_back(Job::Snapshot(bytes)),
                Action::Read(bytes) => self.jobs.push_back(Job::Read(bytes)),
                Action::Arrived(records) => self.jobs.push_back(Job::Arrived(records)),
                Action::SetAside(_, pack, reason) => panic!("{pack:?} was set aside: {reason}"),
            }
        }
        let figures = self.backlog.figures();
        self.memory_max = self.memory_max.max(figures.bytes);
    }

    fn answer(&mut self, (pack, connection): Waiter, answer: &Answer) {
        let is_good = matches!(answer, Answer::Ok | Answer::Duplicate);
        assert!(!is_good || self.is_safe(pack), "{pack:?} was acknowledged and is nowhere");
        assert!(is_good || matches!(answer, Answer::Busy { .. }), "{pack:?}: {answer:?}");
        let is_cut = self.random.random_ratio(1, 20);
        let sender = self.senders.get_mut(&pack.0).unwrap();
        if connection != sender.connection {
            return;
        }
        if is_cut {
            sender.connection += 1;
            sender.in_flight.clear();
            return;
        }
        sender.in_flight.remove(&pack.1);
        if is_good {
            sender.acknowledged.insert(pack.1);
        }
    }

    /// Sends the first pack that is neither acknowledged nor in flight; none overtakes another that is not in flight.
    fn send(&mut self) {
        let stream = self.random.random_range(0..STREAMS);
        let sender = self.senders.get_mut(&stream).unwrap();
        let next = (0..PACKS).find(|n| !sender.acknowledged.contains(n) && !sender.in_flight.contains(n));
        let Some(next) = next.filter(|_| sender.in_flight.len() < WINDOW) else { return };
        // As the link does: after a busy answer what was sent behind is sent again too, so that order is kept.
        if sender.in_flight.iter().any(|other| *other > next) {
            return;
        }
        sender.in_flight.insert(next);
        let pack = (stream, next);
        let waiter = (pack, sender.connection);
        let actions = self.backlog.offered(self.now, info(pack), pack, waiter);
        self.act(actions);
    }

    fn disk(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        let actions = match job {
            Job::Keep(group) => {
                let durable = self.append(&group);
                let trouble = (durable.len() < group.len()).then(|| "full".to_owned());
                self.backlog.kept(self.now, &durable, trouble)
            }
            Job::Taken(packs) => {
                self.log.extend(packs.iter().map(kept_record));
                Vec::new()
            }
            Job::Record(packs) => {
                let is_good = !self.log_fails && !self.random.random_ratio(1, 30);
                if is_good {
                    self.log.extend(packs.iter().map(stored_record));
                    self.log_synced = self.log.len();
                }
                self.log_fails = !is_good;
                self.backlog.recorded(self.now, is_good)
            }
            Job::Snapshot(bytes) => {
                (self.log_fails, self.snapshot_asked) = (false, false);
                self.snapshot = Some(bytes);
                self.log.clear();
                self.log_synced = 0;
                Vec::new()
            }
            Job::Read(bytes_max) => {
                let waiting =
                    self.spool.iter().filter(|(id, _, arrived)| !arrived && *id >= self.spool_cursor);
                let all: Vec<_> = waiting.map(|(id, pack, _)| (RecordId(*id), info(*pack), *pack)).collect();
                let some: Vec<_> = all.iter().take((bytes_max / BYTES).max(1) as usize).copied().collect();
                if let Some((RecordId(last), ..)) = some.last() {
                    self.spool_cursor = last + 1;
                }
                let is_end = some.len() == all.len() && self.random.random_bool(0.7);
                self.backlog.read(self.now, some, is_end)
            }
            Job::Arrived(records) => {
                for (id, pack, arrived) in &mut self.spool {
                    if records.contains(&RecordId(*id)) {
                        assert!(self.database.contains(pack), "{pack:?} leaves the spool and is not stored");
                        *arrived = true;
                    }
                }
                Vec::new()
            }
        };
        self.act(actions);
        // Reports come in order, but the core may have asked for more before it sees this one.
        if !self.snapshot_asked && self.random.random_ratio(1, 20) {
            self.snapshot_asked = true;
            let actions = self.backlog.snapshot_wanted();
            self.act(actions);
        }
    }

    fn append(&mut self, group: &[(Ticket, Pack)]) -> Vec<(Ticket, RecordId)> {
        let used = self.spool.iter().filter(|(_, _, arrived)| !arrived).count();
        let room = self.spool_room.saturating_sub(used);
        let fails = self.random.random_ratio(1, 20);
        let mut durable = Vec::new();
        for (ticket, pack) in group.iter().take(if fails { 0 } else { room }) {
            let record = self.spool.len() as u64;
            self.spool.push((record, *pack, false));
            durable.push((*ticket, RecordId(record)));
        }
        durable
    }

    /// The database takes a pack: the first where order matters, else any. It may have it without saying so for now.
    fn store(&mut self) {
        if !self.database_up || self.storing.is_empty() {
            return;
        }
        let at = if self.limits.in_order { 0 } else { self.random.random_range(0..self.storing.len()) };
        let (ticket, pack) = self.storing[at];
        self.database.push(pack);
        if self.random.random_bool(0.9) {
            self.storing.remove(at);
            let actions = self.backlog.stored(self.now, ticket);
            self.act(actions);
        }
    }

    /// The process dies, and perhaps the machine: what was not synced may be gone. (Order is promised over the death of the process only.)
    fn crash(&mut self) {
        let has_power = self.random.random_bool(0.5) || self.limits.in_order;
        if let Some(Job::Keep(group)) = self.jobs.front().filter(|_| self.random.random_bool(0.5)) {
            for (_, pack) in group {
                self.spool.push((self.spool.len() as u64, *pack, false));
            }
        }
        self.jobs.clear();
        self.storing.clear();
        if !has_power {
            self.log.truncate(self.log_synced);
        }
        self.log_synced = self.log.len();
        (self.log_fails, self.snapshot_asked) = (false, false);
        // Acknowledgements of records are synced late.
        for (_, _, arrived) in self.spool.iter_mut().rev().take(3) {
            *arrived &= self.random.random_bool(0.5);
        }
        self.spool_cursor = 0;
        let recovered = logferry_durable::Recovered {
            snapshot: self.snapshot.clone(),
            records: self.log.clone(),
            ..Default::default()
        };
        let Seen { taken, stored, undecodable } = Seen::recover(&recovered);
        assert_eq!(undecodable, 0);
        let spooled = self.spool.iter().any(|(_, _, arrived)| !arrived);
        self.backlog = Backlog::new(self.limits, taken, stored, spooled);
        for sender in self.senders.values_mut() {
            sender.in_flight.clear();
            sender.connection += 1;
        }
        let actions = self.backlog.tick(self.now);
        self.act(actions);
    }

    fn step(&mut self, is_calm: bool) {
        match self.random.random_range(0..100) {
            0..30 => self.send(),
            30..60 => self.disk(),
            60..85 => self.store(),
            85 if !is_calm => self.database_up = !self.database_up,
            86 if !is_calm && self.random.random_ratio(1, 4) => self.crash(),
            _ => {
                self.now.ms += self.random.random_range(1..200);
                let actions = self.backlog.tick(self.now);
                self.act(actions);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.senders.values().all(|sender| sender.acknowledged.len() as u64 == PACKS)
            && self.backlog.figures().packs == 0
            && self.jobs.is_empty()
            && self.spool.iter().all(|(_, _, arrived)| *arrived)
    }

    fn check_end(&self) {
        for stream in 0..STREAMS {
            let last = |number: u64| self.database.iter().rposition(|pack| *pack == (stream, number));
            for number in 0..PACKS {
                assert!(last(number).is_some(), "{number} of stream {stream} is lost");
                if self.limits.in_order && number > 0 {
                    assert!(
                        last(number - 1) < last(number),
                        "{number} of stream {stream} was overwritten by an older pack"
                    );
                }
            }
        }
        let limit = self.limits.queue_bytes_max
            + STREAMS as u64 * WINDOW as u64 * BYTES
            + self.limits.storing_cost_max
            + self.limits.group_bytes_max;
        assert!(self.memory_max <= limit, "{} bytes in memory, {limit} allowed", self.memory_max);
    }
}

#[test]
fn what_is_acknowledged_is_safe_and_all_arrives_whatever_happens() {
    let trial = logferry_trial::trial!();
    for seed in trial.seeds("runs of an output that can be away", 0..2_000) {
        let mut world = World::new(seed);
        for step in 0.. {
            let is_calm = step > STEPS_MAX / 10;
            if is_calm {
                world.database_up = true;
                world.spool_room = usize::MAX;
            }
            world.step(is_calm);
            if world.is_done() {
                break;
            }
            assert!(step < STEPS_MAX, "it does not come to rest: {:?}", world.backlog.figures());
        }
        world.check_end();
    }
}

#[test]
fn packs_go_to_the_spool_while_the_output_is_away_and_come_back_from_there() {
    let mut world = World::new(1);
    world.limits = BacklogLimits {
        group_bytes_max: 2 * BYTES,
        queue_bytes_max: 2 * BYTES,
        storing_cost_max: BYTES,
        spool_after_ms: 100,
        ..world.limits
    };
    world.backlog = Backlog::new(world.limits, Default::default(), Default::default(), false);
    let now = world.now;
    let first = world.backlog.offered(now, info((0, 0)), (0, 0), ((0, 0), 0));
    assert!(matches!(first[..], [Action::Store(_, (0, 0))]), "{first:?}");
    assert!(world.backlog.offered(now, info((0, 1)), (0, 1), ((0, 1), 0)).is_empty());
    let later = Now { ms: 100, ..now };
    let actions = world.backlog.tick(later);
    let [Action::Keep(group)] = &actions[..] else { panic!("{actions:?}") };
    let durable: Vec<_> =
        group.iter().zip(0..).map(|((ticket, _), record)| (*ticket, RecordId(record))).collect();
    let actions = world.backlog.kept(later, &durable, None);
    let oks = actions.iter().filter(|action| matches!(action, Action::Answer(_, Answer::Ok))).count();
    assert_eq!((group.len(), oks), (2, 2), "the one at the output is kept too: {actions:?}");
}

#[test]
fn a_pack_of_other_content_at_the_same_place_is_a_conflict_unless_another_output_judged_it() {
    let mut world = World::new(1);
    let actions = world.backlog.offered(world.now, info((0, 0)), (0, 0), ((0, 0), 0));
    let Action::Store(ticket, _) = actions[0] else { panic!("{actions:?}") };
    world.backlog.stored(world.now, ticket);
    world.backlog.recorded(world.now, true);
    let mut other = info((0, 0));
    other.identity.sum = 99;
    let actions = world.backlog.offered(world.now, other, (0, 0), ((0, 0), 0));
    assert!(matches!(actions[..], [Action::Answer(_, Answer::Conflict(_))]), "{actions:?}");
    let actions =
        world.backlog.offered(world.now, PackInfo { overlap: Overlap::Taken, ..other }, (0, 0), ((0, 0), 0));
    assert!(matches!(actions[..], [Action::Store(..)]), "{actions:?}");
}

#[test]
fn a_filtered_pack_that_was_cut_otherwise_is_a_duplicate_when_all_of_it_is_there_and_else_to_be_parted() {
    let mut world = World::new(1);
    let actions = world.backlog.offered(world.now, info((0, 0)), (0, 0), ((0, 0), 0));
    let Action::Store(ticket, _) = actions[0] else { panic!("{actions:?}") };
    world.backlog.stored(world.now, ticket);
    world.backlog.recorded(world.now, true);
    let span = info((0, 0)).identity.span;
    for (offset, length, is_there) in [(0, span - 1, true), (1, span - 1, true), (1, span, false)] {
        let mut other = PackInfo { overlap: Overlap::Duplicate, ..info((0, 0)) };
        (other.identity.offset, other.identity.span, other.identity.sum) = (offset, length, 99);
        let actions = world.backlog.offered(world.now, other, (0, 0), ((0, 0), 0));
        let [Action::Answer(_, answer)] = &actions[..] else { panic!("{actions:?}") };
        let expected = if is_there {
            matches!(answer, Answer::Duplicate)
        } else {
            matches!(answer, Answer::Conflict(_))
        };
        assert!(expected, "{offset}+{length}: {answer:?}");
    }
}

#[test]
fn a_refused_pack_is_rejected_or_set_aside_once_it_was_acknowledged() {
    let mut world = World::new(1);
    let actions = world.backlog.offered(world.now, info((0, 0)), (0, 0), ((0, 0), 0));
    let Action::Store(ticket, _) = actions[0] else { panic!("{actions:?}") };
    let actions = world.backlog.refused(world.now, ticket, "bad_sum");
    assert!(matches!(&actions[..], [Action::Answer(_, Answer::Rejected { reason })] if reason == "bad_sum"));

    world.backlog = Backlog::new(world.limits, Default::default(), Default::default(), true);
    let actions = world.backlog.tick(world.now);
    assert!(matches!(actions[..], [Action::Read(_)]), "{actions:?}");
    let actions = world.backlog.read(world.now, vec![(RecordId(7), info((0, 1)), (0, 1))], true);
    let Action::Store(ticket, _) = actions[0] else { panic!("{actions:?}") };
    let actions = world.backlog.refused(world.now, ticket, "bad_sum");
    assert!(matches!(actions[..], [Action::SetAside(..)]), "{actions:?}");
    let actions = world.backlog.set_aside(world.now, ticket);
    assert!(matches!(&actions[..], [Action::Arrived(records)] if records[..] == [RecordId(7)]));
}
