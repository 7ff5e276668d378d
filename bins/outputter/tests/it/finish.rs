//! Finishing on a disk that loses, tears and zeroes what was not synced, fails and dies: whatever happens and whenever, the finished file and
//! the log file together have every acknowledged line once, and in the end the lines of each stream are in order.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::outputter::{Answers, Direct, Outputter, VAR_DIR, Waiter};
use crate::common::{Bodies, Stream, folders, identity, pack, parcel, stream};
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_link::Answer;
use logferry_outputter::file::archive::Form;
use logferry_outputter::file::headers::Place;
use logferry_outputter::file::journal::Lengths;
use logferry_outputter::file::layout::Layout;
use logferry_outputter::file::past::Past;
use logferry_outputter::file::store::Folders;
use logferry_outputter::file::walk::files_below;
use logferry_outputter::finish::finisher::Outcome;
use logferry_outputter::finish::{Committed, FinishSettings, Finisher, Plan};
use logferry_pack::{Codec, Pack, StreamId, crc32c};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STARTS_MAX: usize = 400;

struct World {
    disk: FaultyDisk,
    folders: Folders,
    plan: Plan,
    streams: Vec<Stream>,
    acked: Vec<BTreeSet<usize>>,
    answers: Answers,
    random: Random,
    finished: u64,
}

impl World {
    fn new(seed: u64, form: Form, compress: &str, dir: &str) -> World {
        let mut random = Random::new(seed);
        let streams: Vec<Stream> =
            (0..2).map(|number| stream(number, 9, Bodies::Verbatim, &mut random)).collect();
        let settings =
            FinishSettings { compress: compress.into(), dir: dir.into(), ..FinishSettings::default() };
        World {
            disk: FaultyDisk::new(seed),
            folders: folders().with_form(form),
            plan: Plan::new(&settings, &folders().data, form).unwrap(),
            acked: vec![BTreeSet::new(); streams.len()],
            streams,
            answers: Answers::default(),
            random,
            finished: 0,
        }
    }

    fn start(&self) -> io::Result<Outputter> {
        Outputter::start(Arc::new(self.disk.clone()), &self.folders)
    }

    fn is_done(&self) -> bool {
        self.streams.iter().zip(&self.acked).all(|(stream, acked)| stream.packs.len() == acked.len())
    }

    fn live(&mut self) -> io::Result<()> {
        let mut outputter = self.start()?;
        self.disk.list(Path::new(VAR_DIR))?;
        self.assert_acked_is_there_once();
        while !self.is_done() {
            self.send_some(&mut outputter);
            let committed = outputter.commit(3, |_| ());
            self.take_answers();
            committed?;
            if self.random.one_in(3) {
                self.finish_one(&mut outputter);
            }
            self.disk.list(Path::new(VAR_DIR))?;
        }
        Ok(())
    }

