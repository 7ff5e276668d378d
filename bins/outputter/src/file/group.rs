//! One group of packs, from sorting out to its answers: files, journal, what to do when either fails.

use super::commit::{Committer, RETRY_MS, RETRY_PAUSE, lock, now_unix};
use super::inflate::{Body, Inflated};
use super::journal::{self, Commit, CommittedPack, Hole};
use super::order::Accepted;
use super::own_fault::{self, Unopenable};
use super::replace::{self, End, Outcome};
use crate::hours::fact::Fact;
use crossbeam_channel::RecvTimeoutError;
use logferry_durable::is_full;
use logferry_pack::PackIdentity;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// So many failures in a row at one file, and the others go on without it.
const FAILURES_OF_FILE_MAX: u32 = 3;
/// How soon a pause is ended when the program is to stop.
const STOP_LOOK: Duration = Duration::from_millis(20);
/// When senders are to come again with packs of a file that an operator has to mend.
const RETRY_UNOPENABLE_MS: u64 = 2_000;

/// A pack in a group.
struct Entry {
    accepted: Accepted,
    path: String,
    lines: u64,
    header_lines: Vec<u8>,
    facts: Vec<Fact>,
    body: Body,
}

/// Packs that are committed together.
pub struct Group {
    entries: Vec<Entry>,
    /// Replacements whose last pack has come, to be acted on when the rest of the group is committed.
    ends: Vec<End>,
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
    /// Sorts out what is not to be written: bodies that are no good, and packs that were refused meanwhile.
    pub fn group(&mut self, packs: Vec<Inflated>) -> Group {
        let mut entries = Vec::with_capacity(packs.len());
        let mut ends = Vec::new();
        let mut actions = Vec::new();
        let mut order = lock(&self.order);
        for Inflated { accepted, path, lines, header_lines, facts, body, end } in packs {
            match body {
                Ok(_) if end.is_some() => ends.extend(end),
                Ok(body) if order.is_pending(&accepted) => {
                    entries.push(Entry { accepted, path, lines, header_lines, facts, body });
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
        Group { entries, ends, phase: Phase::Write, failures: None }
    }

    /// Brings a group further towards its commit; after an error, to be called again with the same group.
    pub fn try_commit(&mut self, group: &mut Group) -> io::Result<()> {
        loop {
            match &mut group.phase {
                _ if group.entries.is_empty() => return self.end_replacements(group),
                Phase::CutBack => {
                    self.store.check_mounted()?;
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
                    group.phase = Phase::Write;
                }
            }
        }
    }

    fn end_replacements(&mut self, group: &mut Group) -> io::Result<()> {
        if !group.ends.is_empty() {
            self.store.check_mounted()?;
        }
        while let Some(end) = group.ends.first_mut() {
            let accepted = end.accepted;
            if lock(&self.order).is_pending(&accepted) {
                let actions = match self.replace(end)? {
                    Outcome::Replaced => lock(&self.order).committed(&[accepted], now_unix()),
                    Outcome::Refused(reason) => {
                        tracing::warn!("an hour is not replaced: {reason}");
                        metrics::counter!("logferry_outputter_replacements_refused_total").increment(1);
                        lock(&self.order).rejected(&accepted, &reason)
                    }
                };
                self.act(actions);
            }
            group.ends.remove(0);
        }
        Ok(())
    }

    fn open_files(&mut self, group: &mut Group) -> io::Result<()> {
        self.store.survey(&paths(&group.entries))?;
        if !self.store.reconciled().is_empty() {
            self.store.check_mounted()?;
            self.journal_reconciled()?;
        }
        let unopenable = self.store.prepare(&paths(&group.entries))?;
        // Once they are open: what is found to be mounted now is where they are.
        self.store.check_mounted()?;
        for file in &unopenable {
            self.give_up_file(group, file);
        }
        self.journal_reconciled()
    }

    /// Files that were found otherwise than committed are to be believed: their disk is there.
    pub(super) fn journal_reconciled(&mut self) -> io::Result<()> {
        if self.log.is_poisoned() {
            self.snapshot()?;
        } else if !self.store.reconciled().is_empty() {
            let files = self.store.reconciled();
            self.log.append(&Commit { now_unix: now_unix(), files, ..Commit::default() }.to_bytes());
            self.log.commit()?;
        }
        self.store.reconciled_is_durable();
        Ok(())
    }

    /// A file at which one attempt after the other fails, on a bad sector say, must not stop the others for ever.
    pub fn give_up_failing_file(&mut self, group: &mut Group, error: &io::Error) {
        // A disk that is away is no fault of this file.
        let is_away = error.kind() == io::ErrorKind::NotConnected;
        let Some(path) = own_fault::path_of(error).filter(|_| !is_full(error) && !is_away) else {
            group.failures = None;
            return;
        };
        let before = group.failures.take().filter(|(at, _)| at == path).map_or(0, |(_, count)| count);
        group.failures = Some((path.to_owned(), before + 1));
        if before + 1 >= FAILURES_OF_FILE_MAX {
            group.failures = None;
            // Where nothing can be written it is no fault of this file, and one after the other would be given up.
            if self.files.is_disk_writable() {
                self.give_up_for_a_while(path, error);
            }
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

    /// Leaves packs with bytes to their senders, and what is behind them. Done packs stay: an hour that they complete may be removed.
    pub fn refuse_what_needs_room(&mut self, group: &mut Group) {
        let mut actions = Vec::new();
        let mut order = lock(&self.order);
        for entry in group.entries.iter().filter(|entry| entry.accepted.identity.span > 0) {
            actions.extend(order.refused(&entry.accepted, RETRY_MS));
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
            replaced: Vec::new(),
        };
        state.apply(commit.clone());
        self.log.snapshot(&state.snapshot_bytes())
    }

    fn finish(&mut self, group: &mut Group, commit: Commit) {
        self.send_news(group, &commit);
        for (path, _) in &commit.files {
            self.store.committed(path);
            self.figures.clear_file_problem(path);
            self.given_up.remove(path);
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
}

impl Group {
    /// Whether files may have a part of it that is not committed.
    pub fn has_begun_any(&self) -> bool {
        !matches!(self.phase, Phase::Write)
    }

    /// Whether a file has more than is committed, or is about to be another one: nothing else is to be done with it before.
    fn has_begun(&self, path: &str) -> bool {
        let is_written = matches!(self.phase, Phase::Journal(_));
        let mut ends = self.ends.iter();
        (is_written && self.entries.iter().any(|entry| entry.path == path))
            || ends.any(|end| end.path == path || end.staged == path)
    }
}

impl<W> Committer<W> {
    /// Waits a little after a failure; false when the program is to stop. Meanwhile it does what it is asked, because whoever makes room for
    /// the group asks, too, and tries the files that could not be written.
    pub(super) fn wait_to_try_again(&mut self, group: &mut Group, stop: &CancellationToken) -> bool {
        let until = Instant::now() + RETRY_PAUSE;
        if matches!(group.phase, Phase::CutBack)
            && self.store.check_mounted().and_then(|()| self.store.cut_back(&paths(&group.entries))).is_ok()
        {
            group.phase = Phase::Write;
        }
        if matches!(group.phase, Phase::Write) {
            self.mend_files();
            let order = lock(&self.order);
            group.entries.retain(|entry| order.is_pending(&entry.accepted));
        }
        while Instant::now() < until && !stop.is_cancelled() {
            if matches!(group.phase, Phase::CutBack) {
                std::thread::sleep(STOP_LOOK);
                continue;
            }
            match self.requests.recv_timeout(STOP_LOOK) {
                Ok(request) => self.answer_unless(request, |path| group.has_begun(path)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.requests = crossbeam_channel::never(),
            }
        }
        !stop.is_cancelled()
    }

    /// The books of the hours hear of what is durable, and of nothing else.
    fn send_news(&self, group: &mut Group, commit: &Commit) {
        let Some(hours) = &self.hours else { return };
        let mut facts: BTreeMap<&str, Vec<Fact>> = BTreeMap::new();
        for entry in &mut group.entries {
            facts.entry(&entry.path).or_default().append(&mut entry.facts);
        }
        for (path, lengths) in commit.files.iter().filter(|(path, _)| !replace::is_aside(path)) {
            let before = self.store.table().get(path).map_or(0, |before| before.headers);
            hours.grew(path, before, lengths.headers, facts.remove(path.as_str()).unwrap_or_default());
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
