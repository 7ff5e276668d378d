//! The spool against a model, over the faulty disk: what was synced and not acknowledged comes back, in order and byte for
//! byte, after crashes, failed syncs, full disks; damage costs what it hit and is reported.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_spool::{AppendError, RecordId, Spool, SpoolOptions};
use std::collections::{BTreeMap, BTreeSet};
use support::{dir, key, number_of, open, payload};

const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 12_000, segment_bytes: 1_200 };

/// What the spool should hold: payload numbers by record id.
#[derive(Default)]
struct Model {
    /// Synced and not acknowledged.
    promised: BTreeMap<u64, u64>,
    /// Appended since the last sync, or given up by a failed one: may be there after a crash, whole.
    possible: BTreeMap<u64, u64>,
    /// Numbers of records whose append failed: all of it may have been written, and it may come back.
    refused: BTreeSet<u64>,
    /// Acknowledged: may come back after a crash.
    acknowledged: BTreeMap<u64, u64>,
    /// Acknowledged, and known to the books: does not come back after a kill.
    written: BTreeSet<u64>,
    /// The same on the disk: does not come back after a power loss either.
    saved: BTreeSet<u64>,
    /// Faults were asked for since the last start, so that the books may not know what they were told.
    faulty: bool,
    /// Reading has failed since the last start, so that the spool's count may leave something out.
    blind: bool,
    /// Records below this were given up by a failed sync.
    given_up: u64,
    /// Damage was done: promised records may be missing if the spool says so.
    damaged: bool,
    /// The disk was full: segments that are done may have gone without an entry in the books, and look lost.
    was_full: bool,
}

