//! Puts the parts of a collector together: the receiver, the relay's task, the sender, the disk thread.

use crate::board::Board;
use crate::config::CollectorConfig;
use crate::relay::{Relay, RelayOptions};
use crate::seen::SeenLog;
use crate::shell::Shell;
use crate::store::{Report, Store, StoreFigures, StoreHandle, pending};
use anyhow::Context;
use logferry_durable::Disk;
use logferry_footprint::{Footprint, WhenFull};
use logferry_link::{
    Budget, HopStamp, Incoming, LegacyFootprint, Receiver, ReceiverOptions, Sender, SenderOptions,
};
use logferry_node::admin::Status;
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Limits, StreamId};
use logferry_spool::{Spool, SpoolOptions, SpoolReport};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Folder of the spool in `var_dir`.
pub const SPOOL_DIR: &str = "spool";
/// Packs between the receiver and the relay.
const INTAKE_PACKS_MAX: usize = 64;
/// Most bytes read back from the spool that are in memory.
const REPLAY_BYTES_MAX: u64 = 4 << 20;
/// What stopping may take beyond `stop_grace`.
const STOP_EXTRA: Duration = Duration::from_millis(1_500);

/// A running collector.
pub struct Collector {
    addr: SocketAddr,
    board: Arc<Board>,
    stop: CancellationToken,
    sender_stop: CancellationToken,
    receiver: JoinHandle<()>,
    relay: JoinHandle<anyhow::Result<()>>,
}

impl Collector {
    /// Starts all parts; call inside a tokio runtime. `config.node.name` must be filled in, and `var_dir` must exist.
    ///
    /// # Errors
    /// The address cannot be bound, or the folders cannot be used. Damage in them is no error: it is set aside.
    pub async fn start(config: &CollectorConfig, disk: Arc<dyn Disk>) -> anyhow::Result<Collector> {
        let (reports, reports_in) = mpsc::unbounded_channel();
        let legacy_footprint = LegacyFootprint::take_over(&*disk, &config.listen, &config.node.var_dir)?;
        let opened = open_store(config, disk, reports)?;
        let budget = Budget::new(config.listen.memory.0);
        let mut options = ReceiverOptions::new(&config.listen, &config.node, "collector", budget.clone());
        options.quarantine = Some(opened.store.quarantine.clone());
        options.legacy_footprint = legacy_footprint;
        let receiver = Receiver::bind(options)
            .await
            .with_context(|| format!("listen.addr {} cannot be bound", config.listen.addr))?;
        let addr = receiver.local_addr();

        let sender_stop = CancellationToken::new();
        let options = SenderOptions {
            settings: config.send.clone(),
            node: config.node.name.clone(),
            role: "collector",
        };
        let (sender, settled) = Sender::start(options, sender_stop.clone());
        let board =
            Board::new(opened.store.figures.clone(), sender.clone(), budget, opened.store.quarantine.clone());
        let board = Arc::new(board);

        let stop = CancellationToken::new();
        let (packs, packs_in) = mpsc::channel::<Incoming>(INTAKE_PACKS_MAX);
        let relay = Relay::new(relay_options(config), limited(opened.footprint, config), opened.pending);
        board.update(relay.figures(Duration::ZERO));
        let shell = Shell::new(
            relay,
            sender,
            StoreHandle::start(opened.store).context("the disk thread cannot be started")?,
            HopStamp::new(addr.ip(), config.node.zone()?),
            board.clone(),
        );
        let stop_max = config.relay.stop_grace.0 + STOP_EXTRA;
        let relay = tokio::spawn(shell.run(packs_in, settled, reports_in, stop.clone(), stop_max));
        let receiver = tokio::spawn(receiver.run(packs, stop.clone()));
        tracing::info!(%addr, to = config.send.to.join(", "), "packs are taken");
        Ok(Collector { addr, board, stop, sender_stop, receiver, relay })
    }

    /// The address that packs are taken on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// A function that gives the status at any time.
    pub fn status(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let board = self.board.clone();
        move || board.status()
    }

    /// Takes no more packs, waits a bounded time for those on their way, spools the rest, saves the footprint.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let saved = self.relay.await.context("the relay panicked")?;
        // Answers were handed out: the receiver has delivered them, or its peers are too slow to wait for.
        let _ = tokio::time::timeout(STOP_EXTRA, self.receiver).await;
        self.sender_stop.cancel();
        saved
    }
}

/// Of what the footprint forgets, the next tier tells the duplicates.
fn limited(footprint: Footprint, config: &CollectorConfig) -> Footprint {
    let bytes_max = usize::try_from(config.relay.footprint_memory.0).unwrap_or(usize::MAX);
    footprint.limited(bytes_max, WhenFull::ForgetStreams)
}

fn relay_options(config: &CollectorConfig) -> RelayOptions {
    let window_bytes = config.send.window.0;
    RelayOptions {
        window_bytes,
        replay_bytes_max: REPLAY_BYTES_MAX.min(window_bytes / 2).max(1),
        spool_after: config.relay.spool_after.0,
        slow_after: config.relay.slow_after.0,
        busy_after: config.relay.busy_after.0,
        stop_grace: config.relay.stop_grace.0,
        footprint_keep: config.relay.footprint_keep.0,
        unix_at_start: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

/// What was found on the disk.
struct Opened {
    store: Store,
    footprint: Footprint,
    pending: HashMap<StreamId, u64>,
}

fn open_store(
    config: &CollectorConfig,
    disk: Arc<dyn Disk>,
    reports: mpsc::UnboundedSender<Report>,
) -> anyhow::Result<Opened> {
    let var_dir = &config.node.var_dir;
    let quarantine = Quarantine::open(disk.clone(), var_dir, config.node.quarantine_max.0)
        .with_context(|| format!("the quarantine in {} cannot be opened", var_dir.display()))?;
    let (seen, footprint) = SeenLog::open(disk.clone(), var_dir)
        .with_context(|| format!("the footprint in {} cannot be opened", var_dir.display()))?;
    let dir = var_dir.join(SPOOL_DIR);
    let options =
        SpoolOptions { bytes_max: config.spool.max_bytes.0, segment_bytes: config.spool.segment_bytes.0 };
    let (spool, report) = Spool::open(disk, &dir, options)
        .with_context(|| format!("the spool in {} cannot be opened", dir.display()))?;
    report_recovery(&dir, &report);
    let figures = StoreFigures::default();
    figures.show(&spool);
    let pending = pending(&spool);
    let store = Store {
        spool,
        seen,
        quarantine: Arc::new(quarantine),
        reports,
        figures: Arc::new(figures),
        limits: Limits {
            // The header has grown by our hop.
            header_bytes_max: usize::MAX >> 1,
            pack_bytes_max: usize::MAX >> 1,
            ..Limits::default()
        },
        asides: VecDeque::new(),
    };
    Ok(Opened { store, footprint, pending })
}

fn report_recovery(dir: &Path, report: &SpoolReport) {
    if !report.damage.is_none() || !report.left_alone.is_empty() || report.unsecured.is_some() {
        tracing::error!(
            spool = %dir.display(),
            %report,
            "the spool was damaged: packs that were acknowledged may be lost; the damaged ranges are in its folder \"damaged\", \
             and the lines can be shipped again from the hosts"
        );
    } else if report.records > 0 || report.torn_bytes > 0 {
        tracing::info!(spool = %dir.display(), %report, "packs are in the spool from the last run");
    }
}

/// Reports of the disk thread.
pub(crate) type Reports = UnboundedReceiver<Report>;
