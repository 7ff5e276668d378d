//! Packs that cannot be written are kept, answered and written later, under random arrival, failures of the output and of the spool,
//! refusals and crashes: what was acknowledged is in a file or in the spool, files have each pack once and in stream order, packs without
//! bytes (which close hours) hold up nothing, and other bytes in the place of a kept pack are a conflict for who sends them.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::{identity, pack, parcel};
use logferry_durable::faulty::Random;
use logferry_footprint::Footprint;
use logferry_link::Answer;
use logferry_outputter::file::order::{self, Accepted, Order, OrderLimits};
use logferry_outputter::file::shelf::{Action, Candidate, Shelf, ShelfLimits, Written, is_apart};
use logferry_pack::{Codec, Pack, PackIdentity, StreamId};
use logferry_spool::RecordId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CASES: u64 = 1_500;
const STEPS: usize = 300;
/// Nothing that is missing is passed over.
const LIMITS: OrderLimits =
    OrderLimits { reorder_wait_ms: u64::MAX, hold_answer_ms: 2_000, hold_bytes_max: 400 };
const SHELF_LIMITS: ShelfLimits =
    ShelfLimits { group_bytes_max: 25, gap_ms: u64::MAX, footprint_bytes_max: 1 << 20 };

/// Whoever waits for an answer.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    Sender(PackIdentity),
    /// A sender whose pack has other bytes than the one that was acknowledged.
    Liar,
    Record(RecordId),
}

type ForShelf = Action<PackIdentity, Waiter>;