struct Case {
    seed: u64,
    disk: FaultyDisk,
    random: Random,
    model: Model,
    spool: Spool,
    next_number: u64,
    read: Vec<(u64, u64)>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let disk = FaultyDisk::new(seed);
        let (spool, report) = open(&disk, OPTIONS);
        assert_eq!(report, logferry_spool::SpoolReport::default());
        let (random, model) = (Random::new(seed), Model::default());
        Case { seed, disk, random, model, spool, next_number: 0, read: Vec::new() }
    }

    fn append(&mut self) {
        let number = self.next_number;
        self.next_number += 1;
        let bytes = payload(number);
        let (front, back) = bytes.split_at(self.random.below(bytes.len() as u64) as usize);
        let appended = self.spool.append(key(number), &[front, back]);
        self.settle_by_count();
        match appended {
            Ok(RecordId(id)) => {
                // After a crash an id may be used again, if its record had been dropped and the books could not be told.
                self.model.acknowledged.remove(&id);
                self.model.written.remove(&id);
                self.model.saved.remove(&id);
                self.model.possible.insert(id, number);
            }
            Err(AppendError::Full { used, max, .. }) => assert!(used <= max),
            Err(AppendError::NoRoom { .. }) => {}
            Err(_) => {
                self.model.refused.insert(number);
                self.spool_failed();
            }
        }
        assert!(self.spool.bytes() <= OPTIONS.bytes_max, "seed {}: over the cap", self.seed);
    }

    /// Sealing a segment syncs what was appended before: the spool's count tells.
    fn settle_by_count(&mut self) {
        if !self.model.damaged && !self.model.blind && self.spool.len() > self.model.promised.len() as u64 {
            let newly = (self.spool.len() - self.model.promised.len() as u64) as usize;
            let ids: Vec<u64> = self.live_possible().into_iter().take(newly).collect();
            for id in ids {
                let number = self.model.possible.remove(&id).unwrap();
                self.model.promised.insert(id, number);
            }
        }
    }

    /// Appended since the last failure: what the next sync will promise.
    fn live_possible(&self) -> Vec<u64> {
        self.model.possible.keys().copied().filter(|id| *id >= self.model.given_up).collect()
    }

    fn spool_failed(&mut self) {
        // All ids so far that are not promised are given up; newer ones are larger.
        let next = self.model.possible.keys().last().map_or(0, |id| id + 1).max(self.model.given_up);
        self.model.given_up = next;
    }

    fn sync(&mut self) {
        match self.spool.sync() {
            Ok(()) => self.is_synced(),
            Err(_) => self.spool_failed(),
        }
    }

    fn is_synced(&mut self) {
        for id in self.live_possible() {
            let number = self.model.possible.remove(&id).unwrap();
            self.model.promised.insert(id, number);
        }
    }

    fn read(&mut self) {
        let record = match self.spool.read_next() {
            Ok(Some(record)) => record,
            Ok(None) => return,
            // A dead disk: after some tries the spool passes over what it cannot read, until the next start.
            Err(_) => return self.model.blind = true,
        };
        let number = number_of(&record.payload);
        assert_eq!(record.key, key(number));
        let known = self.model.promised.get(&record.id.0).or(self.model.possible.get(&record.id.0));
        assert!(
            known == Some(&number) || self.model.acknowledged.get(&record.id.0) == Some(&number),
            "seed {}: record {:?} was never promised",
            self.seed,
            record.id
        );
        if let Some((last, _)) = self.read.last() {
            assert!(record.id.0 > *last, "seed {}: out of order", self.seed);
        }
        self.read.push((record.id.0, number));
    }

    /// Acknowledges a record that was read, or any: its owner may have it still.
    fn ack(&mut self) {
        let any: Vec<(u64, u64)> = match self.random.below(2) {
            0 => self.read.clone(),
            _ => self.model.promised.iter().map(|(id, number)| (*id, *number)).collect(),
        };
        if any.is_empty() {
            return;
        }
        let (id, number) = any[self.random.below(any.len() as u64) as usize];
        let records = self.spool.len();
        let promised = self.model.promised.contains_key(&id);
        match self.spool.ack(RecordId(id)) {
            Ok(()) if promised && !self.model.damaged && !self.model.blind => {
                assert_eq!(self.spool.len(), records - 1, "seed {}: {id} is not settled", self.seed);
            }
            // An unlink may fail; the record is settled all the same.
            _ => {}
        }
        self.model.promised.remove(&id);
        self.model.possible.remove(&id);
        self.model.acknowledged.insert(id, number);
    }

    fn rewind(&mut self) {
        self.spool.rewind();
        self.read.clear();
    }

    /// The owner has a quiet moment, or stops well.
    fn write_books(&mut self) {
        let acknowledged: Vec<u64> = self.model.acknowledged.keys().copied().collect();
        self.spool.write_acks();
        if !self.model.faulty {
            self.model.written.extend(&acknowledged);
        }
        if self.random.one_in(2) {
            match self.spool.save() {
                Ok(()) => self.is_synced(),
                Err(_) => self.spool_failed(),
            }
            if !self.model.faulty {
                self.model.saved.extend(&acknowledged);
            }
        }
    }

    /// A new process: after a kill, wherever that was, or after a power loss.
    fn reopen(&mut self, crash: bool) {
        self.disk.set_faults(Faults::default());
        if crash {
            self.disk.crash();
        }
        let (spool, report) = open(&self.disk, OPTIONS);
        self.spool = spool;
        self.read.clear();
        let suspect = !report.damage.is_none();
        assert!(
            self.model.damaged || self.model.was_full || !suspect,
            "seed {}: {report:?} without damage",
            self.seed
        );
        self.check_content(crash);
        self.model.faulty = false;
        self.model.blind = false;
    }

    /// Reads everything: all that was promised is there, and nothing else but what may be.
    fn check_content(&mut self, crash: bool) {
        self.rewind();
        let mut back = BTreeMap::new();
        while let Some(record) = self.spool.read_next().unwrap() {
            let number = number_of(&record.payload);
            assert!(
                back.last_key_value().is_none_or(|(last, _)| *last < record.id.0),
                "seed {}: order",
                self.seed
            );
            back.insert(record.id.0, number);
        }
        for (id, number) in &self.model.promised {
            let there = back.get(id) == Some(number);
            assert!(there || self.model.damaged, "seed {}: promised record {id} is gone", self.seed);
        }
        let gone = if crash { &self.model.saved } else { &self.model.written };
        let again = back.keys().find(|id| gone.contains(id));
        assert!(
            again.is_none() || self.model.damaged,
            "seed {}: {again:?} had arrived, and comes again",
            self.seed
        );
        for (id, number) in &back {
            let known = [&self.model.promised, &self.model.possible, &self.model.acknowledged];
            assert!(
                known.iter().any(|map| map.get(id) == Some(number)) || self.model.refused.contains(number),
                "seed {}: record {id} is invented",
                self.seed
            );
        }
        // What came back is promised from here on.
        self.model.possible.clear();
        self.model.acknowledged.retain(|id, _| !back.contains_key(id));
        self.model.written.retain(|id| !back.contains_key(id));
        self.model.given_up = 0;
        self.model.promised = back;
        self.spool.rewind();
        assert_eq!(self.spool.len(), self.model.promised.len() as u64, "seed {}: count", self.seed);
    }

    /// A flipped byte or a removed segment, at rest.
    fn damage(&mut self) {
        let files: Vec<_> = self.disk.files().into_iter().filter(|path| path.extension().is_some()).collect();
        if files.is_empty() {
            return;
        }
        let path = &files[self.random.below(files.len() as u64) as usize];
        self.model.damaged = true;
        self.disk.set_faults(Faults::default());
        if self.random.one_in(4) {
            self.disk.unlink(path).unwrap();
            self.disk.sync_dir(dir()).unwrap();
        } else {
            let (at, bit) = (self.random.next_u64(), self.random.below(8));
            self.disk.damage(path, |bytes| {
                if !bytes.is_empty() {
                    let at = (at % bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << bit;
                }
            });
        }
        self.reopen(false);
    }

    fn faults(&mut self) {
        let one = |random: &mut Random| random.one_in(2).then(|| random.below(5) + 1);
        let faults = Faults {
            fail_sync_in: one(&mut self.random),
            fail_append_in: one(&mut self.random),
            capacity: self.random.one_in(3).then(|| self.random.below(8_000)),
            is_quota: false,
            // A kill or the power loss comes in the middle of something.
            die_after: self.random.one_in(4).then(|| self.random.below(12)),
        };
        self.model.faulty = true;
        if self.random.one_in(4) {
            self.disk.fail_dir_sync_in(self.random.below(3) + 1);
        }
        self.model.was_full |= faults.capacity.is_some();
        self.disk.set_faults(faults);
    }

    fn run(&mut self, with_damage: bool) {
        for _ in 0..70 {
            match self.random.below(20) {
                0..7 => self.append(),
                7..10 => self.sync(),
                10..13 => self.read(),
                13..16 => self.ack(),
                16 => self.rewind(),
                17 => self.faults(),
                18 if self.random.one_in(2) => self.write_books(),
                18 if with_damage => self.damage(),
                _ => {
                    let crash = self.random.one_in(2);
                    self.reopen(crash);
                }
            }
        }
        self.reopen(true);
    }
}

