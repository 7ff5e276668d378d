//! Writes the queue to the database, and comes back for as long as the database is away. The only part that waits for it.

use crate::database::{Database, DatabaseError, Url};
use crate::monitor::Monitor;
use crate::registry::Change;
use metrics::{counter, gauge};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Changes in one transaction.
const BATCH_MAX: usize = 500;
/// First wait while the database is away; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Time between two looks for errors that are too old.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Rounds of probes between two looks at the legacy table.
const ROUNDS_TO_ADOPT: u32 = 3;
/// File in `var_dir` with the changes that the database will never take, one JSON object a line.
const REFUSED_FILE: &str = "refused.ndjson";

/// How the database is.
pub(crate) struct Health {
    pub(crate) url: String,
    away: Mutex<Option<String>>,
    refused: AtomicU64,
    restored: AtomicBool,
}

impl Health {
    pub(crate) fn new(url: String) -> Health {
        Health {
            url,
            away: Mutex::new(Some("not connected yet".to_owned())),
            refused: AtomicU64::new(0),
            restored: AtomicBool::new(false),
        }
    }

    /// Why it is away.
    pub(crate) fn away(&self) -> Option<String> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes that it will never take.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Whether what the database knew at the start is known.
    pub(crate) fn has_restored(&self) -> bool {
        self.restored.load(Relaxed)
    }

    fn set_away(&self, why: Option<String>) {
        gauge!("logferry_monitor_database_up").set(if why.is_none() { 1.0 } else { 0.0 });
        let before =
            std::mem::replace(&mut *self.away.lock().unwrap_or_else(PoisonError::into_inner), why.clone());
        match (before, why) {
            (None, Some(error)) => tracing::warn!(database = self.url, error, "the database is away"),
            (Some(_), None) => tracing::info!(database = self.url, "the database takes changes"),
            _ => {}
        }
    }
}

/// See the module.
pub(crate) struct DatabaseWriter {
    url: Url,
    monitor: Arc<Monitor>,
    restored: bool,
    adopt_at: Instant,
    prune_at: Instant,
}

impl DatabaseWriter {
    pub(crate) fn new(url: Url, monitor: Arc<Monitor>) -> DatabaseWriter {
        let now = Instant::now();
        DatabaseWriter { url, monitor, restored: false, adopt_at: now, prune_at: now }
    }

