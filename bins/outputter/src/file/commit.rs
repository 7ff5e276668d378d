//! The group commit: one thread writes what is ready, makes it durable together, journals it and answers.
//!
//! Order of one commit: bodies and header lines are appended; all files and the folders of new ones are synced; one journal
//! record is synced; the packs are answered. What fails before the journal is undone by cutting the files back
//! and done again from memory. What fails at the journal is not undone: the bytes are durable, so the journal
//! is replaced by a snapshot that includes them.

use super::file_recovery::FileRecovery;
use super::inflate::{Body, Inflated};
use super::journal::{self, Commit, CommittedPack, Hole};
use super::order::{Accepted, Action, Order};
use super::own_fault::{self, Unopenable};
use super::recovery::Recovered;
use super::store::{FoundFiles, Store, StoreOptions};
use super::waiting::Waiting;
use crate::figures::Figures;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use logferry_durable::Log;
use logferry_link::Answer;
use logferry_pack::PackIdentity;
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
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// So many failures in a row at one file, and the others go on without it.
const FAILURES_OF_FILE_MAX: u32 = 3;
/// When senders are to come again after a failure.
const RETRY_MS: u64 = 1_500;
/// When senders are to come again with packs of a file that an operator has to mend.
const RETRY_UNOPENABLE_MS: u64 = 2_000;

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
    log: Log,
    /// Holes that were written over, as the journal has them.
    holes: Vec<Hole>,
    /// Ranges of packs that were refused for good, until the next commit records them.
    passed_over: Vec<Hole>,
    /// Recovers the files that the store must not write to yet.
    pub(super) files: FileRecovery,
    /// See [`journal::State::unread`].
    pub(super) unread: BTreeSet<String>,
    /// Where the last round of trying the unusable files ended.
    pub(super) mended_last: String,
    pub(super) figures: Arc<Figures>,
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
}

/// A pack in a group.
struct Entry {
    accepted: Accepted,
    path: String,
    lines: u64,
    header_lines: Vec<u8>,
    body: Body,
}

/// Packs that are committed together.
pub struct Group {
    entries: Vec<Entry>,
    phase: Phase,
    /// Where the last failures were, and how many in a row at that file.
    failures: Option<(String, u32)>,
}

