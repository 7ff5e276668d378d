//! The registry's core: which nodes there are, how they are, what they complain of. It decides, and does nothing itself: it takes
//! messages, outcomes of probes and the time, and gives back the [changes](Change) that are to be stored.
//!
//! A node of ours is known by the id of its `var_dir`, a legacy node by its address, so two nodes of one name are two nodes.

mod addresses;
mod clock;
mod errors;
mod forgetting;
mod hours;
mod limiter;
mod names;
mod node;
mod owed;
mod said;
mod samples;

#[cfg(test)]
mod tests;

pub use forgetting::{Forgotten, NotForgotten};
pub use hours::{HourRow, HourView, Hours, covered};
pub use node::{ErrorEntry, Node, NodeRow, Origin, ProbeError, State};
pub use said::{Identity, address, clip, plain};
pub use samples::{SAMPLE_MS, SAMPLES_MAX, Sample, Samples};

use crate::alerts::AlertRow;
use clock::Clock;
use errors::Errors;
use limiter::Strangers;
use logferry_node::monitor::hours::HourNews;
use logferry_node::monitor::status::NodeStatus;
use owed::Owed;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// The time, twice: the wall's for people, and one that only goes forward for decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    /// Since some moment; never steps back.
    pub tick: Duration,
}

/// What is to be stored.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// A node is new or another than it was.
    Node(NodeRow),
    /// A node is forgotten.
    Forgotten(NodeRow),
    /// Something for the error log.
    Error(ErrorEntry),
    /// An hour is another than it was.
    Hour(HourRow),
    /// An alert begins or is over, or has arrived somewhere.
    Alert(AlertRow),
    /// A node is not at the address of this row any more.
    AddressLeft(NodeRow),
}

impl Change {
    /// Whether it writes to the rows of nodes, the legacy ones among them.
    pub fn is_about_a_node(&self) -> bool {
        matches!(self, Change::Node(_) | Change::Forgotten(_) | Change::AddressLeft(_))
    }
}

/// Limits of the registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes.
    pub nodes_max: usize,
    /// Errors a node may report in a minute.
    pub errors_per_minute: u32,
    /// Errors that are remembered.
    pub errors_shown: usize,
    /// Hours that are remembered.
    pub hours_max: usize,
    /// How long nodes that left, or are silent, stay.
    pub forget_after: Duration,
    /// How long a node that nothing was heard of since the start is believed to be up.
    pub grace: Duration,
    /// Longest from one answer to a probe to the next.
    pub probe_max: Duration,
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are as many nodes as there may be.
    #[error("there are {0} nodes, and no more may be: raise check.nodes_max")]
    TooMany(usize),
    /// The message does not say who speaks.
    #[error("{0}")]
    Unclear(&'static str),
}

/// A node that is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it is known by.
    pub id: String,
    /// Its address,
    pub ip: String,
    /// and port.
    pub port: u16,
    /// It may well not answer, which takes long to find out.
    pub is_slow: bool,
}

/// What becomes of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Reported {
    /// It is to be stored.
    Store(ErrorEntry),
    /// Its node has reported too much; it is counted.
    LeftOut,
}

/// See the module.
pub struct Registry {
    options: Options,
    nodes: BTreeMap<String, Node>,
    errors: Errors,
    hours: Hours,
    /// Reports of addresses that are no node.
    strangers: Strangers,
    owed: Owed,
    /// What the database knew at the start is known.
    is_restored: bool,
    clock: Clock,
}

impl Registry {
    /// An empty one.
    pub fn new(options: Options) -> Registry {
        let strangers = Strangers::new(options.errors_per_minute, options.nodes_max);
        let (hours, errors) = (Hours::new(options.hours_max), Errors::new(options.errors_shown));
        let (nodes, owed) = (BTreeMap::new(), Owed::default());
        let (is_restored, clock) = (false, Clock::default());
        Registry { options, nodes, errors, hours, strangers, owed, is_restored, clock }
    }

    /// All nodes, by their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The hours that outputters told of.
    pub fn hours(&self) -> &Hours {
        &self.hours
    }

    /// An outputter tells of hours; those that are other than they were. They are remembered by [`keep_hours`](Self::keep_hours), once they
    /// are stored.
    pub fn tell_hours(&mut self, who: &Identity, told: Vec<HourNews>, now: Now) -> Vec<HourRow> {
        self.hours.set_time(now);
        self.hours.is_there(&who.id());
        self.hours.changed(&who.id(), told, now)
    }

