//! The thread that writes an input's files: group commit, and waiting for room.

use super::config::InputSettings;
use super::framing::Framed;
use super::shelf::Shelf;
use super::store::{Store, StoreError};
use crate::event::Event;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Channel};
use logferry_durable::Disk;
use metrics::counter;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, info, warn};

/// Memory for lines that wait for the disk, in bytes.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Most bytes that one fdatasync covers.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Most commands taken before the disk gets its turn.
const BURST_MAX: usize = 4096;
/// First wait after a failure of the disk; doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait between attempts.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug)]
pub enum Command {
    /// Write lines.
    Lines(Batch),
    /// All of a file was acknowledged.
    Release(u64),
    /// Append nothing more to the open file, so that it can be released.
    Seal,
    /// Write what waits, and end.
    Finish,
}

/// Lines from one writer.
#[derive(Debug)]
pub struct Batch {
    framed: Framed,
    /// Told when they are on the disk.
    durable: Option<oneshot::Sender<()>>,
    _room: OwnedSemaphorePermit,
}

/// The end of an inlet that writers have.
#[derive(Clone, Debug)]
pub struct Intake {
    commands: Channel<Command>,
    room: Arc<Semaphore>,
    /// The books.
    pub shelf: Arc<Shelf>,
}

impl Intake {
    /// Hands lines over, waiting until there is room in memory for them. What it gives is told when they are on the disk.
    pub async fn submit(&self, framed: Framed) -> oneshot::Receiver<()> {
        let (durable, told) = oneshot::channel();
        if framed.splits > 0 {
            counter!("logferry_tailer_input_splits_total", "input" => self.shelf.name.clone())
                .increment(framed.splits);
        }
        let bytes = framed.bytes.len().min(WAITING_BYTES_MAX) as u32;
        // The semaphore is never closed.
        if let Ok(room) = self.room.clone().acquire_many_owned(bytes).await {
            let batch = Batch { framed, durable: Some(durable), _room: room };
            let _ = self.commands.send(Command::Lines(batch));
        }
        told
    }

    /// Whether nothing waits for the disk.
    pub fn is_idle(&self) -> bool {
        self.room.available_permits() == WAITING_BYTES_MAX
    }

    /// Lets all that came so far be released as soon as it was shipped.
    pub fn seal(&self) {
        let _ = self.commands.send(Command::Seal);
    }

    /// Messages that came and could not be kept.
    pub fn dropped(&self, count: u64, reason: &'static str) {
        self.shelf.dropped_total.fetch_add(count, Ordering::Relaxed);
        counter!("logferry_tailer_input_dropped_total", "input" => self.shelf.name.clone(), "reason" => reason)
            .increment(count);
    }
}

/// An input's writing end.
#[derive(Debug)]
pub struct Inlet {
    intake: Intake,
    thread: JoinHandle<()>,
}

impl Inlet {
    /// Opens the files, and starts the thread.
    pub fn open(
        settings: &InputSettings,
        disk: Arc<dyn Disk>,
        folder: &Path,
        events: Channel<Event>,
    ) -> io::Result<Inlet> {
        let (commands, commands_in) = crossbeam_channel::unbounded();
        let shelf = Arc::new(Shelf::new(&settings.name, folder, commands.clone()));
        let store = Store::open(disk, shelf.clone(), settings.max_bytes.0)?;
        let intake =
            Intake { commands, room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)), shelf: shelf.clone() };
        let writer =
            Writer { store, shelf, events, waiting: VecDeque::new(), blocked: None, finishing: false };
        let thread = std::thread::Builder::new()
            .name(format!("input-{}", settings.name))
            .spawn(move || writer.run(&commands_in))?;
        Ok(Inlet { intake, thread })
    }

    /// For writers.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// The books.
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.intake.shelf
    }

    /// Writes what waits, as far as there is room, and ends the thread.
    pub fn finish(self) {
        let _ = self.intake.commands.send(Command::Finish);
        // A panic has ended the process.
        let _ = self.thread.join();
    }
}

/// Why nothing is written at present.
#[derive(Debug)]
enum Blocked {
    /// `max_bytes` is reached: a release tells.
    Full,
    /// The disk failed: at this time again.
    Until(Instant, Duration),
}

struct Writer {
    store: Store,
    shelf: Arc<Shelf>,
    events: Channel<Event>,
    waiting: VecDeque<Batch>,
    blocked: Option<Blocked>,
    finishing: bool,
}

