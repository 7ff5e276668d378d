//! Brings changes to one webhook, in order: each is judged by its own age and, where a request of many is not taken, by its own answer.

use super::AlertRow;
use super::book::{GIVEN_UP, SENT};
use super::webhook::{Failure, Webhook};
use crate::monitor::Monitor;
use metrics::counter;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Changes in one request.
const REQUEST_CHANGES_MAX: usize = 100;
/// First wait after a request that failed; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// What could not be told for so long is given up, in milliseconds.
const GIVE_UP_MS: i64 = 24 * 3_600 * 1_000;

/// What a request came to: what becomes of its changes, and whether it is to be tried again after a while.
#[derive(Debug, Default, PartialEq)]
struct Verdict {
    settled: Vec<i64>,
    outcome: &'static str,
    waits: bool,
    /// So many changes are sent one by one now: one of them may be what is not taken.
    singly: usize,
}

fn judge(sent: &Result<(), Failure>, rows: &[AlertRow], now_ms: i64) -> Verdict {
    let ids = |rows: &mut dyn Iterator<Item = &AlertRow>| rows.map(|row| row.id).collect();
    match sent {
        Ok(()) => Verdict { settled: ids(&mut rows.iter()), outcome: SENT, ..Verdict::default() },
        Err(Failure::ForGood(_)) if rows.len() > 1 => {
            Verdict { outcome: "one by one", singly: rows.len(), ..Verdict::default() }
        }
        Err(Failure::ForGood(_)) => {
            Verdict { settled: ids(&mut rows.iter()), outcome: GIVEN_UP, ..Verdict::default() }
        }
        Err(Failure::ForNow(_)) => {
            let is_old = |row: &&AlertRow| now_ms.saturating_sub(row.unix_ms) > GIVE_UP_MS;
            let settled = ids(&mut rows.iter().filter(is_old));
            Verdict { settled, outcome: GIVEN_UP, waits: true, singly: 0 }
        }
    }
}

/// Sends what waits for one webhook until `stop`.
pub(super) async fn deliver(monitor: Arc<Monitor>, webhook: Webhook, stop: CancellationToken) {
    let (mut backoff, mut singly) = (BACKOFF_MIN, 0_usize);
    loop {
        let arrived = monitor.alerts.arrived.notified();
        let count = if singly > 0 { 1 } else { REQUEST_CHANGES_MAX };
        let waiting = monitor.alerts.book().waiting(&webhook.label, count);
        if waiting.is_empty() {
            tokio::select! {
                () = arrived => continue,
                () = stop.cancelled() => return,
            }
        }
        let sent = tokio::select! {
            sent = webhook.send(&monitor.config.node.name, waiting.clone()) => sent,
            () = stop.cancelled() => return,
        };
        let verdict = judge(&sent, &waiting, monitor.now().unix_ms);
        let word = match verdict.waits {
            true => "waiting".to_owned(),
            false => verdict.outcome.replace(' ', "_"),
        };
        counter!("logferry_monitor_webhook_requests_total", "webhook" => webhook.label.clone(), "outcome" => word).increment(1);
        if let Err(Failure::ForNow(why) | Failure::ForGood(why)) = &sent {
            let given_up = verdict.settled.len();
            tracing::warn!(webhook = webhook.label, why, given_up, "a webhook did not take alerts");
        }
        if !verdict.settled.is_empty() {
            let settled = monitor.alerts.book().settle(&webhook.label, &verdict.settled, verdict.outcome);
            if verdict.outcome == GIVEN_UP {
                counter!("logferry_monitor_alerts_given_up_total").increment(settled.len() as u64);
            }
            monitor.alerts.store(&monitor, settled).await;
        }
        if verdict.waits {
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = stop.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            continue;
        }
        backoff = BACKOFF_MIN;
        singly = verdict.singly.max(singly.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::AlertState;

    fn rows(ages_ms: &[i64], now_ms: i64) -> Vec<AlertRow> {
        let row = |(id, age): (usize, &i64)| AlertRow {
            id: id as i64,
            unix_ms: now_ms - age,
            kind: "lag".into(),
            subject: "tailer web-1".into(),
            state: AlertState::Raised,
            text: "5 bytes wait".into(),
            delivery: Default::default(),
        };
        ages_ms.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_change_is_given_up_by_its_own_age() {
        let now_ms = 1_795_194_000_000;
        let rows = rows(&[GIVE_UP_MS + 1, 5, GIVE_UP_MS], now_ms);
        let verdict = judge(&Err(Failure::ForNow("it answered 503".into())), &rows, now_ms);
        assert_eq!(verdict, Verdict { settled: vec![0], outcome: GIVEN_UP, waits: true, singly: 0 });
    }

    #[test]
    fn a_request_of_many_that_is_never_taken_is_tried_one_by_one() {
        let rows = rows(&[3, 2, 1], 100);
        let for_good = || Err(Failure::ForGood("it answered 400".into()));
        let verdict = judge(&for_good(), &rows, 100);
        assert_eq!((verdict.settled.len(), verdict.singly, verdict.waits), (0, 3, false));
        let verdict = judge(&for_good(), &rows[..1], 100);
        assert_eq!((verdict.settled, verdict.outcome), (vec![0], GIVEN_UP));
    }
}