struct World {
    random: Random,
    now_ms: u64,
    streams: Vec<Vec<Pack>>,
    order: Order<Waiter>,
    shelf: Shelf<PackIdentity, Waiter>,
    /// The output takes nothing.
    is_away: bool,
    /// Accepted, in the committer's memory.
    accepted: VecDeque<Accepted>,
    /// What the keeper is to do.
    jobs: VecDeque<ForShelf>,
    /// What the files have, durably, in order.
    files: Vec<PackIdentity>,
    /// What the spool has, durably, in order.
    spool: BTreeMap<u64, PackIdentity>,
    next_record: u64,
    cursor: u64,
    /// Stream, offset, span.
    acknowledged: BTreeSet<(u128, u64, u64)>,
    conflicts: u64,
    kept: u64,
    /// Of them packs without bytes.
    kept_marks: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let streams = (0..1 + random.below(3)).map(|stream| {
            let packs = 2 + random.below(15);
            let id = StreamId(stream.into());
            let pack_at = |n: u64| pack(id, "web", 2026112100, n * 10, b"123456789\n", Codec::None);
            let mut all = Vec::new();
            for n in 0..packs {
                all.push(pack_at(n));
                if random.one_in(4) {
                    all.push(mark(id, n * 10 + 10));
                }
            }
            all
        });
        let streams = streams.collect();
        World {
            random,
            now_ms: 0,
            streams,
            order: Order::new(LIMITS, Footprint::default()),
            shelf: Shelf::new(SHELF_LIMITS),
            is_away: false,
            accepted: VecDeque::new(),
            jobs: VecDeque::new(),
            files: Vec::new(),
            spool: BTreeMap::new(),
            next_record: 0,
            cursor: 0,
            acknowledged: BTreeSet::new(),
            conflicts: 0,
            kept: 0,
            kept_marks: 0,
        }
    }

    fn of(&self, wanted: &PackIdentity) -> Pack {
        let stream = &self.streams[wanted.stream.0 as usize];
        stream.iter().find(|pack| identity(pack) == *wanted).unwrap().clone()
    }

    fn is_acknowledged(&self, identity: &PackIdentity) -> bool {
        self.acknowledged.contains(&(identity.stream.0, identity.offset, identity.span))
    }

    /// As the judging task does it.
    fn offer(&mut self, pack: &Pack, waiter: Waiter) {
        let parcel = parcel(pack);
        if self.order.is_failing() || self.shelf.holds(parcel.identity.stream) {
            assert!(!is_apart(&pack.header), "nothing here was asked for");
            return self.shelve(parcel.identity, waiter);
        }
        let actions = self.order.offered(self.now_ms, parcel, waiter);
        self.act(actions, false);
    }

    fn shelve(&mut self, identity: PackIdentity, waiter: Waiter) {
        let candidate = Candidate { identity, first: 0, bytes: 10 };
        let written =
            Written { footprint: self.order.footprint(), is_overlapped: self.order.is_overlapped(&identity) };
        let actions = self.shelf.offered(self.now_ms, written, candidate, identity, waiter);
        self.act_for_shelf(actions);
    }

    fn act(&mut self, actions: Vec<order::Action<Waiter>>, from_committer: bool) {
        for action in actions {
            match action {
                order::Action::Write(accepted, _) => self.accepted.push_back(accepted),
                order::Action::Answer(waiter, answer) => match (waiter, &answer) {
                    (Waiter::Record(record), _) => {
                        let actions = self.shelf.replayed(record, answer);
                        self.act_for_shelf(actions);
                    }
                    (Waiter::Sender(identity), Answer::Busy { .. }) if from_committer => {
                        self.shelve(identity, waiter);
                    }
                    _ => self.answered(waiter, &answer),
                },
            }
        }
    }

    fn answered(&mut self, waiter: Waiter, answer: &Answer) {
        match (waiter, answer) {
            (_, Answer::Busy { .. }) => {}
            (Waiter::Sender(identity), Answer::Ok | Answer::Duplicate) => {
                let is_safe =
                    self.files.contains(&identity) || self.spool.values().any(|kept| *kept == identity);
                assert!(is_safe, "{identity:?} was acknowledged and is nowhere");
                self.acknowledged.insert((identity.stream.0, identity.offset, identity.span));
            }
            (Waiter::Liar, Answer::Conflict(remembered)) => {
                assert!(remembered.frontier > 0 && !remembered.packs.is_empty());
                self.conflicts += 1;
            }
            _ => panic!("{waiter:?} was answered {answer:?}"),
        }
    }

    fn act_for_shelf(&mut self, actions: Vec<ForShelf>) {
        for action in actions {
            match action {
                Action::Answer(waiter, answer) => self.answered(waiter, &answer),
                Action::Replay(packs) => {
                    for (record, identity) in packs {
                        let parcel = parcel(&self.of(&identity));
                        let actions = self.order.replayed(self.now_ms, parcel, Waiter::Record(record));
                        self.act(actions, false);
                    }
                }
                Action::SetAside(_, identity, reason) => panic!("{identity:?} is set aside: {reason}"),
                job => self.jobs.push_back(job),
            }
        }
    }

    /// The keeper does its next job.
    fn keep(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        let actions = match job {
            Action::Keep(packs) => {
                let fails = self.random.below(4) == 0;
                let durable =
                    if fails { self.random.below(packs.len() as u64) as usize } else { packs.len() };
                for (_, identity) in packs.into_iter().take(durable) {
                    self.spool.insert(self.next_record, identity);
                    self.next_record += 1;
                    self.kept += 1;
                    self.kept_marks += u64::from(identity.span == 0);
                }
                self.shelf.kept(self.now_ms, 1, durable, fails.then(|| "no room".to_owned()))
            }
            Action::Read(_) => {
                let found = self.spool.range(self.cursor..).take(3);
                let records: Vec<_> =
                    found.map(|(record, identity)| (RecordId(*record), identity.stream, *identity)).collect();
                self.cursor = records.last().map_or(self.cursor, |(record, ..)| record.0 + 1);
                let is_end = self.spool.range(self.cursor..).next().is_none();
                self.shelf.read(records, is_end)
            }
            Action::Rewind => {
                self.cursor = 0;
                Vec::new()
            }
            Action::Arrived(record) => {
                let identity = self.spool.remove(&record.0).unwrap();
                assert!(self.files.contains(&identity), "{identity:?} left the spool and is in no file");
                Vec::new()
            }
            other => panic!("{other:?} is no job"),
        };
        self.act_for_shelf(actions);
    }

    /// The committer comes to its packs.
    fn commit(&mut self) {
        if self.accepted.is_empty() {
            // A group of which nothing is left is a success.
            return self.order.healed();
        }
        if self.is_away {
            let actions = self.order.failing(1);
            return self.act(actions, true);
        }
        let count = 1 + self.random.below(self.accepted.len() as u64) as usize;
        let group: Vec<Accepted> = self.accepted.drain(..count).collect();
        for Accepted { identity, .. } in &group {
            let mut before = self.files.iter().rev().filter(|other| other.stream == identity.stream);
            let expected = before.find(|other| other.span > 0).map_or(0, |last| last.end());
            // What has no bytes may come again, and does no harm.
            let is_in_order =
                if identity.span == 0 { identity.offset <= expected } else { identity.offset == expected };
            assert!(is_in_order, "{identity:?} is written twice, or out of its order");
            self.files.push(*identity);
        }
        let actions = self.order.committed(&group, 1);
        self.order.healed();
        self.act(actions, true);
    }

    /// The file of the next pack cannot be written, the others can.
    fn refuse(&mut self) {
        let Some(first) = self.accepted.front().copied() else { return };
        let actions = self.order.refused(&first, 1);
        let order = &self.order;
        self.accepted.retain(|pack| order.is_pending(pack));
        self.act(actions, true);
    }

    /// All that is in memory is gone.
    fn crash(&mut self) {
        let mut footprint = Footprint::default();
        self.files.iter().for_each(|identity| footprint.insert(identity, 0, 1));
        self.order = Order::new(LIMITS, footprint);
        self.shelf = Shelf::new(SHELF_LIMITS);
        self.spool.values().for_each(|identity| self.shelf.found(identity, 0, 1));
        self.accepted.clear();
        // What was to be removed may come back.
        self.jobs.clear();
        self.cursor = 0;
    }

    fn send(&mut self) {
        let stream = self.random.below(self.streams.len() as u64) as usize;
        let packs = self.streams[stream].clone();
        let next =
            packs.iter().position(|pack| !self.is_acknowledged(&identity(pack))).unwrap_or(packs.len());
        // Sometimes one again that was acknowledged, sometimes one too early.
        let at = (next + self.random.below(3) as usize).saturating_sub(self.random.below(2) as usize);
        if let Some(pack) = packs.get(at) {
            self.offer(pack, Waiter::Sender(identity(pack)));
        }
    }

    fn lie(&mut self) {
        let all = self.streams.iter().flatten();
        let with_bytes = all.filter(|pack| identity(pack).span > 0);
        let acknowledged: Vec<Pack> =
            with_bytes.filter(|pack| self.is_acknowledged(&identity(pack))).cloned().collect();
        if acknowledged.is_empty() {
            return;
        }
        let mut pack = acknowledged[self.random.below(acknowledged.len() as u64) as usize].clone();
        pack.header.ours.as_mut().unwrap().identity.sum ^= 1;
        self.offer(&pack, Waiter::Liar);
    }

    fn step(&mut self) {
        self.now_ms += self.random.below(300);
        match self.random.below(40) {
            0 => self.is_away = true,
            1 => self.is_away = false,
            2 => self.crash(),
            3 => self.refuse(),
            4..6 => self.lie(),
            6..18 => self.send(),
            18..26 => self.commit(),
            26..34 => self.keep(),
            _ => self.go_on(),
        }
    }

    fn go_on(&mut self) {
        let actions = self.shelf.go_on(self.now_ms, self.order.is_failing());
        self.act_for_shelf(actions);
    }

    /// All is well from here on.
    fn drain(&mut self) {
        self.is_away = false;
        let all: Vec<Pack> = self.streams.iter().flatten().cloned().collect();
        for _ in 0..10_000 {
            self.now_ms += 1_000;
            for pack in &all {
                if !self.is_acknowledged(&identity(pack)) {
                    self.offer(pack, Waiter::Sender(identity(pack)));
                }
            }
            self.commit();
            self.keep();
            self.go_on();
            let are_written = all.iter().all(|pack| self.files.contains(&identity(pack)));
            if are_written && self.shelf.is_empty() && self.jobs.is_empty() {
                assert!(self.spool.is_empty());
                return;
            }
        }
        panic!("{} of {} packs are in files, {} in the spool", self.files.len(), all.len(), self.spool.len());
    }
}

