//! Promise 6, at least once: a complete hour is told to its hooks with what its mark says, again when it grows in whatever way, and nothing
//! of it is finished or forgotten before.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::{pack, parcel};
use jiff::tz::TimeZone;
use logferry_durable::Disk;
use logferry_durable::faulty::FaultyDisk;
use logferry_outputter::figures::Figures;
use logferry_outputter::file::headers;
use logferry_outputter::hours::books::Books;
use logferry_outputter::hours::calendar::Calendar;
use logferry_outputter::hours::fact::{Fact, HourKey};
use logferry_outputter::hours::finishable::Finishing;
use logferry_outputter::hours::hooks::{Extent, HookKind};
use logferry_outputter::hours::keeper::{Keeper, KeeperOptions, Places, lock};
use logferry_outputter::hours::mailbox::{Mail, News};
use logferry_outputter::hours::marks::Marks;
use logferry_outputter::hours::report::{self, Filter, HourState};
use logferry_outputter::hours::runner::{Ended, Job};
use logferry_outputter::hours::state::Change;
use logferry_pack::{Codec, HourRange, Pack, StreamId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Long over by the clock of the tests.
const HOUR: u32 = 2026111000;
const NOW_MS: i64 = 1_795_000_000_000;
const WAIT_MS: i64 = 600_000;

/// Lines of two bytes, from byte `from` to byte `to` of a stream.
fn lines(from: u64, to: u64, id: u64) -> Pack {
    let body = "x\n".repeat(((to - from) / 2) as usize);
    let mut pack = pack(StreamId(1), "web-1", HOUR, from, body.as_bytes(), Codec::None);
    pack.header.id = id;
    pack
}

fn done(at: u64, id: u64) -> Pack {
    let mut pack = lines(at, at, id);
    pack.header.done = true;
    pack
}

fn repulled(from: u64, to: u64) -> Pack {
    let mut pack = lines(from, to, 1);
    pack.header.repull = true;
    pack
}

fn key() -> HourKey {
    HourKey::of(&done(0, 1).header)
}

fn calendar() -> Calendar {
    Calendar::new(TimeZone::UTC)
}

/// A keeper over header files in memory.
struct Kept {
    disk: FaultyDisk,
    keeper: Keeper,
    figures: Arc<Figures>,
    mail: Mail,
    now_ms: i64,
    committed: u64,
}

impl Kept {
    fn new(hooks: &[HookKind]) -> Kept {
        let (disk, figures) = (FaultyDisk::new(1), Arc::new(Figures::default()));
        let keeper = Kept::open(&disk, hooks, 64 << 20, Finishing::Not, &figures);
        Kept { disk, keeper, figures, mail: Mail::default(), now_ms: NOW_MS, committed: 0 }
    }

    fn open(
        disk: &FaultyDisk,
        hooks: &[HookKind],
        memory_max: usize,
        finishing: Finishing,
        figures: &Arc<Figures>,
    ) -> Keeper {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let marks = Marks::new(shared.clone(), "/out/received".into(), None);
        let options = KeeperOptions {
            keep_ms: 4 * 24 * 3_600_000,
            memory_max,
            repull_wait_ms: WAIT_MS,
            hosts_asked: ["web-1".to_owned()].into(),
            hooks: hooks.to_vec(),
            hooks_at_once: 2,
            finishing,
        };
        let places = Places { disk: shared, headers: "/out/headers".into(), marks };
        Keeper::open(places, Path::new("/var"), calendar(), options, figures.clone()).unwrap()
    }

    fn commit(&mut self, pack: &Pack) {
        let path = parcel(pack).path;
        let full_path = Path::new("/out/headers").join(&path);
        let file = self.disk.open(&full_path).unwrap_or_else(|_| {
            self.disk.create_dir_all(full_path.parent().unwrap()).unwrap();
            self.disk.create(&full_path).unwrap()
        });
        let line = headers::pack_line(pack);
        file.append(&[&line]).unwrap();
        let (from, to) = (self.committed, self.committed + line.len() as u64);
        self.committed = to;
        let facts = Some(vec![Fact::new(&pack.header, self.now_ms)]);
        self.mail.news.push(News { path, from, to, facts, is_replaced: false });
    }

    fn step(&mut self) -> Vec<Job> {
        self.keeper.step(std::mem::take(&mut self.mail), self.now_ms)
    }

    /// Runs what is due, with this outcome. Returns the packs and lines that hooks were told.
    fn told(&mut self, outcome: Result<(), String>) -> Vec<(HookKind, u64, u64)> {
        let mut told = Vec::new();
        for job in self.step() {
            let Job::Hook(hook, hour) = job else { panic!("{job:?}") };
            assert_eq!((hour.state, hour.total), (HourState::Complete, Some(hour.packs)));
            assert!(hour.missing.is_empty() && hour.missing_bytes.is_empty());
            told.push((hook.kind, hour.packs, hour.lines));
            self.mail.ended.push(Ended::Hook(hook, outcome.clone()));
        }
        told
    }
}

#[test]
fn a_complete_hour_that_a_repull_makes_grow_is_told_again() {
    let mut kept = Kept::new(&[HookKind::Command, HookKind::Etl]);
    kept.commit(&lines(0, 20, 1));
    kept.commit(&done(20, 2));
    assert_eq!(kept.told(Ok(())), [(HookKind::Command, 2, 10), (HookKind::Etl, 2, 10)]);
    assert_eq!(kept.told(Ok(())), []);
    kept.commit(&repulled(40, 50));
    assert_eq!(kept.told(Ok(())), [(HookKind::Command, 2, 15), (HookKind::Etl, 2, 15)]);
    assert_eq!(kept.told(Ok(())), []);
}

#[test]
fn a_hook_that_failed_is_run_with_what_the_mark_says_when_lines_have_come_late() {
    let mut kept = Kept::new(&[HookKind::Command]);
    kept.commit(&lines(0, 20, 1));
    kept.commit(&done(20, 2));
    assert_eq!(kept.told(Err("exit status: 1".into())), [(HookKind::Command, 2, 10)]);
    kept.commit(&lines(20, 30, 3));
    assert_eq!(kept.told(Ok(())), []);
    let notices = kept.figures.notices();
    kept.now_ms += 1_500;
    assert_eq!(kept.told(Ok(())), [(HookKind::Command, 2, 10)], "the hour was complete with these");
    assert!(lock(&kept.keeper.books()).has_open(&key()), "it waits for its done pack");
    kept.commit(&done(30, 4));
    assert_eq!(kept.told(Ok(())), [(HookKind::Command, 4, 15)]);
    assert!(notices.is_empty() || notices[0].contains("exit status: 1"), "{notices:?}");
}

#[test]
fn a_hook_that_fails_is_named_with_its_hour_and_its_error_until_it_succeeds() {
    let mut kept = Kept::new(&[HookKind::Webhook]);
    kept.commit(&lines(0, 20, 1));
    kept.commit(&done(20, 2));
    for _ in 0..3 {
        kept.told(Err("connection refused".into()));
        kept.now_ms += 10_000;
        let looked = kept.step();
        looked.into_iter().for_each(|job| {
            let Job::Hook(hook, _) = job else { panic!("{job:?}") };
            kept.mail.ended.push(Ended::Hook(hook, Err("connection refused".into())));
        });
    }
    kept.now_ms += 2_000;
    kept.step();
    let notices = kept.figures.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    for part in ["webhook", "access/web-1_2026111000", "connection refused", "1 of 1"] {
        assert!(notices[0].contains(part), "{part}: {notices:?}");
    }
    assert_eq!(kept.figures.problems(), Vec::<String>::new(), "packs are taken as before");
    kept.now_ms += 400_000;
    assert_eq!(kept.told(Ok(())).len(), 1);
    kept.now_ms += 2_000;
    assert_eq!(kept.told(Ok(())), []);
    assert_eq!(kept.figures.notices(), Vec::<String>::new());
}

#[test]
fn an_hour_that_a_repull_filled_is_not_finished_before_it_is_told_and_is_shown_as_whole() {
    let mut books = Books::default();
    let facts = [lines(0, 20, 1), done(40, 3), repulled(20, 40)];
    let facts: Vec<Fact> = facts.iter().map(|pack| Fact::new(&pack.header, NOW_MS)).collect();
    books.count("access/f", &facts, 100);
    books.marked(&key(), Some(20));
    assert!(books.finishable(i64::MAX).is_empty() && books.has_open(&key()), "its hooks have not run");
    assert_eq!(books.expire(i64::MAX, 1), [], "nor is it forgotten");
    assert!(books.hour(&key()).is_some());
    for kind in HookKind::ALL {
        assert!(books.has_open(&key()), "{kind:?} was not told");
        books.apply(&Change::Hooked { key: key(), kind, extent: Extent { packs: 3, lines: 20 } });
    }
    assert!(!books.has_open(&key()));
    assert_eq!(books.finishable(i64::MAX).len(), 1);
    let hour = report::report(&books, &calendar(), &Filter::default(), NOW_MS).hours.remove(0);
    assert_eq!((hour.state, hour.packs, hour.total), (HourState::Complete, 3, Some(3)));
    assert!(hour.missing.is_empty() && hour.missing_bytes.is_empty());
}

#[test]
fn an_hour_that_was_replaced_is_told_again_although_it_has_as_many_lines() {
    let mut books = Books::default();
    let facts = [lines(0, 20, 1), done(20, 2)].map(|pack| Fact::new(&pack.header, NOW_MS));
    books.count("access/f", &facts, 100);
    books.marked(&key(), Some(10));
    for kind in HookKind::ALL {
        books.apply(&Change::Hooked { key: key(), kind, extent: Extent { packs: 2, lines: 10 } });
    }
    assert!(!books.has_open(&key()));
    books.rebuilt("access/f");
    books.count("access/f", &facts, 200);
    assert!(books.has_open(&key()));
}

#[test]
fn an_hour_that_is_over_without_a_done_pack_is_asked_for_when_it_was_quiet() {
    let mut kept = Kept::new(&[]);
    kept.commit(&lines(0, 20, 1));
    let mut going_on = lines(0, 20, 1);
    going_on.header.hour = 2026112000.try_into().unwrap();
    kept.step();
    let facts = Some(vec![Fact::new(&going_on.header, NOW_MS)]);
    let path = parcel(&going_on).path;
    kept.mail.news.push(News { path, from: 0, to: 9, facts, is_replaced: false });
    kept.now_ms += WAIT_MS - 1;
    assert_eq!(kept.step(), []);
    kept.now_ms += 2_000;
    let jobs = kept.step();
    let [Job::Repull(wanted)] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((&wanted.key, &wanted.ids[..], wanted.asked), (&key(), &[][..], 0));
    kept.mail.ended.push(Ended::Repull(wanted.clone(), Ok(())));
    // It brings the lost tail and the done pack, which told nobody that they were missing.
    kept.commit(&repulled(20, 30));
    kept.commit(&done(30, 3));
    kept.step();
    let books = kept.keeper.books();
    assert_eq!(lock(&books).hour(&key()).unwrap().whole_lines(), Some(15));
    kept.now_ms += 4 * WAIT_MS;
    assert_eq!(kept.step(), [], "an hour that is not over goes on");
}

#[test]
fn lines_that_came_late_without_a_done_pack_are_asked_for_when_it_was_quiet() {
    let mut kept = Kept::new(&[]);
    kept.commit(&lines(0, 20, 1));
    kept.commit(&done(20, 2));
    kept.step();
    kept.commit(&lines(20, 30, 3));
    kept.now_ms += WAIT_MS - 1;
    assert_eq!(kept.step(), []);
    kept.now_ms += WAIT_MS;
    let jobs = kept.step();
    let [Job::Repull(wanted)] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((&wanted.key, &wanted.ids[..], wanted.is_late), (&key(), &[][..], true));
    kept.mail.ended.push(Ended::Repull(wanted.clone(), Ok(())));
    kept.commit(&repulled(30, 40));
    kept.commit(&done(40, 5));
    kept.step();
    let books = kept.keeper.books();
    assert_eq!(lock(&books).hour(&key()).unwrap().whole_lines(), Some(20));
}

/// The marks of the hour.
fn marks(kept: &Kept) -> Vec<String> {
    let below = kept.disk.files().into_iter().filter_map(|path| {
        let name = path.strip_prefix("/out/received/access").ok()?;
        Some(name.display().to_string())
    });
    below.collect()
}

#[test]
fn a_mark_tells_of_no_hour_whose_bytes_are_missing_whatever_the_books_had_no_room_for() {
    const STREAMS: u64 = 40;
    const TIGHT: usize = 2_000;
    let of_stream = |stream: u64, from: u64, to: u64, id: u64| {
        let body = "x\n".repeat(((to - from) / 2) as usize);
        let mut pack = pack(StreamId(stream.into()), "web-1", HOUR, from, body.as_bytes(), Codec::None);
        pack.header.id = id;
        pack
    };
    let telling = |mut pack: Pack, told: &[(u64, u64)]| {
        pack.header.done = true;
        let range =
            |(stream, to): &(u64, u64)| HourRange { stream: StreamId((*stream).into()), from: 0, to: *to };
        pack.header.set_hour_ranges(&told.iter().map(range).collect::<Vec<_>>());
        pack
    };
    for (memory_max, is_restarted, is_told) in
        [(64 << 20, false, true), (TIGHT, false, true), (TIGHT, true, true), (TIGHT, false, false)]
    {
        let mut kept = Kept::new(&[]);
        let open = |kept: &Kept| Kept::open(&kept.disk, &[], memory_max, Finishing::Elsewhere, &kept.figures);
        kept.keeper = open(&kept);
        let catch_up = |kept: &mut Kept, path: &str| {
            kept.keeper.catch_up(BTreeMap::from([(path.to_owned(), kept.committed)]), kept.now_ms);
        };
        let path = parcel(&of_stream(1, 0, 2, 1)).path;
        catch_up(&mut kept, &path);
        let all: Vec<(u64, u64)> = (1..=STREAMS).map(|stream| (stream, 2)).collect();
        (1..=STREAMS).for_each(|stream| kept.commit(&of_stream(stream, 0, 2, stream)));
        kept.commit(&telling(of_stream(STREAMS, 2, 2, STREAMS + 1), &all));
        let step = |kept: &mut Kept| {
            kept.now_ms += 60_000;
            assert_eq!(kept.step(), []);
            kept.now_ms += 60_000;
            assert_eq!(kept.step(), []);
        };
        step(&mut kept);
        assert_eq!(marks(&kept), [format!("web-1_{HOUR}_40")]);
        assert_eq!(lock(&kept.keeper.books()).memory_bytes() < TIGHT, memory_max == TIGHT);
        if is_restarted {
            kept.keeper.save(kept.now_ms);
            kept.keeper = open(&kept);
            catch_up(&mut kept, &path);
            step(&mut kept);
        }
        // Its tailer lost its state and numbers from 1 again; the second pack is lost.
        kept.commit(&of_stream(99, 0, 2, 1));
        kept.commit(&telling(of_stream(99, 16, 16, 3), &[(99, 16)]));
        if !is_told {
            kept.mail.news.iter_mut().for_each(|news| news.facts = None);
        }
        step(&mut kept);
        assert_eq!(marks(&kept), [""; 0], "{memory_max} {is_restarted}");
        kept.commit(&of_stream(99, 2, 16, 2));
        step(&mut kept);
        assert_eq!(marks(&kept), [format!("web-1_{HOUR}_48")]);
    }
}
