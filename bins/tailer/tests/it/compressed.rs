//! Rotated files that were compressed: known as what was read, or unpacked and read.

use crate::common::{Manner, Rig, Tier, append, compress, figure, lines, sorted, wait_until};
use logferry_node::config::{ByteSize, Interval};
use logferry_pack::StreamId;
use logferry_tailer::config::Start;
use logferry_tailer::tailer::Tailer;
use std::time::{Duration, SystemTime};

/// As `gzip` and its like do: the compressed file, then the deletion.
fn compress_file(rig: &Rig, name: &str, extension: &str) {
    let content = std::fs::read(rig.at(name)).expect("read");
    std::fs::write(rig.at(&format!("{name}.{extension}")), compress(&content, extension)).expect("written");
    std::fs::remove_file(rig.at(name)).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_file_that_was_compressed_is_not_shipped_twice() {
    for extension in ["gz", "zst", "bz2"] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        append(&rig.log(), lines(0, 300));
        let mut tailer = rig.start();
        tier.wait_stored(&lines(0, 300));
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        append(&rig.log(), lines(500, 10));
        compress_file(&rig, "app.log.1", extension);
        let both = vec![lines(0, 300), lines(500, 10)];
        wait_until("both", || sorted(tier.contents()) == sorted(both.clone()));
        // And while the tailer is down, after it was read, and closed long ago.
        wait_until("only the new file is open", || figure(&tailer, "files") == 1);
        tailer.stop().await.expect("a clean stop");
        std::fs::rename(rig.log(), rig.at("app.log.2")).expect("renamed");
        compress_file(&rig, "app.log.2", extension);
        append(&rig.log(), "the last\n");
        tailer = rig.start();
        let all = [both, vec![b"the last\n".to_vec()]].concat();
        wait_until("the last", || tier.contents().contains(&b"the last\n".to_vec()));
        wait_until("the compressed ones are let go", || figure(&tailer, "files") == 1);
        wait_until("each once", || sorted(tier.contents()) == sorted(all.clone()));
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_copy_is_shipped_once_though_it_is_compressed_while_it_is_being_shipped() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(0, 300));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 300));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    // The cut is noticed before the copy is whole: as far as it was read the rest of the copy is known, because it has a whole pack.
    std::fs::write(rig.at("app.log.1"), lines(0, 150)).expect("written");
    std::fs::File::options().write(true).open(rig.log()).expect("opened").set_len(0).expect("truncated");
    append(&rig.log(), lines(500, 10));
    let mut expected = vec![lines(0, 300), lines(500, 10)];
    wait_until("the new beginning", || sorted(tier.contents()) == sorted(expected.clone()));
    // What nobody has acknowledged yet is not remembered of a file that was read to its end.
    tier.behave(Manner::Silent);
    let packs = tier.lock().seen.len();
    append(&rig.at("app.log.1"), lines(150, 250));
    wait_until("the rest is on its way", || tier.lock().seen.len() > packs);
    compress_file(&rig, "app.log.1", "gz");
    wait_until("the compressed one is looked at", || {
        figure(&tailer, "caught_up") == 0 && figure(&tailer, "files") >= 2
    });
    tier.behave(Manner::Store);
    expected.push(lines(300, 100));
    wait_until("only the file in use is followed", || figure(&tailer, "files") == 1);
    let lengths = |contents: &[Vec<u8>]| contents.iter().map(Vec::len).collect::<Vec<_>>();
    let stored = sorted(tier.contents());
    assert_eq!(lengths(&stored), lengths(&sorted(expected.clone())));
    assert!(stored == sorted(expected));
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_that_were_never_read_are_shipped_once() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let mut expected = Vec::new();
    for (number, extension) in ["gz", "zst", "bz2"].into_iter().enumerate() {
        // The same first line in all, and no newline at the end.
        let content = [b"begins\n", &lines(number * 1_000, 500)[..], b"no end"].concat();
        std::fs::write(rig.at(&format!("app.log.{number}.{extension}")), compress(&content, extension))
            .expect("written");
        expected.push([&content[..], b"\n"].concat());
    }
    let tailer = rig.start();
    wait_until("all three", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("they are let go", || figure(&tailer, "files") == 0);
    tailer.stop().await.expect("a clean stop");
    // One that is not complete yet waits.
    let content = lines(9_000, 500);
    let packed = compress(&content, "gz");
    std::fs::write(rig.at("app.log.9.gz"), &packed[..packed.len() / 2]).expect("written");
    append(&rig.log(), "plain\n");
    let tailer = rig.start();
    expected.push(b"plain\n".to_vec());
    wait_until("the plain file", || sorted(tier.contents()) == sorted(expected.clone()));
    std::fs::write(rig.at("app.log.9.gz"), &packed).expect("written");
    expected.push(content);
    wait_until("the whole one", || sorted(tier.contents()) == sorted(expected.clone()));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_line_without_an_end_is_shipped_once_when_its_file_was_compressed_and_stays_under_another_name()
 {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let content = [&lines(0, 300)[..], b"no end"].concat();
    append(&rig.at("app.log.1"), &content);
    std::fs::hard_link(rig.at("app.log.1"), rig.at("app.log.2")).expect("linked");
    compress_file(&rig, "app.log.2", "gz");
    append(&rig.log(), "another\n");
    let tailer = rig.start();
    let mut expected = vec![[&content[..], b"\n"].concat(), b"another\n".to_vec()];
    wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("the compressed one is let go", || figure(&tailer, "files") == 2);
    // Who has it open under its other name may go on.
    append(&rig.at("app.log.1"), " but this\nand more");
    expected[0].extend(b" but this\n");
    wait_until("it goes on", || sorted(tier.contents()) == sorted(expected.clone()));
    wait_until("a line without an end waits again", || figure(&tailer, "partial_bytes") == 8);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_file_that_was_compressed_while_the_tailer_was_down_is_read_from_there_before_the_new_file()
 {
    for pattern in ["app.log*", "app.log"] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        append(&rig.log(), lines(0, 300));
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 300));
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        append(&rig.log(), lines(300, 4_000));
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        compress_file(&rig, "app.log.1", "gz");
        append(&rig.log(), lines(2_000, 20));
        let tailer = rig.start();
        let expected = vec![lines(0, 4_300), lines(2_000, 20)];
        wait_until("all of both", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("caught up", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        let streams: Vec<_> = tier.lock().seen.iter().map(|pack| pack.identity.stream).collect();
        let first_of_new = streams.iter().position(|stream| *stream != streams[0]).expect("two streams");
        assert!(streams[first_of_new..].iter().all(|stream| *stream != streams[0]), "the old file first");
        tailer.stop().await.expect("a clean stop");
    }
}

const HOURLY: &str = "app.log.<%Y%m%d%H>";

/// Lines and packs by hour, and the number of each hour's done pack.
fn hours(tier: &Tier) -> Vec<(String, u64, Vec<u64>)> {
    let state = tier.lock();
    let mut hours: Vec<String> =
        state.seen.iter().chain(&state.marks).map(|pack| pack.hour.clone()).collect();
    hours.sort();
    hours.dedup();
    let of = |hour: String| {
        let lines = state.seen.iter().filter(|pack| pack.hour == hour).map(|pack| pack.lines).sum();
        let done =
            state.marks.iter().filter(|mark| mark.hour == hour && mark.done).map(|mark| mark.id).collect();
        (hour, lines, done)
    };
    hours.into_iter().map(of).collect()
}

/// The same of hours that have one done pack, behind all others.
fn closed(tier: &Tier, hours_and_lines: &[(&str, u64)]) -> bool {
    let last =
        |hour: &str| tier.lock().seen.iter().filter(|pack| pack.hour == hour).map(|pack| pack.id).max();
    let expected = hours_and_lines
        .iter()
        .map(|(hour, lines)| (hour.to_string(), *lines, vec![last(hour).unwrap_or_default() + 1]));
    hours(tier) == expected.collect::<Vec<_>>()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_hours_that_are_compressed_while_the_tailer_is_down_are_shipped_in_their_hours() {
    for extension in ["gz", "zst", "bz2"] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(HOURLY);
        append(&rig.at("app.log.2016121909"), lines(0, 300));
        append(&rig.at("app.log.2016121910"), "");
        let tailer = rig.start();
        tier.wait_stored(&lines(0, 300));
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        tailer.stop().await.expect("a clean stop");
        // One that was begun, and two that were not, with the same content.
        append(&rig.at("app.log.2016121909"), lines(300, 4_000));
        append(&rig.at("app.log.2016121910"), lines(0, 500));
        append(&rig.at("app.log.2016121911"), lines(0, 500));
        for hour in ["09", "10", "11"] {
            compress_file(&rig, &format!("app.log.20161219{hour}"), extension);
        }
        append(&rig.at("app.log.2016121912"), lines(9_000, 10));
        let tailer = rig.start();
        let all = [("2016121909", 4_300), ("2016121910", 500), ("2016121911", 500), ("2016121912", 10)];
        wait_until("each in its hour", || closed(&tier, &all));
        let expected = vec![lines(0, 4_300), lines(0, 500), lines(0, 500), lines(9_000, 10)];
        assert_eq!(sorted(tier.contents()), sorted(expected));
        assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0));
        tailer.stop().await.expect("a clean stop");
        // Nothing of it is new to the next one.
        let tailer = rig.start();
        append(&rig.at("app.log.2016121912"), "late\n");
        wait_until("the late line", || tier.contents().iter().any(|content| content.ends_with(b"late\n")));
        assert_eq!(tier.contents().len(), 4);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_is_known_though_it_had_but_half_of_its_first_line_when_it_was_met() {
    for is_read in [true, false] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(HOURLY);
        append(&rig.at("app.log.2016121909"), "half of a l");
        append(&rig.at("app.log.2016121910"), lines(0, 10));
        let tailer = rig.start();
        let mut expected = vec![b"half of a l\n".to_vec(), lines(0, 10)];
        wait_until("both", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        if !is_read {
            tailer.stop().await.expect("a clean stop");
            append(&rig.at("app.log.2016121909"), "ine\n");
        } else {
            append(&rig.at("app.log.2016121909"), "ine\n");
            wait_until("the rest", || tier.stored().windows(4).any(|bytes| bytes == b"ine\n"));
            wait_until("settled", || figure(&tailer, "caught_up") == 1);
            tailer.stop().await.expect("a clean stop");
        }
        compress_file(&rig, "app.log.2016121909", "zst");
        append(&rig.at("app.log.2016121910"), "late\n");
        let tailer = rig.start();
        expected = vec![b"half of a l\nine\n".to_vec(), [lines(0, 10), b"late\n".to_vec()].concat()];
        wait_until("each once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("settled", || figure(&tailer, "caught_up") == 1);
        append(&rig.at("app.log.2016121910"), "the last\n");
        expected[1].extend(b"the last\n");
        wait_until("nothing else", || sorted(tier.contents()) == sorted(expected.clone()));
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_compressed_before_its_turn_has_come_is_shipped_once() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow(HOURLY);
    rig.config.send.window = ByteSize::kib(8);
    tier.behave(Manner::Silent);
    for hour in 9..13 {
        append(&rig.at(&format!("app.log.20161219{hour:02}")), lines(0, 600));
    }
    let tailer = rig.start();
    wait_until("they are open", || figure(&tailer, "files") == 4);
    for hour in 10..13 {
        compress_file(&rig, &format!("app.log.20161219{hour}"), "gz");
    }
    wait_until("the first of them is unpacked", || figure(&tailer, "files") > 4);
    tier.behave(Manner::Store);
    wait_until("all is read", || figure(&tailer, "files") == 1);
    assert_eq!(tier.contents(), vec![lines(0, 600); 4]);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_done_pack_waits_for_a_compressed_file_of_its_hour_that_cannot_be_read_and_the_file_is_named() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow(HOURLY);
    let packed = compress(&lines(0, 500), "gz");
    let torn = rig.at("app.log.2016121909.gz");
    std::fs::write(&torn, &packed[..packed.len() / 2]).expect("written");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options()
        .write(true)
        .open(&torn)
        .and_then(|file| file.set_modified(long_ago))
        .expect("dated");
    append(&rig.at("app.log.2016121910"), lines(1_000, 10));
    let tailer = rig.start();
    wait_until("the other hour is closed", || closed(&tier, &[("2016121910", 10)]));
    assert_eq!(figure(&tailer, "unreadable"), 1);
    let problems = tailer.status()().problems;
    assert!(problems.iter().any(|problem| problem.contains("app.log.2016121909.gz")), "{problems:?}");
    std::fs::write(&torn, &packed).expect("written");
    let both = [("2016121909", 500), ("2016121910", 10)];
    wait_until("the other one, too", || closed(&tier, &both));
    wait_until("nothing is unreadable", || figure(&tailer, "unreadable") == 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_done_pack_waits_for_a_compressed_file_of_its_hour_that_is_being_unpacked() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow(HOURLY);
    rig.config.source[0].rotate_wait = Interval::ms(1);
    // Takes longer to unpack than hours without lines take to be closed.
    let content = lines(0, 150_000);
    std::fs::write(rig.at("app.log.2016121910.bz2"), compress(&content, "bz2")).expect("written");
    append(&rig.at("app.log.2016121909"), lines(0, 1));
    append(&rig.at("app.log.2016121911"), lines(1, 1));
    let tailer = rig.start();
    let all = [("2016121909", 1), ("2016121910", 150_000), ("2016121911", 1)];
    wait_until("each is closed once", || closed(&tier, &all));
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_at_the_end_ships_no_compressed_file_that_was_there() {
    for (pattern, packed, plain) in [
        ("app.log*", "app.log.1", "app.log"),
        ("app.log.<%Y%m%d%H>", "app.log.2016121909", "app.log.2016121910"),
    ] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow(pattern);
        rig.config.source[0].start = Start::End;
        std::fs::write(rig.at(&format!("{packed}.gz")), compress(&lines(0, 500), "gz")).expect("written");
        append(&rig.at(plain), lines(1_000, 10));
        let mut expected = Vec::new();
        for round in 0..2 {
            let tailer = rig.start();
            wait_until("only the plain file is followed", || figure(&tailer, "files") == 1);
            append(&rig.at(plain), lines(2_000 + round, 1));
            expected.extend(lines(2_000 + round, 1));
            tier.wait_stored(&expected);
            tailer.stop().await.expect("a clean stop");
        }
        // One that comes now is new.
        std::fs::write(rig.at("app.log.2016121911.gz"), compress(&lines(3_000, 10), "gz")).expect("written");
        let tailer = rig.start();
        tier.wait_stored(&[expected, lines(3_000, 10)].concat());
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_compressed_in_other_ways_are_left_alone() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.at("app.log.1.xz"), [b"\xfd7zXZ\0\0\x04".to_vec(), lines(0, 10)].concat());
    append(&rig.at("app.log.2.lz4"), [b"\x04\x22\x4d\x18".to_vec(), lines(0, 10)].concat());
    append(&rig.at("app.log.3.xz"), "");
    append(&rig.log(), "one\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    // One that was empty, and text that is only called so.
    append(&rig.at("app.log.3.xz"), b"\xfd7zXZ\0\0\x04\nno line\n");
    append(&rig.at("app.log.4.xz"), "text\n");
    tier.wait_stored(b"one\ntext\n");
    wait_until("the plain ones are followed", || {
        figure(&tailer, "files") == 2 && figure(&tailer, "caught_up") == 1
    });
    assert_eq!(tier.contents().len(), 2);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_left_alone_however_they_are_compressed() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app*");
    // A header of tar begins with a name, and has its checksum, in octal, at byte 148.
    let mut tar = [&b"app.log"[..], &[0; 505], &lines(0, 40)].concat();
    let sum = tar[..512].iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (name, extension) in [("1.tgz", "gz"), ("2.tar.gz", "gz"), ("3.tar.zst", "zst"), ("4.tbz2", "bz2")] {
        std::fs::write(rig.at(&format!("app.{name}")), compress(&tar, extension)).expect("written");
    }
    std::fs::write(rig.at("app.5.tar"), &tar).expect("written");
    append(&rig.at("app.6.tar"), "text\n");
    append(&rig.log(), "one\n");
    let tailer = rig.start();
    wait_until("the plain ones are followed", || {
        figure(&tailer, "files") == 2 && figure(&tailer, "caught_up") == 1
    });
    assert_eq!(sorted(tier.contents()), [b"one\n".to_vec(), b"text\n".to_vec()]);
    assert_eq!(figure(&tailer, "unreadable"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_copy_is_unpacked_only_if_it_may_hold_what_was_not_shipped() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(0, 3_000));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 3_000));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    compress_file(&rig, "app.log.1", "gz");
    // One after the other: when this one was read, the other was judged.
    std::fs::write(rig.at("app.log.2.gz"), compress(&lines(5_000, 10), "gz")).expect("written");
    let expected = vec![lines(0, 3_000), lines(5_000, 10)];
    wait_until("both, each once", || sorted(tier.contents()) == sorted(expected.clone()));
    assert_eq!(figure(&tailer, "files_unpacked"), 1);
    tailer.stop().await.expect("a clean stop");
}

/// Packs of a stream that came in.
fn packs_of(tier: &Tier, stream: StreamId) -> usize {
    tier.lock().seen.iter().filter(|pack| pack.identity.stream == stream).count()
}

/// Writes more, and stops the tailer while a pack of it is on its way that is never answered. The tier is silent from then on.
async fn stop_with_unanswered(tier: &Tier, rig: &Rig, tailer: Tailer, more: Vec<u8>) {
    tier.behave(Manner::Silent);
    let before = tier.lock().seen.len();
    append(&rig.log(), more);
    wait_until("a pack is on its way", || tier.lock().seen.len() > before);
    tailer.stop_within(Duration::from_millis(20)).await.expect("a clean stop");
    tier.drop_unanswered();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answered_of_a_file_is_sent_from_its_compressed_copy_after_each_restart() {
    for acknowledged in [0, 300] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        append(&rig.log(), lines(0, acknowledged));
        let mut tailer = rig.start();
        tier.wait_stored(&lines(0, acknowledged));
        tier.behave(Manner::Silent);
        let before = tier.lock().seen.len();
        append(&rig.log(), lines(acknowledged, 2_000));
        wait_until("packs are on their way", || tier.lock().seen.len() > before);
        let stream = tier.lock().seen[0].identity.stream;
        // It is known as a copy of what is followed, though nobody has answered.
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        compress_file(&rig, "app.log.1", "zst");
        wait_until("the copy is unpacked", || figure(&tailer, "files_unpacked") == 1);
        append(&rig.log(), "another\n");
        wait_until("the copy was looked at", || figure(&tailer, "files") == 2);
        for _ in 0..3 {
            tailer.stop_within(Duration::from_millis(20)).await.expect("a clean stop");
            tier.drop_unanswered();
            let before = packs_of(&tier, stream);
            tailer = rig.start();
            wait_until("it is sent again", || packs_of(&tier, stream) > before);
        }
        tier.behave(Manner::Store);
        let expected = vec![lines(0, acknowledged + 2_000), b"another\n".to_vec()];
        wait_until("all, once", || sorted(tier.contents()) == sorted(expected.clone()));
        wait_until("it is let go", || figure(&tailer, "files") == 1);
        assert_eq!(figure(&tailer, "lost_bytes"), 0);
        tailer.stop().await.expect("a clean stop");
        // What is acknowledged stays where it is.
        let packs = packs_of(&tier, stream);
        tailer = rig.start();
        append(&rig.log(), "more\n");
        wait_until("the new line", || tier.contents().contains(&b"another\nmore\n".to_vec()));
        assert_eq!((packs_of(&tier, stream), figure(&tailer, "files_unpacked")), (packs, 0));
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_while_the_tailer_stops_is_neither_unpacked_nor_sent_again() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(0, 300));
    let mut tailer = rig.start();
    tier.wait_stored(&lines(0, 300));
    let stream = tier.lock().seen[0].identity.stream;
    stop_with_unanswered(&tier, &rig, tailer, lines(300, 10)).await;
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    compress_file(&rig, "app.log.1", "gz");
    append(&rig.log(), "another\n");
    let packs = packs_of(&tier, stream);
    tailer = rig.start();
    wait_until("it is sent again", || packs_of(&tier, stream) > packs);
    // The answer comes when nothing is read any more, so the stream stays in the journal.
    let (stopped, ()) = tokio::join!(tailer.stop(), async { tier.behave(Manner::Store) });
    stopped.expect("a clean stop");
    let packs = packs_of(&tier, stream);
    for round in 0..2 {
        tailer = rig.start();
        append(&rig.log(), format!("round {round}\n"));
        wait_until("the new line", || tier.stored().ends_with(format!("round {round}\n").as_bytes()));
        wait_until("only the new file is followed", || figure(&tailer, "files") == 1);
        assert_eq!((packs_of(&tier, stream), figure(&tailer, "files_unpacked")), (packs, 0));
        assert_eq!((figure(&tailer, "lost_bytes"), tier.lock().duplicates), (0, 0));
        tailer.stop().await.expect("a clean stop");
    }
    assert_eq!(tier.contents(), [lines(0, 310), b"another\nround 0\nround 1\n".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_all_was_acknowledged_is_not_unpacked_when_it_was_compressed_while_the_tailer_was_down()
 {
    for spool in [false, true] {
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        rig.follow("app.log*");
        rig.config.source[0].spool = spool;
        if spool {
            let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            rig.config.send.to = vec![nobody.expect("a port").to_string()];
        }
        append(&rig.log(), lines(0, 1_000));
        let tailer = rig.start();
        wait_until("all is taken", || {
            figure(&tailer, "bytes_total") == lines(0, 1_000).len() as u64
                && figure(&tailer, "caught_up") == 1
        });
        tailer.stop().await.expect("a clean stop");
        std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
        compress_file(&rig, "app.log.1", "gz");
        append(&rig.log(), "another\n");
        rig.config.send.to = vec![tier.addr.to_string()];
        let tailer = rig.start();
        // Which of two files comes first out of a spool is not said.
        let expected = vec![b"another\n".to_vec(), lines(0, 1_000)];
        wait_until("each once", || sorted(tier.contents()) == expected);
        wait_until("only the new file is followed", || {
            figure(&tailer, "files") == 1 && figure(&tailer, "caught_up") == 1
        });
        assert_eq!((figure(&tailer, "files_unpacked"), figure(&tailer, "lost_bytes")), (0, 0));
        assert_eq!(tier.lock().duplicates, 0);
        tailer.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answered_is_not_taken_for_another_file_with_the_same_lines() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    append(&rig.log(), lines(0, 300));
    let mut tailer = rig.start();
    tier.wait_stored(&lines(0, 300));
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    compress_file(&rig, "app.log.1", "gz");
    wait_until("it is let go", || figure(&tailer, "files") == 0);
    // Else what is missing could be read there.
    std::fs::remove_file(rig.at("app.log.1.gz")).expect("removed");
    stop_with_unanswered(&tier, &rig, tailer, lines(0, 300)).await;
    std::fs::rename(rig.log(), rig.at("app.log.2")).expect("renamed");
    compress_file(&rig, "app.log.2", "gz");
    tier.behave(Manner::Store);
    tailer = rig.start();
    wait_until("both, each once", || tier.contents() == vec![lines(0, 300); 2]);
    wait_until("it is let go", || figure(&tailer, "files") == 0);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_that_are_gone_are_forgotten_however_often_a_log_is_rotated() {
    const ROTATIONS: usize = 24;
    const FILES: usize = 16;
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("app.log*");
    let tailer = rig.start();
    let mut lines_written = 0;
    for rotation in 0..ROTATIONS {
        for number in 0..FILES {
            let content = lines(rotation * 10_000 + number * 100, 10);
            std::fs::write(rig.at(&format!("app.log.{number}.gz")), compress(&content, "gz"))
                .expect("written");
        }
        lines_written += 10 * FILES as u64;
        wait_until("all are shipped", || {
            (figure(&tailer, "lines_total"), figure(&tailer, "files")) == (lines_written, 0)
        });
        let known = figure(&tailer, "packed_files_known") as usize;
        assert!((FILES..=64 + FILES).contains(&known), "{known} are known, and {FILES} are there");
        for number in 0..FILES {
            std::fs::remove_file(rig.at(&format!("app.log.{number}.gz"))).expect("removed");
        }
    }
    assert_eq!(figure(&tailer, "packed_files_lost"), 0);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_archives_are_unpacked_at_once_to_look_for_what_a_log_had_before_it_was_cut() {
    const ARCHIVES: usize = 30;
    const UNPACKED_MAX: u64 = 8;
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.send.window = ByteSize::kib(8);
    append(&rig.log(), lines(0, 100));
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 100));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    for number in 1..=ARCHIVES {
        let archive = rig.at(&format!("app.log.{number}.gz"));
        std::fs::write(archive, compress(&lines(number * 10_000, 300), "gz")).expect("written");
    }
    // What was read and not answered is looked for; nothing can be read, so that what was unpacked waits.
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(100, 1_000));
    wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 8 << 10);
    std::fs::write(rig.log(), "new\n").expect("written");
    wait_until("it is looked for", || figure(&tailer, "files_unpacked") == UNPACKED_MAX);
    let mut files_max = 0;
    let begin = std::time::Instant::now();
    wait_until("it is seen that no more are unpacked", || {
        files_max = files_max.max(figure(&tailer, "files"));
        begin.elapsed() > Duration::from_millis(500)
    });
    tier.behave(Manner::Store);
    wait_until("all is looked at", || {
        files_max = files_max.max(figure(&tailer, "files"));
        figure(&tailer, "files_unpacked") == ARCHIVES as u64 && figure(&tailer, "caught_up") == 1
    });
    assert!(files_max <= UNPACKED_MAX + 2, "{files_max} files at once");
    let stored = tier.stored();
    assert!(stored.starts_with(&lines(0, 100)) && stored.ends_with(b"new\n"));
    let lost = (lines(0, 1_100).len() + 4 - stored.len()) as u64;
    assert_eq!(figure(&tailer, "lost_bytes"), lost);
    tailer.stop().await.expect("a clean stop");
}

/// Of the second content nothing but its first line is known when it is cut, and that is the first line of both compressed copies.
#[tokio::test(flavor = "multi_thread")]
async fn two_contents_that_are_compressed_while_nothing_can_be_sent_go_on_each_in_its_own_copy() {
    const HEADER: &[u8] = b"date,level,message\n";
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.send.window = ByteSize::kib(8);
    let content = |from: usize, count: usize| [HEADER, &lines(from, count)].concat();
    append(&rig.log(), content(0, 10));
    let tailer = rig.start();
    tier.wait_stored(&content(0, 10));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tier.behave(Manner::Silent);
    append(&rig.log(), lines(10, 1_000));
    wait_until("the window is full", || figure(&tailer, "queue_bytes") >= 8 << 10);
    let rotate = |cuts: u64| {
        let copy = compress(&std::fs::read(rig.log()).expect("read"), "gz");
        std::fs::write(rig.at("app.log.1.gz"), copy).expect("written");
        std::fs::write(rig.log(), "").expect("cut");
        wait_until("the cut is seen", || figure(&tailer, "file_restarts") >= cuts);
    };
    rotate(1);
    append(&rig.log(), content(5_000, 20));
    let lag = figure(&tailer, "lag_bytes");
    wait_until("the second content is seen", || figure(&tailer, "lag_bytes") > lag);
    std::fs::rename(rig.at("app.log.1.gz"), rig.at("app.log.2.gz")).expect("renamed");
    rotate(2);
    append(&rig.log(), content(9_000, 20));
    tier.behave(Manner::Store);
    let expected = sorted(vec![content(0, 1_010), content(5_000, 20), content(9_000, 20)]);
    wait_until("all of each", || sorted(tier.contents()) == expected);
    wait_until("caught up", || figure(&tailer, "caught_up") == 1);
    assert_eq!((sorted(tier.contents()), figure(&tailer, "lost_bytes")), (expected, 0));
    tailer.stop().await.expect("a clean stop");
}