    /// Remembers hours that are stored.
    pub fn keep_hours(&mut self, rows: Vec<HourRow>) {
        rows.into_iter().for_each(|row| self.hours.keep(row));
    }

    /// Takes over what the database knew at the start: what was told since is younger.
    pub fn restore_hours(&mut self, rows: Vec<HourRow>) {
        rows.iter().for_each(|row| self.clock.holds(row.told_ms));
        for row in rows.iter().filter(|row| !self.nodes.contains_key(&row.node)) {
            self.hours.is_gone(&row.node);
        }
        rows.into_iter()
            .filter(|row| !self.hours.has(row))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|row| self.hours.keep(row));
    }

    /// Forgets hours from before this one, `YYYYMMDDHH`.
    pub fn forget_hours_before(&mut self, hour: u32) {
        self.hours.forget_before(hour);
    }

    /// The latest errors, oldest first.
    pub fn errors(&self) -> impl DoubleEndedIterator<Item = &ErrorEntry> {
        self.errors.iter()
    }

    /// Whether there are older errors than these: the database has them, as far as it is known.
    pub fn has_older_errors(&self) -> bool {
        self.errors.is_cut() || !self.is_restored
    }

    /// Takes over an error that has waited for the database since before this run. Oldest first.
    pub fn keep_queued(&mut self, number: u64, entry: ErrorEntry) {
        self.clock.holds(entry.unix_ms);
        self.errors.keep_queued(number, entry);
    }

    /// The database has all that waited for it at the start up to this number: its errors are [restored](Self::restore) with its others.
    pub fn forget_queued_up_to(&mut self, number: u64) {
        self.errors.forget_queued_up_to(number);
    }

    /// Takes over what the database knew at the start. `errors` oldest first.
    pub fn restore(&mut self, rows: Vec<NodeRow>, errors: Vec<ErrorEntry>, now: Now) {
        errors.iter().for_each(|error| self.clock.holds(error.unix_ms));
        for row in rows.into_iter().filter(|row| !self.owed.forgets(&row.id)).collect::<Vec<_>>() {
            self.clock.holds(row.since_ms.max(row.registered_ms));
            if let Some(node) = self.nodes.get_mut(&row.id) {
                let left = node.remember(row);
                left.into_iter().for_each(|row| self.owed.push(Change::AddressLeft(row)));
                continue;
            }
            let node = Node::of_row(row, self.options.errors_per_minute, now, self.options.grace);
            self.nodes.insert(node.row.id.clone(), node);
        }
        self.errors.put_before(errors);
    }

    /// A node registers.
    ///
    /// # Errors
    /// The message is unclear, or there are too many nodes.
    pub fn register(&mut self, who: &Identity, now: Now) -> Result<Vec<Change>, Refusal> {
        let mut changes = self.claim_address(who, now);
        let is_legacy = |change: &Change| matches!(change, Change::Forgotten(row) if row.id == address(&row.ip, row.port));
        let has_displaced = changes.iter().any(is_legacy);
        let node = self.node_of(who, now)?;
        // the row of the legacy table may be that of the other one
        node.owed |= has_displaced;
        let has_moved = node.row.port > 0 && (&node.row.ip, node.row.port) != (&who.ip, who.port);
        changes.extend((has_moved && !node.row.is_by_hand()).then(|| Change::AddressLeft(node.row.clone())));
        // before it counts as heard: what is stored of that must not name the address that it has left
        let named = node.take_identity(who, now).map(Change::Node);
        let heard = node.spoke(&who.peer, now);
        let is_in_it = heard.iter().any(|change| matches!(change, Change::Node(_)));
        changes.extend(named.filter(|_| !is_in_it).into_iter().chain(heard));
        self.remember_all(&changes);
        Ok(changes)
    }

    /// A node tells how it is. One that is not known is registered by it.
    ///
    /// # Errors
    /// As of [`register`](Self::register).
    pub fn heartbeat(
        &mut self,
        who: &Identity,
        status: NodeStatus,
        now: Now,
    ) -> Result<Vec<Change>, Refusal> {
        let changes = self.register(who, now)?;
        if let Some(node) = self.nodes.get_mut(&who.id()) {
            node.take_status(status, now);
        }
        Ok(changes)
    }

    /// A node leaves. As long as the database has not said who there is, it may be one of those.
    pub fn unregister(&mut self, who: &Identity, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.nodes.contains_key(&who.id()) {
            if self.is_restored {
                return changes;
            }
            if who.instance.is_empty() && self.is_lived_at(who, now) {
                return changes;
            }
            changes.extend(self.claim_address(who, now));
            let Ok(node) = self.node_of(who, now) else { return changes };
            let _ = node.take_identity(who, now);
        }
        let left = self.nodes.get_mut(&who.id()).and_then(|node| node.leave(now));
        changes.extend(left.map(Change::Node));
        changes
    }

    /// A node has this time; whether the monitor's own can be believed is known by it.
    pub fn compare_clock(&mut self, unix_ms: i64, now: Now) {
        self.clock.compare(unix_ms, now);
    }

    /// The time of the newest thing that is known, if the clock is so far beyond it that nothing counts as old.
    pub fn clock_doubted(&self, now: Now) -> Option<i64> {
        self.clock.doubted(now)
    }

    /// The database has said who there is.
    pub fn set_restored(&mut self) {
        self.is_restored = true;
        self.strangers.forget_each();
    }

    /// A node, or somebody at an address that is none, warns. The entry is remembered by [`keep`](Self::keep), once it is stored.
    pub fn report(&mut self, who: &Identity, kind: &str, text: &str, unix_ms: i64, now: Now) -> Reported {
        let node = self.nodes.get_mut(&who.id());
        let mut entry = ErrorEntry {
            unix_ms,
            ip: who.ip.clone(),
            port: who.port,
            role: who.role.clone(),
            name: who.name.clone(),
            kind: clip(kind, said::KIND_CHARS_MAX),
            text: clip(text, said::TEXT_CHARS_MAX),
            node: String::new(),
        };
        let taken = match node {
            Some(node) => {
                entry.role.clone_from(&node.row.role);
                entry.name.clone_from(&node.row.name);
                entry.node.clone_from(&node.row.id);
                node.limiter.take(unix_ms, now)
            }
            None => self.strangers.of(&who.id(), self.is_restored).take(unix_ms, now),
        };
        if taken { Reported::Store(entry) } else { Reported::LeftOut }
    }

    /// Remembers an entry that is stored.
    pub fn keep(&mut self, entry: ErrorEntry) {
        self.errors.keep(entry);
    }

    /// The entry of a [`report`](Self::report) could not be stored: its node will report it again, and must not be left out then.
    pub fn report_not_stored(&mut self, who: &Identity) {
        match self.nodes.get_mut(&who.id()) {
            Some(node) => node.limiter.give_back(),
            None => self.strangers.of(&who.id(), self.is_restored).give_back(),
        }
    }

    /// Changes could not be stored: they are given back later, nodes by [`tick`](Self::tick), the others by [`take_owed`](Self::take_owed).
    pub fn not_stored(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Node(row) => {
                    if let Some(node) = self.nodes.get_mut(&row.id) {
                        node.owed = true;
                    }
                }
                other => self.owed.push(other),
            }
        }
    }

    /// Changes that are still to be stored; [`owe_again`](Self::owe_again) those that cannot.
    pub fn take_owed(&mut self) -> Vec<Change> {
        let is_true_still = |change: &Change| match change {
            Change::Forgotten(row) => !self.nodes.contains_key(&row.id),
            Change::AddressLeft(row) => self
                .nodes
                .get(&row.id)
                .is_none_or(|node| (&node.row.ip, node.row.port) != (&row.ip, row.port)),
            _ => true,
        };
        self.owed.take().into_iter().filter(is_true_still).collect()
    }

    /// What [`take_owed`](Self::take_owed) gave could not be stored again.
    pub fn owe_again(&mut self, changes: Vec<Change>) {
        self.owed.put_back(changes);
    }

    /// Whether a change that is about a node is still to be stored.
    pub fn owes_nodes(&self) -> bool {
        self.owed.has(Change::is_about_a_node) || self.nodes.values().any(|node| node.owed)
    }

    /// Changes of the monitor's own that are still to be stored, and how many were lost because they were too many.
    pub fn owed(&self) -> (usize, u64) {
        (self.owed.len(), self.owed.lost())
    }

    /// Whom to probe.
    pub fn probes(&self) -> Vec<Probe> {
        let is_probed =
            |node: &&Node| node.row.port > 0 && node.row.state != State::Left && !node.is_address_shared();
        let probe = |node: &Node| Probe {
            id: node.row.id.clone(),
            ip: node.row.ip.clone(),
            port: node.row.port,
            is_slow: node.row.state == State::Silent || node.probe_error.is_some(),
        };
        self.nodes.values().filter(is_probed).map(probe).collect()
    }

    /// A probe has ended; `Err` says why there was no `!`.
    pub fn probed(&mut self, id: &str, outcome: Result<(), ProbeError>, now: Now) -> Vec<Change> {
        let Some(node) = self.nodes.get_mut(id) else { return Vec::new() };
        let changes = node.probed(outcome, now);
        self.remember_all(&changes);
        changes
    }

    /// Time has passed: who is silent, who is forgotten, whose name is used twice.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        self.hours.set_time(now);
        self.clock.tick(self.is_restored, now);
        // first, because a probe of such an address counts for none of them
        let shared = names::report_shared_addresses(&mut self.nodes, now);
        let probe_max = self.options.probe_max;
        let mut changes: Vec<Change> =
            self.nodes.values_mut().flat_map(|node| node.tick(probe_max, now)).collect();
        changes.extend(self.news_of(shared));
        changes.extend(self.succeed_silent());
        let forget_ms = i64::try_from(self.options.forget_after.as_millis()).unwrap_or(i64::MAX);
        let is_doubted = self.clock.doubted(now).is_some();
        let old = |node: &Node| {
            node.row.state != State::Up
                && !is_doubted
                && node.origin == Origin::Message
                && now.unix_ms.saturating_sub(node.row.since_ms) > forget_ms
        };
        let forgotten: Vec<String> =
            self.nodes.values().filter(|node| old(node)).map(|node| node.row.id.clone()).collect();
        for id in forgotten {
            changes.extend(self.forget(&id));
        }
        let twins = names::report_twins(&mut self.nodes, now);
        changes.extend(self.news_of(twins));
        changes.extend(
            self.strangers.take_left_out(now).map(|count| Change::Error(said::of_strangers(count, now))),
        );
        self.remember_all(&changes);
        changes
    }

    fn news_of(&self, conflicts: Vec<names::Conflict>) -> Vec<Change> {
        let news = conflicts.into_iter().filter(|conflict| !conflict.was_told(self.errors.iter()));
        news.map(Change::from).collect()
    }

    /// The rows of the legacy table as they are now: those added by hand are watched, those that were deleted by hand are not any
    /// more. Only to be called when nothing of a node waits to be written.
    pub fn adopt(&mut self, rows: Vec<NodeRow>, now: Now) -> Vec<Change> {
        let addresses: HashSet<(String, u16)> = rows.iter().map(|row| (row.ip.clone(), row.port)).collect();
        let gone = |node: &Node| {
            node.origin == Origin::Database && !addresses.contains(&(node.row.ip.clone(), node.row.port))
        };
        let gone: Vec<String> =
            self.nodes.values().filter(|node| gone(node)).map(|node| node.row.id.clone()).collect();
        let forgotten = gone.iter().filter_map(|id| self.forget(id)).collect();
        // where a node has left there may be another now
        let there = self.nodes.values().filter(|node| node.row.state != State::Left);
        let known: HashSet<(String, u16)> = there.map(|node| (node.row.ip.clone(), node.row.port)).collect();
        for row in rows.into_iter().filter(|row| !known.contains(&(row.ip.clone(), row.port))) {
            if self.nodes.len() < self.options.nodes_max {
                let node = Node::of_row(row, self.options.errors_per_minute, now, self.options.grace);
                self.nodes.insert(node.row.id.clone(), node);
            }
        }
        forgotten
    }

    /// Nodes whose status is another than when this was last asked.
    pub fn take_news(&mut self) -> Vec<(NodeRow, Option<i64>, String)> {
        self.nodes.values_mut().filter_map(Node::take_news).collect()
    }

    fn forget(&mut self, id: &str) -> Option<Change> {
        self.hours.is_gone(id);
        self.nodes.remove(id).map(|node| Change::Forgotten(node.row))
    }

    fn node_of(&mut self, who: &Identity, now: Now) -> Result<&mut Node, Refusal> {
        let id = who.id();
        if !self.nodes.contains_key(&id) {
            if self.nodes.len() >= self.options.nodes_max {
                return Err(Refusal::TooMany(self.nodes.len()));
            }
            let node = Node::new(who, self.options.errors_per_minute, now);
            // what it told before it was forgotten counts again
            self.hours.is_there(&id);
            self.nodes.insert(id.clone(), node);
        }
        self.nodes.get_mut(&id).ok_or(Refusal::Unclear("no such node"))
    }

    /// What the registry itself complains of is remembered at once.
    fn remember_all(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Error(entry) = change {
                self.keep(entry.clone());
            }
        }
    }
}