    /// Sends packs of each stream in any order, and has their gaps passed over.
    fn send_some(&mut self, outputter: &mut Outputter) {
        for stream in 0..self.streams.len() {
            let all = self.streams[stream].packs.len();
            for _ in 0..2 {
                let index = self.random.below(all as u64) as usize;
                let waiter = Waiter { stream, index, answers: self.answers.clone() };
                outputter.offer(parcel(&self.streams[stream].packs[index]), waiter);
            }
        }
        outputter.pass_over_gaps();
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

    fn finisher(&self) -> Finisher {
        let disk = Arc::new(self.disk.clone());
        Finisher { disk, folders: self.folders.clone(), plan: self.plan.clone(), guard: None }
    }

    fn paths(&self) -> Vec<String> {
        files_below(&self.disk, &self.folders.headers, "").map_or(Vec::new(), |below| below.files)
    }

    /// Errors of the disk are met again, or leave the file to recovery.
    fn finish_one(&mut self, outputter: &mut Outputter) {
        let paths = self.paths();
        let Some(path) = paths.get(self.random.below(paths.len().max(1) as u64) as usize) else { return };
        let finished = self.finisher().finish(path, &mut Direct(&mut outputter.committer), || false);
        if let Ok(Outcome::Finished(_)) = finished {
            self.finished += 1;
        }
        if let Err(error) = finished {
            assert_ne!(error.kind(), io::ErrorKind::InvalidData, "{path}: {error}");
            assert_ne!(error.kind(), io::ErrorKind::AlreadyExists, "{path}: {error}");
        }
    }

    /// The lines of a log file, finished ones first.
    fn lines(&self, path: &str) -> Vec<u8> {
        let finished = self.plan.target(path).map_or_else(Vec::new, |target| self.read_lines(&target));
        [finished, self.read_lines(&self.folders.log_file(path))].concat()
    }

    fn read_lines(&self, file: &Path) -> Vec<u8> {
        let bytes = self.disk.read(file).unwrap_or_default();
        let mut lines = Vec::new();
        match file.extension().and_then(|suffix| suffix.to_str()) {
            _ if bytes.is_empty() => {}
            Some("gz") => {
                flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut lines).unwrap();
            }
            Some("zst") => lines = zstd::decode_all(&bytes[..]).unwrap(),
            _ => lines = bytes,
        }
        lines
    }

    fn assert_acked_is_there_once(&self) {
        let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for path in self.paths() {
            for line in self.lines(&path).split_inclusive(|byte| *byte == b'\n') {
                *counts.entry(line.to_owned()).or_default() += 1;
            }
        }
        let double = counts.iter().find(|(_, count)| **count > 1);
        assert_eq!(
            double.map(|(line, _)| String::from_utf8_lossy(line).into_owned()),
            None,
            "nothing is doubled"
        );
        for (stream, acked) in self.streams.iter().zip(&self.acked) {
            for index in acked {
                let identity = identity(&stream.packs[*index]);
                let range = identity.offset as usize..(identity.offset + identity.span) as usize;
                for line in stream.bytes[range].split_inclusive(|byte| *byte == b'\n') {
                    assert!(
                        counts.contains_key(line),
                        "acknowledged and lost: {}",
                        String::from_utf8_lossy(line)
                    );
                }
            }
        }
    }

    fn crash_or_kill(&mut self) {
        self.take_answers();
        if self.random.one_in(2) { self.disk.crash() } else { self.disk.set_faults(Faults::default()) }
    }

    /// After one more start and with all files finished, each file has its lines, and where it is one, those of each stream are in order.
    fn end(&mut self) {
        self.take_answers();
        self.disk.crash();
        let mut outputter = self.start().expect("a sound disk");
        self.assert_acked_is_there_once();
        for path in self.paths() {
            let mut committer = Direct(&mut outputter.committer);
            self.finisher().finish(&path, &mut committer, || false).expect("a sound disk");
            let lengths = committer.lengths(&path).unwrap();
            assert_eq!(lengths.data > 0, self.plan.stays_in_place(), "{path}");
            self.assert_describes(&path, lengths);
        }
        self.disk.crash();
        self.start().expect("a sound disk");
        let mut wanted: BTreeMap<(String, usize), Vec<u8>> = BTreeMap::new();
        for (number, stream) in self.streams.iter().enumerate() {
            for pack in &stream.packs {
                let identity = identity(pack);
                let range = identity.offset as usize..(identity.offset + identity.span) as usize;
                wanted.entry((parcel(pack).path, number)).or_default().extend(&stream.bytes[range]);
            }
        }
        for ((path, number), wanted) in wanted {
            let prefix = format!("{number} ");
            let lines = self.lines(&path);
            let lines = lines.split_inclusive(|byte| *byte == b'\n');
            let mut found: Vec<&[u8]> = lines.filter(|line| line.starts_with(prefix.as_bytes())).collect();
            let mut wanted: Vec<&[u8]> = wanted.split_inclusive(|byte| *byte == b'\n').collect();
            if !self.plan.stays_in_place() {
                // What was finished before its gap was filled has what filled it behind it.
                found.sort_unstable();
                wanted.sort_unstable();
            }
            assert!(found == wanted, "{path}: the lines of stream {number}");
        }
    }

