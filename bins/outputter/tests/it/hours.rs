//! Promise 6: every hour of every host is known to be complete, or it is known what is missing. Thousands of hours whose
//! packs come late, twice, in any order or never, under a keeper of the books that is killed, loses power and loses its books:
//! a mark is there if and only if the hour is whole in the output, with the right number of lines.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::{pack, parcel};
use jiff::tz::TimeZone;
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_link::HopStamp;
use logferry_outputter::file::headers::{self, Finished, Place};
use logferry_outputter::file::template::Template;
use logferry_outputter::file::walk::files_below;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::fact::{Fact, HourKey};
use logferry_outputter::hours::finishable::Finishing;
use logferry_outputter::hours::hooks::HookKind;
use logferry_outputter::hours::keeper::{Keeper, KeeperOptions, Places, lock};
use logferry_outputter::hours::mailbox::{Mail, News};
use logferry_outputter::hours::marks::Marks;
use logferry_outputter::hours::other_files::{self, FilesOf};
use logferry_outputter::hours::report::{self, Filter, HourState};
use logferry_outputter::hours::runner::{Ended, Job};
use logferry_pack::{Codec, Compressor, HourRange, Pack, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const VAR_DIR: &str = "/var";
const HEADERS: &str = "/out/headers";
const RECEIVED: &str = "/out/received";
/// Longer than any simulation takes.
const KEEP_MS: i64 = 4 * 24 * 3_600_000;
/// Shorter than many packs are late.
const FORGETFUL_KEEP_MS: i64 = 1_500;
const REPULL_WAIT_MS: i64 = 600_000;
/// Enough for a tenth of the simulated hours.
const TIGHT_MEMORY: usize = 16 << 10;

/// What the output has of an hour.
#[derive(Default)]
struct Truth {
    ids: BTreeSet<u64>,
    total: u64,
    lines: u64,
    /// Lines that it had whenever it was whole.
    whole_with: BTreeSet<u64>,
}

impl Truth {
    fn is_whole(&self) -> bool {
        self.total > 0 && self.ids.iter().copied().eq(1..=self.total)
    }

    /// The packs that the done pack told of are there, and more.
    fn is_late(&self) -> bool {
        self.total > 0
            && !self.is_whole()
            && self.ids.range(..=self.total).copied().eq(1..=self.total)
            && self.ids.iter().copied().eq(1..=self.ids.len() as u64)
    }
}

struct World {
    disk: FaultyDisk,
    random: Random,
    committed: BTreeMap<String, u64>,
    truth: BTreeMap<HourKey, Truth>,
    keeper: Option<Keeper>,
    mail: Mail,
    /// Hours with the lines that the hook was told of.
    told: BTreeMap<HourKey, Vec<u64>>,
    wanted: BTreeMap<HourKey, Vec<(u64, u64)>>,
    now_ms: i64,
    has_hook: bool,
    keep_ms: i64,
    memory_max: usize,
    /// Hours of a day share a file.
    has_day_files: bool,
    finishing: Finishing,
    /// Each stream of an hour has a file of its own.
    has_stream_files: bool,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            disk: FaultyDisk::new(seed),
            random: Random::new(seed),
            committed: BTreeMap::new(),
            truth: BTreeMap::new(),
            keeper: None,
            mail: Mail::default(),
            told: BTreeMap::new(),
            wanted: BTreeMap::new(),
            // After the days of all packs.
            now_ms: 1_795_400_000_000,
            has_hook: true,
            keep_ms: KEEP_MS,
            memory_max: 64 << 20,
            has_day_files: false,
            finishing: Finishing::Not,
            has_stream_files: false,
        }
    }

    /// The output commits a pack: its header line is durable, and the books may hear of it.
    fn commit(&mut self, pack: &Pack) {
        let mut path = match &pack.header.ours {
            Some(_) => parcel(pack).path,
            None => format!("{}_{}", pack.header.ip, pack.header.hour),
        };
        if self.has_day_files {
            path.truncate(path.len() - 2);
        }
        if self.has_stream_files {
            path = format!("{path}_{}", crate::common::identity(pack).stream);
        }
        let full_path = Path::new(HEADERS).join(&path);
        let file = self.disk.open(&full_path).unwrap_or_else(|_| {
            self.disk.create_dir_all(full_path.parent().unwrap()).unwrap();
            let file = self.disk.create(&full_path).unwrap();
            self.disk.sync_dir(full_path.parent().unwrap()).unwrap();
            file
        });
        let mut pack = pack.clone();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let now = jiff::Timestamp::from_millisecond(self.now_ms).unwrap();
        pack.push_hop(&HopStamp::new(peer, TimeZone::UTC).hop((peer, 1).into(), now, Duration::ZERO));
        let line = headers::pack_line(&pack);
        file.append(&[&line]).unwrap();
        file.sync().unwrap();
        let from = self.committed.get(&path).copied().unwrap_or(0);
        let to = from + line.len() as u64;
        self.committed.insert(path.clone(), to);
        let truth = self.truth.entry(HourKey::of(&pack.header)).or_default();
        truth.ids.insert(pack.header.id);
        truth.lines += pack.header.lines;
        truth.total = truth.total.max(if pack.header.done { pack.header.id } else { 0 });
        if truth.is_whole() {
            truth.whole_with.insert(truth.lines);
        }
        let facts = (!self.random.one_in(20)).then(|| vec![Fact::new(&pack.header, self.now_ms)]);
        self.mail.news.push(News { path, from, to, facts, is_replaced: false });
    }

    /// Starts the keeper if it does not run, and lets it do what is due; `false` when the power went off.
    fn keep(&mut self) -> bool {
        if self.keeper.is_none() {
            self.mail = Mail::default();
            let Ok(mut keeper) = self.open() else { return false };
            keeper.catch_up(self.committed.clone(), self.now_ms);
            self.keeper = Some(keeper);
        }
        let Some(keeper) = &mut self.keeper else { return false };
        let jobs = keeper.step(std::mem::take(&mut self.mail), self.now_ms);
        let is_on = self.disk.free_bytes(Path::new(VAR_DIR)).is_ok();
        for job in jobs {
            let ended = self.run(job);
            if is_on && !self.random.one_in(10) {
                self.mail.ended.extend(ended);
            } else {
                // Killed before it could be told.
                self.keeper = None;
            }
        }
        is_on
    }

    fn open(&self) -> std::io::Result<Keeper> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let marks = Marks::new(disk.clone(), RECEIVED.into(), None);
        let options = KeeperOptions {
            keep_ms: self.keep_ms,
            memory_max: self.memory_max,
            repull_wait_ms: REPULL_WAIT_MS,
            hosts_asked: (0..10).map(|number| format!("host-{number}")).collect(),
            hooks: self.has_hook.then_some(HookKind::Command).into_iter().collect(),
            hooks_at_once: 3,
            finishing: self.finishing,
        };
        let places = Places { disk, headers: HEADERS.into(), marks };
        let keeper = Keeper::open(places, Path::new(VAR_DIR), calendar(), options, Arc::default())?;
        Ok(keeper.with_other_files(self.has_stream_files.then(|| self.files_of_streams())))
    }

    fn files_of_streams(&self) -> FilesOf {
        let disk = self.disk.clone();
        Box::new(move |keys: &BTreeSet<HourKey>| {
            let template = Template::parse("{source}/{host}_{hour}_{stream}").unwrap();
            let paths = files_below(&disk, Path::new(HEADERS), "").ok()?.files;
            let length = |path: &String| disk.open(&Path::new(HEADERS).join(path)).unwrap().len().unwrap();
            Some(other_files::find(&template, paths.iter().map(|path| (path, length(path))), keys))
        })
    }

    fn run(&mut self, job: Job) -> Option<Ended> {
        match job {
            Job::Hook(hook, hour) => {
                let truth = &self.truth[&hook.key];
                assert_eq!((hour.state, hour.total), (HourState::Complete, Some(hour.packs)), "{}", hook.key);
                assert!(
                    truth.whole_with.contains(&hour.lines),
                    "{}: a hook was told a wrong number",
                    hook.key
                );
                if self.random.one_in(8) {
                    return Some(Ended::Hook(hook, Err("it fails".into())));
                }
                self.told.entry(hook.key.clone()).or_default().push(hour.lines);
                Some(Ended::Hook(hook, Ok(())))
            }
            Job::Repull(wanted) => {
                self.wanted.insert(wanted.key.clone(), wanted.ids.clone());
                Some(Ended::Repull(wanted, Ok(())))
            }
        }
    }

    /// The process is killed, or the power is cut; sometimes its books are lost.
    fn stop(&mut self) {
        match self.random.below(4) {
            0 => {
                let now_ms = self.now_ms;
                self.keeper.as_mut().into_iter().for_each(|keeper| keeper.save(now_ms));
            }
            1 => self.disk.crash(),
            _ => {}
        }
        self.keeper = None;
        if self.random.one_in(6) {
            for slot in ["hours.0", "hours.1"] {
                drop(self.disk.unlink(&Path::new(VAR_DIR).join(slot)));
            }
            self.disk.sync_dir(Path::new(VAR_DIR)).ok();
        }
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.now_ms += 1_000;
            assert!(self.keep());
            if self.mail.ended.is_empty() && (!self.has_hook || self.are_all_told()) {
                return self.calm();
            }
        }
        panic!("hooks of whole hours have not run");
    }

    /// Until the keeper has done all that it may not do at once.
    fn calm(&mut self) {
        let mut steps = 0;
        while steps < 3 {
            self.now_ms += 100;
            assert!(self.keep());
            steps = if self.keeper.is_some() { steps + 1 } else { 0 };
        }
    }

    /// Until the books have forgotten all hours.
    fn forget(&mut self) {
        self.now_ms += self.keep_ms + 60_000;
        self.calm();
        assert_eq!(self.known(), 0);
    }

    /// The finisher is done with some of the files.
    fn finish_some(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        let books = keeper.books();
        let due = lock(&books).finishable(self.now_ms);
        for (path, (counted, _)) in due {
            if self.random.one_in(4) {
                lock(&books).finished(&path, counted);
            }
        }
    }

    fn known(&self) -> usize {
        lock(&self.keeper.as_ref().unwrap().books()).hours().count()
    }

    /// It ends, and starts again.
    fn restart(&mut self) {
        let now_ms = self.now_ms;
        self.keeper.as_mut().into_iter().for_each(|keeper| keeper.save(now_ms));
        self.keeper = None;
        self.calm();
    }

    /// Whether hooks were told what each mark says, also that of an hour to which lines came late.
    fn are_all_told(&self) -> bool {
        let is_told =
            |key: &HourKey, lines: u64| self.told.get(key).is_some_and(|told| told.contains(&lines));
        let marks = self.marks();
        self.truth.iter().all(|(key, truth)| {
            let mut marked =
                truth.whole_with.iter().filter(|lines| marks.contains(&format!("{key}_{lines}")));
            (!truth.is_whole() || is_told(key, truth.lines)) && marked.all(|lines| is_told(key, *lines))
        })
    }

    fn marks(&self) -> BTreeSet<String> {
        let files = self.disk.files();
        let marks = files.iter().filter_map(|path| path.strip_prefix(RECEIVED).ok());
        marks.map(|path| path.display().to_string()).collect()
    }

    fn assert_marks(&self) {
        let marks = self.marks();
        for (key, truth) in &self.truth {
            let stem = format!("{key}_");
            let of_hour = marks.iter().filter_map(|mark| mark.strip_prefix(&stem)?.parse::<u64>().ok());
            let of_hour: Vec<u64> = of_hour.collect();
            if truth.is_whole() {
                assert_eq!(of_hour, [truth.lines], "{key} is whole");
            } else if truth.is_late() {
                assert!(of_hour.len() <= 1, "{key}: {of_hour:?}");
                assert!(of_hour.iter().all(|lines| truth.whole_with.contains(lines)), "{key}: {of_hour:?}");
            } else {
                assert!(of_hour.is_empty(), "{key} is not whole and has marks {of_hour:?}");
            }
        }
        let is_marked = |key: &HourKey| marks.iter().any(|mark| mark.starts_with(&format!("{key}_")));
        let found = marks.iter().filter(|mark| mark.rsplit('_').next().is_some_and(|end| end.len() == 8));
        let found: BTreeSet<String> = found.cloned().collect();
        let whole = self.days(|_, truth| truth.is_whole());
        assert!(whole.is_subset(&found), "these days are whole: {whole:?}, these have marks: {found:?}");
        let marked = self.days(|key, _| is_marked(key));
        assert!(found.is_subset(&marked), "all hours have marks of {marked:?}, these days have: {found:?}");
    }

    /// Days of which this holds for all hours.
    fn days(&self, holds: impl Fn(&HourKey, &Truth) -> bool) -> BTreeSet<String> {
        let mut hours: BTreeMap<String, u32> = BTreeMap::new();
        for (key, _) in self.truth.iter().filter(|(key, truth)| holds(key, truth)) {
            let text = key.to_string();
            *hours.entry(text[..text.len() - 2].to_owned()).or_default() += 1;
        }
        hours.into_iter().filter(|(_, count)| *count == 24).map(|(day, _)| day).collect()
    }
}

