//! The file output put together: recovery, then judge, inflating threads and committer.

use super::archive::Form;
use super::commit::{self, Committer, CommitterOptions, SharedOrder};
use super::file_recovery::FileRecovery;
use super::guard::Guards;
use super::inflate::{self, Inflaters, Job, RawPool};
use super::order::{Action, Order, OrderLimits, Parcel};
use super::recovery::{Recovered, Recovery};
use super::replace;
use super::store::{Folders, StoreOptions};
use super::template::{Fields, Template};
use crate::config::{FileSettings, HOLD_ANSWER_MAX};
use crate::figures::Figures;
use crate::finish::shell::FinishThread;
use crate::hours::shell::Hours;
use crate::outputs::route::{Reply, Route};
use anyhow::Context;
use crossbeam_channel::Sender;
use logferry_durable::{Disk, RealDisk};
use logferry_footprint::WhenFull;
use logferry_link::{Answer, HopStamp, Incoming};
use logferry_pack::{Limits, Pack};
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
/// A log file and its header file.
const DESCRIPTORS_PER_FILE: usize = 2;

/// The file output, recovered and ready to take packs in.
pub struct FileOutput {
    order: SharedOrder<Reply>,
    figures: Arc<Figures>,
    template: Template,
    jobs: Sender<Job>,
    /// Where packs go on to that it has.
    route: Option<Route>,
    threads: Vec<JoinHandle<()>>,
    /// Files are finished as long as it is there.
    finisher: Option<crossbeam_channel::Sender<()>>,
    started: Instant,
}

