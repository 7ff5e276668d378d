//! One node: what is known of it, and when it counts as silent.

use super::limiter::Limiter;
use super::said::{Identity, address, clip};
use super::samples::Samples;
use super::{Change, Now};
use crate::alerts::AlertRow;
use logferry_node::monitor::status::NodeStatus;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Problems that are kept of a status, and their lengths.
const PROBLEMS_MAX: usize = 16;
const PROBLEM_CHARS_MAX: usize = 1_000;
/// Figures that are kept of a status.
const FIGURES_MAX: usize = 200;
/// Heartbeats that may be missing.
const BEATS_MISSED_MAX: f64 = 2.5;
/// What a heartbeat may take on its way.
const BEAT_SLACK: Duration = Duration::from_secs(1);

/// Whether a node is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers, or sends heartbeats.
    Up,
    /// It does neither.
    Silent,
    /// It has unregistered.
    Left,
}

impl State {
    /// As it is stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Silent => "silent",
            State::Left => "left",
        }
    }

    /// Of a stored word; what is not known counts as silent until it is heard of.
    pub fn of_word(word: &str) -> State {
        match word {
            "up" => State::Up,
            "left" => State::Left,
            _ => State::Silent,
        }
    }
}

/// What is stored of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Id of the `var_dir`, or `ip:port` of a legacy node.
    pub id: String,
    /// Address.
    pub ip: String,
    /// Port that answers probes; 0 is none.
    pub port: u16,
    /// Role.
    pub role: String,
    /// Name.
    pub name: String,
    /// Host name.
    pub host: String,
    /// Version; empty of legacy nodes.
    pub version: String,
    /// State.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// When it first registered, in milliseconds since 1970.
    pub registered_ms: i64,
}

/// One entry of the error log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The node's address.
    pub ip: String,
    /// Its heartbeat port.
    pub port: u16,
    /// Its role.
    pub role: String,
    /// Its name.
    pub name: String,
    /// `WARNING`, `ERROR`, `no heart-beat`, ….
    pub kind: String,
    /// What is wrong.
    pub text: String,
}

impl Change {
    /// The same in letters and lengths that any column takes.
    #[must_use]
    pub fn plain(&self) -> Change {
        let plain = |text: &str, chars_max: usize| -> String {
            text.chars()
                .take(chars_max)
                .map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' })
                .collect()
        };
        let plain_row = |row: &NodeRow| NodeRow {
            role: plain(&row.role, 20),
            name: plain(&row.name, 60),
            host: plain(&row.host, 60),
            version: plain(&row.version, 20),
            ..row.clone()
        };
        match self {
            Change::Node(row) => Change::Node(plain_row(row)),
            Change::Forgotten(row) => Change::Forgotten(plain_row(row)),
            Change::Error(entry) => Change::Error(ErrorEntry {
                role: plain(&entry.role, 20),
                name: plain(&entry.name, 60),
                kind: plain(&entry.kind, 20),
                text: plain(&entry.text, 200),
                ..entry.clone()
            }),
            Change::Hour(row) => {
                let mut row = row.clone();
                row.news.host = plain(&row.news.host, 60);
                row.news.source = plain(&row.news.source, 60);
                Change::Hour(row)
            }
            Change::Alert(row) => {
                let (subject, text) = (plain(&row.subject, 200), plain(&row.text, 200));
                Change::Alert(AlertRow { subject, text, ..row.clone() })
            }
        }
    }
}

/// How the monitor came to know a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It has sent a message, now or in an earlier run.
    Message,
    /// A row of the legacy table that somebody else has written.
    Database,
}

/// A node in memory.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is stored.
    pub row: NodeRow,
    /// See there.
    pub origin: Origin,
    /// Last sign of life, in milliseconds since 1970.
    pub seen_ms: Option<i64>,
    /// What it told last.
    pub status: Option<NodeStatus>,
    /// Why the last probe failed.
    pub probe_error: Option<String>,
    /// Its last hour.
    pub samples: Samples,
    /// Address of another node of its name and role.
    pub twin: Option<String>,
    pub(super) limiter: Limiter,
    /// First and last sign of life in this run.
    life: Option<(Duration, Duration)>,
    /// It is believed to be up until then, whatever is not heard.
    believed_until: Duration,
    has_news: bool,
    /// What is stored is another row: storing failed.
    pub(super) owed: bool,
}

impl Node {
    /// A node that has just spoken for the first time.
    pub(super) fn new(who: &Identity, errors_per_minute: u32, now: Now) -> Node {
        let row = NodeRow {
            id: who.id(),
            ip: who.ip.clone(),
            port: who.port,
            role: String::new(),
            name: String::new(),
            host: String::new(),
            version: String::new(),
            state: State::Up,
            since_ms: now.unix_ms,
            registered_ms: now.unix_ms,
        };
        Node::of_row(row, errors_per_minute, now, Duration::ZERO)
    }

    /// A stored one. Up to `grace` from now it is as it was.
    pub(super) fn of_row(row: NodeRow, errors_per_minute: u32, now: Now, grace: Duration) -> Node {
        let by_hand = row.registered_ms == 0;
        Node {
            row,
            origin: if by_hand { Origin::Database } else { Origin::Message },
            seen_ms: None,
            status: None,
            probe_error: None,
            samples: Samples::default(),
            twin: None,
            limiter: Limiter::new(errors_per_minute),
            life: None,
            believed_until: now.tick + grace,
            has_news: false,
            owed: false,
        }
    }

