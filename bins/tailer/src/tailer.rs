//! Puts the threads together, and takes them apart again.

use crate::audit::Auditor;
use crate::body::BodyRules;
use crate::compress::{self, Labels};
use crate::config::{SourceSettings, TailerConfig};
use crate::event::{Event, Shared, ToShipper};
use crate::figures::Figures;
use crate::files;
use crate::follower::{Follower, Parts};
use crate::hour::{self, HourClock};
use crate::input::inlet::Intake;
use crate::input::{self, Inputs};
use crate::ledger::Ledger;
use crate::repull::desk::{Desk, Sources};
use crate::repull::http;
use crate::repull::{self, Worker};
use crate::shipper::Shipper;
use crate::spooling::Spooling;
use crate::watch::Watch;
use anyhow::Context;
use crossbeam_channel::Sender as Channel;
use logferry_durable::{Disk, Log, Recovered};
use logferry_link::{Sender, SenderOptions};
use logferry_node::admin::Status;
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Compressor, Name};
use logferry_spool::{Spool, SpoolOptions};
use metrics::counter;
use std::collections::{BTreeSet, HashMap};
use std::net::UdpSocket;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Name of the state log in `var_dir`.
pub const STATE_LOG: &str = "state";
/// How long a stop waits for packs on their way.
const STOP_WAIT: Duration = Duration::from_secs(4);
/// Read buffers beyond one for each compressing thread: one is being filled, one waits.
const BUFFERS_SPARE: usize = 2;

/// A running tailer.
pub struct Tailer {
    name: String,
    events: Channel<Event>,
    threads: Vec<JoinHandle<()>>,
    sender: Sender,
    sender_stop: CancellationToken,
    shared: Arc<Shared>,
    figures: Arc<Figures>,
    inputs: Inputs,
    counter: http::Counter,
}

