//! Which pack goes to which target, when: a state machine without I/O.
//!
//! Packs are kept in the order of submission until they are settled. A stream keeps one target while that is up, so its packs
//! are sent in order; when it has to move, all its unsettled packs are sent again at the new target, first to last. A pack may so be
//! sent twice: the next tier tells duplicates. What was settled is never sent again.

use crate::answer::{Answer, Outcome, Outgoing, Settled};
use logferry_node::config::Mode;
use logferry_pack::StreamId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

/// Longest wait that a `busy` may ask for.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

struct Entry {
    pack: Outgoing,
    submitted: Instant,
    /// Target it waits for or was last sent to.
    target: Option<usize>,
    /// Sequence on that target's session, once sent.
    sent: Option<(u64, Instant)>,
    not_before: Option<Instant>,
}

#[derive(Default)]
struct Target {
    up: bool,
    window: u64,
    sequence: u64,
    /// Packs sent on this session and not answered, by sequence.
    sent: BTreeMap<u64, (u64, u64)>,
    in_flight_bytes: u64,
    /// Entries that wait to be sent here, in order.
    queue: BTreeSet<u64>,
}

struct Route {
    target: Option<usize>,
    entries: BTreeSet<u64>,
}

/// A pack to be written to a target now.
#[derive(Debug)]
pub struct Transmit {
    /// Sequence for the PACK frame.
    pub sequence: u64,
    /// The pack.
    pub pack: Outgoing,
}

/// Figures of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Targets with a live session.
    pub targets_up: usize,
    /// Bytes that are not settled.
    pub unsettled_bytes: u64,
    /// Packs that are not settled.
    pub unsettled_packs: u64,
}

/// All unsettled packs and the targets they can go to.
pub struct Pool {
    mode: Mode,
    window: u64,
    names: Vec<String>,
    targets: Vec<Target>,
    entries: BTreeMap<u64, Entry>,
    streams: HashMap<StreamId, Route>,
    next_order: u64,
    unsettled_bytes: u64,
}

impl Pool {
    /// A pool for the targets with these names; at most `window` bytes are in flight to each.
    pub fn new(mode: Mode, names: &[String], window: u64) -> Pool {
        Pool {
            mode,
            window,
            names: names.to_vec(),
            targets: names.iter().map(|_| Target::default()).collect(),
            entries: BTreeMap::new(),
            streams: HashMap::new(),
            next_order: 0,
            unsettled_bytes: 0,
        }
    }

