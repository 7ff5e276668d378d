//! The tailer's own spool, for sources with `spool = true`, whose files may vanish: packs that no target takes go to the disk, and
//! count as settled then.
//!
//! While a stream has packs in the spool its newer ones go there too, so that they stay in their order. A pack that was in flight when
//! the targets went away is copied to the spool; if it arrives all the same, its copy is a duplicate for the next tier.
//!
//! At a start the spool is the truth: what it holds is settled, whether or not the state log came to know of it before the last end.

use bytes::Bytes;
use logferry_link::{Outgoing, Sender};
use logferry_pack::{Decoded, Limits, StreamId, decode_header};
use logferry_spool::{RecordId, Spool};
use metrics::counter;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, warn};

use crate::event::Shared;
use crate::ledger::Ledger;

/// Tickets of packs that come from the spool.
const REPLAY: u64 = 1 << 63;
/// Time without a target after which packs go to the spool.
const AWAY_MIN: Duration = Duration::from_secs(2);
/// Time between two looks at targets and spool.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most bytes of packs from the spool that are in flight.
const REPLAY_BYTES_MAX: u64 = 4 << 20;

/// The spool, and what of it is on its way.
pub struct Spooling {
    spool: Spool,
    sources: BTreeSet<String>,
    away_since: Option<Instant>,
    replaying: HashMap<u64, (RecordId, Outgoing)>,
    /// Read, and not taken by the sender yet.
    next: Option<(RecordId, Outgoing)>,
    last_ticket: u64,
    full: bool,
}

/// Whether a ticket is of a pack from the spool.
pub fn is_replay(ticket: u64) -> bool {
    ticket & REPLAY != 0
}

impl Spooling {
    /// `sources` are those whose packs may be spooled.
    pub fn new(spool: Spool, sources: BTreeSet<String>) -> Spooling {
        let (replaying, last_ticket) = (HashMap::new(), 0);
        Spooling { spool, sources, away_since: None, replaying, next: None, last_ticket, full: false }
    }

    /// Looks at the targets; whether all have been away for a while.
    pub fn is_away(&mut self, sender: &Sender) -> bool {
        if *sender.targets_up().borrow() > 0 {
            self.away_since = None;
            return false;
        }
        self.away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY_MIN
    }

    /// Settles in the ledger what the spool holds: a kill may have come after the spool's fsync and before the state log's. Returns the
    /// number of packs that the ledger did not know to be settled. Replay begins at the oldest pack afterwards.
    pub fn settle_in(&mut self, ledger: &mut Ledger) -> u64 {
        let keys = self.spool.pending_by_key();
        if !keys.into_keys().any(|key| ledger.has_unsent(StreamId(key))) {
            return 0;
        }
        let mut settled = 0;
        loop {
            match self.spool.read_next() {
                Ok(Some(record)) => settled += u64::from(settles(&record.payload, ledger)),
                Ok(None) => break,
                // Replay tries again; until then these packs are cut from their files, as far as there are files.
                Err(error) => {
                    error!(%error, "the spool cannot be read to its end");
                    break;
                }
            }
        }
        self.spool.rewind();
        settled
    }

    /// Whether a pack has to go to the spool. A pack without lines stays behind those whose hour it may close, whatever their streams.
    pub fn wants(&self, pack: &Outgoing, is_away: bool) -> bool {
        if self.spool.pending(pack.stream.0) > 0 {
            return true;
        }
        if !is_away && self.spool.is_empty() {
            return false;
        }
        let header = decode_header(&pack.header, &Limits::default());
        let Ok(Decoded::Header { header, .. }) = header else { return false };
        header.ours.is_some_and(|ours| {
            self.sources.contains(ours.source.as_str()) && (is_away || ours.identity.span == 0)
        })
    }

