//! The running monitor: the registry, the queue to the database, and the tasks around them.

use crate::access;
use crate::alerts::keeper::{self, Alerts};
use crate::alerts::webhook::Webhook;
use crate::config::MonitorConfig;
use crate::database::Url;
use crate::decisions::Decisions;
use crate::intake;
use crate::journal::{Journal, JournalError};
use crate::prober;
use crate::pruner;
use crate::registry::{
    Change, ErrorEntry, Identity, Node, NodeRow, Now, Options, Refusal, Registry, Reported,
};
use crate::writer::{DatabaseWriter, Health};
use anyhow::Context;
use logferry_durable::Disk;
use logferry_node::admin::Status;
use logferry_node::monitor::hours::HourNews;
use logferry_node::monitor::status::NodeStatus;
use metrics::counter;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Name of the SQLite file in `var_dir` when no database is configured.
pub const DATABASE_FILE: &str = "monitor.db";
/// Time between two looks at who is silent.
const TICK_EVERY: Duration = Duration::from_millis(500);
/// Time after which an address whose messages are refused is named again.
const STRANGER_NAMED_EVERY: Duration = Duration::from_secs(3_600);
/// Such addresses that are named in that time.
const STRANGERS_MAX: usize = 1_024;
/// Time that what waits for the database has to be written when the monitor stops; what is left then is in the queue.
const STOP_WRITE_MAX: Duration = Duration::from_secs(3);

/// What all tasks and the page share.
pub struct Monitor {
    registry: Mutex<Registry>,
    decisions: Decisions,
    pub(crate) journal: Journal,
    pub(crate) health: Arc<Health>,
    pub(crate) alerts: Alerts,
    pub(crate) config: MonitorConfig,
    /// What each message of a node must bring.
    pub(crate) nodes_token: Option<String>,
    /// From where legacy nodes need not bring it.
    pub(crate) legacy_from: Vec<ipnet::IpNet>,
    /// Addresses whose messages were refused, and when it was said last.
    strangers: Mutex<HashMap<String, Instant>>,
    started: Instant,
}

/// Why a message was not taken; the node is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotStored(#[from] JournalError),
}

/// A running monitor and its tasks.
pub struct Running {
    /// The shared part.
    pub monitor: Arc<Monitor>,
    /// Where nodes come in.
    pub addr: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
}

impl Running {
    /// Starts all tasks; call inside a tokio runtime. `var_dir` must exist. A database that is away is no error.
    ///
    /// # Errors
    /// The address cannot be bound, or the queue in `var_dir` cannot be used.
    pub async fn start(config: &MonitorConfig, disk: Arc<dyn Disk>) -> anyhow::Result<Running> {
        let url = match config.database.url.as_str() {
            "" => Url::Sqlite(std::path::absolute(config.node.var_dir.join(DATABASE_FILE))?),
            text => Url::parse(text).map_err(anyhow::Error::msg)?,
        };
        let journal = Journal::open(disk, &config.node.var_dir, config.database.queue_max.0)?;
        let health = Arc::new(Health::new(url.to_string()));
        let nodes_token =
            access::token_of(&config.access.nodes_token_file).context("access.nodes_token_file")?;
        let legacy_from = access::networks(&config.access.legacy_from).map_err(anyhow::Error::msg)?;
        let monitor =
            Arc::new(Monitor { nodes_token, legacy_from, ..Monitor::new(config.clone(), journal, health) });
        monitor.restore_waiting();
        let webhooks = config.alert.webhook.iter().map(Webhook::new).collect::<anyhow::Result<Vec<_>>>()?;
        let listener = tokio::net::TcpListener::bind(&config.listen.addr)
            .await
            .with_context(|| format!("listen.addr {} cannot be bound", config.listen.addr))?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let writer = DatabaseWriter::new(url.clone(), monitor.clone());
        let writer = tokio::spawn(writer.run(stop.clone()));
        let tasks = vec![
            tokio::spawn(intake::listen(listener, monitor.clone(), stop.clone())),
            tokio::spawn(prober::probe_all(monitor.clone(), stop.clone())),
            tokio::spawn(pruner::run(url, monitor.clone(), stop.clone())),
            tokio::spawn(watch(monitor.clone(), stop.clone())),
            tokio::spawn(keeper::run(monitor.clone(), webhooks, stop.clone())),
        ];
        tracing::info!(%addr, database = monitor.health.url, "nodes may register");
        Ok(Running { monitor, addr, stop, tasks, writer })
    }