impl FileOutput {
    /// Recovers files and journal, and starts the threads, with those of the books of the `hours`. Blocks for as long as recovery takes; `figures` say so meanwhile.
    pub fn start(
        settings: &FileSettings,
        var_dir: &Path,
        limits: Limits,
        stop: &CancellationToken,
        figures: Arc<Figures>,
        hours: Option<&Hours>,
    ) -> anyhow::Result<FileOutput> {
        figures.set_problem(Some("starting: files and journal are being recovered".into()));
        let template = Template::parse(&settings.path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let form = Form::of(&settings.archive);
        let folders = Folders::new(&settings.dir).with_form(form);
        disk.create_dir_all(&settings.dir)
            .and_then(|()| form.settle(&settings.dir))
            .with_context(|| format!("file.dir {}", settings.dir.display()))?;
        for dir in [&folders.data, &folders.headers] {
            disk.create_dir_all(dir).with_context(|| format!("file.dir: cannot create {}", dir.display()))?;
        }
        let guards = Guards::new(&folders).context("file.dir cannot be opened")?;
        let group_bytes_max = settings.inflate_memory.0 / 2;
        let files = FileRecovery {
            disk,
            folders,
            guards: Some(Arc::new(guards)),
            group_bytes_max: group_bytes_max + limits.raw_bytes_max as u64,
        };
        let recovery = Recovery { files: &files, var_dir, now_unix: commit::now_unix() };
        let mut recovered = recover(&recovery, stop, &figures)?;
        let footprint_bytes_max = usize::try_from(settings.footprint_memory.0).unwrap_or(usize::MAX);
        let footprint = std::mem::take(&mut recovered.state.footprint);
        let footprint = footprint.limited(footprint_bytes_max, WhenFull::RefuseNew);
        let order = Arc::new(Mutex::new(Order::new(order_limits(settings), footprint)));
        let options = CommitterOptions {
            answer: Reply::send,
            store: store_options(settings),
            group_bytes_max: usize::try_from(group_bytes_max).unwrap_or(usize::MAX),
            footprint_keep_secs: settings.footprint_keep.0.as_secs(),
            free_min: settings.min_free.0,
        };
        let committed = recovered.state.files.iter();
        let committed = committed.filter(|(path, _)| !replace::is_aside(path));
        let committed = committed.map(|(path, lengths)| (path.clone(), lengths.headers)).collect();
        let mut committer = Committer::new(files, recovered, order.clone(), figures.clone(), options);
        let keeping = hours.map(|hours| hours.start(&settings.dir, var_dir, committed, figures.clone()));
        let (mut keeper, mut finisher) = (None, None);
        if let Some((teller, thread)) = keeping.transpose()? {
            let (requests, asked) = crossbeam_channel::unbounded();
            let mailbox = teller.mailbox();
            finisher = hours
                .map(|hours| hours.finisher(&settings.dir, mailbox, requests, figures.clone(), stop.clone()));
            committer.listen_to(asked);
            committer.tell_hours(teller);
            keeper = Some(thread);
        }
        let finisher = finisher.transpose().context("finish.dir cannot be used")?.flatten();
        figures.set_problem(None);
        let (jobs, mut threads) = start_threads(settings, limits, committer, stop.clone())?;
        threads.extend(keeper);
        let finisher = finisher.map(|finisher| start_finisher(finisher, &mut threads)).transpose()?;
        Ok(FileOutput {
            order,
            figures,
            template,
            jobs,
            route: None,
            threads,
            finisher,
            started: Instant::now(),
        })
    }

    /// Packs that it has go on to another output, and are answered by that.
    pub fn set_route(&mut self, route: Option<Route>) {
        self.route = route;
    }

    /// The core, for its figures.
    pub fn order(&self) -> SharedOrder<Reply> {
        self.order.clone()
    }

    /// Takes packs in until there are no more, then waits until what was accepted is committed.
    pub async fn run(self, mut packs: mpsc::Receiver<Incoming>, mut hops: HopStamp, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            let now_ms = self.now_ms();
            let deadline_ms = commit::lock(&self.order).deadline_ms(now_ms);
            let tick = Duration::from_millis(deadline_ms.map_or(0, |at| at.saturating_sub(now_ms)));
            tokio::select! {
                incoming = packs.recv() => match incoming {
                    Some(incoming) => self.judge(incoming, &mut packs, &mut hops),
                    None => break,
                },
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

    fn judge(&self, first: Incoming, more: &mut mpsc::Receiver<Incoming>, hops: &mut HopStamp) {
        let mut incoming = Some(first);
        let mut parcels = Vec::new();
        while let Some(Incoming { mut pack, peer, elapsed, answer }) = incoming {
            pack.push_hop(&hops.hop(peer.addr, jiff::Timestamp::now(), elapsed));
            let answer = Reply::new(answer, &pack, self.route.as_ref());
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
        let mut order = commit::lock(&self.order);
        let actions: Vec<_> =
            parcels.into_iter().flat_map(|(parcel, answer)| order.offered(now_ms, parcel, answer)).collect();
        drop(order);
        self.act(actions);
    }

    fn tick(&self) {
        let now_ms = self.now_ms();
        let actions = commit::lock(&self.order).tick(now_ms);
        self.act(actions);
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
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>()
        });
        if tokio::time::timeout(FINISH_MAX, joined).await.is_err() {
            tracing::warn!("the last group could not be committed in time; its packs were not acknowledged");
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn start_finisher(
    finisher: FinishThread,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<crossbeam_channel::Sender<()>> {
    let (alive, ended) = crossbeam_channel::bounded(0);
    let finishing = std::thread::Builder::new().name("finish".into());
    threads.push(finishing.spawn(move || finisher.run(&ended))?);
    Ok(alive)
}

/// Recovers; waits while the disk has no room for the journal.
fn recover(
    recovery: &Recovery<'_>,
    stop: &CancellationToken,
    figures: &Figures,
) -> anyhow::Result<Recovered> {
    loop {
        match recovery.run() {
            Err(error) if commit::is_full(&error) && !stop.is_cancelled() => {
                let problem = format!(
                    "no room for the journal: nothing is taken in until there is room in node.var_dir: {error}"
                );
                tracing::error!("{problem}");
                figures.set_problem(Some(problem));
                commit::pause(stop);
            }
            recovered => return recovered.context("the journal cannot be opened"),
        }
    }
}

fn store_options(settings: &FileSettings) -> StoreOptions {
    let number = |setting| usize::try_from(setting).unwrap_or(usize::MAX);
    StoreOptions {
        sync: settings.sync,
        open_max: number(settings.open_files_max).min(open_files_possible()),
        sync_threads: number(settings.sync_threads),
    }
}

/// Log files that half of the descriptors allow; the rest is for connections and the program itself.
fn open_files_possible() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    (descriptors / 2 / DESCRIPTORS_PER_FILE).max(1)
}

fn order_limits(settings: &FileSettings) -> OrderLimits {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    OrderLimits {
        reorder_wait_ms: millis(settings.reorder_wait.0),
        hold_answer_ms: millis(HOLD_ANSWER_MAX),
        hold_bytes_max: settings.hold_bytes_max.0,
    }
}

fn start_threads(
    settings: &FileSettings,
    limits: Limits,
    committer: Committer<Reply>,
    stop: CancellationToken,
) -> anyhow::Result<(Sender<Job>, Vec<JoinHandle<()>>)> {
    let (jobs, jobs_taken) = crossbeam_channel::unbounded();
    let (done, done_taken) = crossbeam_channel::unbounded();
    let pool = RawPool::new(settings.inflate_memory.0);
    let threads = match settings.inflate_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => usize::try_from(given).unwrap_or(1),
    };
    let form = Form::of(&settings.archive);
    let mut threads = inflate::start(Inflaters { jobs: jobs_taken, done, pool, limits, form }, threads)?;
    let committing = std::thread::Builder::new().name("commit".into());
    threads.push(committing.spawn(move || committer.run(&done_taken, &stop))?);
    Ok((jobs, threads))
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
