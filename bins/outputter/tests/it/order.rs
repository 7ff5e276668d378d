//! The deciding core under random arrival, repetition, loss, refusal and time: whatever comes, packs are written once and
//! in stream order, everybody is answered once, nothing is confirmed that is not committed, and all gets through.

use crate::common::{identity, pack, parcel};
use logferry_durable::faulty::Random;
use logferry_footprint::Footprint;
use logferry_link::Answer;
use logferry_outputter::file::order::{Accepted, Action, Order, OrderLimits};
use logferry_pack::{Codec, Pack, PackIdentity, StreamId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const CASES: u64 = 600;
const LIMITS: OrderLimits =
    OrderLimits { reorder_wait_ms: 1_000, hold_answer_ms: 2_000, hold_bytes_max: 400 };

struct Case {
    random: Random,
    now_ms: u64,
    order: Order<u64>,
    packs: Vec<Vec<Pack>>,
    /// Waiters without an answer, and the pack each waits for.
    open: HashMap<u64, PackIdentity>,
    waiters: u64,
    accepted: Vec<Accepted>,
    next_seq: u64,
    committed: BTreeSet<(u128, u64)>,
    confirmed: BTreeSet<(u128, u64)>,
    /// End of the last written pack of each stream.
    written_to: BTreeMap<u128, u64>,
    /// Streams where a gap was passed over.
    passed_over: BTreeSet<u128>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut random = Random::new(seed);
        let streams = 1 + random.below(3);
        let packs = (0..streams).map(|stream| packs_of(StreamId(stream.into()), &mut random)).collect();
        Case {
            random,
            now_ms: 0,
            order: Order::new(LIMITS, Footprint::default()),
            packs,
            open: HashMap::new(),
            waiters: 0,
            accepted: Vec::new(),
            next_seq: 0,
            committed: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            written_to: BTreeMap::new(),
            passed_over: BTreeSet::new(),
        }
    }

    fn offer(&mut self, stream: usize, index: usize) {
        let parcel = parcel(&self.packs[stream][index]);
        self.waiters += 1;
        self.open.insert(self.waiters, parcel.identity);
        let actions = self.order.offered(self.now_ms, parcel, self.waiters);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action<u64>>) {
        for action in actions {
            match action {
                Action::Write(accepted, _) => self.write(accepted),
                Action::Answer(waiter, answer) => self.answer(waiter, &answer),
            }
        }
        assert!(self.order.figures().held_bytes <= LIMITS.hold_bytes_max);
    }

    fn write(&mut self, accepted: Accepted) {
        assert_eq!(accepted.seq, self.next_seq, "numbers have no holes");
        self.next_seq += 1;
        let PackIdentity { stream, offset, span, .. } = accepted.identity;
        let written_to = self.written_to.entry(stream.0).or_default();
        if accepted.hole_from.is_some() {
            self.passed_over.insert(stream.0);
        }
        if !self.passed_over.contains(&stream.0) {
            assert_eq!(offset, *written_to, "without a gap passed over, packs are written in stream order");
        }
        *written_to = offset + span;
        self.accepted.push(accepted);
    }

    fn answer(&mut self, waiter: u64, answer: &Answer) {
        let identity = self.open.remove(&waiter).expect("everybody is answered once");
        match answer {
            Answer::Ok | Answer::Duplicate => {
                let key = (identity.stream.0, identity.offset);
                assert!(self.committed.contains(&key), "only what is committed is confirmed");
                self.confirmed.insert(key);
            }
            Answer::Busy { .. } => {}
            other => panic!("{identity:?} was answered {other:?}"),
        }
    }

    fn commit(&mut self, count: usize) {
        let group: Vec<Accepted> = self.accepted.drain(..count.min(self.accepted.len())).collect();
        for pack in &group {
            assert!(self.committed.insert((pack.identity.stream.0, pack.identity.offset)), "written twice");
        }
        let actions = self.order.committed(&group, 1);
        self.act(actions);
    }

    /// The first pack in the queue cannot be written now: it and those of its stream behind it go back.
    fn refuse(&mut self) {
        let Some(first) = self.accepted.first().copied() else { return };
        let actions = self.order.refused(&first, 1);
        self.accepted.retain(|pack| self.order.is_pending(pack));
        self.written_to.insert(first.identity.stream.0, first.identity.offset);
        self.act(actions);
    }

    fn fail(&mut self) {
        let actions = self.order.failing(1);
        self.act(actions);
        assert_eq!(self.order.figures().held_packs, 0);
        let (stream, index) = self.any_pack();
        let accepted = self.accepted.len();
        self.offer(stream, index);
        assert_eq!(self.accepted.len(), accepted, "nothing is accepted while writing fails");
        assert!(self.open.is_empty(), "nobody waits while writing fails");
        self.order.healed();
    }

    fn any_pack(&mut self) -> (usize, usize) {
        let stream = self.random.below(self.packs.len() as u64) as usize;
        (stream, self.random.below(self.packs[stream].len() as u64) as usize)
    }

    fn tick(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        let actions = self.order.tick(self.now_ms);
        self.act(actions);
    }

    fn chaos(&mut self, steps: usize, gaps_may_be_passed_over: bool) {
        let step_ms = if gaps_may_be_passed_over { 700 } else { 1 };
        for _ in 0..steps {
            match self.random.below(12) {
                0..7 => {
                    let (stream, index) = self.any_pack();
                    self.offer(stream, index);
                }
                7..9 => {
                    let count = self.random.below(4) as usize;
                    self.commit(count);
                }
                9 => self.refuse(),
                10 => self.fail(),
                _ => {
                    let by_ms = self.random.below(step_ms);
                    self.tick(by_ms);
                }
            }
        }
    }

    /// Sends all that is not confirmed, in order, until it is.
    fn drain(&mut self) {
        for _ in 0..100 {
            let missing: Vec<_> = (0..self.packs.len())
                .flat_map(|stream| (0..self.packs[stream].len()).map(move |index| (stream, index)))
                .filter(|(stream, index)| {
                    let identity = identity(&self.packs[*stream][*index]);
                    !self.confirmed.contains(&(identity.stream.0, identity.offset))
                })
                .collect();
            if missing.is_empty() {
                assert!(self.open.is_empty() || self.order.figures().held_packs > 0);
                return;
            }
            missing.into_iter().for_each(|(stream, index)| self.offer(stream, index));
            self.commit(usize::MAX);
            self.tick(500);
        }
        panic!("what is sent again and again gets through: {:?}", self.open);
    }
}

