//! Random lives of a pool: targets come, drain and go, answers are lost, late, out of order or busy, packs are withdrawn.

use super::{Place, Pool, TargetLimits};
use crate::answer::{Answer, Outcome, Outgoing};
use bytes::Bytes;
use logferry_footprint::Remembered;
use logferry_node::config::Mode;
use logferry_pack::StreamId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

const PACK_BYTES: u64 = 100;
const WINDOW: u64 = 2_000;
const STEPS: u32 = 400;

/// A pack of 100 bytes.
pub(super) fn pack(ticket: u64, stream: u128) -> Outgoing {
    Outgoing {
        ticket,
        stream: StreamId(stream),
        apart: false,
        header: Bytes::new(),
        body: Bytes::from(vec![0; 100]),
    }
}

/// What the other side of a connection holds.
#[derive(Default)]
struct Peer {
    up: bool,
    window: u64,
    /// It gets no more than one pack of a stream at a time.
    one_of_stream: bool,
    /// Keys, tickets and streams that came and are not answered, in order.
    unanswered: Vec<(u64, u64, u128)>,
    /// Per stream the tickets that came on this connection, in order, but for repetitions after `busy`.
    came: HashMap<u128, Vec<u64>>,
}

struct World {
    seed: u64,
    random: StdRng,
    pool: Pool,
    now: Instant,
    peers: Vec<Peer>,
    next_ticket: u64,
    /// How often each ticket was settled or withdrawn.
    ends: BTreeMap<u64, u32>,
    /// Tickets that a peer has answered for good: to be settled so, and never to be sent again.
    answered: BTreeSet<u64>,
}

