//! The worker: a thread that ships one repull after the other, behind what is new.

use super::courier::{Courier, OnTheWay, Unwanted};
use super::desk::Desk;
use super::find::{Finder, Found, Piece};
use super::known::{self, Closed, Known};
use super::replacement::Replacement;
use super::request::{Problem, Request, State};
use crate::body::Lead;
use crate::compress::{self, Labels};
use crate::config::{SourceSettings, TailerConfig};
use crate::event::{Event, Job, Load};
use crate::ledger::record::Cut;
use crate::recut::{self, Recut, Rules};
use crossbeam_channel::{Receiver, Sender as Channel};
use logferry_link::Outgoing;
use logferry_pack::{Compressor, Hour, Name, Pack, StreamId};
use metrics::counter;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::info;

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) config: TailerConfig,
    pub(crate) desk: Arc<Desk>,
    pub(crate) jobs: Receiver<String>,
    pub(crate) follower: Channel<Event>,
    pub(crate) labels: Labels,
    pub(crate) compressor: Compressor,
}

/// What is to be shipped of a source.
struct Task {
    source: SourceSettings,
    name: Name,
    rules: Arc<Rules>,
    pieces: Vec<Piece>,
    /// The whole hour is shipped, and it is over.
    closed: Option<Closed>,
    replacement: Option<Replacement>,
}

/// See the module.
pub(crate) struct Worker {
    parts: Parts,
    courier: Courier,
    buffer: Vec<u8>,
    last_ticket: u64,
    /// Numbers of the packs of this repull, by source and hour.
    numbers: HashMap<(String, Hour), u64>,
}

