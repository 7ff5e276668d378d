//! The whole output behind a real listener, on real files: packs come in over the link and end in the files, once.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::running::{Client, folders_in as folders, start, until};
use crate::common::{Bodies, Stream, assert_exactly, pack, stream};
use logferry_durable::RealDisk;
use logferry_durable::faulty::Random;
use logferry_link::Outcome;
use logferry_node::config::Interval;
use logferry_outputter::file::headers::{Line, parse_line};
use logferry_pack::{Codec, Pack, StreamId};

fn streams(seed: u64) -> Vec<Stream> {
    let mut random = Random::new(seed);
    (0..3).map(|number| stream(number, 60, Bodies::Verbatim, &mut random)).collect()
}

/// Packs of all streams, turn by turn.
fn interleaved(streams: &[Stream]) -> impl Iterator<Item = &Pack> {
    (0..60).flat_map(move |index| streams.iter().map(move |stream| &stream.packs[index]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_end_in_their_files_once_also_when_sent_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let streams = streams(1);
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    let outcomes = client.deliver(interleaved(&streams)).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Ok), "{outcomes:?}");
    running.stop().await;

    let running = start(dir.path(), |file| file.open_files_max = 2).await;
    let mut client = Client::new(&running.addr);
    let outcomes = client.deliver(interleaved(&streams)).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Duplicate), "{outcomes:?}");
    running.stop().await;
    assert_exactly(&RealDisk, &folders(dir.path()), &streams, true);
    let path = dir.path().join("out/headers/access/host-0_2026112100");
    let headers = std::fs::read_to_string(path).unwrap();
    for line in headers.lines() {
        let Some(Line::Pack(header)) = parse_line(line.as_bytes()) else { panic!("{line}") };
        let [hop] = &header.hops[..] else { panic!("each line has the outputter's hop: {line}") };
        assert_eq!((&hop["ip"], &hop["stage"]), (&"127.0.0.1".into(), &"tcp recv".into()));
        assert_ne!(hop["elapse"], "0ns", "reading takes time");
        let time = |key: &str| hop[key].as_str().unwrap().parse::<jiff::civil::DateTime>().unwrap();
        let took = time("ed").duration_since(time("st"));
        assert!((0..20).contains(&took.as_secs()), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_behind_a_gap_are_held_and_written_in_order_when_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let streams = vec![stream(0, 20, Bodies::Verbatim, &mut Random::new(2))];
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    for pack in streams[0].packs.iter().skip(1) {
        client.submit(pack).await;
    }
    until("19 packs are held", || (running.order_figures)().held_packs == 19).await;
    let mut other_way = Client::new(&running.addr);
    assert_eq!(other_way.deliver(streams[0].packs.iter().take(1)).await, [Outcome::Ok]);
    for _ in 1..20 {
        assert_eq!(client.outcome().await, Outcome::Ok);
    }
    running.stop().await;
    assert_exactly(&RealDisk, &folders(dir.path()), &streams, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_stays_is_passed_over_and_counted_and_what_comes_late_is_written_late() {
    let dir = tempfile::tempdir().unwrap();
    let streams = vec![stream(0, 4, Bodies::Verbatim, &mut Random::new(3))];
    let running = start(dir.path(), |file| file.reorder_wait = Interval::ms(50)).await;
    let mut client = Client::new(&running.addr);
    let late = client.deliver(streams[0].packs.iter().skip(1)).await;
    assert_eq!(late, [Outcome::Ok, Outcome::Ok, Outcome::Ok]);
    assert_eq!(running.figures.by_name(&Default::default())["inversions_total"], 1);
    assert_eq!(client.deliver(streams[0].packs.iter().take(1)).await, [Outcome::Ok]);
    running.stop().await;
    assert_exactly(&RealDisk, &folders(dir.path()), &streams, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_whose_body_is_not_what_it_says_is_rejected_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    let good = |offset| pack(StreamId(9), "web", 2026112100, offset, b"123456789\n", Codec::Zlib);
    let mut bad = good(10);
    bad.header.ours.as_mut().unwrap().identity.sum ^= 1;
    let outcomes = client.deliver([good(0), bad, good(20), good(30)].iter()).await;
    let ok = outcomes.iter().filter(|outcome| **outcome == Outcome::Ok).count();
    assert_eq!(ok, 3, "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Outcome::Rejected { .. })), "{outcomes:?}");
    running.stop().await;
    let written = std::fs::read(dir.path().join("out/log_data/access/web_2026112100")).unwrap();
    assert_eq!(written, b"123456789\n".repeat(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_at_a_written_place_is_a_conflict_with_what_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    let first = pack(StreamId(9), "web", 2026112100, 0, b"123456789\n", Codec::Zlib);
    let other = pack(StreamId(9), "web", 2026112100, 0, b"987654321\n", Codec::Zlib);
    assert_eq!(client.deliver([first].iter()).await, [Outcome::Ok]);
    let outcomes = client.deliver([other].iter()).await;
    let [Outcome::Conflict(remembered)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((remembered.frontier, remembered.packs.len()), (10, 1));
    assert_eq!(running.figures.by_name(&Default::default())["conflicts_total"], 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_folder_is_not_followed_and_the_packs_wait_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |_| {}).await;
    let link = dir.path().join("out/log_data/access");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let mut client = Client::new(&running.addr);
    let first = pack(StreamId(9), "web", 2026112100, 0, b"123456789\n", Codec::Zlib);
    client.submit(&first).await;
    until("the problem is shown", || !running.figures.problems().is_empty()).await;
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    std::fs::remove_file(&link).unwrap();
    assert_eq!(client.outcome().await, Outcome::Ok);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_as_long_as_can_be_have_files_of_their_own_and_are_found_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = ["h".repeat(255), "h".repeat(254) + "i"];
    let pack_at = |host: &String, offset: u64| {
        pack(StreamId(host.ends_with('i').into()), host, 2026112100, offset, b"1\n", Codec::None)
    };
    for offset in [0, 2] {
        let running = start(dir.path(), |_| {}).await;
        let mut client = Client::new(&running.addr);
        let packs: Vec<Pack> = hosts.iter().map(|host| pack_at(host, offset)).collect();
        assert_eq!(client.deliver(packs.iter()).await, [Outcome::Ok, Outcome::Ok]);
        running.stop().await;
    }
    let files =
        logferry_outputter::file::walk::files_below(&RealDisk, &folders(dir.path()).data, "").unwrap().files;
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(std::fs::read(folders(dir.path()).data.join(file)).unwrap(), b"1\n1\n");
    }
}