fn calendar() -> Calendar {
    Calendar::new(TimeZone::UTC)
}

/// The packs of an hour in their order: some with lines, closed by a done pack, and perhaps late lines, closed again.
fn hour(number: u64, random: &mut Random) -> Vec<Pack> {
    let (host, day_hour) = (number / 25, 2026112100 + (number % 25) as u32);
    // The 25th hour is one of the next day.
    let hour = if day_hour % 100 == 24 { 2026112200 } else { day_hour };
    let mut packs: Vec<Pack> = Vec::new();
    let mut offset = 0;
    for _ in 0..1 + random.below(2) * random.below(3) {
        let with_lines = random.below(4);
        for is_done in (0..with_lines).map(|_| false).chain([true]) {
            let lines = if is_done && random.one_in(2) { 0 } else { 1 + random.below(20) };
            let body = "x\n".repeat(lines as usize);
            let mut pack = pack(
                StreamId(u128::from(number)),
                &format!("host-{host}"),
                hour,
                offset,
                body.as_bytes(),
                Codec::None,
            );
            offset += body.len() as u64;
            (pack.header.id, pack.header.done) = (packs.len() as u64 + 1, is_done);
            packs.push(pack);
        }
    }
    if host == 1 {
        packs.iter_mut().for_each(make_legacy);
    }
    packs
}