    /// Whether a pack of `bytes` fits into the window now. One always fits into an empty pool.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.entries.is_empty() || self.unsettled_bytes + bytes <= self.window
    }

    /// Takes a pack. The owner asks [`Pool::has_room`] first.
    pub fn submit(&mut self, pack: Outgoing, now: Instant) {
        let order = self.next_order;
        self.next_order += 1;
        let stream = pack.stream;
        let known = self.streams.get(&stream).map(|route| route.target);
        let target = known.flatten().or_else(|| self.choose(stream));
        let route = self.streams.entry(stream).or_insert(Route { target, entries: BTreeSet::new() });
        route.target = target;
        route.entries.insert(order);
        self.unsettled_bytes += pack.bytes();
        self.entries.insert(order, Entry { pack, submitted: now, target, sent: None, not_before: None });
        if let Some(target) = target {
            self.targets[target].queue.insert(order);
        }
    }

    /// The best target for a stream among those that are up.
    fn choose(&self, stream: StreamId) -> Option<usize> {
        let mut up = (0..self.targets.len()).filter(|number| self.targets[*number].up);
        match self.mode {
            Mode::Single | Mode::Failover => up.next(),
            Mode::LoadBalance => up.max_by_key(|number| weight(stream, &self.names[*number])),
        }
    }

    /// A session with a target begins; the peer takes `window` bytes in flight.
    pub fn target_up(&mut self, target: usize, window: u64) {
        self.targets[target] = Target { up: true, window: window.min(self.window), ..Target::default() };
        self.reroute();
    }

    /// The session with a target is over: what it had not settled goes elsewhere, or waits.
    pub fn target_down(&mut self, target: usize) {
        self.targets[target] = Target::default();
        self.reroute();
    }

    /// The target takes no more packs; answers to those in flight may still come.
    pub fn target_draining(&mut self, target: usize) {
        self.targets[target].up = false;
        self.reroute();
    }

    /// Sends each stream to its best target. Where that changes, all its unsettled packs are queued there again.
    fn reroute(&mut self) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            let best = self.choose(stream);
            let Some(route) = self.streams.get_mut(&stream) else { continue };
            let lost = |entry: &Entry| {
                entry.target.is_none_or(|target| {
                    entry.sent.is_some_and(|(sequence, _)| !self.targets[target].sent.contains_key(&sequence))
                        || (entry.sent.is_none() && !self.targets[target].up)
                })
            };
            let moves = route.target != best
                || route.entries.iter().filter_map(|order| self.entries.get(order)).any(lost);
            if !moves {
                continue;
            }
            route.target = best;
            for order in &route.entries {
                let Some(entry) = self.entries.get_mut(order) else { continue };
                if let Some(old) = entry.target {
                    self.targets[old].queue.remove(order);
                }
                entry.target = best;
                entry.sent = None;
                if let Some(best) = best {
                    self.targets[best].queue.insert(*order);
                }
            }
        }
    }

    /// The next pack to write to a target, if its window has room and nothing tells to wait.
    pub fn next_transmit(&mut self, number: usize, now: Instant) -> Option<Transmit> {
        let target = &mut self.targets[number];
        if !target.up {
            return None;
        }
        let mut waiting: HashSet<StreamId> = HashSet::new();
        let order = target.queue.iter().copied().find(|order| {
            let Some(entry) = self.entries.get(order) else { return false };
            let ready = !waiting.contains(&entry.pack.stream) && entry.not_before.is_none_or(|at| at <= now);
            if !ready {
                waiting.insert(entry.pack.stream);
            }
            ready
        })?;
        let entry = self.entries.get_mut(&order)?;
        let bytes = entry.pack.bytes();
        if target.in_flight_bytes > 0 && target.in_flight_bytes + bytes > target.window {
            return None;
        }
        target.queue.remove(&order);
        target.sequence += 1;
        target.in_flight_bytes += bytes;
        target.sent.insert(target.sequence, (order, bytes));
        entry.sent = Some((target.sequence, now));
        entry.not_before = None;
        Some(Transmit { sequence: target.sequence, pack: entry.pack.clone() })
    }

    /// When [`Pool::next_transmit`] is worth another try without any event: the end of a `busy`.
    pub fn next_wake(&self, number: usize) -> Option<Instant> {
        let queue = self.targets[number].queue.iter();
        queue.filter_map(|order| self.entries.get(order)?.not_before).min()
    }

    /// When the oldest pack that waits for its answer on a target was sent.
    pub fn oldest_sent(&self, number: usize) -> Option<Instant> {
        let (sequence, (order, _)) = self.targets[number].sent.first_key_value()?;
        let entry = self.entries.get(order)?;
        entry.sent.filter(|(sent, _)| entry.target == Some(number) && sent == sequence).map(|(_, at)| at)
    }

    /// Whether answers of a target are outstanding.
    pub fn awaits_answers(&self, number: usize) -> bool {
        !self.targets[number].sent.is_empty()
    }

    /// A target's answer. `Err` when it answers what was never sent.
    pub fn answered(
        &mut self,
        number: usize,
        sequence: u64,
        answer: Answer,
        now: Instant,
    ) -> Result<Option<Settled>, &'static str> {
        let target = &mut self.targets[number];
        let (order, bytes) = target.sent.remove(&sequence).ok_or("an answer to a pack that was not sent")?;
        target.in_flight_bytes -= bytes;
        // Withdrawn, or settled by another target meanwhile.
        let Some(entry) = self.entries.get_mut(&order) else { return Ok(None) };
        let outcome = match answer {
            Answer::Ok => Outcome::Ok,
            Answer::Duplicate => Outcome::Duplicate,
            Answer::Rejected { reason } => Outcome::Rejected { reason },
            Answer::Conflict(remembered) => Outcome::Conflict(remembered),
            Answer::Busy { retry_ms } => {
                let current =
                    entry.target == Some(number) && entry.sent.is_some_and(|(sent, _)| sent == sequence);
                if current {
                    entry.sent = None;
                    entry.not_before = Some(now + Duration::from_millis(retry_ms).min(BUSY_WAIT_MAX));
                    target.queue.insert(order);
                }
                return Ok(None);
            }
        };
        let ticket = entry.pack.ticket;
        self.forget(order);
        Ok(Some(Settled { ticket, outcome }))
    }

    fn forget(&mut self, order: u64) {
        let Some(entry) = self.entries.remove(&order) else { return };
        self.unsettled_bytes -= entry.pack.bytes();
        if let Some(target) = entry.target {
            self.targets[target].queue.remove(&order);
        }
        if let Some(route) = self.streams.get_mut(&entry.pack.stream) {
            route.entries.remove(&order);
            if route.entries.is_empty() {
                self.streams.remove(&entry.pack.stream);
            }
        }
    }

    /// Gives all unsettled packs back, in the order of submission.
    pub fn withdraw(&mut self) -> Vec<Outgoing> {
        let orders: Vec<u64> = self.entries.keys().copied().collect();
        let packs = orders
            .iter()
            .filter_map(|order| self.entries.get(order).map(|entry| entry.pack.clone()))
            .collect();
        orders.into_iter().for_each(|order| self.forget(order));
        packs
    }

    /// Figures, now.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            targets_up: self.targets.iter().filter(|target| target.up).count(),
            unsettled_bytes: self.unsettled_bytes,
            unsettled_packs: self.entries.len() as u64,
        }
    }

    /// When the oldest unsettled pack was submitted.
    pub fn oldest_submitted(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, entry)| entry.submitted)
    }
}

