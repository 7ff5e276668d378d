//! The commit protocol on a disk that loses, tears and zeroes what was not synced, fails writes and fsyncs, and runs
//! full; with the power cut at each operation and at random ones; with the journal deleted, cut, zeroed and flipped in between. After
//! each start every acknowledged pack is in the output and nothing is torn; in the end the output is exactly the streams.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::outputter::{Answers, Outputter, VAR_DIR, Waiter};
use crate::common::{
    Bodies, FOREIGN, Stream, TEMPLATE, assert_exactly, folders, identity, parcel, read_output, stream,
};
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_link::Answer;
use logferry_outputter::file::store::Folders;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STARTS_MAX: usize = 400;

/// The world: the disk, the streams, and what the senders know.
struct World {
    disk: FaultyDisk,
    folders: Folders,
    streams: Vec<Stream>,
    acked: Vec<BTreeSet<usize>>,
    answers: Answers,
    random: Random,
    group_max: u64,
}

impl World {
    fn new(seed: u64, streams: u128, packs: usize, bodies: Bodies) -> World {
        let mut random = Random::new(seed);
        let streams: Vec<Stream> =
            (0..streams).map(|number| stream(number, packs, bodies, &mut random)).collect();
        let acked = vec![BTreeSet::new(); streams.len()];
        let disk = FaultyDisk::new(seed);
        World { disk, folders: folders(), streams, acked, answers: Answers::default(), random, group_max: 5 }
    }

    fn start(&self) -> io::Result<Outputter> {
        Outputter::start(Arc::new(self.disk.clone()), &self.folders)
    }

    fn is_done(&self) -> bool {
        self.streams.iter().zip(&self.acked).all(|(stream, acked)| stream.packs.len() == acked.len())
    }

    /// From one start to the end or to the next power cut.
    fn live(&mut self) -> io::Result<()> {
        let mut outputter = self.start()?;
        // Fails when the power went off meanwhile: what is there is looked at after the crash.
        self.disk.list(Path::new(VAR_DIR))?;
        self.assert_acked_is_there();
        while !self.is_done() {
            self.send_some(&mut outputter);
            let count = 1 + self.random.below(self.group_max) as usize;
            let mut failures = 0;
            let committed = outputter.commit(count, |error| {
                failures += 1;
                if failures > 4 && error.kind() == io::ErrorKind::StorageFull {
                    self.disk.set_faults(Faults::default());
                }
            });
            self.take_answers();
            committed?;
            self.disk.list(Path::new(VAR_DIR))?;
        }
        Ok(())
    }

    /// What was confirmed is in the output, and nothing is torn or double, whatever happened.
    fn assert_acked_is_there(&self) {
        let found = read_output(&self.disk, &self.folders);
        let ids: BTreeSet<(u128, u64)> = found.iter().map(|(_, id)| (id.stream.0, id.offset)).collect();
        assert_eq!(ids.len(), found.len(), "nothing is doubled");
        for (stream, acked) in self.streams.iter().zip(&self.acked) {
            for index in acked {
                let identity = identity(&stream.packs[*index]);
                assert!(
                    ids.contains(&(identity.stream.0, identity.offset)),
                    "acknowledged and lost: {identity:?}"
                );
            }
        }
    }

    /// Sends the next packs of some streams in order, and now and then one that is known already.
    fn send_some(&mut self, outputter: &mut Outputter) {
        for stream in 0..self.streams.len() {
            let all = self.streams[stream].packs.len();
            let first = (0..all).find(|index| !self.acked[stream].contains(index)).unwrap_or(all);
            let window = 1 + self.random.below(4) as usize;
            let mut indexes: Vec<usize> = (first..all.min(first + window)).collect();
            if first > 0 && self.random.one_in(4) {
                indexes.push(self.random.below(first as u64) as usize);
            }
            for index in indexes {
                let waiter = Waiter { stream, index, answers: self.answers.clone() };
                outputter.offer(parcel(&self.streams[stream].packs[index]), waiter);
            }
        }
    }

    fn take_answers(&mut self) {
        for (stream, index, answer) in std::mem::take(&mut *self.answers.lock().unwrap()) {
            match answer {
                Answer::Ok | Answer::Duplicate => drop(self.acked[stream].insert(index)),
                Answer::Busy { .. } => {}
                other => panic!("stream {stream} pack {index} was answered {other:?}"),
            }
        }
    }

    /// The power is cut: what was not synced is lost, torn or zero.
    fn crash(&mut self) {
        self.take_answers();
        self.disk.crash();
    }

    /// The process is killed: what it wrote is there, synced or not.
    fn kill(&mut self) {
        self.take_answers();
        self.disk.set_faults(Faults::default());
    }

    fn crash_or_kill(&mut self) {
        if self.random.one_in(2) { self.crash() } else { self.kill() }
    }

    /// One last power cut after the last acknowledgement; then the output must be exactly the streams.
    fn end(&mut self) {
        self.crash();
        self.start().expect("a sound disk");
        assert_exactly(&self.disk, &self.folders, &self.streams, true);
    }

    fn damage_journal(&mut self) {
        let slots = ["journal.0", "journal.1"].map(|name| Path::new(VAR_DIR).join(name));
        let one = &slots[self.random.below(2) as usize];
        let random = &mut self.random;
        match random.below(6) {
            0 => slots.iter().for_each(|slot| drop(self.disk.unlink(slot))),
            1 => drop(self.disk.unlink(one)),
            2 => drop(
                self.disk.damage(one, |bytes| bytes.truncate(random.below(bytes.len() as u64 + 1) as usize)),
            ),
            3 => drop(self.disk.damage(one, |bytes| bytes.fill(0))),
            4 => {
                for slot in &slots {
                    self.disk.damage(slot, |bytes| bytes.fill(0));
                }
            }
            _ => drop(self.disk.damage(one, |bytes| {
                let at = random.below(bytes.len() as u64) as usize;
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8));
            })),
        }
        self.disk.sync_dir(Path::new(VAR_DIR)).unwrap();
    }
}

