//! What is wrong now, of what the configuration wants to be told of.

use super::{AlertRow, AlertSettings};
use crate::registry::{HourView, Node, Now, Registry, State};
use logferry_node::monitor::hours::HourState;
use logferry_node::monitor::status::NodeStatus;
use std::time::Duration;

/// A node is silent.
pub const SILENT: &str = "node silent";
/// Something waits for too long, or too much does.
pub const LAG: &str = "lag";
/// A spool holds too much.
pub const SPOOL: &str = "spool";
/// An hour is over and not complete.
pub const HOUR: &str = "hour incomplete";
/// Packs or documents were set aside.
pub const SET_ASIDE: &str = "set aside";
/// A disk is nearly full.
pub const DISK: &str = "disk nearly full";
/// All kinds.
pub const KINDS: [&str; 6] = [SILENT, LAG, SPOOL, HOUR, SET_ASIDE, DISK];

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Kind, and id of the node or name of the hour: the same as long as it is the same trouble.
    pub key: String,
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// Whom it is about, for people.
    pub subject: String,
    /// What is wrong.
    pub text: String,
}

/// Characters of a subject.
const SUBJECT_CHARS_MAX: usize = 300;

/// All that is wrong.
pub fn wrong(registry: &Registry, settings: &AlertSettings, now: Now) -> Vec<Condition> {
    let mut wrong: Vec<Condition> = registry.nodes().flat_map(|node| of_node(node, settings, now)).collect();
    if !settings.hour.0.is_zero() {
        let patience = i64::try_from(settings.hour.0.as_millis()).unwrap_or(i64::MAX);
        let overdue = registry.hours().overdue(now.unix_ms.saturating_sub(patience));
        wrong.extend(overdue.map(|hour| of_hour(&hour)));
    }
    wrong
}

fn of_node(node: &Node, settings: &AlertSettings, now: Now) -> Vec<Condition> {
    match (node.row.state, node.status_of_now(now)) {
        (State::Silent, _) if settings.silent => {
            let why = node.probe_error.clone().unwrap_or_else(|| "no heartbeat came in time".to_owned());
            vec![condition(SILENT, node, why)]
        }
        (State::Up, Some(status)) => {
            let texts = [
                (LAG, lag(status, settings)),
                (SPOOL, spool(status, settings)),
                (SET_ASIDE, set_aside(status, settings)),
                (DISK, disk(status, settings)),
            ];
            texts.into_iter().filter_map(|(kind, text)| Some(condition(kind, node, text?))).collect()
        }
        _ => Vec::new(),
    }
}

fn lag(status: &NodeStatus, settings: &AlertSettings) -> Option<String> {
    let is_old = !settings.lag.0.is_zero() && Duration::from_secs(status.lag_s) > settings.lag.0;
    let is_much = settings.lag_bytes.0 > 0 && status.lag_bytes > settings.lag_bytes.0;
    (is_old || is_much)
        .then(|| format!("{} bytes wait, something has for {} s", status.lag_bytes, status.lag_s))
}

fn spool(status: &NodeStatus, settings: &AlertSettings) -> Option<String> {
    let is_much = settings.spool.0 > 0 && status.spool_bytes > settings.spool.0;
    is_much.then(|| format!("the spool holds {} bytes in {} packs", status.spool_bytes, status.spool_packs))
}

fn set_aside(status: &NodeStatus, settings: &AlertSettings) -> Option<String> {
    let files = |name: &str| status.figures.get(name).copied().unwrap_or(0);
    let (quarantine, dead) = (files("quarantine_files"), files("dead_letter_files"));
    (settings.set_aside && (quarantine > 0 || dead > 0))
        .then(|| format!("{quarantine} files in the quarantine, {dead} in the dead-letter folder"))
}

fn disk(status: &NodeStatus, settings: &AlertSettings) -> Option<String> {
    let figure = |name: &str| status.figures.get(name).copied();
    let (free, size) = (figure("disk_free_bytes")?, figure("disk_size_bytes").filter(|size| *size > 0)?);
    let percent = u128::from(free) * 100 / u128::from(size);
    (percent < u128::from(settings.disk_free))
        .then(|| format!("{percent} % of the disk are free, {free} bytes"))
}

fn condition(kind: &'static str, node: &Node, text: String) -> Condition {
    let subject = format!("{} {} ({})", node.row.role, node.row.name, node.address());
    Condition {
        key: key(kind, &node.row.id),
        kind,
        subject: crate::registry::clip(&subject, SUBJECT_CHARS_MAX),
        text: crate::registry::clip(&text, SUBJECT_CHARS_MAX),
    }
}

fn of_hour(hour: &HourView) -> Condition {
    let text = match hour.state {
        HourState::Missing if hour.missing.is_empty() => "packs are missing".to_owned(),
        HourState::Missing => format!("{} packs are missing: {}", hour.missing_packs, runs(&hour.missing)),
        HourState::Late => "more lines have come since it was complete".to_owned(),
        _ => "it was never closed: its tailer may be away".to_owned(),
    };
    let name = format!("{}/{}_{}", hour.source, hour.host, hour.hour);
    Condition {
        key: key(HOUR, &format!("{}/{}/{}", hour.hour, hour.host, hour.source)),
        kind: HOUR,
        subject: crate::registry::clip(&name, SUBJECT_CHARS_MAX),
        text: crate::registry::clip(&text, SUBJECT_CHARS_MAX),
    }
}

/// `3, 7–9`.
pub fn runs(runs: &[(u64, u64)]) -> String {
    let run = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

fn key(kind: &str, whom: &str) -> String {
    format!("{kind}\n{whom}")
}

/// Why an announced alert that is not among what is wrong is over; nothing if that is not known, because nobody has told yet how it is.
/// `knows_all`: the registry has what the database knows.
pub fn is_over(registry: &Registry, key: &str, row: &AlertRow, knows_all: bool, now: Now) -> Option<String> {
    let (_, whom) = key.split_once('\n')?;
    if row.kind == HOUR {
        let name = whom.splitn(3, '/').collect::<Vec<_>>();
        let [hour, host, source] = name[..] else { return Some("it is not watched any more".to_owned()) };
        return match registry.hours().get(hour.parse().unwrap_or(0), host, source) {
            Some(hour) if hour.state == HourState::Complete => Some("it is complete".to_owned()),
            Some(_) => Some("it is not overdue any more".to_owned()),
            None => knows_all.then(|| "it is not watched any more".to_owned()),
        };
    }
    let Some(node) = registry.node(whom) else {
        return knows_all.then(|| "the node is not registered any more".to_owned());
    };
    match (node.row.state, node.status_of_now(now)) {
        (State::Left, _) => Some("the node has unregistered".to_owned()),
        (State::Up, _) if row.kind == SILENT => node.is_heard().then(|| "it is heard again".to_owned()),
        (State::Up, Some(_)) => Some("it is well again".to_owned()),
        // silent, without heartbeats, or not heard of since the start: nobody knows
        _ => None,
    }
}
