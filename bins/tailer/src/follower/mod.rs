//! The follower: the thread that owns the files and the ledger. It waits for an event, lets a named function handle
//! it, and then cuts packs for as long as there are bytes, buffers and room in the window.

mod attach;
mod backlog;
mod copies;
mod end;
mod handles;
mod hours;
mod inputs;
mod lost;
mod packed;
mod scan;
mod tally;
mod throttle;
mod trouble;
mod watching;
mod work;

use crate::batching::BatchLimits;
use crate::config::{LimitSettings, SourceSettings, TailerConfig};
use crate::cutter::{CutLimits, Cutter, Cutting};
use crate::entries::Entries;
use crate::event::{Changes, Event, Job, Shared, ToShipper};
use crate::figures::Figures;
use crate::files;
use crate::hour::HourClock;
use crate::identity::{EndMark, FileKey, Head};
use crate::input::shelf::Shelf;
use crate::ledger::record::Tail;
use crate::ledger::{Effect, Ledger, Verdict};
use crate::pattern::FileTime;
use crate::repull::known::{Known, Question};
use crate::tracker::{FileNumber, Place, Tracker};
use crate::unpack::UnpackJob;
use crate::watch::Watch;
use backlog::Rank;
pub(crate) use copies::is_named_after;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use handles::OpenFiles;
use jiff::Timestamp;
use logferry_link::Outgoing;
use logferry_pack::{Hour, Name, StreamId};
use metrics::counter;
use packed::Packed;
use scan::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tally::{Counted, Tally};
use throttle::Throttle;
use tracing::{info, warn};
use watching::Folder;
use work::Worked;

/// Most events handled before cutting goes on.
const BURST_MAX: usize = 1024;
/// Bytes beyond the window that packs on their way to the spool may take.
const SPOOL_WINDOW: u64 = 4 << 20;

/// A file.
#[derive(Debug)]
pub(crate) struct Followed {
    source: usize,
    path: PathBuf,
    /// The time in its name.
    time: Option<FileTime>,
    /// Its place among the files that are behind.
    rank: Option<Rank>,
    /// The hour of that time is over.
    hour_over: bool,
    /// The path that a symbolic link leads to, if it is one.
    target: Option<PathBuf>,
    /// Other paths under which it was seen.
    names: Vec<PathBuf>,
    /// `None` while it is closed.
    handle: Option<File>,
    /// Something was done with it since it was last thought of closing it.
    active: bool,
    key: FileKey,
    /// Length when last seen, and whether names lead to it.
    size: u64,
    unlinked: bool,
    /// Length when last seen with its own first line.
    size_trusted: u64,
    /// When it last grew or moved.
    quiet_since: Instant,
    place: Place,
    /// The file that had the path before; it goes first.
    predecessor: Option<FileNumber>,
    /// The file that this one is the copy of from before it was cut; it goes on when this one is read.
    successor: Option<FileNumber>,
    /// `None` until its first line is there.
    stream: Option<StreamId>,
    /// What of the first line was there without an end.
    begun: Option<Head>,
    cutter: Cutter,
    /// The last bytes that were cut; `None` until something was.
    end_mark: Option<EndMark>,
    /// The file is known to have the bytes below its stream's frontier.
    verified: bool,
    /// It was changed and is no longer than before: it may be another by now.
    suspicious: bool,
    /// Packs that were cut last.
    recent: VecDeque<Tail>,
    /// Length at which a compressed copy of it ends: at that length its last line will get no end.
    compressed_at: Option<u64>,
    /// Length when it was first taken for a copy of a file that may yet be cut, and since when.
    suspect: Option<(u64, Instant)>,
    /// When it was noticed that no name leads to it any more.
    unlinked_since: Option<Instant>,
    /// When the bytes that were not looked at yet were noticed.
    waiting_since: Option<Instant>,
    /// Usual length of a line.
    line_bytes: u64,
    /// The handle is the unpacked content of a compressed file: it will not grow.
    packed: bool,
    /// In the queue of files to work on.
    queued: bool,
    /// It could not be read the last time.
    failing: bool,
    /// What the figures have of it.
    counted: Counted,
}

/// What the follower is made of.
pub(crate) struct Parts {
    pub config: TailerConfig,
    pub clock: HourClock,
    pub ledger: Ledger,
    pub events: Receiver<Event>,
    pub jobs: Sender<Job>,
    pub unpack: Sender<UnpackJob>,
    pub shipper: Sender<ToShipper>,
    pub watch: Option<Watch>,
    pub shared: Arc<Shared>,
    pub figures: Arc<Figures>,
    pub buffers: usize,
    /// Books of the sources that are inputs, by their names.
    pub shelves: HashMap<String, Arc<Shelf>>,
}

