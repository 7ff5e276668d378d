//! Writes the queue to the database, and comes back for as long as the database is away. The only part that waits for it.

use crate::database::{Database, DatabaseError, LegacyRows, Url};
use crate::monitor::{Known, Monitor};
use crate::registry::{Change, State};
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
/// Rounds of probes between two looks at the legacy table.
const ROUNDS_TO_ADOPT: u32 = 3;
/// Time after which it is said again that a legacy table takes no rows.
const LEGACY_SAID_EVERY: Duration = Duration::from_secs(3_600);
/// File in `var_dir` with the changes that the database will never take, one JSON object a line.
const REFUSED_FILE: &str = "refused.ndjson";

/// Why it is away before the first try.
const NOT_TRIED: &str = "not connected yet";

/// How the database is.
pub(crate) struct Health {
    pub(crate) url: String,
    away: Mutex<Option<String>>,
    prune_problem: Mutex<Option<String>>,
    legacy_problem: Mutex<Option<String>>,
    refused: AtomicU64,
    restored: AtomicBool,
}

impl Health {
    pub(crate) fn new(url: String) -> Health {
        Health {
            url,
            away: Mutex::new(Some(NOT_TRIED.to_owned())),
            prune_problem: Mutex::default(),
            legacy_problem: Mutex::default(),
            refused: AtomicU64::new(0),
            restored: AtomicBool::new(false),
        }
    }

