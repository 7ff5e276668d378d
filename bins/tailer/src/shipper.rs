//! The shipper: owns the state log and the sender. A pack goes out only when its record is on the disk; one fsync
//! covers all records that wait.

use crate::event::{Event, Shared, ToShipper, pack_bytes};
use crate::input::shelf::Shelf;
use crate::ledger::Verdict;
use crate::spooling::{self, Spooling};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Channel};
use logferry_durable::Log;
use logferry_link::{Outcome, Outgoing, Sender, Settled};
use logferry_node::quarantine::Quarantine;
use metrics::counter;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Longest time a record waits for its fsync when no pack waits for it.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// A full window is looked at again after this time, should no answer come.
const WINDOW_RETRY: Duration = Duration::from_millis(50);
/// A quarantine that takes nothing is tried again after this time.
const QUARANTINE_RETRY: Duration = Duration::from_secs(1);
/// First wait before a state log that failed is written anew; doubles.
const JOURNAL_RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait between attempts to write the state log anew.
const JOURNAL_RETRY_MAX: Duration = Duration::from_secs(5);
/// Most messages taken in before the log and the sender get their turn.
const BURST_MAX: usize = 256;

/// A pack in its turn: it goes when the records up to `position` are on the disk.
#[derive(Debug)]
struct Turn {
    ticket: u64,
    position: u64,
}

/// When the state log is written anew.
#[derive(Debug)]
struct Repair {
    at: Instant,
    wait: Duration,
}

/// State of the shipper's thread.
pub struct Shipper {
    log: Log,
    sender: Sender,
    quarantine: Quarantine,
    follower: Channel<Event>,
    shared: Arc<Shared>,
    /// Records taken in, and how many of them are on the disk.
    appended: u64,
    committed: u64,
    uncommitted_since: Option<Instant>,
    repair: Option<Repair>,
    snapshot_asked: bool,
    turns: VecDeque<Turn>,
    packed: HashMap<u64, Outgoing>,
    sent: HashMap<u64, Outgoing>,
    rejected: Vec<(Outgoing, String)>,
    rejected_retry: Option<Instant>,
    window_full: bool,
    /// Files of inputs that may go when so many records are on the disk.
    releases: VecDeque<(u64, Arc<Shelf>, u64)>,
    spooling: Option<Spooling>,
}

impl Shipper {
    /// Puts one together.
    pub fn new(
        log: Log,
        sender: Sender,
        quarantine: Quarantine,
        follower: Channel<Event>,
        shared: Arc<Shared>,
    ) -> Shipper {
        Shipper {
            log,
            sender,
            quarantine,
            follower,
            shared,
            appended: 0,
            committed: 0,
            uncommitted_since: None,
            repair: None,
            snapshot_asked: false,
            turns: VecDeque::new(),
            packed: HashMap::new(),
            sent: HashMap::new(),
            rejected: Vec::new(),
            rejected_retry: None,
            window_full: false,
            releases: VecDeque::new(),
            spooling: None,
        }
    }

    /// With a spool for packs that no target takes.
    pub fn with_spool(self, spooling: Option<Spooling>) -> Shipper {
        Shipper { spooling, ..self }
    }

