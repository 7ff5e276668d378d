//! The relay's task: turns what comes from the links and the disk into [`Event`]s, and carries out the [`Action`]s.
//! It owns the bytes of the packs in memory and whoever waits for an answer to them.

use crate::board::Board;
use crate::collector::Reports;
use crate::relay::{Action, Event, Fetched, FetchedPack, PackInfo, Relay, Ticket};
use crate::seen::Seen;
use crate::store::{Aside, Job, PackBytes, PackRead, Report, StoreHandle};
use anyhow::Context;
use logferry_link::{Answer, Answerer, HopStamp, Incoming, Outgoing, Sender, Settled};
use metrics::{Counter, counter};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events handled before the state is published and the others get their turn.
const EVENTS_PER_TURN: usize = 64;
/// Footprint records gathered before they are written.
const SEEN_MAX: usize = 256;
/// How long footprint records are gathered, and how often targets are looked at when nothing else happens.
const SEEN_FLUSH: Duration = Duration::from_millis(250);

/// A pack in memory.
struct Held {
    bytes: PackBytes,
    /// In no order with first deliveries.
    apart: bool,
    waiters: Vec<Answerer>,
}

/// The task's state.
pub(crate) struct Shell {
    relay: Relay,
    sender: Sender,
    store: StoreHandle,
    hops: HopStamp,
    board: Arc<Board>,
    started: Instant,
    next_ticket: Ticket,
    held: HashMap<Ticket, Held>,
    /// Packs that the sender had no room for: its window is counted by its own rules.
    overflow: VecDeque<Outgoing>,
    seen: Vec<Seen>,
    actions: Vec<Action>,
    counters: Counters,
}

/// Registered once: looking them up for each pack would cost more than counting.
struct Counters {
    packs: Counter,
    bytes: Counter,
    ok: Counter,
    duplicate: Counter,
    busy: Counter,
    rejected: Counter,
    conflict: Counter,
}

impl Counters {
    fn new() -> Counters {
        let answer = |answer: &'static str| counter!("logferry_collector_answers_total", "answer" => answer);
        Counters {
            packs: counter!("logferry_collector_packs_total"),
            bytes: counter!("logferry_collector_bytes_total"),
            ok: answer("ok"),
            duplicate: answer("duplicate"),
            busy: answer("busy"),
            rejected: answer("rejected"),
            conflict: answer("conflict"),
        }
    }

    fn of(&self, answer: &Answer) -> &Counter {
        match answer {
            Answer::Ok => &self.ok,
            Answer::Duplicate => &self.duplicate,
            Answer::Busy { .. } => &self.busy,
            Answer::Rejected { .. } => &self.rejected,
            Answer::Conflict(_) => &self.conflict,
        }
    }
}

/// Everything that wakes the task.
enum Wake {
    Packs,
    NoMorePacks,
    Settled,
    Reports,
    TargetsUp(usize),
    Stop,
    Time,
}

/// Where events come from, and what was taken from there.
struct Inputs {
    packs: Receiver<Incoming>,
    settled: UnboundedReceiver<Settled>,
    reports: Reports,
    taken_packs: Vec<Incoming>,
    taken_settled: Vec<Settled>,
    taken_reports: Vec<Report>,
    packs_ended: bool,
    stopping: bool,
    targets_up: watch::Receiver<usize>,
}

impl Inputs {
    async fn next(&mut self, relay: &Relay, wake_at: Instant, stop: &CancellationToken) -> Wake {
        tokio::select! {
            _ = self.settled.recv_many(&mut self.taken_settled, EVENTS_PER_TURN) => Wake::Settled,
            _ = self.reports.recv_many(&mut self.taken_reports, EVENTS_PER_TURN) => Wake::Reports,
            taken = self.packs.recv_many(&mut self.taken_packs, EVENTS_PER_TURN),
                if !self.packs_ended && relay.wants_more() => match taken {
                    0 => Wake::NoMorePacks,
                    _ => Wake::Packs,
                },
            Ok(()) = self.targets_up.changed() => Wake::TargetsUp(*self.targets_up.borrow_and_update()),
            () = stop.cancelled(), if !self.stopping => Wake::Stop,
            () = tokio::time::sleep_until(wake_at.into()) => Wake::Time,
        }
    }
}

impl Shell {
    pub(crate) fn new(
        relay: Relay,
        sender: Sender,
        store: StoreHandle,
        hops: HopStamp,
        board: Arc<Board>,
    ) -> Shell {
        Shell {
            relay,
            sender,
            store,
            hops,
            board,
            started: Instant::now(),
            next_ticket: 0,
            held: HashMap::new(),
            overflow: VecDeque::new(),
            seen: Vec::new(),
            actions: Vec::new(),
            counters: Counters::new(),
        }
    }

