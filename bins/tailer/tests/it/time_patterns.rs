//! Files whose names tell their hour: `access.log.<%Y%m%d%H>`.

use crate::common::{Rig, Tier, append, figure, lines, wait_until};
use logferry_node::config::Interval;

fn follow(rig: &mut Rig, pattern: &str) {
    rig.config.source[0].path = rig.at(pattern).to_str().expect("plain").into();
}

fn hours_seen(tier: &Tier) -> Vec<(String, u64)> {
    let state = tier.lock();
    state.seen.iter().map(|seen| (seen.hour.clone(), seen.id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_before_the_start_are_caught_up_in_their_order() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y-%m-%d-%H>");
    let mut expected = Vec::new();
    // The later hour is the older file, so that the order is not that of the files' changes.
    for hour in [11, 10, 9] {
        append(&rig.at(&format!("app.log.2016-12-19-{hour:02}")), lines(hour * 1_000, 400));
    }
    append(&rig.at("app.log.2016-12-19-25"), "no such hour\n");
    append(&rig.at("app.log"), "no hour\n");
    append(&rig.at("app.log.2016-12-19-09.gz"), "not the file of an hour\n");
    (9..12).for_each(|hour| expected.extend(lines(hour * 1_000, 400)));
    let tailer = rig.start();
    tier.wait_stored(&expected);
    let seen = hours_seen(&tier);
    assert!(seen.is_sorted(), "hours and numbers rise: {seen:?}");
    for hour in ["2016121909", "2016121910", "2016121911"] {
        let ids: Vec<u64> = seen.iter().filter(|(of, _)| of == hour).map(|(_, id)| *id).collect();
        assert!(ids.len() > 1 && ids.iter().copied().eq(1..=ids.len() as u64), "{hour}: {ids:?}");
    }
    assert_eq!(figure(&tailer, "files"), 3);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_line_or_an_empty_file_of_an_earlier_hour_holds_up_no_other() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H>");
    // No hour is finished in this test.
    rig.config.source[0].rotate_wait = Interval::secs(600);
    append(&rig.at("app.log.2016121908"), "");
    append(&rig.at("app.log.2016121909"), "half a li");
    append(&rig.at("app.log.2016121910"), "whole\nhalf");
    append(&rig.at("app.log.2016121911"), "last\n");
    let tailer = rig.start();
    tier.wait_stored(b"whole\nlast\n");
    append(&rig.at("app.log.2016121909"), "ne\n");
    wait_until("the late line", || {
        hours_seen(&tier).contains(&("2016121909".to_owned(), 1)) && tier.contents().len() == 3
    });
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_caught_up_in_their_order_and_end_with_their_last_line_whole_or_not() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.<%Y%m%d>.log");
    // The later day is the older file, and none but the second has an end.
    for day in [21, 20, 19] {
        append(&rig.at(&format!("app.201612{day}.log")), lines(day * 1_000, 400));
        append(&rig.at(&format!("app.201612{day}.log")), if day == 20 { "" } else { "half a line" });
    }
    let tailer = rig.start();
    let ends = ["half a line\n", "", "half a line\n"];
    let days: Vec<Vec<u8>> = (19..22)
        .zip(ends)
        .map(|(day, end)| [&lines(day * 1_000, 400)[..], end.as_bytes()].concat())
        .collect();
    wait_until("all of all days", || {
        tier.contents().len() == 3 && tier.stored().len() == days.concat().len()
    });
    assert_eq!(tier.contents(), days, "in the order of the days, as they were first seen");
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_of_the_present_day_waits_for_its_end() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.node.time_zone = "UTC".into();
    rig.config.source[0].rotate_wait = Interval::ms(20);
    follow(&mut rig, "app.<%Y%m%d>.log");
    let day = |days: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        rig.at(&at.to_zoned(jiff::tz::TimeZone::UTC).strftime("app.%Y%m%d.log").to_string())
    };
    append(&day(-1), "half of ");
    append(&day(0), "half a li");
    let tailer = rig.start();
    wait_until("that of the day before is shipped", || tier.stored() == b"half of \n");
    append(&day(0), "ne\n");
    tier.wait_stored(b"half of \nhalf a line\n");
    assert_eq!(tier.lock().seen.len(), 2, "in one piece");
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_numbers_of_each_hour() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "app.log.<%Y%m%d%H%M>");
    append(&rig.at("app.log.201612190930"), "one\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\n");
    tailer.stop().await.expect("a clean stop");
    append(&rig.at("app.log.201612190930"), "two\n");
    append(&rig.at("app.log.201612190945"), "same hour\n");
    append(&rig.at("app.log.201612191000"), "next hour\n");
    let tailer = rig.start();
    tier.wait_stored(b"one\ntwo\nsame hour\nnext hour\n");
    let of = |hour: &str, id| (hour.to_owned(), id);
    assert_eq!(
        hours_seen(&tier),
        [of("2016121909", 1), of("2016121909", 2), of("2016121909", 3), of("2016121910", 1)]
    );
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_new_folders_of_a_pattern_are_noticed_without_polling() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.config.source[0].poll_interval = Interval::secs(600);
    rig.config.node.time_zone = "UTC".into();
    follow(&mut rig, "<%Y>/<%m.%d>/app.log.<%H>");
    let tailer = rig.start();
    wait_until("looked", || tailer.status()().figures["caught_up"] == 1);
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let folder = rig.at(&now.strftime("%Y/%m.%d").to_string());
    std::fs::create_dir_all(&folder).expect("folders");
    append(&folder.join(now.strftime("app.log.%H").to_string()), "in a new folder\n");
    tier.wait_stored(b"in a new folder\n");
    assert_eq!(hours_seen(&tier), [(now.strftime("%Y%m%d%H").to_string(), 1)]);
    tailer.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_of_the_year_tells_the_hour_too() {
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    follow(&mut rig, "<%y>/app.log.<%j-%H>");
    std::fs::create_dir(rig.at("16")).expect("a folder");
    for (day, line) in [("060-23", "a leap day\n"), ("366-00", "the last\n"), ("367-00", "none\n")] {
        append(&rig.at(&format!("16/app.log.{day}")), line);
    }
    let tailer = rig.start();
    tier.wait_stored(b"a leap day\nthe last\n");
    let hours: Vec<String> = hours_seen(&tier).into_iter().map(|(hour, _)| hour).collect();
    assert_eq!(hours, ["2016022923", "2016123100"]);
    tailer.stop().await.expect("a clean stop");
}
