//! The file output put together: judge, inflating threads and committer.

use super::archive::Form;
use super::commit::{self, SharedOrder};
use super::inflate::{self, Inflated, Inflaters, Job, RawPool};
use super::order::{Action, Order, OrderLimits, Parcel};
use super::replace;
use super::shelf::{self, Back, ShelfAction, ShelfLimits, Shelving, Wake};
use super::start::{Assembled, Beginning, Start};
use super::template::{Fields, Template};
use crate::config::{FileSettings, HOLD_ANSWER_MAX};
use crate::figures::Figures;
use crate::hours::shell::Hours;
use crate::outputs::keeper::KeeperOptions;
use crate::outputs::route::{Reply, Route};
use crossbeam_channel::{Receiver, Sender};
use logferry_durable::RealDisk;
use logferry_link::{Answer, HopStamp, Incoming};
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Limits, Pack};
use logferry_spool::SpoolOptions;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Packs judged under one lock of the core.
const JUDGED_AT_ONCE_MAX: usize = 64;
/// How long the threads get to commit what was accepted when the program stops.
const FINISH_MAX: Duration = Duration::from_secs(8);
/// Folder in `var_dir` of the packs that cannot be written now, and their label in figures.
const SHELF: &str = "file";
/// Bytes of one group that goes to the spool or comes from there.
const SHELF_GROUP_BYTES_MAX: u64 = 2 << 20;
/// The part of `footprint_memory` that the footprint of such packs may take beside.
const SHELF_FOOTPRINT_PART: usize = 4;
/// How often they are looked after while there are any, in milliseconds.
const SHELF_TICK_MS: u64 = 100;

/// The file output, recovered and ready to take packs in.
pub struct FileOutput {
    order: SharedOrder<Reply>,
    figures: Arc<Figures>,
    template: Template,
    jobs: Sender<Job>,
    /// Where packs go on to that it has.
    route: Option<Route>,
    /// Packs that cannot be written now.
    shelving: Option<Shelving>,
    threads: Vec<JoinHandle<()>>,
    /// Files are finished as long as it is there.
    finisher: Sender<()>,
    started: Instant,
}

impl FileOutput {
    /// Recovers files and journal, and starts the threads, with those of the books of the `hours`. Blocks for as long as recovery takes;
    /// `figures` say so meanwhile. Where the files are away it waits, unless packs `can_wait` for them in a spool: then it recovers them later.
    pub fn start(
        settings: &FileSettings,
        var_dir: &Path,
        limits: Limits,
        stop: &CancellationToken,
        figures: Arc<Figures>,
        hours: Option<&Hours>,
        can_wait: bool,
    ) -> anyhow::Result<FileOutput> {
        let template = Template::parse(&settings.path)?;
        let start = Start {
            settings: settings.clone(),
            var_dir: var_dir.to_owned(),
            limits,
            stop: stop.clone(),
            figures: figures.clone(),
            hours: hours.cloned(),
        };
        let beginning = start.begin(can_wait)?;
        let (jobs, inflated, mut threads) = start_inflaters(settings, limits)?;
        let (alive, ended) = crossbeam_channel::bounded(0);
        let new_order = |footprint| Order::new(order_limits(settings), start.limited(footprint));
        let (order, committing): (_, Box<dyn FnOnce() + Send>) = match beginning {
            Beginning::Whole(mut files) => {
                let order = Arc::new(Mutex::new(new_order(files.take_footprint())));
                let Assembled { committer, helpers } = start.assemble(*files, &order, ended)?;
                figures.set_problem(None);
                threads.extend(helpers);
                (order, Box::new(move || committer.run(&inflated, &start.stop)))
            }
            Beginning::Away(footprint) => {
                let mut order = new_order(footprint);
                // Nobody waits for an answer yet.
                drop(order.failing(commit::RETRY_MS));
                let order = Arc::new(Mutex::new(order));
                let shared = order.clone();
                (order, Box::new(move || commit_later(&start, &shared, &inflated, &ended)))
            }
        };
        threads.push(std::thread::Builder::new().name("commit".into()).spawn(committing)?);
        Ok(FileOutput {
            order,
            figures,
            template,
            jobs,
            route: None,
            shelving: None,
            threads,
            finisher: alive,
            started: Instant::now(),
        })
    }

