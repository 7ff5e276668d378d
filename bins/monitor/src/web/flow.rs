//! The relay as a flow: what goes from tier to tier, and the spot that blocks.

use super::view::NodeView;
use crate::registry::State;

/// In the direction of the data.
pub(super) const TIERS: [&str; 3] = ["tailer", "collector", "outputter"];

/// One tier's figures.
pub(super) struct Tier<'a> {
    pub(super) name: &'static str,
    pub(super) nodes: Vec<&'a NodeView>,
    pub(super) rate_bytes: u64,
    pub(super) lag_bytes: u64,
    pub(super) spool_bytes: u64,
}

/// The tiers, without nodes that have left.
pub(super) fn tiers(nodes: &[NodeView]) -> Vec<Tier<'_>> {
    TIERS
        .into_iter()
        .map(|name| {
            let nodes: Vec<&NodeView> =
                nodes.iter().filter(|node| node.tier == name && node.state != State::Left).collect();
            // figures are as nodes tell them
            let sum = |figure: fn(&NodeView) -> Option<u64>| {
                nodes.iter().filter_map(|node| figure(node)).fold(0, u64::saturating_add)
            };
            let (rate_bytes, lag_bytes) = (sum(|node| node.rate_bytes), sum(|node| node.lag_bytes));
            Tier { name, rate_bytes, lag_bytes, spool_bytes: sum(|node| node.spool_bytes), nodes }
        })
        .collect()
}

/// The node that holds the others up, and why: of those in trouble, the one furthest along the way, because overload travels backwards.
pub(super) fn blocking(nodes: &[NodeView]) -> Option<(&NodeView, String)> {
    let troubled = |tier: &&str| nodes.iter().find(|node| node.tier == **tier && node.is_troubled());
    let node = TIERS.iter().rev().find_map(troubled)?;
    let why = match node.state {
        State::Silent => "is silent".to_owned(),
        _ => node.problems.first().cloned().unwrap_or_else(|| "is not ready".to_owned()),
    };
    Some((node, why))
}
