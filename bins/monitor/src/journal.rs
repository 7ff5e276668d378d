//! The queue to the database, on the disk: what is in it is neither lost by a kill nor by a power loss, however long the database is away.
//!
//! A change is in the queue, fsynced, before its sender is told that it is taken; it leaves the queue when the database has committed it
//! together with its number. So an acknowledged change is written to the database exactly once. One thread does the fsyncs, one
//! for all changes that wait; nobody who listens to nodes waits for the database.
//!
//! Numbers rise, with gaps. Those of a run begin beyond all that an earlier run can have given, also if this queue does not know of it, because
//! its end was damaged or the files are an older copy: a number that the database has seen would be passed over as written.

use crate::registry::Change;
use anyhow::Context;
use logferry_durable::{Disk, Log, replace};
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot};

/// Name of the log in `var_dir`.
const LOG_NAME: &str = "journal";
/// Requests between the listeners and the thread; more wait.
const REQUESTS_MAX: usize = 1_024;
/// Requests that share an fsync.
const GROUP_MAX: usize = 1_024;

/// Why changes are not taken. Their senders keep them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// As many bytes wait as may.
    #[error("the database is away and its queue of {0} bytes is full")]
    Full(u64),
    /// The disk.
    #[error("the queue cannot be written: {0}")]
    Failed(String),
}

/// A record of the log.
#[derive(Serialize, Deserialize)]
enum Record {
    Change(u64, Change),
    /// All up to this number are in the database.
    Written(u64),
    /// The id of the queue: it is behind each snapshot, too, because one may become unreadable, and changes under another id would be
    /// written once more.
    Id(u64),
}

/// What a snapshot begins with: what it is, and the version of what follows. Those of earlier monitors begin with their id.
const SNAPSHOT_HEAD: [u8; 5] = *b"LFMQ\x01";

/// What the log holds at a moment.
#[derive(Default, Serialize, Deserialize)]
struct Snapshot {
    id: u64,
    next: u64,
    waiting: Vec<(u64, Change)>,
}

impl Snapshot {
    fn encoded(&self) -> Result<Vec<u8>, postcard::Error> {
        Ok([&SNAPSHOT_HEAD[..], &postcard::to_stdvec(self)?].concat())
    }

    fn decoded(bytes: &[u8]) -> Result<Snapshot, postcard::Error> {
        postcard::from_bytes(bytes.strip_prefix(&SNAPSHOT_HEAD).unwrap_or(bytes))
    }
}

enum Request {
    /// With the most bytes that may wait then.
    Append(Vec<Change>, u64, oneshot::Sender<Result<(), JournalError>>),
    Written(u64),
}

#[derive(Default)]
struct Waiting {
    /// Number, change, bytes.
    queue: VecDeque<(u64, Change, u64)>,
    bytes: u64,
    /// All up to this number are in the database, as far as it has said.
    written: u64,
}

/// The hold on the queue; clones share it.
#[derive(Clone)]
pub struct Journal {
    id: u64,
    bytes_max: u64,
    waiting: Arc<Mutex<Waiting>>,
    requests: mpsc::Sender<Request>,
    arrived: Arc<Notify>,
}

