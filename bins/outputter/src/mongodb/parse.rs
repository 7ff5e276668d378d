//! Makes documents of packs, on several threads, and gives them on in the order of the packs.

use super::MongodbOptions;
use super::bson::RawDocumentBuf;
use super::dead_letter::Letter;
use super::document::{self, DOCUMENT_BYTES_MAX, ID_BYTES};
use super::progress::Progress;
use crate::outputs::away::{Stored, ToStore};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use logferry_pack::{Decompressor, Limits, Ours};
use logferry_transform::{Document, Origin, Outcome, Runner, text};
use metrics::{Counter, counter};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// A document on its way.
pub(super) struct Doc {
    /// The document: whole, with its `_id`, or what is to be set (mode upsert).
    pub(super) bson: RawDocumentBuf,
    /// What `_id` is, derived.
    pub(super) id: [u8; ID_BYTES],
    /// The value of the key, as a document of one field (mode upsert).
    pub(super) filter: Option<RawDocumentBuf>,
    /// Documents with the same number are written in order.
    pub(super) lane: usize,
    pub(super) progress: Arc<Progress>,
    /// Where the line stands in the body.
    line: Range<usize>,
}

impl Doc {
    /// Bytes that it takes in a write.
    pub(super) fn bytes(&self) -> usize {
        self.bson.as_bytes().len() + self.filter.as_ref().map_or(0, |filter| filter.as_bytes().len() + 64)
    }

    /// For the dead-letter file.
    pub(super) fn letter(&self, reason: String) -> Letter {
        self.progress.letter(reason, self.line.clone())
    }
}

/// All documents of a pack.
pub(super) struct Parsed {
    pub(super) docs: Vec<Doc>,
    /// Lines that make none.
    pub(super) letters: Vec<Letter>,
    pub(super) progress: Arc<Progress>,
}

/// What the parsing threads share.
pub(super) struct Parsers {
    /// Packs by their numbers in order.
    pub(super) jobs: Receiver<(u64, ToStore)>,
    /// What became of each number.
    pub(super) done: UnboundedSender<(u64, Option<Parsed>)>,
    pub(super) stored: UnboundedSender<Stored>,
    pub(super) options: Arc<MongodbOptions>,
    pub(super) limits: Limits,
}

struct Counters {
    documents: Counter,
    dropped: Counter,
    unparsed: Counter,
}

/// Starts threads that end when the jobs end.
pub(super) fn start(parsers: Parsers, threads: usize) -> anyhow::Result<()> {
    let parsers = Arc::new(parsers);
    for number in 0..threads.max(1) {
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
        let counters =
            Counters { documents: count("document"), dropped: count("dropped"), unparsed: count("unparsed") };
        while let Ok((number, job)) = self.jobs.recv() {
            let parsed = self.parse(&mut runner, &mut decompressor, &counters, job);
            if self.done.send((number, parsed)).is_err() {
                return;
            }
        }
    }

    fn parse(
        &self,
        runner: &mut Runner,
        decompressor: &mut Decompressor,
        counters: &Counters,
        job: ToStore,
    ) -> Option<Parsed> {
        let ToStore { ticket, pack } = job;
        let Some(ours) = &pack.header.ours else {
            let _ = self.stored.send(Stored::Refused(ticket, "no_stream".into()));
            return None;
        };
        let mut raw = Vec::new();
        if let Err(bad) = decompressor.decompress(&pack, &self.limits, &mut raw) {
            tracing::warn!(stream = %ours.identity.stream, offset = ours.identity.offset, "pack refused: {bad}");
            let _ = self.stored.send(Stored::Refused(ticket, bad.reason().to_owned()));
            return None;
        }
        let (body, hour) = (Bytes::from(raw), pack.header.hour.to_string());
        let stream = ours.identity.stream.to_string();
        let origin = Origin::new(ours.host.as_str(), ours.source.as_str(), &hour, &stream);
        let progress = Progress::new(ticket, ours, &hour, body.clone(), &self.options, self.stored.clone());
        let mut parsed = Parsed { docs: Vec::new(), letters: Vec::new(), progress: Arc::new(progress) };
        let mut from = 0;
        for end in line_ends(&body) {
            let line = from..end;
            from = end;
            match self.document(runner, ours, &origin, &parsed.progress, line.clone()) {
                Ok(Some(doc)) => parsed.docs.push(doc),
                Ok(None) => counters.dropped.increment(1),
                Err(reason) => {
                    counters.unparsed.increment(1);
                    parsed.letters.push(parsed.progress.letter(reason, line));
                }
            }
        }
        counters.documents.increment(parsed.docs.len() as u64);
        parsed.progress.expect(parsed.docs.len() + usize::from(!parsed.letters.is_empty()));
        Some(parsed)
    }

    /// The document of a line, or none, or why not.
    fn document(
        &self,
        runner: &mut Runner,
        ours: &Ours,
        origin: &Origin,
        progress: &Arc<Progress>,
        line: Range<usize>,
    ) -> Result<Option<Doc>, String> {
        // With lines left out on the host this is not the line's own offset, but still one of its pack that no other line has.
        let offset = ours.identity.offset + line.start as u64;
        let bytes = progress.body.slice(line.clone());
        let document = match runner.run(&bytes, origin, offset) {
            Outcome::Document(document) => document,
            Outcome::Dropped => return Ok(None),
            Outcome::Failed(reason) if self.options.store_unparsed => unparsed(&bytes, origin, reason),
            Outcome::Failed(reason) => return Err(reason),
        };
        let id = document::id(ours.identity.stream, offset, &bytes);
        let (bson, filter, lane) = match &self.options.key {
            None => (document::with_id(&id, &document)?, None, 0),
            Some(key) => {
                let value = document.get(key.as_str());
                let value = value.ok_or_else(|| format!("the document has no {key:?} to merge it by"))?;
                let mut filter = RawDocumentBuf::new();
                document::append(&mut filter, key, value)?;
                let lane = crc32c::crc32c(filter.as_bytes()) as usize % self.options.savers;
                (document::plain(&document)?, Some(filter), lane)
            }
        };
        if bson.as_bytes().len() > DOCUMENT_BYTES_MAX {
            return Err(format!("a document of {} bytes is over the server's limit", bson.as_bytes().len()));
        }
        Ok(Some(Doc { bson, id, filter, lane, progress: progress.clone(), line }))
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
