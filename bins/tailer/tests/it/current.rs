//! Files that are written under one name and get the name of their hour when that is over: `current`, as with log4j.

use crate::common::{Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::Interval;
use logferry_tailer::hour::{HOUR, HourClock, zone};
use std::collections::BTreeMap;
use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

fn rig(tier: &Tier) -> Rig {
    // An hour that begins in the middle of a test would be one more than it counts.
    let second = || jiff::Timestamp::now().as_second() % 3600;
    wait_until("the hour has begun", || second() < 3590);
    let mut rig = Rig::new(tier);
    rig.config.node.time_zone = "UTC".into();
    let source = &mut rig.config.source[0];
    source.path = rig.folder.path().join("logs/server.log.<%Y-%m-%d-%H>").to_str().expect("plain").into();
    source.current = "server.log".into();
    rig
}

/// The name of a file that was begun so many hours ago, and the label of that hour.
fn named(rig: &Rig, hours_ago: u64) -> (std::path::PathBuf, String) {
    let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(3600 * hours_ago as i64);
    let hour = HourClock::new(zone("UTC").expect("known"), HOUR).hour_at(at).expect("an hour");
    let name =
        format!("server.log.{:04}-{:02}-{:02}-{:02}", hour.year(), hour.month(), hour.day(), hour.hour());
    (rig.at(&name), hour.to_string())
}

/// As if it had been written to last so long ago.
fn written_hours_ago(path: &Path, hours: u64) {
    let at = SystemTime::now() - Duration::from_secs(3600 * hours);
    let file = File::options().append(true).open(path).expect("opened");
    file.set_times(FileTimes::new().set_modified(at)).expect("set");
}

/// Bytes that came, by hour; numbers of the packs; those of done packs.
fn hours(tier: &Tier) -> BTreeMap<String, (u64, Vec<u64>, Vec<u64>)> {
    let state = tier.lock();
    let mut hours: BTreeMap<String, (u64, Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for seen in &state.seen {
        let hour = hours.entry(seen.hour.clone()).or_default();
        hour.0 += seen.identity.span;
        hour.1.push(seen.id);
    }
    for mark in &state.marks {
        hours.entry(mark.hour.clone()).or_default().2.push(mark.id);
    }
    hours
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_to_its_hour_is_shipped_once_in_that_hour_whoever_watches() {
    for down in [false, true] {
        let tier = Tier::start().await;
        let mut rig = rig(&tier);
        // Without it, what is seen between the writing and the setting of the time would be of the present hour.
        rig.config.source[0].grace = Interval::secs(2 * 3600);
        let (current, (old, old_hour), (_, present)) = (rig.at("server.log"), named(&rig, 1), named(&rig, 0));
        append(&current, lines(0, 300));
        written_hours_ago(&current, 1);
        let mut tailer = Some(rig.start());
        tier.wait_stored(&lines(0, 300));
        wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
        if down {
            tailer.take().expect("it runs").stop().await.expect("a clean stop");
        }
        append(&current, lines(300, 100));
        written_hours_ago(&current, 1);
        std::fs::rename(&current, &old).expect("renamed");
        append(&current, lines(1_000, 50));
        let expected = [lines(0, 400), lines(1_000, 50)].concat();
        for restart in 0..2 {
            let running = tailer.take().unwrap_or_else(|| rig.start());
            tier.wait_stored(&expected);
            wait_until("its hour is done", || hours(&tier)[&old_hour].2.len() == 1);
            wait_until("settled", || figure(&running, "caught_up") == 1);
            assert_eq!(figure(&running, "files"), 2, "down: {down}, restart {restart}");
            running.stop().await.expect("a clean stop");
        }
        let hours = hours(&tier);
        let (bytes, packs, done) = &hours[&old_hour];
        assert_eq!(*bytes, lines(0, 400).len() as u64, "down: {down}: {hours:?}");
        assert_eq!(done, &[packs.len() as u64 + 1]);
        assert_eq!((hours[&present].0, hours.len()), (lines(1_000, 50).len() as u64, 2), "{hours:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_renames_while_the_tailer_is_down_are_caught_up_in_the_order_of_their_hours() {
    let tier = Tier::start().await;
    let rig = rig(&tier);
    let current = rig.at("server.log");
    append(&current, lines(0, 20));
    written_hours_ago(&current, 4);
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 20));
    tailer.stop().await.expect("a clean stop");
    append(&current, lines(20, 400));
    let mut expected = lines(0, 420);
    for hours_ago in (1..=4).rev() {
        std::fs::rename(&current, named(&rig, hours_ago).0).expect("renamed");
        let written = lines(10_000 * hours_ago as usize, 400);
        append(&current, &written);
        expected.extend(written);
    }
    let tailer = rig.start();
    tier.wait_stored(&expected);
    let order: Vec<String> = tier.lock().seen.iter().map(|seen| seen.hour.clone()).collect();
    assert!(order.is_sorted(), "{order:?}");
    wait_until("four hours are done", || {
        hours(&tier).values().filter(|hour| !hour.2.is_empty()).count() == 4
    });
    for (hour, (_, packs, done)) in hours(&tier) {
        assert!(packs.iter().copied().eq(1..=packs.len() as u64), "{hour}: {packs:?}");
        assert!(done.is_empty() || done == [packs.len() as u64 + 1], "{hour}: {done:?}");
    }
    assert_eq!(hours(&tier).len(), 5);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_renamed_in_time_goes_on_in_the_present_hour() {
    let tier = Tier::start().await;
    let rig = rig(&tier);
    let current = rig.at("server.log");
    append(&current, lines(0, 20));
    written_hours_ago(&current, 3);
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 20));
    wait_until("its hour is done", || hours(&tier)[&named(&rig, 3).1].2.len() == 1);
    append(&current, lines(20, 20));
    tier.wait_stored(&lines(0, 40));
    let hours = hours(&tier);
    assert_eq!(hours[&named(&rig, 3).1].0, lines(0, 20).len() as u64, "{hours:?}");
    assert_eq!(hours[&named(&rig, 0).1].0, lines(20, 20).len() as u64, "{hours:?}");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_that_is_written_has_the_hour_in_which_it_was_made_until_the_grace_is_over() {
    let tier = Tier::start().await;
    let mut rig = rig(&tier);
    // The clock runs faster: an hour is a second, and the grace five of them.
    let length = Duration::from_secs(1);
    rig.config.hours.length = Interval(length);
    rig.config.source[0].grace = Interval::secs(5);
    let clock = HourClock::new(zone("UTC").expect("known"), length);
    let current = rig.at("server.log");
    let made = jiff::Timestamp::now();
    append(&current, lines(0, 20));
    let began = clock.hour_at(made).expect("an hour").to_string();
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 20));
    wait_until("the hour is over", || {
        clock.hour_at(jiff::Timestamp::now()).expect("an hour").to_string() != began
    });
    append(&current, lines(20, 20));
    tier.wait_stored(&lines(0, 40));
    let bytes: Vec<(String, u64)> =
        hours(&tier).into_iter().map(|(hour, of)| (hour, of.0)).filter(|of| of.1 > 0).collect();
    assert_eq!(bytes.len(), 1, "{bytes:?}");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_copied_to_its_hour_and_emptied_is_shipped_once() {
    for down in [false, true] {
        let tier = Tier::start().await;
        let rig = rig(&tier);
        let current = rig.at("server.log");
        append(&current, lines(0, 300));
        written_hours_ago(&current, 1);
        let mut tailer = Some(rig.start());
        tier.wait_stored(&lines(0, 300));
        wait_until("settled", || figure(tailer.as_ref().expect("it runs"), "caught_up") == 1);
        if down {
            tailer.take().expect("it runs").stop().await.expect("a clean stop");
        }
        std::fs::copy(&current, named(&rig, 1).0).expect("copied");
        File::options().write(true).open(&current).expect("opened").set_len(0).expect("cut");
        append(&current, lines(1_000, 50));
        let expected = [lines(0, 300), lines(1_000, 50)].concat();
        let running = tailer.take().unwrap_or_else(|| rig.start());
        tier.wait_stored(&expected);
        running.stop().await.expect("a clean stop");
        let running = rig.start();
        append(&current, "on\n");
        tier.wait_stored(&[&expected[..], b"on\n"].concat());
        assert_eq!(figure(&running, "lost_bytes"), 0);
        running.stop().await.expect("a clean stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hourly_file_that_is_compressed_at_its_renaming_is_shipped_once() {
    let tier = Tier::start().await;
    let mut rig = rig(&tier);
    rig.config.source[0].path.push_str(".zst");
    let current = rig.at("server.log");
    append(&current, lines(0, 300));
    written_hours_ago(&current, 1);
    let tailer = rig.start();
    tier.wait_stored(&lines(0, 300));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    append(&current, lines(300, 20));
    let content = std::fs::read(&current).expect("read");
    let packed = format!("{}.zst", named(&rig, 1).0.display());
    std::fs::write(packed, zstd::encode_all(&content[..], 1).expect("in memory")).expect("written");
    std::fs::remove_file(&current).expect("removed");
    append(&current, lines(1_000, 50));
    let tailer = rig.start();
    let expected = [lines(0, 320), lines(1_000, 50)].concat();
    wait_until("all of both", || tier.stored().len() == expected.len());
    tier.wait_stored(&expected);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}