impl Journal {
    /// Opens or creates it in `dir` and starts its thread.
    ///
    /// # Errors
    /// The folder cannot be read. Damage is no error: it is set aside and reported.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, bytes_max: u64) -> anyhow::Result<Journal> {
        let (mut log, recovered) = Log::open(disk.clone(), dir, LOG_NAME)
            .with_context(|| format!("the queue in {} cannot be opened", dir.display()))?;
        if recovered.report.is_suspect() {
            tracing::error!(report = %recovered.report, "the queue to the database was damaged: registrations and errors may be lost");
        }
        let (snapshot, written, unreadable) = restore(&recovered.snapshot, &recovered.records);
        for (what, bytes) in &unreadable {
            set_aside(&*disk, dir, what, bytes)?;
        }
        let mut waiting = Waiting { written, ..Waiting::default() };
        for (number, change) in &snapshot.waiting {
            waiting.push(*number, change.clone(), bytes_of(change));
        }
        // before the first change, so that its number belongs to an id that is on the disk
        if recovered.snapshot.is_none() || !unreadable.is_empty() || log.wants_snapshot() {
            begin(&mut log, &snapshot, written).context("the queue cannot be written")?;
        }
        let (requests, requests_in) = mpsc::channel(REQUESTS_MAX);
        let journal = Journal {
            id: snapshot.id,
            bytes_max,
            waiting: Arc::new(Mutex::new(waiting)),
            requests,
            arrived: Arc::default(),
        };
        // a queue that was just made has an id that no database knows
        let first_of_run = if recovered.is_new() { 0 } else { numbers_from(jiff::Timestamp::now()) };
        let writer = Writer { log, next: snapshot.next, first_of_run, journal: journal.clone_for_thread() };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(requests_in))
            .context("the thread of the queue cannot be started")?;
        Ok(journal)
    }

    /// Takes changes; when this returns they are on the disk.
    ///
    /// # Errors
    /// None of them was taken.
    pub async fn append(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        self.append_up_to(self.bytes_max, changes).await
    }

    /// The same for what its senders keep if it is refused: the last quarter is left to what nobody else has, such as who registered and left.
    ///
    /// # Errors
    /// None of them was taken.
    pub async fn append_of_nodes(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        self.append_up_to(self.bytes_max - self.bytes_max / 4, changes).await
    }

    async fn append_up_to(&self, bytes_max: u64, changes: Vec<Change>) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.place().await.put_up_to(bytes_max, changes).done().await
    }

    /// Waits until a request can be made without waiting: whoever must keep the order of what was decided makes it while what decides is held.
    pub(crate) async fn place(&self) -> Place<'_> {
        Place { permit: self.requests.reserve().await.ok(), bytes_max: self.bytes_max }
    }

    /// The id under which the database remembers how far this queue is written.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The oldest `count` changes with their numbers.
    pub fn oldest(&self, count: usize) -> Vec<(u64, Change)> {
        self.lock().queue.iter().take(count).map(|(number, change, _)| (*number, change.clone())).collect()
    }

    /// All up to `number` are in the database.
    pub async fn written(&self, number: u64) {
        self.lock().drop_up_to(number);
        let _ = self.requests.send(Request::Written(number)).await;
    }

    /// How far the database has said that it is.
    pub fn written_up_to(&self) -> u64 {
        self.lock().written
    }

    /// Waits until something is in the queue.
    pub async fn wait(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.lock().queue.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// Whether one of these waits.
    pub fn has_waiting(&self, wanted: impl Fn(&Change) -> bool) -> bool {
        self.lock().queue.iter().any(|(_, change, _)| wanted(change))
    }

    /// Changes and bytes that wait.
    pub fn waiting(&self) -> (u64, u64) {
        let waiting = self.lock();
        (waiting.queue.len() as u64, waiting.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread must not keep its own channel open.
    fn clone_for_thread(&self) -> Journal {
        let (requests, _) = mpsc::channel(1);
        Journal { requests, ..self.clone() }
    }
}

/// A request that can be made without waiting.
pub(crate) struct Place<'a> {
    permit: Option<mpsc::Permit<'a, Request>>,
    bytes_max: u64,
}

/// Changes on their way to the disk.
pub(crate) struct Putting(oneshot::Receiver<Result<(), JournalError>>);

impl Place<'_> {
    /// Puts changes into the queue, behind all that were put into it before.
    pub(crate) fn put(self, changes: Vec<Change>) -> Putting {
        let bytes_max = self.bytes_max;
        self.put_up_to(bytes_max, changes)
    }

    fn put_up_to(self, bytes_max: u64, changes: Vec<Change>) -> Putting {
        let (answer, answered) = oneshot::channel();
        if let Some(permit) = self.permit {
            permit.send(Request::Append(changes, bytes_max, answer));
        }
        Putting(answered)
    }
}

