//! Looks at what is wrong, stores what is to be told before anybody is told, and starts the webhooks.

use super::conditions;
use super::delivery::deliver;
use super::webhook::Webhook;
use super::{AlertRow, Book};
use crate::monitor::Monitor;
use logferry_durable::{RealDisk, replace};
use metrics::{counter, gauge};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// File in `var_dir` with what was announced and what waits.
pub(crate) const FILE: &str = "alerts.json";
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nodes or hours that make a look take longer by as much.
const LOOK_EVERY_PER: usize = 2_000;

/// The alerts of a running monitor.
pub(crate) struct Alerts {
    book: Mutex<Book>,
    path: PathBuf,
    /// Held by who writes the file: what is in it must not be older than what was there.
    saving: Mutex<()>,
    /// There is something to send.
    pub(super) arrived: Notify,
}

impl Alerts {
    /// Reads what an earlier run has announced. A file that cannot be read is set aside: then what is wrong is announced again.
    pub(crate) fn open(var_dir: &Path) -> Alerts {
        let path = var_dir.join(FILE);
        let book = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let aside = path.with_extension("json.damaged");
                let kept = std::fs::rename(&path, &aside);
                tracing::error!(%error, set_aside = kept.is_ok(), "what was announced cannot be read: it may be announced again");
                Book::default()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(%error, "what was announced cannot be read: it may be announced again");
                }
                Book::default()
            }
        };
        Alerts { book: Mutex::new(book), path, saving: Mutex::default(), arrived: Notify::new() }
    }

    /// Held for moments only.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durably.
    fn save(&self) -> std::io::Result<()> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = serde_json::to_vec(&*self.book())?;
        replace(&RealDisk, &self.path, &bytes)
    }

    /// Stores changes as they are when they are written: others may have gone on with them meanwhile.
    pub(crate) async fn store(&self, monitor: &Arc<Monitor>, mut changes: Vec<AlertRow>) {
        let given_up = self.book().trim();
        if !given_up.is_empty() {
            say_given_up(given_up.len(), "more changes wait for webhooks than may");
            changes.extend(given_up);
        }
        let shared = monitor.clone();
        let saved = tokio::task::spawn_blocking(move || shared.alerts.save()).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(%error, file = %self.path.display(), "what is announced cannot be stored: a restart may repeat it");
        }
        monitor.store_alerts(changes).await;
    }
}

fn say_given_up(changes: usize, why: &str) {
    counter!("logferry_monitor_alerts_given_up_total").increment(changes as u64);
    tracing::error!(changes, why, "webhooks are not told of alerts");
}

/// Until `stop`.
pub(crate) async fn run(monitor: Arc<Monitor>, webhooks: Vec<Webhook>, stop: CancellationToken) {
    let labels = webhooks.iter().map(|webhook| webhook.label.clone()).collect();
    let orphans = monitor.alerts.book().give_up_others(&labels);
    if !orphans.is_empty() {
        say_given_up(orphans.len(), "their webhooks are not configured any more");
        monitor.alerts.store(&monitor, orphans).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for webhook in webhooks {
        tasks.spawn(deliver(monitor.clone(), webhook, stop.clone()));
    }
    loop {
        let known = look(&monitor).await;
        let pause = LOOK_EVERY * u32::try_from(1 + known / LOOK_EVERY_PER).unwrap_or(u32::MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return tasks.shutdown().await,
        }
    }
}

/// One look; gives how many nodes and hours there are.
async fn look(monitor: &Arc<Monitor>) -> usize {
    let settings = &monitor.config.alert;
    let now = monitor.now();
    let receivers = |kind: &str| {
        let wants = |webhook: &&super::WebhookSettings| {
            webhook.kinds.is_empty() || webhook.kinds.iter().any(|wanted| wanted == kind)
        };
        settings.webhook.iter().filter(wants).map(super::WebhookSettings::label).collect()
    };
    let (changes, known) = {
        let registry = monitor.registry();
        let knows_all = monitor.health.has_restored();
        let is_over = |key: &str, row: &AlertRow| conditions::is_over(&registry, key, row, knows_all, now);
        let wrong = conditions::wrong(&registry, settings, now);
        for kind in conditions::KINDS {
            let count = wrong.iter().filter(|condition| condition.kind == kind).count();
            gauge!("logferry_monitor_troubles", "kind" => kind).set(count as f64);
        }
        let mut book = monitor.alerts.book();
        let changes = book.look(wrong, is_over, receivers, settings.hold.0, now);
        gauge!("logferry_monitor_alerts_open").set(book.open().count() as f64);
        (changes, registry.nodes().count() + registry.hours().len())
    };
    if !changes.is_empty() {
        for change in &changes {
            counter!("logferry_monitor_alerts_total", "state" => change.state.word()).increment(1);
            tracing::info!(
                kind = change.kind,
                subject = change.subject,
                state = change.state.word(),
                "{}",
                change.text
            );
        }
        monitor.alerts.store(monitor, changes).await;
        monitor.alerts.arrived.notify_waiters();
    }
    known
}