fn make_legacy(pack: &mut Pack) {
    pack.body = Compressor::new(Codec::Zlib, 1).unwrap().compress(&pack.body);
    pack.header.ours = None;
    pack.header.ip = "10.0.0.1".into();
}

/// All packs of `hours` hours: nearly in order, some much later, some never.
fn arrivals(hours: u64, random: &mut Random) -> Vec<Pack> {
    let mut packs = Vec::new();
    for number in 0..hours {
        for (index, pack) in hour(number, random).into_iter().enumerate() {
            if random.one_in(40) {
                continue;
            }
            let late = if random.one_in(30) { random.below(2_000) } else { random.below(4) };
            let at = number * 4 + index as u64 + late;
            // A pack without lines may be written twice, and means the same.
            if pack.header.lines == 0 && random.one_in(3) {
                packs.push((at + random.below(50), random.next_u64(), pack.clone()));
            }
            packs.push((at, random.next_u64(), pack));
        }
    }
    packs.sort_by_key(|(at, luck, _)| (*at, *luck));
    packs.into_iter().map(|(.., pack)| pack).collect()
}

#[test]
fn a_mark_is_there_if_and_only_if_the_hour_is_whole_whatever_happens_to_the_keeper() {
    let trial = logferry_trial::trial!();
    let (mut hours, mut days, mut again) = (0, 0, 0);
    trial.seeds("lives of a store with 250 hours", 0..60).for_each(|seed| {
        let mut world = World::new(seed);
        // Then there is room for some hours only, and not for hooks that are due.
        let is_tight = seed >= 40;
        if is_tight {
            (world.memory_max, world.has_hook) = (TIGHT_MEMORY, false);
        }
        // In half of them hours are forgotten, and heard of again.
        if seed % 2 == 1 {
            world.keep_ms = FORGETFUL_KEEP_MS;
        }
        world.has_day_files = seed % 4 >= 2;
        let (mut forgotten, mut known_before) = (BTreeSet::new(), BTreeSet::new());
        let packs = arrivals(250, &mut world.random);
        for pack in &packs {
            world.commit(pack);
            world.now_ms += 10;
            if world.random.one_in(4) {
                assert!(world.keep());
            }
            let known = world.keeper.as_ref().map(|keeper| {
                let books = keeper.books();
                let books = lock(&books);
                books.hours().map(|(key, _)| key.clone()).collect::<BTreeSet<HourKey>>()
            });
            if let Some(known) = known {
                again += known.intersection(&forgotten).count() as u64;
                forgotten =
                    forgotten.union(&known_before).filter(|key| !known.contains(key)).cloned().collect();
                known_before = known;
            }
            if world.random.one_in(60) {
                world.stop();
            }
            if world.random.one_in(200) {
                world.calm();
                world.assert_marks();
            }
        }
        world.settle();
        world.assert_marks();
        if world.keep_ms == KEEP_MS && !is_tight {
            assert_missing_is_told(&mut world);
        }
        hours += world.truth.len() as u64;
        days += world.days(|_, truth| truth.is_whole()).len() as u64;
    });
    trial.count("hours that were followed until their marks", hours);
    trial.count("days that became whole", days);
    trial.count("hours that were forgotten and heard of again", again);
    assert!(days >= 10 && again >= 1_000, "{days} {again}");
}

