//! Makes documents of packs, on several threads, and gives them on in the order of the packs: slice by slice, so that neither a large
//! pack nor one of many short lines takes more memory than there is.

use super::MongodbOptions;
use super::bson::{Bson, RawDocumentBuf};
use super::dead_letter::Letter;
use super::document::{self, DOCUMENT_BYTES_MAX, Id, Place};
use super::progress::Progress;
use super::room::{Held, Room, Turn};
use crate::outputs::away::{Stored, ToStore};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use logferry_pack::{Decompressor, Limits, Ours};
use logferry_transform::{Document, Origin, Outcome, Runner, Value, text};
use metrics::{Counter, counter};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Memory of a document beside its bytes: what tells of it, and the slack of the list that it is in.
const DOC_COST: usize = 256;
/// How often its bytes are in memory: itself, and the driver's copies on the way to the socket.
const DOC_COPIES: usize = 3;
/// Memory of a letter beside its line, and how often the line is in memory as text.
const LETTER_COST: usize = 1024;
const LETTER_COPIES: usize = 4;

/// A document on its way.
pub(super) struct Doc {
    /// The document: whole, with its `_id`, or what is to be set (mode upsert).
    pub(super) bson: RawDocumentBuf,
    /// Its `_id` is its own, not a derived one.
    pub(super) has_own_id: bool,
    /// The value of the key, as a document of one field (mode upsert).
    pub(super) filter: Option<RawDocumentBuf>,
    /// Documents with the same number are written in order.
    pub(super) lane: usize,
    pub(super) progress: Arc<Progress>,
    /// Where the line stands in the body.
    line: Range<usize>,
    /// Its memory, with that of the others in its slice.
    held: Option<Arc<Held>>,
}

impl Doc {
    /// Bytes that it takes in a write.
    pub(super) fn bytes(&self) -> usize {
        self.bson.as_bytes().len() + self.filter.as_ref().map_or(0, |filter| filter.as_bytes().len() + 64)
    }

    /// The `_id` that it has at the server (mode insert).
    pub(super) fn stored_id(&self) -> Option<Bson> {
        let id = self.bson.get("_id").ok()??;
        Bson::try_from(id).ok()
    }

    /// For the dead-letter file.
    pub(super) fn letter(&self, reason: String) -> Letter {
        self.progress.letter(reason, self.line.clone())
    }
}

/// Documents of a part of a pack.
pub(super) struct Slice {
    pub(super) docs: Vec<Doc>,
    /// Lines that make none.
    pub(super) letters: Vec<Letter>,
    pub(super) progress: Arc<Progress>,
    /// Its memory.
    pub(super) held: Option<Arc<Held>>,
    cost: usize,
}

impl Slice {
    fn new(progress: &Arc<Progress>) -> Slice {
        Slice { docs: Vec::new(), letters: Vec::new(), progress: progress.clone(), held: None, cost: 0 }
    }
}

/// What the parsing threads share.
pub(super) struct Parsers {
    /// Packs by their numbers in order.
    pub(super) jobs: Receiver<(u64, ToStore)>,
    /// Slices, in the order of the packs.
    pub(super) slices: UnboundedSender<Slice>,
    pub(super) stored: UnboundedSender<Stored>,
    pub(super) options: Arc<MongodbOptions>,
    pub(super) limits: Limits,
    pub(super) turn: Turn,
    /// For slices that were given on.
    pub(super) room: Arc<Room>,
    /// Cost from which a slice is given on.
    pub(super) slice_cost: usize,
}

struct Counters {
    documents: Counter,
    dropped: Counter,
    unparsed: Counter,
    dead: Counter,
}

/// Starts threads that end when the jobs end.
pub(super) fn start(parsers: Parsers, threads: usize) -> anyhow::Result<()> {
    let parsers = Arc::new(parsers);
    for number in 0..threads {
        let parsers = parsers.clone();
        let runner = Runner::new(parsers.options.transform.clone(), &parsers.options.zone)?;
        let thread = std::thread::Builder::new().name(format!("parse-{number}"));
        thread.spawn(move || parsers.run(runner))?;
    }
    Ok(())
}

impl Parsers {
    fn run(&self, mut runner: Runner) {
        let mut decompressor = Decompressor::new();
        let count = |what: &'static str| counter!("logferry_mongodb_lines_total", "outcome" => what);
        let counters = Counters {
            documents: count("document"),
            dropped: count("dropped"),
            unparsed: count("unparsed"),
            dead: counter!("logferry_mongodb_dead_letters_total"),
        };
        while let Ok((number, job)) = self.jobs.recv() {
            self.parse(&mut runner, &mut decompressor, &counters, number, job);
            self.turn.done(number);
        }
    }

