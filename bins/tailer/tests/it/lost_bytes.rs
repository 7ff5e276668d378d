//! Promise 3: what cannot be shipped any more is counted, to the byte as far as the tailer has seen it, and never what was shipped.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_tailer::config::CatchUp;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

/// Lines that are there before anything happens, and are shipped.
const BEFORE: usize = 10;
/// Lines with those that the tailer has seen, and has no room for in its window.
const ALL: usize = 3_010;

/// A tailer that is behind, and stopped then: it knows of [`ALL`] lines, and [`BEFORE`] of them are acknowledged. The next tier does not
/// answer.
async fn left_behind(tier: &Tier, pattern: &str) -> Rig {
    let mut rig = Rig::new(tier);
    rig.config.source[0].path = rig.at(pattern).to_str().expect("plain").into();
    rig.config.source[0].rotate_wait = Interval::ms(20);
    rig.config.send.window = ByteSize::kib(8);
    append(&rig.log(), lines(0, BEFORE));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, BEFORE));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(BEFORE, ALL - BEFORE));
    wait_until("its length is seen", || figure(&tailer, "lag_bytes") == unread());
    tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
    rig
}

/// Bytes that are not acknowledged when the tailer stops.
fn unread() -> u64 {
    (lines(0, ALL).len() - lines(0, BEFORE).len()) as u64
}

fn cut(rig: &Rig, length: u64) {
    File::options().write(true).open(rig.log()).expect("opened").set_len(length).expect("truncated");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

/// What happens to the file while no tailer watches loses this many bytes, and no other.
async fn loses(bytes: u64, pattern: &str, happens: impl FnOnce(&Rig)) {
    let tier = Tier::start().await;
    let rig = left_behind(&tier, pattern).await;
    happens(&rig);
    let mut tailer = rig.start();
    wait_until("it is counted", || figure(&tailer, "lost_bytes") >= bytes);
    if bytes < unread() {
        tier.behave(Manner::Store);
        wait_until("the rest arrives", || figure(&tailer, "caught_up") == 1);
    }
    assert_eq!(figure(&tailer, "lost_bytes"), bytes);
    // And once.
    tier.behave(Manner::Store);
    tailer.stop().await.expect("a clean stop");
    tailer = rig.start();
    append(&rig.at("app.log.new"), "new\n");
    append(&rig.log(), "on\n");
    wait_until("it goes on", || tier.contents().iter().any(|content| content.ends_with(b"on\n")));
    wait_until("all is read", || figure(&tailer, "caught_up") == 1);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_file_that_was_deleted_while_no_tailer_watched_are_counted() {
    for pattern in ["app.log", "app.log*"] {
        loses(unread(), pattern, |rig| std::fs::remove_file(rig.log()).expect("removed")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_file_that_was_replaced_while_no_tailer_watched_are_counted() {
    loses(unread(), "app.log", |rig| {
        append(&rig.at("other"), lines(9_000, 50));
        std::fs::rename(rig.at("other"), rig.log()).expect("renamed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_file_that_was_cut_and_filled_again_while_no_tailer_watched_are_counted() {
    loses(unread(), "app.log", |rig| std::fs::write(rig.log(), lines(9_000, 50)).expect("overwritten")).await;
    // With the same first line, and longer than before.
    let same_line = [lines(0, 1), lines(9_000, 2 * ALL)].concat();
    loses(unread(), "app.log", |rig| std::fs::write(rig.log(), same_line).expect("overwritten")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_file_that_was_cut_back_while_no_tailer_watched_are_counted() {
    loses(unread(), "app.log", |rig| cut(rig, lines(0, BEFORE).len() as u64)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_has_is_read_there_and_only_what_it_lacks_is_counted() {
    for pattern in ["app.log", "app.log*"] {
        for missing in [0, 777] {
            loses(missing, pattern, |rig| {
                let all = lines(0, ALL);
                std::fs::write(rig.at("app.log.1"), &all[..all.len() - missing as usize]).expect("copied");
                cut(rig, 0);
            })
            .await;
            loses(missing, pattern, |rig| {
                let all = lines(0, ALL);
                let copy = gzip(&all[..all.len() - missing as usize]);
                std::fs::write(rig.at("app.log.1.gz"), copy).expect("compressed");
                std::fs::remove_file(rig.log()).expect("removed");
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_that_is_no_copy_has_nothing_and_all_is_counted() {
    loses(unread(), "app.log", |rig| {
        std::fs::write(rig.at("app.log.1.gz"), gzip(&lines(9_000, 50))).expect("compressed");
        std::fs::remove_file(rig.log()).expect("removed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_while_no_tailer_watched_loses_nothing() {
    for pattern in ["app.log", "app.log*"] {
        loses(0, pattern, |rig| std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_line_without_an_end_is_counted_when_it_is_cut() {
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), "no end");
    let tailer = rig.start();
    wait_until("it is seen", || figure(&tailer, "partial_bytes") == 6);
    cut(&rig, 0);
    wait_until("it is counted", || figure(&tailer, "lost_bytes") == 6);
    append(&rig.log(), "nothing");
    wait_until("the next one is seen", || figure(&tailer, "partial_bytes") == 7);
    // Cut and filled beyond its old length in one moment.
    std::fs::write(rig.log(), "another one\nand more\n").expect("overwritten");
    tier.wait_stored(b"another one\nand more\n");
    assert_eq!(figure(&tailer, "lost_bytes"), 6 + 7);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_line_without_an_end_is_not_counted_when_it_goes_on_or_a_copy_has_it() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].path = rig.at("app.log*").to_str().expect("plain").into();
    append(&rig.log(), "no end");
    let tailer = rig.start();
    wait_until("it is seen", || figure(&tailer, "partial_bytes") == 6);
    std::fs::copy(rig.log(), rig.at("app.log.1")).expect("copied");
    wait_until("the copy is seen", || figure(&tailer, "partial_bytes") == 12);
    cut(&rig, 0);
    append(&rig.log(), "new\n");
    append(&rig.at("app.log.1"), " yet\n");
    wait_until("both", || {
        let mut contents = tier.contents();
        contents.sort();
        contents == [b"new\n".to_vec(), b"no end yet\n".to_vec()]
    });
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_turn_had_not_come_at_the_stop_are_counted_when_they_are_deleted() {
    for (pattern, catch_up, names) in [
        (
            "app.log.<%Y%m%d%H>",
            CatchUp::Fair,
            ["app.log.2016121909", "app.log.2016121910", "app.log.2016121911"],
        ),
        ("*.log", CatchUp::Oldest, ["a.log", "b.log", "c.log"]),
    ] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.config.source[0].path = rig.at(pattern).to_str().expect("plain").into();
        rig.config.source[0].catch_up = catch_up;
        rig.config.send.window = ByteSize::kib(8);
        tier.behave(Manner::Silent);
        names.iter().for_each(|name| append(&rig.at(name), lines(0, ALL)));
        let tailer = rig.start();
        wait_until("they are open", || figure(&tailer, "lag_bytes") == 3 * lines(0, ALL).len() as u64);
        tailer.stop_within(Duration::ZERO).await.expect("a clean stop");
        names.iter().for_each(|name| std::fs::remove_file(rig.at(name)).expect("removed"));
        let tailer = rig.start();
        wait_until("all are counted", || figure(&tailer, "lost_bytes") == 3 * lines(0, ALL).len() as u64);
        tailer.stop().await.expect("a clean stop");
    }
}
