//! The spool against a model, over the faulty disk: what was synced and not acknowledged comes back, in order and byte for
//! byte, after crashes, failed syncs, full disks; damage costs what it hit and is reported.

#![allow(clippy::unwrap_used)] // a test may panic

use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_spool::{AppendError, RecordId, Spool, SpoolOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const OPTIONS: SpoolOptions = SpoolOptions { bytes_max: 12_000, segment_bytes: 1_200 };

fn dir() -> &'static Path {
    Path::new("/spool")
}

/// What the spool should hold: payload numbers by record id.
#[derive(Default)]
struct Model {
    /// Synced and not acknowledged.
    promised: BTreeMap<u64, u64>,
    /// Appended since the last sync, or given up by a failed one: may be there after a crash, whole.
    possible: BTreeMap<u64, u64>,
    /// Acknowledged: may come back after a crash.
    acknowledged: BTreeMap<u64, u64>,
    /// Records below this were given up by a failed sync.
    given_up: u64,
    /// Damage was done: promised records may be missing if the spool says so.
    damaged: bool,
    /// The disk was full: segments that are done may have gone without an entry in the books, and look lost.
    was_full: bool,
}

fn key(number: u64) -> u128 {
    u128::from(number % 5)
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number as usize * 31) % 300, number as u8);
    bytes
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
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
        let (spool, report) = Spool::open(Arc::new(disk.clone()), dir(), OPTIONS).unwrap();
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
            Ok(RecordId(id)) => drop(self.model.possible.insert(id, number)),
            Err(AppendError::Full { used, max, .. }) => assert!(used <= max),
            Err(AppendError::NoRoom { .. }) => {}
            Err(_) => self.spool_failed(),
        }
        assert!(self.spool.bytes() <= OPTIONS.bytes_max, "seed {}: over the cap", self.seed);
    }

    /// Sealing a segment syncs what was appended before: the spool's count tells.
    fn settle_by_count(&mut self) {
        if !self.model.damaged && self.spool.len() > self.model.promised.len() as u64 {
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
            Ok(()) => {
                for id in self.live_possible() {
                    let number = self.model.possible.remove(&id).unwrap();
                    self.model.promised.insert(id, number);
                }
            }
            Err(_) => self.spool_failed(),
        }
    }

    fn read(&mut self) {
        // With a fault on its way reading may fail; then nothing was read.
        let Ok(Some(record)) = self.spool.read_next() else { return };
        let number = number_of(&record.payload);
        assert_eq!(&record.payload[..], payload(number), "seed {}: a record came back changed", self.seed);
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
            Ok(()) if promised && !self.model.damaged => {
                assert_eq!(self.spool.len(), records - 1, "seed {}: {id} is not settled", self.seed);
            }
            // An unlink may fail; the record is settled all the same.
            _ => {}
        }
        self.model.promised.remove(&id);
        self.model.acknowledged.insert(id, number);
    }

    fn rewind(&mut self) {
        self.spool.rewind();
        self.read.clear();
    }

    fn reopen(&mut self, crash: bool) {
        self.disk.set_faults(Faults::default());
        if crash {
            self.disk.crash();
        }
        let (spool, report) =
            Spool::open(Arc::new(self.disk.clone()), dir(), OPTIONS).expect("opens whatever is damaged");
        self.spool = spool;
        self.read.clear();
        let suspect = !report.damage.is_none();
        assert!(
            self.model.damaged || self.model.was_full || !suspect,
            "seed {}: {report:?} without damage",
            self.seed
        );
        self.check_content();
    }

    /// Reads everything: all that was promised is there, and nothing else but what may be.
    fn check_content(&mut self) {
        self.rewind();
        let mut back = BTreeMap::new();
        while let Some(record) = self.spool.read_next().unwrap() {
            let number = number_of(&record.payload);
            assert_eq!(&record.payload[..], payload(number), "seed {}: changed", self.seed);
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
        for (id, number) in &back {
            let known = [&self.model.promised, &self.model.possible, &self.model.acknowledged];
            assert!(
                known.iter().any(|map| map.get(id) == Some(number)),
                "seed {}: record {id} is invented",
                self.seed
            );
        }
        // What came back is promised from here on.
        self.model.possible.clear();
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
            die_after: None,
        };
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
