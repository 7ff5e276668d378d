//! What can be seen of a running collector: status for the admin endpoint, metrics, and a log line when its state changes.

use crate::relay::{RelayFigures, SpoolTrouble};
use crate::store::StoreFigures;
use logferry_link::{Budget, Health, Sender};
use logferry_node::admin::Status;
use logferry_node::quarantine::Quarantine;
use metrics::{Gauge, gauge};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared between the relay's task, which writes, and the admin endpoint, which reads.
pub(crate) struct Board {
    relay: Mutex<RelayFigures>,
    store: Arc<StoreFigures>,
    sender: Sender,
    budget: Budget,
    quarantine: Arc<Quarantine>,
    gauges: Gauges,
}

/// Registered once: looking them up for each event would cost more than the event.
struct Gauges {
    queue_packs: Gauge,
    queue_bytes: Gauge,
    spool_packs: Gauge,
    spool_bytes: Gauge,
    targets_up: Gauge,
}

impl Board {
    pub(crate) fn new(
        store: Arc<StoreFigures>,
        sender: Sender,
        budget: Budget,
        quarantine: Arc<Quarantine>,
    ) -> Board {
        let gauges = Gauges {
            queue_packs: gauge!("logferry_collector_queue_packs"),
            queue_bytes: gauge!("logferry_collector_queue_bytes"),
            spool_packs: gauge!("logferry_collector_spool_packs"),
            spool_bytes: gauge!("logferry_collector_spool_bytes"),
            targets_up: gauge!("logferry_collector_targets_up"),
        };
        Board { relay: Mutex::default(), store, sender, budget, quarantine, gauges }
    }

    /// Takes over new figures; logs what an operator should know.
    pub(crate) fn update(&self, figures: RelayFigures) {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        report_trouble(&relay, &figures);
        report_stall(&relay, &figures);
        if (relay.targets_up == 0) != (figures.targets_up == 0) {
            report_targets(&figures, &self.sender.health());
        }
        self.gauges.queue_packs.set(figures.queue_packs as f64);
        self.gauges.queue_bytes.set(figures.queue_bytes as f64);
        self.gauges.spool_packs.set(figures.spool_packs as f64);
        self.gauges.spool_bytes.set(self.store.spool_bytes.load(Relaxed) as f64);
        self.gauges.targets_up.set(figures.targets_up as f64);
        *relay = figures;
    }

    /// For `/readyz`. Ready means that packs are taken: with all targets away they are, into the spool.
    pub(crate) fn status(&self) -> Status {
        let relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut status = Status { ready: relay.trouble.is_none(), ..Status::default() };
        match &relay.trouble {
            Some(SpoolTrouble::Full(text)) => status.problems.push(format!("spool full: {text}")),
            Some(SpoolTrouble::Failed(text)) => status.problems.push(format!("spool fails: {text}")),
            None => {}
        }
        if relay.targets_up == 0 {
            let why = self.sender.health().last_error.map(|error| format!(": {error}")).unwrap_or_default();
            status.problems.push(format!("no target is up{why}"));
        }
        if relay.stalled {
            status.problems.push("a target is up but does not acknowledge".to_owned());
        }
        let damaged = self.store.damaged_ranges.load(Relaxed);
        if damaged > 0 {
            status.problems.push(format!("{damaged} damaged ranges of the spool were set aside"));
        }
        let lost = (self.store.lost_packs.load(Relaxed), self.store.lost_segments.load(Relaxed));
        if lost != (0, 0) {
            let (packs, segments) = lost;
            status.problems.push(format!(
                "{packs} packs of the spool are lost, {segments} of its files were removed: see the log, and ship them again from the hosts"
            ));
        }
        self.fill_figures(&mut status, &relay);
        status
    }

    fn fill_figures(&self, status: &mut Status, relay: &RelayFigures) {
        let (quarantined_files, quarantined_bytes) = self.quarantine.totals();
        status.figures = [
            ("queue_packs", relay.queue_packs),
            ("queue_bytes", relay.queue_bytes),
            ("flight_packs", relay.flight_packs),
            ("unanswered_packs", relay.unanswered),
            ("memory_bytes", self.budget.used()),
            ("spool_packs", relay.spool_packs),
            ("spool_bytes", self.store.spool_bytes.load(Relaxed)),
            ("spool_damaged_ranges", self.store.damaged_ranges.load(Relaxed)),
            ("spool_packs_lost", self.store.lost_packs.load(Relaxed)),
            ("targets_up", relay.targets_up),
            ("streams", relay.streams),
            ("footprint_bytes", relay.footprint_bytes),
            ("streams_forgotten_total", relay.streams_forgotten),
            ("streams_active", relay.streams_active),
            ("duplicates_total", relay.duplicates_total),
            ("bytes_total", relay.bytes_total),
            ("forwarded_bytes_total", relay.forwarded_bytes_total),
            ("quarantined_files", quarantined_files),
            ("quarantined_bytes", quarantined_bytes),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    }
}

fn report_trouble(before: &RelayFigures, now: &RelayFigures) {
    match (&before.trouble, &now.trouble) {
        (None | Some(SpoolTrouble::Failed(_)), Some(SpoolTrouble::Full(text))) => {
            tracing::warn!("{text}: packs wait, and are sent back when they waited too long");
        }
        (None | Some(SpoolTrouble::Full(_)), Some(SpoolTrouble::Failed(text))) => {
            tracing::error!("{text}: no pack is acknowledged from the spool");
        }
        (Some(_), None) => tracing::info!("the spool takes packs again"),
        _ => {}
    }
}

fn report_stall(before: &RelayFigures, now: &RelayFigures) {
    match (before.stalled, now.stalled) {
        (false, true) => tracing::warn!("a target is up but does not acknowledge: packs go to the spool"),
        (true, false) => tracing::info!("packs are acknowledged again"),
        _ => {}
    }
}

fn report_targets(now: &RelayFigures, health: &Health) {
    match now.targets_up {
        0 => tracing::warn!(error = health.last_error, "no target is up"),
        up => tracing::info!(up, spool_packs = now.spool_packs, "a target is up"),
    }
}
