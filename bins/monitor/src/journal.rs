//! The queue to the database, on the disk: what is in it is neither lost by a kill nor by a power loss, however long the database is away.
//!
//! A change is in the queue, fsynced, before its sender is told that it is taken; it leaves the queue when the database has committed it
//! together with its number. So an acknowledged change is written to the database exactly once. One thread does the fsyncs, one
//! for all changes that wait; nobody who listens to nodes waits for the database.

use crate::registry::Change;
use anyhow::Context;
use logferry_durable::{Disk, Log};
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
}

/// What the log holds at a moment.
#[derive(Default, Serialize, Deserialize)]
struct Snapshot {
    id: u64,
    next: u64,
    waiting: Vec<(u64, Change)>,
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
        let (mut log, recovered) = Log::open(disk, dir, LOG_NAME)
            .with_context(|| format!("the queue in {} cannot be opened", dir.display()))?;
        if recovered.report.is_suspect() {
            tracing::error!(report = %recovered.report, "the queue to the database was damaged: registrations and errors may be lost");
        }
        let snapshot = restore(&recovered.snapshot, &recovered.records);
        let mut waiting = Waiting::default();
        for (number, change) in &snapshot.waiting {
            waiting.push(*number, change.clone(), bytes_of(change));
        }
        // before the first change, so that its number belongs to an id that is on the disk
        if recovered.snapshot.is_none() || log.wants_snapshot() {
            log.snapshot(&postcard::to_stdvec(&snapshot)?).context("the queue cannot be written")?;
        }
        let (requests, requests_in) = mpsc::channel(REQUESTS_MAX);
        let journal = Journal {
            id: snapshot.id,
            bytes_max,
            waiting: Arc::new(Mutex::new(waiting)),
            requests,
            arrived: Arc::default(),
        };
        let writer = Writer { log, next: snapshot.next, journal: journal.clone_for_thread() };
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
        let (answer, answered) = oneshot::channel();
        let gone = || JournalError::Failed("its thread has ended".to_owned());
        self.requests.send(Request::Append(changes, bytes_max, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
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

impl Waiting {
    fn push(&mut self, number: u64, change: Change, bytes: u64) {
        self.bytes += bytes;
        self.queue.push_back((number, change, bytes));
    }

    fn drop_up_to(&mut self, number: u64) {
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

fn restore(snapshot: &Option<Vec<u8>>, records: &[Vec<u8>]) -> Snapshot {
    let stored = snapshot.as_ref().and_then(|bytes| postcard::from_bytes(bytes).ok());
    let mut state = stored.unwrap_or_else(|| Snapshot { id: rand::random(), next: 1, waiting: Vec::new() });
    for record in records {
        match postcard::from_bytes(record) {
            Ok(Record::Change(number, change)) => {
                state.next = state.next.max(number + 1);
                state.waiting.push((number, change));
            }
            Ok(Record::Written(upto)) => {
                state.next = state.next.max(upto + 1);
                state.waiting.retain(|(number, _)| *number > upto);
            }
            Err(error) => tracing::error!(%error, "a record of the queue cannot be read and is passed over"),
        }
    }
    state
}

/// The thread.
struct Writer {
    log: Log,
    next: u64,
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
            self.append(&Record::Change(self.next, change.clone()));
            taken.push((self.next, change, size));
            self.next += 1;
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
        let bytes = postcard::to_stdvec(&snapshot).map_err(std::io::Error::other)?;
        self.log.snapshot(&bytes)
    }
}