/// Rendezvous hashing: the target with the largest weight has the stream.
fn weight(stream: StreamId, name: &str) -> u64 {
    // Keyed with zeros, so the same in every process of one build; the choice needs to be stable, not secret.
    let mut hasher = std::hash::DefaultHasher::new();
    (stream, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn pack(ticket: u64, stream: u128) -> Outgoing {
        Outgoing { ticket, stream: StreamId(stream), header: Bytes::new(), body: Bytes::from(vec![0; 100]) }
    }

    /// Random targets going up and down, lost and late answers, busy, withdrawals.
    fn simulate(seed: u64, mode: Mode) {
        let mut random = StdRng::seed_from_u64(seed);
        let names = ["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()];
        let count = if mode == Mode::Single { 1 } else { 3 };
        let mut pool = Pool::new(mode, &names[..count], 2_000);
        let mut now = Instant::now();
        let mut wires: Vec<Vec<(u64, u64, u128)>> = vec![Vec::new(); count]; // in flight on the wire
        let mut last_on_session: Vec<HashMap<u128, u64>> = vec![HashMap::new(); count];
        let (mut next_ticket, mut settled) = (0, HashSet::new());
        for step in 0..600 {
            now += Duration::from_millis(random.random_range(0..50));
            let calm = step > 500;
            let target = random.random_range(0..count);
            match random.random_range(0..10) {
                0..4 if !calm && pool.has_room(100) => {
                    pool.submit(pack(next_ticket, random.random_range(0..4)), now);
                    next_ticket += 1;
                }
                4 if !calm && random.random_ratio(1, 3) => {
                    pool.target_down(target);
                    wires[target].clear();
                    last_on_session[target].clear();
                }
                5 => {
                    if !pool.targets[target].up {
                        wires[target].clear();
                        last_on_session[target].clear();
                        pool.target_up(target, 1_000);
                    }
                }
                6 if !calm && random.random_ratio(1, 20) => {
                    for pack in pool.withdraw() {
                        assert!(settled.insert(pack.ticket), "seed {seed}: {} settled twice", pack.ticket);
                    }
                }
                _ => {
                    while let Some(transmit) = pool.next_transmit(target, now) {
                        let stream = transmit.pack.stream.0;
                        assert!(
                            !settled.contains(&transmit.pack.ticket),
                            "seed {seed}: sent after it was settled"
                        );
                        last_on_session[target].insert(stream, transmit.pack.ticket);
                        wires[target].push((transmit.sequence, transmit.pack.ticket, stream));
                    }
                    assert!(pool.targets[target].in_flight_bytes <= 1_000, "seed {seed}: window");
                    if !wires[target].is_empty() {
                        let at = random.random_range(0..wires[target].len());
                        let (sequence, ..) = wires[target].remove(at);
                        let busy = !calm && random.random_ratio(1, 8);
                        let answer = if busy { Answer::Busy { retry_ms: 20 } } else { Answer::Ok };
                        if let Some(done) =
                            pool.answered(target, sequence, answer, now).expect("a known sequence")
                        {
                            assert!(
                                settled.insert(done.ticket),
                                "seed {seed}: {} settled twice",
                                done.ticket
                            );
                        }
                    }
                }
            }
        }
        // All targets up, every answer given: everything is settled.
        for target in 0..count {
            pool.target_down(target);
            pool.target_up(target, 1_000);
        }
        for _ in 0..200 {
            now += Duration::from_secs(1);
            for target in 0..count {
                while let Some(transmit) = pool.next_transmit(target, now) {
                    let done =
                        pool.answered(target, transmit.sequence, Answer::Ok, now).expect("a known sequence");
                    if let Some(done) = done {
                        assert!(settled.insert(done.ticket), "seed {seed}: {} settled twice", done.ticket);
                    }
                }
            }
        }
        assert_eq!(settled.len() as u64, next_ticket, "seed {seed}: everything is settled");
        assert_eq!(pool.figures().unsettled_bytes, 0);
        assert!(pool.streams.is_empty());
    }

    #[test]
    fn every_pack_is_settled_exactly_once_whatever_targets_do() {
        for seed in 0..600 {
            simulate(seed, Mode::Single);
            simulate(seed, Mode::Failover);
            simulate(seed, Mode::LoadBalance);
        }
    }

    #[test]
    fn a_stream_is_sent_in_order_after_it_moved() {
        let names = ["a:1".to_owned(), "b:1".to_owned()];
        let mut pool = Pool::new(Mode::Failover, &names, 10_000);
        let now = Instant::now();
        (0..4).for_each(|ticket| pool.submit(pack(ticket, 7), now));
        pool.target_up(1, 10_000);
        assert_eq!(pool.next_transmit(1, now).expect("sent").pack.ticket, 0);
        assert_eq!(pool.next_transmit(1, now).expect("sent").pack.ticket, 1);
        pool.target_up(0, 10_000); // the primary is back
        let tickets: Vec<u64> =
            std::iter::from_fn(|| pool.next_transmit(0, now)).map(|sent| sent.pack.ticket).collect();
        assert_eq!(tickets, [0, 1, 2, 3]);
        assert!(pool.next_transmit(1, now).is_none());
        let late = pool.answered(1, 1, Answer::Ok, now).expect("known");
        assert_eq!(late, Some(Settled { ticket: 0, outcome: Outcome::Ok }));
        assert_eq!(pool.answered(0, 1, Answer::Duplicate, now), Ok(None));
    }

    #[test]
    fn streams_are_spread_and_only_those_of_a_lost_target_move() {
        let names: Vec<String> = (0..4).map(|number| format!("collector-{number}:1302")).collect();
        let mut pool = Pool::new(Mode::LoadBalance, &names, u64::MAX);
        (0..4).for_each(|target| pool.target_up(target, u64::MAX));
        let before: Vec<_> = (0..400).map(|stream| pool.choose(StreamId(stream))).collect();
        (0..4).for_each(|target| {
            let share = before.iter().filter(|chosen| **chosen == Some(target)).count();
            assert!((60..140).contains(&share), "{share} of 400 streams at target {target}");
        });
        pool.target_down(2);
        for (stream, before) in before.iter().enumerate().filter(|(_, before)| **before != Some(2)) {
            assert_eq!(pool.choose(StreamId(stream as u128)), *before);
        }
    }
}