    /// The header file says where in the log file each body is.
    fn assert_describes(&self, path: &str, lengths: Lengths) {
        let headers = self.disk.open(&self.folders.headers.join(path)).unwrap();
        let layout = Layout::read(&*headers, lengths).unwrap();
        let data = self.disk.read(&self.folders.log_file(path)).unwrap_or_default();
        assert_eq!(layout.len(), data.len() as u64, "{path}");
        for segment in layout.segments {
            let bytes = &data[segment.at as usize..(segment.at + segment.len) as usize];
            assert_eq!(segment.body.unwrap().sum, Some(crc32c(bytes)), "{path}: {segment:?}");
        }
    }
}

fn world_of(seed: u64) -> World {
    match seed % 6 {
        0 => World::new(seed, Form::Lines, "none", ""),
        1 => World::new(seed, Form::Lines, "gzip", ""),
        2 => World::new(seed, Form::Lines, "zstd", "/done"),
        3 => World::new(seed, Form::Lines, "none", "/done"),
        4 => World::new(seed, Form::Gzip, "none", ""),
        _ => World::new(seed, Form::Zstd, "none", "/done"),
    }
}

#[test]
fn whatever_fails_and_whenever_the_power_is_cut_finished_files_have_every_line_once() {
    let trial = logferry_trial::trial!();
    let mut finished = 0;
    trial.seeds("lives of an outputter that finishes files", 0..400).for_each(|seed| {
        let mut world = world_of(seed);
        for start in 0.. {
            assert!(start < STARTS_MAX, "it gets through");
            let random = &mut world.random;
            let faults = Faults {
                fail_sync_in: random.one_in(3).then(|| 1 + random.below(30)),
                fail_append_in: random.one_in(3).then(|| 1 + random.below(30)),
                capacity: None,
                is_quota: false,
                die_after: random.one_in(2).then(|| 1 + random.below(60)),
            };
            world.disk.set_faults(if start < 30 { faults } else { Faults::default() });
            if world.live().is_ok() {
                break;
            }
            world.crash_or_kill();
        }
        world.end();
        finished += world.finished;
    });
    trial.count("files finished between faults", finished);
}

#[test]
fn a_power_cut_at_each_operation_of_finishing_leaves_the_log_file_or_the_finished_file() {
    let trial = logferry_trial::trial!();
    let ready = |seed: u64| {
        let mut world = world_of(seed);
        world.random = Random::new(7);
        let mut outputter = world.start().unwrap();
        while !world.is_done() {
            world.send_some(&mut outputter);
            outputter.commit(3, |_| ()).unwrap();
            world.take_answers();
        }
        (world, outputter)
    };
    let operations = |seed: u64| {
        let (mut world, mut outputter) = ready(seed);
        let before = world.disk.counts().changes;
        (0..8).for_each(|_| world.finish_one(&mut outputter));
        world.disk.counts().changes - before
    };
    let whole = (0..6).map(operations).max().unwrap();
    assert!(whole > 10);
    trial.seeds("lives of an outputter that finishes files", 0..whole * 12).for_each(|case| {
        let (mut world, mut outputter) = ready(case);
        world.disk.set_faults(Faults { die_after: Some(1 + case / 12), ..Faults::default() });
        (0..8).for_each(|_| world.finish_one(&mut outputter));
        world.crash_or_kill();
        world.end();
    });
}

#[test]
fn a_lost_journal_loses_and_doubles_no_line_of_finished_files() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of an outputter that finishes files", 0..400).for_each(|seed| {
        let mut world = world_of(seed);
        for start in 0.. {
            assert!(start < STARTS_MAX, "it gets through");
            let die_after = (start < 20).then(|| 1 + world.random.below(90));
            world.disk.set_faults(Faults { die_after, ..Faults::default() });
            if world.live().is_ok() {
                break;
            }
            world.crash_or_kill();
            for slot in ["journal.0", "journal.1"] {
                drop(world.disk.unlink(&Path::new(VAR_DIR).join(slot)));
            }
            world.disk.sync_dir(Path::new(VAR_DIR)).unwrap();
        }
        world.end();
    });
}