/// State of the follower's thread.
pub(crate) struct Follower {
    sources: Vec<Source>,
    tracker: Tracker,
    ledger: Ledger,
    files: BTreeMap<FileNumber, Followed>,
    by_stream: HashMap<StreamId, FileNumber>,
    ready: VecDeque<FileNumber>,
    timers: BTreeSet<(Instant, FileNumber)>,
    folders: BTreeMap<i32, Folder>,
    by_path: HashMap<PathBuf, FileNumber>,
    /// Files that are not where they were met.
    displaced: BTreeSet<FileNumber>,
    /// Files with more than one name: who writes under another is not seen.
    linked: BTreeSet<FileNumber>,
    open_files: OpenFiles,
    /// A folder, and what it is without symbolic links: that of the file that was met last.
    real_folder: (PathBuf, PathBuf),
    searched_lost: bool,
    /// Paths that streams were met at by an earlier process; empty when all files were looked at once.
    homes_before: HashSet<PathBuf>,
    buffers: Vec<Vec<u8>>,
    buffer_bytes: usize,
    cut_limits: CutLimits,
    batch_limits: BatchLimits,
    window: u64,
    /// Bytes beyond the window that sources with a spool may take: they must not wait for those without one.
    spool_window: u64,
    limits: LimitSettings,
    throttle: Throttle,
    clock: HourClock,
    events: Receiver<Event>,
    jobs: Sender<Job>,
    unpack: Sender<UnpackJob>,
    /// Compressed files that were met.
    packed: HashMap<FileKey, Packed>,
    /// Compressed files that were unpacked for streams whose files are gone.
    unpacked_for: BTreeSet<(StreamId, FileKey)>,
    shipper: Sender<ToShipper>,
    watch: Option<Watch>,
    shared: Arc<Shared>,
    figures: Arc<Figures>,
    tally: Tally,
    /// Files by the one that goes before them.
    successors: HashMap<FileNumber, Vec<FileNumber>>,
    stopping: Option<Instant>,
}

impl Follower {
    pub(crate) fn new(parts: Parts) -> anyhow::Result<Follower> {
        let pack = &parts.config.pack;
        let cut_limits = CutLimits {
            pack_bytes: pack.max_bytes.0 as usize,
            line_bytes: pack.max_line.0 as usize,
            lines: pack.max_lines,
        };
        let batch_limits =
            BatchLimits { bytes: pack.max_bytes.0, lines: pack.max_lines, age: pack.max_age.0 };
        let settings = &parts.config.source;
        let buffer_bytes = buffer_bytes(settings, &cut_limits).map_err(anyhow::Error::msg)?;
        let source = |settings| Source::new(settings, cut_limits, buffer_bytes);
        let mut sources = settings.iter().map(source).collect::<anyhow::Result<Vec<_>>>()?;
        for source in &mut sources {
            source.shelf = parts.shelves.get(&source.settings.name).cloned();
        }
        let homes_before = parts.ledger.streams().map(|stream| stream.met.home()).collect();
        Ok(Follower {
            sources,
            tracker: Tracker::default(),
            ledger: parts.ledger,
            files: BTreeMap::new(),
            by_stream: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            folders: BTreeMap::new(),
            by_path: HashMap::new(),
            displaced: BTreeSet::new(),
            linked: BTreeSet::new(),
            open_files: OpenFiles::new(parts.config.limits.open_files),
            real_folder: Default::default(),
            searched_lost: false,
            homes_before,
            buffers: (0..parts.buffers).map(|_| vec![0; buffer_bytes]).collect(),
            buffer_bytes,
            cut_limits,
            batch_limits,
            window: parts.config.send.window.0,
            spool_window: if settings.iter().any(|source| source.spool) { SPOOL_WINDOW } else { 0 },
            throttle: Throttle::new(&parts.config.limits),
            limits: parts.config.limits,
            clock: parts.clock,
            events: parts.events,
            jobs: parts.jobs,
            unpack: parts.unpack,
            packed: HashMap::new(),
            unpacked_for: BTreeSet::new(),
            shipper: parts.shipper,
            watch: parts.watch,
            shared: parts.shared,
            figures: parts.figures,
            tally: Tally::default(),
            successors: HashMap::new(),
            stopping: None,
        })
    }

    /// Works until it is told to stop, and saves the state.
    pub(crate) fn run(mut self) {
        while !self.is_done() {
            if self.stopping.is_none() {
                self.look_at_due_sources();
                self.wake_due_files();
                self.release_held();
                self.work_on_ready();
            }
            self.pass_on_records();
            self.publish();
            self.wait();
        }
        self.remember_lengths();
        let left = self.ledger.unsettled();
        if left > 0 {
            info!(
                packs = left,
                "packs without an answer stay in the journal: the next start sends them again"
            );
        }
        let _ = self.shipper.send(ToShipper::Finish(self.ledger.snapshot()));
    }