impl Putting {
    /// When this returns they are on the disk.
    ///
    /// # Errors
    /// None of them was taken.
    pub(crate) async fn done(self) -> Result<(), JournalError> {
        self.0.await.unwrap_or_else(|_| Err(JournalError::Failed("its thread has ended".to_owned())))
    }
}

impl Waiting {
    fn push(&mut self, number: u64, change: Change, bytes: u64) {
        self.bytes += bytes;
        self.queue.push_back((number, change, bytes));
    }

    fn drop_up_to(&mut self, number: u64) {
        self.written = self.written.max(number);
        while self.queue.front().is_some_and(|(first, ..)| *first <= number) {
            if let Some((_, _, bytes)) = self.queue.pop_front() {
                self.bytes -= bytes;
            }
        }
        self.show();
    }

    fn show(&self) {
        gauge!("logferry_monitor_queue_changes").set(self.queue.len() as f64);
        gauge!("logferry_monitor_queue_bytes").set(self.bytes as f64);
    }
}

/// Bytes of a change in the log and, near enough, in memory.
fn bytes_of(change: &Change) -> u64 {
    postcard::to_stdvec(change).map_or(0, |bytes| bytes.len() as u64) + 64
}

/// What the log says, up to which number the database has said that it has all (0: not known), and which bytes say nothing, by what they were.
fn restore(snapshot: &Option<Vec<u8>>, records: &[Vec<u8>]) -> (Snapshot, u64, Vec<(&'static str, Vec<u8>)>) {
    let mut written = 0;
    let mut unreadable = Vec::new();
    let stored = snapshot.as_ref().and_then(|bytes| {
        Snapshot::decoded(bytes).inspect_err(|_| unreadable.push(("snapshot", bytes.clone()))).ok()
    });
    let mut state = stored.unwrap_or_else(|| Snapshot { id: rand::random(), next: 1, waiting: Vec::new() });
    let mut unreadable_records = Vec::new();
    for record in records {
        match postcard::from_bytes(record) {
            Ok(Record::Change(number, change)) => {
                state.next = state.next.max(number + 1);
                state.waiting.push((number, change));
            }
            Ok(Record::Written(upto)) => {
                written = written.max(upto);
                state.next = state.next.max(upto + 1);
                state.waiting.retain(|(number, _)| *number > upto);
            }
            Ok(Record::Id(id)) => state.id = id,
            Err(_) => unreadable_records.extend_from_slice(record),
        }
    }
    if !unreadable_records.is_empty() {
        unreadable.push(("records", unreadable_records));
    }
    (state, written, unreadable)
}

/// Lets the log begin with a snapshot, and says behind it how far the database has all: numbers have gaps, so what waits does not tell it.
fn begin(log: &mut Log, snapshot: &Snapshot, written: u64) -> std::io::Result<()> {
    let encoded = |record: &Record| postcard::to_stdvec(record).map_err(std::io::Error::other);
    log.snapshot(&snapshot.encoded().map_err(std::io::Error::other)?)?;
    log.append(&encoded(&Record::Id(snapshot.id))?);
    log.append(&encoded(&Record::Written(written))?);
    Ok(())
}

/// Keeps what cannot be read beside the log, under a name that is free.
fn set_aside(disk: &dyn Disk, dir: &Path, what: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let name = |number: u32| dir.join(format!("{LOG_NAME}-{what}.damaged{number}"));
    let path = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    replace(disk, &path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    tracing::error!(file = %path.display(), "a part of the queue to the database cannot be read and is set aside: registrations and errors may be lost");
    Ok(())
}

/// Where the numbers of a run begin that starts at this time: no run gives a million in each of its milliseconds.
fn numbers_from(start: jiff::Timestamp) -> u64 {
    u64::try_from(start.as_millisecond()).unwrap_or(0).saturating_mul(1 << 20)
}

/// The thread.
struct Writer {
    log: Log,
    /// Beyond all numbers that the log has.
    next: u64,
    /// Numbers of this run are at least this.
    first_of_run: u64,
    journal: Journal,
}

/// Number, change, bytes.
type Taken = Vec<(u64, Change, u64)>;
type Answers = Vec<(oneshot::Sender<Result<(), JournalError>>, Result<(), JournalError>)>;

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let (mut taken, mut answers) = (Taken::new(), Answers::new());
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(request) = requests.try_recv()
            {
                group.push(request);
            }
            let mut bytes = self.journal.lock().bytes;
            for request in group {
                self.take(request, &mut bytes, &mut taken, &mut answers);
            }
            self.commit(taken, answers);
        }
    }

    /// `bytes`: of what waits, and of what was taken since.
    fn take(&mut self, request: Request, bytes: &mut u64, taken: &mut Taken, answers: &mut Answers) {
        let (changes, bytes_max, answer) = match request {
            Request::Append(changes, bytes_max, answer) => (changes, bytes_max, answer),
            Request::Written(number) => return self.append(&Record::Written(number)),
        };
        let sized = |change: Change| {
            let size = bytes_of(&change);
            (change, size)
        };
        let sized: Vec<(Change, u64)> = changes.into_iter().map(sized).collect();
        let more: u64 = sized.iter().map(|(_, size)| size).sum();
        if *bytes + more > bytes_max {
            counter!("logferry_monitor_queue_full_total").increment(1);
            answers.push((answer, Err(JournalError::Full(bytes_max))));
            return;
        }
        *bytes += more;
        for (change, size) in sized {
            let number = self.next.max(self.first_of_run);
            self.append(&Record::Change(number, change.clone()));
            taken.push((number, change, size));
            self.next = number + 1;
        }
        answers.push((answer, Ok(())));
    }

    fn append(&mut self, record: &Record) {
        match postcard::to_stdvec(record) {
            Ok(bytes) => self.log.append(&bytes),
            Err(error) => tracing::error!(%error, "a change cannot be made into bytes"),
        }
    }

    /// What could not be committed is not taken, by nobody: its senders have it still.
    fn commit(&mut self, taken: Taken, answers: Answers) {
        let outcome = if self.log.is_poisoned() { self.compact(&taken) } else { self.log.commit() };
        if outcome.is_ok() {
            let mut waiting = self.journal.lock();
            for (number, change, bytes) in taken {
                waiting.push(number, change, bytes);
            }
            waiting.show();
            drop(waiting);
            self.journal.arrived.notify_waiters();
            if self.log.wants_snapshot() {
                // what was committed stays so if this fails
                let _ = self.compact(&[]);
            }
        } else if !taken.is_empty() {
            // a poisoned log may hold them: a snapshot without them says that they were not taken
            let _ = self.compact(&[]);
        }
        if let Err(error) = &outcome {
            tracing::warn!(%error, "the queue to the database cannot be written");
        }
        let failed = outcome.err().map(|error| JournalError::Failed(error.to_string()));
        for (answer, result) in answers {
            let _ = answer.send(match &failed {
                Some(error) => Err(error.clone()),
                None => result,
            });
        }
    }

    fn compact(&mut self, taken: &[(u64, Change, u64)]) -> std::io::Result<()> {
        let mut waiting: Vec<(u64, Change)> =
            self.journal.lock().queue.iter().map(|(number, change, _)| (*number, change.clone())).collect();
        waiting.extend(taken.iter().map(|(number, change, _)| (*number, change.clone())));
        let snapshot = Snapshot { id: self.journal.id, next: self.next, waiting };
        begin(&mut self.log, &snapshot, self.journal.written_up_to())
    }
}

#[cfg(test)]
mod tests;
