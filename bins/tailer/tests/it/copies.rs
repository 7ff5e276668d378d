//! Copies of files that are read: known by what they may be named after, however many files begin alike and however late the cut comes.

use crate::common::{Manner, Rig, Tier, append, figure, lines, sorted, wait_until};
use logferry_node::config::{ByteSize, Interval};
use std::fs::File;
use std::path::Path;

fn cut(path: &Path) {
    File::options().write(true).open(path).expect("opened").set_len(0).expect("cut");
}

/// Waits until all files were met, and have nothing to ship.
#[track_caller]
fn wait_read(tailer: &logferry_tailer::tailer::Tailer, files: u64) {
    wait_until("all is read", || {
        (figure(tailer, "files"), figure(tailer, "lag_bytes"), figure(tailer, "caught_up")) == (files, 0, 1)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_found_though_many_files_begin_with_the_same_line() {
    const FILES: usize = 60;
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log*");
    // Long enough for a copy to be looked at before its file is cut.
    rig.config.source[0].rotate_wait = Interval::secs(60);
    let name = |number: usize| format!("app-{number:02}.log");
    let content = |number: usize| [&b"#Fields: date time\n"[..], &lines(number * 100, 3)].concat();
    let mut expected: Vec<Vec<u8>> = (0..FILES).map(content).collect();
    for number in 0..FILES {
        append(&rig.at(&name(number)), content(number));
    }
    let tailer = rig.start();
    wait_read(&tailer, FILES as u64);
    for (round, number) in [0, 30, 59].into_iter().enumerate() {
        let path = rig.at(&name(number));
        std::fs::copy(&path, rig.at(&format!("{}.1", name(number)))).expect("copied");
        let met = FILES + 2 * round + 1;
        wait_until("the copy is met", || figure(&tailer, "files") == met as u64);
        // Whatever comes after it has its turn after it.
        let turn = format!("turn {round}\n").into_bytes();
        append(&rig.at(&format!("turn-{round}.log")), &turn);
        wait_until("it had its turn", || tier.contents().contains(&turn));
        let next = [&b"#Fields: date time\n"[..], &lines(9_000 + number, 2)].concat();
        cut(&path);
        append(&path, &next);
        expected.extend([turn, next]);
        wait_until("the new lines", || tier.contents().contains(expected.last().expect("one")));
    }
    wait_until("nothing but the new lines", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("caught up", || figure(&tailer, "caught_up") == 1);
    assert_eq!(tier.contents().len(), expected.len());
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_held_back_however_long_after_it_its_file_is_cut() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    rig.config.source[0].rotate_wait = Interval::ms(50);
    append(&rig.log(), lines(0, 1_000));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 1_000));
    for round in 0..3 {
        std::fs::copy(rig.log(), rig.at(&format!("app.log.{round}"))).expect("copied");
        // As long as it is not clear what a copy is, its bytes count as not read.
        wait_read(&tailer, 2 + round);
    }
    append(&rig.log(), lines(1_000, 10));
    tier.wait_stored(&lines(0, 1_010));
    wait_read(&tailer, 4);
    std::fs::copy(rig.log(), rig.at("app.log.9")).expect("copied");
    wait_read(&tailer, 5);
    cut(&rig.log());
    append(&rig.log(), "new\n");
    tier.wait_stored(&[&lines(0, 1_010)[..], b"new\n"].concat());
    wait_read(&tailer, 5);
    tailer.stop().await.expect("a clean stop");
    let tailer = rig.start();
    append(&rig.log(), "on\n");
    tier.wait_stored(&[&lines(0, 1_010)[..], b"new\non\n"].concat());
    wait_read(&tailer, 5);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_copy_has_is_shipped_though_the_cut_comes_late() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    rig.config.source[0].rotate_wait = Interval::ms(50);
    rig.config.send.window = ByteSize::kib(8);
    append(&rig.log(), lines(0, 10));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 10));
    std::fs::copy(rig.log(), rig.at("app.log.0")).expect("copied");
    wait_read(&tailer, 2);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(10, 3_000));
    wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 8 << 10);
    std::fs::copy(rig.log(), rig.at("app.log.1")).expect("copied");
    wait_until("the copy is met", || figure(&tailer, "files") == 3);
    cut(&rig.log());
    append(&rig.log(), lines(9_000, 50));
    tier.behave(Manner::Store);
    wait_until("all of both", || sorted(tier.contents()) == sorted(vec![lines(0, 3_010), lines(9_000, 50)]));
    wait_until("caught up", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_file_that_is_never_cut_is_shipped_only_if_it_gets_lines_of_its_own() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), "one\ntwo\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\ntwo\n");
    std::fs::copy(rig.log(), rig.at("app.log.other")).expect("copied");
    wait_read(&tailer, 2);
    append(&rig.at("app.log.third"), "one\nthree\n");
    tier.wait_stored(b"one\ntwo\none\nthree\n");
    // What only began as another one is shipped from its first line.
    append(&rig.at("app.log.other"), "four\n");
    tier.wait_stored(b"one\ntwo\none\nthree\none\ntwo\nfour\n");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_still_one_when_its_file_was_renamed_or_deleted() {
    for deleted in [false, true] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        rig.config.source[0].rotate_wait = Interval::ms(50);
        append(&rig.log(), lines(0, 100));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 100));
        std::fs::copy(rig.log(), rig.at("app.log.bak")).expect("copied");
        wait_read(&tailer, 2);
        append(&rig.log(), lines(100, 10));
        tier.wait_stored(&lines(0, 110));
        match deleted {
            true => std::fs::remove_file(rig.log()).expect("removed"),
            false => std::fs::rename(rig.log(), rig.folder.path().join("elsewhere")).expect("renamed"),
        }
        append(&rig.log(), "new\n");
        let expected = [&lines(0, 110)[..], b"new\n"].concat();
        tier.wait_stored(&expected);
        // The old one is done with: the copy and the new one are left.
        wait_read(&tailer, 2);
        tailer.stop().await.expect("a clean stop");
        let tailer = rig.start();
        append(&rig.log(), "on\n");
        tier.wait_stored(&[&expected[..], b"on\n"].concat());
        wait_read(&tailer, 2);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_still_waited_for_when_its_file_is_finished_is_not_shipped_again() {
    for whole in [true, false] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        // The file is finished so long after it was moved away; what was copied from it after that is unclear for longer.
        rig.config.source[0].rotate_wait = Interval::secs(5);
        append(&rig.log(), lines(0, 100));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 100));
        let elsewhere = rig.folder.path().join("elsewhere");
        std::fs::rename(rig.log(), &elsewhere).expect("renamed");
        append(&rig.log(), "new\n");
        let expected = [&lines(0, 100)[..], b"new\n"].concat();
        tier.wait_stored(&expected);
        match whole {
            true => _ = std::fs::copy(&elsewhere, rig.at("app.log.bak")).expect("copied"),
            false => append(&rig.at("app.log.bak"), lines(0, 60)),
        }
        wait_until("the copy is met", || figure(&tailer, "files") == 3);
        wait_read(&tailer, 2);
        assert_eq!(tier.stored(), expected, "whole: {whole}");
        // What it gets of its own is shipped.
        append(&rig.at("app.log.bak"), "own\n");
        let expected = [&expected[..], b"own\n"].concat();
        tier.wait_stored(&expected);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}