    /// Works until it is told to finish, or the follower is gone.
    pub fn run(mut self, messages: &Receiver<ToShipper>) {
        loop {
            let timeout = self.deadline().saturating_duration_since(Instant::now());
            match messages.recv_timeout(timeout) {
                Ok(ToShipper::Finish(snapshot)) => return self.finish(&snapshot),
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for message in messages.try_iter().take(BURST_MAX) {
                match message {
                    ToShipper::Finish(snapshot) => return self.finish(&snapshot),
                    message => self.take(message),
                }
            }
            self.quarantine_rejected();
            self.tend_log();
            self.release();
            self.ship();
        }
    }

    fn take(&mut self, message: ToShipper) {
        match message {
            ToShipper::Record(record) => self.append(&record),
            ToShipper::Expect(ticket) => self.turns.push_back(Turn { ticket, position: self.appended }),
            ToShipper::Packed(pack) => {
                self.packed.insert(pack.ticket, pack);
            }
            ToShipper::Settled(settled) => self.settle(settled),
            ToShipper::Quarantine { pack, reason } => {
                // Taken off when its conflict was told, and once more when it is in the quarantine.
                self.shared.held_bytes.fetch_add(pack_bytes(&pack.header, &pack.body), Ordering::Relaxed);
                self.rejected.push((pack, reason));
            }
            ToShipper::Release(shelf, number) => self.releases.push_back((self.appended, shelf, number)),
            ToShipper::Snapshot(snapshot) => self.snapshot(&snapshot),
            ToShipper::Finish(_) => {}
        }
    }

    fn append(&mut self, record: &[u8]) {
        self.appended += 1;
        self.uncommitted_since.get_or_insert_with(Instant::now);
        // A log under repair takes nothing: the snapshot that heals it has this record.
        if self.repair.is_none() {
            self.log.append(record);
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let flush = self.uncommitted_since.filter(|_| self.repair.is_none()).map(|since| since + FLUSH_AFTER);
        let repair = self.repair.as_ref().filter(|_| !self.snapshot_asked).map(|repair| repair.at);
        let window = self.window_full.then(|| now + WINDOW_RETRY);
        let has_sent = !self.sent.is_empty() || !self.turns.is_empty();
        let spool = self.spooling.as_ref().filter(|spooling| has_sent || spooling.is_busy());
        let spool = spool.map(|_| now + spooling::LOOK_EVERY);
        let all = [flush, repair, window, self.rejected_retry, spool];
        all.into_iter().flatten().min().unwrap_or(now + Duration::from_secs(3600))
    }

    fn tend_log(&mut self) {
        let now = Instant::now();
        if let Some(repair) = &self.repair {
            if repair.at <= now {
                self.ask_for_snapshot();
            }
            return;
        }
        let pack_waits = self
            .turns
            .front()
            .is_some_and(|turn| turn.position > self.committed && self.packed.contains_key(&turn.ticket));
        let flush_due = self.uncommitted_since.is_some_and(|since| since + FLUSH_AFTER <= now);
        let release_waits = self.releases.front().is_some_and(|(position, ..)| *position > self.committed);
        if pack_waits || release_waits || flush_due {
            self.commit();
        }
        if self.repair.is_none() && self.log.wants_snapshot() {
            self.ask_for_snapshot();
        }
    }

    fn commit(&mut self) {
        match self.log.commit() {
            Ok(()) => {
                self.committed = self.appended;
                self.uncommitted_since = None;
                counter!("logferry_tailer_journal_commits_total").increment(1);
            }
            Err(error) => self.journal_failed(&error),
        }
    }

    fn release(&mut self) {
        while let Some((position, shelf, number)) = self.releases.pop_front() {
            if position > self.committed {
                self.releases.push_front((position, shelf, number));
                return;
            }
            shelf.release(number);
        }
    }

    fn ask_for_snapshot(&mut self) {
        if !self.snapshot_asked {
            self.snapshot_asked = true;
            let _ = self.follower.send(Event::SnapshotWanted);
        }
    }

    fn snapshot(&mut self, snapshot: &[u8]) {
        self.snapshot_asked = false;
        match self.log.snapshot(snapshot) {
            Ok(()) => {
                self.committed = self.appended;
                self.uncommitted_since = None;
                if self.repair.take().is_some() {
                    info!("the state log can be written again");
                    self.shared.journal_down.store(false, Ordering::Release);
                    let _ = self.follower.send(Event::Resume);
                }
            }
            Err(error) => self.journal_failed(&error),
        }
    }

    /// Nothing that waits is sent. The log is written anew, as a snapshot, until that succeeds.
    fn journal_failed(&mut self, cause: &std::io::Error) {
        let wait = self.repair.as_ref().map_or(JOURNAL_RETRY_MIN, |repair| repair.wait * 2);
        let wait = wait.min(JOURNAL_RETRY_MAX);
        if self.repair.is_none() {
            error!(error = %cause, "the state log cannot be written: reading stops until it can");
        }
        counter!("logferry_tailer_journal_failures_total").increment(1);
        self.shared.journal_down.store(true, Ordering::Release);
        self.repair = Some(Repair { at: Instant::now() + wait, wait });
    }

    /// Hands packs on in their order: to the spool if they have to go there, else to the sender.
    fn ship(&mut self) {
        self.window_full = false;
        let is_away = self.spooling.as_mut().is_some_and(|spooling| spooling.is_away(&self.sender));
        let mut to_spool = self.sent_to_spool(is_away);
        let mut index = 0;
        while let Some(turn) = self.turns.get(index).filter(|turn| turn.position <= self.committed) {
            let ticket = turn.ticket;
            let Some(pack) = self.packed.get(&ticket) else { break };
            if self.spooling.as_ref().is_some_and(|spooling| spooling.wants(pack, is_away)) {
                to_spool.push(pack.clone());
                index += 1;
            } else if self.window_full || self.sender.try_submit(pack.clone()).is_err() {
                self.window_full = true;
                // Those behind it may have to go to the spool.
                if self.spooling.is_none() {
                    break;
                }
                index += 1;
            } else {
                self.sent.extend(self.packed.remove(&ticket).map(|pack| (ticket, pack)));
                self.turns.remove(index);
            }
        }
        self.spool(to_spool);
    }

    /// Packs in flight whose targets are away, in the order in which they were sent: they go to the spool before those behind them.
    fn sent_to_spool(&self, is_away: bool) -> Vec<Outgoing> {
        let Some(spooling) = self.spooling.as_ref().filter(|_| is_away) else { return Vec::new() };
        let wants = |pack: &&Outgoing| spooling.wants(pack, true);
        let mut packs: Vec<Outgoing> = self.sent.values().filter(wants).cloned().collect();
        packs.sort_by_key(|pack| pack.ticket);
        packs
    }

    /// Brings packs to the spool, as many as it takes; the others stay where they are.
    fn spool(&mut self, mut packs: Vec<Outgoing>) {
        let Some(spooling) = &mut self.spooling else { return };
        let taken = spooling.take(&packs);
        packs.truncate(taken);
        spooling.replay(&self.sender);
        let takes_again = spooling.show(&self.shared);
        let tickets: HashSet<u64> = packs.iter().map(|pack| pack.ticket).collect();
        if !tickets.is_empty() {
            self.turns.retain(|turn| !tickets.contains(&turn.ticket));
        }
        for pack in packs {
            self.sent.remove(&pack.ticket);
            self.packed.remove(&pack.ticket);
            self.settled(&pack, Verdict::Taken, None);
        }
        if takes_again {
            let _ = self.follower.send(Event::Resume);
        }
    }

    /// A pack from the spool was answered.
    fn settle_replayed(&mut self, settled: Settled) {
        let reason = match settled.outcome {
            Outcome::Ok | Outcome::Duplicate => None,
            Outcome::Rejected { reason } => Some(reason),
            // The file may be gone: there is nothing to compare with.
            Outcome::Conflict(_) => Some("conflict".to_owned()),
        };
        let Some(spooling) = &mut self.spooling else { return };
        match reason.and_then(|reason| Some((spooling.pack_of(settled.ticket)?, reason))) {
            None => spooling.settled(settled.ticket),
            Some((pack, reason)) => {
                // Taken off again when it is in the quarantine.
                self.shared.held_bytes.fetch_add(pack_bytes(&pack.header, &pack.body), Ordering::Relaxed);
                self.rejected.push((pack, reason));
            }
        }
    }

    fn settle(&mut self, settled: Settled) {
        if spooling::is_replay(settled.ticket) {
            return self.settle_replayed(settled);
        }
        let Some(pack) = self.sent.remove(&settled.ticket) else { return };
        match settled.outcome {
            Outcome::Ok => self.settled(&pack, Verdict::Taken, None),
            Outcome::Duplicate => {
                counter!("logferry_tailer_packs_duplicate_total").increment(1);
                self.settled(&pack, Verdict::Duplicate, None);
            }
            Outcome::Rejected { reason } => self.rejected.push((pack, reason)),
            Outcome::Conflict(remembered) => {
                counter!("logferry_tailer_conflicts_total").increment(1);
                let copy = pack.clone();
                self.settled(&pack, Verdict::Conflict(remembered), Some(copy));
            }
        }
    }

    fn settled(&self, pack: &Outgoing, verdict: Verdict, copy: Option<Outgoing>) {
        self.shared.held_bytes.fetch_sub(pack_bytes(&pack.header, &pack.body), Ordering::Relaxed);
        let _ = self.follower.send(Event::Settled { ticket: pack.ticket, verdict, pack: copy });
    }

    fn quarantine_rejected(&mut self) {
        let now = Instant::now();
        if self.rejected_retry.is_some_and(|at| now < at) {
            return;
        }
        self.rejected_retry = None;
        while let Some((pack, reason)) = self.rejected.pop() {
            let note = format!("pack {} of stream {} was refused by the next tier", pack.ticket, pack.stream);
            match self.quarantine.put(&reason, &note, &[&pack.header, &pack.body]) {
                Ok(_) => {
                    counter!("logferry_tailer_packs_rejected_total", "reason" => reason).increment(1);
                    self.settled(&pack, Verdict::Quarantined, None);
                    if let Some(spooling) = &mut self.spooling {
                        spooling.settled(pack.ticket);
                    }
                }
                Err(error) => {
                    warn!(%error, "the quarantine cannot be written: trying again");
                    self.rejected.push((pack, reason));
                    self.rejected_retry = Some(now + QUARANTINE_RETRY);
                    return;
                }
            }
        }
    }

    fn finish(mut self, snapshot: &[u8]) {
        if let Some(spooling) = &mut self.spooling {
            spooling.save();
        }
        if let Err(error) = self.log.snapshot(snapshot) {
            error!(%error, "the state could not be saved at the stop: the next start sends some packs again");
        }
    }
}
