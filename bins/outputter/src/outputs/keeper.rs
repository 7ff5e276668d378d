//! The one thread that touches the disk for an output that can be away: it owns the spool, the footprint's log and the
//! quarantine, and does its [`Job`]s in order.

use super::backlog::Ticket;
use super::log::{self, Seen};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use logferry_durable::{Disk, Log};
use logferry_footprint::PackSeen;
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Limits, Pack};
use logferry_spool::{Record, RecordId, Spool, SpoolOptions};
use metrics::{counter, gauge};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Folder of the spool in the output's folder.
pub const SPOOL_DIR: &str = "spool";
/// Name of the footprint's log there.
pub const LOG_NAME: &str = "footprint";
/// Bytes that are read together when all packs are looked through.
const SCAN_BYTES: u64 = 2 << 20;
/// How often a pack is tried again that the quarantine did not take.
const QUARANTINE_RETRY: Duration = Duration::from_secs(1);

/// What the thread is to do.
pub(crate) enum Job {
    /// Append to the spool in order, sync once.
    Keep(Vec<(Ticket, Arc<Pack>)>),
    /// Note as kept, without a sync.
    Taken(Vec<PackSeen>),
    /// Note as stored, and sync.
    Record(Vec<PackSeen>),
    /// Replace the footprint's log.
    Snapshot(Vec<u8>),
    /// Begin anew with reading.
    Rewind,
    /// Read records on, up to so many bytes.
    Read(u64),
    /// The spool need not keep these any longer.
    Arrived(Vec<RecordId>),
    /// Into the quarantine.
    SetAside(Ticket, Arc<Pack>, String),
}

/// What the thread has done.
pub(crate) enum Report {
    Kept { durable: Vec<(Ticket, RecordId)>, trouble: Option<String> },
    Recorded(bool),
    Read { packs: Vec<(RecordId, Arc<Pack>)>, is_end: bool },
    SetAside(Ticket),
    SnapshotWanted,
}

/// Where and how much.
pub struct KeeperOptions {
    /// Folder of the output in `var_dir`.
    pub dir: PathBuf,
    /// Label of the output in figures.
    pub output: &'static str,
    /// The spool.
    pub spool: SpoolOptions,
    /// Limits of packs that are read back.
    pub limits: Limits,
}

/// The thread's state.
pub(crate) struct Keeper {
    options: KeeperOptions,
    spool: Spool,
    /// None where the output keeps its footprint elsewhere.
    log: Option<Log>,
    quarantine: Arc<Quarantine>,
    asides: VecDeque<(Ticket, Arc<Pack>, String)>,
    snapshot_asked: bool,
}

/// What is found on the disk.
pub(crate) struct Found {
    pub(crate) seen: Seen,
    pub(crate) spooled: bool,
}