impl World {
    fn new(seed: u64, mode: Mode) -> World {
        let count = if mode == Mode::Single { 1 } else { 3 };
        let names: Vec<String> = (0..count).map(|number| format!("target-{number}:1")).collect();
        World {
            seed,
            random: StdRng::seed_from_u64(seed),
            pool: Pool::new(mode, &names, WINDOW),
            now: Instant::now(),
            peers: names.iter().map(|_| Peer::default()).collect(),
            next_ticket: 0,
            ends: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..20));
        let target = self.random.random_range(0..self.peers.len());
        match self.random.random_range(0..100) {
            0..35 if self.pool.has_room(PACK_BYTES) => {
                let stream = self.random.random_range(0..5);
                self.pool.submit(pack(self.next_ticket, stream), self.now);
                self.next_ticket += 1;
            }
            35..38 => self.down(target),
            38..45 => self.up(target),
            45..47 if self.peers[target].up => self.pool.target_draining(target),
            47 => self.withdraw(),
            48..70 => self.transmit(target),
            _ => self.answer(target),
        }
        self.pool.time(self.now);
        self.check();
    }

    fn down(&mut self, target: usize) {
        self.pool.target_down(target);
        // Answers on their way are lost with the connection.
        self.peers[target] = Peer::default();
    }

    fn up(&mut self, target: usize) {
        if !self.peers[target].up {
            let window = self.random.random_range(1..10) * PACK_BYTES;
            let one_of_stream = self.random.random_range(0..4) == 0;
            self.peers[target] = Peer { up: true, window, one_of_stream, ..Peer::default() };
            let limits =
                TargetLimits { window, pack_bytes_max: u64::MAX, header_bytes_max: u64::MAX, one_of_stream };
            self.pool.target_up(target, limits);
        }
    }

    fn withdraw(&mut self) {
        let tickets: Vec<u64> = self.pool.withdraw().iter().map(|pack| pack.ticket).collect();
        assert!(tickets.is_sorted(), "seed {}: {tickets:?} withdrawn out of order", self.seed);
        tickets.into_iter().for_each(|ticket| self.end(ticket));
    }

    fn end(&mut self, ticket: u64) {
        *self.ends.entry(ticket).or_default() += 1;
    }

    fn transmit(&mut self, target: usize) {
        let seed = self.seed;
        while let Some(transmit) = self.pool.next_transmit(target) {
            let (ticket, stream) = (transmit.pack.ticket, transmit.pack.stream.0);
            assert!(self.peers[target].up, "seed {seed}: sent to a target that is down");
            assert!(!self.answered.contains(&ticket), "seed {seed}: {ticket} sent after it was acknowledged");
            assert!(!self.ends.contains_key(&ticket), "seed {seed}: {ticket} sent after its end");
            self.check_order(target, ticket, stream);
            // What was withdrawn may still be on its way.
            let on_its_way =
                |(_, ticket, of): &&(u64, u64, u128)| *of == stream && !self.ends.contains_key(ticket);
            let peer = &mut self.peers[target];
            let others = peer.unanswered.iter().filter(on_its_way).count();
            assert!(
                others == 0 || !peer.one_of_stream,
                "seed {seed}: {others} packs of stream {stream} before"
            );
            peer.unanswered.push((transmit.key, ticket, stream));
            let came = peer.came.entry(stream).or_default();
            if !came.contains(&ticket) {
                assert!(
                    came.last() < Some(&ticket),
                    "seed {seed}: {ticket} of stream {stream} after {came:?}"
                );
                came.push(ticket);
            }
        }
    }

    /// Every earlier unsettled pack of the stream has to be in flight at the same target.
    fn check_order(&self, target: usize, ticket: u64, stream: u128) {
        for entry in self.pool.entries.values() {
            if entry.pack.stream.0 == stream && entry.pack.ticket < ticket {
                let place = entry.place;
                assert_eq!(
                    place,
                    Place::InFlight { target },
                    "seed {}: {ticket} before {}",
                    self.seed,
                    entry.pack.ticket
                );
            }
        }
    }

    fn answer(&mut self, target: usize) {
        if self.peers[target].unanswered.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.peers[target].unanswered.len());
        let (key, ticket, _) = self.peers[target].unanswered.remove(at);
        let answer = match self.random.random_range(0..10) {
            0..2 => Answer::Busy { retry_ms: self.random.random_range(0..200) },
            2 => Answer::Rejected { reason: "bad_crc".to_owned() },
            3 => Answer::Conflict(Remembered::default()),
            4 => Answer::Duplicate,
            _ => Answer::Ok,
        };
        if matches!(answer, Answer::Ok | Answer::Duplicate) {
            self.answered.insert(ticket);
        }
        self.pool.answered(target, key, answer, self.now);
    }

    fn check(&mut self) {
        let seed = self.seed;
        for settled in self.pool.take_settled() {
            if settled.outcome == Outcome::Ok {
                assert!(self.answered.contains(&settled.ticket), "seed {seed}: settled without an answer");
            }
            self.end(settled.ticket);
        }
        assert!(self.ends.values().all(|count| *count == 1), "seed {seed}: ended twice: {:?}", self.ends);
        assert!(self.pool.figures().unsettled_bytes <= WINDOW, "seed {seed}: the sender's window");
        for (target, peer) in self.peers.iter().enumerate() {
            let (packs, bytes) = self.pool.targets[target].in_flight();
            assert_eq!(packs, peer.unanswered.len(), "seed {seed}: in flight at {target}");
            assert!(packs <= 1 || bytes <= peer.window, "seed {seed}: the window of target {target}");
        }
        let unsettled = self.next_ticket - self.ends.len() as u64;
        assert_eq!(self.pool.figures().unsettled_packs, unsettled, "seed {seed}: a pack is gone");
    }

    /// From now on every target is there and answers: everything is settled within a bounded time.
    fn calm(&mut self) {
        for target in 0..self.peers.len() {
            self.down(target);
            self.up(target);
        }
        for _ in 0..500 {
            self.now += Duration::from_millis(100);
            self.pool.time(self.now);
            for target in 0..self.peers.len() {
                self.transmit(target);
                for (key, ticket, _) in std::mem::take(&mut self.peers[target].unanswered) {
                    self.answered.insert(ticket);
                    self.pool.answered(target, key, Answer::Ok, self.now);
                }
            }
            self.check();
        }
        assert_eq!(self.ends.len() as u64, self.next_ticket, "seed {}: not all are settled", self.seed);
        assert!(self.pool.streams.is_empty() && self.pool.busy.is_empty(), "seed {}: leftovers", self.seed);
    }
}

#[test]
fn every_pack_is_settled_once_and_in_order_whatever_targets_do() {
    let trial = logferry_trial::trial!();
    let lives = if logferry_trial::long_run() { 0..20_000 } else { 0..500 };
    for seed in trial.seeds("lives of a pool, in each mode", lives) {
        for mode in [Mode::Single, Mode::Failover, Mode::LoadBalance] {
            let mut world = World::new(seed, mode);
            (0..STEPS).for_each(|_| world.step());
            world.calm();
        }
    }
}
