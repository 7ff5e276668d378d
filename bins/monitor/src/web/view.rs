//! A node as it is shown.

use crate::monitor::Monitor;
use crate::registry::{ErrorEntry, Node, Now, State};
use serde::{Deserialize, Serialize};

/// A node, as `/api/nodes` lists it. What is not known is `null`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeView {
    /// What it is known by.
    pub id: String,
    /// Name.
    pub name: String,
    /// Role, as the node says it.
    pub role: String,
    /// Tier of the relay: `tailer`, `collector`, `outputter`, or the role.
    pub tier: String,
    /// `ip:port` of its heartbeat port; port 0 is none.
    pub addr: String,
    /// Host name.
    pub host: String,
    /// `up`, `silent`, `left`.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Version; empty of legacy nodes.
    pub version: String,
    /// Last sign of life, in milliseconds since 1970.
    pub seen_ms: Option<i64>,
    /// Same as `lag_bytes`.
    pub lag: Option<u64>,
    /// Bytes that wait at this node.
    pub lag_bytes: Option<u64>,
    /// Seconds for which something has been waiting.
    pub lag_s: Option<u64>,
    /// Bytes a second.
    pub rate_bytes: Option<u64>,
    /// Lines a second.
    pub rate_lines: Option<u64>,
    /// Bytes in the spool.
    pub spool_bytes: Option<u64>,
    /// Packs in the spool.
    pub spool_packs: Option<u64>,
    /// Seconds since its start.
    pub uptime_s: Option<u64>,
    /// Does its work, as it says.
    pub ready: Option<bool>,
    /// What it, or the monitor, says is wrong.
    pub problems: Vec<String>,
    /// Its last warning or error.
    pub last_error: Option<String>,
    /// When it was logged, as the node's heartbeat tells.
    pub last_error_ms: Option<i64>,
}

/// So many seconds before a time. A node may tell any number.
fn before(unix_ms: i64, seconds: u64) -> Option<i64> {
    unix_ms.checked_sub(i64::try_from(seconds.checked_mul(1000)?).ok()?)
}

/// Which tier a role belongs to; legacy roles included.
pub(super) fn tier(role: &str) -> &str {
    match role {
        "tail" | "tailer" => "tailer",
        "collector" | "logd" => "collector",
        "outputter" | "fcollector" | "etlcollector" | "mgocollector" => "outputter",
        other => other,
    }
}

impl NodeView {
    fn of(node: &Node, now: Now) -> NodeView {
        let row = &node.row;
        // figures of a node that is not there are not those of now
        let status = node.status_of_now(now);
        let mut problems = status.map(|status| status.problems.clone()).unwrap_or_default();
        if let Some(late) = node.overdue(now).filter(|_| row.state == State::Up) {
            problems
                .push(format!("no heartbeats for {}: its figures are not known", seconds(late.as_secs())));
        }
        if let Some(twin) = &node.twin {
            problems.push(format!("another node has the same name: {twin}"));
        }
        if let Some(rivals) = &node.rivals {
            problems
                .push(format!("other nodes say that they are at its address, so it is not probed: {rivals}"));
        }
        if row.state != State::Left {
            problems
                .extend(node.probe_error.as_ref().map(|error| format!("does not answer probes: {error}")));
        }
        NodeView {
            id: row.id.clone(),
            name: row.name.clone(),
            role: row.role.clone(),
            tier: tier(&row.role).to_owned(),
            addr: node.address(),
            host: row.host.clone(),
            state: row.state,
            since_ms: row.since_ms,
            version: row.version.clone(),
            seen_ms: node.seen_ms,
            lag: status.map(|status| status.lag_bytes),
            lag_bytes: status.map(|status| status.lag_bytes),
            lag_s: status.map(|status| status.lag_s),
            rate_bytes: status.and_then(|status| status.rate_bytes),
            rate_lines: status.and_then(|status| status.rate_lines),
            spool_bytes: status.map(|status| status.spool_bytes),
            spool_packs: status.map(|status| status.spool_packs),
            uptime_s: status.map(|status| status.uptime_s),
            ready: status.map(|status| status.ready),
            problems,
            last_error: status.and_then(|status| status.last_error.clone()),
            last_error_ms: status.and_then(|status| before(node.seen_ms?, status.last_error_s?)),
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn is_troubled(&self) -> bool {
        self.state == State::Silent
            || (self.state == State::Up && (self.ready == Some(false) || !self.problems.is_empty()))
    }
}

/// All nodes: in the order of the data, then by name.
pub(super) fn all(monitor: &Monitor) -> Vec<NodeView> {
    let now = monitor.now();
    let mut views: Vec<NodeView> = monitor.registry().nodes().map(|node| NodeView::of(node, now)).collect();
    let place =
        |view: &NodeView| super::flow::TIERS.iter().position(|tier| *tier == view.tier).unwrap_or(usize::MAX);
    views.sort_by(|one, other| {
        (place(one), &one.role, &one.name, &one.id).cmp(&(place(other), &other.role, &other.name, &other.id))
    });
    views
}

/// An entry of the error log, as `/api/errors` lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorView {
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The node's name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// `ip:port`
    pub addr: String,
    /// `WARNING`, `ERROR`, `no heart-beat`, ….
    pub kind: String,
    /// What is wrong.
    pub text: String,
}

impl From<&ErrorEntry> for ErrorView {
    fn from(entry: &ErrorEntry) -> ErrorView {
        ErrorView {
            unix_ms: entry.unix_ms,
            name: entry.name.clone(),
            role: entry.role.clone(),
            addr: crate::registry::address(&entry.ip, entry.port),
            kind: entry.kind.clone(),
            text: entry.text.clone(),
        }
    }
}

/// Bytes with a unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds in the two largest units.
pub(super) fn seconds(count: u64) -> String {
    match count {
        0..60 => format!("{count} s"),
        60..3_600 => format!("{} min {} s", count / 60, count % 60),
        3_600..86_400 => format!("{} h {} min", count / 3_600, count % 3_600 / 60),
        _ => format!("{} d {} h", count / 86_400, count % 86_400 / 3_600),
    }
}