#[test]
fn a_damaged_log_file_is_not_finished_and_stays() {
    let mut world = World::new(1, Form::Lines, "gzip", "");
    world.live().unwrap();
    let path = parcel(&world.streams[0].packs[0]).path;
    let mut outputter = world.start().unwrap();
    world.disk.damage(&world.folders.data.join(&path), |bytes| bytes[3] ^= 1);
    if world.disk.read(&world.folders.data.join(&path)).is_ok() {
        let mut committer = Direct(&mut outputter.committer);
        let error = world.finisher().finish(&path, &mut committer, || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("repull --replace"), "{error}");
        assert!(committer.lengths(&path).unwrap().data > 0);
    }
    let files: Vec<PathBuf> = world.disk.files();
    assert!(!files.iter().any(|file| file.to_string_lossy().contains(".finishing")), "{files:?}");
}

/// Has the outputter take these packs.
fn take(world: &World, outputter: &mut Outputter, packs: &[Pack]) {
    for (index, pack) in packs.iter().enumerate() {
        outputter.offer(parcel(pack), Waiter { stream: 0, index, answers: world.answers.clone() });
    }
    outputter.commit(usize::MAX, |_| ()).unwrap();
}

#[test]
fn late_lines_are_not_added_to_a_finished_file_that_is_damaged() {
    for (compress, damage) in [("none", 3), ("gzip", 30), ("zstd", 30), ("none", usize::MAX)] {
        let world = World::new(1, Form::Lines, compress, "/done");
        let mut outputter = world.start().unwrap();
        let packs = &world.streams[0].packs;
        let path = parcel(&packs[0]).path;
        take(&world, &mut outputter, &packs[..1]);
        let finished = world.finisher().finish(&path, &mut Direct(&mut outputter.committer), || false);
        assert!(matches!(finished, Ok(Outcome::Finished(_))), "{finished:?}");
        let target = world.plan.target(&path).unwrap();
        let before = world.disk.read(&target).unwrap();
        let flip = |bytes: &mut Vec<u8>| match bytes.get_mut(damage) {
            Some(byte) => *byte ^= 1,
            None => bytes.truncate(3),
        };
        assert!(world.disk.damage(&target, flip));
        take(&world, &mut outputter, &packs[1..2]);
        let mut committer = Direct(&mut outputter.committer);
        let error = world.finisher().finish(&path, &mut committer, || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = error.to_string();
        assert!(error.contains("repull --replace") && error.contains(&*target.to_string_lossy()), "{error}");
        assert!(committer.lengths(&path).unwrap().data > 0, "late lines stay in the log file");
        assert!(world.disk.files().iter().all(|file| !file.to_string_lossy().contains(".finishing")));
        // Mended by whoever has a copy of it.
        assert!(world.disk.damage(&target, |bytes| *bytes = before));
        let finished = world.finisher().finish(&path, &mut committer, || false);
        assert!(matches!(finished, Ok(Outcome::Finished(_))), "{finished:?}");
        let end = identity(&packs[1]).offset + identity(&packs[1]).span;
        assert_eq!(world.lines(&path), world.streams[0].bytes[..end as usize]);
    }
}

#[test]
fn an_hour_without_lines_is_finished_once_like_any_other() {
    for (form, compress) in [
        (Form::Lines, "none"),
        (Form::Lines, "gzip"),
        (Form::Lines, "zstd"),
        (Form::Gzip, "none"),
        (Form::Zstd, "none"),
    ] {
        let world = World::new(1, form, compress, "/done");
        let mut outputter = world.start().unwrap();
        let mut done = pack(StreamId(9), "host-9", 2026112100, 0, b"", Codec::None);
        (done.header.done, done.header.id) = (true, 1);
        let path = parcel(&done).path;
        take(&world, &mut outputter, &[done]);
        let finish = |outputter: &mut Outputter| {
            world.finisher().finish(&path, &mut Direct(&mut outputter.committer), || false).unwrap()
        };
        assert!(matches!(finish(&mut outputter), Outcome::Finished(_)));
        let target = world.plan.target(&path).unwrap();
        let bytes = world.disk.read(&target).unwrap();
        assert_eq!(bytes.is_empty(), (form, compress) == (Form::Lines, "none"));
        assert_eq!(world.read_lines(&target), b"");
        assert!(world.disk.read(&world.folders.log_file(&path)).is_err(), "it is not in two places");
        assert_eq!(finish(&mut outputter), Outcome::Nothing);
        world.disk.crash();
        for slot in ["journal.0", "journal.1"] {
            drop(world.disk.unlink(&Path::new(VAR_DIR).join(slot)));
        }
        let mut outputter = world.start().unwrap();
        assert_eq!(finish(&mut outputter), Outcome::Nothing);
        take(&world, &mut outputter, &[pack(StreamId(9), "host-9", 2026112100, 0, b"late\n", Codec::None)]);
        assert!(matches!(finish(&mut outputter), Outcome::Finished(_)));
        assert_eq!(world.read_lines(&target), b"late\n");
    }
}

#[test]
fn a_file_of_somebody_else_is_not_overwritten() {
    let mut world = World::new(4, Form::Lines, "none", "/done");
    world.random = Random::new(1_000_003);
    let mut outputter = world.start().unwrap();
    while !world.is_done() {
        world.send_some(&mut outputter);
        outputter.commit(3, |_| ()).unwrap();
        world.take_answers();
    }
    let path = parcel(&world.streams[0].packs[0]).path;
    let target = world.plan.target(&path).unwrap();
    world.disk.create_dir_all(target.parent().unwrap()).unwrap();
    world.disk.create(&target).unwrap().append(&[b"theirs\n"]).unwrap();
    let error = world.finisher().finish(&path, &mut Direct(&mut outputter.committer), || false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(world.disk.read(&target).unwrap(), b"theirs\n");
    assert!(Place::LogFile != Place::Removed);
}

#[test]
fn a_removed_file_leaves_nothing_but_its_header_file_until_that_is_forgotten_too() {
    for seed in 0..6 {
        let mut world = world_of(seed);
        world.live().unwrap();
        let mut outputter = world.start().unwrap();
        for path in world.paths() {
            let finisher = world.finisher();
            let mut committer = Direct(&mut outputter.committer);
            let lengths = committer.lengths(&path).unwrap();
            let layout = finisher.layout(&path, lengths).unwrap();
            assert!(finisher.remove(&path, &layout, &mut committer).unwrap());
        }
        let left = |world: &World| -> Vec<PathBuf> {
            world.disk.files().into_iter().filter(|file| !file.starts_with(VAR_DIR)).collect()
        };
        let headers: Vec<PathBuf> =
            world.paths().iter().map(|path| world.folders.headers.join(path)).collect();
        assert_eq!(left(&world), headers);
        world.disk.crash();
        let mut outputter = world.start().unwrap();
        assert_eq!(left(&world), headers);
        for path in world.paths() {
            let lengths = outputter.committer.committed_lengths(&path).unwrap();
            let file = world.disk.open(&world.folders.headers.join(&path)).unwrap();
            assert!(lengths.data == 0 && Past::read(&*file, lengths.headers).unwrap().is_removed());
            assert!(outputter.committer.forget(&path).unwrap());
        }
        assert_eq!(left(&world), Vec::<PathBuf>::new());
        let waiter = Waiter { stream: 0, index: 0, answers: world.answers.clone() };
        outputter.offer(parcel(&world.streams[0].packs[0]), waiter);
        assert!(matches!(world.answers.lock().unwrap()[..], [(0, 0, Answer::Duplicate)]));
    }
}
