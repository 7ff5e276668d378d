//! Marks beside the lines that they tell of: the file output's core with the keeper of the books behind it, on one disk that loses what was
//! not synced. Packs with lines come twice, in any order, late or never; both are killed and lose power; the books forget hours that go on
//! later. A mark is there if and only if the hour's log file has every line of its packs, once, and it tells how many.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::outputter::{Answers, Outputter, VAR_DIR, Waiter};
use crate::common::{folders, pack, parcel};
use jiff::tz::TimeZone;
use logferry_durable::Disk;
use logferry_durable::faulty::{Faults, FaultyDisk, Random};
use logferry_link::{Answer, HopStamp};
use logferry_outputter::file::headers::{self, Line};
use logferry_outputter::file::retire::Request;
use logferry_outputter::file::store::Folders;
use logferry_outputter::file::walk::files_below;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::fact::HourKey;
use logferry_outputter::hours::finishable::Finishing;
use logferry_outputter::hours::keeper::{Keeper, KeeperOptions, Places, lock};
use logferry_outputter::hours::mailbox::{Mailbox, Teller};
use logferry_outputter::hours::marks::Marks;
use logferry_pack::{Codec, Decompressor, Limits, Pack, StreamId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const RECEIVED: &str = "/out/received";
const HOURS: u64 = 40;
/// Ten thousand hours in all.
const LIVES: u64 = 250;
/// Shorter than many packs are late.
const KEEP_MS: i64 = 1_500;
const STARTS_MAX: usize = 400;

/// What is sent of an hour.
#[derive(Default)]
struct Sent {
    /// By the number of a pack, its lines.
    lines: BTreeMap<u64, Vec<String>>,
    done: BTreeSet<u64>,
}

/// What the output has of an hour.
#[derive(Default)]
struct Found {
    ids: BTreeSet<u64>,
    lines: u64,
}

struct Running {
    outputter: Outputter,
    keeper: Keeper,
    mailbox: Arc<Mailbox>,
}

struct World {
    disk: FaultyDisk,
    folders: Folders,
    random: Random,
    packs: Vec<Pack>,
    sent: BTreeMap<String, Sent>,
    to_come: VecDeque<usize>,
    unanswered: BTreeSet<usize>,
    acknowledged: BTreeSet<usize>,
    answers: Answers,
    running: Option<Running>,
    now_ms: i64,
    memory_max: usize,
    finishing: Finishing,
    /// Hours that the books knew, and those that they have forgotten since.
    known: BTreeSet<HourKey>,
    forgotten: BTreeSet<HourKey>,
    heard_again: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let mut world = World {
            disk: FaultyDisk::new(seed),
            folders: folders(),
            packs: Vec::new(),
            sent: BTreeMap::new(),
            to_come: VecDeque::new(),
            unanswered: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            answers: Answers::default(),
            running: None,
            // After the days of all packs.
            now_ms: 1_795_400_000_000,
            // Room for all, or for some.
            memory_max: if seed.is_multiple_of(2) { 64 << 20 } else { 6_000 + 40 * seed as usize },
            finishing: if seed.is_multiple_of(5) { Finishing::Not } else { Finishing::Elsewhere },
            known: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            heard_again: 0,
            random: Random::new(!seed),
        };
        let mut arrivals = Vec::new();
        for number in 0..HOURS {
            for pack in hour(number, &mut random) {
                let late = if random.one_in(20) { random.below(150) } else { random.below(6) };
                let at = (number * 5 + pack.header.id + late, random.next_u64(), world.packs.len());
                // Some are lost for good.
                if seed.is_multiple_of(3) || !random.one_in(40) {
                    arrivals.push(at);
                }
                world.expect(&pack);
                world.packs.push(pack);
            }
        }
        arrivals.sort_unstable();
        world.to_come = arrivals.into_iter().map(|(.., index)| index).collect();
        world
    }

    fn expect(&mut self, pack: &Pack) {
        let sent = self.sent.entry(parcel(pack).path).or_default();
        sent.lines.insert(pack.header.id, lines_of(pack));
        if pack.header.done {
            sent.done.insert(pack.header.id);
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let mut outputter = Outputter::start(disk.clone(), &self.folders)?;
        let mailbox = Arc::new(Mailbox::default());
        outputter.committer.tell_hours(Teller::new(mailbox.clone()));
        let (answer, answered) = crossbeam_channel::bounded(1);
        outputter.committer.answer(Request::Files(answer));
        let committed = answered.recv().unwrap().into_iter().map(|(path, lengths)| (path, lengths.headers));
        let options = KeeperOptions {
            keep_ms: KEEP_MS,
            memory_max: self.memory_max,
            repull_wait_ms: 600_000,
            hosts_asked: BTreeSet::new(),
            hooks: Vec::new(),
            hooks_at_once: 1,
            finishing: self.finishing,
        };
        let marks = Marks::new(disk.clone(), RECEIVED.into(), None);
        let places = Places { disk, headers: self.folders.headers.clone(), marks };
        let calendar = Calendar::new(TimeZone::UTC);
        let mut keeper = Keeper::open(places, Path::new(VAR_DIR), calendar, options, Arc::default())?;
        keeper.catch_up(committed, self.now_ms);
        self.running = Some(Running { outputter, keeper, mailbox });
        Ok(())
    }

    /// Packs come, and what is ready is committed.
    fn take_in(&mut self) -> io::Result<()> {
        let Some(Running { outputter, .. }) = &mut self.running else { return Ok(()) };
        let mut coming: Vec<usize> = Vec::new();
        let count = self.random.below(4) as usize;
        coming.extend(self.to_come.drain(..count.min(self.to_come.len())));
        if self.random.one_in(4) {
            coming.extend(&self.unanswered);
        }
        if self.random.one_in(3) {
            let known: Vec<usize> = self.acknowledged.iter().copied().collect();
            coming.extend(known.get(self.random.below(known.len() as u64) as usize));
        }
        let peer = IpAddr::from([127, 0, 0, 1]);
        let mut hops = HopStamp::new(peer, TimeZone::UTC);
        let now = jiff::Timestamp::from_millisecond(self.now_ms).unwrap();
        for index in coming {
            let mut pack = self.packs[index].clone();
            pack.push_hop(&hops.hop((peer, 1).into(), now, Duration::ZERO));
            self.unanswered.insert(index);
            let waiter = Waiter { stream: 0, index, answers: self.answers.clone() };
            outputter.offer(parcel(&pack), waiter);
        }
        if self.random.one_in(3) || self.to_come.is_empty() {
            outputter.pass_over_gaps();
        }
        outputter.received_ms = Some(self.now_ms);
        // In the end there is time for all that waits.
        let count = if self.to_come.is_empty() { usize::MAX } else { 1 + self.random.below(8) as usize };
        let committed = outputter.commit(count, |_| ());
        self.take_answers();
        committed
    }

    fn take_answers(&mut self) {
        for (_, index, answer) in std::mem::take(&mut *self.answers.lock().unwrap()) {
            match answer {
                Answer::Ok | Answer::Duplicate => {
                    self.unanswered.remove(&index);
                    self.acknowledged.insert(index);
                }
                Answer::Busy { .. } => {}
                other => panic!("pack {index} was answered {other:?}"),
            }
        }
    }

    /// The books hear of it.
    fn keep(&mut self) {
        let Some(Running { keeper, mailbox, .. }) = &mut self.running else { return };
        assert_eq!(keeper.step(mailbox.wait(Duration::ZERO), self.now_ms), []);
        let due = lock(&keeper.books()).finishable(self.now_ms);
        for (path, (counted, _)) in due {
            if self.random.one_in(2) {
                lock(&keeper.books()).finished(&path, counted);
            }
        }
        let known: BTreeSet<HourKey> = lock(&keeper.books()).hours().map(|(key, _)| key.clone()).collect();
        self.heard_again += known.intersection(&self.forgotten).count() as u64;
        self.forgotten.extend(self.known.difference(&known).cloned());
        self.forgotten.retain(|key| !known.contains(key));
        self.known = known;
    }

    /// From one start to the end or to the next power cut.
    fn live(&mut self) -> io::Result<()> {
        self.start()?;
        self.disk.list(Path::new(VAR_DIR))?;
        self.assert_marks_are_true();
        while !(self.to_come.is_empty() && self.unanswered.is_empty()) {
            self.now_ms += 60;
            self.take_in()?;
            if self.random.one_in(2) {
                self.keep();
            }
            self.disk.list(Path::new(VAR_DIR))?;
            if self.random.one_in(8) {
                self.assert_marks_are_true();
            }
            if self.random.one_in(60) {
                return Err(io::Error::other("killed"));
            }
        }
        Ok(())
    }

    /// The power is cut, or both are killed.
    fn stop(&mut self) {
        self.take_answers();
        match self.random.below(3) {
            0 => self.disk.crash(),
            number => {
                self.disk.set_faults(Faults::default());
                if let Some(running) = self.running.as_mut().filter(|_| number == 1) {
                    running.keeper.save(self.now_ms);
                }
            }
        }
        self.running = None;
    }

    /// Until the keeper has done all that it may not do at once.
    fn settle(&mut self) {
        for _ in 0..6 {
            self.now_ms += 1_000;
            self.keep();
        }
    }

    /// What the output has of each hour: what header files tell, which is exactly what the log files have.
    fn found(&self) -> BTreeMap<String, Found> {
        let mut all = BTreeMap::new();
        for path in files_below(&self.disk, &self.folders.headers, "").unwrap().files {
            let headers = self.disk.read(&self.folders.headers.join(&path)).unwrap();
            let data = self.disk.read(&self.folders.data.join(&path)).unwrap_or_default();
            let mut found = Found::default();
            for line in headers.split(|byte| *byte == b'\n') {
                if let Some(Line::Pack(header)) = headers::parse_line(line) {
                    found.ids.insert(header.id);
                }
            }
            let sent = &self.sent[&path];
            let mut expected: Vec<&str> =
                found.ids.iter().flat_map(|id| &sent.lines[id]).map(String::as_str).collect();
            let mut lines: Vec<&str> = std::str::from_utf8(&data).unwrap().lines().collect();
            expected.sort_unstable();
            lines.sort_unstable();
            assert_eq!(lines, expected, "{path}: each line of its packs once");
            found.lines = lines.len() as u64;
            all.insert(path, found);
        }
        all
    }

    /// By hour, and with the days by themselves.
    fn marks(&self) -> (BTreeMap<String, Vec<u64>>, BTreeSet<String>) {
        let (mut hours, mut days) = (BTreeMap::<String, Vec<u64>>::new(), BTreeSet::new());
        for path in self.disk.files() {
            let Ok(name) = path.strip_prefix(RECEIVED) else { continue };
            let name = name.to_str().unwrap();
            match name.rsplit_once('_') {
                Some((hour, lines)) if self.sent.contains_key(hour) => {
                    hours.entry(hour.to_owned()).or_default().push(lines.parse().unwrap());
                }
                _ => drop(days.insert(name.to_owned())),
            }
        }
        (hours, days)
    }

    /// At any time: all lines that a mark tells of are there.
    fn assert_marks_are_true(&self) {
        let found = self.found();
        for (hour, told) in self.marks().0 {
            let (sent, found) = (&self.sent[&hour], found.get(&hour).unwrap_or_else(|| panic!("{hour}")));
            for lines in told {
                let is_true = sent.true_marks(&found.ids).contains(&lines);
                assert!(is_true, "{hour} has the packs {:?} and a mark of {lines} lines", found.ids);
            }
        }
    }

    /// When nothing is on its way: marks are those of whole hours and of such as were whole before lines came late.
    fn assert_marks_are_complete(&self, tally: &mut Tally) {
        let (marks, days) = self.marks();
        for (hour, found) in self.found() {
            let (sent, told) = (&self.sent[&hour], marks.get(&hour).map_or(&[][..], Vec::as_slice));
            match sent.standing(&found.ids) {
                Standing::Whole => {
                    tally.whole += 1;
                    assert_eq!(told, [found.lines], "{hour} is whole");
                }
                Standing::Late => {
                    assert!(told.len() <= 1, "{hour}: {told:?}");
                    let possible = sent.true_marks(&found.ids);
                    assert!(
                        told.iter().all(|lines| possible.contains(lines)),
                        "{hour}: {told:?} {possible:?}"
                    );
                }
                Standing::Missing => {
                    tally.missing += 1;
                    assert_eq!(told, [0; 0], "{hour} has the packs {:?} of {:?}", found.ids, sent.done);
                }
            }
        }
        let found = self.found();
        let is_whole = |hour: &&str| {
            found
                .get(*hour)
                .is_some_and(|found| matches!(self.sent[*hour].standing(&found.ids), Standing::Whole))
        };
        for (day, hours) in self.days() {
            let (is_whole, is_marked) =
                (hours.iter().all(is_whole), hours.iter().all(|hour| marks.contains_key(*hour)));
            assert!(days.contains(&day) || !is_whole, "{day} is whole");
            assert!(is_marked || !days.contains(&day), "{day} has hours without marks");
            tally.days += u64::from(is_whole);
        }
    }

    /// Days of 24 hours.
    fn days(&self) -> BTreeMap<String, Vec<&str>> {
        let mut days: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for hour in self.sent.keys() {
            days.entry(hour[..hour.len() - 2].to_owned()).or_default().push(hour);
        }
        days.retain(|_, hours| hours.len() == 24);
        days
    }

    fn assert_acknowledged_is_there(&self) {
        let found = self.found();
        for index in &self.acknowledged {
            let pack = &self.packs[*index];
            let path = parcel(pack).path;
            let is_there = found.get(&path).is_some_and(|found| found.ids.contains(&pack.header.id));
            assert!(is_there, "{path}: pack {} was acknowledged and is lost", pack.header.id);
        }
    }
}

enum Standing {
    Whole,
    Late,
    Missing,
}

#[derive(Default)]
struct Tally {
    whole: u64,
    missing: u64,
    days: u64,
}

impl Sent {
    /// The lines of the packs up to each done pack that is there with all before it.
    fn true_marks(&self, ids: &BTreeSet<u64>) -> BTreeSet<u64> {
        let is_true = |done: &&u64| ids.range(..=**done).copied().eq(1..=**done);
        let lines_to = |done: &u64| self.lines.range(..=done).map(|(_, lines)| lines.len() as u64).sum();
        self.done.iter().filter(is_true).map(lines_to).collect()
    }

    fn standing(&self, ids: &BTreeSet<u64>) -> Standing {
        let total = self.done.intersection(ids).last().copied().unwrap_or(0);
        let has_no_hole = ids.iter().copied().eq(1..=ids.len() as u64);
        match ids.len() as u64 {
            count if has_no_hole && total > 0 && count == total => Standing::Whole,
            count if has_no_hole && total > 0 && count > total => Standing::Late,
            _ => Standing::Missing,
        }
    }
}

/// The packs of an hour in their order: some with lines, closed by a done pack, and perhaps late lines, closed again.
fn hour(number: u64, random: &mut Random) -> Vec<Pack> {
    let (host, hour) = (number / 24, 2026112100 + (number % 24) as u32);
    let mut packs: Vec<Pack> = Vec::new();
    let mut offset = 0;
    for _ in 0..1 + random.below(2) * random.below(3) {
        let with_lines = random.below(4);
        for is_done in (0..with_lines).map(|_| false).chain([true]) {
            let id = packs.len() as u64 + 1;
            let lines = if is_done && random.one_in(2) { 0 } else { 1 + random.below(20) };
            let body: String = (0..lines).map(|line| format!("{number} {id} {line}\n")).collect();
            let codec = if random.one_in(2) { Codec::None } else { Codec::Zlib };
            let (stream, host) = (StreamId(u128::from(number)), format!("host-{host}"));
            let mut pack = pack(stream, &host, hour, offset, body.as_bytes(), codec);
            offset += body.len() as u64;
            (pack.header.id, pack.header.done) = (id, is_done);
            // So that nobody takes it for one that was there before.
            pack.header.repull = body.is_empty();
            packs.push(pack);
        }
    }
    packs
}

fn lines_of(pack: &Pack) -> Vec<String> {
    let mut body = Vec::new();
    Decompressor::new().decompress(pack, &Limits::default(), &mut body).unwrap();
    String::from_utf8(body).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_mark_is_there_if_and_only_if_all_lines_of_the_hour_are_in_its_log_file_once() {
    let trial = logferry_trial::trial!();
    let (mut tally, mut starts, mut heard_again) = (Tally::default(), 0, 0);
    trial.seeds("lives of an output and its books, of 40 hours", 0..LIVES).for_each(|seed| {
        let mut world = World::new(seed);
        for start in 0.. {
            assert!(start < STARTS_MAX, "it gets through");
            let die_after = world.random.one_in(3).then(|| 1 + world.random.below(400));
            let faults = Faults { die_after, ..Faults::default() };
            world.disk.set_faults(if start < 30 { faults } else { Faults::default() });
            starts += 1;
            if world.live().is_ok() {
                break;
            }
            world.stop();
        }
        world.disk.set_faults(Faults::default());
        world.settle();
        world.assert_acknowledged_is_there();
        world.assert_marks_are_complete(&mut tally);
        // Also of hours that the books have forgotten, and after a power cut.
        world.now_ms += KEEP_MS;
        world.settle();
        world.disk.crash();
        world.running = None;
        world.start().unwrap();
        world.settle();
        world.assert_marks_are_complete(&mut Tally::default());
        heard_again += world.heard_again;
    });
    trial.count("hours that became whole", tally.whole);
    trial.count("hours that did not", tally.missing);
    trial.count("days that became whole", tally.days);
    trial.count("starts", starts);
    trial.count("hours that were forgotten and heard of again", heard_again);
    assert!(tally.whole > 5_000 && tally.missing > 200 && tally.days > 0 && heard_again > 500);
}
