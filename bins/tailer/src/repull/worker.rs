//! The worker: a thread that ships one repull after the other, behind what is new.

use super::desk::Desk;
use super::find::{Finder, Piece};
use super::known;
use super::request::{Problem, State};
use crate::body::{BodyRules, Lead};
use crate::compress::{self, Labels};
use crate::config::{SourceSettings, TailerConfig};
use crate::event::{Event, Job, Load};
use crate::figures::Figures;
use crate::files;
use crate::ledger::record::Cut;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Channel};
use logferry_link::{Outcome, Outgoing, Sender, Settled};
use logferry_pack::{Compressor, Hour, Name};
use metrics::counter;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Packs on their way at a time: the window is for what is new.
const IN_FLIGHT_MAX: usize = 4;
/// How often it is looked whether a repull is still wanted while it waits.
const STEP: Duration = Duration::from_millis(20);
/// How long one pack gives way to what is new; then it goes all the same, so that a repull ends.
const PATIENCE: Duration = Duration::from_secs(1);
/// Key in `Route[0]`: which repull brought a pack.
const JOB_KEY: &str = "repull_job";

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) config: TailerConfig,
    pub(crate) desk: Arc<Desk>,
    pub(crate) jobs: Receiver<String>,
    pub(crate) follower: Channel<Event>,
    pub(crate) sender: Sender,
    pub(crate) settled: Receiver<Settled>,
    pub(crate) labels: Labels,
    pub(crate) rules: Arc<HashMap<Name, BodyRules>>,
    pub(crate) compressor: Compressor,
    pub(crate) figures: Arc<Figures>,
}

/// A pack on its way.
struct OnTheWay {
    source: String,
    path: PathBuf,
    from: u64,
    to: u64,
}

/// See the module.
pub(crate) struct Worker {
    parts: Parts,
    buffer: Vec<u8>,
    last_ticket: u64,
    on_the_way: BTreeMap<u64, OnTheWay>,
    /// Numbers of the packs of this repull, by source and hour.
    numbers: HashMap<(String, Hour), u64>,
    next_at: Instant,
}

/// The repull is not wanted any more.
struct Unwanted;

impl Worker {
    pub(crate) fn new(parts: Parts) -> Worker {
        Worker {
            parts,
            buffer: Vec::new(),
            last_ticket: super::TICKETS_FROM,
            on_the_way: BTreeMap::new(),
            numbers: HashMap::new(),
            next_at: Instant::now(),
        }
    }

    /// Works until nobody can ask any more.
    pub(crate) fn run(mut self) {
        while let Ok(id) = self.parts.jobs.recv() {
            if !self.parts.desk.is_wanted(&id) {
                continue;
            }
            self.parts.desk.change(&id, |job| job.state = State::Running);
            self.numbers.clear();
            let outcome = self.repull(&id);
            if outcome.is_ok() {
                self.parts.desk.change(&id, |job| job.state = State::Done);
            }
            counter!("logferry_tailer_repulls_total").increment(1);
            if let Some(job) = self.parts.desk.progress(&id) {
                let problems = job.problems.len() as u64 + job.problems_more;
                let (bytes, taken, there) = (job.bytes_done, job.packs_taken, job.packs_there);
                info!(id, state = ?job.state, bytes, taken, there, problems, "a repull is over");
            }
        }
    }

    fn repull(&mut self, id: &str) -> Result<(), Unwanted> {
        let Some(request) = self.parts.desk.progress(id).map(|job| job.request) else { return Err(Unwanted) };
        info!(id, ?request, "a repull begins");
        let mut work = Vec::new();
        for source in self.parts.config.source.clone() {
            if request.source.as_ref().is_some_and(|name| *name != source.name) {
                continue;
            }
            let known = known::ask(&self.parts.follower, &source.name, request.hour);
            let found = known.and_then(|known| {
                let host = self.parts.config.node.name.as_str();
                let finder = Finder::new(&source, host, &known, &self.parts.config.node.var_dir)?;
                Ok(finder.find(&request))
            });
            match found {
                Ok(found) => {
                    found.problems.into_iter().for_each(|problem| self.problem(id, problem));
                    work.extend(found.pieces.into_iter().map(|piece| (source.clone(), piece)));
                }
                Err(error) => {
                    let what = format!("{error:#}");
                    self.problem(id, Problem { source: source.name, file: None, range: None, what });
                }
            }
        }
        let is_nothing =
            work.is_empty() && self.parts.desk.progress(id).is_some_and(|job| job.problems.is_empty());
        if is_nothing {
            let source = request.source.clone().unwrap_or_else(|| "any".to_owned());
            let what = "no source of this node knows of it".to_owned();
            self.problem(id, Problem { source, file: request.file.clone(), range: request.range, what });
        }
        let total = work.iter().map(|(_, piece)| piece.to - piece.from).sum();
        self.parts.desk.change(id, |job| job.bytes_total = total);
        for (source, piece) in &work {
            self.ship(id, source, piece)?;
        }
        while !self.on_the_way.is_empty() {
            self.wait(id, STEP)?;
        }
        Ok(())
    }

