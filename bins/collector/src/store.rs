//! The one thread that touches the disk: it owns the spool, the footprint's log and the quarantine, and does its
//! [`Job`]s in order. What takes part in a group commit is decided by the relay, which has one such job at a time.

use crate::relay::{SpoolTrouble, Ticket};
use crate::seen::{Seen, SeenLog};
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Decoded, Limits, PackIdentity, StreamId, decode_header};
use logferry_spool::{AppendError, Damage, Record, RecordId, Spool};
use metrics::counter;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How often a pack is tried again that the quarantine did not take.
const QUARANTINE_RETRY: Duration = Duration::from_secs(1);

/// A pack's bytes: header as on the wire, and body.
#[derive(Clone, Debug)]
pub(crate) struct PackBytes {
    pub(crate) stream: StreamId,
    pub(crate) header: Bytes,
    pub(crate) body: Bytes,
}

impl PackBytes {
    /// Bytes of header and body.
    pub(crate) fn len(&self) -> u64 {
        (self.header.len() + self.body.len()) as u64
    }
}

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Append in order, sync once.
    Append(Vec<(Ticket, PackBytes)>),
    /// Acknowledge a record.
    Ack(RecordId),
    /// Read records on, up to so many bytes.
    Read { epoch: u64, bytes_max: u64 },
    /// Read from the oldest record again.
    Rewind,
    /// Count records per stream.
    Recount,
    /// Set aside.
    Quarantine(Aside),
    /// Add to the footprint's log.
    Remember(Vec<Seen>),
    /// Replace the footprint's log by this snapshot.
    Snapshot(Vec<u8>),
}

/// A pack for the quarantine.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) ticket: Ticket,
    pub(crate) reason: String,
    pub(crate) bytes: PackBytes,
}

/// What the thread has done.
#[derive(Debug)]
pub(crate) enum Report {
    Appended {
        durable: Vec<(Ticket, RecordId)>,
        trouble: Option<SpoolTrouble>,
    },
    Read {
        epoch: u64,
        packs: Vec<PackRead>,
        end: bool,
        trouble: Option<SpoolTrouble>,
    },
    Counted(HashMap<StreamId, u64>),
    Quarantined(Ticket),
    /// The footprint's log has grown, or is broken: send a snapshot.
    SnapshotWanted,
}

/// A pack read back.
#[derive(Debug)]
pub(crate) struct PackRead {
    pub(crate) record: RecordId,
    pub(crate) identity: PackIdentity,
    pub(crate) first: u64,
    pub(crate) repull: bool,
    pub(crate) bytes: PackBytes,
}

/// Figures that are read from other threads.
#[derive(Debug, Default)]
pub(crate) struct StoreFigures {
    /// Bytes of the spool on disk.
    pub(crate) spool_bytes: AtomicU64,
    /// Damaged ranges found since the start.
    pub(crate) damaged_ranges: AtomicU64,
    /// Segments found removed since the start.
    pub(crate) lost_segments: AtomicU64,
    /// Packs that were promised and are in neither of both any more.
    pub(crate) lost_packs: AtomicU64,
}

impl StoreFigures {
    pub(crate) fn show(&self, spool: &Spool) {
        self.spool_bytes.store(spool.bytes(), Relaxed);
        let Damage { ranges, segments_lost, records_lost, .. } = spool.damage();
        for (figure, counter, number) in [
            (&self.damaged_ranges, "logferry_collector_spool_damaged_total", ranges),
            (&self.lost_segments, "logferry_collector_spool_segments_lost_total", segments_lost),
            (&self.lost_packs, "logferry_collector_spool_packs_lost_total", records_lost),
        ] {
            if figure.swap(number, Relaxed) != number {
                counter!(counter).absolute(number);
            }
        }
    }
}

/// The thread's state.
pub(crate) struct Store {
    pub(crate) spool: Spool,
    pub(crate) seen: SeenLog,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) reports: UnboundedSender<Report>,
    pub(crate) figures: Arc<StoreFigures>,
    pub(crate) limits: Limits,
    /// Packs that the quarantine did not take yet.
    pub(crate) asides: VecDeque<Aside>,
}

/// The other end of the thread.
pub(crate) struct StoreHandle {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl StoreHandle {
    pub(crate) fn start(store: Store) -> io::Result<StoreHandle> {
        let (jobs, jobs_in) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || store.run(&jobs_in))?;
        Ok(StoreHandle { jobs, thread })
    }

    /// Queues a job. Jobs are bounded by the relay: one append, one read, and acknowledgements of what is in memory.
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

impl Store {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            if jobs.is_empty() {
                self.spool.write_acks();
            }
            let job = match self.asides.is_empty() {
                true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => jobs.recv_timeout(QUARANTINE_RETRY),
            };
            match job {
                Ok(job) => self.work(job),
                Err(RecvTimeoutError::Timeout) => self.set_aside(),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
            self.figures.show(&self.spool);
        }
    }

