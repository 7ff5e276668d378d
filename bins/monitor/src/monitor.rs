//! The running monitor: the registry, the queue to the database, and the tasks around them.

mod unlike;

use crate::access;
use crate::alerts::AlertRow;
use crate::alerts::keeper::{self, Alerts};
use crate::alerts::webhook::Webhook;
use crate::config::MonitorConfig;
use crate::decisions::Decisions;
use crate::error_log::Searches;
use crate::intake;
use crate::journal::{Journal, JournalError, Putting};
use crate::prober;
use crate::pruner;
use crate::registry::{
    Change, ErrorEntry, Forgotten, HourRow, Identity, Node, NodeRow, NotForgotten, Now, Options, Refusal,
    Registry, Reported,
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
    pub(crate) searches: Searches,
    started: Instant,
}

/// What the database knew at the start.
pub(crate) struct Known {
    pub(crate) nodes: Vec<NodeRow>,
    /// The latest, oldest first.
    pub(crate) errors: Vec<ErrorEntry>,
    pub(crate) hours: Vec<HourRow>,
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
        let url = config.database_url()?;
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
            searches: Searches::default(),
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
        let (mut nodes, mut hours) = (BTreeMap::new(), Vec::new());
        let mut registry = self.registry();
        for (number, change) in self.journal.oldest(usize::MAX) {
            match change {
                Change::Node(row) => drop(nodes.insert(row.id.clone(), row)),
                Change::Forgotten(row) => drop(nodes.remove(&row.id)),
                Change::Error(entry) => registry.keep_queued(number, entry),
                Change::Hour(row) => hours.push(row),
                Change::Alert(_) | Change::AddressLeft(_) => {}
            }
        }
        registry.keep_hours(hours);
        registry.restore(nodes.into_values().collect(), Vec::new(), self.now());
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

    pub(crate) async fn register(&self, who: &Identity) -> Result<(), NotTaken> {
        self.decide(|registry, now| registry.register(who, now)).await
    }

    pub(crate) async fn heartbeat(&self, who: &Identity, status: NodeStatus) -> Result<(), NotTaken> {
        self.decide(|registry, now| registry.heartbeat(who, status, now)).await
    }

    pub(crate) async fn unregister(&self, who: &Identity) -> Result<(), NotTaken> {
        self.decide(|registry, now| Ok(registry.unregister(who, now))).await
    }

