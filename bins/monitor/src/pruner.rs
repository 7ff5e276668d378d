//! Deletes what is older than it is to be kept: a slice at a time, over a connection of its own, so that nothing waits for it however long it
//! takes. Only rows of our own tables: those of a legacy monitor's are not ours to delete.

use crate::database::{Database, DatabaseError, Old, Url};
use crate::monitor::Monitor;
use metrics::counter;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks for what is too old.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// The same after one that failed.
const RETRY_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks whether the database is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows that are deleted at a time; fewer after a time-out.
const SLICE_MAX: u64 = 1_000;
/// Pause between two slices: others want to write, too.
const PAUSE: Duration = Duration::from_millis(20);

/// Until `stop`.
pub(crate) async fn run(url: Url, monitor: Arc<Monitor>, stop: CancellationToken) {
    tokio::select! {
        () = prune_for_ever(&url, &monitor) => {}
        () = stop.cancelled() => {}
    }
}

async fn prune_for_ever(url: &Url, monitor: &Monitor) {
    let (mut slice, mut is_said) = (SLICE_MAX, false);
    loop {
        while !monitor.health.has_restored() || monitor.health.away().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if let Some(why) = monitor.clock_doubt() {
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!("{why}");
            }
            monitor.health.set_prune_problem(Some(why));
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        is_said = false;
        let outcome = prune(url, monitor, &mut slice).await;
        if let Err(error) = &outcome {
            slice = (slice / 2).max(1);
            counter!("logferry_monitor_prunes_failed_total").increment(1);
            tracing::warn!(%error, "what is older than it is to be kept cannot be deleted");
        }
        let pause = if outcome.is_ok() { PRUNE_EVERY } else { RETRY_EVERY };
        monitor.health.set_prune_problem(outcome.err().map(|error| error.to_string()));
        tokio::time::sleep(pause).await;
    }
}

async fn prune(url: &Url, monitor: &Monitor, slice: &mut u64) -> Result<(), DatabaseError> {
    let (settings, alerts) = (&monitor.config.database, &monitor.config.alert);
    let first_hour = monitor.first_hour_kept();
    monitor.registry().forget_hours_before(first_hour);
    let before = |keep: Duration| {
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX / 2);
        monitor.now().unix_ms.saturating_sub(keep)
    };
    let mut database = Database::open(url, settings.timeout.0).await?;
    let errors = Old::Errors(before(settings.keep_errors.0));
    for old in [errors, Old::Hours(first_hour), Old::Alerts(before(alerts.keep.0))] {
        while database.prune(old, *slice).await? >= *slice {
            *slice = (*slice * 2).min(SLICE_MAX);
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