fn packs_of(stream: StreamId, random: &mut Random) -> Vec<Pack> {
    let mut offset = 0;
    let count = 2 + random.below(12);
    let packs = (0..count).map(|_| {
        let raw: Vec<u8> = (0..=random.below(100)).map(|_| b'x').chain([b'\n']).collect();
        let pack = pack(stream, "web", 2026112100, offset, &raw, Codec::None);
        offset += raw.len() as u64;
        pack
    });
    packs.collect()
}

fn run(seed: u64, gaps_may_be_passed_over: bool) -> Case {
    let mut case = Case::new(seed);
    case.chaos(150, gaps_may_be_passed_over);
    case.drain();
    case
}

#[test]
fn packs_are_written_once_in_order_and_all_get_through() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..CASES).for_each(|seed| {
        let case = run(seed, false);
        assert!(case.passed_over.is_empty(), "no gap was waited for long enough");
    });
}

#[test]
fn with_gaps_passed_over_packs_are_still_written_once_and_all_get_through() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..CASES).for_each(|seed| drop(run(seed, true)));
}

fn one_stream(count: usize) -> (Order<u64>, Vec<Pack>) {
    let packs =
        (0..count).map(|n| pack(StreamId(1), "web", 2026112100, n as u64 * 10, b"123456789\n", Codec::None));
    (Order::new(LIMITS, Footprint::default()), packs.collect())
}

fn written(actions: &[Action<u64>]) -> Vec<u64> {
    let writes = actions.iter().filter_map(|action| match action {
        Action::Write(accepted, _) => Some(accepted.identity.offset),
        Action::Answer(..) => None,
    });
    writes.collect()
}

#[test]
fn a_gap_is_waited_for_and_what_closes_it_releases_the_rest_in_order() {
    let (mut order, packs) = one_stream(4);
    assert_eq!(written(&order.offered(0, parcel(&packs[0]), 0)), [0]);
    assert!(order.offered(1, parcel(&packs[3]), 3).is_empty());
    assert!(order.offered(2, parcel(&packs[2]), 2).is_empty());
    assert_eq!(order.figures().held_packs, 2);
    assert_eq!(written(&order.offered(3, parcel(&packs[1]), 1)), [10, 20, 30]);
    assert_eq!(order.figures().held_packs, 0);
}