    /// Packs that it has go on to another output, and are answered by that.
    pub fn set_route(&mut self, route: Option<Route>) {
        self.route = route;
    }

    /// Opens what keeps packs that cannot be written while another output goes on, `takes_more`, or what of them an earlier run has left;
    /// `None` where it is neither. Blocks.
    pub fn open_shelf(
        settings: &FileSettings,
        var_dir: &Path,
        limits: Limits,
        spool: SpoolOptions,
        quarantine: Arc<Quarantine>,
        takes_more: bool,
    ) -> io::Result<Option<Shelving>> {
        let dir = var_dir.join(SHELF);
        if !takes_more && !dir.exists() {
            return Ok(None);
        }
        let options = KeeperOptions { dir, output: SHELF, spool, limits };
        let footprint_bytes_max = usize::try_from(settings.footprint_memory.0).unwrap_or(usize::MAX);
        let limits = ShelfLimits {
            group_bytes_max: SHELF_GROUP_BYTES_MAX,
            gap_ms: order_limits(settings).reorder_wait_ms,
            footprint_bytes_max: footprint_bytes_max / SHELF_FOOTPRINT_PART,
        };
        let disk = Arc::new(RealDisk);
        Shelving::open(disk, options, limits, quarantine, takes_more).map(Some)
    }

    /// From now on packs that cannot be written are kept, and those that were kept before are written.
    pub fn keep_unwritten(&mut self, shelving: Option<Shelving>) {
        self.shelving = shelving;
        self.show_shelf();
    }

    /// The core, for its figures.
    pub fn order(&self) -> SharedOrder<Reply> {
        self.order.clone()
    }