#[test]
fn what_was_synced_comes_back_whatever_happens_to_the_disk() {
    let trial = logferry_trial::trial!();
    for seed in trial.seeds("cases of the spool model", 0..10_000) {
        Case::new(seed).run(seed % 4 == 0);
    }
}

#[test]
fn a_crash_at_each_operation_loses_nothing_that_was_synced() {
    for at in 1..80 {
        for seed in 0..10 {
            let mut case = Case::new(seed);
            case.disk.set_faults(Faults { die_after: Some(at), ..Faults::default() });
            for step in 0..12 {
                case.append();
                case.append();
                case.sync();
                if step % 3 == 2 {
                    case.read();
                    case.ack();
                }
            }
            case.reopen(true);
        }
    }
}

#[test]
fn a_full_spool_says_so_and_takes_more_after_acks() {
    let mut case = Case::new(1);
    let full = loop {
        match case.spool.append(1, &[&[7; 500]]) {
            Ok(_) => case.spool.sync().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full { max: 12_000, .. }), "{full}");
    while let Some(record) = case.spool.read_next().unwrap() {
        case.spool.ack(record.id).unwrap();
    }
    assert_eq!((case.spool.bytes(), case.spool.pending(1)), (0, 0));
    case.spool.append(1, &[&[7; 500]]).unwrap();
}