#[test]
fn a_gap_that_stays_is_passed_over_and_named_and_waited_for_only_once() {
    let (mut order, packs) = one_stream(6);
    order.offered(0, parcel(&packs[0]), 0);
    order.offered(0, parcel(&packs[2]), 2);
    assert!(order.tick(LIMITS.reorder_wait_ms - 1).is_empty());
    let actions = order.tick(LIMITS.reorder_wait_ms);
    assert_eq!(written(&actions), [20]);
    let Action::Write(accepted, _) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(accepted.hole_from, Some(0), "nothing is committed yet");
    assert_eq!(written(&order.offered(1_001, parcel(&packs[3]), 3)), [30]);
    let all: Vec<Accepted> = [0, 2, 3]
        .iter()
        .zip(0..)
        .map(|(index, seq)| Accepted { seq, identity: identity(&packs[*index]), first: 0, hole_from: None })
        .collect();
    order.committed(&all, 1);
    assert_eq!(written(&order.offered(1_002, parcel(&packs[4]), 4)), [40], "the hole further back is known");
    assert_eq!(written(&order.offered(1_003, parcel(&packs[1]), 1)), [10], "what comes late is written late");
}

#[test]
fn the_wait_for_a_gap_goes_on_across_resends() {
    let limits = OrderLimits { reorder_wait_ms: 5_000, ..LIMITS };
    let (_, packs) = one_stream(3);
    let mut order = Order::new(limits, Footprint::default());
    order.offered(0, parcel(&packs[2]), 1);
    assert!(matches!(order.tick(2_000)[..], [Action::Answer(1, Answer::Busy { .. })]));
    assert!(order.offered(2_500, parcel(&packs[2]), 2).is_empty());
    assert!(matches!(order.tick(4_500)[..], [Action::Answer(2, Answer::Busy { .. })]));
    assert_eq!(written(&order.offered(5_000, parcel(&packs[2]), 3)), [20]);
}

#[test]
fn a_repetition_of_a_pending_pack_is_answered_with_its_commit() {
    let (mut order, packs) = one_stream(1);
    let actions = order.offered(0, parcel(&packs[0]), 1);
    let Action::Write(accepted, _) = actions[0] else { panic!("{actions:?}") };
    assert!(order.offered(0, parcel(&packs[0]), 2).is_empty());
    let answers = order.committed(&[accepted], 1);
    assert!(
        matches!(answers[..], [Action::Answer(1, Answer::Ok), Action::Answer(2, Answer::Duplicate)]),
        "{answers:?}"
    );
    assert!(matches!(order.offered(0, parcel(&packs[0]), 3)[..], [Action::Answer(3, Answer::Duplicate)]));
}

#[test]
fn other_content_at_a_seen_place_is_a_conflict_once_the_first_is_durable() {
    let (mut order, packs) = one_stream(1);
    let actions = order.offered(0, parcel(&packs[0]), 1);
    let Action::Write(accepted, _) = actions[0] else { panic!("{actions:?}") };
    let other = pack(StreamId(1), "web", 2026112100, 0, b"abcdefghi\n", Codec::None);
    assert!(matches!(order.offered(0, parcel(&other), 2)[..], [Action::Answer(2, Answer::Busy { .. })]));
    order.committed(&[accepted], 1);
    let actions = order.offered(0, parcel(&other), 3);
    let [Action::Answer(3, Answer::Conflict(remembered))] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(remembered.frontier, 10);
}

#[test]
fn a_rejected_pack_does_not_block_what_is_behind_it() {
    let (mut order, packs) = one_stream(3);
    let actions = order.offered(0, parcel(&packs[0]), 0);
    let Action::Write(first, _) = actions[0] else { panic!("{actions:?}") };
    order.offered(0, parcel(&packs[1]), 1);
    let answers = order.rejected(&first, "bad_sum");
    assert!(matches!(&answers[..], [Action::Answer(0, Answer::Rejected { reason })] if reason == "bad_sum"));
    assert_eq!(written(&order.offered(1, parcel(&packs[2]), 2)), [20]);
}