    /// Runs until `stop`, then until all is answered and written, `stop_max` at most.
    pub(crate) async fn run(
        mut self,
        packs: Receiver<Incoming>,
        settled: UnboundedReceiver<Settled>,
        reports: Reports,
        stop: CancellationToken,
        stop_max: Duration,
    ) -> anyhow::Result<()> {
        let mut inputs = Inputs {
            packs,
            settled,
            reports,
            taken_packs: Vec::new(),
            taken_settled: Vec::new(),
            taken_reports: Vec::new(),
            packs_ended: false,
            stopping: false,
            targets_up: self.sender.targets_up(),
        };
        let mut leave_at = None;
        loop {
            let wake_at = self.wake_at(leave_at);
            match inputs.next(&self.relay, wake_at, &stop).await {
                Wake::Packs => self.take_packs(&mut inputs.taken_packs),
                Wake::NoMorePacks => inputs.packs_ended = true,
                Wake::Settled => self.take_settled(&mut inputs.taken_settled),
                Wake::Reports => self.take_reports(&mut inputs.taken_reports),
                Wake::TargetsUp(up) => self.tell(Event::Targets { up }),
                Wake::Stop => {
                    inputs.stopping = true;
                    leave_at = Some(Instant::now() + stop_max);
                    self.tell(Event::Stop);
                }
                Wake::Time => self.tell(Event::Tick),
            }
            self.after_turn();
            let is_done = inputs.stopping && inputs.packs_ended && self.relay.is_drained();
            if is_done || leave_at.is_some_and(|at| Instant::now() >= at) {
                return self.save().await;
            }
        }
    }

    fn wake_at(&self, leave_at: Option<Instant>) -> Instant {
        let flush = Instant::now() + SEEN_FLUSH;
        let deadline = self.relay.deadline().map_or(flush, |mono| self.started + mono);
        leave_at.map_or(deadline, |leave_at| deadline.min(leave_at)).min(flush)
    }

    fn take_packs(&mut self, packs: &mut Vec<Incoming>) {
        for incoming in packs.drain(..) {
            self.take_pack(incoming);
        }
    }

    fn take_pack(&mut self, incoming: Incoming) {
        let Incoming { mut pack, peer, elapsed, answer } = incoming;
        self.counters.packs.increment(1);
        self.counters.bytes.increment(pack.body.len() as u64);
        let Some(ours) = &pack.header.ours else {
            // A listener adopts the packs of legacy nodes; over protocol v2 nobody sends them.
            tracing::warn!(peer = %peer.addr, "a pack without a stream was refused");
            counter!("logferry_collector_no_stream_total").increment(1);
            return self.answer(answer, Answer::Rejected { reason: "no_stream".into() });
        };
        let (identity, first, repull) = (ours.identity, ours.first, pack.header.repull);
        let end_to_end = pack.header.repull_job().is_some();
        pack.push_hop(&self.hops.hop(peer.addr, jiff::Timestamp::now(), elapsed));
        let bytes = PackBytes { stream: identity.stream, header: pack.encode_header(), body: pack.body };
        let info = PackInfo { identity, first, repull, end_to_end, bytes: bytes.len() };
        let ticket = self.new_ticket();
        self.held.insert(ticket, Held { bytes, apart: end_to_end, waiters: vec![answer] });
        self.tell(Event::Arrived { ticket, pack: info });
    }

    fn take_settled(&mut self, settled: &mut Vec<Settled>) {
        for Settled { ticket, outcome } in settled.drain(..) {
            self.tell(Event::Settled { ticket, outcome });
        }
    }

    fn take_reports(&mut self, reports: &mut Vec<Report>) {
        for report in reports.drain(..) {
            match report {
                Report::Appended { durable, trouble } => self.tell(Event::Appended { durable, trouble }),
                Report::Read { epoch, packs, end, trouble } => {
                    let packs = packs.into_iter().map(|pack| self.hold(pack)).collect();
                    self.tell(Event::Fetched(Fetched { epoch, packs, end, trouble }));
                }
                Report::Counted(counts) => self.tell(Event::Counted(counts)),
                Report::Quarantined(ticket) => self.tell(Event::Quarantined { ticket }),
                Report::SnapshotWanted => self.snapshot(),
            }
        }
    }