    /// Takes packs in until there are no more, then waits until what was accepted is committed.
    pub async fn run(
        mut self,
        mut packs: mpsc::Receiver<Incoming>,
        mut hops: HopStamp,
        stop: CancellationToken,
    ) {
        let mut stopping = false;
        loop {
            let now_ms = self.now_ms();
            let deadline_ms = commit::lock(&self.order).deadline_ms(now_ms);
            let is_shelving = self.shelving.as_ref().is_some_and(Shelving::is_busy);
            let deadline_ms =
                deadline_ms.into_iter().chain(is_shelving.then_some(now_ms + SHELF_TICK_MS)).min();
            let tick = Duration::from_millis(deadline_ms.map_or(0, |at| at.saturating_sub(now_ms)));
            tokio::select! {
                incoming = packs.recv() => match incoming {
                    Some(incoming) => self.judge(incoming, &mut packs, &mut hops),
                    None => break,
                },
                wake = Self::shelf_wakes(&mut self.shelving) => self.shelf_woke(wake),
                () = tokio::time::sleep(tick), if deadline_ms.is_some() => self.tick(),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    // Unanswered: their senders keep them.
                    drop(commit::lock(&self.order).stop());
                }
            }
        }
        self.finish().await;
    }

    fn judge(&mut self, first: Incoming, more: &mut mpsc::Receiver<Incoming>, hops: &mut HopStamp) {
        let mut incoming = Some(first);
        let mut parcels = Vec::new();
        let door = self.shelving.as_ref().and_then(Shelving::door);
        while let Some(Incoming { mut pack, peer, elapsed, answer }) = incoming {
            pack.push_hop(&hops.hop(peer.addr, jiff::Timestamp::now(), elapsed));
            let door = door.as_ref().filter(|_| !shelf::is_apart(&pack.header));
            let answer = Reply::new(answer, &pack, self.route.as_ref(), door);
            match parcel(pack, &self.template) {
                Ok(parcel) => parcels.push((parcel, answer)),
                Err(reason) => {
                    metrics::counter!("logferry_outputter_rejected_packs_total", "reason" => reason)
                        .increment(1);
                    answer.send(Answer::Rejected { reason: text_of(reason).to_owned() });
                }
            }
            let room = parcels.len() < JUDGED_AT_ONCE_MAX;
            incoming = if room { more.try_recv().ok() } else { None };
        }
        let now_ms = self.now_ms();
        let (mut actions, mut for_shelf) = (Vec::new(), Vec::new());
        let mut order = commit::lock(&self.order);
        for (parcel, answer) in parcels {
            match self.shelving.as_mut().filter(|shelving| shelving.wants(&order, &parcel)) {
                Some(shelving) => for_shelf.extend(shelving.offered(now_ms, &order, parcel, answer)),
                None => actions.extend(order.offered(now_ms, parcel, answer)),
            }
        }
        drop(order);
        self.act(actions);
        self.act_for_shelf(for_shelf);
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms();
        let actions = commit::lock(&self.order).tick(now_ms);
        self.act(actions);
        self.go_on_with_shelf(Vec::new());
    }

    /// Never, where there is no shelf.
    async fn shelf_wakes(shelving: &mut Option<Shelving>) -> Wake {
        match shelving {
            Some(shelving) => shelving.next().await,
            None => std::future::pending().await,
        }
    }

    fn shelf_woke(&mut self, wake: Wake) {
        let now_ms = self.now_ms();
        let Some(shelving) = &mut self.shelving else { return };
        let mut actions = Vec::new();
        match wake {
            Wake::Reports(reports) => {
                actions.extend(reports.into_iter().flat_map(|report| shelving.reported(now_ms, report)));
            }
            Wake::Backs(backs) => {
                let order = commit::lock(&self.order);
                actions.extend(backs.into_iter().flat_map(|back| match back {
                    Back::Unwritten(pack, reply) => shelving.offer(now_ms, &order, pack, reply),
                    Back::Replayed(record, answer) => shelving.replayed(record, answer),
                }));
            }
        }
        self.go_on_with_shelf(actions);
    }

    fn go_on_with_shelf(&mut self, mut actions: Vec<ShelfAction>) {
        let now_ms = self.now_ms();
        let Some(shelving) = &mut self.shelving else { return };
        let is_failing = commit::lock(&self.order).is_failing();
        actions.extend(shelving.go_on(now_ms, is_failing));
        self.act_for_shelf(actions);
        self.show_shelf();
    }

    fn act_for_shelf(&self, actions: Vec<ShelfAction>) {
        let Some(shelving) = &self.shelving else { return };
        let replays = shelving.act(actions, |answer| self.figures.count_answer(answer));
        let mut actions = Vec::new();
        // Together: what is refused of a stream is refused with all that is behind it.
        let now_ms = self.now_ms();
        let mut order = commit::lock(&self.order);
        for (pack, reply) in replays {
            match parcel(Pack::clone(&pack), &self.template) {
                Ok(parcel) => actions.extend(order.replayed(now_ms, parcel, reply)),
                Err(reason) => reply.send(Answer::Rejected { reason: text_of(reason).to_owned() }),
            }
        }
        drop(order);
        self.act(actions);
    }

    fn show_shelf(&self) {
        if let Some(shelving) = &self.shelving {
            let (figures, takes_more) = shelving.figures();
            self.figures.set_shelf(figures, takes_more);
        }
    }

    /// Only the judging task comes here, so packs go to the inflating threads in the order of acceptance.
    fn act(&self, actions: Vec<Action<Reply>>) {
        for action in actions {
            match action {
                // The threads end after this task only; should they have ended, nobody is told that the pack is safe.
                Action::Write(accepted, parcel) => drop(self.jobs.send(Job { accepted, parcel })),
                Action::Answer(waiter, answer) => {
                    self.figures.count_answer(&answer);
                    waiter.send(answer);
                }
            }
        }
    }

    async fn finish(self) {
        drop((self.jobs, self.finisher));
        let (threads, shelving) = (self.threads, self.shelving);
        let closing = tokio::task::spawn_blocking(move || shelving.map(Shelving::finish));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>()
        });
        if tokio::time::timeout(FINISH_MAX, joined).await.is_err() {
            tracing::warn!("the last group could not be committed in time; its packs were not acknowledged");
        }
        let _ = closing.await;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The committing thread of an output whose files are away at the start.