#[test]
fn without_room_only_done_packs_are_accepted_whose_lines_are_all_there() {
    let (mut order, packs) = one_stream(2);
    let actions = order.offered(0, parcel(&packs[0]), 0);
    let Action::Write(first, _) = actions[0] else { panic!("{actions:?}") };
    order.committed(&[first], 1);
    let offer = |order: &mut Order<u64>, pack: &Pack, is_taken: bool| {
        assert_eq!(order.takes_without_room(&parcel(pack)), is_taken);
        let actions = order.offered(0, parcel(pack), 1);
        assert_eq!(written(&actions).len(), usize::from(is_taken), "{actions:?}");
        let busy = [(1, &Answer::Busy { retry_ms: 7 })];
        assert_eq!(answers(&actions), if is_taken { &busy[1..] } else { &busy[..] });
        actions
    };
    assert!(order.without_room(7).is_empty());
    offer(&mut order, &packs[1], false);
    offer(&mut order, &done_pack(20, 3), false);
    let taken = offer(&mut order, &done_pack(10, 2), true);
    let Action::Write(done, _) = taken[0] else { panic!("{taken:?}") };
    assert_eq!(answers(&order.committed(&[done], 1)), [(1, &Answer::Ok)]);
    // What can be written at all is another matter.
    order.failing(7);
    offer(&mut order, &done_pack(10, 2), false);
    order.healed();
    assert!(!order.takes_without_room(&parcel(&done_pack(10, 3))), "it is as any other pack");
    assert_eq!(written(&order.offered(0, parcel(&packs[1]), 2)), [10]);
}

/// A pack without bytes, as it closes an hour.
fn done_pack(offset: u64, id: u64) -> Pack {
    let mut pack = pack(StreamId(1), "host", 2026112101, offset, b"", Codec::Zlib);
    pack.header.id = id;
    pack.header.done = true;
    pack
}

fn answers(actions: &[Action<u64>]) -> Vec<(u64, &Answer)> {
    let answer = |action| match action {
        &Action::Answer(waiter, ref answer) => Some((waiter, answer)),
        Action::Write(..) => None,
    };
    actions.iter().filter_map(answer).collect()
}

#[test]
fn done_packs_without_lines_are_written_each_although_they_look_alike() {
    let mut order = Order::new(LIMITS, Footprint::default());
    let mut written = Vec::new();
    for id in 1..=3 {
        let first = order.offered(0, parcel(&done_pack(0, id)), id);
        let [Action::Write(accepted, parcel)] = &first[..] else { panic!("{id} is written: {first:?}") };
        written.push(parcel.pack.header.id);
        let second = order.offered(0, crate::common::parcel(&done_pack(0, id + 1)), 100);
        assert!(matches!(answers(&second)[..], [(100, Answer::Busy { .. })]), "{second:?}");
        let committed = order.committed(&[*accepted], 1);
        assert!(matches!(answers(&committed)[..], [(waiter, Answer::Ok)] if waiter == id), "{committed:?}");
    }
    assert_eq!(written, [1, 2, 3]);
}

#[test]
fn lines_behind_a_done_pack_that_was_written_over_a_gap_wait_for_their_own_time() {
    let (mut order, packs) = one_stream(4);
    assert!(order.offered(0, parcel(&done_pack(10, 2)), 1).is_empty());
    for index in [1, 3] {
        assert!(order.offered(500, parcel(&packs[index]), 2).is_empty());
    }
    assert_eq!(written(&order.tick(LIMITS.reorder_wait_ms)), [10], "the done pack");
    assert_eq!(order.figures().held_packs, 2);
    assert_eq!(written(&order.tick(500 + LIMITS.reorder_wait_ms)), [10, 30]);
}

#[test]
fn a_done_pack_that_overtook_its_lines_waits_for_them() {
    let mut order = Order::new(LIMITS, Footprint::default());
    assert!(order.offered(0, parcel(&done_pack(5, 2)), 1).is_empty());
    let other = order.offered(0, parcel(&done_pack(5, 3)), 2);
    assert!(matches!(answers(&other)[..], [(2, Answer::Busy { .. })]), "{other:?}");
    let lines = pack(StreamId(1), "host", 2026112101, 0, b"line\n", Codec::Zlib);
    let actions = order.offered(0, parcel(&lines), 3);
    let written: Vec<bool> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Write(_, parcel) => Some(parcel.pack.header.done),
            Action::Answer(..) => None,
        })
        .collect();
    assert_eq!(written, [false, true]);
}