    fn finish(&mut self) {
        if let Err(error) = self.spool.save() {
            tracing::warn!(%error, "the spool was not closed well: the next start reads more of it");
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Append(packs) => self.append(&packs),
            Job::Ack(record) => self.ack(record),
            Job::Read { epoch, bytes_max } => self.read(epoch, bytes_max),
            Job::Rewind => self.spool.rewind(),
            Job::Recount => self.report(Report::Counted(pending(&self.spool))),
            Job::Quarantine(aside) => {
                self.asides.push_back(aside);
                self.set_aside();
            }
            Job::Remember(seen) => self.seen.append(&seen),
            Job::Snapshot(footprint) => self.seen.snapshot(&footprint),
        }
        if self.seen.asks_for_snapshot() {
            self.report(Report::SnapshotWanted);
        }
    }

    /// Nobody listens only while the node stops.
    fn report(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    fn append(&mut self, packs: &[(Ticket, PackBytes)]) {
        let records_before = self.spool.len();
        let mut appended = Vec::with_capacity(packs.len());
        let mut trouble = None;
        for (ticket, pack) in packs {
            match self.spool.append(pack.stream.0, &[&pack.header, &pack.body]) {
                Ok(record) => appended.push((*ticket, record)),
                Err(error) => {
                    trouble = Some(trouble_of(&error));
                    break;
                }
            }
        }
        if let Err(error) = self.spool.sync() {
            trouble = Some(trouble_of(&error));
        }
        // The spool counts what is durable, in order of appending; a failure rolls back the rest of the group only.
        let durable = self.spool.len().saturating_sub(records_before);
        appended.truncate(usize::try_from(durable).unwrap_or(usize::MAX));
        counter!("logferry_collector_spooled_total").increment(appended.len() as u64);
        self.report(Report::Appended { durable: appended, trouble });
    }

    fn ack(&mut self, record: RecordId) {
        if let Err(error) = self.spool.ack(record) {
            // The record is sent again after a restart, and is a duplicate then.
            counter!("logferry_collector_spool_ack_failures_total").increment(1);
            tracing::warn!(%error, "the spool cannot note that a pack has arrived");
        }
    }

    fn read(&mut self, epoch: u64, bytes_max: u64) {
        let (mut packs, mut bytes, mut end, mut trouble) = (Vec::new(), 0, false, None);
        while bytes < bytes_max {
            match self.spool.read_next() {
                Ok(Some(record)) => {
                    bytes += record.payload.len() as u64;
                    match self.decode(&record) {
                        Ok(pack) => packs.push(pack),
                        Err(reason) => self.undecodable(&record, &reason),
                    }
                }
                Ok(None) => {
                    end = true;
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    trouble = Some(SpoolTrouble::Failed(error.to_string()));
                    break;
                }
            }
        }
        counter!("logferry_collector_replayed_total").increment(packs.len() as u64);
        self.report(Report::Read { epoch, packs, end, trouble });
    }

    fn decode(&self, record: &Record) -> Result<PackRead, String> {
        let (header, body_at) = match decode_header(&record.payload, &self.limits) {
            Ok(Decoded::Header { header, body_at, pack_len }) if pack_len == record.payload.len() => {
                (header, body_at)
            }
            Ok(_) => return Err("spool_length".into()),
            Err(error) => return Err(error.reason().into()),
        };
        let Some(ours) = header.ours else { return Err("spool_legacy".into()) };
        let bytes = PackBytes {
            stream: StreamId(record.key),
            header: record.payload.slice(..body_at),
            body: record.payload.slice(body_at..),
        };
        Ok(PackRead {
            record: record.id,
            identity: ours.identity,
            first: ours.first,
            repull: header.repull,
            bytes,
        })
    }

    /// A whole record that is no pack: as if it was damaged.
    fn undecodable(&mut self, record: &Record, reason: &str) {
        let note = format!("record {} of the spool is no pack", record.id.0);
        if self.quarantine.put(reason, &note, &[&record.payload]).is_ok() {
            self.ack(record.id);
        }
    }

    fn set_aside(&mut self) {
        while let Some(aside) = self.asides.pop_front() {
            let PackBytes { stream, header, body } = &aside.bytes;
            let note =
                format!("a spooled pack of stream {stream} was refused by the next tier: {}", aside.reason);
            if self.quarantine.put(&aside.reason, &note, &[header, body]).is_err() {
                self.asides.push_front(aside);
                return;
            }
            self.report(Report::Quarantined(aside.ticket));
        }
    }
}

/// Records per stream that did not arrive yet.
pub(crate) fn pending(spool: &Spool) -> HashMap<StreamId, u64> {
    spool.pending_by_key().into_iter().map(|(key, records)| (StreamId(key), records)).collect()
}

fn trouble_of(error: &AppendError) -> SpoolTrouble {
    match error {
        AppendError::Full { .. } | AppendError::NoRoom { .. } => SpoolTrouble::Full(error.to_string()),
        _ => SpoolTrouble::Failed(error.to_string()),
    }
}