    fn parse(
        &self,
        runner: &mut Runner,
        decompressor: &mut Decompressor,
        counters: &Counters,
        number: u64,
        job: ToStore,
    ) {
        let ToStore { ticket, pack } = job;
        let Some(ours) = &pack.header.ours else {
            let _ = self.stored.send(Stored::Refused(ticket, "no_stream".into()));
            return;
        };
        let mut raw = Vec::new();
        if let Err(bad) = decompressor.decompress(&pack, &self.limits, &mut raw) {
            tracing::warn!(stream = %ours.identity.stream, offset = ours.identity.offset, "pack refused: {bad}");
            let _ = self.stored.send(Stored::Refused(ticket, bad.reason().to_owned()));
            return;
        }
        let (body, hour) = (Bytes::from(raw), pack.header.hour.to_string());
        let stream = ours.identity.stream.to_string();
        let origin = Origin::new(ours.host.as_str(), ours.source.as_str(), &hour, &stream);
        let progress = Progress::new(ticket, ours, &hour, body.clone(), &self.options, self.stored.clone());
        let progress = Arc::new(progress);
        let (mut slice, mut from) = (Slice::new(&progress), 0);
        for (line_number, end) in line_ends(&body).enumerate() {
            let line = from..end;
            from = end;
            let place = place(ours, line_number, line.start);
            match self.document(runner, ours, &origin, &progress, line.clone(), place) {
                Ok(Some(doc)) => {
                    counters.documents.increment(1);
                    slice.cost += DOC_COST + DOC_COPIES * doc.bytes();
                    slice.docs.push(doc);
                }
                Ok(None) => counters.dropped.increment(1),
                Err(reason) => {
                    counters.unparsed.increment(1);
                    counters.dead.increment(1);
                    slice.cost += LETTER_COST + LETTER_COPIES * (line.len() + reason.len());
                    slice.letters.push(progress.letter(reason, line));
                }
            }
            if slice.cost >= self.slice_cost {
                self.give(number, std::mem::replace(&mut slice, Slice::new(&progress)));
            }
        }
        self.give(number, slice);
        // The first of the arrivals that were expected: that all were given on.
        progress.arrived();
    }

    /// Gives a slice on when it is its pack's turn and there is room. Whoever has the turn waits for nothing but savers, so the room is
    /// freed in the end.
    fn give(&self, number: u64, mut slice: Slice) {
        if slice.docs.is_empty() && slice.letters.is_empty() {
            return;
        }
        self.turn.wait(number);
        let held = self.room.take(slice.cost);
        slice.docs.iter_mut().for_each(|doc| doc.held = Some(held.clone()));
        slice.held = Some(held);
        slice.progress.expect(slice.docs.len() + usize::from(!slice.letters.is_empty()));
        // Its taker ends only with the program.
        let _ = self.slices.send(slice);
    }

    /// The document of a line, or none, or why not.
    fn document(
        &self,
        runner: &mut Runner,
        ours: &Ours,
        origin: &Origin,
        progress: &Arc<Progress>,
        line: Range<usize>,
        place: Place,
    ) -> Result<Option<Doc>, String> {
        let offset = ours.identity.offset + line.start as u64;
        let bytes = progress.body.slice(line.clone());
        let document = match runner.run(&bytes, origin, offset) {
            Outcome::Document(document) => document,
            Outcome::Dropped => return Ok(None),
            Outcome::Failed(reason) if self.options.store_unparsed => unparsed(&bytes, origin, reason),
            Outcome::Failed(reason) => return Err(reason),
        };
        let (bson, filter, lane) = match &self.options.key {
            None => {
                let id = Id::new(ours.identity.stream, place, &bytes);
                (document::with_id(&id, &document)?, None, 0)
            }
            Some(key) => {
                let value = document.get(key.as_str());
                let value = value.ok_or_else(|| format!("the document has no {key:?} to merge it by"))?;
                if !is_one_value(value) {
                    let kind = value.kind_str();
                    return Err(format!(
                        "{key:?}, by which documents are merged, is of the type {kind}: it must be one value"
                    ));
                }
                let mut filter = RawDocumentBuf::new();
                document::append(&mut filter, key, value)?;
                let lane = crc32c::crc32c(filter.as_bytes()) as usize % self.options.savers;
                (document::plain(&document)?, Some(filter), lane)
            }
        };
        if bson.as_bytes().len() > DOCUMENT_BYTES_MAX {
            return Err(format!("a document of {} bytes is over the server's limit", bson.as_bytes().len()));
        }
        let has_own_id = document.contains_key("_id");
        Ok(Some(Doc { bson, has_own_id, filter, lane, progress: progress.clone(), line, held: None }))
    }
}

/// Whether a server that looks for it finds documents that have it, and no others: null is also no field, an item of a list, an object may be
/// a condition.
fn is_one_value(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Array(_) | Value::Object(_) | Value::Regex(_))
}

/// What tells a line from all others of its stream. Lines that a program leaves out are counted too, so that another program gives the
/// others the same numbers.
fn place(ours: &Ours, number: usize, start: usize) -> Place {
    let pack = ours.identity.offset;
    match ours.raw == ours.identity.span {
        true => Place::Offset(pack + start as u64),
        // A body has fewer bytes, and so fewer lines.
        false => Place::Line(pack, u32::try_from(number).unwrap_or(u32::MAX)),
    }
}

/// What is stored of a line that does not fit.
fn unparsed(line: &Bytes, origin: &Origin, reason: String) -> Document {
    let mut document = Document::new();
    let end = line.strip_suffix(b"\n").unwrap_or(line).len();
    document.insert("message".into(), text(line.slice(..end)));
    document.insert("error".into(), reason.into());
    origin.add_to(&mut document);
    document
}

/// Where lines end, their newlines included; the last may have none.
fn line_ends(body: &[u8]) -> impl Iterator<Item = usize> {
    let rest = (body.last().is_some_and(|last| *last != b'\n')).then_some(body.len());
    memchr::memchr_iter(b'\n', body).map(|at| at + 1).chain(rest)
}
