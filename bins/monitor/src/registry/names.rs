//! Two nodes of one name and role that live at the same time: one of them was set up wrongly, and people would take them for one.

use super::{Change, Node, Now, State};
use std::collections::BTreeMap;

/// Marks the nodes whose name is used twice; a change of that is for the error log.
pub(super) fn report_twins(nodes: &mut BTreeMap<String, Node>, now: Now) -> Vec<Change> {
    let mut by_name: BTreeMap<(String, String), Vec<&mut Node>> = BTreeMap::new();
    for node in nodes.values_mut() {
        by_name.entry((node.row.role.clone(), node.row.name.clone())).or_default().push(node);
    }
    let mut changes = Vec::new();
    for mut group in by_name.into_values() {
        let lives: Vec<_> = group.iter().map(|node| (node.lives(), node.address())).collect();
        for (at, node) in group.iter_mut().enumerate() {
            let twin = lives.iter().enumerate().find(|(other, (life, _))| {
                *other != at && node.row.state == State::Up && overlap(lives[at].0, *life)
            });
            let twin = twin.map(|(_, (_, address))| address.clone());
            if let (None, Some(address)) = (&node.twin, &twin) {
                let text = format!("another node at {address} has the same name and role");
                changes.push(Change::Error(node.entry("same name", &text, now)));
            }
            node.twin = twin;
        }
    }
    changes
}

/// First and last sign of life, where both were seen by this process.
type Life = Option<(std::time::Duration, std::time::Duration)>;

/// Each was heard after the other had come: they are not one node that was restarted elsewhere.
fn overlap(one: Life, other: Life) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.1 > other.0 && other.1 > one.0)
}