/// A pack of one line of an hour.
fn line_of(hour: u32, id: u64, is_done: bool) -> Pack {
    let mut pack = pack(StreamId(hour.into()), "host-0", hour, 2 * (id - 1), b"x\n", Codec::None);
    (pack.header.id, pack.header.done) = (id, is_done);
    pack
}

const DAY: std::ops::Range<u32> = 2026112100..2026112124;
const DAY_MARK: &str = "access/host-0_20261121";

#[test]
fn the_mark_of_an_hour_that_was_forgotten_is_replaced_by_late_lines_and_goes_when_packs_are_missing() {
    for (has_day_files, is_restarted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(5);
        (world.has_hook, world.has_day_files) = (false, has_day_files);
        [line_of(2026112100, 1, false), line_of(2026112100, 2, true)]
            .iter()
            .for_each(|pack| world.commit(pack));
        world.settle();
        let mark = |lines: u64| BTreeSet::from([format!("access/host-0_2026112100_{lines}")]);
        let forget = |world: &mut World| {
            if has_day_files {
                // The file is known still.
                world.now_ms += KEEP_MS;
                world.commit(&line_of(2026112101, world.now_ms as u64, false));
                world.now_ms += 60_000;
                world.calm();
                assert_eq!(world.known(), 1);
            } else {
                world.forget();
            }
            if is_restarted {
                world.restart();
            }
        };
        let late = |world: &mut World, packs: &[(u64, bool)]| {
            packs.iter().for_each(|(id, is_done)| world.commit(&line_of(2026112100, *id, *is_done)));
            world.settle();
        };
        assert_eq!(world.marks(), mark(2));
        forget(&mut world);
        late(&mut world, &[(3, true)]);
        assert_eq!(world.marks(), mark(3));
        forget(&mut world);
        late(&mut world, &[(5, false)]);
        assert_eq!(world.marks(), BTreeSet::new(), "pack 4 is missing");
        forget(&mut world);
        late(&mut world, &[(6, true), (4, false)]);
        assert_eq!(world.marks(), mark(6));
    }
}

#[test]
fn a_day_gets_its_mark_when_its_last_hour_is_complete_though_the_first_ones_are_forgotten() {
    for is_restarted in [false, true] {
        let mut world = World::new(5);
        world.has_hook = false;
        for hour in DAY.skip(1) {
            world.commit(&line_of(hour, 1, true));
        }
        world.settle();
        world.forget();
        if is_restarted {
            world.restart();
        }
        assert!(!world.marks().contains(DAY_MARK));
        world.commit(&line_of(DAY.start, 1, true));
        world.settle();
        assert!(world.marks().contains(DAY_MARK), "{:?}", world.marks());
        world.assert_marks();
    }
}

#[test]
fn a_day_loses_its_mark_with_an_hour_whose_packs_are_missing_and_gets_it_back() {
    for is_forgotten in [false, true] {
        let mut world = World::new(5);
        world.has_hook = false;
        for hour in DAY {
            world.commit(&line_of(hour, 1, true));
        }
        world.settle();
        assert!(world.marks().contains(DAY_MARK));
        let forget = |world: &mut World| {
            if is_forgotten {
                world.forget();
            }
        };
        forget(&mut world);
        world.commit(&line_of(2026112105, 2, false));
        world.settle();
        assert!(world.marks().contains(DAY_MARK), "the hour has grown");
        world.assert_marks();
        forget(&mut world);
        world.commit(&line_of(2026112105, 4, true));
        world.settle();
        world.assert_marks();
        assert_eq!(world.marks().len(), 23, "neither the hour nor the day has a mark");
        forget(&mut world);
        world.commit(&line_of(2026112105, 3, false));
        world.settle();
        world.assert_marks();
        assert!(world.marks().contains("access/host-0_2026112105_4") && world.marks().contains(DAY_MARK));
    }
}

/// Puts an empty file below `received/`.
fn put_mark(world: &World, name: &str) {
    let path = Path::new(RECEIVED).join(name);
    world.disk.create_dir_all(path.parent().unwrap()).unwrap();
    drop(world.disk.create(&path).unwrap());
    world.disk.sync_dir(path.parent().unwrap()).unwrap();
}

#[test]
fn marks_that_older_programs_left_are_put_right_at_a_start() {
    let mut world = World::new(5);
    world.has_hook = false;
    world.commit(&line_of(2026112100, 1, true));
    world.commit(&line_of(2026112101, 2, true));
    for name in ["access/host-0_2026112100_1", "access/host-0_2026112100_9", DAY_MARK] {
        put_mark(&world, name);
    }
    world.restart();
    assert_eq!(world.marks(), BTreeSet::from(["access/host-0_2026112100_1".to_owned()]));
}

#[test]
fn an_hour_that_there_was_no_room_for_is_whole_only_with_all_its_packs_though_its_file_is_known_for_others() {
    for is_restarted in [false, true] {
        let mut world = World::new(5);
        (world.has_hook, world.has_day_files) = (false, true);
        let commit = |world: &mut World, hour: u32, packs: &[(u64, bool)]| {
            packs.iter().for_each(|(id, is_done)| world.commit(&line_of(hour, *id, *is_done)));
            world.settle();
        };
        commit(&mut world, 2026112100, &[(1, false), (2, false), (4, false)]);
        commit(&mut world, 2026112101, &[(1, false)]);
        assert_eq!(world.known(), 2);
        let memory_max = lock(&world.keeper.as_ref().unwrap().books()).memory_bytes() - 1;
        world.memory_max = memory_max;
        world.restart();
        world.settle();
        assert_eq!(world.known(), 1, "the older one had to go");
        if is_restarted {
            world.memory_max *= 4;
            world.restart();
            assert_eq!(world.known(), 1);
        }
        // As a tailer that has lost its state may number them.
        commit(&mut world, 2026112100, &[(1, true)]);
        assert_eq!(world.marks(), BTreeSet::new(), "packs are missing");
    }
}

