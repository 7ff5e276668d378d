//! The task of an output that can be away: turns what comes from the senders, the disk and the output into calls of the
//! [`Backlog`], and carries out the [`Action`]s.

use super::backlog::{Action, Backlog, BacklogFigures, BacklogLimits, Now, Overlap, PackInfo, Ticket};
use super::keeper::{Found, Job, Keeper, KeeperHandle, KeeperOptions, Report};
use super::route::{Offer, Route};
use anyhow::Context;
use logferry_durable::RealDisk;
use logferry_footprint::WhenFull;
use logferry_link::{Answer, Answerer};
use logferry_node::quarantine::Quarantine;
use logferry_pack::Pack;
use metrics::{counter, gauge};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

/// Events handled before the figures are published.
const EVENTS_PER_TURN: usize = 64;
/// How often old footprints are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a stop waits for packs that the output has to be recorded.
const FINISH_MAX: Duration = Duration::from_secs(8);

type Waiting = Backlog<Arc<Pack>, Answerer>;

/// A pack that is to be stored.
pub struct ToStore {
    /// Names it in [`Stored`].
    pub ticket: Ticket,
    /// The pack.
    pub pack: Arc<Pack>,
}

/// What became of a pack.
#[derive(Debug)]
pub enum Stored {
    /// All of it is durable in the output.
    Whole(Ticket),
    /// It can never be stored: a short stable label.
    Refused(Ticket, String),
}

/// What an output that can be away needs.
pub struct AwayOptions {
    /// Folder, spool and limits.
    pub keeper: KeeperOptions,
    /// The core's.
    pub backlog: BacklogLimits,
    /// Memory of each of the two footprints, in bytes.
    pub footprint_bytes_max: usize,
    /// How long a stream's footprint is kept, in seconds.
    pub footprint_keep_secs: u64,
    /// Memory that storing takes for each decompressed byte.
    pub cost_per_raw_byte: u64,
    /// For packs that turn out to be bad after they were acknowledged.
    pub quarantine: Arc<Quarantine>,
}

/// Published for the status.
pub type SharedFigures = Arc<Mutex<BacklogFigures>>;

/// The task, ready to run.
pub struct Away {
    backlog: Waiting,
    keeper: KeeperHandle,
    offers: UnboundedReceiver<Offer>,
    reports: UnboundedReceiver<Report>,
    store: UnboundedSender<ToStore>,
    stored: UnboundedReceiver<Stored>,
    figures: SharedFigures,
    output: &'static str,
    cost_per_raw_byte: u64,
    footprint_keep_secs: u64,
    started: Instant,
}

/// Everything that wakes the task.
enum Wake {
    Offers(Vec<Offer>),
    Reports(Vec<Report>),
    Stored(Vec<Stored>),
    Time,
    Stop,
}

impl Away {
    /// Opens the spool and the footprint. Packs come by the [`Route`]; they are stored by whoever takes them from `store`, and says so to
    /// `stored`.
    pub fn start(
        options: AwayOptions,
        store: UnboundedSender<ToStore>,
        stored: UnboundedReceiver<Stored>,
    ) -> anyhow::Result<(Away, Route, SharedFigures)> {
        let AwayOptions { keeper, backlog, footprint_bytes_max, footprint_keep_secs, .. } = options;
        let (output, dir) = (keeper.output, keeper.dir.clone());
        let (keeper, found) = Keeper::open(Arc::new(RealDisk), keeper, options.quarantine)
            .with_context(|| format!("the folder {} cannot be used", dir.display()))?;
        let Found { seen, spooled } = found;
        let limited = |footprint: logferry_footprint::Footprint| {
            footprint.limited(footprint_bytes_max, WhenFull::ForgetStreams)
        };
        let backlog = Backlog::new(backlog, limited(seen.taken), limited(seen.stored), spooled);
        let (reports_out, reports) = unbounded_channel();
        let (route, offers) = Route::new();
        let figures = SharedFigures::default();
        let away = Away {
            backlog,
            keeper: keeper.start(reports_out)?,
            offers,
            reports,
            store,
            stored,
            figures: figures.clone(),
            output,
            cost_per_raw_byte: options.cost_per_raw_byte,
            footprint_keep_secs,
            started: Instant::now(),
        };
        Ok((away, route, figures))
    }

