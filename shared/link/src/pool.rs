//! Which pack goes to which target, when: a state machine without I/O.
//!
//! Packs are kept in the order of submission until they are settled; what was settled is never sent again. The rule that keeps
//! each stream in order, over busy answers, lost connections and changes of target:
//!
//! > A pack goes to a target only while every earlier unsettled pack of its stream is in flight at that same target.
//!
//! Packs that are shipped again (`apart`) are no part of that order: one that is `busy` for long does not hinder its stream.
//!
//! With several targets at a time (`load_balance`) all streams of a source of a host go to the same one: it numbers the packs of its hours over all of
//! them, so only a store that gets them all can tell that an hour is complete.
//!
//! So a stream changes its target when nothing of it is in flight at the old one: at once when the old one is lost (its packs are
//! then in flight nowhere), else when the answers have come. Meanwhile its newer packs wait.

#[cfg(test)]
mod simulation;
mod target;

use crate::answer::{Answer, Lane, Outcome, Outgoing, Settled};
use logferry_node::config::Mode;
use logferry_pack::{Decoded, Limits};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use target::Target;
pub use target::TargetLimits;

/// Shortest and longest wait that a `busy` may ask for.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(5);
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);
/// A pack is settled as rejected by this answer: one that was damaged on the way is whole the next time.
const REJECTIONS_MAX: u32 = 3;

/// Where a pack is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// To be sent.
    Waiting,
    /// To be sent again, then.
    Busy { until: Instant },
    /// Sent to this target, not answered.
    InFlight { target: usize },
}

struct Entry {
    pack: Outgoing,
    submitted: Instant,
    place: Place,
    rejections: u32,
}

/// A stream that has unsettled packs.
struct Stream {
    /// What goes to one target with it has the same.
    spread: u64,
    /// Where its packs go, or still are.
    target: Option<usize>,
    /// Its packs that are waiting or busy, by order of submission. Only the first one may be sent.
    unsent: BTreeSet<u64>,
    in_flight: usize,
    /// The place in a target's queue that it has now.
    queued: Option<(usize, u64)>,
}

/// A pack to be written to a target now.
#[derive(Debug)]
pub struct Transmit {
    /// Key for [`Pool::answered`].
    pub key: u64,
    /// The pack.
    pub pack: Outgoing,
}

/// Figures of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Targets that take packs.
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
    targets: Vec<Target>,
    /// By order of submission, which is also their key. Never used twice.
    entries: BTreeMap<u64, Entry>,
    streams: HashMap<Lane, Stream>,
    busy: BTreeSet<(Instant, u64)>,
    next_key: u64,
    unsettled_bytes: u64,
    settled: Vec<Settled>,
}

impl Pool {
    /// A pool for the targets with these names; at most `window` bytes are unsettled over all of them.
    pub fn new(mode: Mode, names: &[String], window: u64) -> Pool {
        Pool {
            mode,
            window,
            targets: names.iter().map(|name| Target::new(name)).collect(),
            entries: BTreeMap::new(),
            streams: HashMap::new(),
            busy: BTreeSet::new(),
            next_key: 0,
            unsettled_bytes: 0,
            settled: Vec::new(),
        }
    }

