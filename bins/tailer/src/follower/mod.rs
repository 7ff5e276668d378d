//! The follower: the thread that owns the files and the ledger. It waits for an event, lets a named function handle
//! it, and then cuts packs for as long as there are bytes, buffers and room in the window.

mod attach;
mod backlog;
mod copies;
mod current;
mod cut_between;
mod cutting;
mod end;
mod events;
mod followed;
mod handles;
mod homes_before;
mod hours;
mod inputs;
mod judging;
mod listings;
mod lost;
mod missed;
mod missed_alike;
mod missed_order;
mod moving_over;
mod opening;
mod origin;
mod packed;
mod packed_asked;
mod packed_gone;
mod packed_queue;
mod packed_room;
mod queue;
mod replaced;
mod scan;
mod search_again;
mod sought;
mod source;
mod succession;
mod tally;
mod throttle;
mod trouble;
mod unmet;
mod watching;
mod work;

use crate::batching::BatchLimits;
use crate::config::{LimitSettings, TailerConfig};
use crate::cutter::CutLimits;
use crate::event::{Event, Job, Shared, ToShipper};
use crate::figures::Figures;
use crate::files;
use crate::hour::HourClock;
use crate::identity::FileKey;
use crate::input::shelf::Shelf;
use crate::ledger::Ledger;
use crate::recut;
use crate::tracker::{FileNumber, Tracker};
use crate::unpack::UnpackJob;
use crate::watch::Watch;
pub(crate) use copies::{is_named_after, is_named_after_any, names_of};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use followed::Followed;
use handles::OpenFiles;
use homes_before::HomesBefore;
use jiff::Timestamp;
use listings::Listings;
use logferry_pack::{Hour, Name, StreamId};
use packed::Packed;
use packed_asked::Asked;
use packed_gone::PACKED_KEPT_MIN;
use packed_queue::ToUnpack;
use search_again::SearchAgain;
use sought::SoughtStreams;
use source::Source;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use succession::Successions;
use tally::Tally;
use throttle::Throttle;
use tracing::info;
use unmet::UnmetFiles;
use watching::Folder;

/// Most events handled before cutting goes on.
const BURST_MAX: usize = 1024;
/// Bytes beyond the window that packs on their way to the spool may take.
const SPOOL_WINDOW: u64 = 4 << 20;

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
    /// When the state was written last by an earlier process that had looked for what was missed before, in nanoseconds since 1970.
    pub stopped_ns: Option<i64>,
    /// An earlier process ended before it had.
    pub missed_before: bool,
}

/// State of the follower's thread.
pub(crate) struct Follower {
    sources: Vec<Source>,
    tracker: Tracker,
    ledger: Ledger,
    files: BTreeMap<FileNumber, Followed>,
    by_stream: HashMap<StreamId, FileNumber>,
    unmet: UnmetFiles,
    /// Those that were unpacked.
    unpacked: BTreeSet<FileNumber>,
    ready: VecDeque<FileNumber>,
    /// Files in the queue that something happened to since they were looked at.
    stirred: Vec<FileNumber>,
    timers: BTreeSet<(Instant, FileNumber)>,
    folders: BTreeMap<i32, Folder>,
    by_path: HashMap<PathBuf, FileNumber>,
    /// Files that are not where they were met.
    displaced: BTreeSet<FileNumber>,
    /// Files with more than one name: who writes under another is not seen.
    linked: BTreeSet<FileNumber>,
    open_files: OpenFiles,
    listings: RefCell<Listings>,
    /// When streams whose files could not be looked for, or not be opened, are looked for again, and how long that was waited for.
    search_again: SearchAgain,
    /// Streams whose bytes may be in a copy that could not be looked at.
    sought: SoughtStreams,
    /// When it was told last that files cannot be opened or read.
    trouble_told: Option<Instant>,
    /// A folder, and what it is without symbolic links: that of the file that was met last.
    real_folder: (PathBuf, PathBuf),
    searched_lost: bool,
    homes_before: HomesBefore,
    /// When the state was written last by an earlier process that had looked for what was missed before, in nanoseconds since 1970.
    stopped_ns: Option<i64>,
    /// An earlier process ended before it had looked for what was missed.
    missed_before: bool,
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
    /// Compressed files that were met, and those of them that are to be unpacked.
    packed: HashMap<FileKey, Packed>,
    to_unpack: ToUnpack,
    /// How many there must be for those that are gone to be forgotten.
    packed_forgotten_at: usize,
    /// When those that there was no room for are looked for again.
    room_looked_at: Option<Instant>,
    /// Compressed files that were unpacked for streams whose files are gone.
    asked: Asked,
    /// Compressed files of which it is not known whether they were missed or are copies.
    missed_packed: BTreeSet<FileKey>,
    /// Files that have what the beginning of a stream's file has, and nothing else.
    held_copies: HashMap<StreamId, BTreeSet<FileNumber>>,
    shipper: Sender<ToShipper>,
    watch: Option<Watch>,
    shared: Arc<Shared>,
    figures: Arc<Figures>,
    tally: Tally,
    /// Files by the one that goes before them.
    successors: HashMap<FileNumber, Vec<FileNumber>>,
    successions: Successions,
    stopping: Option<Instant>,
}

