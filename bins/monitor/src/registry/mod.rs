//! The registry's core: which nodes there are, how they are, what they complain of. It decides, and does nothing itself: it takes
//! messages, outcomes of probes and the time, and gives back the [changes](Change) that are to be stored.
//!
//! A node of ours is known by the id of its `var_dir`, a legacy node by its address, so two nodes of one name are two nodes.

mod hours;
mod limiter;
mod names;
mod node;
mod said;
mod samples;

#[cfg(test)]
mod tests;

pub use hours::{HourRow, HourView, Hours};
pub use node::{ErrorEntry, Node, NodeRow, Origin, State};
pub use said::{Identity, address, clip};
pub use samples::{SAMPLE_MS, SAMPLES_MAX, Sample, Samples};

use crate::alerts::AlertRow;
use limiter::Limiter;
use logferry_node::monitor::hours::HourNews;
use logferry_node::monitor::status::NodeStatus;
use std::collections::{BTreeMap, HashSet, VecDeque};
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
    errors: VecDeque<ErrorEntry>,
    hours: Hours,
    /// Reports of addresses that are no node.
    strangers: Limiter,
}

impl Registry {
    /// An empty one.
    pub fn new(options: Options) -> Registry {
        let strangers = Limiter::new(options.errors_per_minute);
        let hours = Hours::new(options.hours_max);
        Registry { options, nodes: BTreeMap::new(), errors: VecDeque::new(), hours, strangers }
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
    pub fn tell_hours(&self, who: &Identity, told: Vec<HourNews>, now: Now) -> Vec<HourRow> {
        self.hours.changed(&who.id(), told, now)
    }

    /// Remembers hours that are stored.
    pub fn keep_hours(&mut self, rows: Vec<HourRow>) {
        rows.into_iter().for_each(|row| self.hours.keep(row));
    }

    /// Takes over what the database knew at the start: what was told since is younger.
    pub fn restore_hours(&mut self, rows: Vec<HourRow>) {
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

    /// Takes over what the database and the queue to it knew at the start. `errors` oldest first.
    pub fn restore(&mut self, rows: Vec<NodeRow>, errors: Vec<ErrorEntry>, now: Now) {
        for row in rows {
            let node = Node::of_row(row, self.options.errors_per_minute, now, self.options.grace);
            self.nodes.entry(node.row.id.clone()).or_insert(node);
        }
        // what was remembered since the start is younger
        for error in errors.into_iter().rev() {
            if self.errors.len() < self.options.errors_shown {
                self.errors.push_front(error);
            }
        }
    }

    /// A node registers.
    ///
    /// # Errors
    /// The message is unclear, or there are too many nodes.
    pub fn register(&mut self, who: &Identity, now: Now) -> Result<Vec<Change>, Refusal> {
        let mut changes = self.claim_address(who);
        let node = self.node_of(who, now)?;
        changes.extend(node.heard(now));
        changes.extend(node.take_identity(who, now).map(Change::Node));
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

    /// A node leaves.
    pub fn unregister(&mut self, who: &Identity, now: Now) -> Vec<Change> {
        let Some(node) = self.nodes.get_mut(&who.id()) else { return Vec::new() };
        node.leave(now).map(Change::Node).into_iter().collect()
    }

    /// A node, or somebody at an address that is none, warns. The entry is remembered by [`keep`](Self::keep), once it is stored.
    pub fn report(&mut self, who: &Identity, kind: &str, text: &str, unix_ms: i64, now: Now) -> Reported {
        let node = self.nodes.get_mut(&who.id());
        let limiter = match &node {
            Some(_) => None,
            None => Some(&mut self.strangers),
        };
        let mut entry = ErrorEntry {
            unix_ms,
            ip: who.ip.clone(),
            port: who.port,
            role: who.role.clone(),
            name: who.name.clone(),
            kind: clip(kind, said::KIND_CHARS_MAX),
            text: clip(text, said::TEXT_CHARS_MAX),
        };
        let taken = match (node, limiter) {
            (Some(node), _) => {
                entry.role.clone_from(&node.row.role);
                entry.name.clone_from(&node.row.name);
                node.limiter.take(now.tick)
            }
            (None, Some(limiter)) => limiter.take(now.tick),
            (None, None) => true,
        };
        if taken { Reported::Store(entry) } else { Reported::LeftOut }
    }

    /// Remembers an entry that is stored.
    pub fn keep(&mut self, entry: ErrorEntry) {
        self.errors.push_back(entry);
        while self.errors.len() > self.options.errors_shown {
            self.errors.pop_front();
        }
    }

    /// Changes could not be stored: the nodes among them are given back again later.
    pub fn not_stored(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Node(row) = change
                && let Some(node) = self.nodes.get_mut(&row.id)
            {
                node.owed = true;
            }
        }
    }

    /// Whom to probe: ids and addresses.
    pub fn probes(&self) -> Vec<(String, String, u16)> {
        let probed = self.nodes.values().filter(|node| node.row.port > 0 && node.row.state != State::Left);
        probed.map(|node| (node.row.id.clone(), node.row.ip.clone(), node.row.port)).collect()
    }

    /// A probe has ended; `Err` says why there was no `!`.
    pub fn probed(&mut self, id: &str, outcome: Result<(), String>, now: Now) -> Vec<Change> {
        let Some(node) = self.nodes.get_mut(id) else { return Vec::new() };
        let changes = node.probed(outcome, now);
        self.remember_all(&changes);
        changes
    }

    /// Time has passed: who is silent, who is forgotten, whose name is used twice.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        let mut changes: Vec<Change> = self.nodes.values_mut().flat_map(|node| node.tick(now)).collect();
        let forget_ms = i64::try_from(self.options.forget_after.as_millis()).unwrap_or(i64::MAX);
        let old = |node: &Node| {
            node.row.state != State::Up
                && node.origin == Origin::Message
                && now.unix_ms.saturating_sub(node.row.since_ms) > forget_ms
        };
        let forgotten: Vec<String> =
            self.nodes.values().filter(|node| old(node)).map(|node| node.row.id.clone()).collect();
        for id in forgotten {
            changes.extend(self.nodes.remove(&id).map(|node| Change::Forgotten(node.row)));
        }
        changes.extend(names::report_twins(&mut self.nodes, now));
        self.remember_all(&changes);
        changes
    }

    /// The rows of the legacy table as they are now: those added by hand are watched, those that were deleted by hand are not any
    /// more. Only to be called when nothing waits to be written.
    pub fn adopt(&mut self, rows: Vec<NodeRow>, now: Now) {
        let addresses: HashSet<(String, u16)> = rows.iter().map(|row| (row.ip.clone(), row.port)).collect();
        let gone = |node: &Node| {
            node.origin == Origin::Database && !addresses.contains(&(node.row.ip.clone(), node.row.port))
        };
        self.nodes.retain(|_, node| !gone(node));
        let known: HashSet<(String, u16)> =
            self.nodes.values().map(|node| (node.row.ip.clone(), node.row.port)).collect();
        for row in rows.into_iter().filter(|row| !known.contains(&(row.ip.clone(), row.port))) {
            if self.nodes.len() < self.options.nodes_max {
                let node = Node::of_row(row, self.options.errors_per_minute, now, self.options.grace);
                self.nodes.insert(node.row.id.clone(), node);
            }
        }
    }

    /// Nodes whose status is another than when this was last asked.
    pub fn take_news(&mut self) -> Vec<(NodeRow, Option<i64>, String)> {
        self.nodes.values_mut().filter_map(Node::take_news).collect()
    }

    /// Whoever speaks from an address has it: another node that had it does not any more.
    fn claim_address(&mut self, who: &Identity) -> Vec<Change> {
        if who.port == 0 {
            return Vec::new();
        }
        let id = who.id();
        let had: Vec<String> = self
            .nodes
            .values()
            .filter(|node| node.row.id != id && node.row.ip == who.ip && node.row.port == who.port)
            .map(|node| node.row.id.clone())
            .collect();
        had.iter().filter_map(|id| self.nodes.remove(id)).map(|node| Change::Forgotten(node.row)).collect()
    }

    fn node_of(&mut self, who: &Identity, now: Now) -> Result<&mut Node, Refusal> {
        let id = who.id();
        if !self.nodes.contains_key(&id) {
            if self.nodes.len() >= self.options.nodes_max {
                return Err(Refusal::TooMany(self.nodes.len()));
            }
            let node = Node::new(who, self.options.errors_per_minute, now);
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