#[test]
fn no_names_are_read_for_an_hour_that_is_just_new() {
    let mut world = World::new(5);
    world.has_hook = false;
    world.commit(&line_of(2026112300, 1, true));
    world.settle();
    // It would be found and taken away.
    let strange = "access/host-0_2026112301_77";
    put_mark(&world, strange);
    world.commit(&line_of(2026112301, 1, true));
    world.settle();
    assert!(world.marks().contains(strange));
    world.restart();
    assert!(!world.marks().contains(strange));
}

#[test]
fn names_are_read_for_hours_that_there_was_no_room_for_and_not_for_later_ones() {
    let mut world = World::new(5);
    (world.has_hook, world.memory_max) = (false, 1);
    world.commit(&line_of(2026112301, 1, true));
    world.settle();
    assert_eq!(world.known(), 0);
    let strange = |hour: u32| format!("access/host-0_{hour}_77");
    for hour in [2026112302, 2026112300] {
        put_mark(&world, &strange(hour));
        world.commit(&line_of(hour, 1, true));
        world.settle();
    }
    let marks = world.marks();
    assert!(marks.contains(&strange(2026112302)) && !marks.contains(&strange(2026112300)), "{marks:?}");
}

/// What is missing is listed and asked for.
fn assert_missing_is_told(world: &mut World) {
    world.wanted.clear();
    for _ in 0..80 {
        world.now_ms += 2 * REPULL_WAIT_MS;
        world.keep();
    }
    let books = world.keeper.as_ref().unwrap().books();
    let books = lock(&books);
    let filter = Filter { missing: true, ..Filter::default() };
    let listed = report::report(&books, &calendar(), &filter, i64::MAX).hours;
    let listed: BTreeMap<(String, String), _> = listed
        .into_iter()
        .map(|hour| ((format!("{}/{}", hour.source, hour.host), hour.hour.clone()), hour))
        .collect();
    for (key, truth) in &world.truth {
        let found = listed.get(&(format!("{}/{}", key.source, key.host), key.hour.to_string()));
        assert_eq!(found.is_none(), truth.is_whole(), "{key}");
        let seen_to = truth.ids.last().copied().unwrap_or(0).max(truth.total);
        let missing: Vec<u64> = (1..=seen_to).filter(|id| !truth.ids.contains(id)).collect();
        let told: Option<Vec<u64>> =
            found.map(|hour| hour.missing.iter().flat_map(|(from, to)| *from..=*to).collect());
        assert_eq!(told.unwrap_or_default(), missing, "{key}");
        if !key.is_legacy() {
            let wanted: Option<Vec<u64>> =
                world.wanted.get(key).map(|ids| ids.iter().flat_map(|(from, to)| *from..*to).collect());
            assert_eq!(wanted.unwrap_or_default(), missing, "{key}: a repull is asked for");
        }
    }
}

#[test]
fn a_power_cut_at_each_operation_of_the_keeper_leaves_no_mark_wrong_or_missing() {
    let trial = logferry_trial::trial!();
    trial.seeds("lives of a keeper on the faulty disk", 0..400).for_each(|seed| {
        let mut world = World::new(seed);
        let packs = arrivals(12, &mut world.random);
        for part in packs.chunks(packs.len().div_ceil(4)) {
            part.iter().for_each(|pack| world.commit(pack));
            // Less and less often, so that it gets through.
            for attempt in 0.. {
                let die_after = (attempt < 12).then(|| world.random.below(12 + 4 * attempt));
                let fail_sync_in =
                    (attempt < 12 && world.random.one_in(4)).then(|| 1 + world.random.below(5));
                world.disk.set_faults(Faults { die_after, fail_sync_in, ..Faults::default() });
                world.now_ms += 1_000;
                let is_on = world.keep() && world.keep();
                if is_on && attempt >= 12 {
                    break;
                }
                if !is_on || world.random.one_in(2) {
                    world.disk.set_faults(Faults::default());
                    world.disk.crash();
                    world.keeper = None;
                }
            }
            world.settle();
            world.assert_marks();
        }
    });
}

#[test]
fn a_hook_runs_once_for_each_complete_hour_when_nothing_fails() {
    let mut world = World::new(1);
    let mut random = Random::new(7);
    let packs: Vec<Pack> = (0..3).flat_map(|number| hour(number * 30, &mut random)).collect();
    packs.iter().for_each(|pack| world.commit(pack));
    let mut keeper = world.open().unwrap();
    keeper.catch_up(world.committed.clone(), world.now_ms);
    let mut hooks = Vec::new();
    let mut mail = Mail::default();
    for _ in 0..5 {
        for job in keeper.step(std::mem::take(&mut mail), world.now_ms) {
            let Job::Hook(hook, hour) = job else { panic!("{job:?}") };
            hooks.push((hook.key.clone(), hour.lines));
            mail.ended.push(Ended::Hook(hook, Ok(())));
        }
    }
    // Nor after a power cut, nor for what was forgotten and is counted again.
    keeper.save(world.now_ms);
    drop(keeper);
    world.disk.crash();
    let mut keeper = world.open().unwrap();
    keeper.catch_up(world.committed.clone(), world.now_ms);
    assert_eq!(keeper.step(Mail::default(), world.now_ms), []);
    hooks.sort();
    let expected: Vec<_> = world.truth.iter().map(|(key, truth)| (key.clone(), truth.lines)).collect();
    assert_eq!(hooks, expected);
}

#[test]
fn hours_expire_and_are_known_again_when_something_comes() {
    let mut world = World::new(3);
    world.has_hook = false;
    let mut random = Random::new(3);
    let (whole, mut broken) = (hour(0, &mut random), hour(60, &mut random));
    let missing = broken.remove(0);
    whole.iter().chain(&broken).for_each(|pack| world.commit(pack));
    assert!(world.keep());
    let known = |world: &World| lock(&world.keeper.as_ref().unwrap().books()).hours().count();
    assert_eq!(known(&world), 2);
    world.now_ms += KEEP_MS;
    world.keep();
    assert_eq!(known(&world), 2);
    world.now_ms += 2_000;
    world.keep();
    assert_eq!(known(&world), 0);
    world.keeper.as_mut().unwrap().save(world.now_ms);
    world.keeper = None;
    assert!(world.keep());
    assert_eq!(known(&world), 0, "what was forgotten is not read again at the next start");
    world.commit(&missing);
    assert!(world.keep());
    world.assert_marks();
    assert_eq!(known(&world), 1);
}