    /// Takes no more messages, writes what can be written in a short time; the rest stays in the queue.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        if tokio::time::timeout(STOP_WRITE_MAX, self.writer).await.is_err() {
            let (changes, _) = self.monitor.journal.waiting();
            tracing::warn!(changes, "the database did not take all; the next start writes the rest");
        }
    }
}

/// Lets time pass in the registry.
async fn watch(monitor: Arc<Monitor>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        monitor.decide_or_owe(|registry, now| registry.tick(now)).await;
        monitor.store_owed().await;
    }
}

impl Monitor {
    fn new(config: MonitorConfig, journal: Journal, health: Arc<Health>) -> Monitor {
        let check = &config.check;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let options = Options {
            nodes_max: count(check.nodes_max),
            errors_per_minute: u32::try_from(check.errors_per_minute).unwrap_or(u32::MAX),
            errors_shown: count(check.errors_shown),
            hours_max: count(check.hours_max),
            forget_after: check.forget_after.0,
            grace: check.interval.0.max(Duration::from_secs(30)),
            probe_max: check.interval.0 + check.probe_timeout.0 + Duration::from_secs(1),
        };
        let registry = Mutex::new(Registry::new(options));
        let started = Instant::now();
        let alerts = Alerts::open(&config.node.var_dir);
        Monitor {
            registry,
            decisions: Decisions::default(),
            journal,
            health,
            alerts,
            config,
            nodes_token: None,
            legacy_from: Vec::new(),
            strangers: Mutex::default(),
            started,
        }
    }