    /// Brings packs to the disk, in order and with one fsync; how many of them are there, from the first on.
    pub fn take(&mut self, packs: &[Outgoing]) -> usize {
        if packs.is_empty() {
            self.full = false;
            return 0;
        }
        let before = self.spool.len();
        let appended = packs
            .iter()
            .try_for_each(|pack| self.spool.append(pack.stream.0, &[&pack.header, &pack.body]).map(drop));
        let outcome = appended.map_err(|error| error.to_string());
        let synced = self.spool.sync().map_err(|error| error.to_string());
        let is_full = outcome.is_err() || synced.is_err();
        if let Err(error) = outcome.and(synced)
            && !self.full
        {
            warn!(%error, "the spool takes nothing: its sources are not read until it does");
        }
        self.full = is_full;
        // The spool counts what is durable, in the order of appending.
        let taken = usize::try_from(self.spool.len().saturating_sub(before)).unwrap_or(packs.len());
        counter!("logferry_tailer_packs_spooled_total").increment(taken as u64);
        taken.min(packs.len())
    }

    /// Sends what waits, as far as the sender takes it.
    pub fn replay(&mut self, sender: &Sender) {
        if *sender.targets_up().borrow() == 0 {
            return;
        }
        while self.replaying.values().map(|(_, pack)| pack.bytes()).sum::<u64>() < REPLAY_BYTES_MAX {
            let Some((record, pack)) = self.next.take().or_else(|| self.read()) else { return };
            match sender.try_submit(pack.clone()) {
                Ok(()) => {
                    self.replaying.insert(pack.ticket, (record, pack));
                }
                Err(pack) => {
                    self.next = Some((record, pack));
                    return;
                }
            }
        }
    }

    fn read(&mut self) -> Option<(RecordId, Outgoing)> {
        loop {
            let record = match self.spool.read_next() {
                Ok(record) => record?,
                Err(error) => {
                    error!(%error, "the spool cannot be read");
                    return None;
                }
            };
            if let Ok(Decoded::Header { body_at, .. }) = decode_header(&record.payload, &Limits::default()) {
                self.last_ticket += 1;
                let (header, body): (Bytes, Bytes) =
                    (record.payload.slice(..body_at), record.payload.slice(body_at..));
                let ticket = REPLAY | self.last_ticket;
                return Some((
                    record.id,
                    Outgoing { ticket, stream: StreamId(record.key), apart: false, header, body },
                ));
            }
            error!(record = record.id.0, "a record of the spool is no pack: it stays there");
        }
    }

    /// A pack from the spool that is on its way.
    pub fn pack_of(&self, ticket: u64) -> Option<Outgoing> {
        self.replaying.get(&ticket).map(|(_, pack)| pack.clone())
    }

    /// A pack from the spool has arrived, or is in quarantine.
    pub fn settled(&mut self, ticket: u64) {
        if let Some((record, _)) = self.replaying.remove(&ticket)
            && let Err(error) = self.spool.ack(record)
        {
            warn!(%error, "the spool cannot note that a pack has arrived: it is sent again after a restart");
        }
    }

    /// Whether it has anything to do by itself.
    pub fn is_busy(&self) -> bool {
        !self.spool.is_empty() || self.away_since.is_some()
    }

    /// Shows its figures. Whether it takes packs again that it did not take before.
    pub fn show(&self, shared: &Shared) -> bool {
        shared.spool_packs.store(self.spool.len(), Ordering::Relaxed);
        shared.spool_bytes.store(self.spool.bytes(), Ordering::Relaxed);
        shared.spool_full.swap(self.full, Ordering::AcqRel) && !self.full
    }

    /// For a graceful stop.
    pub fn save(&mut self) {
        if let Err(error) = self.spool.save() {
            warn!(%error, "the spool was not closed well: the next start reads more of it");
        }
    }
}

/// Settles the pack that a record of the spool holds.
fn settles(record: &[u8], ledger: &mut Ledger) -> bool {
    match decode_header(record, &Limits::default()) {
        Ok(Decoded::Header { header, .. }) => ledger.settle_spooled(&header),
        Ok(Decoded::More { .. }) | Err(_) => false,
    }
}