    /// How long files are that wait to be read: the next start can tell what of them has gone meanwhile.
    fn remember_lengths(&mut self) {
        let waiting: Vec<(FileNumber, StreamId, u64)> = self
            .files
            .iter()
            .filter(|(_, file)| !file.packed && self.sources[file.source].shelf.is_none())
            .filter_map(|(number, file)| {
                let size = files::facts_of(file.handle.as_ref()?).ok()?.size;
                Some((*number, file.stream?, size)).filter(|_| size > file.cutter.seen_to())
            })
            .collect();
        for (number, id, size) in waiting {
            // It may have become another in the last moment.
            if matches!(self.is_still(number, id), Ok(true)) {
                self.ledger.saw(id, size, 0);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.stopping.is_some_and(|due| self.ledger.unsettled() == 0 || due <= Instant::now())
    }

    fn wait(&mut self) {
        let timeout = self.deadline().saturating_duration_since(Instant::now());
        match self.events.recv_timeout(timeout) {
            Ok(event) => self.handle(event),
            Err(RecvTimeoutError::Timeout) => return,
            // All senders are held by threads that outlive this one.
            Err(RecvTimeoutError::Disconnected) => self.stopping = Some(Instant::now()),
        }
        for _ in 0..BURST_MAX {
            match self.events.try_recv() {
                Ok(event) => self.handle(event),
                Err(_) => return,
            }
        }
    }

    fn deadline(&self) -> Instant {
        if let Some(due) = self.stopping {
            return due;
        }
        if self.can_cut() && !self.ready.is_empty() {
            let now = Instant::now();
            return self.throttle.due(now).unwrap_or(now);
        }
        let sources = self.sources.iter().map(|source| source.next_look).min();
        let timer = self.timers.first().map(|(due, _)| *due);
        let far = || Instant::now() + Duration::from_secs(3600);
        [sources, timer, self.held_until(), self.open_due()].into_iter().flatten().min().unwrap_or_else(far)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Changes(changes) => self.files_changed(&changes),
            Event::Written(path) => {
                if let Some(file) = self.by_path.get(&path).copied() {
                    self.queue(file);
                }
            }
            Event::Settled { ticket, verdict, pack } => self.settled(ticket, verdict, pack),
            Event::Asked(question) => self.answer(&question),
            Event::Buffer(buffer) => self.give_back(buffer),
            Event::Unpacked { job, file } => self.unpacked(&job, file),
            Event::SnapshotWanted => {
                self.pass_on_records();
                let _ = self.shipper.send(ToShipper::Snapshot(self.ledger.snapshot()));
            }
            Event::WatchEnded => {
                self.watch = None;
                self.sources.iter_mut().for_each(|source| source.next_look = Instant::now());
            }
            Event::Resume => {}
            Event::Stop(wait) => {
                self.stopping.get_or_insert(Instant::now() + wait);
            }
        }
    }

    fn answer(&self, question: &Question) {
        let path_of = |stream| Some(self.files.get(self.by_stream.get(&stream)?)?.path.clone());
        let known = Known::of(&self.ledger, &question.source, question.hour, path_of);
        let _ = question.answer.send(known);
    }

    fn files_changed(&mut self, changes: &Changes) {
        let now = Instant::now();
        // A file that is no longer where it was is written to under a name that nobody knows.
        let mut is_unknown = false;
        for (folder, name) in &changes.written {
            let Some(folder) = self.folders.get(folder) else { continue };
            let path = folder.path.join(name);
            if let Some(file) = self.by_path.get(&path).copied() {
                self.queue(file);
                continue;
            }
            is_unknown = true;
            for index in &folder.sources {
                // One that is not followed yet: it could not be opened, or unpacked.
                let source = &mut self.sources[*index];
                if source.pattern.covers(&path) {
                    source.look_soon(now);
                }
            }
        }
        if is_unknown || !changes.listings.is_empty() || changes.overflow {
            self.queue_displaced(None);
        }
        for (descriptor, name) in &changes.names {
            let Some(folder) = self.folders.get(descriptor) else { continue };
            for index in &folder.sources {
                self.sources[*index].dirty.insert(name.clone());
            }
        }
        let mut listed: BTreeSet<usize> = BTreeSet::new();
        for descriptor in &changes.listings {
            listed.extend(self.folders.get(descriptor).into_iter().flat_map(|folder| &folder.sources));
        }
        for descriptor in &changes.unwatched {
            self.folders.remove(descriptor);
        }
        if changes.overflow {
            counter!("logferry_tailer_watch_overflows_total").increment(1);
            warn!(
                "events of inotify were lost: every file is looked at; if that is so often, raise fs.inotify.max_queued_events"
            );
        }
        for (index, source) in self.sources.iter_mut().enumerate() {
            if changes.overflow {
                source.rescan_at = now;
            }
            if changes.overflow || listed.contains(&index) {
                source.look_soon(now);
            }
        }
    }

    /// Files, of a source or of all, that are no longer under the path that inotify would name.
    fn queue_displaced(&mut self, source: Option<usize>) {
        let is_of = |number: &FileNumber| {
            source.is_none_or(|source| self.files.get(number).is_some_and(|file| file.source == source))
        };
        let displaced: Vec<FileNumber> = self.displaced.iter().copied().filter(is_of).collect();
        for number in displaced {
            self.queue(number);
        }
    }

    fn settled(&mut self, ticket: u64, verdict: Verdict, pack: Option<Outgoing>) {
        if let (Verdict::Conflict(_), Some(pack)) = (&verdict, pack)
            && self.ledger.stream(pack.stream).is_some_and(|stream| stream.orphan)
        {
            // Nothing is left to compare with, and nothing to cut anew from.
            let reason = "conflict".to_owned();
            let _ = self.shipper.send(ToShipper::Quarantine { pack, reason });
            return;
        }
        match self.ledger.settle(ticket, verdict) {
            Effect::Stale | Effect::MarkSettled => {}
            Effect::Settled(stream) | Effect::Conflict(stream) => match self.by_stream.get(&stream) {
                Some(file) => self.queue(*file),
                None => self.finish_orphan(stream),
            },
        }
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        let usual = self.buffer_bytes;
        if buffer.len() != usual {
            buffer = vec![0; usual];
        }
        self.buffers.push(buffer);
    }

    /// Whether there is a buffer, room in the window of some source, and a state log that takes records.
    fn can_cut(&self) -> bool {
        !self.buffers.is_empty()
            && !self.shared.journal_down.load(Ordering::Acquire)
            && self.shared.held_bytes.load(Ordering::Relaxed) < self.window + self.spool_window
    }

    fn queue(&mut self, number: FileNumber) {
        self.tally.touch(number);
        let Some(file) = self.files.get_mut(&number).filter(|file| !file.queued) else { return };
        file.queued = true;
        // What was rotated away goes before what took its place.
        if file.place == Place::Here {
            self.ready.push_back(number);
        } else {
            self.ready.push_front(number);
        }
    }

    /// A file that has more to read waits behind all others that have, however much it is.
    fn queue_again(&mut self, number: FileNumber) {
        if let Some(file) = self.files.get_mut(&number).filter(|file| !file.queued) {
            file.queued = true;
            self.ready.push_back(number);
        }
    }

    fn wake_due_files(&mut self) {
        let now = Instant::now();
        while let Some((due, number)) = self.timers.first().copied() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            self.queue(number);
        }
    }