    /// Whether an address whose messages are refused was not named lately.
    pub(crate) fn is_new_stranger(&self, peer: &str) -> bool {
        let mut named = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, when| when.elapsed() < STRANGER_NAMED_EVERY);
        let is_new = named.len() < STRANGERS_MAX && !named.contains_key(peer);
        if is_new {
            named.insert(peer.to_owned(), Instant::now());
        }
        is_new
    }

    /// What waits in the queue is known before the database answers.
    fn restore_waiting(&self) {
        let (mut nodes, mut errors, mut hours) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (_, change) in self.journal.oldest(usize::MAX) {
            match change {
                Change::Node(row) => drop(nodes.insert(row.id.clone(), row)),
                Change::Forgotten(row) => drop(nodes.remove(&row.id)),
                Change::Error(entry) => errors.push(entry),
                Change::Hour(row) => hours.push(row),
                Change::Alert(_) | Change::AddressLeft(_) => {}
            }
        }
        self.registry().keep_hours(hours);
        self.registry().restore(nodes.into_values().collect(), errors, self.now());
    }

    /// The registry; held for moments only.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time.
    pub fn now(&self) -> Now {
        Now { unix_ms: jiff::Timestamp::now().as_millisecond(), tick: self.started.elapsed() }
    }

    /// All nodes as they are.
    pub fn nodes(&self) -> Vec<Node> {
        self.registry().nodes().cloned().collect()
    }

    /// The latest errors that `wanted` says yes to, newest first, at most `count`.
    pub fn errors(&self, count: usize, wanted: impl Fn(&ErrorEntry) -> bool) -> Vec<ErrorEntry> {
        self.registry().errors().rev().filter(|entry| wanted(entry)).take(count).cloned().collect()
    }

    pub(crate) async fn register(&self, who: &Identity) -> Result<(), NotTaken> {
        self.decide(|registry, now| registry.register(who, now)).await
    }

    pub(crate) async fn heartbeat(&self, who: &Identity, status: NodeStatus) -> Result<(), NotTaken> {
        self.decide(|registry, now| registry.heartbeat(who, status, now)).await
    }

    pub(crate) async fn unregister(&self, who: &Identity) -> Result<(), NotTaken> {
        self.decide(|registry, now| Ok(registry.unregister(who, now))).await
    }

    /// Stored when this returns; what is too much of one node is counted and left out.
    pub(crate) async fn report(
        &self,
        who: &Identity,
        kind: &str,
        text: &str,
        unix_ms: Option<i64>,
    ) -> Result<(), NotTaken> {
        let now = self.now();
        let unix_ms = unix_ms.unwrap_or(now.unix_ms);
        let reported = self.registry().report(who, kind, text, unix_ms, now);
        match reported {
            Reported::LeftOut => counter!("logferry_monitor_reports_left_out_total").increment(1),
            Reported::Store(entry) => {
                if let Err(error) = self.journal.append_of_nodes(vec![Change::Error(entry.clone())]).await {
                    self.registry().report_not_stored(who);
                    return Err(error.into());
                }
                counter!("logferry_monitor_reports_total").increment(1);
                self.registry().keep(entry);
            }
        }
        Ok(())
    }

    /// Stored when this returns, as far as it is news.
    pub(crate) async fn tell_hours(&self, who: &Identity, told: Vec<HourNews>) -> Result<(), NotTaken> {
        // what is older would be forgotten at once, and told again
        let first = self.first_hour_kept();
        let told: Vec<HourNews> = told.into_iter().filter(|news| news.hour >= first).collect();
        self.name_hours_ahead(who, &told).await?;
        let changed = self.registry().tell_hours(who, told, self.now());
        counter!("logferry_monitor_hours_changed_total").increment(changed.len() as u64);
        self.journal.append_of_nodes(changed.iter().cloned().map(Change::Hour).collect()).await?;
        self.registry().keep_hours(changed);
        Ok(())
    }

    /// Says, once in a while for each outputter, that its hours are too far ahead to be true.
    async fn name_hours_ahead(&self, who: &Identity, told: &[HourNews]) -> Result<(), NotTaken> {
        let is_ahead = |news: &&HourNews| self.registry().hours().is_ahead(news.hour);
        let Some(news) = told.iter().find(is_ahead) else { return Ok(()) };
        if !self.is_new_stranger(&format!("hours of {}", who.id())) {
            return Ok(());
        }
        let text = format!(
            "hour {} of {}/{} is more than a day ahead: the clock or the file names of its host are wrong",
            news.hour, news.host, news.source
        );
        self.report(who, "hour ahead", &text, None).await
    }

    /// The oldest hour that is kept, `YYYYMMDDHH`; a day is added for the zones of hosts.
    pub(crate) fn first_hour_kept(&self) -> u32 {
        let kept_s =
            i64::try_from(self.config.check.keep_hours.0.as_secs()).unwrap_or(i64::MAX / 4_000) + 86_400;
        let begin = jiff::Timestamp::from_millisecond(
            self.now().unix_ms.saturating_sub(kept_s.saturating_mul(1_000)),
        );
        let begin = begin.unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
        begin.strftime("%Y%m%d%H").to_string().parse().unwrap_or(0)
    }

    /// Lets the registry decide, and stores what it decided.
    async fn decide(
        &self,
        what: impl FnOnce(&mut Registry, Now) -> Result<Vec<Change>, Refusal>,
    ) -> Result<(), NotTaken> {
        let (changes, _storing) = {
            let mut registry = self.registry();
            let changes = what(&mut registry, self.now())?;
            if changes.is_empty() {
                return Ok(());
            }
            (changes, self.decisions.begin())
        };
        self.store(changes).await
    }

    /// The same for what nobody waits for: what cannot be stored now is tried again.
    pub(crate) async fn decide_or_owe(&self, what: impl FnOnce(&mut Registry, Now) -> Vec<Change>) {
        let decided = self.decide(|registry, now| Ok(what(registry, now))).await;
        if let Err(error) = decided {
            tracing::debug!(%error, "changes are stored later");
        }
    }

    /// How many decisions there were, if the database has all of them.
    pub(crate) fn decisions_written(&self) -> Option<u64> {
        let count = self.decisions.settled()?;
        (self.journal.waiting().0 == 0 && self.registry().owed().0 == 0).then_some(count)
    }

    /// Takes over rows of the legacy table that were read when the database had `decisions`; not if there were more since, because those are
    /// younger than the rows.
    pub(crate) async fn adopt(&self, rows: Vec<NodeRow>, decisions: u64) {
        let is_current = |registry: &mut Registry, now| match self.decisions.count() == decisions {
            true => registry.adopt(rows, now),
            false => Vec::new(),
        };
        self.decide_or_owe(is_current).await;
    }

    /// The same, behind what is owed already: a later state of a thing must not be overtaken by an earlier one.
    pub(crate) async fn store_in_order(&self, changes: Vec<Change>) {
        let owes = self.registry().owed().0 > 0;
        if owes {
            self.registry().not_stored(changes);
        } else if let Err(error) = self.store(changes).await {
            tracing::debug!(%error, "changes are stored later");
        }
    }

    async fn store_owed(&self) {
        loop {
            let (owed, _storing) = {
                let owed = self.registry().take_owed();
                if owed.is_empty() {
                    return;
                }
                (owed, self.decisions.begin())
            };
            if self.journal.append(owed.clone()).await.is_err() {
                return self.registry().owe_again(owed);
            }
        }
    }

    async fn store(&self, changes: Vec<Change>) -> Result<(), NotTaken> {
        if changes.is_empty() {
            return Ok(());
        }
        let stored = self.journal.append(changes.clone()).await;
        if stored.is_err() {
            self.registry().not_stored(changes);
        }
        Ok(stored?)
    }

    /// Changes that wait for the database.
    pub fn journal_waiting(&self) -> u64 {
        self.journal.waiting().0
    }

    /// Takes over what the database knows.
    pub(crate) fn restore(&self, mut nodes: Vec<NodeRow>, errors: Vec<ErrorEntry>) {
        let mut forgotten = HashSet::new();
        for (_, change) in self.journal.oldest(usize::MAX) {
            match change {
                Change::Forgotten(row) => drop(forgotten.insert(row.id)),
                Change::Node(row) => drop(forgotten.remove(&row.id)),
                _ => {}
            }
        }
        // it does not know yet that they are
        nodes.retain(|row| !forgotten.contains(&row.id));
        self.registry().restore(nodes, errors, self.now());
    }

    /// For `/readyz`. Without a database the monitor does its work, so it is ready, and says what is wrong.
    pub fn status(&self) -> Status {
        let (changes, bytes) = self.journal.waiting();
        let nodes = self.registry().nodes().map(|node| node.row.state).collect::<Vec<_>>();
        let in_state = |state| nodes.iter().filter(|other| **other == state).count() as u64;
        let away = self.health.away();
        let away = away.map(|why| format!("degraded: the database is away, {changes} changes wait: {why}"));
        let prune = self.health.prune_problem();
        let prune = prune.map(|why| format!("degraded: old rows cannot be deleted from the database: {why}"));
        let (owed, lost) = self.registry().owed();
        let figures = [
            ("nodes_up", in_state(crate::registry::State::Up)),
            ("nodes_silent", in_state(crate::registry::State::Silent)),
            ("nodes_left", in_state(crate::registry::State::Left)),
            ("queue_changes", changes),
            ("queue_bytes", bytes),
            ("changes_refused_total", self.health.refused()),
            ("changes_owed", owed as u64),
            ("changes_lost_total", lost),
        ];
        Status {
            ready: true,
            problems: away.into_iter().chain(prune).collect(),
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Status::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::RealDisk;

    fn at_port(port: u16) -> Identity {
        let (ip, role, instance) = ("127.0.0.1".to_owned(), "collector".to_owned(), "a1".to_owned());
        Identity { ip, port, role, instance, ..Identity::default() }
    }

    #[tokio::test]
    async fn rows_of_the_legacy_table_count_only_if_nothing_was_decided_since_they_were_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(Arc::new(RealDisk), dir.path(), 1 << 20).expect("opened");
        let mut config = MonitorConfig::default();
        config.node.var_dir = dir.path().to_owned();
        let monitor = Monitor::new(config, journal.clone(), Arc::new(Health::new(String::new())));
        let write_all = async || {
            let waiting = journal.oldest(usize::MAX);
            journal.written(waiting.last().expect("a change").0).await;
        };
        assert_eq!(monitor.decisions_written(), Some(0));
        monitor.register(&at_port(4000)).await.expect("taken");
        assert_eq!(monitor.decisions_written(), None, "it waits for the database");
        write_all().await;
        let storing = monitor.decisions.begin();
        assert_eq!(monitor.decisions_written(), None, "one is on its way to the queue");
        drop(storing);
        let read = monitor.decisions_written().expect("all are written");
        let row = |port| NodeRow {
            id: format!("127.0.0.1:{port}"),
            registered_ms: 0,
            ..monitor.nodes()[0].row.clone()
        };
        let (old, added) = (row(4000), row(5000));
        monitor.register(&at_port(4001)).await.expect("taken");
        monitor.adopt(vec![old, added.clone()], read).await;
        assert_eq!(monitor.nodes().len(), 1, "it has left the address of the row");
        write_all().await;
        let read = monitor.decisions_written().expect("all are written");
        monitor.adopt(vec![row(4001), added], read).await;
        assert_eq!(monitor.nodes().iter().map(|node| node.row.port).collect::<Vec<_>>(), [5000, 4001]);
    }
}
