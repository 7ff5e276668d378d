//! The ledger: everything the tailer must not forget, as a pure state machine over records.
//!
//! Each change is a [`Record`] that is applied in memory and handed out by [`Ledger::take_records`], so that
//! reading the log back is the same code as living through it.

mod change;
mod counted;
pub mod hours;
pub mod looks;
mod marks;
mod names;
pub mod owed;
pub mod past;
pub mod ranges;
pub mod record;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod unseen;

use crate::identity::{FileKey, Head, stream_id};
use counted::Counted;
use hours::{HourBook, Position};
use logferry_durable::Recovered;
use logferry_footprint::Remembered;
use logferry_pack::{Hour, StreamId};
use looks::Looks;
use names::StreamNames;
use owed::Owed;
use past::{PastFile, PastFiles};
use ranges::HourRanges;
use record::{Cut, KeptCut, Mark, Met, Record, Snapshot, decode, decode_snapshot, encode, encode_snapshot};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use stream::{Entry, Fate, Stream};
use unseen::FirstLook;

/// Ids of earlier generations that are remembered for each file.
const PAST_STREAMS_MAX: usize = 64;

/// How the next tier settled a pack, as far as the ledger goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It took it.
    Taken,
    /// It had it.
    Duplicate,
    /// It refused it for good, and it is in quarantine.
    Quarantined,
    /// It has something else there.
    Conflict(Remembered),
}

/// What a settled pack changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The ticket is of a pack that was cut anew since: nothing.
    Stale,
    /// Settled.
    Settled(StreamId),
    /// A pack without lines was settled.
    MarkSettled,
    /// A conflict waits to be dealt with.
    Conflict(StreamId),
}

/// Where a new stream comes from.
#[derive(Clone, Debug)]
pub struct Meeting<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Bytes of the path.
    pub path: &'a [u8],
    /// The file.
    pub key: FileKey,
    /// Its first line.
    pub head: Head,
    /// Offset at which shipping begins.
    pub first: u64,
}

/// What a ticket stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ticket {
    /// The pack of a stream at an offset.
    Pack(StreamId, u64),
    /// A pack without lines.
    Mark(Mark),
}

impl Ticket {
    fn is_of(&self, stream: StreamId) -> bool {
        matches!(self, Ticket::Pack(owner, _) if *owner == stream)
    }
}

/// The state of a tailer.
#[derive(Debug, Default)]
pub struct Ledger {
    host: String,
    suspect: bool,
    undecodable: u64,
    sources: BTreeSet<String>,
    unseen: BTreeMap<String, FirstLook>,
    streams: BTreeMap<StreamId, Stream>,
    current: HashMap<FileKey, StreamId>,
    hours: HourBook,
    past_files: PastFiles,
    ranges: HourRanges,
    /// Compressed files whose content is known, and files that are not shipped.
    known_looks: Looks,
    missed_looks: Looks,
    /// Compressed files that are to be read.
    owed: BTreeMap<FileKey, Owed>,
    missed_since: Option<i64>,
    /// Streams by the hashes of their first lines, oldest first.
    by_head: HashMap<u128, Vec<StreamId>>,
    /// Lengths of their first lines, by source.
    head_lengths: BTreeMap<String, Counted<u16>>,
    by_name: StreamNames,
    /// Streams by the files that they are or were in.
    by_key: HashMap<FileKey, BTreeSet<StreamId>>,
    /// Streams that no file has the bytes of any more.
    orphans: BTreeSet<StreamId>,
    /// Packs without lines that are not settled.
    marks: BTreeMap<Mark, Fate>,
    /// What is on its way.
    tickets: HashMap<u64, Ticket>,
    last_ticket: u64,
    records: Vec<Record>,
}

/// Whether the file of a generation is that of a later one. What is in no file that is known may be in one of its own.
fn is_overtaken(past: &Stream, key: FileKey) -> bool {
    past.met.key == key && key != FileKey::NOWHERE
}

impl Ledger {
    /// The state that a log gave back. Damage is taken as missing records; see [`Ledger::is_suspect`].
    pub fn recover(host: &str, recovered: &Recovered) -> Ledger {
        let mut ledger = Ledger { host: host.to_owned(), ..Ledger::default() };
        if let Some(payload) = &recovered.snapshot {
            match decode_snapshot(payload) {
                Some(snapshot) => ledger.restore(snapshot),
                None => ledger.undecodable += 1,
            }
        }
        for payload in &recovered.records {
            match decode(payload) {
                Some(record) => ledger.apply(record),
                None => ledger.undecodable += 1,
            }
        }
        ledger.suspect = recovered.report.is_suspect() || ledger.undecodable > 0;
        ledger
    }

