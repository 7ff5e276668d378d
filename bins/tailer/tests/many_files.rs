//! Many files: few descriptors are enough, a restart opens none that did not change, and no backlog keeps others waiting.

#[path = "it/common/mod.rs"]
mod common;

use common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::CatchUp;
use logferry_tailer::tailer::Tailer;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A rig whose source is all `logs/*.log`, looked at rarely: inotify has to tell.
fn rig_of_many(tier: &Tier) -> Rig {
    let mut rig = Rig::new(tier);
    rig.config.source[0].path = rig.at("*.log").to_str().expect("plain").into();
    rig.config.limits.rescan_interval = Interval::secs(600);
    rig
}

fn path_of(rig: &Rig, number: usize) -> PathBuf {
    rig.at(&format!("app-{number:03}.log"))
}

/// First line of a file: none is like another.
fn text(number: usize, part: usize) -> Vec<u8> {
    format!("file {number} part {part}\n").into_bytes()
}

fn write_all(rig: &Rig, files: usize, part: usize) {
    (0..files).for_each(|number| append(&path_of(rig, number), text(number, part)));
}

/// Waits until the tier has these parts of all files, each file a stream.
#[track_caller]
fn wait_parts(tier: &Tier, files: usize, parts: usize) {
    let expected: BTreeSet<Vec<u8>> =
        (0..files).map(|number| (0..parts).flat_map(|part| text(number, part)).collect()).collect();
    wait_until("all parts of all files", || tier.contents().into_iter().collect::<BTreeSet<_>>() == expected);
}

