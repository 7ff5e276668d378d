//! A tailer that may not ship what it sees, because the next tier is away or its rate is low, still sees what becomes of the files.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::ByteSize;
use logferry_tailer::tailer::Tailer;
use std::os::unix::fs::FileExt;

/// Every way in which a source may lead to the log.
const PATTERNS: [&str; 3] = ["app.log", "*.log", "app.log*"];

/// Lines of each part: more than the window has room for.
const PART: usize = 700;

/// What was shipped before anything is held back.
fn begin(tier: &Tier, rig: &Rig) -> (Tailer, Vec<u8>) {
    let written = lines(0, 10);
    append(&rig.log(), &written);
    let tailer = rig.start();
    tier.wait_stored(&written);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    (tailer, written)
}

/// `app.log.1` becomes `app.log.2`, and so on.
fn shift(rig: &Rig) {
    for number in (1..10).rev() {
        let from = rig.at(&format!("app.log.{number}"));
        if from.exists() {
            std::fs::rename(from, rig.at(&format!("app.log.{}", number + 1))).expect("renamed");
        }
    }
}

fn copy_and_truncate(rig: &Rig) {
    shift(rig);
    crate::common::copy_and_truncate(rig, "app.log.1");
}

fn rename(rig: &Rig) {
    shift(rig);
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
}

/// Writes four parts and rotates between them; each is seen before what comes next, as `is_seen` tells of the bytes of all parts so far.
fn write_and_rotate(rig: &Rig, rotate: fn(&Rig), written: &mut Vec<u8>, is_seen: impl Fn(u64) -> bool) {
    let before = written.len();
    for part in 1..5 {
        let more = lines(part * 10_000, PART);
        append(&rig.log(), &more);
        written.extend(more);
        let bytes = (written.len() - before) as u64;
        wait_until("it is seen", || is_seen(bytes));
        if part < 4 {
            rotate(rig);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_rotated_again_and_again_while_the_next_tier_is_away_are_shipped_whole_and_in_their_order()
 {
    for rotate in [copy_and_truncate, rename] {
        for pattern in PATTERNS {
            let tier = Tier::start().await;
            let mut rig = Rig::new(&tier);
            rig.follow(pattern);
            rig.config.send.window = ByteSize::kib(8);
            let (tailer, mut written) = begin(&tier, &rig);
            tier.behave(Manner::Silent);
            let is_seen = |unread| figure(&tailer, "lag_bytes") == unread;
            write_and_rotate(&rig, rotate, &mut written, is_seen);
            tier.behave(Manner::Store);
            tier.wait_stored(&written);
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
            assert_eq!(figure(&tailer, "lost_bytes"), 0);
            tailer.stop().await.expect("a clean stop");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_rotated_while_no_pack_is_answered_are_shipped_by_the_next_process() {
    for rotate in [copy_and_truncate, rename] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.config.send.window = ByteSize::kib(8);
        let (tailer, mut written) = begin(&tier, &rig);
        tier.behave(Manner::Silent);
        let is_seen = |unread| figure(&tailer, "lag_bytes") == unread;
        write_and_rotate(&rig, rotate, &mut written, is_seen);
        tailer.stop_within(std::time::Duration::ZERO).await.expect("a clean stop");
        tier.behave(Manner::Store);
        let tailer = rig.start();
        tier.wait_stored(&written);
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_waits_for_its_rate_loses_nothing_of_files_that_are_copied_and_truncated_again_and_again()
 {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].rate = ByteSize::kib(16);
    let (tailer, mut written) = begin(&tier, &rig);
    let before = written.len() as u64;
    let is_seen = |bytes| figure(&tailer, "bytes_total") + figure(&tailer, "lag_bytes") >= before + bytes;
    write_and_rotate(&rig, copy_and_truncate, &mut written, is_seen);
    tier.wait_stored(&written);
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_copied_and_filled_anew_twice_while_its_first_pack_is_not_answered_loses_nothing() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    tier.behave(Manner::Silent);
    let parts = [lines(0, 10), lines(10_000, 30)];
    append(&rig.log(), &parts[0]);
    let tailer = rig.start();
    wait_until("it is cut", || figure(&tailer, "bytes_total") == parts[0].len() as u64);
    std::fs::copy(rig.log(), rig.at("app.log.1")).expect("copied");
    // It is never seen shorter than it was.
    let file = std::fs::File::options().write(true).open(rig.log()).expect("opened");
    file.write_all_at(&parts[1], 0).expect("written");
    wait_until("it is seen", || figure(&tailer, "lag_bytes") >= parts[1].len() as u64);
    copy_and_truncate(&rig);
    tier.behave(Manner::Store);
    wait_until("all arrives", || {
        crate::common::sorted(tier.contents()) == crate::common::sorted(parts.to_vec())
    });
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}