    /// Whether state may be missing. What is there is true all the same: a frontier was acknowledged, a pack was cut.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Records that could not be read, by their content.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Records since the last call, as payloads, in order.
    pub fn take_records(&mut self) -> Vec<Vec<u8>> {
        self.records.drain(..).map(|record| encode(&record)).collect()
    }

    /// Everything, with the records that were not taken yet.
    pub fn snapshot(&self) -> Vec<u8> {
        encode_snapshot(&Snapshot {
            sources: self.sources.clone(),
            streams: self.streams.values().map(Stream::snapshot).collect(),
            hours: self.hours.clone(),
            marks: self.marks.keys().cloned().collect(),
            past_files: self.past_files.clone(),
            seen: self.streams.values().filter_map(Stream::seen_file).collect(),
            ranges: self.ranges.clone(),
            unseen: self.unseen.values().cloned().collect(),
            looks: (self.known_looks.list(), self.missed_looks.list()),
            owed: self.owed.values().cloned().collect(),
            missed_since: self.missed_since,
        })
    }

    fn restore(&mut self, snapshot: Snapshot) {
        self.sources = snapshot.sources;
        self.hours = snapshot.hours;
        self.marks = snapshot.marks.into_iter().map(|mark| (mark, Fate::Unsent)).collect();
        self.past_files = snapshot.past_files;
        self.past_files.index();
        self.ranges = snapshot.ranges;
        self.unseen = snapshot.unseen.into_iter().map(|look| (look.source.clone(), look)).collect();
        let (known, missed) = snapshot.looks;
        (self.known_looks, self.missed_looks) = (Looks::of(known), Looks::of(missed));
        for stream in snapshot.streams {
            self.begin(Stream::restored(stream));
        }
        self.order_generations();
        self.owed = snapshot.owed.into_iter().map(|owed| (owed.key, owed)).collect();
        self.missed_since = snapshot.missed_since;
        for seen in snapshot.seen {
            self.saw(seen.stream, seen.size, seen.touched_ns);
            if let Some(stream) = self.streams.get_mut(&seen.stream) {
                stream.left = seen.size;
            }
        }
    }

    /// Of the generations of a file all but the last are orphans, in whatever order they were restored.
    fn order_generations(&mut self) {
        let past_of = |stream: &Stream| {
            let key = stream.met.key;
            stream.met.past.iter().map(move |past| (key, *past)).collect::<Vec<_>>()
        };
        for (key, past) in self.streams.values().flat_map(past_of).collect::<Vec<_>>() {
            if let Some(past) = self.streams.get_mut(&past).filter(|past| is_overtaken(past, key)) {
                past.orphan = true;
                self.orphans.insert(past.met.stream);
            }
        }
        let last = self.streams.values().filter(|stream| !stream.orphan);
        self.current.extend(last.map(|stream| (stream.met.key, stream.met.stream)));
    }

    fn begin(&mut self, stream: Stream) {
        for past in &stream.met.past {
            // One whose bytes are in another file by now can still be read there.
            let past = self.streams.get_mut(past).filter(|past| is_overtaken(past, stream.met.key));
            if let Some(past) = past {
                past.orphan = true;
                self.orphans.insert(past.met.stream);
            }
        }
        for key in std::iter::once(&stream.met.key).chain(&stream.was) {
            self.by_key.entry(*key).or_default().insert(stream.met.stream);
        }
        self.by_head.entry(stream.met.head.hash).or_default().push(stream.met.stream);
        self.by_name.list(&stream.met);
        self.head_lengths.entry(stream.met.source.clone()).or_default().add(stream.met.head.length);
        self.owed.remove(&stream.met.key);
        self.current.insert(stream.met.key, stream.met.stream);
        self.streams.insert(stream.met.stream, stream);
    }

