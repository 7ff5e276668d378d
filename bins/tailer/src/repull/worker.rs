//! The worker: a thread that ships one repull after the other, behind what is new.

use super::desk::Desk;
use super::find::{Finder, Found, Piece};
use super::known::{self, Closed, Known};
use super::replacement::Replacement;
use super::request::{Problem, Request, State};
use crate::body::{BodyRules, Lead};
use crate::compress::{self, Labels};
use crate::config::{SourceSettings, TailerConfig};
use crate::event::{Event, Job, Load};
use crate::figures::Figures;
use crate::files;
use crate::ledger::record::Cut;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Channel};
use logferry_link::{Outcome, Outgoing, Sender, Settled};
use logferry_pack::{Compressor, Hour, Name, Pack, StreamId};
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
    /// It has no lines, and is not counted.
    is_done: bool,
}

/// What is to be shipped of a source.
struct Task {
    source: SourceSettings,
    name: Name,
    pieces: Vec<Piece>,
    /// The whole hour is shipped, and it is over.
    closed: Option<Closed>,
    replacement: Option<Replacement>,
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
        let mut tasks = Vec::new();
        for source in self.parts.config.source.clone() {
            if request.source.as_ref().is_some_and(|name| *name != source.name) {
                continue;
            }
            let known = known::ask(&self.parts.follower, &source.name, request.hour);
            let found = known.and_then(|known| {
                let host = self.parts.config.node.name.as_str();
                let finder = Finder::new(&source, host, &known, &self.parts.config.node.var_dir)?;
                let found = finder.find(&request);
                Ok((found, known))
            });
            match found {
                Ok((found, known)) => tasks.extend(self.task(id, &request, source, found, known)),
                Err(error) => {
                    let what = format!("{error:#}");
                    self.problem(id, Problem { source: source.name, file: None, range: None, what });
                }
            }
        }
        let is_nothing =
            tasks.is_empty() && self.parts.desk.progress(id).is_some_and(|job| job.problems.is_empty());
        if is_nothing {
            let source = request.source.clone().unwrap_or_else(|| "any".to_owned());
            let what = "no source of this node knows of it".to_owned();
            self.problem(id, Problem { source, file: request.file.clone(), range: request.range, what });
        }
        let total = tasks.iter().flat_map(|task| &task.pieces).map(|piece| piece.to - piece.from).sum();
        self.parts.desk.change(id, |job| job.bytes_total = total);
        for mut task in tasks {
            self.work(id, &mut task)?;
        }
        self.wait_for_all(id)
    }

    /// What is to be done for a source, if anything.
    fn task(
        &self,
        id: &str,
        request: &Request,
        source: SourceSettings,
        found: Found,
        known: Known,
    ) -> Option<Task> {
        let is_whole = found.problems.is_empty();
        found.problems.into_iter().for_each(|problem| self.problem(id, problem));
        let name = Name::new(source.name.as_str()).ok().filter(|_| !found.pieces.is_empty())?;
        // Files and ranges are parts of an hour.
        let closed = known.closed.filter(|_| request.file.is_none());
        let mut replacement = None;
        if request.replace {
            if let Some(what) = hindrance(is_whole, closed.as_ref(), &found.pieces) {
                let problem = Problem { source: source.name, file: None, range: None, what };
                self.problem(id, problem);
                return None;
            }
            replacement = Some(Replacement::new(id, &self.parts.config.node.name, &source.name));
        }
        Some(Task { source, name, pieces: found.pieces, closed, replacement })
    }

    fn work(&mut self, id: &str, task: &mut Task) -> Result<(), Unwanted> {
        let problems = self.problems(id);
        for piece in std::mem::take(&mut task.pieces) {
            self.ship(id, task, &piece)?;
        }
        let Some(closed) = task.closed.take() else { return Ok(()) };
        // It says what the hour has, so it comes when all that is there.
        self.wait_for_all(id)?;
        if task.replacement.is_some() && self.problems(id) > problems {
            let what = "nothing was replaced, because not all of the hour could be shipped".to_owned();
            self.problem(id, Problem { source: task.source.name.clone(), file: None, range: None, what });
            return Ok(());
        }
        self.ship_done(id, task, closed)
    }

    fn wait_for_all(&mut self, id: &str) -> Result<(), Unwanted> {
        while !self.on_the_way.is_empty() {
            self.wait(id, STEP)?;
        }
        self.check(id)
    }

    fn problems(&self, id: &str) -> u64 {
        self.parts.desk.progress(id).map_or(0, |job| job.problems.len() as u64 + job.problems_more)
    }

    fn ship(&mut self, id: &str, task: &mut Task, piece: &Piece) -> Result<(), Unwanted> {
        let source = task.source.name.clone();
        let mut at = piece.from;
        while at < piece.to {
            self.give_way(id)?;
            let span = match self.read(piece, at) {
                Ok(span) => span,
                Err(error) => {
                    let what = format!("it cannot be read: {error}");
                    let range = Some((at, piece.to));
                    self.problem(id, Problem { source, file: Some(piece.path.clone()), range, what });
                    return Ok(());
                }
            };
            let pack = self.pack(id, task, piece, at, span);
            let to = at + span as u64;
            let way =
                OnTheWay { source: source.clone(), path: piece.path.clone(), from: at, to, is_done: false };
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

    fn pack(&mut self, id: &str, task: &mut Task, piece: &Piece, at: u64, span: usize) -> Outgoing {
        let number = self.numbers.entry((task.source.name.clone(), piece.hour)).or_default();
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
            source: task.name.clone(),
            hour_ranges: Vec::new(),
        };
        self.outgoing(id, task, job)
    }

    fn outgoing(&mut self, id: &str, task: &mut Task, job: Job) -> Outgoing {
        let ticket = job.ticket;
        let Parts { labels, rules, compressor, .. } = &mut self.parts;
        let (mut pack, buffer) = compress::build_pack(labels, rules.get(&task.name), compressor, job);
        self.buffer = buffer;
        pack.header.repull = true;
        pack.header.origin_rest.insert(JOB_KEY.to_owned(), id.into());
        if let Some(replacement) = &mut task.replacement {
            replacement.take(&mut pack.header);
        }
        let stream = stream_of(&pack);
        Outgoing { ticket, stream, header: pack.encode_header(), body: pack.body }
    }

    /// The done pack of the hour, once more: it tells the store what the hour has, and ends a replacement.
    fn ship_done(&mut self, id: &str, task: &mut Task, closed: Closed) -> Result<(), Unwanted> {
        let Closed { total, at, ranges, hour } = closed;
        self.last_ticket += 1;
        let job = Job {
            ticket: self.last_ticket,
            load: Load::Mark { done: true },
            buffer: Vec::new(),
            cut: Cut { offset: at.end, span: 0, sum: 0, lines: 0, hour, id: total },
            lead: Lead::default(),
            stream: at.stream,
            first: at.first,
            source: task.name.clone(),
            hour_ranges: ranges,
        };
        let pack = self.outgoing(id, task, job);
        let source = task.source.name.clone();
        self.send(id, pack, OnTheWay { source, path: PathBuf::new(), from: 0, to: 0, is_done: true })?;
        self.wait_for_all(id)
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
        let Some(OnTheWay { source, path, from, to, is_done }) = self.on_the_way.remove(&settled.ticket)
        else {
            return;
        };
        let what = match settled.outcome {
            Outcome::Ok | Outcome::Duplicate if is_done => None,
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
            let (file, range) = ((!is_done).then_some(path), (!is_done).then_some((from, to)));
            self.problem(id, Problem { source, file, range, what });
        }
    }

    fn problem(&self, id: &str, problem: Problem) {
        counter!("logferry_tailer_repull_problems_total").increment(1);
        warn!(id, source = problem.source, file = ?problem.file, range = ?problem.range, "repull: {}", problem.what);
        self.parts.desk.change(id, |job| job.add_problem(problem));
    }
}

fn stream_of(pack: &Pack) -> StreamId {
    pack.header.ours.as_ref().map_or(StreamId(0), |ours| ours.identity.stream)
}

/// Why an hour cannot be replaced by these pieces.
fn hindrance(is_whole: bool, closed: Option<&Closed>, pieces: &[Piece]) -> Option<String> {
    let Some(closed) = closed else {
        return Some(
            "the hour is not over, or not all of its packs are acknowledged: it can be replaced after its done pack".to_owned(),
        );
    };
    let all: u64 = closed.ranges.iter().map(|range| range.to - range.from).sum();
    let there: u64 = pieces.iter().map(|piece| piece.to - piece.from).sum();
    if !is_whole || (all > 0 && all != there) {
        return Some(format!(
            "not all of the hour is on this host any more ({there} bytes are), so nothing is replaced: repull without --replace"
        ));
    }
    None
}