impl Keeper {
    /// Opens everything; damage is set aside and reported.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        options: KeeperOptions,
        quarantine: Arc<Quarantine>,
    ) -> io::Result<(Keeper, Found)> {
        let mut keeper = Keeper::open_spool(disk.clone(), options, quarantine)?;
        let KeeperOptions { dir, output, .. } = &keeper.options;
        let (log, recovered) = Log::open(disk, dir, LOG_NAME)?;
        let seen = Seen::recover(&recovered);
        if recovered.report.is_suspect() || seen.undecodable > 0 {
            counter!("logferry_outputter_footprint_damaged_total", "output" => *output).increment(1);
            tracing::warn!(output, report = %recovered.report, undecodable = seen.undecodable,
                "the footprint was damaged: packs that it does not remember are stored again, which changes nothing");
        }
        keeper.log = Some(log);
        let found = Found { seen, spooled: !keeper.spool.is_empty() };
        Ok((keeper, found))
    }

    /// Opens the spool alone.
    pub(crate) fn open_spool(
        disk: Arc<dyn Disk>,
        options: KeeperOptions,
        quarantine: Arc<Quarantine>,
    ) -> io::Result<Keeper> {
        let KeeperOptions { dir, output, .. } = &options;
        disk.create_dir_all(dir)?;
        let spool_dir: &Path = &dir.join(SPOOL_DIR);
        let opened = Spool::open(disk, spool_dir, options.spool).map_err(io::Error::other);
        let (spool, report) = opened?;
        if !report.damage.is_none() {
            tracing::error!(output, %report, "the spool was damaged: what cannot be read was set aside");
        }
        let (asides, snapshot_asked) = (VecDeque::new(), false);
        let keeper = Keeper { options, spool, log: None, quarantine, asides, snapshot_asked };
        keeper.show();
        Ok(keeper)
    }

    /// Reads all packs there are, and begins anew.
    pub(crate) fn scan(&mut self, mut each: impl FnMut(&Pack)) {
        while let Report::Read { packs, is_end } = self.read(SCAN_BYTES) {
            packs.iter().for_each(|(_, pack)| each(pack));
            if is_end {
                break;
            }
        }
        self.spool.rewind();
    }

    pub(crate) fn start(self, reports: UnboundedSender<Report>) -> io::Result<KeeperHandle> {
        let (jobs, jobs_in) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("keeper".into());
        let thread = thread.spawn(move || self.run(&jobs_in, &reports))?;
        Ok(KeeperHandle { jobs, thread })
    }

    fn run(mut self, jobs: &Receiver<Job>, reports: &UnboundedSender<Report>) {
        loop {
            if jobs.is_empty() {
                self.spool.write_acks();
            }
            let job = match self.asides.is_empty() {
                true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => jobs.recv_timeout(QUARANTINE_RETRY),
            };
            let done = match job {
                Ok(job) => self.work(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            // Nobody listens only while the program stops.
            let _ = done.map(|report| reports.send(report));
            self.set_aside(reports);
            let wants = |log: &Log| log.wants_snapshot() || log.is_poisoned();
            if self.log.as_ref().is_some_and(wants) && !self.snapshot_asked {
                self.snapshot_asked = true;
                let _ = reports.send(Report::SnapshotWanted);
            }
            self.show();
        }
    }

    fn finish(&mut self) {
        if let Err(error) = self.spool.save() {
            tracing::warn!(%error, "the spool was not closed well: the next start reads more of it");
        }
    }

    fn show(&self) {
        let output = self.options.output;
        gauge!("logferry_outputter_spool_packs", "output" => output).set(self.spool.len() as f64);
        gauge!("logferry_outputter_spool_bytes", "output" => output).set(self.spool.bytes() as f64);
        let damage = self.spool.damage();
        counter!("logferry_outputter_spool_packs_lost_total", "output" => output)
            .absolute(damage.records_lost);
    }

    fn work(&mut self, job: Job) -> Option<Report> {
        match job {
            Job::Keep(packs) => return Some(self.keep(&packs)),
            Job::Record(packs) => return Some(Report::Recorded(self.record(&packs))),
            Job::Read(bytes_max) => return Some(self.read(bytes_max)),
            Job::Rewind => self.spool.rewind(),
            Job::Taken(packs) => {
                let log = self.log.as_mut();
                let written = log.map_or(Ok(()), |log| {
                    packs.iter().for_each(|pack| log.append(&log::kept_record(pack)));
                    log.write()
                });
                if let Err(error) = written {
                    tracing::warn!(%error, "the footprint cannot be written");
                }
            }
            Job::Snapshot(bytes) => {
                self.snapshot_asked = false;
                if let Err(error) = self.log.as_mut().map_or(Ok(()), |log| log.snapshot(&bytes)) {
                    tracing::warn!(%error, "the footprint's snapshot cannot be written");
                }
            }
            Job::Arrived(records) => records.into_iter().for_each(|record| self.ack(record)),
            Job::SetAside(ticket, pack, reason) => self.asides.push_back((ticket, pack, reason)),
        }
        None
    }

    fn keep(&mut self, packs: &[(Ticket, Arc<Pack>)]) -> Report {
        let before = self.spool.len();
        let (mut appended, mut trouble) = (Vec::with_capacity(packs.len()), None);
        for (ticket, pack) in packs {
            let stream = pack.header.ours.as_ref().map_or(0, |ours| ours.identity.stream.0);
            match self.spool.append(stream, &[&pack.encode_header(), &pack.body]) {
                Ok(record) => appended.push((*ticket, record)),
                Err(error) => {
                    trouble = Some(error.to_string());
                    break;
                }
            }
        }
        if let Err(error) = self.spool.sync() {
            trouble = Some(error.to_string());
        }
        // The spool counts what is durable, in order of appending; a failure rolls back the rest of the group only.
        let durable = self.spool.len().saturating_sub(before);
        appended.truncate(usize::try_from(durable).unwrap_or(usize::MAX));
        counter!("logferry_outputter_spooled_total", "output" => self.options.output)
            .increment(appended.len() as u64);
        Report::Kept { durable: appended, trouble }
    }

    fn record(&mut self, packs: &[PackSeen]) -> bool {
        let committed = self.log.as_mut().map_or(Ok(()), |log| {
            packs.iter().for_each(|pack| log.append(&log::stored_record(pack)));
            log.commit()
        });
        if let Err(error) = &committed {
            tracing::error!(%error, "what is stored cannot be recorded, and is not acknowledged until it is");
        }
        committed.is_ok()
    }

    fn read(&mut self, bytes_max: u64) -> Report {
        let (mut packs, mut bytes, mut is_end) = (Vec::new(), 0, false);
        while bytes < bytes_max {
            match self.spool.read_next() {
                Ok(Some(record)) => {
                    bytes += record.payload.len() as u64;
                    match Pack::parse(record.payload.clone(), &self.options.limits) {
                        Ok(pack) => packs.push((record.id, Arc::new(pack))),
                        Err(bad) => self.undecodable(&record, bad.reason()),
                    }
                }
                Ok(None) => {
                    is_end = true;
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    // Tried again with the next reading: five times, then the spool passes over it.
                    std::thread::sleep(QUARANTINE_RETRY / 10);
                    break;
                }
            }
        }
        Report::Read { packs, is_end }
    }

    /// A whole record that is no pack: as if it was damaged.
    fn undecodable(&mut self, record: &Record, reason: &str) {
        let note = format!("record {} of the spool is no pack", record.id.0);
        if self.quarantine.put(reason, &note, &[&record.payload]).is_ok() {
            self.ack(record.id);
        }
    }

    fn ack(&mut self, record: RecordId) {
        if let Err(error) = self.spool.ack(record) {
            // The record is read again after a restart, and is a duplicate then.
            tracing::warn!(%error, "the spool cannot note that a pack has arrived");
        }
    }

    fn set_aside(&mut self, reports: &UnboundedSender<Report>) {
        while let Some((ticket, pack, reason)) = self.asides.pop_front() {
            let note = format!("a pack in the spool of {} cannot be stored: {reason}", self.options.output);
            if self.quarantine.put(&reason, &note, &[&pack.encode_header(), &pack.body]).is_err() {
                self.asides.push_front((ticket, pack, reason));
                return;
            }
            let _ = reports.send(Report::SetAside(ticket));
        }
    }
}

/// The other end of the thread.
pub(crate) struct KeeperHandle {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl KeeperHandle {
    /// Queues a job. Jobs are bounded by the backlog: one group, one reading, one record, and what is in memory.
    pub(crate) fn send(&self, job: Job) {
        // The thread ends only after this handle is gone, or with the process by a panic.
        let _ = self.jobs.send(job);
    }

    /// Lets the thread do what is queued, and waits for its end.
    pub(crate) fn finish(self) -> std::thread::Result<()> {
        drop(self.jobs);
        self.thread.join()
    }
}
