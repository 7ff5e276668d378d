//! One target of a pool: whether it takes packs, what is in flight there, and which packs may go next.

use crate::answer::Outgoing;
use std::collections::{BTreeSet, HashMap};

/// Bytes before a header's JSON: its length.
const HEADER_PREFIX_BYTES: u64 = 4;

/// What a peer takes, from its HELLO. Bytes.
#[derive(Clone, Copy, Debug)]
pub struct TargetLimits {
    /// In flight.
    pub window: u64,
    /// In one pack.
    pub pack_bytes_max: u64,
    /// In a header's JSON.
    pub header_bytes_max: u64,
    /// No more than one pack of a stream at a time: the peer does not keep their order.
    pub one_of_stream: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Up,
    Draining,
}

pub(super) struct Target {
    name_hash: u64,
    state: State,
    limits: TargetLimits,
    /// Bytes by key of the packs written to the session and not answered, withdrawn ones too.
    in_flight: HashMap<u64, u64>,
    in_flight_bytes: u64,
    queue: BTreeSet<u64>,
    /// Something came into the queue, or room into the window.
    wake: bool,
}

impl Target {
    pub(super) fn new(name: &str) -> Target {
        Target {
            name_hash: hash(name.as_bytes()),
            state: State::Down,
            limits: TargetLimits { window: 0, pack_bytes_max: 0, header_bytes_max: 0, one_of_stream: false },
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            queue: BTreeSet::new(),
            wake: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub(super) fn takes_one_of_stream(&self) -> bool {
        self.limits.one_of_stream
    }

    pub(super) fn begin(&mut self, limits: TargetLimits) {
        self.state = State::Up;
        self.limits = limits;
    }

    pub(super) fn drain(&mut self) {
        self.state = State::Draining;
    }

    /// The keys that were in flight, in order.
    pub(super) fn end(&mut self) -> Vec<u64> {
        self.state = State::Down;
        self.in_flight_bytes = 0;
        let mut keys: Vec<u64> = self.in_flight.drain().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Rendezvous hashing: the target with the largest weight has the streams with this hash. Depends on nothing but names, so that all
    /// nodes and all restarts agree.
    pub(super) fn weight(&self, spread: u64) -> u64 {
        mix(spread ^ mix(self.name_hash))
    }

    pub(super) fn queue(&mut self, key: u64) {
        self.queue.insert(key);
        self.wake = true;
    }

    pub(super) fn unqueue(&mut self, key: u64) {
        self.queue.remove(&key);
    }

    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    pub(super) fn first_queued(&self) -> Option<u64> {
        self.queue.first().copied().filter(|_| self.is_up())
    }

    /// Why this peer will never take a pack.
    pub(super) fn refuses(&self, pack: &Outgoing) -> Option<&'static str> {
        if (pack.header.len() as u64).saturating_sub(HEADER_PREFIX_BYTES) > self.limits.header_bytes_max {
            return Some("header_too_large");
        }
        (pack.bytes() > self.limits.pack_bytes_max).then_some("pack_too_large")
    }

    /// Puts a pack in flight, if the window has room. One always fits into an empty window.
    pub(super) fn send(&mut self, key: u64, bytes: u64) -> bool {
        if !self.in_flight.is_empty() && self.in_flight_bytes + bytes > self.limits.window {
            return false;
        }
        self.in_flight.insert(key, bytes);
        self.in_flight_bytes += bytes;
        true
    }

    pub(super) fn answered(&mut self, key: u64) {
        if let Some(bytes) = self.in_flight.remove(&key) {
            self.in_flight_bytes -= bytes;
            self.wake |= !self.queue.is_empty();
        }
    }

    pub(super) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len(), self.in_flight_bytes)
    }
}

/// FNV-1a, 64 bits.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit changes half of the output bits.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