enum Phase {
    Write,
    /// The files may hold a part of the group.
    CutBack,
    /// The files are durable; the record is not.
    Journal(Commit),
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
            figures,
            options,
        };
        // Whoever asks before the first pack comes is to be told.
        committer.mend_files();
        committer
    }

    /// Commits what comes in until nothing can come any more, or `stop` while writing fails.
    pub fn run(mut self, inflated: &Receiver<Inflated>, stop: &CancellationToken) {
        let mut waiting = Waiting::default();
        let started = Instant::now();
        let mut expire_at = started + EXPIRE_INTERVAL;
        let mut mend_at = started;
        loop {
            let until = if self.store.unusable().is_empty() { expire_at } else { expire_at.min(mend_at) };
            let Some(packs) = self.next_packs(inflated, &mut waiting, until) else { return };
            let now = Instant::now();
            if now >= expire_at {
                self.expire(started);
                expire_at = now + EXPIRE_INTERVAL;
            }
            if now >= mend_at {
                self.mend_files();
                mend_at = Instant::now() + MEND_INTERVAL;
            }
            let mut group = self.group(packs);
            while let Err(error) = self.try_commit(&mut group) {
                self.report_failure(&error);
                self.give_up_failing_file(&mut group, &error);
                if !pause(stop) {
                    return;
                }
            }
            self.report_success();
        }
    }

    /// Sorts out what is not to be written: bodies that are no good, and packs that were refused meanwhile.
    pub fn group(&mut self, packs: Vec<Inflated>) -> Group {
        let mut entries = Vec::with_capacity(packs.len());
        let mut actions = Vec::new();
        let mut order = lock(&self.order);
        for Inflated { accepted, path, lines, header_lines, body } in packs {
            match body {
                Ok(body) if order.is_pending(&accepted) => {
                    entries.push(Entry { accepted, path, lines, header_lines, body });
                }
                Ok(_) => {}
                Err(reason) => {
                    count_rejected(reason);
                    let data_at = self.store.table().get(&path).map_or(0, |lengths| lengths.data);
                    self.passed_over.push(refused_range(path, &accepted, data_at));
                    actions.extend(order.rejected(&accepted, reason));
                }
            }
        }
        drop(order);
        self.act(actions);
        Group { entries, phase: Phase::Write, failures: None }
    }

    /// Brings a group further towards its commit; after an error, to be called again with the same group.
    pub fn try_commit(&mut self, group: &mut Group) -> io::Result<()> {
        loop {
            match &mut group.phase {
                _ if group.entries.is_empty() => return Ok(()),
                Phase::CutBack => {
                    self.store.cut_back(&paths(&group.entries))?;
                    group.phase = Phase::Write;
                }
                Phase::Write => {
                    self.open_files(group)?;
                    group.phase = Phase::CutBack;
                    group.phase = Phase::Journal(self.write_files(&group.entries)?);
                }
                Phase::Journal(commit) => {
                    self.journal(commit)?;
                    let commit = std::mem::take(commit);
                    self.finish(group, commit);
                    return Ok(());
                }
            }
        }
    }

    fn open_files(&mut self, group: &mut Group) -> io::Result<()> {
        self.store.survey(&paths(&group.entries))?;
        self.journal_reconciled()?;
        let unopenable = self.store.prepare(&paths(&group.entries))?;
        for file in &unopenable {
            self.give_up_file(group, file);
        }
        self.journal_reconciled()
    }

    fn journal_reconciled(&mut self) -> io::Result<()> {
        if self.log.is_poisoned() {
            self.snapshot()?;
        } else if !self.store.reconciled().is_empty() {
            let files = self.store.reconciled().to_vec();
            self.log.append(&Commit { now_unix: now_unix(), files, ..Commit::default() }.to_bytes());
            self.log.commit()?;
        }
        self.store.reconciled_is_durable();
        Ok(())
    }

    /// A file at which one attempt after the other fails, on a bad sector say, must not stop the others for ever.
    pub fn give_up_failing_file(&mut self, group: &mut Group, error: &io::Error) {
        let Some(path) = own_fault::path_of(error).filter(|_| !is_full(error)) else {
            group.failures = None;
            return;
        };
        let before = group.failures.take().filter(|(at, _)| at == path).map_or(0, |(_, count)| count);
        group.failures = Some((path.to_owned(), before + 1));
        if before + 1 >= FAILURES_OF_FILE_MAX {
            self.store.give_up(path);
            group.failures = None;
        }
    }

    /// Takes the packs of a file that cannot be opened out of the group.
    fn give_up_file(&mut self, group: &mut Group, file: &Unopenable) {
        if self.figures.set_file_problem(&file.path, &file.error) {
            tracing::error!(path = file.path, "the file cannot be written, the others go on: {}", file.error);
        }
        let mut actions = Vec::new();
        let mut order = lock(&self.order);
        for entry in group.entries.iter().filter(|entry| entry.path == file.path) {
            match file.for_good {
                Some(reason) => {
                    count_rejected(reason);
                    actions.extend(order.rejected(&entry.accepted, reason));
                }
                None => actions.extend(order.refused(&entry.accepted, RETRY_UNOPENABLE_MS)),
            }
        }
        group.entries.retain(|entry| order.is_pending(&entry.accepted));
        drop(order);
        self.act(actions);
    }

    fn write_files(&mut self, entries: &[Entry]) -> io::Result<Commit> {
        let mut by_path: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            by_path.entry(&entry.path).or_default().push(entry);
        }
        let holes = self.passed_over.clone();
        let mut commit = Commit { now_unix: now_unix(), holes, ..Commit::default() };
        for (path, entries) in &by_path {
            let bodies: Vec<&[u8]> = entries.iter().flat_map(|entry| entry.body.parts()).collect();
            let lines: Vec<&[u8]> = entries.iter().map(|entry| entry.header_lines.as_slice()).collect();
            let mut data_at = self.store.append(path, &bodies, &lines)?;
            for entry in entries {
                commit.holes.extend(hole(entry, data_at));
                commit.packs.push(CommittedPack::new(&entry.accepted.identity, entry.accepted.first));
                data_at += entry.body.len() as u64;
            }
        }
        self.store.sync(&by_path.keys().copied().collect())?;
        let written = by_path.keys().filter_map(|path| Some(((*path).to_owned(), self.store.written(path)?)));
        commit.files = written.collect();
        Ok(commit)
    }

    fn journal(&mut self, commit: &Commit) -> io::Result<()> {
        if !self.log.is_poisoned() {
            self.log.append(&commit.to_bytes());
            return self.log.commit();
        }
        // The group is durable in its files, and so may its record be in the journal: only a snapshot that has it is true.
        let mut state = journal::State {
            footprint: lock(&self.order).footprint().clone(),
            files: self.store.table().clone(),
            holes: self.holes.clone(),
            unread: self.unread.clone(),
        };
        state.apply(commit.clone());
        self.log.snapshot(&state.snapshot_bytes())
    }

    fn finish(&mut self, group: &mut Group, commit: Commit) {
        for (path, _) in &commit.files {
            self.store.committed(path);
            self.figures.clear_file_problem(path);
        }
        for hole in &commit.holes {
            tracing::warn!(path = hole.path, stream = %format_args!("{:032x}", hole.stream), from = hole.from, to = hole.to,
                "stream bytes did not come in time and were passed over");
        }
        self.figures.count_commit(
            group.entries.iter().map(|entry| entry.body.len() as u64).sum(),
            group.entries.iter().map(|entry| entry.lines).sum(),
            commit.holes.len() as u64,
            self.store.files_open() as u64,
        );
        self.passed_over.clear();
        journal::remember_holes(&mut self.holes, commit.holes);
        let packs: Vec<Accepted> = group.entries.drain(..).map(|entry| entry.accepted).collect();
        let actions = lock(&self.order).committed(&packs, commit.now_unix);
        self.act(actions);
        if self.log.wants_snapshot()
            && !self.log.is_poisoned()
            && let Err(error) = self.snapshot()
        {
            tracing::error!("the journal's snapshot cannot be written, the next commit tries again: {error}");
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
        &self,
        inflated: &Receiver<Inflated>,
        waiting: &mut Waiting,
        until: Instant,
    ) -> Option<Vec<Inflated>> {
        loop {
            inflated.try_iter().for_each(|pack| waiting.put(pack));
            let packs = waiting.take(self.options.group_bytes_max, self.store.open_max());
            if !packs.is_empty() {
                return Some(packs);
            }
            match inflated.recv_deadline(until) {
                Ok(pack) => waiting.put(pack),
                Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return None,
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

    fn report_failure(&self, error: &io::Error) {
        tracing::error!("the output cannot be written, nothing is acknowledged until it can: {error}");
        metrics::counter!("logferry_outputter_commit_failures_total").increment(1);
        self.figures.set_problem(Some(format!("the output cannot be written: {error}")));
        let actions = lock(&self.order).failing(RETRY_MS);
        self.act(actions);
    }

    fn report_success(&self) {
        if self.figures.set_problem(None) {
            tracing::info!("the output can be written again");
            lock(&self.order).healed();
        }
    }
}

fn paths(entries: &[Entry]) -> BTreeSet<&str> {
    entries.iter().map(|entry| entry.path.as_str()).collect()
}

fn hole(entry: &Entry, data_at: u64) -> Option<Hole> {
    let from = entry.accepted.hole_from?;
    let identity = &entry.accepted.identity;
    Some(Hole { path: entry.path.clone(), stream: identity.stream.0, from, to: identity.offset, data_at })
}

fn refused_range(path: String, refused: &Accepted, data_at: u64) -> Hole {
    let PackIdentity { stream, offset, span, .. } = refused.identity;
    Hole { path, stream: stream.0, from: offset, to: offset.saturating_add(span), data_at }
}

fn count_rejected(reason: &'static str) {
    metrics::counter!("logferry_outputter_rejected_packs_total", "reason" => reason).increment(1);
}

/// Whether an error goes away when somebody makes room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Waits a little; false when the program is to stop.
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