    /// Until `stop`, and then until the queue is written or the caller has no more patience.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let Err(error) = self.serve(&stop, &mut backoff).await else { return };
            self.monitor.health.set_away(Some(error.to_string()));
            counter!("logferry_monitor_database_failures_total").increment(1);
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = stop.cancelled() => {
                    // one more try, then the queue keeps it
                    let _ = self.serve(&stop, &mut backoff).await;
                    return;
                }
            }
        }
    }

    /// One connection, from opening to its failure, or to the end of the queue when the monitor stops.
    async fn serve(&mut self, stop: &CancellationToken, backoff: &mut Duration) -> Result<(), DatabaseError> {
        let settings = &self.monitor.config.database;
        let mut database = Database::open(&self.url, settings.timeout.0).await?;
        let journal = self.monitor.journal.clone();
        let mut applied = database.applied(journal.id()).await?;
        journal.written(applied).await;
        if !self.restored {
            let (nodes, errors) =
                (database.nodes().await?, database.errors(self.monitor.config.check.errors_shown).await?);
            self.monitor.restore(nodes, errors);
            let hours = database.hours(self.monitor.config.check.hours_max).await?;
            self.monitor.registry().restore_hours(hours);
            self.monitor.health.restored.store(true, Relaxed);
            self.restored = true;
        }
        let mut rounds = tokio::time::interval(self.monitor.config.check.interval.0);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            applied = self.write_queue(&mut database, applied).await?;
            self.monitor.health.set_away(None);
            *backoff = BACKOFF_MIN;
            tokio::select! {
                () = journal.wait() => {}
                _ = rounds.tick() => self.round(&mut database).await?,
                () = stop.cancelled() => {
                    self.save_statuses(&mut database).await?;
                    return self.write_queue(&mut database, applied).await.map(drop);
                }
            }
        }
    }

    /// All that waits; gives how far the database is then.
    async fn write_queue(&self, database: &mut Database, mut applied: u64) -> Result<u64, DatabaseError> {
        let journal = &self.monitor.journal;
        loop {
            let batch = journal.oldest(BATCH_MAX);
            let Some(upto) = batch.last().map(|(number, _)| *number) else { return Ok(applied) };
            let changes: Vec<&Change> = batch.iter().map(|(_, change)| change).collect();
            match database.apply(journal.id(), (applied, upto), &changes).await {
                Ok(()) => {}
                Err(DatabaseError::Refused(_)) => self.write_singly(database, applied, &batch).await?,
                Err(away) => return Err(away),
            }
            journal.written(upto).await;
            applied = upto;
        }
    }

    /// One change of these is not taken, and must not hold up the others.
    async fn write_singly(
        &self,
        database: &mut Database,
        mut applied: u64,
        batch: &[(u64, Change)],
    ) -> Result<(), DatabaseError> {
        let id = self.monitor.journal.id();
        for (number, change) in batch {
            let step = (applied, *number);
            let mut written = database.apply(id, step, &[change]).await;
            if let Err(DatabaseError::Refused(_)) = written {
                // the columns of a legacy table may be short, or of another character set
                written = database.apply(id, step, &[&change.plain()]).await;
            }
            if let Err(DatabaseError::Refused(why)) = &written {
                self.set_aside(change, why);
                written = database.apply(id, step, &[]).await;
            }
            written?;
            applied = *number;
        }
        Ok(())
    }

    fn set_aside(&self, change: &Change, why: &str) {
        self.monitor.health.refused.fetch_add(1, Relaxed);
        counter!("logferry_monitor_changes_refused_total").increment(1);
        let path = self.monitor.config.node.var_dir.join(REFUSED_FILE);
        let line = serde_json::json!({ "why": why, "change": change });
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let kept = file.and_then(|mut file| {
            writeln!(file, "{line}")?;
            file.sync_data()
        });
        match kept {
            Ok(()) => {
                tracing::error!(why, file = %path.display(), "the database will never take a change; it is set aside")
            }
            Err(error) => {
                tracing::error!(why, %error, %line, "the database will never take a change, and it cannot be set aside")
            }
        }
    }

    /// What is done once for each round of probes.
    async fn round(&mut self, database: &mut Database) -> Result<(), DatabaseError> {
        self.save_statuses(database).await?;
        let now = Instant::now();
        if now >= self.adopt_at && self.monitor.journal.waiting().0 == 0 {
            let rows = database.legacy_nodes().await?;
            // what came meanwhile is younger than the rows
            if self.monitor.journal.waiting().0 == 0 {
                let moment = self.monitor.now();
                self.monitor.registry().adopt(rows, moment);
            }
            self.adopt_at = now + self.monitor.config.check.interval.0 * ROUNDS_TO_ADOPT;
        }
        if now >= self.prune_at {
            let keep = self.monitor.config.database.keep_errors.0.as_millis();
            let before = self.monitor.now().unix_ms - i64::try_from(keep).unwrap_or(i64::MAX / 2);
            database.prune(before).await?;
            let first = self.monitor.first_hour_kept();
            self.monitor.registry().forget_hours_before(first);
            let keep = self.monitor.config.alert.keep.0.as_millis();
            let before = self.monitor.now().unix_ms - i64::try_from(keep).unwrap_or(i64::MAX / 2);
            database.prune_hours_and_alerts(first, before).await?;
            self.prune_at = now + PRUNE_EVERY;
        }
        Ok(())
    }

    /// Statuses are of the moment: those that cannot be written now are overtaken by the next.
    async fn save_statuses(&self, database: &mut Database) -> Result<(), DatabaseError> {
        let news = self.monitor.registry().take_news();
        for part in news.chunks(BATCH_MAX) {
            match database.save_statuses(part).await {
                Err(DatabaseError::Refused(why)) => tracing::debug!(why, "statuses are not taken"),
                other => other?,
            }
        }
        Ok(())
    }
}
