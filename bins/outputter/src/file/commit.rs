//! The group commit: one thread writes what is ready, makes it durable together, journals it and answers.
//!
//! Order of one commit: bodies and header lines are appended; all files and the folders of new ones are synced; one journal
//! record is synced; the packs are answered. What fails before the journal is undone by cutting the files back
//! and done again from memory. What fails at the journal is not undone: the bytes are durable, so the journal
//! is replaced by a snapshot that includes them.

use super::file_recovery::FileRecovery;
use super::group::Group;
use super::inflate::Inflated;
use super::journal::{self, Hole};
use super::mend::GivenUp;
use super::order::{Action, Order, Writing};
use super::recovery::Recovered;
use super::retire::Request;
use super::store::{FoundFiles, Store, StoreOptions};
use super::waiting::Waiting;
use crate::figures::Figures;
use crate::hours::mailbox::Teller;
use crossbeam_channel::{Receiver, select};
use logferry_durable::Log;
use logferry_link::Answer;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often old footprints are looked for, however much or little comes in.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// How often files that could not be recovered are tried again.
const MEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits after a failure before it tries again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// When senders are to come again after a failure.
pub(super) const RETRY_MS: u64 = 1_500;

/// The core, shared by judge and committer.
pub type SharedOrder<W> = Arc<Mutex<Order<W>>>;

/// Locks the core. A panic aborts the process, so poisoning tells nothing.
pub fn lock<W>(order: &SharedOrder<W>) -> MutexGuard<'_, Order<W>> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything the committing thread needs.
pub struct Committer<W> {
    /// Decides, and knows who waits.
    pub(super) order: SharedOrder<W>,
    pub(super) store: Store,
    pub(super) log: Log,
    /// Holes that were written over, as the journal has them.
    pub(super) holes: Vec<Hole>,
    /// Ranges of packs that were refused for good, until the next commit records them.
    pub(super) passed_over: Vec<Hole>,
    /// Recovers the files that the store must not write to yet.
    pub(super) files: FileRecovery,
    /// See [`journal::State::unread`].
    pub(super) unread: BTreeSet<String>,
    /// Where the last round of trying the unusable files ended.
    pub(super) mended_last: String,
    /// Files at which writing failed one time after the other, until they are written again.
    pub(super) given_up: BTreeMap<String, GivenUp>,
    pub(super) figures: Arc<Figures>,
    /// Keeps the books of the hours.
    pub(super) hours: Option<Teller>,
    /// Asks for files to be finished.
    pub(super) requests: Receiver<Request>,
    /// Files of replacements that are under way: their length, and since when it is that.
    pub(super) staged: BTreeMap<String, (u64, Instant)>,
    options: CommitterOptions<W>,
}

/// How to commit.
pub struct CommitterOptions<W> {
    /// Sends an answer.
    pub answer: fn(W, Answer),
    /// How files are treated.
    pub store: StoreOptions,
    /// Decompressed bytes in one group: part of the memory, so that inflating goes on while the group is synced.
    pub group_bytes_max: usize,
    /// How long a stream's footprint is kept, in seconds.
    pub footprint_keep_secs: u64,
    /// Nothing is written while the disk has fewer free bytes.
    pub free_min: u64,
}

impl<W> Committer<W> {
    /// Over what was recovered; `order` has its footprint.
    pub fn new(
        files: FileRecovery,
        recovered: Recovered,
        order: SharedOrder<W>,
        figures: Arc<Figures>,
        options: CommitterOptions<W>,
    ) -> Committer<W> {
        let Recovered { state, unusable, log, .. } = recovered;
        let found = FoundFiles { table: state.files, unusable };
        let mut committer = Committer {
            order,
            store: Store::new(&files, found, options.store),
            log,
            holes: state.holes,
            passed_over: Vec::new(),
            files,
            unread: state.unread,
            mended_last: String::new(),
            given_up: BTreeMap::new(),
            figures,
            hours: None,
            requests: crossbeam_channel::never(),
            staged: BTreeMap::new(),
            options,
        };
        // Whoever asks before the first pack comes is to be told.
        committer.mend_files();
        committer
    }

    /// From now on the books of the hours hear of each commit.
    pub fn tell_hours(&mut self, teller: Teller) {
        self.hours = Some(teller);
    }

    /// From now on it does what it is asked between two groups.
    pub fn listen_to(&mut self, requests: Receiver<Request>) {
        self.requests = requests;
    }

