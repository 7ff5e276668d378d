//! The ledger over a real log on a faulty disk: what was promised before a power loss is known after it.

use logferry_durable::Log;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_footprint::Remembered;
use logferry_pack::{Hour, StreamId};
use logferry_tailer::identity::{FileKey, Head};
use logferry_tailer::ledger::record::Cut;
use logferry_tailer::ledger::{Ledger, Meeting, Verdict};
use logferry_trial::{long_run, trial};
use std::path::Path;
use std::sync::Arc;

/// Lives that are lived through in the normal run.
const LIVES: u64 = 300;
/// The same in the long run.
const LIVES_LONG: u64 = 20_000;
/// Steps of a life.
const STEPS: u64 = 120;

fn hour() -> Hour {
    let at = jiff::Timestamp::from_second(1_795_000_000).expect("a time").to_zoned(jiff::tz::TimeZone::UTC);
    logferry_tailer::hour::of(&at).expect("an hour")
}

struct Life {
    disk: FaultyDisk,
    random: Random,
    ledger: Ledger,
    log: Log,
    on_the_way: Vec<(StreamId, Cut, u64)>,
    frontiers: Vec<(StreamId, u64)>,
}

fn open(disk: &FaultyDisk) -> (Ledger, Log) {
    let disk: Arc<dyn logferry_durable::Disk> = Arc::new(disk.clone());
    let (log, recovered) = Log::open(disk, Path::new("/var"), "state").expect("a log");
    let ledger = Ledger::recover("web-1", &recovered);
    assert!(!ledger.is_suspect(), "a crash is no damage: {:?}", recovered.report);
    (ledger, log)
}

impl Life {
    fn new(seed: u64) -> Life {
        let disk = FaultyDisk::new(seed);
        let (ledger, log) = open(&disk);
        Life { disk, random: Random::new(seed ^ 0x5eed), ledger, log, on_the_way: vec![], frontiers: vec![] }
    }

    /// As the shipper does: append, commit, and where that fails write a snapshot until it succeeds.
    fn commit(&mut self) {
        for record in self.ledger.take_records() {
            self.log.append(&record);
        }
        if self.log.commit().is_ok() && !self.log.wants_snapshot() {
            return;
        }
        while self.log.snapshot(&self.ledger.snapshot()).is_err() {}
        assert!(!self.log.is_poisoned());
    }

    fn meet(&mut self, inode: u64) -> StreamId {
        let key = FileKey { device: 1, inode, born_ns: 0 };
        let head = Head::finished(b"first\n").expect("a head");
        let stream = self.ledger.meet(&Meeting { source: "app", path: b"/a", key, head, first: 0 });
        self.commit();
        stream
    }

    fn cut(&mut self, stream: StreamId) {
        let span = 1 + self.random.below(1000);
        let Some(cut) = self.ledger.cut(stream, span, span as u32, 1, hour()) else { return };
        let ticket = self.ledger.send(stream, cut.offset).expect("just cut");
        self.commit();
        self.on_the_way.push((stream, cut, ticket));
    }

    fn settle(&mut self) {
        if self.on_the_way.is_empty() {
            return;
        }
        let index = self.random.below(self.on_the_way.len() as u64) as usize;
        let (_, _, ticket) = self.on_the_way.remove(index);
        self.ledger.settle(ticket, Verdict::Taken);
    }

    fn lose_power(&mut self) {
        for record in self.ledger.take_records() {
            self.log.append(&record);
        }
        let _ = self.log.write();
        self.frontiers = self.ledger.streams().map(|stream| (stream.met.stream, stream.frontier)).collect();
        self.disk.crash();
        (self.ledger, self.log) = open(&self.disk);
        for (stream, cut, ticket) in &mut self.on_the_way {
            let state = self.ledger.stream(*stream).expect("a stream that was met is known");
            let known = state.entries.iter().any(|entry| entry.cut == *cut);
            assert!(known, "a pack that was sent is not known: {cut:?}");
            *ticket = self.ledger.send(*stream, cut.offset).expect("known");
        }
        for (stream, frontier) in &self.frontiers {
            let state = self.ledger.stream(*stream).expect("known");
            assert!(state.frontier <= *frontier, "a frontier moved by itself");
        }
    }

    fn step(&mut self, streams: &[StreamId]) {
        match self.random.below(20) {
            0..8 => {
                let index = self.random.below(streams.len() as u64) as usize;
                self.cut(streams[index]);
            }
            8..16 => self.settle(),
            16 => self
                .disk
                .set_faults(Faults { fail_sync_in: Some(1 + self.random.below(4)), ..Faults::default() }),
            17 => {
                let fail_append_in = Some(1 + self.random.below(4));
                self.disk.set_faults(Faults { fail_append_in, ..Faults::default() });
            }
            _ => self.lose_power(),
        }
    }
}

#[test]
fn what_was_sent_is_known_after_every_power_loss_and_every_failed_fsync() {
    let trial = trial!();
    for seed in trial.seeds("lives of a state log", 0..if long_run() { LIVES_LONG } else { LIVES }) {
        let mut life = Life::new(seed);
        let streams = [life.meet(1), life.meet(2)];
        for _ in 0..STEPS {
            life.step(&streams);
        }
    }
}

#[test]
fn nothing_is_cut_twice_after_the_disk_was_full() {
    let mut life = Life::new(7);
    let stream = life.meet(1);
    life.cut(stream);
    life.disk.set_faults(Faults { capacity: Some(0), ..Faults::default() });
    let cut = life.ledger.cut(stream, 10, 3, 1, hour()).expect("known");
    let record = life.ledger.take_records().remove(0);
    life.log.append(&record);
    assert!(life.log.commit().is_err() && life.log.snapshot(&life.ledger.snapshot()).is_err());
    life.disk.set_faults(Faults::default());
    life.log.snapshot(&life.ledger.snapshot()).expect("there is room again");
    life.disk.crash();
    let (ledger, _) = open(&life.disk);
    let entries = &ledger.stream(stream).expect("known").entries;
    assert_eq!(entries.back().map(|entry| entry.cut), Some(cut));
}

#[test]
fn a_conflict_that_is_not_settled_is_met_again_after_a_crash() {
    let mut life = Life::new(8);
    let stream = life.meet(1);
    life.cut(stream);
    let (_, cut, ticket) = life.on_the_way.remove(0);
    life.ledger.settle(ticket, Verdict::Conflict(Remembered::default()));
    life.disk.crash();
    let (ledger, _) = open(&life.disk);
    assert_eq!(ledger.stream(stream).expect("known").next_unsent(), Some(cut));
}