    /// Whether a pack of `bytes` fits into the window now. One always fits into an empty pool.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.entries.is_empty() || self.unsettled_bytes + bytes <= self.window
    }

    /// Takes a pack. The owner asks [`Pool::has_room`] first.
    pub fn submit(&mut self, pack: Outgoing, now: Instant) {
        let key = self.next_key;
        self.next_key += 1;
        self.unsettled_bytes += pack.bytes();
        let stream = pack.lane();
        let spread = || if self.mode == Mode::LoadBalance { spread_of(&pack) } else { 0 };
        self.streams.entry(stream).or_insert_with(|| Stream::new(spread())).unsent.insert(key);
        self.entries.insert(key, Entry { pack, submitted: now, place: Place::Waiting, rejections: 0 });
        self.route(stream);
    }

    /// A session with a target begins.
    pub fn target_up(&mut self, target: usize, limits: TargetLimits) {
        self.targets[target].begin(limits);
        self.route_all();
    }

    /// The target takes no more packs; answers to those in flight may still come.
    pub fn target_draining(&mut self, target: usize) {
        self.targets[target].drain();
        self.route_all();
    }

    /// The session with a target is over: what it has not answered goes elsewhere, or waits.
    pub fn target_down(&mut self, target: usize) {
        for key in self.targets[target].end() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.place == (Place::InFlight { target }) {
                entry.place = Place::Waiting;
                if let Some(stream) = self.streams.get_mut(&entry.pack.lane()) {
                    stream.in_flight -= 1;
                    stream.unsent.insert(key);
                }
            }
        }
        self.route_all();
    }

    /// The best target for streams among those that are up.
    fn choose(&self, spread: u64) -> Option<usize> {
        let mut up = self.targets.iter().enumerate().filter(|(_, target)| target.is_up());
        let best = match self.mode {
            Mode::Single | Mode::Failover => up.next(),
            Mode::LoadBalance => up.max_by_key(|(_, target)| target.weight(spread)),
        };
        best.map(|(number, _)| number)
    }

    fn route_all(&mut self) {
        let streams: Vec<Lane> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.route(stream));
    }

    /// Puts a stream where it belongs after any change: to its best target if nothing is in flight elsewhere, and its first
    /// unsent pack into that target's queue.
    fn route(&mut self, id: Lane) {
        let Some(spread) = self.streams.get(&id).map(|stream| stream.spread) else { return };
        let best = self.choose(spread);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.in_flight == 0 && stream.target != best {
            stream.target = best;
            // Another target may have room: nothing is busy there.
            for key in &stream.unsent {
                let Some(entry) = self.entries.get_mut(key) else { continue };
                if let Place::Busy { until } = entry.place {
                    self.busy.remove(&(until, *key));
                    entry.place = Place::Waiting;
                }
            }
        }
        let first = stream.unsent.first().copied();
        let ready = first.filter(|key| self.entries.get(key).is_some_and(|e| e.place == Place::Waiting));
        let may_send = |target: &usize| stream.in_flight == 0 || !self.targets[*target].takes_one_of_stream();
        let queued = stream.target.filter(|_| stream.target == best).filter(may_send).zip(ready);
        if stream.queued != queued {
            if let Some((target, key)) = stream.queued {
                self.targets[target].unqueue(key);
            }
            if let Some((target, key)) = queued {
                self.targets[target].queue(key);
            }
            stream.queued = queued;
        }
        if stream.in_flight == 0 && stream.unsent.is_empty() {
            self.streams.remove(&id);
        }
    }

    /// The next pack to write to a target, if its window has room. A pack that the target cannot take is settled as rejected.
    pub fn next_transmit(&mut self, target: usize) -> Option<Transmit> {
        loop {
            let key = self.targets[target].first_queued()?;
            let pack = self.entries.get(&key)?.pack.clone();
            if let Some(reason) = self.targets[target].refuses(&pack) {
                self.settle(key, Outcome::Rejected { reason: reason.to_owned() });
                continue;
            }
            if !self.targets[target].send(key, pack.bytes()) {
                return None;
            }
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::InFlight { target };
            }
            if let Some(stream) = self.streams.get_mut(&pack.lane()) {
                stream.unsent.remove(&key);
                stream.in_flight += 1;
            }
            self.route(pack.lane());
            return Some(Transmit { key, pack });
        }
    }

    /// A target's answer to the pack with this key.
    pub fn answered(&mut self, target: usize, key: u64, answer: Answer, now: Instant) {
        self.targets[target].answered(key);
        // Withdrawn, or settled by another target meanwhile.
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let current = entry.place == (Place::InFlight { target });
        match answer {
            Answer::Ok => self.settle(key, Outcome::Ok),
            Answer::Duplicate => self.settle(key, Outcome::Duplicate),
            // What an earlier target did not want says nothing once the pack has gone to another.
            _ if !current => {}
            Answer::Rejected { reason } => {
                entry.rejections += 1;
                match entry.rejections < REJECTIONS_MAX {
                    true => self.send_again(key, BUSY_WAIT_MIN, now),
                    false => self.settle(key, Outcome::Rejected { reason }),
                }
            }
            Answer::Conflict(remembered) => self.settle(key, Outcome::Conflict(remembered)),
            Answer::Busy { retry_ms } => {
                let wait = Duration::from_millis(retry_ms).clamp(BUSY_WAIT_MIN, BUSY_WAIT_MAX);
                self.send_again(key, wait, now);
            }
        }
    }

    /// Puts a pack that was in flight back among those to send, after a wait.
    fn send_again(&mut self, key: u64, wait: Duration, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (until, id) = (now + wait, entry.pack.lane());
        entry.place = Place::Busy { until };
        self.busy.insert((until, key));
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.in_flight -= 1;
            stream.unsent.insert(key);
        }
        self.route(id);
    }

    fn settle(&mut self, key: u64, outcome: Outcome) {
        if let Some(entry) = self.forget(key) {
            self.settled.push(Settled { ticket: entry.pack.ticket, outcome });
            self.route(entry.pack.lane());
        }
    }

    /// Removes a pack from everything but the in-flight account of a target, which ends with the answer.
    fn forget(&mut self, key: u64) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.unsettled_bytes -= entry.pack.bytes();
        if let Some(stream) = self.streams.get_mut(&entry.pack.lane()) {
            match entry.place {
                Place::InFlight { .. } => stream.in_flight -= 1,
                Place::Waiting | Place::Busy { .. } => drop(stream.unsent.remove(&key)),
            }
        }
        if let Place::Busy { until } = entry.place {
            self.busy.remove(&(until, key));
        }
        Some(entry)
    }

    /// Gives all unsettled packs back, in the order of submission.
    pub fn withdraw(&mut self) -> Vec<Outgoing> {
        self.streams.clear();
        self.busy.clear();
        self.targets.iter_mut().for_each(Target::clear_queue);
        self.unsettled_bytes = 0;
        std::mem::take(&mut self.entries).into_values().map(|entry| entry.pack).collect()
    }

    /// Time has passed: packs that were busy are sent again.
    pub fn time(&mut self, now: Instant) {
        while let Some((until, key)) = self.busy.first().copied().filter(|(until, _)| *until <= now) {
            self.busy.remove(&(until, key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Waiting;
                let stream = entry.pack.lane();
                self.route(stream);
            }
        }
    }

    /// When [`Pool::time`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.busy.first().map(|(until, _)| *until)
    }

    /// Packs settled since the last call.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// The targets for which [`Pool::next_transmit`] has something new, since the last call.
    pub fn take_wakes(&mut self) -> impl Iterator<Item = usize> {
        self.targets
            .iter_mut()
            .enumerate()
            .filter_map(|(number, target)| target.take_wake().then_some(number))
    }

    /// Figures, now.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            targets_up: self.targets.iter().filter(|target| target.is_up()).count(),
            unsettled_bytes: self.unsettled_bytes,
            unsettled_packs: self.entries.len() as u64,
        }
    }

    /// When the oldest unsettled pack was submitted.
    pub fn oldest_submitted(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, entry)| entry.submitted)
    }
}

impl Stream {
    fn new(spread: u64) -> Stream {
        Stream { spread, target: None, unsent: BTreeSet::new(), in_flight: 0, queued: None }
    }
}

/// Of source and host (of the address, where packs of legacy nodes have neither); of the stream, if the header cannot be read.
fn spread_of(pack: &Outgoing) -> u64 {
    let limits =
        Limits { header_bytes_max: usize::MAX, pack_bytes_max: usize::MAX, raw_bytes_max: usize::MAX };
    match logferry_pack::decode_header(&pack.header, &limits) {
        Ok(Decoded::Header { header, .. }) => match header.ours.filter(|ours| !ours.is_legacy()) {
            Some(ours) => target::hash(format!("{}/{}", ours.source, ours.host).as_bytes()),
            None => target::hash(header.ip.as_bytes()),
        },
        _ => target::hash(&pack.stream.0.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests;