    /// Commits what comes in until nothing can come any more, or `stop` while writing fails.
    pub fn run(mut self, inflated: &Receiver<Inflated>, stop: &CancellationToken) {
        let mut waiting = Waiting::default();
        let started = Instant::now();
        let mut expire_at = started + EXPIRE_INTERVAL;
        let mut mend_at = started;
        let mut has_room = true;
        loop {
            let mut until = if self.store.unusable().is_empty() { expire_at } else { expire_at.min(mend_at) };
            if !has_room {
                until = until.min(Instant::now() + RETRY_PAUSE);
            }
            let Some(packs) = self.next_packs(inflated, &mut waiting, until) else { return };
            let now = Instant::now();
            if now >= expire_at {
                self.expire(started);
                self.drop_abandoned(now);
                expire_at = now + EXPIRE_INTERVAL;
            }
            if now >= mend_at {
                self.mend_files();
                mend_at = Instant::now() + MEND_INTERVAL;
            }
            let mut group = self.group(packs);
            loop {
                has_room = self.make_way(&mut group);
                let Err(error) = self.try_commit(&mut group) else { break };
                self.report_failure(&error, Failing::Wholly);
                self.give_up_failing_file(&mut group, &error);
                if !self.wait_to_try_again(&mut group, stop) {
                    return;
                }
            }
            if has_room {
                self.report_success();
            }
        }
    }

    /// Replaces the journal by what is committed.
    pub(super) fn snapshot(&mut self) -> io::Result<()> {
        let order = lock(&self.order);
        let bytes = journal::snapshot_bytes(order.footprint(), self.store.table(), &self.holes, &self.unread);
        drop(order);
        self.log.snapshot(&bytes)
    }

    pub(super) fn act(&self, actions: Vec<Action<W>>) {
        for action in actions {
            // Settling packs never accepts others, so there is nothing to write here.
            if let Action::Answer(waiter, answer) = action {
                self.figures.count_answer(&answer);
                (self.options.answer)(waiter, answer);
            }
        }
    }

    /// The packs to commit next, in the order of acceptance, none when it is `until`; `None` when there will be no more.
    fn next_packs(
        &mut self,
        inflated: &Receiver<Inflated>,
        waiting: &mut Waiting,
        until: Instant,
    ) -> Option<Vec<Inflated>> {
        loop {
            inflated.try_iter().for_each(|pack| waiting.put(pack));
            // Where packs never cease to come, whoever asks has a turn all the same.
            if let Ok(request) = self.requests.try_recv() {
                self.answer(request);
            }
            let packs = waiting.take(self.options.group_bytes_max, self.store.open_max());
            if !packs.is_empty() {
                return Some(packs);
            }
            select! {
                recv(inflated) -> pack => waiting.put(pack.ok()?),
                recv(self.requests) -> request => match request {
                    Ok(request) => self.answer(request),
                    Err(_) => self.requests = crossbeam_channel::never(),
                },
                default(until.saturating_duration_since(Instant::now())) => return Some(Vec::new()),
            }
        }
    }

    fn expire(&self, started: Instant) {
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let forgotten = lock(&self.order).expire(now_ms, now_unix(), self.options.footprint_keep_secs);
        if forgotten > 0 {
            tracing::info!(forgotten, "footprints of old streams were forgotten");
        }
    }

    /// Leaves room on the disk for others, and for what makes room: false when there is less, and only what needs none may be written.
    fn make_way(&mut self, group: &mut Group) -> bool {
        let Some(error) = self.want_of_room().filter(|_| !group.has_begun_any()) else { return true };
        self.report_failure(&error, Failing::WithoutRoom);
        self.refuse_what_needs_room(group);
        false
    }

    fn want_of_room(&self) -> Option<io::Error> {
        let wanted = self.options.free_min;
        if wanted == 0 {
            return None;
        }
        // A disk that cannot be asked is found out by writing to it.
        let free = self.files.disk.free_bytes(&self.files.folders.data).ok()?;
        let text =
            format!("{free} bytes are free, and file.min_free is {wanted}: make room, or set [retention]");
        (free < wanted).then(|| io::Error::new(io::ErrorKind::StorageFull, text))
    }

    /// Says and counts it, and has all who wait told. Want of room is found before anything is tried, so while it lasts it is said once.
    fn report_failure(&self, error: &io::Error, failing: Failing) {
        self.figures.set_problem(Some(format!("the output cannot be written: {error}")));
        let mut order = lock(&self.order);
        let (what, actions) = match failing {
            Failing::WithoutRoom if matches!(order.writing(), Writing::WithoutRoom { .. }) => return,
            Failing::WithoutRoom => ("only done packs are written", order.without_room(RETRY_MS)),
            Failing::Wholly => ("the output cannot be written", order.failing(RETRY_MS)),
        };
        drop(order);
        tracing::error!("{what}: {error}");
        metrics::counter!("logferry_outputter_commit_failures_total").increment(1);
        self.act(actions);
    }

    fn report_success(&self) {
        if self.figures.set_problem(None) {
            tracing::info!("the output can be written again");
            lock(&self.order).healed();
        }
    }
}

/// How far writing fails.
enum Failing {
    Wholly,
    /// What needs no room is written.
    WithoutRoom,
}

/// Waits as long as after a failure; false when the program is to stop.
pub fn pause(stop: &CancellationToken) -> bool {
    let until = Instant::now() + RETRY_PAUSE;
    while Instant::now() < until && !stop.is_cancelled() {
        std::thread::sleep(Duration::from_millis(20));
    }
    !stop.is_cancelled()
}

/// Seconds since 1970.
pub fn now_unix() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
