//! One node: what is known of it, and when it counts as silent.

use super::limiter::Limiter;
use super::said::{Identity, address, clip, plain};
use super::samples::Samples;
use super::{Change, Now};
use crate::alerts::AlertRow;
use logferry_node::monitor::status::NodeStatus;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Problems that are kept of a status, and their lengths.
const PROBLEMS_MAX: usize = 16;
const PROBLEM_CHARS_MAX: usize = 1_000;
/// Figures that are kept of a status, and the longest name of one.
const FIGURES_MAX: usize = 200;
const FIGURE_NAME_BYTES_MAX: usize = 100;
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
    /// When it first registered, in milliseconds since 1970; 0 if it never has, because somebody has added its row by hand.
    pub registered_ms: i64,
}

impl NodeRow {
    /// Whether somebody has added it to the legacy table by hand: that row is not ours to write.
    pub fn is_by_hand(&self) -> bool {
        self.registered_ms == 0
    }
}

/// Why a probe was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeError {
    /// What happened, for people.
    pub text: String,
    /// The machine answers, and nothing listens at the port.
    pub is_refused: bool,
}

impl From<&str> for ProbeError {
    fn from(text: &str) -> ProbeError {
        ProbeError { text: text.to_owned(), is_refused: false }
    }
}

/// One entry of the error log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Id of the node; empty if it is nobody's.
    pub node: String,
}

impl Change {
    /// The same in letters and lengths that any column takes.
    #[must_use]
    pub fn plain(&self) -> Change {
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
            Change::AddressLeft(row) => Change::AddressLeft(plain_row(row)),
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
    /// Where other nodes of its name and role are.
    pub twin: Option<String>,
    /// Living nodes that say that they are at its address, for people.
    pub rivals: Option<String>,
    is_address_shared: bool,
    /// When it took its name and address, in milliseconds since 1970; 0: before this run.
    pub(super) named_ms: i64,
    /// Where its last message came from; empty if none came in this run.
    pub(super) peer: String,
    pub(super) limiter: Limiter,
    /// First and last sign of life in this run.
    life: Option<(Duration, Duration)>,
    /// Its last message.
    spoken_at: Option<Duration>,
    /// Since when an answer to a probe is waited for: the last one, or when it came to its address, or back.
    answer_awaited_since: Duration,
    /// Its port has answered, and has not refused since: if it does, the node has gone.
    answers: bool,
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
        Node { named_ms: now.unix_ms, ..Node::of_row(row, errors_per_minute, now, Duration::ZERO) }
    }