    /// `ip:port`.
    pub fn address(&self) -> String {
        address(&self.row.ip, self.row.port)
    }

    /// Whether it has given a sign of life in this run.
    pub fn is_heard(&self) -> bool {
        self.life.is_some()
    }

    pub(super) fn lives(&self) -> Option<(Duration, Duration)> {
        self.life
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, now: Now) -> Vec<Change> {
        let first = self.life.map_or(now.tick, |(first, _)| first);
        self.life = Some((first, now.tick));
        self.seen_ms = Some(now.unix_ms);
        self.has_news = true;
        if self.row.state == State::Up {
            return Vec::new();
        }
        let was_silent = self.row.state == State::Silent;
        let seconds = now.unix_ms.saturating_sub(self.row.since_ms).max(0) / 1000;
        self.set_state(State::Up, now);
        let again = format!("heard again after {seconds} s");
        let entry = was_silent.then(|| Change::Error(self.entry("heart-beat", &again, now)));
        [Some(Change::Node(self.row.clone())), entry].into_iter().flatten().collect()
    }

    /// What a message says of the node; the row if it is another now.
    pub(super) fn take_identity(&mut self, who: &Identity, now: Now) -> Option<NodeRow> {
        let is_new = self.row.role.is_empty() && self.row.name.is_empty() && self.row.host.is_empty();
        let mut row = self.row.clone();
        (row.ip, row.port) = (who.ip.clone(), who.port);
        row.role.clone_from(&who.role);
        row.name.clone_from(&who.name);
        row.host.clone_from(&who.host);
        row.version.clone_from(&who.version);
        if row.registered_ms == 0 {
            row.registered_ms = now.unix_ms;
        }
        self.origin = Origin::Message;
        let changed = is_new || row != self.row || std::mem::take(&mut self.owed);
        self.row = row;
        changed.then(|| self.row.clone())
    }

    pub(super) fn take_status(&mut self, mut status: NodeStatus, now: Now) {
        self.samples.add(&status, now);
        status.problems.truncate(PROBLEMS_MAX);
        for problem in status.problems.iter_mut().chain(&mut status.last_error) {
            *problem = clip(problem, PROBLEM_CHARS_MAX);
        }
        while status.figures.len() > FIGURES_MAX {
            status.figures.pop_last();
        }
        self.status = Some(status);
        self.has_news = true;
    }

    pub(super) fn leave(&mut self, now: Now) -> Option<NodeRow> {
        if self.row.state == State::Left {
            return None;
        }
        self.set_state(State::Left, now);
        Some(self.row.clone())
    }

    pub(super) fn probed(&mut self, outcome: Result<(), String>, now: Now) -> Vec<Change> {
        if self.row.state == State::Left {
            return Vec::new();
        }
        match outcome {
            Ok(()) => {
                self.probe_error = None;
                self.heard(now)
            }
            Err(error) => {
                self.probe_error = Some(error);
                // a firewall between monitor and node is no reason to call a node silent that speaks
                if self.beats(now) { Vec::new() } else { self.fall_silent(now) }
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.owed) {
            changes.push(Change::Node(self.row.clone()));
        }
        // with a port, the next probe decides
        let is_probed = self.row.port > 0 && self.probe_error.is_none();
        if self.row.state == State::Up && !is_probed && !self.beats(now) && now.tick > self.believed_until {
            changes.extend(self.fall_silent(now));
        }
        if let Some(count) = self.limiter.take_left_out(now.tick) {
            let text = format!("{count} more messages of this node came faster than they are stored");
            changes.push(Change::Error(self.entry("left out", &text, now)));
        }
        changes
    }

    /// Whether its heartbeats come as it has announced them.
    fn beats(&self, now: Now) -> bool {
        let Some((_, heard)) = self.life else { return false };
        let Some(status) = &self.status else {
            return self.row.port == 0 && now.tick < heard + BEAT_SLACK * 60;
        };
        let every = Duration::from_millis(status.every_ms.min(3_600_000));
        now.tick <= heard + every.mul_f64(BEATS_MISSED_MAX) + BEAT_SLACK
    }

    fn fall_silent(&mut self, now: Now) -> Vec<Change> {
        if self.row.state != State::Up {
            return Vec::new();
        }
        self.set_state(State::Silent, now);
        let why = self.probe_error.clone().unwrap_or_else(|| "no message came in time".to_owned());
        vec![Change::Node(self.row.clone()), Change::Error(self.entry("no heart-beat", &why, now))]
    }

    fn set_state(&mut self, state: State, now: Now) {
        (self.row.state, self.row.since_ms) = (state, now.unix_ms);
        self.has_news = true;
    }

    pub(super) fn entry(&self, kind: &str, text: &str, now: Now) -> ErrorEntry {
        ErrorEntry {
            unix_ms: now.unix_ms,
            ip: self.row.ip.clone(),
            port: self.row.port,
            role: self.row.role.clone(),
            name: self.row.name.clone(),
            kind: kind.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(super) fn take_news(&mut self) -> Option<(NodeRow, Option<i64>, String)> {
        if !std::mem::take(&mut self.has_news) {
            return None;
        }
        let status = self.status.as_ref().and_then(|status| serde_json::to_string(status).ok());
        Some((self.row.clone(), self.seen_ms, status.unwrap_or_default()))
    }
}
