//! Who is at an address: whoever speaks from it has it, and a node of ours that lives loses it to nobody who only says so.

use super::{Change, Identity, Now, Registry, State};
use std::collections::HashSet;

impl Registry {
    /// A node without an instance that had the address does not any more, nor does one of the same host that is not heard of any more. Other
    /// nodes of ours stay, and both are told of. A node without an instance, which registers once and never again, is kept beside a node
    /// of ours that may have been killed a moment ago: the next heartbeat of that one, or its [silence](Self::succeed_silent), decides.
    pub(super) fn claim_address(&mut self, who: &Identity, now: Now) -> Vec<Change> {
        if who.port == 0 {
            return Vec::new();
        }
        let id = who.id();
        let others = self
            .nodes
            .values_mut()
            .filter(|node| node.row.id != id && node.row.ip == who.ip && node.row.port == who.port);
        let mut had = Vec::new();
        for node in others {
            let yields = match who.instance.is_empty() {
                true => node.row.state != State::Up || !node.beats(now),
                false => node.is_legacy() || node.is_succeeded_by(who, now),
            };
            if yields {
                had.push(node.row.id.clone());
            } else {
                // from here on an answer to a probe is not its own
                node.set_address_shared(true, now);
            }
        }
        had.iter().filter_map(|id| self.forget(id)).collect()
    }

    /// Whether a node of ours lives at the address that another one says is its own.
    pub(super) fn is_lived_at(&self, who: &Identity, now: Now) -> bool {
        let is_at = |row: &super::NodeRow| row.ip == who.ip && row.port == who.port && row.id != who.id();
        self.nodes.values().any(|node| is_at(&node.row) && node.row.state == State::Up && node.beats(now))
    }

    /// Nodes of ours that have fallen silent where a node without an instance has registered since: it is what has become of them.
    pub(super) fn succeed_silent(&mut self) -> Vec<Change> {
        let address = |row: &super::NodeRow| (row.ip.clone(), row.port);
        let heirs = self.nodes.values().filter(|node| node.is_legacy() && node.row.state == State::Up);
        let heirs: HashSet<(String, u16)> = heirs.map(|node| address(&node.row)).collect();
        let is_succeeded = |row: &super::NodeRow| row.state == State::Silent && heirs.contains(&address(row));
        let silent: Vec<String> = self
            .nodes
            .values()
            .filter(|node| !node.is_legacy() && is_succeeded(&node.row))
            .map(|node| node.row.id.clone())
            .collect();
        silent.iter().filter_map(|id| self.forget(id)).collect()
    }
}