#[track_caller]
fn wait_caught_up(tailer: &Tailer, files: u64) {
    wait_until("all is shipped", || {
        (figure(tailer, "files"), figure(tailer, "caught_up"), figure(tailer, "lag_bytes")) == (files, 1, 0)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_opens_no_file_that_did_not_change() {
    let tier = Tier::start().await;
    let rig = rig_of_many(&tier);
    write_all(&rig, 100, 0);
    let tailer = rig.start();
    wait_parts(&tier, 100, 1);
    wait_caught_up(&tailer, 100);
    tailer.stop().await.expect("a clean stop");

    append(&path_of(&rig, 7), text(7, 1));
    let tailer = rig.start();
    wait_until("the line of the meantime", || tier.contents().contains(&[text(7, 0), text(7, 1)].concat()));
    wait_caught_up(&tailer, 100);
    assert_eq!(figure(&tailer, "files_open"), 1, "the one that has changed");
    append(&path_of(&rig, 8), text(8, 1));
    wait_until("a line of now", || tier.contents().contains(&[text(8, 0), text(8, 1)].concat()));
    assert_eq!(tier.contents().len(), 100, "no file became another stream");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_by_one_of_the_same_length_while_the_tailer_was_down_is_read() {
    let tier = Tier::start().await;
    let rig = rig_of_many(&tier);
    write_all(&rig, 2, 0);
    let tailer = rig.start();
    wait_parts(&tier, 2, 1);
    wait_caught_up(&tailer, 2);
    tailer.stop().await.expect("a clean stop");

    // The same inode, the same length, even the same mtime: only the system knows better.
    let changed = std::fs::metadata(path_of(&rig, 1)).and_then(|facts| facts.modified()).expect("a time");
    std::fs::write(path_of(&rig, 1), text(9, 9)).expect("written");
    let file = File::options().write(true).open(path_of(&rig, 1)).expect("opened");
    file.set_modified(changed).expect("set back");
    let tailer = rig.start();
    wait_until("the new content", || tier.contents().contains(&text(9, 9)));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_are_enough_for_many_files() {
    let tier = Tier::start().await;
    let mut rig = rig_of_many(&tier);
    rig.config.limits.open_files = 16;
    write_all(&rig, 100, 0);
    let tailer = rig.start();
    wait_parts(&tier, 100, 1);
    wait_caught_up(&tailer, 100);
    assert!(figure(&tailer, "files_open") <= 16);
    write_all(&rig, 100, 1);
    wait_parts(&tier, 100, 2);
    write_all(&rig, 100, 2);
    wait_parts(&tier, 100, 3);
    wait_caught_up(&tailer, 100);
    assert!(figure(&tailer, "files_open") <= 16);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_files_that_are_rotated_and_replaced_are_told_apart() {
    let tier = Tier::start().await;
    let mut rig = rig_of_many(&tier);
    rig.config.limits.open_files = 16;
    write_all(&rig, 60, 0);
    let tailer = rig.start();
    wait_parts(&tier, 60, 1);
    wait_caught_up(&tailer, 60);
    for number in 0..60 {
        // Renamed out of the glob, written to under its new name, and followed by another.
        let (path, old) = (path_of(&rig, number), rig.at(&format!("app-{number:03}.log.1")));
        std::fs::rename(&path, &old).expect("renamed");
        append(&old, text(number, 1));
        append(&path, text(number, 500));
    }
    let expected: BTreeSet<Vec<u8>> =
        (0..60).flat_map(|number| [[text(number, 0), text(number, 1)].concat(), text(number, 500)]).collect();
    wait_until("the rest of the old files and the new ones", || {
        tier.contents().into_iter().collect::<BTreeSet<_>>() == expected
    });
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_that_was_not_read_to_its_end_keeps_its_descriptor() {
    let tier = Tier::start().await;
    let mut rig = rig_of_many(&tier);
    rig.config.limits.open_files = 16;
    write_all(&rig, 1, 0);
    let tailer = rig.start();
    wait_parts(&tier, 1, 1);
    tier.behave(Manner::Silent);
    let rest = lines(0, 4_000);
    append(&path_of(&rig, 0), &rest);
    wait_until("it is behind", || figure(&tailer, "lag_bytes") > 100_000);
    std::fs::remove_file(path_of(&rig, 0)).expect("removed");
    (1..80).for_each(|number| append(&path_of(&rig, number), text(number, 0)));
    wait_until("the others are met", || figure(&tailer, "files") == 80);
    tier.behave(Manner::Store);
    let whole = [text(0, 0), rest].concat();
    wait_until("all of the deleted file", || tier.contents().contains(&whole));
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_seen_without_looking_at_all_others() {
    let tier = Tier::start().await;
    let mut rig = rig_of_many(&tier);
    rig.config.source[0].path = rig.at("*/*.log").to_str().expect("plain").into();
    rig.config.source[0].poll_interval = Interval::secs(600);
    std::fs::create_dir(rig.at("a")).expect("a folder");
    append(&rig.at("a/one.log"), "one\n");
    let tailer = rig.start();
    wait_until("the first file", || tier.contents().len() == 1);
    append(&rig.at("a/two.log"), "two\n");
    wait_until("a file in a known folder", || tier.contents().len() == 2);
    std::fs::create_dir(rig.at("b")).expect("a folder");
    append(&rig.at("b/three.log"), "three\n");
    wait_until("a file in a new folder", || tier.contents().len() == 3);
    tailer.stop().await.expect("a clean stop");
}

/// Positions in the order of arrival of the last pack of each stream.
fn ends(tier: &Tier) -> Vec<usize> {
    let state = tier.lock();
    let last = |stream| state.seen.iter().rposition(|seen| seen.identity.stream == stream);
    state.streams.iter().filter_map(|(stream, _)| last(*stream)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_backlog_does_not_keep_others_waiting() {
    let tier = Tier::start().await;
    let rig = rig_of_many(&tier);
    let huge = lines(0, 40_000);
    append(&rig.at("huge.log"), &huge);
    let file = File::options().write(true).open(rig.at("huge.log")).expect("opened");
    // The first in every order.
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("a time");
    (0..10).for_each(|number| append(&path_of(&rig, number), text(number, 0)));
    let tailer = rig.start();
    wait_until("all", || tier.contents().contains(&huge) && tier.contents().len() == 11);
    let packs = tier.lock().seen.len();
    let ends = ends(&tier);
    assert!(
        packs > 300 && ends.iter().filter(|end| **end < packs - 200).count() == 10,
        "{ends:?} of {packs} packs"
    );
    tailer.stop().await.expect("a clean stop");
}

/// Ships three files with a backlog, changed at different times; the order in which they were read to their ends.
async fn order_of(catch_up: CatchUp) -> Vec<u8> {
    let tier = Tier::start().await;
    let mut rig = rig_of_many(&tier);
    rig.config.source[0].catch_up = catch_up;
    rig.config.pack.max_bytes = ByteSize::kib(4);
    for (name, age) in [("b", 200), ("c", 100), ("a", 300)] {
        let path = rig.at(&format!("{name}.log"));
        append(&path, format!("{name}\n"));
        append(&path, lines(0, 3_000));
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("a time");
    }
    let tailer = rig.start();
    wait_caught_up(&tailer, 3);
    tailer.stop().await.expect("a clean stop");
    let mut order: Vec<(usize, u8)> =
        ends(&tier).into_iter().zip(tier.contents()).map(|(end, content)| (end, content[0])).collect();
    order.sort_unstable();
    // One begins when the one before it is read.
    let state = tier.lock();
    let streams: Vec<_> = state.seen.iter().map(|seen| seen.identity.stream).collect();
    let changes = streams.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 2, "one after another: {streams:?}");
    order.into_iter().map(|(_, name)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_caught_up_with_from_its_oldest_or_its_newest_file() {
    assert_eq!(order_of(CatchUp::Oldest).await, b"abc");
    assert_eq!(order_of(CatchUp::Newest).await, b"cba");
}
