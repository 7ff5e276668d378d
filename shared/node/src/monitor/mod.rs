//! A node's side of the monitor: it registers, sends heartbeats with its status and what it warned of, answers probes, and
//! unregisters. The messages are here for both sides.
//!
//! Nothing in here can hold up a node's work: warnings go through a [bounded queue](queue::ReportQueue) that drops what does not
//! fit, and counts it; everything else is done by tasks of their own.

pub mod hours;
pub mod message;
pub mod status;

pub(crate) mod client;
pub(crate) mod folders;
pub(crate) mod instance;
pub(crate) mod patience;
pub(crate) mod probes;
pub(crate) mod queue;

use crate::config::NodeSettings;
use anyhow::Context;
use client::{Client, HoursSource, Identity, StatusSource};
use folders::Folders;
use queue::ReportQueue;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that a node's end waits for the monitor to be told of it.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// The node's hold on its way to the monitor; without one everything here does nothing.
#[derive(Clone, Default)]
pub(crate) struct MonitorLink {
    pub(crate) status: StatusSource,
    pub(crate) hours: HoursSource,
    pub(crate) folders: Arc<Folders>,
    reports: Arc<ReportQueue>,
    goodbye: CancellationToken,
    graceful: Arc<AtomicBool>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl MonitorLink {
    /// Answers probes and speaks to the monitor, as far as the settings say. Call inside a tokio runtime.
    pub(crate) fn start(
        settings: &NodeSettings,
        role: &'static str,
        reports: Arc<ReportQueue>,
    ) -> anyhow::Result<MonitorLink> {
        let heartbeat = match settings.heartbeat.as_str() {
            "" => None,
            addr => {
                let bound = probes::answer_at(addr).with_context(|| {
                    format!("heartbeat address {addr} cannot be bound: set heartbeat in [node] to a free one")
                })?;
                tracing::info!(addr = %bound, "answering probes");
                Some(bound)
            }
        };
        let link = MonitorLink { reports: reports.clone(), ..MonitorLink::default() };
        if settings.monitor.is_empty() {
            return Ok(link);
        }
        let token_file = Some(&settings.monitor_token_file).filter(|file| !file.is_empty());
        let token = token_file.map(|file| crate::admin::read_token(Path::new(file))).transpose();
        reports.switch_on();
        let identity = Identity {
            token: token.context("monitor_token_file in [node]")?,
            monitor: settings.monitor.clone(),
            name: settings.name.clone(),
            role,
            host: crate::runtime::host_name().unwrap_or_else(|_| settings.name.clone()),
            instance: instance::instance(&settings.var_dir),
            heartbeat,
            every: settings.heartbeat_interval.0,
        };
        let client = Client {
            identity,
            reports,
            status: link.status.clone(),
            hours: link.hours.clone(),
            folders: link.folders.clone(),
            var_dir: settings.var_dir.clone(),
            goodbye: link.goodbye.clone(),
            graceful: link.graceful.clone(),
        };
        *link.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(client.run()));
        Ok(link)
    }

    /// Sends what waits, and unregisters after a graceful stop; after a failure, `error` goes with it. Waits a short time at most.
    pub(crate) async fn say_goodbye(&self, error: Option<&str>) {
        match error {
            Some(error) => self.reports.push("ERROR", error),
            None => self.graceful.store(true, Release),
        }
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.goodbye.cancel();
        if let Some(task) = task {
            let _ = tokio::time::timeout(GOODBYE_MAX, task).await;
        }
    }
}