    fn ship(&mut self, id: &str, source: &SourceSettings, piece: &Piece) -> Result<(), Unwanted> {
        let Ok(name) = Name::new(source.name.as_str()) else { return Ok(()) };
        let mut at = piece.from;
        while at < piece.to {
            self.give_way(id)?;
            let span = match self.read(piece, at) {
                Ok(span) => span,
                Err(error) => {
                    let what = format!("it cannot be read: {error}");
                    let range = Some((at, piece.to));
                    let source = source.name.clone();
                    self.problem(id, Problem { source, file: Some(piece.path.clone()), range, what });
                    return Ok(());
                }
            };
            let pack = self.pack(id, &name, piece, at, span);
            let to = at + span as u64;
            let way = OnTheWay { source: source.name.clone(), path: piece.path.clone(), from: at, to };
            self.send(id, pack, way)?;
            self.pay(span as u64);
            at = to;
        }
        Ok(())
    }

    /// Fills the buffer with whole lines from `at` on; their length. A line that is longer than a pack is split.
    fn read(&mut self, piece: &Piece, at: u64) -> io::Result<usize> {
        let limit = self.parts.config.pack.max_bytes.0.max(1);
        let wanted = (piece.to - at).min(limit) as usize;
        self.buffer.resize(wanted, 0);
        if files::read_at(&piece.file, at, &mut self.buffer)? < wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"));
        }
        let is_last = at + wanted as u64 == piece.to;
        let newline = memchr::memrchr(b'\n', &self.buffer).filter(|_| !is_last);
        Ok(newline.map_or(wanted, |newline| newline + 1))
    }

    fn pack(&mut self, id: &str, source: &Name, piece: &Piece, at: u64, span: usize) -> Outgoing {
        let number = self.numbers.entry((source.as_str().to_owned(), piece.hour)).or_default();
        *number += 1;
        let bytes = &self.buffer[..span];
        let cut = Cut {
            offset: at,
            span: span as u64,
            sum: crc32c::crc32c(bytes),
            lines: bytecount::count(bytes, b'\n') as u64,
            hour: piece.hour,
            id: *number,
        };
        self.last_ticket += 1;
        let job = Job {
            ticket: self.last_ticket,
            load: Load::Lines,
            buffer: std::mem::take(&mut self.buffer),
            cut,
            lead: Lead { offset: at, ..Lead::default() },
            stream: piece.stream,
            first: piece.first.min(at),
            source: source.clone(),
        };
        let Parts { labels, rules, compressor, .. } = &mut self.parts;
        let (mut pack, buffer) = compress::build_pack(labels, rules.get(source), compressor, job);
        self.buffer = buffer;
        pack.header.repull = true;
        pack.header.origin_rest.insert(JOB_KEY.to_owned(), id.into());
        let header = pack.encode_header();
        Outgoing { ticket: self.last_ticket, stream: piece.stream, header, body: pack.body }
    }

    fn send(&mut self, id: &str, pack: Outgoing, way: OnTheWay) -> Result<(), Unwanted> {
        let ticket = pack.ticket;
        let mut pack = pack;
        loop {
            while self.on_the_way.len() >= IN_FLIGHT_MAX {
                self.wait(id, STEP)?;
            }
            match self.parts.sender.try_submit(pack) {
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
    fn give_way(&mut self, id: &str) -> Result<(), Unwanted> {
        let until = Instant::now() + PATIENCE;
        let pack_bytes = self.parts.config.pack.max_bytes.0;
        let figures = self.parts.figures.clone();
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

    fn pay(&mut self, bytes: u64) {
        let rate = self.parts.config.repull.rate.0;
        if rate > 0 {
            let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
            self.next_at = self.next_at.max(Instant::now()) + cost;
        }
    }

    fn check(&mut self, id: &str) -> Result<(), Unwanted> {
        if self.parts.desk.is_wanted(id) {
            return Ok(());
        }
        // What is on its way arrives; nobody counts it any more.
        self.on_the_way.clear();
        Err(Unwanted)
    }

    /// Waits for answers.
    fn wait(&mut self, id: &str, longest: Duration) -> Result<(), Unwanted> {
        self.check(id)?;
        match self.parts.settled.recv_timeout(longest) {
            Ok(settled) => self.settled(id, settled),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                self.parts.desk.cancel(id);
            }
        }
        while let Ok(settled) = self.parts.settled.try_recv() {
            self.settled(id, settled);
        }
        Ok(())
    }

    fn settled(&mut self, id: &str, settled: Settled) {
        let Some(OnTheWay { source, path, from, to }) = self.on_the_way.remove(&settled.ticket) else {
            return;
        };
        let what = match settled.outcome {
            Outcome::Ok => {
                self.parts.desk.change(id, |job| job.packs_taken += 1);
                None
            }
            Outcome::Duplicate => {
                self.parts.desk.change(id, |job| job.packs_there += 1);
                None
            }
            Outcome::Rejected { reason } => Some(format!("the next tier refused it: {reason}")),
            Outcome::Conflict(_) => Some(
                "the store has a part of these bytes, and what is filtered cannot be parted: replace the hour".to_owned(),
            ),
        };
        self.parts.desk.change(id, |job| job.bytes_done += to - from);
        if let Some(what) = what {
            self.problem(id, Problem { source, file: Some(path), range: Some((from, to)), what });
        }
    }

    fn problem(&self, id: &str, problem: Problem) {
        counter!("logferry_tailer_repull_problems_total").increment(1);
        warn!(id, source = problem.source, file = ?problem.file, range = ?problem.range, "repull: {}", problem.what);
        self.parts.desk.change(id, |job| job.add_problem(problem));
    }
}
