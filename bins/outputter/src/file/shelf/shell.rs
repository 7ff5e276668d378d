//! The shelf with its disk: a thread that keeps the spool, and the ways back from the committer.

use super::{Action, Candidate, Shelf, ShelfFigures, ShelfLimits, Written};
use crate::file::order::{Order, Parcel};
use crate::outputs::keeper::{Job, Keeper, KeeperHandle, KeeperOptions, Report};
use crate::outputs::route::Reply;
use logferry_durable::Disk;
use logferry_link::Answer;
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Header, Ours, Pack};
use logferry_spool::RecordId;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Events handled before others have a turn.
const EVENTS_PER_TURN: usize = 64;
/// When a pack that never goes to the spool is to be sent again.
const RETRY_APART_MS: u64 = 1_500;

/// What comes from the committer.
pub enum Back {
    /// A pack cannot be written now; who waits for it.
    Unwritten(Arc<Pack>, Reply),
    /// What became of a pack of the spool.
    Replayed(RecordId, Answer),
}

/// The way from the committer to the shelf. Its queue is bounded by the memory that packs without an answer may take.
pub type Door = UnboundedSender<Back>;

/// What is to be done for the shelf.
pub type ShelfAction = Action<Arc<Pack>, Reply>;

/// Something that wakes the shelf.
pub(crate) enum Wake {
    /// The spool has done something.
    Reports(Vec<Report>),
    /// The committer has.
    Backs(Vec<Back>),
}

/// The shelf, running.
pub struct Shelving {
    shelf: Shelf<Arc<Pack>, Reply>,
    keeper: KeeperHandle,
    reports: UnboundedReceiver<Report>,
    door: Door,
    backs: UnboundedReceiver<Back>,
    takes_more: bool,
}

