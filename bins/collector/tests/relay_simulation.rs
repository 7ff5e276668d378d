#![allow(clippy::print_stderr)]
//! Seeded simulation of the relay between tailers that send again, a next tier that comes and goes, and a spool
//! that runs full, fails, is damaged and survives crashes. One that is replayed tells all that happens.

use logferry_collector::relay::{
    Action, Event, Fetched, FetchedPack, Mono, PackInfo, Relay, RelayOptions, SpoolTrouble, Ticket,
};
use logferry_footprint::{Footprint, Remembered};
use logferry_link::{Answer, Outcome};
use logferry_pack::{PackIdentity, StreamId};
use logferry_spool::RecordId;
use logferry_trial::{long_run, trial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// Lives in the normal run, and in the long one.
const RUNS: u64 = 2_000;
const RUNS_LONG: u64 = 100_000;
const PACK_BYTES: u64 = 1_000;
const WINDOW_PACKS: u64 = 6;
const REPLAY_PACKS: u64 = 3;
/// Packs that a tailer has unanswered at most.
const TAILER_WINDOW: usize = 5;
/// Faults end here; what follows must heal all.
const FAULTS_END: Mono = Duration::from_secs(40);
const RUN_END: Mono = Duration::from_secs(200);

/// Stream number and pack number in it.
type PackId = (usize, usize);

/// Who waits for an answer: the tailer, the pack's number, the connection.
type Waiter = (usize, usize, u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Happening {
    TailerSends(usize),
    TailerReconnects(usize),
    Transmit,
    Acknowledge(Ticket, u32),
    DiskWorks,
    TargetChanges,
    LinkBreaks,
    SpoolChanges,
    Crash,
    Tick,
}

/// A tailer of one stream.
struct Tailer {
    packs: usize,
    next: usize,
    /// Sent, not answered; when to send it again after `busy`.
    open: BTreeMap<usize, Option<Mono>>,
    /// Answered for good.
    closed: BTreeSet<usize>,
    /// Packs of earlier connections get no answer.
    connection: u32,
    connected: bool,
}

#[derive(Clone, Debug)]
enum Job {
    Append(Vec<Ticket>),
    Ack(RecordId),
    Read(u64, u64),
    Rewind,
    Recount,
    Quarantine(Ticket),
}

struct StoredRecord {
    pack: PackId,
    acked: bool,
    damaged: bool,
}

struct World {
    seed: u64,
    verbose: bool,
    seen: BTreeMap<&'static str, u64>,
    random: StdRng,
    now: Mono,
    sequence: u64,
    agenda: BTreeMap<(Mono, u64), Happening>,

    relay: Relay,
    ticket: Ticket,
    started_at: Mono,
    held: HashMap<Ticket, (PackId, Vec<Waiter>)>,
    footprint_log: Vec<(PackIdentity, u64, u64)>,
    crash_count: u32,

    tailers: Vec<Tailer>,
    poisoned: HashSet<PackId>,

    target_up: bool,
    session: u32,
    /// At the sender, in order; whether it was transmitted in this session.
    flight: VecDeque<(Ticket, bool)>,
    received: HashSet<PackId>,
    received_order: Vec<Vec<usize>>,

    records: BTreeMap<u64, StoredRecord>,
    next_record: u64,
    cursor: u64,
    jobs: VecDeque<Job>,
    spool_cap: u64,
    spool_fails: bool,
    quarantined: HashSet<PackId>,
    refused: HashSet<PackId>,
    /// Only their damaged record had them: a loss that no program can prevent.
    lost_to_damage: HashSet<PackId>,
}

fn options() -> RelayOptions {
    RelayOptions {
        window_bytes: WINDOW_PACKS * PACK_BYTES,
        replay_bytes_max: REPLAY_PACKS * PACK_BYTES,
        spool_after: Duration::from_millis(1_000),
        slow_after: Duration::from_secs(6),
        busy_after: Duration::from_secs(3),
        stop_grace: Duration::from_secs(5),
        footprint_keep: Duration::from_secs(1 << 30),
        unix_at_start: 1_000,
    }
}

fn info((stream, number): PackId) -> PackInfo {
    let identity = PackIdentity {
        stream: StreamId(stream as u128 + 1),
        offset: number as u64 * 100,
        span: 100,
        sum: (stream * 1_000 + number) as u32,
    };
    PackInfo { identity, first: 0, repull: false, end_to_end: false, bytes: PACK_BYTES }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let tailers: Vec<Tailer> = (0..random.random_range(1..5))
            .map(|_| Tailer {
                packs: random.random_range(10..60),
                next: 0,
                open: BTreeMap::new(),
                closed: BTreeSet::new(),
                connection: 0,
                connected: true,
            })
            .collect();
        let poison = if seed.is_multiple_of(4) { 0.05 } else { 0.0 };
        let poisoned = (0..tailers.len())
            .flat_map(|stream| (0..tailers[stream].packs).map(move |number| (stream, number)))
            .filter(|_| random.random_bool(poison))
            .collect();
        let streams = tailers.len();
        let mut world = World {
            seed,
            seen: BTreeMap::new(),
            verbose: std::env::var_os("LOGFERRY_TEST_SEED").is_some(),
            random,
            now: Mono::ZERO,
            sequence: 0,
            agenda: BTreeMap::new(),
            relay: Relay::new(options(), Footprint::default(), HashMap::new()),
            ticket: 0,
            started_at: Mono::ZERO,
            held: HashMap::new(),
            footprint_log: Vec::new(),
            crash_count: 0,
            tailers,
            poisoned,
            target_up: false,
            session: 0,
            flight: VecDeque::new(),
            received: HashSet::new(),
            received_order: vec![Vec::new(); streams],
            records: BTreeMap::new(),
            next_record: 1,
            cursor: 0,
            jobs: VecDeque::new(),
            spool_cap: u64::MAX,
            spool_fails: false,
            quarantined: HashSet::new(),
            refused: HashSet::new(),
            lost_to_damage: HashSet::new(),
        };
        for stream in 0..streams {
            world.later(1, 500, Happening::TailerSends(stream));
            world.later(100, 20_000, Happening::TailerReconnects(stream));
        }
        world.later(0, 3_000, Happening::TargetChanges);
        world.later(500, 10_000, Happening::SpoolChanges);
        world.later(1_000, 30_000, Happening::Crash);
        world.later(1, 10, Happening::Transmit);
        world
    }

    fn later(&mut self, from_ms: u64, to_ms: u64, what: Happening) {
        let at = self.now + Duration::from_millis(self.random.random_range(from_ms..=to_ms));
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), what);
    }

    /// Runs to the end and tells what was seen on the way.
    fn run(mut self) -> BTreeMap<&'static str, u64> {
        let mut tick_at = None;
        while let Some(((at, _), what)) = self.agenda.pop_first() {
            if at > RUN_END || self.is_finished() {
                break;
            }
            self.now = at;
            if tick_at == Some(at) {
                tick_at = None;
            }
            self.happen(what);
            self.check_bounds();
            let deadline = self.relay.deadline().map(|mono| self.started_at + mono);
            if let Some(deadline) =
                deadline.map(|deadline| deadline.max(self.now)).filter(|at| Some(*at) != tick_at)
            {
                tick_at = Some(deadline);
                self.sequence += 1;
                self.agenda.insert((deadline, self.sequence), Happening::Tick);
            }
        }
        self.check_end();
        self.seen
    }

    fn heals(&self) -> bool {
        self.now >= FAULTS_END
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::TailerSends(stream) => self.tailer_sends(stream),
            Happening::TailerReconnects(stream) => self.tailer_reconnects(stream),
            Happening::Transmit => self.transmit(),
            Happening::Acknowledge(ticket, session) => self.acknowledge(ticket, session),
            Happening::DiskWorks => self.disk_works(),
            Happening::TargetChanges => self.target_changes(),
            Happening::LinkBreaks => self.link_breaks(),
            Happening::SpoolChanges => self.spool_changes(),
            Happening::Crash => self.crash(),
            Happening::Tick => self.tell(Event::Tick),
        }
    }

    // --- tailers ---

    fn tailer_sends(&mut self, stream: usize) {
        let now = self.now;
        let tailer = &mut self.tailers[stream];
        if !tailer.connected {
            return self.later(50, 500, Happening::TailerSends(stream));
        }
        let again =
            tailer.open.iter().find(|(_, at)| at.is_some_and(|at| at <= now)).map(|(number, _)| *number);
        if let Some(number) = again {
            tailer.open.insert(number, None);
            self.arrive(stream, number);
        } else if tailer.next < tailer.packs && tailer.open.len() < TAILER_WINDOW {
            let number = tailer.next;
            tailer.next += 1;
            tailer.open.insert(number, None);
            self.arrive(stream, number);
        }
        let pause = if self.seed.is_multiple_of(3) { 30 } else { 600 };
        self.later(1, pause, Happening::TailerSends(stream));
    }

    /// The connection broke: all that was not answered is sent again, in order.
    fn tailer_reconnects(&mut self, stream: usize) {
        if !self.heals() && self.random.random_bool(0.5) {
            self.later(100, 15_000, Happening::TailerReconnects(stream));
        }
        let tailer = &mut self.tailers[stream];
        tailer.connection += 1;
        tailer.connected = true;
        let open: Vec<usize> = tailer.open.keys().copied().collect();
        for number in open {
            self.tailers[stream].open.insert(number, None);
            self.arrive(stream, number);
        }
    }

    fn arrive(&mut self, stream: usize, number: usize) {
        self.ticket += 1;
        let ticket = self.ticket;
        let connection = self.tailers[stream].connection;
        self.held.insert(ticket, ((stream, number), vec![(stream, number, connection)]));
        self.tell(Event::Arrived { ticket, pack: info((stream, number)) });
    }

    fn answered(&mut self, ticket: Ticket, answer: &Answer) {
        let Some((pack, peers)) = self.held.get_mut(&ticket) else {
            panic!("{answer:?} to a forgotten pack {ticket}")
        };
        let (pack, peers) = (*pack, std::mem::take(peers));
        assert!(!peers.is_empty(), "{answer:?} to {pack:?}, but nobody waits");
        match answer {
            Answer::Ok | Answer::Duplicate => {
                assert!(self.is_safe(pack), "{answer:?} to {pack:?}, which is not safe")
            }
            Answer::Conflict(_) | Answer::Rejected { .. } => assert!(self.poisoned.contains(&pack)),
            Answer::Busy { retry_ms } => assert!((1_000..=3_000).contains(retry_ms)),
        }
        for (stream, number, connection) in peers {
            let answer_is_lost = !self.heals() && self.random.random_bool(0.02);
            let tailer = &mut self.tailers[stream];
            if tailer.connection != connection {
                continue;
            }
            if answer_is_lost {
                tailer.connection += 1;
                tailer.connected = false;
                self.later(50, 500, Happening::TailerReconnects(stream));
                continue;
            }
            match answer {
                Answer::Busy { retry_ms } => {
                    tailer.open.insert(number, Some(self.now + Duration::from_millis(*retry_ms)));
                }
                Answer::Conflict(_) | Answer::Rejected { .. } => {
                    tailer.open.remove(&number);
                    tailer.closed.insert(number);
                    self.refused.insert(pack);
                }
                _ => {
                    tailer.open.remove(&number);
                    tailer.closed.insert(number);
                }
            }
        }
    }

    fn is_safe(&self, pack: PackId) -> bool {
        self.received.contains(&pack)
            || self.quarantined.contains(&pack)
            || self.lost_to_damage.contains(&pack)
            || self.records.values().any(|record| record.pack == pack && !record.acked)
    }

    // --- the next tier and the sender ---

    fn target_changes(&mut self) {
        self.target_is(self.heals() || !self.target_up);
        if !self.heals() {
            let stays = if self.random.random_bool(0.5) { 8_000 } else { 600 };
            self.later(10, stays, Happening::TargetChanges);
        }
    }

    /// The connection breaks, acks under way are lost, and it is up again at once.
    fn link_breaks(&mut self) {
        if self.target_up {
            self.target_is(false);
            self.target_is(true);
        }
    }

    fn target_is(&mut self, up: bool) {
        self.target_up = up;
        self.session += 1;
        for (_, transmitted) in &mut self.flight {
            *transmitted = false;
        }
        self.tell(Event::Targets { up: usize::from(up) });
    }

    fn transmit(&mut self) {
        let slow = self.seed.is_multiple_of(5) && !self.heals();
        self.later(1, if slow { 3_000 } else { 40 }, Happening::Transmit);
        if !self.target_up {
            return;
        }
        let Some(next) = self.flight.iter_mut().find(|(_, transmitted)| !transmitted) else { return };
        next.1 = true;
        let ticket = next.0;
        let (stream, number) = self.held[&ticket].0;
        if !self.poisoned.contains(&(stream, number)) && self.received.insert((stream, number)) {
            self.received_order[stream].push(number);
        }
        if self.heals() || self.random.random_bool(0.95) {
            let session = self.session;
            self.later(1, 300, Happening::Acknowledge(ticket, session));
        } else {
            // The ack is lost with the connection, some time later.
            self.later(1, 2_000, Happening::LinkBreaks);
        }
    }

    fn acknowledge(&mut self, ticket: Ticket, session: u32) {
        if session != self.session {
            return;
        }
        let Some(at) = self.flight.iter().position(|(known, _)| *known == ticket) else { return };
        self.flight.remove(at);
        let pack = self.held[&ticket].0;
        let outcome = match self.poisoned.contains(&pack) {
            true if pack.1.is_multiple_of(2) => Outcome::Rejected { reason: "poison".into() },
            true => Outcome::Conflict(Remembered::default()),
            false => Outcome::Ok,
        };
        self.tell(Event::Settled { ticket, outcome });
    }

    // --- the spool ---

    fn spool_changes(&mut self) {
        let open = self.records.values().filter(|record| !record.acked).count() as u64;
        let chance = if self.heals() { 9 } else { self.random.random_range(0..10) };
        match chance {
            0..3 => self.spool_cap = open + 2,
            3..5 => self.spool_fails = true,
            5 => self.damage_a_record(),
            _ => (self.spool_cap, self.spool_fails) = (u64::MAX, false),
        }
        if !self.heals() {
            self.later(500, 8_000, Happening::SpoolChanges);
        }
    }

    fn damage_a_record(&mut self) {
        let ids: Vec<u64> =
            self.records.iter().filter(|(_, record)| !record.acked).map(|(id, _)| *id).collect();
        if ids.is_empty() || self.seed % 2 == 1 {
            return;
        }
        let id = ids[self.random.random_range(0..ids.len())];
        let Some(record) = self.records.get_mut(&id) else { return };
        record.damaged = true;
        self.lost_to_damage.insert(record.pack);
    }

    fn do_job(&mut self, job: Job) {
        if self.jobs.is_empty() {
            self.later(1, 30, Happening::DiskWorks);
        }
        self.jobs.push_back(job);
    }

    fn disk_works(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        if !self.jobs.is_empty() {
            self.later(1, 30, Happening::DiskWorks);
        }
        match job {
            Job::Append(tickets) => self.append(&tickets),
            Job::Ack(RecordId(id)) => {
                if let Some(record) = self.records.get_mut(&id) {
                    record.acked = true;
                }
            }
            Job::Read(epoch, bytes_max) => self.read(epoch, bytes_max),
            Job::Rewind => self.cursor = 0,
            Job::Recount => {
                let counts = self.counts();
                self.tell(Event::Counted(counts));
            }
            Job::Quarantine(ticket) => {
                self.quarantined.insert(self.held[&ticket].0);
                self.tell(Event::Quarantined { ticket });
            }
        }
    }

    fn append(&mut self, tickets: &[Ticket]) {
        if self.spool_fails {
            let trouble = Some(SpoolTrouble::Failed("fsync".into()));
            return self.tell(Event::Appended { durable: Vec::new(), trouble });
        }
        let mut durable = Vec::new();
        let mut trouble = None;
        for &ticket in tickets {
            let open = self.records.values().filter(|record| !record.acked).count() as u64;
            if open >= self.spool_cap {
                trouble = Some(SpoolTrouble::Full("cap".into()));
                break;
            }
            let record = StoredRecord { pack: self.held[&ticket].0, acked: false, damaged: false };
            self.records.insert(self.next_record, record);
            durable.push((ticket, RecordId(self.next_record)));
            self.next_record += 1;
        }
        self.tell(Event::Appended { durable, trouble });
    }

    fn read(&mut self, epoch: u64, bytes_max: u64) {
        let mut fetched = Fetched { epoch, ..Fetched::default() };
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some((&id, record)) = self.records.range_mut(self.cursor + 1..).next() else {
                fetched.end = true;
                break;
            };
            self.cursor = id;
            if record.acked {
                continue;
            }
            if record.damaged {
                record.acked = true;
                continue;
            }
            bytes += PACK_BYTES;
            self.ticket += 1;
            let (ticket, pack) = (self.ticket, info(record.pack));
            self.held.insert(ticket, (record.pack, Vec::new()));
            fetched.packs.push(FetchedPack { ticket, record: RecordId(id), pack });
        }
        self.tell(Event::Fetched(fetched));
    }

    fn counts(&self) -> HashMap<StreamId, u64> {
        let mut counts = HashMap::new();
        for record in self.records.values().filter(|record| !record.acked) {
            *counts.entry(info(record.pack).identity.stream).or_default() += 1;
        }
        counts
    }

    // --- the relay ---

    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.trace(|| format!("{event:?}"));
            let mut actions = Vec::new();
            self.relay.on(self.now - self.started_at, event, &mut actions);
            for action in actions {
                if let Some(event) = self.carry_out(action) {
                    events.push_back(event);
                }
            }
        }
    }

    fn trace(&self, line: impl Fn() -> String) {
        if self.verbose {
            eprintln!("{:>9.3} {}", self.now.as_secs_f64(), line());
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Event> {
        self.trace(|| format!("    {action:?}"));
        *self.seen.entry(name_of(&action)).or_default() += 1;
        match action {
            Action::Answer { ticket, answer } => self.answered(ticket, &answer),
            Action::Attach { from, to } => {
                let Some((pack, peers)) = self.held.remove(&from) else { panic!("unknown pack {from}") };
                let Some(known) = self.held.get_mut(&to) else { panic!("attached to the unknown pack {to}") };
                assert_eq!(pack, known.0);
                known.1.extend(peers);
            }
            Action::Submit { ticket } => {
                assert!(self.held.contains_key(&ticket));
                self.flight.push_back((ticket, false));
                assert!(self.flight.len() as u64 <= WINDOW_PACKS, "the window is kept");
            }
            Action::Withdraw => {
                // An ack may be on its way while packs are withdrawn: its pack stays.
                let keep = if self.random.random_bool(0.3) { self.flight.pop_front() } else { None };
                let tickets = self.flight.drain(..).map(|(ticket, _)| ticket).collect();
                if let Some((ticket, _)) = keep {
                    self.flight.push_back((ticket, true));
                    let (session, pack) = (self.session, self.held[&ticket].0);
                    if self.poisoned.contains(&pack) || self.received.contains(&pack) {
                        self.later(1, 20, Happening::Acknowledge(ticket, session));
                    } else {
                        self.flight.clear();
                        return Some(Event::Withdrawn {
                            tickets: std::iter::once(ticket).chain(tickets).collect(),
                        });
                    }
                }
                return Some(Event::Withdrawn { tickets });
            }
            Action::Append { tickets } => self.do_job(Job::Append(tickets)),
            Action::AckRecord { record } => {
                let stored = &self.records[&record.0];
                let arrived = self.received.contains(&stored.pack) || self.quarantined.contains(&stored.pack);
                let told = self.refused.contains(&stored.pack) || self.poisoned.contains(&stored.pack);
                assert!(arrived || told, "record of {:?} let go before it arrived", stored.pack);
                self.do_job(Job::Ack(record));
            }
            Action::Read { epoch, bytes_max } => self.do_job(Job::Read(epoch, bytes_max)),
            Action::Rewind => self.do_job(Job::Rewind),
            Action::Recount => self.do_job(Job::Recount),
            Action::Quarantine { ticket, .. } => self.do_job(Job::Quarantine(ticket)),
            Action::Remember { identity, first, now_unix } => {
                self.footprint_log.push((identity, first, now_unix))
            }
            Action::Forget { ticket } => {
                let Some((pack, peers)) = self.held.get(&ticket) else { panic!("forgotten twice: {ticket}") };
                assert!(peers.is_empty(), "{pack:?} is forgotten without an answer");
                assert!(!self.flight.iter().any(|(known, _)| *known == ticket), "forgotten in flight");
                let written = self
                    .jobs
                    .iter()
                    .any(|job| matches!(job, Job::Append(tickets) if tickets.contains(&ticket)));
                assert!(!written, "forgotten while it is being written");
                self.held.remove(&ticket);
            }
        }
        None
    }

    /// Power loss: memory is gone, the spool has what was synced, the footprint's log lost some of its tail.
    fn crash(&mut self) {
        if self.heals() {
            return;
        }
        self.crash_count += 1;
        self.jobs.clear();
        self.agenda.retain(|_, what| !matches!(what, Happening::DiskWorks | Happening::Acknowledge(..)));
        self.held.clear();
        self.flight.clear();
        self.cursor = 0;
        self.started_at = self.now;
        let keep = self.footprint_log.len().saturating_sub(self.random.random_range(0..20));
        self.footprint_log.truncate(keep);
        let mut footprint = Footprint::default();
        for (identity, first, now_unix) in &self.footprint_log {
            footprint.insert(identity, *first, *now_unix);
        }
        self.relay = Relay::new(options(), footprint, self.counts());
        self.session += 1;
        if self.target_up {
            self.tell(Event::Targets { up: 1 });
        }
        for stream in 0..self.tailers.len() {
            self.tailers[stream].connection += 1;
            self.tailers[stream].connected = false;
            self.later(50, 500, Happening::TailerReconnects(stream));
        }
        self.later(1_000, 30_000, Happening::Crash);
    }

    // --- promises ---

    fn check_bounds(&self) {
        let open: usize = self.tailers.iter().map(|tailer| tailer.open.len()).sum();
        let figures = self.relay.figures(self.now - self.started_at);
        // What tailers wait for, what is in flight after its answer, what was read back, what is being written.
        let most = open as u64 * 2 + WINDOW_PACKS + REPLAY_PACKS + 1;
        assert!(figures.queue_packs <= most, "{} packs in memory, {open} open", figures.queue_packs);
        assert_eq!(figures.queue_bytes, figures.queue_packs * PACK_BYTES);
    }

    fn is_finished(&self) -> bool {
        self.heals()
            && self.tailers.iter().all(|tailer| tailer.closed.len() == tailer.packs)
            && self.records.values().all(|record| record.acked)
            && self.jobs.is_empty()
            && self.flight.is_empty()
    }

    fn check_end(&self) {
        let figures = self.relay.figures(self.now - self.started_at);
        for (stream, tailer) in self.tailers.iter().enumerate() {
            assert_eq!(
                tailer.closed.len(),
                tailer.packs,
                "stream {stream}: open {:?}, {figures:?}",
                tailer.open
            );
            for number in 0..tailer.packs {
                let pack = (stream, number);
                let there = self.received.contains(&pack)
                    || self.quarantined.contains(&pack)
                    || self.refused.contains(&pack)
                    || self.lost_to_damage.contains(&pack);
                assert!(there, "{pack:?} is lost");
            }
            // Damaged packs may come in later again, from a tailer that was not answered.
            let order: Vec<usize> = self.received_order[stream]
                .iter()
                .copied()
                .filter(|number| !self.lost_to_damage.contains(&(stream, *number)))
                .collect();
            assert!(order.is_sorted(), "stream {stream} out of order: {order:?}");
        }
        let left: Vec<PackId> =
            self.records.values().filter(|record| !record.acked).map(|record| record.pack).collect();
        assert!(left.is_empty(), "the spool did not drain: {left:?}, {figures:?}");
        assert_eq!((figures.queue_packs, figures.spool_packs), (0, 0), "{figures:?}");
        assert_eq!(figures.streams_active, 0, "{figures:?}");
    }
}

fn name_of(action: &Action) -> &'static str {
    match action {
        Action::Answer { answer: Answer::Ok, .. } => "ok",
        Action::Answer { answer: Answer::Duplicate, .. } => "duplicate",
        Action::Answer { answer: Answer::Busy { .. }, .. } => "busy",
        Action::Answer { answer: Answer::Rejected { .. }, .. } => "rejected",
        Action::Answer { answer: Answer::Conflict(_), .. } => "conflict",
        Action::Attach { .. } => "attach",
        Action::Submit { .. } => "submit",
        Action::Withdraw => "withdraw",
        Action::Append { .. } => "append",
        Action::AckRecord { .. } => "ack record",
        Action::Read { .. } => "read",
        Action::Rewind => "rewind",
        Action::Recount => "recount",
        Action::Quarantine { .. } => "quarantine",
        Action::Remember { .. } => "remember",
        Action::Forget { .. } => "forget",
    }
}

const ALL_ACTIONS: usize = 16;

#[test]
fn nothing_is_lost_or_overtakes_whatever_fails() {
    let trial = trial!();
    let (mut runs, mut seen) = (0, BTreeMap::new());
    for seed in trial.seeds("lives of a relay", 0..if long_run() { RUNS_LONG } else { RUNS }) {
        for (name, count) in World::new(seed).run() {
            *seen.entry(name).or_insert(0) += count;
        }
        runs += 1;
    }
    eprintln!("{seen:?}");
    assert!(runs < RUNS || seen.len() == ALL_ACTIONS, "each action was needed: {seen:?}");
}
