//! Gives packs of a repull to the link, behind what is new and no faster than is allowed, and counts the answers.

use super::desk::Desk;
use super::find::Piece;
use super::request::Problem;
use crate::config::TailerConfig;
use crate::figures::Figures;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use logferry_link::{Outcome, Outgoing, Sender, Settled};
use metrics::counter;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::warn;

/// Packs on their way at a time: the window is for what is new.
const IN_FLIGHT_MAX: usize = 4;
/// How often it is looked whether a repull is still wanted while it waits.
const STEP: Duration = Duration::from_millis(20);
/// How long one pack gives way to what is new; then it goes all the same, so that a repull ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pack on its way.
pub(super) struct OnTheWay {
    pub(super) source: String,
    pub(super) path: PathBuf,
    pub(super) from: u64,
    pub(super) to: u64,
    /// It has no lines, and is not counted.
    pub(super) is_done: bool,
    /// Its lines can be shipped in two halves.
    pub(super) halves_of: Option<Piece>,
}

/// The repull is not wanted any more.
pub(super) struct Unwanted;

/// See the module. Tickets are given by whoever sends.
pub(crate) struct Courier {
    desk: Arc<Desk>,
    sender: Sender,
    settled: Receiver<Settled>,
    figures: Arc<Figures>,
    /// Bytes of files a second; 0: any.
    rate: u64,
    /// Bytes of new lines that wait, above which a repull gives way.
    pack_bytes: u64,
    on_the_way: BTreeMap<u64, OnTheWay>,
    /// What the store has a part of, and cannot part.
    pub(super) to_halve: Vec<Piece>,
    next_at: Instant,
}

impl Courier {
    /// Answers to what it gives to `sender` come over `settled`.
    pub(crate) fn new(
        desk: Arc<Desk>,
        sender: Sender,
        settled: Receiver<Settled>,
        figures: Arc<Figures>,
        config: &TailerConfig,
    ) -> Courier {
        let (rate, pack_bytes) = (config.repull.rate.0, config.pack.max_bytes.0);
        let (on_the_way, to_halve) = (BTreeMap::new(), Vec::new());
        Courier {
            desk,
            sender,
            settled,
            figures,
            rate,
            pack_bytes,
            on_the_way,
            to_halve,
            next_at: Instant::now(),
        }
    }

    pub(super) fn send(&mut self, id: &str, pack: Outgoing, way: OnTheWay) -> Result<(), Unwanted> {
        let ticket = pack.ticket;
        let mut pack = pack;
        loop {
            while self.on_the_way.len() >= IN_FLIGHT_MAX {
                self.wait(id, STEP)?;
            }
            match self.sender.try_submit(pack) {
                Ok(()) => break,
                Err(back) => pack = back,
            }
            self.wait(id, STEP)?;
        }
        counter!("logferry_tailer_repull_packs_total").increment(1);
        counter!("logferry_tailer_repull_bytes_total").increment(way.to - way.from);
        self.on_the_way.insert(ticket, way);
        Ok(())
    }

    /// What is new goes first.
    pub(super) fn give_way(&mut self, id: &str) -> Result<(), Unwanted> {
        let until = Instant::now() + PATIENCE;
        let pack_bytes = self.pack_bytes;
        let figures = self.figures.clone();
        while figures.lag_bytes.load(Ordering::Acquire) > pack_bytes && Instant::now() < until {
            self.check(id)?;
            std::thread::sleep(STEP);
        }
        while Instant::now() < self.next_at {
            let left = self.next_at.saturating_duration_since(Instant::now());
            self.wait(id, left.min(STEP))?;
        }
        self.check(id)
    }

    pub(super) fn pay(&mut self, bytes: u64) {
        let rate = self.rate;
        if rate > 0 {
            let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.next_at = self.next_at.max(Instant::now()) + cost;
        }
    }

    pub(super) fn wait_for_all(&mut self, id: &str) -> Result<(), Unwanted> {
        while !self.on_the_way.is_empty() {
            self.wait(id, STEP)?;
        }
        self.check(id)
    }

    pub(super) fn problems(&self, id: &str) -> u64 {
        self.desk.progress(id).map_or(0, |job| job.problems.len() as u64 + job.problems_more)
    }

    fn check(&mut self, id: &str) -> Result<(), Unwanted> {
        if self.desk.is_wanted(id) {
            return Ok(());
        }
        // What is on its way arrives; nobody counts it any more.
        self.on_the_way.clear();
        self.to_halve.clear();
        Err(Unwanted)
    }

    /// Waits for answers.
    fn wait(&mut self, id: &str, longest: Duration) -> Result<(), Unwanted> {
        self.check(id)?;
        match self.settled.recv_timeout(longest) {
            Ok(settled) => self.settled(id, settled),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                self.desk.cancel(id);
            }
        }
        while let Ok(settled) = self.settled.try_recv() {
            self.settled(id, settled);
        }
        Ok(())
    }

    fn settled(&mut self, id: &str, settled: Settled) {
        let Some(way) = self.on_the_way.remove(&settled.ticket) else { return };
        let OnTheWay { source, path, from, to, is_done, halves_of } = way;
        let what = match settled.outcome {
            Outcome::Conflict(_) if halves_of.is_some() => {
                self.to_halve.extend(halves_of);
                return;
            }
            Outcome::Ok | Outcome::Duplicate if is_done => None,
            Outcome::Ok => {
                self.desk.change(id, |job| job.packs_taken += 1);
                None
            }
            Outcome::Duplicate => {
                self.desk.change(id, |job| job.packs_there += 1);
                None
            }
            Outcome::Rejected { reason } => Some(format!("it was refused: {reason}")),
            Outcome::Conflict(_) => {
                Some("the store has another replacement of these bytes: ask again".to_owned())
            }
        };
        self.desk.change(id, |job| job.bytes_done += to - from);
        if let Some(what) = what {
            let (file, range) = ((!is_done).then_some(path), (!is_done).then_some((from, to)));
            self.problem(id, Problem { source, file, range, what });
        }
    }

    pub(super) fn problem(&self, id: &str, problem: Problem) {
        counter!("logferry_tailer_repull_problems_total").increment(1);
        warn!(id, "not shipped again: {problem}");
        self.desk.change(id, |job| job.add_problem(problem));
    }
}