    /// Runs until `stop`, then until what the output has is recorded.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(Waiting::TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut expire_at = Instant::now() + EXPIRE_INTERVAL;
        let mut leave_at = None;
        loop {
            match self.next(&mut tick, &stop, leave_at.is_some()).await {
                Wake::Offers(offers) => offers.into_iter().for_each(|offer| self.offered(offer)),
                Wake::Reports(reports) => reports.into_iter().for_each(|report| self.reported(report)),
                Wake::Stored(stored) => stored.into_iter().for_each(|stored| self.settled(stored)),
                Wake::Time => {
                    let actions = self.backlog.tick(self.now());
                    self.act(actions);
                }
                Wake::Stop => {
                    self.backlog.stop();
                    leave_at = Some(Instant::now() + FINISH_MAX);
                }
            }
            if Instant::now() >= expire_at {
                expire_at = Instant::now() + EXPIRE_INTERVAL;
                self.backlog.expire(self.now(), self.footprint_keep_secs);
            }
            self.publish();
            if leave_at.is_some_and(|at| self.backlog.is_settled() || Instant::now() >= at) {
                break;
            }
        }
        // Packs without an answer stay with their senders.
        let Away { keeper, .. } = self;
        if tokio::task::spawn_blocking(move || keeper.finish()).await.is_err() {
            tracing::error!("the spool could not be closed");
        }
    }

    async fn next(
        &mut self,
        tick: &mut tokio::time::Interval,
        stop: &CancellationToken,
        stopping: bool,
    ) -> Wake {
        let (mut offers, mut reports, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        tokio::select! {
            n = self.reports.recv_many(&mut reports, EVENTS_PER_TURN), if !self.reports.is_closed() => match n {
                0 => Wake::Time,
                _ => Wake::Reports(reports),
            },
            n = self.stored.recv_many(&mut stored, EVENTS_PER_TURN), if !self.stored.is_closed() => match n {
                0 => Wake::Time,
                _ => Wake::Stored(stored),
            },
            n = self.offers.recv_many(&mut offers, EVENTS_PER_TURN), if !self.offers.is_closed() => match n {
                0 => Wake::Time,
                _ => Wake::Offers(offers),
            },
            _ = tick.tick() => Wake::Time,
            () = stop.cancelled(), if !stopping => Wake::Stop,
        }
    }

    fn now(&self) -> Now {
        Now {
            ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix: crate::file::commit::now_unix(),
        }
    }

    fn offered(&mut self, offer: Offer) {
        let Offer { pack, overlap, reply } = offer;
        let Some(info) = self.info(&pack, overlap) else {
            return reply.send(Answer::Rejected { reason: "no_stream".into() });
        };
        let actions = self.backlog.offered(self.now(), info, pack, reply);
        self.act(actions);
    }

    fn info(&self, pack: &Pack, overlap: Overlap) -> Option<PackInfo> {
        let ours = pack.header.ours.as_ref()?;
        let bytes = pack.body.len() as u64;
        Some(PackInfo {
            identity: ours.identity,
            first: ours.first,
            bytes,
            cost: bytes + ours.raw.saturating_mul(self.cost_per_raw_byte),
            overlap,
        })
    }

    fn reported(&mut self, report: Report) {
        let now = self.now();
        let actions = match report {
            Report::Kept { durable, trouble } => self.backlog.kept(now, &durable, trouble),
            Report::Recorded(is_good) => self.backlog.recorded(now, is_good),
            Report::Read { packs, is_end } => {
                let records = packs.into_iter().filter_map(|(record, pack)| {
                    // Only packs with a stream are ever kept.
                    Some((record, self.info(&pack, Overlap::Taken)?, pack))
                });
                let records = records.collect();
                self.backlog.read(now, records, is_end)
            }
            Report::SetAside(ticket) => self.backlog.set_aside(now, ticket),
            Report::SnapshotWanted => self.backlog.snapshot_wanted(),
        };
        self.act(actions);
    }

    fn settled(&mut self, stored: Stored) {
        let actions = match stored {
            Stored::Whole(ticket) => self.backlog.stored(self.now(), ticket),
            Stored::Refused(ticket, reason) => self.backlog.refused(self.now(), ticket, &reason),
        };
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action<Arc<Pack>, Answerer>>) {
        for action in actions {
            match action {
                Action::Answer(reply, answer) => {
                    counter!("logferry_outputter_answers_total", "output" => self.output, "answer" => answer.status())
                        .increment(1);
                    reply.send(answer);
                }
                // Its taker ends only with the program.
                Action::Store(ticket, pack) => drop(self.store.send(ToStore { ticket, pack })),
                Action::Keep(packs) => self.keeper.send(Job::Keep(packs)),
                Action::Taken(packs) => self.keeper.send(Job::Taken(packs)),
                Action::Record(packs) => self.keeper.send(Job::Record(packs)),
                Action::Snapshot(bytes) => self.keeper.send(Job::Snapshot(bytes)),
                Action::Read(bytes_max) => self.keeper.send(Job::Read(bytes_max)),
                Action::Arrived(records) => self.keeper.send(Job::Arrived(records)),
                Action::SetAside(ticket, pack, reason) => {
                    self.keeper.send(Job::SetAside(ticket, pack, reason));
                }
            }
        }
    }

    fn publish(&self) {
        let figures = self.backlog.figures();
        gauge!("logferry_outputter_backlog_packs", "output" => self.output).set(figures.packs as f64);
        gauge!("logferry_outputter_backlog_bytes", "output" => self.output).set(figures.bytes as f64);
        let mut shown = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.spooling != shown.spooling {
            match figures.spooling {
                true => tracing::warn!(
                    output = self.output,
                    "the output is away or behind: packs go to the spool"
                ),
                false => tracing::info!(output = self.output, "the output has all that was in the spool"),
            }
        }
        *shown = figures;
    }
}
