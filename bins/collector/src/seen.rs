//! The footprint on disk: which packs the next tier has, as a `durable::Log` named `footprint`.
//!
//! It is a hint that spares the next tier duplicates. It holds only packs that the next tier acknowledged, so neither the loss
//! of its tail nor that of the spool can make it claim a pack that is nowhere; hence it is written without fsync.

use logferry_durable::{Disk, Log};
use logferry_footprint::Footprint;
use logferry_pack::PackIdentity;
use metrics::counter;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the log in `var_dir`.
pub(crate) const FOOTPRINT_LOG: &str = "footprint";

/// Wait after a snapshot that failed.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);

/// A record of the log: a pack that the next tier has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Seen {
    pub(crate) identity: PackIdentity,
    pub(crate) first: u64,
    pub(crate) now_unix: u64,
}

/// The log.
pub(crate) struct SeenLog {
    log: Log,
    /// A snapshot was asked for and did not come yet.
    asked: bool,
    /// The last snapshot failed: the next is not asked for before.
    ask_after: Option<Instant>,
}

impl SeenLog {
    /// Opens the log and gives back what it holds; damage is reported and costs only what is damaged.
    pub(crate) fn open(disk: Arc<dyn Disk>, var_dir: &Path) -> io::Result<(SeenLog, Footprint)> {
        let (log, recovered) = Log::open(disk, var_dir, FOOTPRINT_LOG)?;
        if recovered.is_new() {
            tracing::info!(folder = %var_dir.display(), "no footprint found: a new one is begun");
        }
        let mut undecodable = 0;
        let mut footprint = match &recovered.snapshot {
            None => Footprint::default(),
            Some(bytes) => Footprint::from_bytes(bytes).unwrap_or_else(|| {
                undecodable += 1;
                Footprint::default()
            }),
        };
        for record in &recovered.records {
            match postcard::from_bytes::<Seen>(record) {
                Ok(seen) => footprint.insert(&seen.identity, seen.first, seen.now_unix),
                Err(_) => undecodable += 1,
            }
        }
        if recovered.report.is_suspect() || undecodable > 0 {
            counter!("logferry_collector_footprint_damaged_total").increment(1);
            tracing::warn!(
                report = %recovered.report,
                undecodable,
                streams = footprint.streams(),
                "the footprint was damaged: packs that it does not remember are forwarded again, the next tier tells what it has"
            );
        }
        Ok((SeenLog { log, asked: false, ask_after: None }, footprint))
    }

    /// Writes records. A failure costs the hint, not the pack; the next snapshot mends the log.
    pub(crate) fn append(&mut self, seen: &[Seen]) {
        for seen in seen {
            match postcard::to_stdvec(seen) {
                Ok(record) => self.log.append(&record),
                Err(error) => tracing::error!(%error, "a footprint record cannot be encoded"),
            }
        }
        if !self.log.is_poisoned()
            && let Err(error) = self.log.write()
        {
            counter!("logferry_collector_footprint_write_failures_total").increment(1);
            tracing::warn!(%error, "the footprint cannot be written");
        }
    }

    /// Whether a snapshot is to be sent; true once for each.
    pub(crate) fn asks_for_snapshot(&mut self) -> bool {
        let wanted = self.log.wants_snapshot() || self.log.is_poisoned();
        let soon = self.ask_after.is_some_and(|at| Instant::now() < at);
        wanted && !soon && !std::mem::replace(&mut self.asked, true)
    }

    /// Replaces the log by a snapshot of all that was appended.
    pub(crate) fn snapshot(&mut self, footprint: &[u8]) {
        self.asked = false;
        self.ask_after = None;
        if let Err(error) = self.log.snapshot(footprint) {
            self.ask_after = Some(Instant::now() + SNAPSHOT_RETRY);
            counter!("logferry_collector_footprint_write_failures_total").increment(1);
            tracing::warn!(%error, "the footprint's snapshot cannot be written");
        }
    }
}