impl Tailer {
    /// Starts all threads; call inside a tokio runtime. `config.node.name` must be filled in, and `var_dir` must
    /// exist.
    pub fn start(config: &TailerConfig, disk: Arc<dyn Disk>) -> anyhow::Result<Tailer> {
        raise_file_limit();
        let config = &TailerConfig {
            source: input::config::sources(config).map_err(anyhow::Error::msg)?,
            ..config.clone()
        };
        let labels = labels(config)?;
        let var_dir = &config.node.var_dir;
        let stopped_ns = state_written_ns(var_dir);
        let (log, recovered) = Log::open(disk.clone(), var_dir, STATE_LOG)
            .with_context(|| format!("the state log in {} cannot be opened", var_dir.display()))?;
        let input_disk = disk.clone();
        let quarantine = Quarantine::open(disk, var_dir, config.node.quarantine_max.0)
            .context("the quarantine cannot be opened")?;
        let mut ledger = Ledger::recover(&config.node.name, &recovered);
        report(var_dir, &recovered, &ledger);
        let missed_before = ledger.missed_since().is_some();
        let stopped_ns = ledger.missed_since().or(stopped_ns);
        ledger.looks_for_missed(stopped_ns);
        // Before files are looked for: of a file that is gone, only what is not in the spool is lost.
        let spooling = open_spool(config, input_disk.clone(), &mut ledger)?;

        let sender_stop = CancellationToken::new();
        let options =
            SenderOptions { settings: config.send.clone(), node: config.node.name.clone(), role: "tailer" };
        let (sender, mut settled) = Sender::start(options, sender_stop.clone());

        let shared = Arc::new(Shared::default());
        let figures = Arc::new(Figures::default());
        let (events, events_in) = crossbeam_channel::unbounded();
        let (to_shipper, messages) = crossbeam_channel::unbounded();
        let settle_to = to_shipper.clone();
        let (to_repull, repull_settled) = crossbeam_channel::unbounded();
        tokio::spawn(async move {
            while let Some(settled) = settled.recv().await {
                if repull::is_repull(settled.ticket) {
                    let _ = to_repull.send(settled);
                } else if settle_to.send(ToShipper::Settled(settled)).is_err() {
                    return;
                }
            }
        });

        let inputs = Inputs::open(config, &input_disk, &events)?;
        let rules = Arc::new(body_rules(config)?);
        let workers = worker_count(config);
        let buffers = workers + BUFFERS_SPARE;
        let (jobs, jobs_in) = crossbeam_channel::bounded(buffers);
        let mut threads = Vec::new();
        for number in 0..workers {
            let compressor = Compressor::new(labels.codec, labels.level)
                .map_err(|error| anyhow::anyhow!("[pack] codec and level: {error}"))?;
            let (labels, rules) = (labels.clone(), rules.clone());
            let (jobs, shipper) = (jobs_in.clone(), to_shipper.clone());
            let (follower, shared) = (events.clone(), shared.clone());
            threads.push(spawn(&format!("compress-{number}"), move || {
                compress::run(&labels, &rules, compressor, &jobs, &shipper, &follower, &shared);
            })?);
        }
        let (to_worker, repulls) = crossbeam_channel::unbounded();
        let desk = Arc::new(Desk::new(&config.node.name, Sources::of(config), to_worker));
        let auditor = Arc::new(Auditor { config: config.clone(), follower: events.clone() });
        let turn = Arc::new(Semaphore::new(1));
        let counter = http::Counter { desk: desk.clone(), auditor, turn };
        let courier =
            repull::Courier::new(desk.clone(), sender.clone(), repull_settled, figures.clone(), config);
        let parts = repull::Parts {
            config: config.clone(),
            desk: desk.clone(),
            jobs: repulls,
            follower: events.clone(),
            compressor: Compressor::new(labels.codec, labels.level)
                .map_err(|error| anyhow::anyhow!("[pack] codec and level: {error}"))?,
            labels: labels.clone(),
        };
        let worker = Worker::new(parts, courier);
        // Not waited for at the stop: what it does is only read.
        spawn("repull", move || worker.run())?;
        let shipper = Shipper::new(log, sender.clone(), quarantine, events.clone(), shared.clone())
            .with_spool(spooling);
        threads.push(spawn("shipper", move || shipper.run(&messages))?);

        let watch = Watch::start(events.clone())
            .inspect_err(|error| warn!(%error, "inotify is not available: files are polled"))
            .ok();
        let (unpack, unpack_jobs) = crossbeam_channel::unbounded();
        let (folder, unpacked) = (var_dir.clone(), events.clone());
        // Not waited for at the stop: what it does is only read.
        spawn("unpack", move || crate::unpack::run(&folder, &unpack_jobs, &unpacked))?;
        let follower = Follower::new(Parts {
            config: config.clone(),
            clock: HourClock::new(labels.zone, config.hours.length.0),
            ledger,
            events: events_in,
            jobs,
            unpack,
            shipper: to_shipper,
            watch,
            shared: shared.clone(),
            figures: figures.clone(),
            buffers,
            shelves: inputs.shelves(),
            stopped_ns,
            missed_before,
        })?;
        threads.push(spawn("follower", move || follower.run())?);
        inputs.listen(config)?;
        let name = config.node.name.clone();
        Ok(Tailer { name, events, threads, sender, sender_stop, shared, figures, inputs, counter })
    }

    /// Where repulls and audits are asked for.
    pub fn counter(&self) -> http::Counter {
        self.counter.clone()
    }

    /// A function that gives the status at any time.
    pub fn status(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let (name, sender) = (self.name.clone(), self.sender.clone());
        let (shared, figures) = (self.shared.clone(), self.figures.clone());
        let inputs = self.inputs.status();
        move || {
            let mut status = figures.status(&name, &shared, &sender);
            inputs(&mut status);
            status
        }
    }

    /// Figures of the follower.
    pub fn figures(&self) -> Arc<Figures> {
        self.figures.clone()
    }

    /// Hands lines to the `[[input]]` of this name.
    pub fn intake(&self, input: &str) -> Option<Intake> {
        self.inputs.intake(input)
    }