impl Shelving {
    /// Opens the spool and reads which packs are there, which takes a second a gigabyte. `takes_more`: packs may be added, because
    /// another output waits for the files; else what is there is written, and that is all.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: KeeperOptions,
        limits: ShelfLimits,
        quarantine: Arc<Quarantine>,
        takes_more: bool,
    ) -> io::Result<Shelving> {
        let mut keeper = Keeper::open_spool(disk, options, quarantine)?;
        let mut shelf = Shelf::new(limits);
        let unix = crate::file::commit::now_unix();
        keeper.scan(|pack| {
            if let Some(ours) = &pack.header.ours {
                shelf.found(&ours.identity, ours.first, unix);
            }
        });
        let packs = shelf.figures().packs;
        if packs > 0 {
            tracing::warn!(packs, "packs of the spool are still to be written into files");
        }
        let (reports_out, reports) = unbounded_channel();
        let (door, backs) = unbounded_channel();
        Ok(Shelving { shelf, keeper: keeper.start(reports_out)?, reports, door, backs, takes_more })
    }

    /// Where the committer sends what it cannot write.
    pub fn door(&self) -> Option<Door> {
        self.takes_more.then(|| self.door.clone())
    }

    /// Whether there is something that time brings on.
    pub fn is_busy(&self) -> bool {
        !self.shelf.is_empty()
    }

    /// Numbers for the status, and whether packs may be added.
    pub fn figures(&self) -> (ShelfFigures, bool) {
        (self.shelf.figures(), self.takes_more)
    }

    /// Waits for something to do.
    pub(crate) async fn next(&mut self) -> Wake {
        let (mut reports, mut backs) = (Vec::new(), Vec::new());
        // Neither ends: this holds a door, and the keeper's thread ends after this.
        tokio::select! {
            _ = self.reports.recv_many(&mut reports, EVENTS_PER_TURN), if !self.reports.is_closed() => Wake::Reports(reports),
            _ = self.backs.recv_many(&mut backs, EVENTS_PER_TURN) => Wake::Backs(backs),
        }
    }

    /// Whether a pack is to come here rather than to the output.
    pub fn wants<W>(&self, order: &Order<W>, parcel: &Parcel) -> bool {
        let is_refused = order.is_failing() && !order.takes_without_room(parcel);
        let more = self.takes_more && is_refused && !is_apart(&parcel.pack.header);
        // What is kept of a replaced hour would be in its file twice: the host counts it as stored.
        let replaces_kept = parcel.replaces.is_some() && !self.shelf.is_empty();
        more || replaces_kept || self.shelf.holds(parcel.identity.stream)
    }

    /// A pack that is wanted.
    pub fn offered<W>(
        &mut self,
        now_ms: u64,
        order: &Order<W>,
        parcel: Parcel,
        reply: Reply,
    ) -> Vec<ShelfAction> {
        if is_apart(&parcel.pack.header) {
            // Who asked for it waits for the output's own word.
            return vec![Action::Answer(reply, Answer::Busy { retry_ms: RETRY_APART_MS })];
        }
        self.offer(now_ms, order, Arc::new(parcel.pack), reply)
    }

    /// A pack that the committer could not write.
    pub fn offer<W>(
        &mut self,
        now_ms: u64,
        order: &Order<W>,
        pack: Arc<Pack>,
        reply: Reply,
    ) -> Vec<ShelfAction> {
        let Some(Ours { identity, first, .. }) = &pack.header.ours else { return Vec::new() };
        let candidate = Candidate { identity: *identity, first: *first, bytes: pack.body.len() as u64 };
        let written =
            Written { footprint: order.footprint(), is_overlapped: order.is_overlapped(&candidate.identity) };
        self.shelf.offered(now_ms, written, candidate, pack, reply)
    }

    /// A pack of the spool was dealt with by the output.
    pub fn replayed(&mut self, record: RecordId, answer: Answer) -> Vec<ShelfAction> {
        self.shelf.replayed(record, answer)
    }

    /// Goes on with what waits in the spool.
    pub fn go_on(&mut self, now_ms: u64, is_failing: bool) -> Vec<ShelfAction> {
        self.shelf.go_on(now_ms, is_failing)
    }

    /// The spool has done something.
    pub(crate) fn reported(&mut self, now_ms: u64, report: Report) -> Vec<ShelfAction> {
        match report {
            Report::Kept { durable, trouble } => {
                self.shelf.kept(now_ms, crate::file::commit::now_unix(), durable.len(), trouble)
            }
            Report::Read { packs, is_end } => {
                let packs = packs.into_iter();
                // Only packs with a stream are ever kept.
                let records = packs.filter_map(|(record, pack)| {
                    Some((record, pack.header.ours.as_ref()?.identity.stream, pack))
                });
                self.shelf.read(records.collect(), is_end)
            }
            Report::SetAside(ticket) => self.shelf.set_aside(ticket),
            // It has no footprint of its own on the disk.
            Report::Recorded(_) | Report::SnapshotWanted => Vec::new(),
        }
    }

    /// Does what concerns the spool or who waits; gives back the packs that are to be offered to the output.
    pub fn act(&self, actions: Vec<ShelfAction>, answered: impl Fn(&Answer)) -> Vec<(Arc<Pack>, Reply)> {
        let mut replays = Vec::new();
        for action in actions {
            match action {
                Action::Answer(reply, answer) => {
                    answered(&answer);
                    reply.send(answer);
                }
                Action::Keep(packs) => self.keeper.send(Job::Keep(packs)),
                Action::Rewind => self.keeper.send(Job::Rewind),
                Action::Read(bytes_max) => self.keeper.send(Job::Read(bytes_max)),
                Action::Arrived(record) => self.keeper.send(Job::Arrived(vec![record])),
                Action::SetAside(ticket, pack, reason) => {
                    tracing::error!(
                        reason,
                        "a pack that was kept for the files can never be written: it goes to the quarantine"
                    );
                    self.keeper.send(Job::SetAside(ticket, pack, reason));
                }
                Action::Replay(packs) => {
                    let reply = |record| Reply::of_shelf(record, self.door.clone());
                    replays.extend(packs.into_iter().map(|(record, pack)| (pack, reply(record))));
                }
            }
        }
        replays
    }

    /// Closes the spool. Packs without an answer stay with their senders.
    pub fn finish(self) {
        if self.keeper.finish().is_err() {
            tracing::error!("the spool could not be closed");
        }
    }
}