#[test]
fn late_lines_that_go_into_another_file_than_a_forgotten_hour_has_complete_it() {
    for is_restarted in [false, true] {
        let mut world = World::new(5);
        world.has_stream_files = true;
        let done = |mut pack: Pack| {
            pack.header.done = true;
            pack
        };
        let forget = |world: &mut World| {
            world.forget();
            if is_restarted {
                world.restart();
            }
        };
        let marks = |lines: u64| BTreeSet::from([format!("access/host-0_2026112100_{lines}")]);
        [bytes_of(2, 0, 10, 1), done(bytes_of(2, 10, 20, 2))].iter().for_each(|pack| world.commit(pack));
        world.settle();
        assert_eq!(world.marks(), marks(10));
        forget(&mut world);
        world.commit(&bytes_of(1, 0, 4, 3));
        world.settle();
        assert_eq!(world.marks(), marks(10), "no done pack tells whether there is more");
        world.commit(&done(bytes_of(1, 4, 6, 4)));
        world.settle();
        assert_eq!(world.marks(), marks(13), "hooks have run, too");
        forget(&mut world);
        world.commit(&bytes_of(3, 0, 2, 6));
        world.settle();
        assert_eq!(world.marks(), BTreeSet::new(), "pack 5 is missing");
        forget(&mut world);
        world.commit(&bytes_of(3, 2, 4, 5));
        world.commit(&done(bytes_of(4, 0, 0, 7)));
        world.settle();
        assert_eq!(world.marks(), marks(15));
    }
}

#[test]
fn a_complete_hour_is_known_until_its_file_is_finished_however_long_that_takes() {
    let mut world = World::new(5);
    (world.has_hook, world.finishing) = (false, Finishing::Elsewhere);
    let (done, open) = (line_of(2026112100, 1, true), line_of(2026112101, 1, false));
    [&done, &open].into_iter().for_each(|pack| world.commit(pack));
    world.settle();
    let pass = |world: &mut World| {
        world.now_ms += KEEP_MS + 60_000;
        world.calm();
        world.restart();
    };
    pass(&mut world);
    pass(&mut world);
    assert_eq!(world.known(), 1);
    let books = world.keeper.as_ref().unwrap().books();
    let due = lock(&books).finishable(world.now_ms);
    let (path, (counted, hours)) = due.iter().next().unwrap();
    assert_eq!((path, &hours[..]), (&parcel(&done).path, &[HourKey::of(&done.header)][..]));
    lock(&books).finished(path, *counted);
    world.now_ms += 2_000;
    world.calm();
    assert_eq!(world.known(), 0);
}

/// What the output does with the header file of what `[retention]` removes.
fn remove(world: &mut World, path: &str) {
    let line = headers::finished_line(&Finished { place: Place::Removed, data: 0, bytes: 0, crc: None });
    let file = world.disk.open(&Path::new(HEADERS).join(path)).unwrap();
    file.append(&[&line]).unwrap();
    file.sync().unwrap();
    let to = world.committed[path] + line.len() as u64;
    world.committed.insert(path.to_owned(), to);
    world.mail.news.push(News { path: path.to_owned(), from: to, to, facts: None, is_replaced: false });
}

#[test]
fn marks_of_removed_hours_go_whatever_is_killed_and_what_comes_late_is_counted_with_what_was_removed() {
    for (is_killed, is_saved, is_old) in
        [(false, false, false), (true, false, false), (true, true, false), (true, true, true)]
    {
        let mut world = World::new(5);
        world.has_hook = false;
        let mut packs = [bytes_of(1, 0, 10, 1), bytes_of(1, 10, 20, 2)];
        packs[1].header.done = true;
        packs.iter().for_each(|pack| world.commit(pack));
        world.settle();
        let (path, key) = (parcel(&packs[0]).path, HourKey::of(&packs[0].header));
        assert_eq!(world.marks(), BTreeSet::from([format!("{key}_10")]));
        let stop = |world: &mut World| {
            let now_ms = world.now_ms;
            world.keeper.as_mut().into_iter().filter(|_| is_saved).for_each(|keeper| keeper.save(now_ms));
            world.keeper = None;
        };
        let known = |world: &World| lock(&world.keeper.as_ref().unwrap().books()).hours().count();
        if is_old {
            world.now_ms += KEEP_MS + 60_000;
            assert!(world.keep());
            assert_eq!(known(&world), 0, "it is removed when the books have forgotten it");
        }
        if is_killed {
            stop(&mut world);
        }
        remove(&mut world, &path);
        for _ in 0..2 {
            assert!(world.keep());
            assert_eq!((world.marks(), known(&world)), (BTreeSet::new(), 0));
            if is_killed {
                stop(&mut world);
            }
        }
        assert!(world.keep());
        world.commit(&bytes_of(1, 20, 24, 3));
        assert!(world.keep());
        let books = world.keeper.as_ref().unwrap().books();
        let wanted = lock(&books).wanted(&key).unwrap();
        assert!(wanted.ids.is_empty() && wanted.ranges.is_empty() && wanted.is_late, "{wanted:?}");
        let mut done = bytes_of(1, 24, 24, 4);
        done.header.done = true;
        world.commit(&done);
        world.settle();
        assert_eq!(world.marks(), BTreeSet::from([format!("{key}_12")]));
    }
}