    fn end(&mut self, stream: StreamId) {
        let Some(stream) = self.streams.remove(&stream) else { return };
        let id = stream.met.stream;
        self.orphans.remove(&id);
        self.by_name.unlist(&stream.met);
        let lengths = self.head_lengths.get_mut(&stream.met.source);
        lengths.into_iter().for_each(|lengths| lengths.remove(stream.met.head.length));
        if self.current.get(&stream.met.key) == Some(&id) {
            self.current.remove(&stream.met.key);
        }
        for key in std::iter::once(&stream.met.key).chain(&stream.was) {
            if let Some(streams) = self.by_key.get_mut(key) {
                streams.remove(&id);
                if streams.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        if let Some(alike) = self.by_head.get_mut(&stream.met.head.hash) {
            alike.retain(|other| *other != id);
            if alike.is_empty() {
                self.by_head.remove(&stream.met.head.hash);
            }
        }
    }

    fn finished(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id) {
            let shipped = stream.tail.map_or(stream.met.first, |tail| tail.end());
            // What a file holds whose stream was cut off is something else by now: it is not that stream's file any more.
            let own =
                if stream.orphan { vec![FileKey::NOWHERE, stream.met.key] } else { vec![stream.met.key] };
            let keys = [own.as_slice(), stream.was.as_slice()].concat();
            let (head, path) = (stream.met.head, stream.met.path.clone());
            let file = PastFile { stream: id, keys, path, head, length: shipped, tail: stream.tail };
            self.past_files.push(&stream.met.source, file);
        }
        self.end(id);
    }

    fn write(&mut self, record: Record) {
        self.apply(record.clone());
        self.records.push(record);
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::SourceStarted(source) => {
                self.sources.insert(source);
            }
            Record::Met(met) if self.streams.contains_key(&met.stream) => {}
            Record::Met(met) => self.begin(Stream::new(met)),
            Record::Cut { stream, cut } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.push(cut);
                    self.hours.given(&stream.met.source, cut.hour, cut.id, position(stream, &cut));
                    let (hour, range) = ((cut.hour, cut.id), (cut.offset, cut.end()));
                    self.ranges.note(&stream.met.source, hour, stream.met.stream, range);
                }
            }
            Record::Frontier { stream, frontier, tail } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.set_frontier(frontier, tail);
                }
            }
            Record::Recut { stream, frontier, cuts } => self.apply_recut(stream, frontier, &cuts),
            Record::Replaced { old, new, cuts } => {
                self.ranges.cut_back(&new.source, old, new.first);
                self.end(old);
                let (stream, first) = (new.stream, new.first);
                self.begin(Stream::new(new));
                self.apply_recut(stream, first, &cuts);
            }
            Record::Finished(stream) => self.finished(stream),
            Record::MissedSince(since) => self.missed_since = since,
            Record::Owed(owed) => _ = self.owed.insert(owed.key, owed),
            Record::Rehomed { .. } | Record::CopyKnown { .. } => self.apply_past(record),
            Record::Unseen(_) | Record::AllSeen(_) => self.apply_unseen(record),
            Record::ContentKnown { .. } | Record::Missed { .. } => self.apply_look(&record),
            Record::Marked(_)
            | Record::MarkTaken { .. }
            | Record::GivenBack { .. }
            | Record::HoursDue { .. } => self.apply_mark(record),
        }
    }

    fn apply_recut(&mut self, stream: StreamId, frontier: u64, cuts: &[KeptCut]) {
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        stream.set_entries(Vec::new());
        let tail = stream.tail.filter(|_| frontier == stream.frontier);
        stream.set_frontier(frontier, tail);
        self.ranges.cut_back(&stream.met.source, stream.met.stream, frontier);
        for kept in cuts {
            stream.push(kept.cut);
            stream.set_fate(kept.cut.offset, Entry::kept(kept).fate);
            self.hours.given(&stream.met.source, kept.cut.hour, kept.cut.id, position(stream, &kept.cut));
            let (hour, range) = ((kept.cut.hour, kept.cut.id), (kept.cut.offset, kept.cut.end()));
            self.ranges.note(&stream.met.source, hour, stream.met.stream, range);
        }
    }

    /// Whether a source was looked at before, so that files that are new now are new indeed. After damage nothing is
    /// known to be a first time.
    pub fn is_source_started(&self, source: &str) -> bool {
        self.suspect || self.sources.contains(source)
    }

    /// The files of a source were looked at.
    pub fn source_started(&mut self, source: &str) {
        if !self.sources.contains(source) {
            self.write(Record::SourceStarted(source.to_owned()));
        }
    }

    /// A stream.
    pub fn stream(&self, stream: StreamId) -> Option<&Stream> {
        self.streams.get(&stream)
    }

    /// All streams that are not finished.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// How the file of a stream looks now: kept in snapshots, so that a restart need not read what did not change.
    pub fn saw(&mut self, stream: StreamId, size: u64, touched_ns: i64) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.seen = Some((size, touched_ns));
        }
    }

    /// The file of a stream had this length, and its bytes are not there any more.
    pub fn left_at(&mut self, stream: StreamId, size: u64) {
        // No file looks like this: the time of its change is not known.
        self.saw(stream, size, 0);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.left = size;
        }
    }

    /// Bytes above `from` that the file of a stream had when it was left and that are in no pack: they are lost. Told once.
    pub fn take_unread(&mut self, stream: StreamId, from: u64) -> u64 {
        let Some(stream) = self.streams.get_mut(&stream) else { return 0 };
        let unread = stream.unread(from);
        if unread > 0 {
            (stream.left, stream.seen) = (0, None);
        }
        unread
    }

    /// Streams that no file has the bytes of any more, and that are not finished.
    pub fn orphans(&self) -> impl Iterator<Item = &Stream> {
        self.orphans.iter().filter_map(|id| self.streams.get(id))
    }

    /// Which bytes were shipped in which hour.
    pub fn ranges(&self) -> &HourRanges {
        &self.ranges
    }

    /// The stream that a file is in its present generation.
    pub fn current(&self, key: FileKey) -> Option<StreamId> {
        self.current.get(&key).copied()
    }

    /// Whether a stream that is not finished was in a file before, and its bytes are elsewhere by now.
    pub fn was_left(&self, key: FileKey) -> bool {
        let was_in = self.by_key.get(&key).into_iter().flatten();
        was_in.filter_map(|id| self.streams.get(id)).any(|stream| stream.met.key != key)
    }

    /// Packs on their way.
    pub fn unsettled(&self) -> usize {
        self.tickets.len()
    }

    /// A new stream: the first generation of the file whose id was not used yet. Earlier streams of the file become
    /// orphans.
    pub fn meet(&mut self, meeting: &Meeting<'_>) -> StreamId {
        let past = self.past(meeting.key);
        let met = self.generation(meeting, 0, past);
        let stream = met.stream;
        self.write(Record::Met(met));
        stream
    }

    fn past(&self, key: FileKey) -> Vec<StreamId> {
        let mut past: Vec<StreamId> = Vec::new();
        let was_in = self.by_key.get(&key).into_iter().flatten();
        for stream in was_in.filter_map(|id| self.streams.get(id)) {
            past.extend(&stream.met.past);
            past.push(stream.met.stream);
        }
        past.extend(self.past_files.streams_of(key));
        past.sort();
        past.dedup();
        let surplus = past.len().saturating_sub(PAST_STREAMS_MAX);
        past.drain(..surplus);
        past
    }

    fn generation(&self, meeting: &Meeting<'_>, least: u32, past: Vec<StreamId>) -> Met {
        let mut generation = least;
        let mut stream = stream_id(&self.host, meeting.key, generation, &meeting.head);
        while past.contains(&stream) {
            generation += 1;
            stream = stream_id(&self.host, meeting.key, generation, &meeting.head);
        }
        Met {
            stream,
            source: meeting.source.to_owned(),
            path: meeting.path.to_vec(),
            key: meeting.key,
            head: meeting.head,
            generation,
            first: meeting.first,
            past,
        }
    }

    /// Numbers and journals a pack that begins where the last one ended.
    pub fn cut(&mut self, stream: StreamId, span: u64, sum: u32, lines: u64, hour: Hour) -> Option<Cut> {
        let found = self.streams.get(&stream)?;
        let id = self.hours.next(&found.met.source, hour);
        let cut = Cut { offset: found.cut_end(), span, sum, lines, hour, id };
        self.write(Record::Cut { stream, cut });
        Some(cut)
    }

    /// A fresh number for a part of a pack.
    pub fn number(&mut self, stream: StreamId, hour: Hour) -> Option<u64> {
        let stream = self.streams.get(&stream)?;
        let id = self.hours.next(&stream.met.source, hour);
        let at = Position { stream: stream.met.stream, first: stream.met.first, end: stream.cut_end() };
        self.hours.given(&stream.met.source, hour, id, at);
        Some(id)
    }

    /// The pack at `offset` is put on its way; its ticket.
    pub fn send(&mut self, stream: StreamId, offset: u64) -> Option<u64> {
        let ticket = self.last_ticket + 1;
        if !self.streams.get_mut(&stream)?.set_fate(offset, Fate::InFlight(ticket)) {
            return None;
        }
        self.last_ticket = ticket;
        self.tickets.insert(ticket, Ticket::Pack(stream, offset));
        Some(ticket)
    }

    /// The next tier answered.
    pub fn settle(&mut self, ticket: u64, verdict: Verdict) -> Effect {
        let (id, offset) = match self.tickets.remove(&ticket) {
            Some(Ticket::Pack(id, offset)) => (id, offset),
            Some(Ticket::Mark(mark)) => return self.settle_mark(&mark),
            None => return Effect::Stale,
        };
        let Some(stream) = self.streams.get_mut(&id) else { return Effect::Stale };
        if stream.fate(offset) != Some(Fate::InFlight(ticket)) {
            return Effect::Stale;
        }
        if let Verdict::Conflict(remembered) = verdict {
            stream.set_fate(offset, Fate::Unsent);
            stream.conflict = Some(remembered);
            stream.confirmed = false;
            return Effect::Conflict(id);
        }
        stream.set_fate(offset, Fate::Acked);
        stream.confirmed |= verdict == Verdict::Taken;
        if stream.advance() {
            let record = Record::Frontier { stream: id, frontier: stream.frontier, tail: stream.tail };
            self.records.push(record);
        }
        Effect::Settled(id)
    }
}

fn position(stream: &Stream, cut: &Cut) -> Position {
    Position { stream: stream.met.stream, first: stream.met.first, end: cut.end() }
}