    fn hold(&mut self, read: PackRead) -> FetchedPack {
        let PackRead { record, identity, first, repull, bytes } = read;
        // What is in the spool was answered, as an older collector did with a pack that is shipped again, too.
        let pack = PackInfo { identity, first, repull, end_to_end: false, bytes: bytes.len() };
        let ticket = self.new_ticket();
        self.held.insert(ticket, Held { bytes, apart: false, waiters: Vec::new() });
        FetchedPack { ticket, record, pack }
    }

    fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Hands an event to the relay and carries out what it says.
    fn tell(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let mut actions = std::mem::take(&mut self.actions);
            self.relay.on(self.started.elapsed(), event, &mut actions);
            for action in actions.drain(..) {
                // Only `Withdraw` has a result at once, and it is asked for once at a time.
                next = self.carry_out(action).or(next);
            }
            self.actions = actions;
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Answer { ticket, answer } => {
                let waiters = self.held.get_mut(&ticket).map(|held| std::mem::take(&mut held.waiters));
                for waiter in waiters.unwrap_or_default() {
                    self.answer(waiter, answer.clone());
                }
            }
            Action::Attach { from, to } => {
                let waiters = self.held.remove(&from).map(|held| held.waiters).unwrap_or_default();
                if let Some(held) = self.held.get_mut(&to) {
                    held.waiters.extend(waiters);
                }
            }
            Action::Submit { ticket } => self.submit(ticket),
            Action::Withdraw => return Some(self.withdraw()),
            Action::Append { tickets } => {
                let packs = tickets.into_iter().filter_map(|ticket| Some((ticket, self.bytes_of(ticket)?)));
                let packs = packs.collect();
                self.store.send(Job::Append(packs));
            }
            Action::AckRecord { record } => self.store.send(Job::Ack(record)),
            Action::Read { epoch, bytes_max } => self.store.send(Job::Read { epoch, bytes_max }),
            Action::Rewind => self.store.send(Job::Rewind),
            Action::Recount => self.store.send(Job::Recount),
            Action::Quarantine { ticket, reason } => {
                if let Some(bytes) = self.bytes_of(ticket) {
                    self.store.send(Job::Quarantine(Aside { ticket, reason, bytes }));
                }
            }
            Action::Remember { identity, first, now_unix } => {
                self.seen.push(Seen { identity, first, now_unix })
            }
            Action::Forget { ticket } => {
                self.held.remove(&ticket);
            }
        }
        None
    }

    fn answer(&self, waiter: Answerer, answer: Answer) {
        self.counters.of(&answer).increment(1);
        waiter.send(answer);
    }

    fn bytes_of(&self, ticket: Ticket) -> Option<PackBytes> {
        self.held.get(&ticket).map(|held| held.bytes.clone())
    }

    fn submit(&mut self, ticket: Ticket) {
        let Some(Held { bytes, apart, .. }) = self.held.get(&ticket) else { return };
        let PackBytes { stream, header, body } = bytes.clone();
        self.overflow.push_back(Outgoing { ticket, stream, apart: *apart, header, body });
        self.submit_overflow();
    }

    /// In order, as far as the sender has room.
    fn submit_overflow(&mut self) {
        while let Some(pack) = self.overflow.pop_front() {
            if let Err(pack) = self.sender.try_submit(pack) {
                return self.overflow.push_front(pack);
            }
        }
    }

    fn withdraw(&mut self) -> Event {
        let withdrawn = self.sender.withdraw().into_iter().chain(self.overflow.drain(..));
        Event::Withdrawn { tickets: withdrawn.map(|pack| pack.ticket).collect() }
    }

    /// What is done once for many events.
    fn after_turn(&mut self) {
        self.submit_overflow();
        let flush = self.seen.len() >= SEEN_MAX || self.relay.deadline().is_none();
        if flush && !self.seen.is_empty() {
            self.flush_seen();
        }
        self.board.update(self.relay.figures(self.started.elapsed()));
    }

    fn flush_seen(&mut self) {
        self.store.send(Job::Remember(std::mem::take(&mut self.seen)));
    }

    fn snapshot(&mut self) {
        self.flush_seen();
        self.store.send(Job::Snapshot(self.relay.footprint().to_bytes()));
    }

    /// The last act: what was learned goes to the disk. Packs that were not answered are sent again by their peers.
    async fn save(mut self) -> anyhow::Result<()> {
        let left = self.relay.figures(self.started.elapsed());
        if left.unanswered > 0 {
            tracing::warn!(packs = left.unanswered, "packs were left unanswered: their senders keep them");
        }
        self.snapshot();
        let store = self.store;
        let finished = tokio::task::spawn_blocking(move || store.finish())
            .await
            .context("waiting for the disk thread")?;
        finished.map_err(|_| anyhow::anyhow!("the disk thread panicked"))
    }
}