    fn work_on_ready(&mut self) {
        // One round: what is queued now. Events get their turn before the next.
        for _ in 0..self.ready.len() {
            if !self.can_cut() || self.throttle.due(Instant::now()).is_some() {
                break;
            }
            let Some(number) = self.ready.pop_front() else { break };
            if self.hold_back(number) {
                continue;
            }
            if let Some(file) = self.files.get_mut(&number) {
                file.queued = false;
            }
            let worked = self.work(number);
            self.tally.touch(number);
            match worked {
                Worked::Again => self.queue_again(number),
                Worked::At(due) => {
                    self.timers.insert((due, number));
                }
                Worked::Rest => {}
            }
        }
        self.throttle.measure(Instant::now());
    }

    fn pass_on_records(&mut self) {
        for record in self.ledger.take_records() {
            let _ = self.shipper.send(ToShipper::Record(record));
        }
    }

    fn hour_now(&self) -> anyhow::Result<Hour> {
        self.clock.hour_at(Timestamp::now())
    }

    /// The hour of what is read from a file now: that of its name, else that of the clock.
    fn hour_of(&self, number: FileNumber) -> anyhow::Result<Hour> {
        match self.files.get(&number).and_then(|file| file.time) {
            Some(time) => Ok(time.hour),
            None => self.hour_now(),
        }
    }

    fn name_of(&self, source: usize) -> Option<Name> {
        self.sources.get(source).map(|source| source.name.clone())
    }
}

/// Size of the buffers that hold any one pack of any source.
fn buffer_bytes(sources: &[SourceSettings], limits: &CutLimits) -> Result<usize, String> {
    sources.iter().try_fold(limits.buffer_bytes(), |bytes, settings| {
        Ok(bytes.max(Cutting::buffer_bytes_min(limits, Entries::new(settings)?.as_ref())))
    })
}