impl Follower {
    pub(crate) fn new(parts: Parts) -> anyhow::Result<Follower> {
        let pack = &parts.config.pack;
        let cut_limits = recut::limits(pack);
        let batch_limits =
            BatchLimits { bytes: pack.max_bytes.0, lines: pack.max_lines, age: pack.max_age.0 };
        let settings = &parts.config.source;
        let buffer_bytes = recut::buffer_bytes(settings, &cut_limits).map_err(anyhow::Error::msg)?;
        let source = |settings| Source::new(settings, cut_limits, buffer_bytes);
        let mut sources = settings.iter().map(source).collect::<anyhow::Result<Vec<_>>>()?;
        for source in &mut sources {
            source.shelf = parts.shelves.get(&source.settings.name).cloned();
            source.was_started = parts.ledger.is_source_started(&source.settings.name);
        }
        let homes_before = HomesBefore::new(parts.ledger.streams().map(|stream| &stream.met));
        Ok(Follower {
            sources,
            tracker: Tracker::default(),
            ledger: parts.ledger,
            files: BTreeMap::new(),
            by_stream: HashMap::new(),
            unmet: UnmetFiles::default(),
            unpacked: BTreeSet::new(),
            ready: VecDeque::new(),
            stirred: Vec::new(),
            timers: BTreeSet::new(),
            folders: BTreeMap::new(),
            by_path: HashMap::new(),
            displaced: BTreeSet::new(),
            linked: BTreeSet::new(),
            open_files: OpenFiles::new(parts.config.limits.open_files),
            listings: RefCell::default(),
            search_again: SearchAgain::default(),
            sought: SoughtStreams::default(),
            trouble_told: None,
            real_folder: Default::default(),
            searched_lost: false,
            homes_before,
            stopped_ns: parts.stopped_ns,
            missed_before: parts.missed_before,
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
            to_unpack: ToUnpack::default(),
            packed_forgotten_at: PACKED_KEPT_MIN,
            room_looked_at: None,
            asked: Asked::default(),
            missed_packed: BTreeSet::new(),
            held_copies: HashMap::new(),
            shipper: parts.shipper,
            watch: parts.watch,
            shared: parts.shared,
            figures: parts.figures,
            tally: Tally::default(),
            successors: HashMap::new(),
            successions: Successions::default(),
            stopping: None,
        })
    }

    /// Works until it is told to stop, and saves the state.
    pub(crate) fn run(mut self) {
        while !self.is_done() {
            if self.stopping.is_none() {
                self.look_at_due_sources();
                self.release_homes();
                self.unpack_asked();
                self.wake_due_files();
                self.release_held();
                self.retry_without_room();
                self.search_again_when_due();
                self.listings.get_mut().tidy();
                self.work_on_ready();
                self.judge_waiting();
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
        let unknown = self.unmet_where(|file| file.handle.is_some() && file.size > 0);
        unknown.into_iter().for_each(|number| self.meet_before_its_turn(number, false));
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
        let others = [self.held_until(), self.open_due(), self.room_looked_at, self.search_again.due()];
        [sources, timer].into_iter().chain(others).flatten().min().unwrap_or_else(far)
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
        let file = self.files.get(&number).filter(|file| self.sources[file.source].paths.has_hours());
        match file.and_then(|file| file.time) {
            Some(time) => Ok(time.hour),
            None => self.hour_now(),
        }
    }

    fn name_of(&self, source: usize) -> Option<Name> {
        self.sources.get(source).map(|source| source.name.clone())
    }
}
