//! The collector between a sender that plays tailer and a receiver that plays outputter, over loopback.

mod common;

use common::{Next, Outputter, Tailer, Test, until};
use logferry_link::{Answer, Outcome};
use logferry_node::config::{ByteSize, Interval};
use std::time::Duration;

#[tokio::test]
async fn a_pack_is_acknowledged_only_when_the_next_tier_has_it() {
    let test = Test::new();
    let mut outputter = Outputter::start(&test.target, Next::Hold).await;
    let collector = test.start_with(|config| config.relay.spool_after = Interval::secs(60)).await;
    let mut tailer = Tailer::connect(collector.local_addr());

    tailer.send(1, 0..3).await;
    until(|| outputter.held() == 3).await;
    assert!(tailer.is_waiting(), "nothing is acknowledged before the outputter did");
    outputter.next(Next::Answer(Answer::Ok));
    tailer.expect(3, &Outcome::Ok).await;

    assert_eq!(outputter.offsets(1), [0, 1, 2]);
    assert_eq!(outputter.hops(), [1, 1, 1], "the collector has appended its hop");
    assert_eq!(test.figure(&collector, "spool_packs"), 0);
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn packs_are_spooled_while_no_target_is_up_and_drain_in_order() {
    let test = Test::new();
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    for stream in 1..=3 {
        tailer.send(stream, 0..20).await;
    }
    tailer.expect(60, &Outcome::Ok).await;
    assert_eq!(test.figure(&collector, "spool_packs"), 60);
    assert!(collector.status()().ready, "packs are taken");

    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    // Everything of a stream passes through again, behind what was spooled.
    tailer.send(1, 20..25).await;
    tailer.expect(5, &Outcome::Ok).await;
    assert_eq!(outputter.offsets(1), (0..25).collect::<Vec<_>>());
    assert_eq!(outputter.offsets(2), (0..20).collect::<Vec<_>>());
    assert_eq!(outputter.offsets(3), (0..20).collect::<Vec<_>>());
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_restart_finds_the_spool_and_goes_on() {
    let test = Test::new();
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..10).await;
    tailer.expect(10, &Outcome::Ok).await;
    collector.stop().await.expect("a clean stop");

    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 10..12).await;
    tailer.expect(2, &Outcome::Ok).await;
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    assert_eq!(outputter.offsets(1), (0..12).collect::<Vec<_>>());
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_target_that_is_up_but_silent_is_not_sent_everything_again() {
    let test = Test::new();
    let mut outputter = Outputter::start(&test.target, Next::Hold).await;
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..5).await;
    tailer.expect(5, &Outcome::Ok).await;
    assert_eq!(test.figure(&collector, "spool_packs"), 5, "their copies are in the spool");
    tailer.send(1, 5..8).await;
    tailer.expect(3, &Outcome::Ok).await;

    outputter.next(Next::Answer(Answer::Ok));
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    until(|| test.figure(&collector, "spool_bytes") == 0).await;
    assert_eq!(outputter.offsets(1), (0..8).collect::<Vec<_>>(), "each was sent once");
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_pack_that_the_next_tier_has_is_a_duplicate_even_after_a_restart() {
    let test = Test::new();
    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..3).await;
    tailer.expect(3, &Outcome::Ok).await;
    tailer.send(1, 1..2).await;
    tailer.expect(1, &Outcome::Duplicate).await;
    tailer.send_repull(1, 2).await;
    tailer.expect(1, &Outcome::Ok).await;
    collector.stop().await.expect("a clean stop");

    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..4).await;
    tailer.expect(3, &Outcome::Duplicate).await;
    tailer.expect(1, &Outcome::Ok).await;
    assert_eq!(outputter.offsets(1), [0, 1, 2, 2, 3], "only the repull pack came twice");
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_damaged_footprint_costs_only_the_hint() {
    let test = Test::new();
    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..3).await;
    tailer.expect(3, &Outcome::Ok).await;
    collector.stop().await.expect("a clean stop");
    test.spoil_footprint();

    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..3).await;
    tailer.expect(3, &Outcome::Ok).await;
    assert_eq!(outputter.offsets(1), [0, 1, 2, 0, 1, 2], "the outputter decides");
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_conflict_reaches_the_tailer_while_it_waits_for_its_answer() {
    let test = Test::new();
    let _outputter = Outputter::start(&test.target, Next::Answer(common::conflict())).await;
    let collector = test.start_with(|config| config.relay.spool_after = Interval::secs(60)).await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..1).await;
    let Answer::Conflict(remembered) = common::conflict() else { panic!("no conflict") };
    tailer.expect(1, &Outcome::Conflict(remembered)).await;
    assert_eq!(test.figure(&collector, "quarantined_files"), 0);
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn what_is_refused_after_it_was_spooled_goes_to_the_quarantine() {
    let test = Test::new();
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..2).await;
    tailer.expect(2, &Outcome::Ok).await;
    let _outputter = Outputter::start(&test.target, Next::Answer(common::conflict())).await;
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    assert_eq!(test.figure(&collector, "quarantined_files"), 2);
    assert_eq!(test.quarantined_packs(), [0, 1], "they can be read from there");
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_full_spool_sends_packs_back_and_goes_on_by_itself() {
    let test = Test::new();
    let small = ByteSize::kib(256);
    let collector = test.start_with(|config| config.spool.max_bytes = small).await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send_large(1, 0..200).await;
    until(|| !collector.status()().ready).await;
    let status = collector.status()();
    assert!(status.problems.iter().any(|problem| problem.contains("full")), "{:?}", status.problems);
    assert!(status.figures["spool_bytes"] <= small.0);
    until(|| test.figure(&collector, "unanswered_packs") == 0).await;

    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    tailer.expect(200, &Outcome::Ok).await;
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    until(|| collector.status()().ready).await;
    assert_eq!(outputter.offsets(1).len(), 200);
    assert!(outputter.offsets(1).is_sorted(), "{:?}", outputter.offsets(1));
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_segment_removed_by_hand_is_reported_with_its_packs_and_the_others_go_on() {
    for restart in [false, true] {
        let test = Test::new();
        let small = ByteSize::kib(4);
        let mut collector = test.start_with(|config| config.spool.segment_bytes = small).await;
        let mut tailer = Tailer::connect(collector.local_addr());
        for stream in 1..=60 {
            tailer.send(stream, 0..1).await;
        }
        tailer.expect(60, &Outcome::Ok).await;
        if restart {
            collector.stop().await.expect("a clean stop");
            test.remove_segment();
            collector = test.start_with(|config| config.spool.segment_bytes = small).await;
        } else {
            test.remove_segment();
        }
        let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
        until(|| test.figure(&collector, "spool_packs") == 0).await;
        let lost = test.figure(&collector, "spool_packs_lost");
        let arrived: usize = (1..=60).map(|stream| outputter.offsets(stream).len()).sum();
        assert!(lost > 0 && arrived > 0 && lost as usize + arrived == 60, "{lost} lost, {arrived} arrived");
        let problems = collector.status()().problems;
        assert!(
            problems.iter().any(|problem| problem.contains("1 of its files were removed")),
            "{problems:?}"
        );
        collector.stop().await.expect("a clean stop");
    }
}

#[tokio::test]
async fn packs_without_a_stream_are_refused_by_name() {
    let test = Test::new();
    let _outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start().await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send_without_stream().await;
    tailer.expect(1, &Outcome::Rejected { reason: "no_stream".into() }).await;
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn a_stop_spools_what_a_silent_target_does_not_answer() {
    let test = Test::new();
    let outputter = Outputter::start(&test.target, Next::Hold).await;
    let collector = test
        .start_with(|config| {
            config.relay.spool_after = Interval::secs(60);
            config.relay.slow_after = Interval::secs(60);
            config.relay.stop_grace = Interval::ms(100);
        })
        .await;
    let mut tailer = Tailer::connect(collector.local_addr());
    tailer.send(1, 0..4).await;
    until(|| outputter.held() == 4).await;
    let stopping = tokio::time::timeout(Duration::from_secs(9), collector.stop());
    stopping.await.expect("a stop is bounded").expect("a clean stop");
    tailer.expect(4, &Outcome::Ok).await;
    outputter.stop().await;

    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start().await;
    until(|| test.figure(&collector, "spool_packs") == 0).await;
    assert_eq!(outputter.offsets(1), [0, 1, 2, 3]);
    collector.stop().await.expect("a clean stop");
}

#[tokio::test]
async fn the_footprint_stays_within_its_memory_and_what_it_forgets_is_only_sent_once_more() {
    let test = Test::new();
    let outputter = Outputter::start(&test.target, Next::Answer(Answer::Ok)).await;
    let collector = test.start_with(|config| config.relay.footprint_memory = ByteSize(10_000)).await;
    let mut tailer = Tailer::connect(collector.local_addr());
    for stream in 1..=300 {
        tailer.send(stream, 0..1).await;
    }
    tailer.expect(300, &Outcome::Ok).await;
    assert!(test.figure(&collector, "footprint_bytes") <= 10_000);
    assert!(test.figure(&collector, "streams_forgotten_total") > 100);
    tailer.send(1, 0..1).await;
    tailer.expect(1, &Outcome::Ok).await;
    assert_eq!(outputter.offsets(1), [0, 0], "the outputter, not the collector, decides");
    collector.stop().await.expect("a clean stop");
}