fn random_faults(random: &mut Random) -> Faults {
    Faults {
        fail_sync_in: random.one_in(3).then(|| 1 + random.below(30)),
        fail_append_in: random.one_in(3).then(|| 1 + random.below(30)),
        capacity: random.one_in(6).then(|| 2_000 + random.below(60_000)),
        is_quota: false,
        die_after: random.one_in(2).then(|| 1 + random.below(60)),
    }
}

#[test]
fn a_power_cut_at_each_operation_loses_tears_and_doubles_nothing() {
    let whole = {
        let mut world = World::new(0, 3, 8, Bodies::Unproved);
        world.live().unwrap();
        world.end();
        world.disk.counts().changes
    };
    assert!(whole > 50);
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..whole * 4).for_each(|case| {
        let mut world = World::new(0, 3, 8, Bodies::Unproved);
        // The same run each time, but other luck with what the power cut leaves.
        world.disk = FaultyDisk::new(case);
        world.disk.set_faults(Faults { die_after: Some(1 + case / 4 % whole), ..Faults::default() });
        while world.live().is_err() {
            world.crash();
        }
        world.end();
    });
}

#[test]
fn random_power_cuts_failed_writes_failed_syncs_and_full_disks_lose_tear_and_double_nothing() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..600).for_each(|seed| {
        let mut world = World::new(seed, 1 + u128::from(seed % 4), 12, Bodies::Unproved);
        for start in 0.. {
            assert!(start < STARTS_MAX, "it gets through");
            let faults = if start < 30 { random_faults(&mut world.random) } else { Faults::default() };
            world.disk.set_faults(faults);
            if world.live().is_ok() {
                break;
            }
            world.crash_or_kill();
        }
        world.end();
    });
}

#[test]
fn a_damaged_journal_loses_and_doubles_nothing() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..600).for_each(|seed| {
        let mut world = World::new(seed, 1 + u128::from(seed % 3), 12, Bodies::Proved);
        for start in 0.. {
            assert!(start < STARTS_MAX, "it gets through");
            let die_after = (start < 20).then(|| 1 + world.random.below(60));
            world.disk.set_faults(Faults { die_after, ..Faults::default() });
            if world.live().is_ok() {
                break;
            }
            world.crash_or_kill();
            world.damage_journal();
        }
        world.end();
    });
}

/// A world with bytes of somebody else in all log files.
fn world_with_foreign_bytes(seed: u64) -> (World, BTreeSet<PathBuf>) {
    let mut world = World::new(3, 2, 6, Bodies::Verbatim);
    (world.disk, world.random) = (FaultyDisk::new(seed), Random::new(seed));
    let packs = world.streams.iter().flat_map(|stream| &stream.packs);
    let paths: BTreeSet<PathBuf> = packs.map(|pack| world.folders.data.join(parcel(pack).path)).collect();
    for path in &paths {
        let foreign = world.disk.create(path).unwrap();
        foreign.append(&[FOREIGN]).unwrap();
        foreign.sync().unwrap();
        world.disk.sync_dir(path.parent().unwrap()).unwrap();
    }
    (world, paths)
}

#[test]
fn bytes_from_elsewhere_are_kept_and_gone_on_after_whenever_the_power_is_cut() {
    let (mut whole, _) = world_with_foreign_bytes(0);
    let before = whole.disk.counts().changes;
    whole.live().unwrap();
    let changes = whole.disk.counts().changes - before;
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter on the faulty disk", 0..changes * 4).for_each(|case| {
        let (mut world, paths) = world_with_foreign_bytes(case);
        world.disk.set_faults(Faults { die_after: Some(1 + case / 4 % changes), ..Faults::default() });
        while world.live().is_err() {
            world.crash_or_kill();
        }
        world.end();
        world.damage_journal();
        world.start().unwrap();
        assert_exactly(&world.disk, &world.folders, &world.streams, true);
        for path in paths {
            let bytes = world.disk.read(&path).unwrap();
            let rest = bytes.strip_prefix(FOREIGN).expect("foreign bytes are kept");
            assert!(
                rest.starts_with(b"0 ") || rest.starts_with(b"1 "),
                "{:?}",
                String::from_utf8_lossy(rest)
            );
        }
    });
}

#[test]
fn a_file_that_was_moved_away_starts_anew_and_its_packs_stay_known() {
    let mut world = World::new(4, 1, 4, Bodies::Unproved);
    world.live().unwrap();
    let path = parcel(&world.streams[0].packs[0]).path;
    for folder in [&world.folders.data, &world.folders.headers] {
        world.disk.unlink(&folder.join(&path)).unwrap();
        world.disk.sync_dir(folder.join(&path).parent().unwrap()).unwrap();
    }
    let mut outputter = world.start().unwrap();
    let waiter = Waiter { stream: 0, index: 0, answers: world.answers.clone() };
    outputter.offer(parcel(&world.streams[0].packs[0]), waiter);
    assert!(matches!(world.answers.lock().unwrap()[..], [(0, 0, Answer::Duplicate)]));
    assert_eq!(TEMPLATE, "{source}/{host}_{hour}");
    assert!(!world.disk.files().contains(&world.folders.data.join(&path)));
}