/// Lets a keeper run all hooks that are due, and gives their hours.
fn hooks_of(world: &World, keeper: &mut Keeper) -> Vec<HourKey> {
    let (mut hooks, mut mail) = (Vec::new(), Mail::default());
    for _ in 0..5 {
        for job in keeper.step(std::mem::take(&mut mail), world.now_ms) {
            let Job::Hook(hook, _) = job else { panic!("{job:?}") };
            hooks.push(hook.key.clone());
            mail.ended.push(Ended::Hook(hook, Ok(())));
        }
    }
    hooks
}

#[test]
fn an_hour_that_was_completed_after_the_books_were_saved_is_known_however_long_the_outputter_was_down() {
    let mut world = World::new(5);
    let mut random = Random::new(5);
    let (old, new) = (hour(0, &mut random), hour(60, &mut random));
    old.iter().for_each(|pack| world.commit(pack));
    let mut keeper = world.open().unwrap();
    keeper.catch_up(world.committed.clone(), world.now_ms);
    assert_eq!(hooks_of(&world, &mut keeper), [HourKey::of(&old[0].header)]);
    keeper.save(world.now_ms);
    drop(keeper);
    // Killed before the keeper heard of it.
    new.iter().for_each(|pack| world.commit(pack));
    world.now_ms += 2 * KEEP_MS;
    let mut keeper = world.open().unwrap();
    keeper.catch_up(world.committed.clone(), world.now_ms);
    assert_eq!(hooks_of(&world, &mut keeper), [HourKey::of(&new[0].header)]);
    world.assert_marks();
}

/// Lines of two bytes.
fn bytes_of(stream: u64, from: u64, to: u64, id: u64) -> Pack {
    let body = "x\n".repeat(((to - from) / 2) as usize);
    let mut pack = pack(StreamId(stream.into()), "host-0", 2026112100, from, body.as_bytes(), Codec::None);
    pack.header.id = id;
    pack
}

/// Even numbers from `from` to `to`, both of them among them.
fn cuts(from: u64, to: u64, random: &mut Random) -> Vec<(u64, u64)> {
    let mut at = vec![from, to];
    (0..random.below(3)).for_each(|_| at.push(from + 2 * random.below((to - from) / 2 + 1)));
    at.sort_unstable();
    at.windows(2).map(|pair| (pair[0], pair[1])).filter(|(from, to)| from < to).collect()
}

/// Puts another header file into the place of the hour's: what the output does when the hour is replaced.
fn replace_hour(world: &mut World, packs: &[Pack]) {
    let path = parcel(&packs[0]).path;
    let full_path = Path::new(HEADERS).join(&path);
    let mut bytes = vec![b'\n'; world.committed.get(&path).copied().unwrap_or(0) as usize];
    bytes.extend(headers::replaced_line(StreamId(9)));
    packs.iter().for_each(|pack| bytes.extend(headers::pack_line(pack)));
    drop(world.disk.unlink(&full_path));
    let file = world.disk.create(&full_path).unwrap();
    file.append(&[&bytes]).unwrap();
    file.sync().unwrap();
    world.disk.sync_dir(full_path.parent().unwrap()).unwrap();
    let to = bytes.len() as u64;
    world.committed.insert(path.clone(), to);
    world.mail.news.push(News { path, from: 0, to, facts: None, is_replaced: true });
}

#[test]
fn an_hour_of_several_streams_that_was_lost_is_whole_when_repulls_have_brought_all_of_it_and_not_before() {
    let trial = logferry_trial::trial!();
    let (mut whole, mut open) = (0, 0);
    trial.seeds("hours of several streams that were lost and shipped again", 0..1_000).for_each(|seed| {
        let mut world = World::new(seed);
        world.has_hook = false;
        let mut random = Random::new(seed);
        let ranges: Vec<(u64, u64, u64)> = (1..=1 + random.below(4))
            .map(|stream| {
                let from = 2 * random.below(50);
                (stream, from, from + 2 + 2 * random.below(50))
            })
            .collect();
        let mut first: Vec<Pack> = Vec::new();
        for (stream, from, to) in &ranges {
            for (from, to) in cuts(*from, *to, &mut random) {
                first.push(bytes_of(*stream, from, to, first.len() as u64 + 1));
            }
        }
        let total = first.len() as u64 + 1;
        let (stream, _, end) = *ranges.last().unwrap();
        let mut done = bytes_of(stream, end, end, total);
        (done.header.done, done.header.repull) = (true, true);
        let told = ranges.iter().map(|(stream, from, to)| HourRange {
            stream: StreamId((*stream).into()),
            from: *from,
            to: *to,
        });
        done.header.set_hour_ranges(&told.collect::<Vec<_>>());
        let all_lines = ranges.iter().map(|(_, from, to)| (to - from) / 2).sum::<u64>();

        // What arrived at first: a part, or nothing at all.
        let mut missing = Vec::new();
        let nothing = random.one_in(3);
        for pack in &first {
            if nothing || random.one_in(2) {
                missing.push(crate::common::identity(pack));
            } else {
                world.commit(pack);
            }
        }
        if random.one_in(2) {
            world.commit(&done);
        }
        if random.one_in(2) {
            assert!(world.keep());
        }
        // What repulls bring, cut and numbered otherwise; sometimes a part of it is gone for good.
        let gone = random.one_in(3).then(|| random.below(missing.len() as u64 + 1) as usize);
        let mut is_whole = true;
        for (index, lost) in missing.iter().enumerate() {
            if Some(index) == gone {
                is_whole = false;
                continue;
            }
            for (from, to) in cuts(lost.offset, lost.end(), &mut random) {
                let mut pack = bytes_of(lost.stream.0 as u64, from, to, 1 + random.below(9));
                pack.header.repull = true;
                world.commit(&pack);
            }
            if random.one_in(4) {
                assert!(world.keep());
            }
            if random.one_in(6) {
                world.stop();
            }
        }
        world.commit(&done);
        if is_whole && random.one_in(3) {
            let mut packs: Vec<Pack> = Vec::new();
            for (stream, from, to) in &ranges {
                for (from, to) in cuts(*from, *to, &mut random) {
                    let mut pack = bytes_of(*stream, from, to, 1 + random.below(9));
                    pack.header.repull = true;
                    packs.push(pack);
                }
            }
            packs.push(done.clone());
            if random.one_in(2) {
                assert!(world.keep());
            }
            replace_hour(&mut world, &packs);
            if random.one_in(2) {
                world.stop();
            }
        }
        assert!(world.keep());
        world.now_ms += 1_000;
        assert!(world.keep());
        let expected: BTreeSet<String> =
            is_whole.then(|| format!("access/host-0_2026112100_{all_lines}")).into_iter().collect();
        assert_eq!(world.marks(), expected, "{ranges:?}");
        *(if is_whole { &mut whole } else { &mut open }) += 1;
    });
    trial.count("hours that became whole", whole);
    trial.count("hours that did not", open);
    assert!(whole > 300 && open > 100, "{whole} {open}");
}