fn commit_later(
    start: &Start,
    order: &SharedOrder<Reply>,
    inflated: &Receiver<Inflated>,
    ended: &Receiver<()>,
) {
    let Some(Assembled { committer, helpers }) = start.wait(order, ended) else { return };
    committer.run(inflated, &start.stop);
    // A panic aborts the process.
    helpers.into_iter().for_each(|helper| drop(helper.join()));
}

fn order_limits(settings: &FileSettings) -> OrderLimits {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    OrderLimits {
        reorder_wait_ms: millis(settings.reorder_wait.0),
        hold_answer_ms: millis(HOLD_ANSWER_MAX),
        hold_bytes_max: settings.hold_bytes_max.0,
    }
}

/// Where packs go to be inflated, where they come from then, and the threads that do it.
type Inflating = (Sender<Job>, Receiver<Inflated>, Vec<JoinHandle<()>>);

fn start_inflaters(settings: &FileSettings, limits: Limits) -> io::Result<Inflating> {
    let (jobs, jobs_taken) = crossbeam_channel::unbounded();
    let (done, inflated) = crossbeam_channel::unbounded();
    let pool = RawPool::new(settings.inflate_memory.0);
    let threads = match settings.inflate_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => usize::try_from(given).unwrap_or(1),
    };
    let form = Form::of(&settings.archive);
    let threads = inflate::start(Inflaters { jobs: jobs_taken, done, pool, limits, form }, threads)?;
    Ok((jobs, inflated, threads))
}

/// What is needed to judge and write a pack; or the label of what is wrong with it.
fn parcel(pack: Pack, template: &Template) -> Result<Parcel, &'static str> {
    let header = &pack.header;
    // Those of legacy nodes were adopted by who took them from there.
    let ours = header.ours.as_ref().ok_or("no_stream")?;
    let names = (!ours.is_legacy()).then_some(ours);
    let fields = Fields {
        source: names.map(|ours| ours.source.as_str()),
        host: names.map(|ours| ours.host.as_str()),
        ip: &header.ip,
        hour: u32::from(header.hour),
        stream: names.map(|ours| ours.identity.stream),
    };
    let path = template.expand(&fields).map_err(|bad| {
        tracing::warn!("pack refused: {bad}");
        bad.reason
    })?;
    let (identity, first) = (ours.identity, ours.first);
    let (path, replaces) = match header.place() {
        Ok(None) => (path, None),
        Ok(Some(_)) if !template.keeps_hours_apart() => return Err(SHARED_FILE),
        Ok(Some(_)) => (replace::staged_path(&path, identity.stream), Some(path)),
        Err(bad) => return Err(bad.reason()),
    };
    Ok(Parcel { identity, first, path, pack, trimmed_to: Vec::new(), replaces })
}

/// Label of a replacement that cannot be, because a file holds more than one hour of one source, or less.
const SHARED_FILE: &str = "shared_file";

/// What is told of a label to whoever sent the pack.
fn text_of(label: &'static str) -> &'static str {
    match label {
        SHARED_FILE => {
            "the store does not keep each hour of each source in one file of its own ([file] path), so an hour cannot be replaced"
        }
        label => label,
    }
}