/// Whether a pack never goes to the spool: it was asked for, or is of a replacement, and its file decides what is done with it. Packs
/// without bytes are marked as repulled, too, by the tailer that cuts them: of these only a repull's own were asked for.
pub fn is_apart(header: &Header) -> bool {
    let has_bytes = header.ours.as_ref().is_some_and(|ours| ours.identity.span > 0);
    let was_asked_for = header.repull && (has_bytes || header.repull_job().is_some());
    was_asked_for || !matches!(header.place(), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::order::OrderLimits;
    use logferry_durable::RealDisk;
    use logferry_footprint::Footprint;
    use logferry_pack::{Codec, Limits, Name, PackIdentity, StreamId};
    use logferry_spool::SpoolOptions;

    fn parcel(stream: u128, repull: bool, replaces: Option<String>) -> Parcel {
        let identity = PackIdentity { stream: StreamId(stream), offset: 0, span: 2, sum: 1 };
        let name = |name| Name::new(name).unwrap();
        let ours = Ours {
            host: name("web"),
            source: name("access"),
            identity,
            first: 0,
            raw: 2,
            raw_sum: None,
            codec: Codec::None,
            crc: 0,
        };
        let header = Header {
            ip: "10.0.0.7".into(),
            hour: 2026112100.try_into().unwrap(),
            id: 1,
            lines: 1,
            done: false,
            repull,
            ours: Some(ours),
            origin_rest: Default::default(),
            hops: Vec::new(),
        };
        let pack = Pack { header, body: "a\n".into() };
        Parcel { identity, first: 0, path: "access/web".into(), pack, trimmed_to: Vec::new(), replaces }
    }

    #[test]
    fn what_was_asked_for_never_goes_to_the_spool_and_no_hour_is_replaced_while_packs_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let quarantine = Arc::new(Quarantine::open(disk.clone(), dir.path(), 1 << 20).unwrap());
        let spool = SpoolOptions { bytes_max: 1 << 20, segment_bytes: 1 << 16 };
        let limits = Limits::default();
        let options = KeeperOptions { dir: dir.path().join("file"), output: "file", spool, limits };
        let limits = ShelfLimits { group_bytes_max: 1 << 20, gap_ms: 0, footprint_bytes_max: 1 << 20 };
        let mut shelving = Shelving::open(disk, options, limits, quarantine, true).unwrap();
        let limits = OrderLimits { reorder_wait_ms: 0, hold_answer_ms: 0, hold_bytes_max: 0 };
        let mut order: Order<u32> = Order::new(limits, Footprint::default());
        let replacement = || parcel(9, false, Some("access/web".into()));
        assert!(!shelving.wants(&order, &parcel(1, false, None)) && !shelving.wants(&order, &replacement()));
        let _ = order.failing(1);
        assert!(shelving.wants(&order, &parcel(1, false, None)));
        assert!(!shelving.wants(&order, &parcel(1, true, None)), "its sender waits for the files themselves");
        let mut done = parcel(1, true, None);
        (done.identity.span, done.pack.header.done) = (0, true);
        done.pack.header.ours.as_mut().unwrap().identity.span = 0;
        assert!(shelving.wants(&order, &done), "nobody asked for it: the stream is to go on behind it");
        done.pack.header.set_repull_job("job");
        assert!(!shelving.wants(&order, &done), "its sender waits for the files themselves");
        let _ = order.without_room(1);
        assert!(shelving.wants(&order, &parcel(1, false, None)));
        done.pack.header.origin_rest.clear();
        assert!(!shelving.wants(&order, &done), "it needs no room");
        order.healed();
        shelving.shelf.found(&parcel(1, false, None).identity, 0, 1);
        assert!(shelving.wants(&order, &parcel(1, false, None)), "its stream is there");
        assert!(!shelving.wants(&order, &parcel(2, false, None)));
        assert!(shelving.wants(&order, &replacement()) && shelving.wants(&order, &parcel(1, true, None)));
        shelving.finish();
    }
}
