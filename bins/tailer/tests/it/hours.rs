//! Hours have books: each is closed by a done pack whose number is the number of its packs.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::Start;
use logferry_tailer::hour::{HourClock, zone};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn follow(rig: &mut Rig, pattern: &str) {
    rig.config.source[0].path = rig.at(pattern).to_str().expect("plain").into();
}

/// Numbers of the packs with lines in the order they came; those of the packs without, and whether they are done packs.
type Book = (Vec<u64>, Vec<(u64, bool)>);

fn books(tier: &Tier) -> BTreeMap<String, Book> {
    let state = tier.lock();
    let mut books: BTreeMap<String, Book> = BTreeMap::new();
    for seen in &state.seen {
        books.entry(seen.hour.clone()).or_default().0.push(seen.id);
    }
    for mark in &state.marks {
        books.entry(mark.hour.clone()).or_default().1.push((mark.id, mark.done));
    }
    books
}

fn hours_done(tier: &Tier) -> Vec<String> {
    let books = books(tier);
    books.into_iter().filter(|(_, (_, marks))| !marks.is_empty()).map(|(hour, _)| hour).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hour_of_files_ends_with_a_done_pack_and_so_does_one_without_a_file() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y-%m-%d-%H>");
    for hour in [16, 18] {
        append(&rig.at(&format!("app.log.2016-12-19-{hour}")), lines(hour * 1_000, 300));
    }
    let tailer = rig.start();
    wait_until("three hours are done", || hours_done(&tier).len() == 3);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    let books = books(&tier);
    for hour in ["2016121916", "2016121918"] {
        let (packs, done) = &books[hour];
        let count = packs.len() as u64;
        assert!(count > 1 && packs.iter().copied().eq(1..=count), "{hour}: {packs:?}");
        assert_eq!(done, &[(count + 1, true)], "{hour}");
    }
    assert_eq!(books["2016121917"], (vec![], vec![(1, true)]));
    assert_eq!(books.len(), 3, "ten years without files are passed over: {books:?}");
    tailer.stop().await.expect("a clean stop");
    // Nothing new: nothing is said again.
    let marks = tier.lock().marks.len();
    let tailer = rig.start();
    append(&rig.at("app.log.2016-12-19-19"), "the next\n");
    wait_until("the next hour", || hours_done(&tier).contains(&"2016121919".to_owned()));
    assert_eq!(tier.lock().marks.len(), marks + 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_after_the_done_pack_get_the_next_numbers_and_a_new_done_pack() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    append(&rig.at("app.log.2016121916"), "one\n");
    let mut tailer = rig.start();
    wait_until("done", || books(&tier).get("2016121916") == Some(&(vec![1], vec![(2, true)])));
    append(&rig.at("app.log.2016121916"), "late\n");
    wait_until("done again", || {
        books(&tier).get("2016121916") == Some(&(vec![1, 3], vec![(2, true), (4, true)]))
    });
    tailer.stop().await.expect("a clean stop");
    append(&rig.at("app.log.2016121916"), "later still\n");
    tailer = rig.start();
    let all = (vec![1, 3, 5], vec![(2, true), (4, true), (6, true)]);
    wait_until("done after a restart", || books(&tier).get("2016121916") == Some(&all));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_is_not_done_before_its_packs_are_acknowledged() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    tier.behave(Manner::Silent);
    append(&rig.at("app.log.2016121916"), "one\n");
    let tailer = rig.start();
    wait_until("sent", || tier.lock().seen.len() == 1);
    let (sent, quiet) = (Instant::now(), rig.config.source[0].rotate_wait.0 * 2);
    wait_until("the file was quiet for long enough", || sent.elapsed() > quiet);
    assert!(tier.lock().marks.is_empty());
    tier.behave(Manner::Store);
    wait_until("done", || hours_done(&tier) == ["2016121916"]);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_done_pack_without_an_answer_is_sent_again_after_a_restart() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    rig.config.source[0].rotate_wait = Interval::ms(500);
    append(&rig.at("app.log.2016121916"), "one\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    wait_until("done", || tier.lock().marks.len() == 1);
    tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    let tailer = rig.start();
    wait_until("done again", || tier.lock().marks.len() == 2);
    tier.behave(Manner::Store);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    let marks = tier.lock().marks.clone();
    assert_eq!(marks[0], marks[1]);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_of_a_source_share_the_numbers_of_their_hour() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "*.log.<%Y%m%d%H>");
    append(&rig.at("a.log.2016121916"), lines(0, 200));
    append(&rig.at("b.log.2016121916"), lines(1_000, 200));
    let tailer = rig.start();
    wait_until("done", || !hours_done(&tier).is_empty());
    let (mut packs, done) = books(&tier).remove("2016121916").expect("its books");
    packs.sort_unstable();
    assert!(tier.contents().len() == 2 && packs.iter().copied().eq(1..=packs.len() as u64), "{packs:?}");
    assert_eq!(done, [(packs.len() as u64 + 1, true)]);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unfinished_last_line_of_an_hour_is_shipped_before_the_hour_is_done() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    append(&rig.at("app.log.2016121915"), "no newline");
    append(&rig.at("app.log.2016121916"), "line\nno newline");
    let tailer = rig.start();
    wait_until("done", || hours_done(&tier).len() == 2);
    let mut contents = tier.contents();
    contents.sort();
    assert_eq!(contents, [b"line\nno newline\n".to_vec(), b"no newline\n".to_vec()]);
    let books = books(&tier);
    assert_eq!(books["2016121915"], (vec![1], vec![(2, true)]));
    assert_eq!(books["2016121916"], (vec![1, 2], vec![(3, true)]));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_before_a_start_at_the_end_are_not_closed_until_lines_come() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    rig.config.source[0].start = Start::End;
    append(&rig.at("app.log.2016121915"), "old\n");
    append(&rig.at("app.log.2016121916"), "old\n");
    let tailer = rig.start();
    wait_until("both files are open", || figure(&tailer, "files") == 2);
    append(&rig.at("app.log.2016121916"), "new\n");
    wait_until("done", || books(&tier).get("2016121916") == Some(&(vec![1], vec![(2, true)])));
    assert_eq!(hours_done(&tier), ["2016121916"]);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_of_the_clock_end_by_the_clock_with_lines_or_without() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let length = Duration::from_millis(400);
    rig.config.node.time_zone = "UTC".into();
    rig.config.hours.length = Interval(length);
    rig.config.pack.max_bytes = ByteSize::kib(4);
    let clock = HourClock::new(zone("UTC").expect("known"), length);
    append(&rig.log(), lines(0, 300));
    let tailer = rig.start();
    wait_until("four hours are done", || hours_done(&tier).len() >= 4);
    append(&rig.log(), "a line of a later hour\n");
    let later = clock.hour_at(jiff::Timestamp::now()).expect("an hour").to_string();
    wait_until("its hour is done", || hours_done(&tier).iter().any(|hour| *hour > later));
    let books = books(&tier);
    let done: Vec<&String> = books.keys().collect();
    for (hour, next) in done.iter().zip(&done[1..]) {
        let after = clock.after(hour.parse().expect("an hour")).map(|hour| hour.to_string());
        assert_eq!(after.as_ref(), Some(*next), "no hour is left out");
    }
    for (hour, (packs, marks)) in books.iter().take(books.len() - 1) {
        let count = packs.len() as u64;
        assert!(packs.iter().copied().eq(1..=count), "{hour}: {packs:?}");
        assert_eq!(marks, &[(count + 1, true)], "{hour}");
    }
    // An hour may end while the first lines are read.
    let with_lines = books.values().filter(|(packs, _)| !packs.is_empty()).count();
    assert!((2..books.len()).contains(&with_lines), "{books:?}");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_roots_refuse_keeps_no_hour_open() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    rig.config.source[0].roots = vec![rig.at("").to_str().expect("plain").into()];
    let outside = rig.folder.path().join("outside");
    append(&outside, "nobody's business\n");
    std::os::unix::fs::symlink(&outside, rig.at("app.log.2016121915")).expect("linked");
    append(&rig.at("app.log.2016121916"), "one\n");
    let tailer = rig.start();
    wait_until("done", || hours_done(&tier) == ["2016121916"]);
    assert_eq!(figure(&tailer, "unreadable"), 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hour_is_done_whose_folder_is_away_and_all_are_when_it_is_back() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    let length = Duration::from_millis(200);
    rig.config.node.time_zone = "UTC".into();
    rig.config.hours.length = Interval(length);
    let clock = HourClock::new(zone("UTC").expect("known"), length);
    let present = || clock.hour_at(jiff::Timestamp::now()).expect("an hour").to_string();
    append(&rig.log(), "one\n");
    let tailer = rig.start();
    wait_until("hours are done", || hours_done(&tier).len() >= 2);
    let away = rig.folder.path().join("away");
    std::fs::rename(rig.at(""), &away).expect("renamed");
    wait_until("it is told", || figure(&tailer, "unreadable") == 1);
    let first_hidden = present();
    let since = Instant::now();
    wait_until("hours go by", || since.elapsed() > 4 * length);
    let done = hours_done(&tier);
    assert!(done.last() < Some(&first_hidden), "{first_hidden} is not done: {done:?}");
    std::fs::rename(&away, rig.at("")).expect("renamed");
    wait_until("hours are done again", || hours_done(&tier).last() > Some(&first_hidden));
    wait_until("it is well", || figure(&tailer, "unreadable") == 0);
    assert!(hours_done(&tier).contains(&first_hidden));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_another_hour_is_no_copy_though_all_that_was_read_is_their_common_first_line() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    let (header, first) = ("# time level message\n", rig.at("app.log.2016121916"));
    append(&first, header);
    let tailer = rig.start();
    tier.wait_stored(header.as_bytes());
    tailer.stop().await.expect("a clean stop");
    std::fs::remove_file(&first).expect("removed");
    let next = [header.as_bytes(), &lines(0, 300)].concat();
    append(&rig.at("app.log.2016121918"), &next);
    let tailer = rig.start();
    wait_until("the next hour is done", || hours_done(&tier).contains(&"2016121918".to_owned()));
    assert_eq!(tier.contents().iter().map(Vec::len).max(), Some(next.len()));
    assert_eq!(tier.contents().len(), 2, "each file is a stream");
    assert_eq!(books(&tier)["2016121918"].0.first(), Some(&1));
    tailer.stop().await.expect("a clean stop");
}