    /// Stops reading, waits a few seconds for packs on their way, saves the state, ends all threads.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_within(STOP_WAIT).await
    }

    /// [`Tailer::stop`] with another wait for packs on their way. Those without an answer are sent again by the next
    /// start.
    pub async fn stop_within(self, wait: Duration) -> anyhow::Result<()> {
        self.inputs.stop().await?;
        let _ = self.events.send(Event::Stop(wait));
        let threads = self.threads;
        tokio::task::spawn_blocking(move || {
            for thread in threads.into_iter().rev() {
                let _ = thread.join();
            }
        })
        .await
        .context("a thread of the tailer panicked")?;
        self.sender_stop.cancel();
        Ok(())
    }
}

/// The spool of sources whose files may vanish; also when there is none any more, but one of an earlier run.
fn open_spool(
    config: &TailerConfig,
    disk: Arc<dyn Disk>,
    ledger: &mut Ledger,
) -> anyhow::Result<Option<Spooling>> {
    let folder = config.node.var_dir.join("spool");
    let spooled = config.source.iter().filter(|source| source.spool);
    let sources: BTreeSet<String> = spooled.map(|source| source.name.clone()).collect();
    if sources.is_empty() && !folder.exists() {
        return Ok(None);
    }
    let (bytes_max, segment_bytes) = (config.spool.max_bytes.0, config.spool.segment_bytes.0);
    let (spool, report) = Spool::open(disk, &folder, SpoolOptions { bytes_max, segment_bytes })
        .with_context(|| format!("the spool in {} cannot be opened", folder.display()))?;
    let mut spooling = Spooling::new(spool, sources);
    let settled = spooling.settle_in(ledger);
    if report.records > 0 {
        info!(packs = report.records, settled, "packs of an earlier run wait in the spool");
    }
    Ok(Some(spooling))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(run).with_context(|| format!("the thread {name} cannot be started"))
}

fn worker_count(config: &TailerConfig) -> usize {
    match config.pack.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads => threads as usize,
    }
}

fn body_rules(config: &TailerConfig) -> anyhow::Result<HashMap<Name, BodyRules>> {
    let rules = |source: &SourceSettings| {
        let rules = BodyRules::new(source, config.pack.max_line.0 as usize).map_err(anyhow::Error::msg)?;
        Ok((Name::new(source.name.as_str())?, rules))
    };
    config.source.iter().map(rules).collect()
}

fn labels(config: &TailerConfig) -> anyhow::Result<Labels> {
    let host =
        Name::new(config.node.name.as_str()).with_context(|| format!("node name {}", config.node.name))?;
    let ip = match config.pack.ip.as_str() {
        "" => local_address(&config.send.to),
        ip => ip.to_owned(),
    };
    let zone = hour::zone(&config.node.time_zone)?;
    Ok(Labels { host, ip, zone, codec: config.pack.codec, level: config.pack.level })
}

/// The address from which packets to the first target would leave. Connecting a UDP socket sends nothing.
fn local_address(targets: &[String]) -> String {
    let towards = |target: &String| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(target.as_str()).ok()?;
        socket.local_addr().ok().map(|addr| addr.ip().to_string())
    };
    targets.iter().find_map(towards).unwrap_or_else(|| "127.0.0.1".to_owned())
}

/// When the state was written last, in nanoseconds since 1970 by the clock that stamps files; to be asked before it is opened.
fn state_written_ns(var_dir: &std::path::Path) -> Option<i64> {
    let entries = std::fs::read_dir(var_dir).ok()?.flatten();
    let of_state =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(STATE_LOG.as_bytes()));
    of_state.filter_map(|entry| files::facts_at(&entry.path()).ok()).map(|facts| facts.changed_ns).max()
}

fn report(var_dir: &std::path::Path, recovered: &Recovered, ledger: &Ledger) {
    if recovered.is_new() {
        info!(folder = %var_dir.display(), "no state found: all files are new");
    }
    let damage = &recovered.report;
    if damage.torn_bytes > 0 {
        info!(bytes = damage.torn_bytes, "an unfinished record at the end of the state log was cut");
    }
    if ledger.is_suspect() {
        counter!("logferry_tailer_state_damaged_total").increment(1);
        warn!(
            ?damage,
            undecodable = ledger.undecodable(),
            "the state log was damaged: what is missing is sent again, the next tier tells what it has"
        );
    }
}

/// Each followed file is held open: takes as many descriptors as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files cannot be raised");
    }
}