    /// A stored one. Up to `grace` from now it is as it was.
    pub(super) fn of_row(row: NodeRow, errors_per_minute: u32, now: Now, grace: Duration) -> Node {
        Node {
            origin: if row.is_by_hand() { Origin::Database } else { Origin::Message },
            row,
            seen_ms: None,
            status: None,
            probe_error: None,
            samples: Samples::default(),
            twin: None,
            rivals: None,
            is_address_shared: false,
            named_ms: 0,
            peer: String::new(),
            limiter: Limiter::new(errors_per_minute),
            life: None,
            spoken_at: None,
            answer_awaited_since: now.tick,
            answers: false,
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

    /// Whether others say that they are at its address: then a probe of it tells nothing.
    pub(super) fn is_address_shared(&self) -> bool {
        self.is_address_shared
    }

    pub(super) fn set_address_shared(&mut self, is_shared: bool, now: Now) {
        if std::mem::replace(&mut self.is_address_shared, is_shared) && !is_shared {
            self.answer_awaited_since = now.tick;
        }
    }

    /// A message has come.
    pub(super) fn spoke(&mut self, peer: &str, now: Now) -> Vec<Change> {
        self.spoken_at = Some(now.tick);
        if self.peer != peer {
            peer.clone_into(&mut self.peer);
        }
        self.heard(now)
    }

    fn has_name_and_address_of(&self, row: &NodeRow) -> bool {
        (&row.role, &row.name, &row.ip, row.port)
            == (&self.row.role, &self.row.name, &self.row.ip, self.row.port)
    }

    /// What the database knew of it comes later than the node itself. Gives the row if it names another address.
    pub(super) fn remember(&mut self, row: NodeRow) -> Option<NodeRow> {
        if !row.is_by_hand() && row.registered_ms < self.row.registered_ms {
            self.row.registered_ms = row.registered_ms;
            self.owed = true;
        }
        if self.has_name_and_address_of(&row) {
            self.named_ms = 0;
        }
        let has_moved = row.port > 0 && (&row.ip, row.port) != (&self.row.ip, self.row.port);
        (has_moved && !row.is_by_hand()).then_some(row)
    }

    /// A sign of life.
    fn heard(&mut self, now: Now) -> Vec<Change> {
        let first = self.life.map_or(now.tick, |(first, _)| first);
        self.life = Some((first, now.tick));
        self.seen_ms = Some(now.unix_ms);
        self.has_news = true;
        if self.row.state == State::Up {
            return Vec::new();
        }
        let was_silent = self.row.state == State::Silent;
        self.answer_awaited_since = now.tick;
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
        if row.is_by_hand() {
            row.registered_ms = now.unix_ms;
        }
        if (&row.ip, row.port) != (&self.row.ip, self.row.port) {
            // what was found at its old address
            (self.answers, self.answer_awaited_since, self.probe_error) = (false, now.tick, None);
        }
        if !self.has_name_and_address_of(&row) {
            self.named_ms = now.unix_ms;
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
        status.figures.retain(|name, _| name.len() <= FIGURE_NAME_BYTES_MAX);
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
        if self.row.is_by_hand() {
            // it speaks for itself: its row in the legacy table goes with it
            (self.row.registered_ms, self.origin) = (now.unix_ms, Origin::Message);
        }
        self.set_state(State::Left, now);
        Some(self.row.clone())
    }

    pub(super) fn probed(&mut self, outcome: Result<(), ProbeError>, now: Now) -> Vec<Change> {
        if self.row.state == State::Left || self.is_address_shared {
            return Vec::new();
        }
        let Err(error) = outcome else {
            self.probe_error = None;
            self.answer_awaited_since = now.tick;
            self.answers = true;
            return self.heard(now);
        };
        self.probe_error = Some(error.text);
        if error.is_refused && std::mem::take(&mut self.answers) {
            // only a process that has ended leaves its port; if it lives nevertheless, its next heartbeat says so, and no refusal counts any more
            return self.fall_silent(now);
        }
        // a firewall between monitor and node is no reason to call a node silent that speaks, or will within the grace
        let may_speak = !self.row.version.is_empty() && now.tick <= self.believed_until;
        if self.beats(now) || may_speak { Vec::new() } else { self.fall_silent(now) }
    }

    /// Time has passed. `probe_max`: longest from one answer to a probe to the next.
    pub(super) fn tick(&mut self, probe_max: Duration, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.owed) {
            changes.push(Change::Node(self.row.clone()));
        }
        let is_probed = self.row.port > 0 && !self.is_address_shared && self.probe_error.is_none();
        let is_lost = match is_probed {
            // the next probe decides, unless it is as overdue as the heartbeats
            true => self.overdue(now).is_some() && now.tick > self.answer_awaited_since + probe_max,
            false => !self.beats(now),
        };
        if self.row.state == State::Up && is_lost && now.tick > self.believed_until {
            changes.extend(self.fall_silent(now));
        }
        if let Some(count) = self.limiter.take_left_out(now) {
            let text = format!("{count} more messages of this node came faster than they are stored");
            changes.push(Change::Error(self.entry("left out", &text, now)));
        }
        changes
    }

    /// Whether its heartbeats come as it has announced them.
    pub(super) fn beats(&self, now: Now) -> bool {
        let Some(spoken) = self.spoken_at else { return false };
        let Some(status) = &self.status else {
            // one of ours will announce its heartbeats as soon as it has started
            let may_announce = self.row.port == 0 || !self.row.version.is_empty();
            return may_announce && now.tick < spoken + BEAT_SLACK * 60;
        };
        let every = Duration::from_millis(status.every_ms.min(3_600_000));
        now.tick <= spoken + every.mul_f64(BEATS_MISSED_MAX) + BEAT_SLACK
    }

    /// Since when its heartbeats have not come, though it has announced them: what it told last is not of now then.
    pub fn overdue(&self, now: Now) -> Option<Duration> {
        let has_announced = self.status.as_ref().is_some_and(|status| status.every_ms > 0);
        (has_announced && !self.beats(now))
            .then(|| now.tick.saturating_sub(self.spoken_at.unwrap_or_default()))
    }

    /// What it told last, if that is how it is now.
    pub fn status_of_now(&self, now: Now) -> Option<&NodeStatus> {
        let is_of_now = self.row.state == State::Up && self.overdue(now).is_none();
        self.status.as_ref().filter(|_| is_of_now)
    }

    /// Whether another that speaks from its address, on its host, is what it has become.
    pub(super) fn is_succeeded_by(&self, who: &Identity, now: Now) -> bool {
        let is_alive = self.row.state != State::Left && (self.beats(now) || now.tick <= self.believed_until);
        let is_same_peer = self.peer.is_empty() || self.peer == who.peer;
        !is_alive && is_same_peer && self.row.host == who.host && self.row.role == who.role
    }

    /// Whether it is known by its address, as nodes are that have no instance.
    pub(super) fn is_legacy(&self) -> bool {
        self.row.id == self.address()
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
            node: self.row.id.clone(),
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