impl Worker {
    pub(crate) fn new(parts: Parts, courier: Courier) -> Worker {
        let (buffer, numbers) = (Vec::new(), HashMap::new());
        Worker { parts, courier, buffer, last_ticket: super::TICKETS_FROM, numbers }
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
                info!(id, state = %job.state, bytes, taken, there, problems, "a repull is over");
            }
        }
    }

    fn repull(&mut self, id: &str) -> Result<(), Unwanted> {
        let Some(request) = self.parts.desk.progress(id).map(|job| job.request) else { return Err(Unwanted) };
        info!(id, "a repull begins: {request}");
        let mut tasks = Vec::new();
        for source in self.parts.config.source.clone() {
            let is_input = self.parts.desk.sources().refuse(&source.name).is_some();
            if is_input || request.source.as_ref().is_some_and(|name| *name != source.name) {
                continue;
            }
            // The hours of a file are all that it has bytes in.
            let hour = request.hour.filter(|_| request.file.is_none());
            let known = known::ask(&self.parts.follower, &source.name, hour);
            let found = known.and_then(|known| {
                let config = &self.parts.config;
                let rules = Rules::of(config, &source).map_err(anyhow::Error::msg)?;
                let found = Finder::new(&source, &rules, &config.node, &known)?.find(&request);
                Ok((found, known, Arc::new(rules)))
            });
            match found {
                Ok((found, known, rules)) => {
                    let Some(task) = self.task(id, &request, source, found, known, rules) else { continue };
                    tasks.push(task);
                }
                Err(error) => {
                    let what = format!("{error:#}");
                    self.courier.problem(id, Problem { source: source.name, file: None, range: None, what });
                }
            }
        }
        let is_nothing =
            tasks.is_empty() && self.parts.desk.progress(id).is_some_and(|job| job.problems.is_empty());
        if is_nothing {
            let mut what = "no source of this node knows of it".to_owned();
            let inputs = self.parts.desk.sources().inputs();
            if request.source.is_none() && !inputs.is_empty() {
                what.push_str(&format!("; inputs cannot be shipped again: {}", inputs.join(", ")));
            }
            let source = request.source.clone().unwrap_or_else(|| "any".to_owned());
            self.courier
                .problem(id, Problem { source, file: request.file.clone(), range: request.range, what });
        }
        let total = tasks.iter().flat_map(|task| &task.pieces).map(|piece| piece.to - piece.from).sum();
        self.parts.desk.change(id, |job| job.bytes_total = total);
        for mut task in tasks {
            self.work(id, &mut task)?;
        }
        Ok(())
    }

    /// What is to be done for a source, if anything.
    fn task(
        &self,
        id: &str,
        request: &Request,
        source: SourceSettings,
        found: Found,
        known: Known,
        rules: Arc<Rules>,
    ) -> Option<Task> {
        let is_whole = found.problems.is_empty();
        found.problems.into_iter().for_each(|problem| self.courier.problem(id, problem));
        let name = Name::new(source.name.as_str()).ok().filter(|_| !found.pieces.is_empty())?;
        // Files and ranges are parts of an hour.
        let closed = known.closed.filter(|_| request.file.is_none());
        let mut replacement = None;
        if request.replace {
            if let Some(what) = hindrance(is_whole, closed.as_ref(), &found.pieces) {
                let problem = Problem { source: source.name, file: None, range: None, what };
                self.courier.problem(id, problem);
                return None;
            }
            replacement =
                Some(Replacement::new(id, &self.parts.config.node.name, &source.name, request.fewer_lines));
        }
        Some(Task { source, name, rules, pieces: found.pieces, closed, replacement })
    }

    fn work(&mut self, id: &str, task: &mut Task) -> Result<(), Unwanted> {
        let problems = self.courier.problems(id);
        for piece in std::mem::take(&mut task.pieces) {
            self.ship(id, task, &piece)?;
        }
        self.courier.wait_for_all(id)?;
        while let Some(piece) = self.courier.to_halve.pop() {
            self.ship_halves(id, task, &piece)?;
            self.courier.wait_for_all(id)?;
        }
        // It says what the hour has, so it comes when all that is there.
        let Some(closed) = task.closed.take() else { return Ok(()) };
        if task.replacement.is_some() && self.courier.problems(id) > problems {
            let what = "nothing was replaced, because not all of the hour could be shipped".to_owned();
            self.courier
                .problem(id, Problem { source: task.source.name.clone(), file: None, range: None, what });
            return Ok(());
        }
        self.ship_done(id, task, closed)
    }

    fn ship(&mut self, id: &str, task: &mut Task, piece: &Piece) -> Result<(), Unwanted> {
        let rules = task.rules.clone();
        let mut at = piece.from;
        let mut shipped = || -> io::Result<Result<(), Unwanted>> {
            let mut recut = Recut::new(&rules, &piece.file, piece.from, piece.to)?;
            loop {
                if let Err(unwanted) = self.courier.give_way(id) {
                    return Ok(Err(unwanted));
                }
                let Some((cut, lead)) = recut.next(&mut self.buffer)? else { return Ok(Ok(())) };
                if let Err(unwanted) = self.ship_buffer(id, task, piece, lead, cut.span, cut.lines) {
                    return Ok(Err(unwanted));
                }
                at = cut.offset + cut.span as u64;
            }
        };
        shipped().unwrap_or_else(|error| {
            self.cannot_be_read(id, task, &Piece { from: at, ..piece.clone() }, &error);
            Ok(())
        })
    }

    /// Ships what one pack had been in two, parted between two lines. What the next tier has a part of, too, comes here again.
    fn ship_halves(&mut self, id: &str, task: &mut Task, piece: &Piece) -> Result<(), Unwanted> {
        self.courier.give_way(id)?;
        let rules = task.rules.clone();
        let span = (piece.to - piece.from) as usize;
        self.buffer.resize(span.max(self.buffer.len()), 0);
        let read = recut::read_all(&piece.file, piece.from, &mut self.buffer[..span]);
        let lead = match read.and_then(|()| rules.lead(&piece.file, piece.from)) {
            Ok(lead) => lead,
            Err(error) => {
                self.cannot_be_read(id, task, piece, &error);
                return Ok(());
            }
        };
        let newline = rules.cutting.encoding().newline(lead.big_endian_by_mark);
        let Some(middle) = rules.body.middle(&self.buffer[..span], lead) else {
            let (source, file) = (task.source.name.clone(), Some(piece.path.clone()));
            let what =
                "the store has a part of this line or entry, and what is filtered or decoded cannot be parted: replace the hour"
                    .to_owned();
            self.courier.problem(id, Problem { source, file, range: Some((piece.from, piece.to)), what });
            self.parts.desk.change(id, |job| job.bytes_done += piece.to - piece.from);
            return Ok(());
        };
        let second = self.buffer[middle..span].to_vec();
        let lines = newline.count(&self.buffer[..middle], lead.offset);
        self.ship_buffer(id, task, piece, lead, middle, lines)?;
        let lead = Lead { offset: lead.offset + middle as u64, line_bytes_before: 0, line: None, ..lead };
        let lines = newline.count(&second, lead.offset);
        self.buffer[..second.len()].copy_from_slice(&second);
        self.ship_buffer(id, task, piece, lead, second.len(), lines)
    }

    /// Ships the first bytes of the buffer, which are those of the piece that `lead` is of.
    fn ship_buffer(
        &mut self,
        id: &str,
        task: &mut Task,
        piece: &Piece,
        lead: Lead,
        span: usize,
        lines: u64,
    ) -> Result<(), Unwanted> {
        let pack = self.pack(id, task, piece, lead, span, lines);
        let (from, to) = (lead.offset, lead.offset + span as u64);
        let halves_of = task.replacement.is_none().then(|| Piece { from, to, ..piece.clone() });
        let (source, path) = (task.source.name.clone(), piece.path.clone());
        self.courier.send(id, pack, OnTheWay { source, path, from, to, is_done: false, halves_of })?;
        self.courier.pay(span as u64);
        Ok(())
    }

    fn cannot_be_read(&self, id: &str, task: &Task, piece: &Piece, error: &io::Error) {
        let (source, file) = (task.source.name.clone(), Some(piece.path.clone()));
        let what = format!("it cannot be read: {error}");
        self.courier.problem(id, Problem { source, file, range: Some((piece.from, piece.to)), what });
    }

    fn pack(
        &mut self,
        id: &str,
        task: &mut Task,
        piece: &Piece,
        lead: Lead,
        span: usize,
        lines: u64,
    ) -> Outgoing {
        let number = self.numbers.entry((task.source.name.clone(), piece.hour)).or_default();
        *number += 1;
        let (offset, sum) = (lead.offset, crc32c::crc32c(&self.buffer[..span]));
        let cut = Cut { offset, span: span as u64, sum, lines, hour: piece.hour, id: *number };
        self.last_ticket += 1;
        let job = Job {
            ticket: self.last_ticket,
            load: Load::Lines,
            buffer: std::mem::take(&mut self.buffer),
            cut,
            lead,
            stream: piece.stream,
            first: piece.first.min(offset),
            source: task.name.clone(),
            hour_ranges: Vec::new(),
        };
        self.outgoing(id, task, job)
    }

    fn outgoing(&mut self, id: &str, task: &mut Task, job: Job) -> Outgoing {
        let ticket = job.ticket;
        let Parts { labels, compressor, .. } = &mut self.parts;
        let (mut pack, buffer) = compress::build_pack(labels, Some(&task.rules.body), compressor, job);
        self.buffer = buffer;
        pack.header.set_repull_job(id);
        if let Some(replacement) = &mut task.replacement {
            replacement.take(&mut pack.header);
        }
        let stream = stream_of(&pack);
        Outgoing { ticket, stream, apart: true, header: pack.encode_header(), body: pack.body }
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
        self.courier.send(
            id,
            pack,
            OnTheWay { source, path: PathBuf::new(), from: 0, to: 0, is_done: true, halves_of: None },
        )?;
        self.courier.wait_for_all(id)
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