impl Writer {
    fn run(mut self, commands: &Receiver<Command>) {
        while !self.finishing {
            match commands.recv_timeout(self.timeout()) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.finishing = true,
            }
            for command in commands.try_iter().take(BURST_MAX) {
                self.take(command);
            }
            self.write();
            if self.store.seal_at().is_some_and(|due| due <= Instant::now()) {
                self.seal();
            }
        }
        self.give_up_waiting();
    }

    fn timeout(&self) -> Duration {
        let retry = match self.blocked {
            Some(Blocked::Until(due, _)) => Some(due),
            Some(Blocked::Full) => None,
            None if self.waiting.is_empty() => None,
            None => return Duration::ZERO,
        };
        let due = [retry, self.store.seal_at()].into_iter().flatten().min();
        due.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Lines(batch) => self.waiting.push_back(batch),
            Command::Release(number) => {
                if let Err(error) = self.store.release(number) {
                    // It goes with the next file, or after the next start.
                    warn!(input = self.shelf.name, number, %error, "a file that was shipped cannot be deleted");
                }
                self.blocked = None;
            }
            Command::Seal => {
                self.write();
                self.seal();
            }
            Command::Finish => self.finishing = true,
        }
    }

    fn seal(&mut self) {
        if let Some(number) = self.store.seal() {
            self.tell(number);
        }
    }

    fn tell(&self, number: u64) {
        let _ = self.events.send(Event::Written(self.shelf.path(number)));
    }

    fn write(&mut self) {
        match self.blocked {
            Some(Blocked::Until(due, _)) if due > Instant::now() && !self.finishing => return,
            Some(Blocked::Full) => return,
            _ => {}
        }
        while !self.waiting.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for batch in &self.waiting {
                bytes += batch.framed.bytes.len();
                if count > 0 && bytes > GROUP_BYTES_MAX {
                    break;
                }
                count += 1;
            }
            let parts: Vec<&[u8]> =
                self.waiting.iter().take(count).map(|batch| &batch.framed.bytes[..]).collect();
            match self.store.append(&parts) {
                Ok(number) => self.written(number, count),
                Err(error) => return self.failed(&error),
            }
        }
    }

    fn written(&mut self, number: u64, count: usize) {
        if self.blocked.take().is_some() || self.shelf.trouble().is_some() {
            info!(input = self.shelf.name, "lines are taken again");
            self.shelf.set_trouble(None);
        }
        let (mut lines, mut bytes) = (0, 0);
        for batch in self.waiting.drain(..count) {
            lines += batch.framed.lines;
            bytes += batch.framed.bytes.len() as u64;
            // The writer may have gone away.
            let _ = batch.durable.map(|durable| durable.send(()));
        }
        self.shelf.lines_total.fetch_add(lines, Ordering::Relaxed);
        let input = || self.shelf.name.clone();
        counter!("logferry_tailer_input_lines_total", "input" => input()).increment(lines);
        counter!("logferry_tailer_input_bytes_total", "input" => input()).increment(bytes);
        counter!("logferry_tailer_input_commits_total", "input" => input()).increment(1);
        self.tell(number);
    }

    fn failed(&mut self, error: &StoreError) {
        let is_new = self.shelf.trouble().is_none();
        self.shelf.set_trouble(Some(format!("input {}: {error}", self.shelf.name)));
        match error {
            StoreError::Full(_) => {
                if is_new {
                    warn!(input = self.shelf.name, %error, "nothing more is read until the next tier has taken some");
                }
                self.blocked = Some(Blocked::Full);
                // The file that was open is sealed now, and may be wholly acknowledged already.
                self.tell_all();
            }
            StoreError::Disk(_) => {
                counter!("logferry_tailer_input_failures_total", "input" => self.shelf.name.clone())
                    .increment(1);
                if is_new {
                    error!(input = self.shelf.name, %error, "lines cannot be written: nothing more is read until they can");
                }
                let wait = match self.blocked {
                    Some(Blocked::Until(_, wait)) => (wait * 2).min(RETRY_MAX),
                    _ => RETRY_MIN,
                };
                self.blocked = Some(Blocked::Until(Instant::now() + wait, wait));
                self.tell_all();
            }
        }
    }

    fn tell_all(&self) {
        if let Some(first) = self.shelf.first() {
            self.tell(first);
        }
        self.shelf.last().into_iter().for_each(|last| self.tell(last));
    }

    /// At the end: what cannot be written even now was promised to nobody.
    fn give_up_waiting(&mut self) {
        // What is in memory may go over the cap now: it has a bound of its own.
        self.store.allow(WAITING_BYTES_MAX as u64);
        self.blocked = None;
        self.write();
        let lines: u64 = self.waiting.iter().map(|batch| batch.framed.lines).sum();
        if lines > 0 {
            error!(
                input = self.shelf.name,
                lines, "lines that were read and never acknowledged are lost: there was no room for them"
            );
            self.shelf.dropped_total.fetch_add(lines, Ordering::Relaxed);
            counter!("logferry_tailer_input_dropped_total", "input" => self.shelf.name.clone(), "reason" => "stopped")
                .increment(lines);
        }
        self.seal();
    }
}