    /// Why it is away.
    pub(crate) fn away(&self) -> Option<String> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why what is old is not deleted.
    pub(crate) fn prune_problem(&self) -> Option<String> {
        self.prune_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_prune_problem(&self, why: Option<String>) {
        *self.prune_problem.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why the legacy table is not read.
    pub(crate) fn legacy_problem(&self) -> Option<String> {
        self.legacy_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_legacy_problem(&self, why: Option<String>) {
        let mut known = self.legacy_problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &why) {
            (None, Some(why)) => {
                tracing::warn!(
                    why,
                    "the table of the legacy monitor cannot be read: nodes that are added by hand are not seen"
                );
            }
            (Some(_), None) => tracing::info!("the table of the legacy monitor is read again"),
            _ => {}
        }
        *known = why;
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
            (Some(before), Some(error)) if before == NOT_TRIED => {
                tracing::warn!(database = self.url, error, "the database is away from the start");
            }
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
    /// Changes in the next transaction: fewer after one that was in vain.
    batch: usize,
    /// When it was said last that a legacy table takes no rows.
    legacy_said: Option<Instant>,
}

impl DatabaseWriter {
    pub(crate) fn new(url: Url, monitor: Arc<Monitor>) -> DatabaseWriter {
        let now = Instant::now();
        DatabaseWriter { url, monitor, restored: false, adopt_at: now, batch: BATCH_MAX, legacy_said: None }
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
        let has_lost = applied < journal.written_up_to();
        journal.written(applied).await;
        if !self.restored {
            let check = &self.monitor.config.check;
            let nodes = database.nodes().await?;
            let errors = database.errors(check.errors_shown).await?;
            let hours = database.hours(check.hours_max).await?;
            self.monitor.restore(Known { nodes, errors, hours }, applied);
            self.monitor.health.restored.store(true, Relaxed);
            self.restored = true;
        }
        if has_lost {
            self.monitor.write_again(applied).await;
        }
        let mut rounds = tokio::time::interval(self.monitor.config.check.interval.0);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            applied = self.write_some(&mut database, applied).await?;
            // not because one change came through where many do not
            if self.batch == BATCH_MAX || journal.waiting().0 == 0 {
                self.monitor.health.set_away(None);
                *backoff = BACKOFF_MIN;
            }
            tokio::select! {
                // a queue that is never empty must not keep the rest from being done
                biased;
                () = stop.cancelled() => {
                    self.save_statuses(&mut database).await?;
                    while journal.waiting().0 > 0 {
                        applied = self.write_some(&mut database, applied).await?;
                    }
                    return Ok(());
                }
                _ = rounds.tick() => self.round(&mut database).await?,
                () = journal.wait() => {}
            }
        }
    }

    /// The oldest that waits, as much as one transaction takes; gives how far the database is then.
    async fn write_some(&mut self, database: &mut Database, applied: u64) -> Result<u64, DatabaseError> {
        let journal = self.monitor.journal.clone();
        let batch = journal.oldest(self.batch);
        let Some(upto) = batch.last().map(|(number, _)| *number) else { return Ok(applied) };
        let changes: Vec<&Change> = batch.iter().map(|(_, change)| change).collect();
        match database.apply(journal.id(), (applied, upto), &changes).await {
            Ok(()) => {}
            Err(DatabaseError::Refused(_)) => self.write_singly(database, applied, &batch).await?,
            Err(away) => {
                // however slow it is, one change at a time gets through
                self.batch = (self.batch / 2).max(1);
                return Err(away);
            }
        }
        self.batch = (self.batch * 2).min(BATCH_MAX);
        journal.written(upto).await;
        Ok(upto)
    }

    /// One change of these is not taken, and must not hold up the others.
    async fn write_singly(
        &mut self,
        database: &mut Database,
        mut applied: u64,
        batch: &[(u64, Change)],
    ) -> Result<(), DatabaseError> {
        let id = self.monitor.journal.id();
        for (number, change) in batch {
            let step = (applied, *number);
            let mut written = database.apply(id, step, &[change]).await;
            // a legacy table that is made otherwise than ours must not cost ours anything
            for legacy in [LegacyRows::Plain, LegacyRows::Kept, LegacyRows::Without] {
                if let Err(DatabaseError::Refused(why)) = written {
                    if legacy == LegacyRows::Kept {
                        written = self.write_keeping(database, step, change, why).await;
                        continue;
                    }
                    written = database.apply_with(id, step, &[change], legacy).await;
                    if legacy == LegacyRows::Without && written.is_ok() {
                        self.legacy_left_out(&why);
                    }
                }
            }
            if let Err(DatabaseError::Refused(_)) = written {
                let plain = change.plain();
                written = database.apply_with(id, step, &[&plain], LegacyRows::Without).await;
            }
            if let Err(DatabaseError::Refused(why)) = &written {
                self.set_aside(change, why);
                written = database.apply(id, step, &[]).await;
            }
            written?;
            applied = *number;
            self.monitor.journal.written(applied).await;
        }
        Ok(())
    }

    /// Writes a change whose row of the legacy table cannot be deleted, and remembers that the row is nobody's. Said once for each address.
    async fn write_keeping(
        &mut self,
        database: &mut Database,
        step: (u64, u64),
        change: &Change,
        why: String,
    ) -> Result<(), DatabaseError> {
        let row = match change {
            Change::Forgotten(row) | Change::AddressLeft(row) => row,
            Change::Node(row) if row.state == State::Left => row,
            _ => return Err(DatabaseError::Refused(why)),
        };
        let address = (row.ip.clone(), i64::from(row.port));
        let is_known = database.kept().await?.contains_key(&address);
        let id = self.monitor.journal.id();
        match database.apply_with(id, step, &[change], LegacyRows::Kept).await {
            // as it was before this try
            Err(DatabaseError::Refused(_)) => return Err(DatabaseError::Refused(why)),
            other => other?,
        }
        counter!("logferry_monitor_legacy_rows_refused_total").increment(1);
        if !is_known && database.kept().await?.contains_key(&address) {
            self.monitor.say_kept(row, &why).await;
        }
        Ok(())
    }

    fn legacy_left_out(&mut self, why: &str) {
        counter!("logferry_monitor_legacy_rows_refused_total").increment(1);
        if self.legacy_said.is_none_or(|said| said.elapsed() >= LEGACY_SAID_EVERY) {
            self.legacy_said = Some(Instant::now());
            tracing::warn!(why, "a table of the legacy monitor does not take rows; ours have them");
        }
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
        // first, because while statuses are written something is decided of nodes
        if Instant::now() >= self.adopt_at {
            self.adopt(database).await?;
        }
        self.save_statuses(database).await
    }

    /// Looks at what somebody else has written to the legacy table. Not while a change of a node waits, which is younger than the rows: then it
    /// is tried again in the next round.
    async fn adopt(&mut self, database: &mut Database) -> Result<(), DatabaseError> {
        let Some(decisions) = self.monitor.decisions_written() else { return Ok(()) };
        let (is_done, problem) = match database.legacy_nodes().await {
            Ok(rows) => (self.monitor.adopt(rows, decisions).await, None),
            // ours are as they were: it is no reason to leave the database alone
            Err(DatabaseError::Refused(why)) => (true, Some(why)),
            Err(away) => return Err(away),
        };
        self.monitor.health.set_legacy_problem(problem);
        if is_done {
            self.adopt_at = Instant::now() + self.monitor.config.check.interval.0 * ROUNDS_TO_ADOPT;
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
