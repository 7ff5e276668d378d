//! Two nodes that live at the same time and say the same of themselves: one of them was set up wrongly, and people would take them for one.

use super::{Change, ErrorEntry, Node, Now, State, clip, said};
use std::collections::BTreeMap;
use std::time::Duration;

/// Nodes that a text names; of more it gives the number.
const NAMED_MAX: usize = 20;
/// Characters of the mark of one node: each node of a group has one.
const MARK_CHARS_MAX: usize = 1_000;

/// Nodes newly say the same of themselves.
pub(super) struct Conflict {
    pub(super) entry: ErrorEntry,
    /// All of them have said so since then, in milliseconds since 1970; 0: since before this run.
    since_ms: i64,
}

impl Conflict {
    /// Whether the error log has it: after a restart of the monitor it is no news.
    pub(super) fn was_told<'a>(&self, mut errors: impl Iterator<Item = &'a ErrorEntry>) -> bool {
        let Conflict { entry, since_ms } = self;
        errors.any(|told| told.kind == entry.kind && told.text == entry.text && told.unix_ms >= *since_ms)
    }
}

impl From<Conflict> for Change {
    fn from(conflict: Conflict) -> Change {
        Change::Error(conflict.entry)
    }
}

/// Marks the nodes whose name is used twice. Said once for each such group, naming all.
pub(super) fn report_twins(nodes: &mut BTreeMap<String, Node>, now: Now) -> Vec<Conflict> {
    let mut by_name: BTreeMap<(String, String), Vec<&mut Node>> = BTreeMap::new();
    for node in nodes.values_mut() {
        by_name.entry((node.row.role.clone(), node.row.name.clone())).or_default().push(node);
    }
    let mut conflicts = Vec::new();
    for mut group in by_name.into_values() {
        let Some(at) = mark(&mut group, place, |node| &mut node.twin) else { continue };
        let text = format!("several nodes have the same name and role: {}", all(&group, at, place));
        conflicts.push(conflict(&group, at, "same name", &text, now));
    }
    conflicts
}

/// Marks the nodes that say that they are at one address, as containers of two hosts may: a probe of it tells nothing of either. Said once for
/// each such group, naming all.
pub(super) fn report_shared_addresses(nodes: &mut BTreeMap<String, Node>, now: Now) -> Vec<Conflict> {
    let mut by_address: BTreeMap<(String, u16), Vec<&mut Node>> = BTreeMap::new();
    for node in nodes.values_mut() {
        if node.row.port > 0 && node.row.state != State::Left {
            by_address.entry((node.row.ip.clone(), node.row.port)).or_default().push(node);
        } else {
            node.set_address_shared(false, now);
            node.rivals = None;
        }
    }
    let mut conflicts = Vec::new();
    for mut group in by_address.into_values() {
        let is_shared = group.len() > 1;
        // one without an instance has nothing but probes to tell that it lives
        group.iter_mut().for_each(|node| node.set_address_shared(is_shared && !node.is_legacy(), now));
        let Some(at) = mark(&mut group, origin, |node| &mut node.rivals) else { continue };
        let text = format!(
            "several nodes say that they are at {}, so it is not probed, and their heartbeats alone count: {}",
            group[at].address(),
            all(&group, at, origin)
        );
        conflicts.push(conflict(&group, at, "same address", &text, now));
    }
    conflicts
}

/// Gives each node a mark that names those that live beside it; the first one that had none.
fn mark(
    group: &mut [&mut Node],
    named: fn(&Node) -> String,
    mark: fn(&mut Node) -> &mut Option<String>,
) -> Option<usize> {
    let others = Others::of(group);
    let mut newly = None;
    for at in 0..group.len() {
        let count = others.beside(group[at]);
        let found = (count > 0).then(|| {
            let beside = group.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, node)| &**node);
            let names = beside.filter(|other| live_both(group[at], other)).map(named);
            listed(names, count, MARK_CHARS_MAX)
        });
        let had_none = std::mem::replace(mark(group[at]), found).is_none();
        if had_none && count > 0 {
            newly.get_or_insert(at);
        }
    }
    newly
}