    /// Takes out a node that is gone for good. What cannot be stored now is stored later: it is gone from the page all the same.
    pub(crate) async fn forget(
        &self,
        name: &str,
        force: bool,
    ) -> Result<Result<Forgotten, NotForgotten>, NotTaken> {
        let mut outcome = None;
        let forget = |registry: &mut Registry, _| {
            let found = registry.forget_called(name, force);
            let changes = found.as_ref().map(|(_, change)| vec![change.clone()]).unwrap_or_default();
            outcome = Some(found.map(|(forgotten, _)| forgotten));
            Ok(changes)
        };
        self.decide(forget).await?;
        let unknown = NotForgotten::Unknown { name: name.to_owned(), near: None };
        Ok(outcome.unwrap_or(Err(unknown)))
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
        // hours of some hosts may be far ahead, or old
        told.iter().for_each(|news| self.compare_clock(news.end_ms));
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

    /// A node has this time.
    pub(crate) fn compare_clock(&self, unix_ms: i64) {
        self.registry().compare_clock(unix_ms, self.now());
    }

    /// Why nothing counts as old, if it is so: the clock may be wrong.
    pub(crate) fn clock_doubt(&self) -> Option<String> {
        let now = self.now();
        let newest = self.registry().clock_doubted(now)?;
        let time = |unix_ms| jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string();
        Some(format!(
            "the clock says {}, the newest thing known is of {}, and no node has told its time: nothing is deleted until one agrees",
            time(now.unix_ms),
            time(newest)
        ))
    }

    /// The oldest hour that is kept, `YYYYMMDDHH`; a day is added for the zones of hosts. All while the clock may be wrong.
    pub(crate) fn first_hour_kept(&self) -> u32 {
        if self.registry().clock_doubted(self.now()).is_some() {
            return 0;
        }
        let kept_s =
            i64::try_from(self.config.check.keep_hours.0.as_secs()).unwrap_or(i64::MAX / 4_000) + 86_400;
        let begin = jiff::Timestamp::from_millisecond(
            self.now().unix_ms.saturating_sub(kept_s.saturating_mul(1_000)),
        );
        let begin = begin.unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
        begin.strftime("%Y%m%d%H").to_string().parse().unwrap_or(0)
    }

    /// Lets the registry decide, and stores what it decided, in the order of the decisions: they are in the queue before another can be made.
    async fn decide(
        &self,
        what: impl FnOnce(&mut Registry, Now) -> Result<Vec<Change>, Refusal>,
    ) -> Result<(), NotTaken> {
        let place = self.journal.place().await;
        let (changes, _storing, putting) = {
            let mut registry = self.registry();
            let changes = what(&mut registry, self.now())?;
            if changes.is_empty() {
                return Ok(());
            }
            (changes.clone(), self.decisions.begin(), place.put(changes))
        };
        self.stored(changes, putting).await
    }

    /// The same for what nobody waits for: what cannot be stored now is tried again.
    pub(crate) async fn decide_or_owe(&self, what: impl FnOnce(&mut Registry, Now) -> Vec<Change>) {
        let decided = self.decide(|registry, now| Ok(what(registry, now))).await;
        if let Err(error) = decided {
            tracing::debug!(%error, "changes are stored later");
        }
    }

    /// How many decisions there were, if the database has all of them that are about nodes: others may wait for it.
    pub(crate) fn decisions_written(&self) -> Option<u64> {
        let count = self.decisions.settled()?;
        (!self.journal.has_waiting(Change::is_about_a_node) && !self.registry().owes_nodes()).then_some(count)
    }

    /// Takes over rows of the legacy table that were read when the database had `decisions`; not if there were more since, because those are
    /// younger than the rows. Gives whether it did.
    pub(crate) async fn adopt(&self, rows: Vec<NodeRow>, decisions: u64) -> bool {
        let mut is_current = false;
        let adopt = |registry: &mut Registry, now| {
            is_current = self.decisions.count() == decisions;
            if is_current { registry.adopt(rows, now) } else { Vec::new() }
        };
        self.decide_or_owe(adopt).await;
        is_current
    }

    /// Stores alerts as they are now, whatever state they had when they were to be stored, and behind what is owed already: several tasks
    /// go on with one alert, and a later state must not be overtaken by an earlier one.
    pub(crate) async fn store_alerts(&self, rows: Vec<AlertRow>) {
        let place = self.journal.place().await;
        let (changes, putting) = {
            let mut registry = self.registry();
            let book = self.alerts.book();
            let latest = rows.into_iter().filter_map(|row| book.latest(row));
            let changes: Vec<Change> = latest.map(Change::Alert).collect();
            if changes.is_empty() {
                return;
            }
            if registry.owed().0 > 0 {
                return registry.not_stored(changes);
            }
            (changes.clone(), place.put(changes))
        };
        if let Err(error) = self.stored(changes, putting).await {
            tracing::debug!(%error, "changes are stored later");
        }
    }

    async fn store_owed(&self) {
        loop {
            let place = self.journal.place().await;
            let (owed, _storing, putting) = {
                let mut registry = self.registry();
                let owed = registry.take_owed();
                if owed.is_empty() {
                    return;
                }
                let book = self.alerts.book();
                let latest = |change| match change {
                    Change::Alert(row) => book.latest(row).map(Change::Alert),
                    other => Some(other),
                };
                let owed: Vec<Change> = owed.into_iter().filter_map(latest).collect();
                (owed.clone(), self.decisions.begin(), place.put(owed))
            };
            if putting.done().await.is_err() {
                return self.registry().owe_again(owed);
            }
        }
    }

    async fn stored(&self, changes: Vec<Change>, putting: Putting) -> Result<(), NotTaken> {
        let stored = putting.done().await;
        if stored.is_err() {
            self.registry().not_stored(changes);
        }
        Ok(stored?)
    }

    /// Changes that wait for the database.
    pub fn journal_waiting(&self) -> u64 {
        self.journal.waiting().0
    }

    /// Takes over what the database knows, which has the queue up to `applied`.
    pub(crate) fn restore(&self, known: Known, applied: u64) {
        let Known { mut nodes, errors, hours } = known;
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
        let mut registry = self.registry();
        registry.forget_queued_up_to(applied);
        registry.restore(nodes, errors, self.now());
        registry.set_restored();
        registry.restore_hours(hours);
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
        let legacy = self.health.legacy_problem();
        let legacy =
            legacy.map(|why| format!("degraded: the table of the legacy monitor cannot be read: {why}"));
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
            problems: away.into_iter().chain(prune).chain(legacy).collect(),
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Status::default()
        }
    }
}

#[cfg(test)]
mod tests;