/// A pack without bytes, marked as the tailer marks each of them.
fn mark(stream: StreamId, offset: u64) -> Pack {
    let mut mark = pack(stream, "web", 2026112100, offset, b"", Codec::None);
    (mark.header.done, mark.header.repull) = (true, true);
    mark
}

#[test]
fn what_is_kept_is_judged_before_and_written_in_its_order_once() {
    let trial = logferry_trial::trial!();
    let (mut conflicts, mut kept, mut marks) = (0, 0, 0);
    trial.seeds("lives of an output that is away now and then", 0..CASES).for_each(|seed| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        world.drain();
        conflicts += world.conflicts;
        kept += world.kept;
        marks += world.kept_marks;
    });
    trial.count("conflicts with packs that were acknowledged", conflicts);
    trial.count("packs kept", kept);
    trial.count("of them packs without bytes", marks);
    assert!(marks > 0);
}

#[test]
fn other_bytes_in_the_place_of_a_pack_that_only_the_spool_has_are_a_conflict_for_their_sender() {
    let mut shelf: Shelf<(), u32> = Shelf::new(SHELF_LIMITS);
    let identity = |offset, sum| PackIdentity { stream: StreamId(1), offset, span: 10, sum };
    let files = Footprint::default();
    let written = Written { footprint: &files, is_overlapped: false };
    let candidate = |identity| Candidate { identity, first: 0, bytes: 10 };
    let offer = |shelf: &mut Shelf<(), u32>, identity, waiter| {
        shelf.offered(0, written, candidate(identity), (), waiter)
    };
    assert!(matches!(offer(&mut shelf, identity(0, 1), 1)[..], [Action::Keep(_)]));
    let unknown = offer(&mut shelf, identity(0, 2), 2);
    assert!(matches!(unknown[..], [Action::Answer(2, Answer::Busy { .. })]), "the first is not durable yet");
    assert!(matches!(shelf.kept(0, 1, 1, None)[..], [Action::Answer(1, Answer::Ok)]));
    assert!(matches!(offer(&mut shelf, identity(0, 2), 3)[..], [Action::Answer(3, Answer::Conflict(_))]));
    assert!(matches!(offer(&mut shelf, identity(5, 2), 4)[..], [Action::Answer(4, Answer::Conflict(_))]));
    assert!(matches!(offer(&mut shelf, identity(0, 1), 5)[..], [Action::Answer(5, Answer::Duplicate)]));
}