/// What one tailer sends of an hour: packs in turn of its streams, some of whose numbers it gives back because it cannot read their bytes any
/// more, and the done pack that tells of the others.
fn numbering(streams: std::ops::Range<u64>, gives_back: bool, random: &mut Random) -> Vec<Pack> {
    let mut pieces: Vec<(u64, (u64, u64))> = Vec::new();
    for stream in streams {
        let to = 2 + 2 * random.below(50);
        pieces.extend(cuts(0, to, random).into_iter().map(|piece| (stream, piece)));
    }
    let mut lucky: Vec<_> =
        pieces.iter().map(|(stream, piece)| (piece.0 + random.below(60), *stream, *piece)).collect();
    lucky.sort_unstable();
    let (mut packs, mut told, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (_, stream, (from, to))) in lucky.into_iter().enumerate() {
        let pack = bytes_of(stream, from, to, index as u64 + 1);
        if gives_back && random.one_in(5) {
            let mut mark = bytes_of(stream, from, from, index as u64 + 1);
            mark.header.repull = true;
            marks.push(mark);
            // It has arrived all the same, or never.
            if random.one_in(2) {
                packs.push(pack);
            }
        } else {
            told.push(HourRange { stream: StreamId(stream.into()), from, to });
            packs.push(pack);
        }
    }
    let total = (packs.iter().chain(&marks)).map(|pack| pack.header.id).max().unwrap_or(0) + 1;
    let mut done = bytes_of(last_stream(&packs, &marks), 200, 200, total);
    (done.header.done, done.header.repull) = (true, true);
    done.header.set_hour_ranges(&told);
    packs.extend(marks);
    packs.push(done);
    packs
}

/// The stream that the done pack travels with.
fn last_stream(packs: &[Pack], marks: &[Pack]) -> u64 {
    packs.iter().chain(marks).last().map_or(1, |pack| crate::common::identity(pack).stream.0 as u64)
}

#[test]
fn an_hour_whose_tailer_lost_its_state_is_whole_only_when_all_is_there_that_was_sent_under_either_numbers() {
    let trial = logferry_trial::trial!();
    let (mut whole, mut others, mut twice, mut forgotten) = (0, 0, 0, 0);
    trial.seeds("hours of tailers that began to number anew", 0..1_000).for_each(|seed| {
        let mut world = World::new(seed);
        world.has_hook = false;
        let mut random = Random::new(seed);
        // Room for all, or for less than is known of an hour.
        if seed.is_multiple_of(2) {
            world.memory_max = 600 + (seed as usize * 7) % 1_000;
            world.finishing = Finishing::Elsewhere;
        }
        let (count, loses) = (1 + random.below(3), random.one_in(2));
        let numberings: Vec<Vec<Pack>> = (0..count)
            .map(|number| {
                let first = 1 + 4 * number;
                numbering(first..first + 1 + random.below(3), count == 1 && !loses, &mut random)
            })
            .collect();
        let mut sent: Vec<(u64, usize, &Pack)> = Vec::new();
        for (number, packs) in numberings.iter().enumerate() {
            let spread = if random.one_in(2) { 1_000 } else { 40 };
            let packs = packs.iter().enumerate();
            sent.extend(
                packs
                    .map(|(at, pack)| (300 * number as u64 + at as u64 + random.below(spread), number, pack)),
            );
        }
        sent.sort_by_key(|(at, number, pack)| (*at, *number, pack.header.id));
        let mut left: Vec<usize> = numberings.iter().map(Vec::len).collect();
        let (mut lines, mut whole_with) = (0, BTreeSet::new());
        for (_, number, pack) in sent {
            if loses && random.one_in(6) {
                continue;
            }
            world.commit(pack);
            lines += pack.header.lines;
            left[number] -= 1;
            let is_begun = |(number, left): &(usize, &usize)| **left < numberings[*number].len();
            if left.iter().enumerate().filter(is_begun).all(|(_, left)| *left == 0) {
                whole_with.insert(lines);
            }
            if random.one_in(5) {
                assert!(world.keep());
            }
            if world.memory_max < 2_000 && world.random.one_in(3) {
                world.now_ms += 2_000;
                forgotten += u64::from(world.keep() && world.keeper.is_some() && world.known() == 0);
                world.finish_some();
            }
            if random.one_in(12) {
                world.stop();
            }
        }
        world.settle();
        let mark = |lines: &u64| format!("access/host-0_2026112100_{lines}");
        let is_whole = left.iter().all(|left| *left == 0);
        if is_whole {
            assert_eq!(world.marks(), BTreeSet::from([mark(&lines)]));
            twice += u64::from(count > 1);
        } else {
            let possible: BTreeSet<String> = whole_with.iter().map(mark).collect();
            let marks = world.marks();
            assert!(marks.len() <= 1 && marks.is_subset(&possible), "{marks:?} {possible:?} {left:?}");
        }
        *(if is_whole { &mut whole } else { &mut others }) += 1;
    });
    trial.count("hours that became whole", whole);
    trial.count("hours that did not", others);
    trial.count("times that all was forgotten", forgotten);
    assert!(whole > 300 && others > 300 && twice > 150, "{whole} {others} {twice}");
}