/// When the nodes of a group came and were heard last, sorted, so that those that live beside one are counted without a look at each of them.
struct Others {
    firsts: Vec<Duration>,
    /// Last and first.
    lives: Vec<(Duration, Duration)>,
}

impl Others {
    fn of(group: &[&mut Node]) -> Others {
        let may_live = group.iter().filter(|node| node.row.state != State::Left);
        let mut lives: Vec<_> =
            may_live.filter_map(|node| node.lives()).map(|(first, last)| (last, first)).collect();
        let mut firsts: Vec<Duration> = lives.iter().map(|(_, first)| *first).collect();
        lives.sort_unstable();
        firsts.sort_unstable();
        Others { firsts, lives }
    }

    /// How many others [live both](live_both) with a node of the group: they came before it was heard last, less those whose last message is
    /// from before it came.
    fn beside(&self, node: &Node) -> usize {
        let Some((first, last)) = node.lives().filter(|_| node.row.state == State::Up) else { return 0 };
        let came_before = self.firsts.partition_point(|other| *other < last);
        let gone_before = self.lives.partition_point(|other| *other < (first, last));
        came_before - gone_before - usize::from(first < last)
    }
}

/// Up to [`NAMED_MAX`] of `count` names, in at most `chars_max` characters.
fn listed(names: impl Iterator<Item = String>, count: usize, chars_max: usize) -> String {
    // no further than to the last one: the rest of a large group is not looked at
    let names = names.take(count.min(NAMED_MAX)).collect::<Vec<_>>().join("; ");
    let all = if count > NAMED_MAX { format!("{count} nodes, among them {names}") } else { names };
    clip(&all, chars_max)
}

/// One of a group and those that live beside it, in the order of their ids: it is the same over restarts.
fn beside<'a>(group: &'a [&mut Node], at: usize) -> impl Iterator<Item = &'a Node> {
    let is_one = move |other: usize| other == at || live_both(group[at], group[other]);
    group.iter().enumerate().filter(move |(other, _)| is_one(*other)).map(|(_, node)| &**node)
}

fn all(group: &[&mut Node], at: usize, named: fn(&Node) -> String) -> String {
    listed(beside(group, at).map(named), beside(group, at).count(), said::TEXT_CHARS_MAX)
}

fn conflict(group: &[&mut Node], at: usize, kind: &str, text: &str, now: Now) -> Conflict {
    let since_ms = beside(group, at).map(|node| node.named_ms).max().unwrap_or(0);
    Conflict { entry: group[at].entry(kind, &clip(text, said::TEXT_CHARS_MAX), now), since_ms }
}

/// Where people find it: a node without a port has no address of its own.
fn place(node: &Node) -> String {
    let host = &node.row.host;
    match node.row.port {
        0 => format!("on host {host} ({}, instance {})", node.row.ip, node.row.id),
        _ if node.is_legacy() => format!("at {} on host {host}", node.address()),
        _ => format!("at {} on host {host} (instance {})", node.address(), node.row.id),
    }
}

fn origin(node: &Node) -> String {
    let peer = if node.peer.is_empty() { "an unknown address" } else { &node.peer };
    format!(
        "{} {} (host {}, instance {}, from {peer})",
        node.row.role, node.row.name, node.row.host, node.row.id
    )
}

/// The one is up, the other has not left, and each was heard after the other had come: they are not one node that was restarted elsewhere.
fn live_both(one: &Node, other: &Node) -> bool {
    let lives = (one.lives(), other.lives());
    (one.row.state == State::Up && other.row.state != State::Left)
        && matches!(lives, (Some(one), Some(other)) if one.1 > other.0 && other.1 > one.0)
}
