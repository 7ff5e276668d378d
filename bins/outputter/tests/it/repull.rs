//! A back-filled pack (`repull`) writes what is missing of it and nothing else, and what it wrote stays known.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::running::{Client, folders_in, start};
use crate::common::{identity, pack, parcel, read_output};
use logferry_durable::RealDisk;
use logferry_footprint::Footprint;
use logferry_link::{Answer, Outcome};
use logferry_node::config::Interval;
use logferry_outputter::file::order::{Action, Order, OrderLimits};
use logferry_pack::{Codec, Pack, StreamId};
use std::fs;
use std::path::Path;

const LIMITS: OrderLimits =
    OrderLimits { reorder_wait_ms: 0, hold_answer_ms: 1_000, hold_bytes_max: 1 << 20 };
const HOUR: u32 = 2026112100;

/// The stream's bytes: lines of ten bytes that tell their offset.
fn bytes(from: u64, to: u64) -> Vec<u8> {
    (from / 10..to / 10).flat_map(|line| format!("{:9}\n", line * 10).into_bytes()).collect()
}

fn piece(from: u64, to: u64) -> Pack {
    pack(StreamId(1), "web", HOUR, from, &bytes(from, to), Codec::Zlib)
}

fn repull(from: u64, to: u64) -> Pack {
    let mut pack = piece(from, to);
    pack.header.repull = true;
    pack
}

fn lines(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(format!("out/log_data/access/web_{HOUR}"))).unwrap()
}

/// The whole stream, put into order; panics if anything is there twice.
fn in_order(mut written: Vec<u8>) -> Vec<u8> {
    let (lines, rest) = written.as_chunks_mut::<10>();
    assert!(rest.is_empty());
    lines.sort_unstable();
    lines.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_missing_is_written_and_it_stays_known_without_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), |file| file.reorder_wait = Interval::ms(1)).await;
    let mut client = Client::new(&running.addr);
    for (from, to) in [(20, 40), (60, 80)] {
        assert_eq!(client.deliver([piece(from, to)].iter()).await, [Outcome::Ok]);
    }
    assert_eq!(client.deliver([repull(0, 100)].iter()).await, [Outcome::Ok]);
    let expected = [bytes(20, 40), bytes(60, 80), bytes(0, 20), bytes(40, 60), bytes(80, 100)].concat();
    assert_eq!(lines(dir.path()), expected);
    // The same pack, and one that was cut otherwise: all of it is there.
    assert_eq!(client.deliver([repull(0, 100)].iter()).await, [Outcome::Duplicate]);
    assert_eq!(client.deliver([repull(10, 90)].iter()).await, [Outcome::Duplicate]);
    assert_eq!(running.figures.by_name(&Default::default())["lines_total"], 10);
    running.stop().await;

    // The header file tells the same as the journal did.
    fs::remove_dir_all(dir.path().join("var")).unwrap();
    fs::create_dir(dir.path().join("var")).unwrap();
    let running = start(dir.path(), |_| {}).await;
    let mut client = Client::new(&running.addr);
    assert_eq!(client.deliver([repull(0, 100)].iter()).await, [Outcome::Duplicate]);
    assert_eq!(
        client.deliver([piece(20, 40), piece(60, 80)].iter()).await,
        [(); 2].map(|()| Outcome::Duplicate)
    );
    assert_eq!(client.deliver([repull(90, 120)].iter()).await, [Outcome::Ok]);
    running.stop().await;
    assert_eq!(in_order(lines(dir.path())), bytes(0, 120));
    let packs = read_output(&RealDisk, &folders_in(dir.path()));
    let ranges: Vec<(u64, u64)> = packs.iter().map(|(_, pack)| (pack.offset, pack.end())).collect();
    assert_eq!(ranges, [(20, 40), (60, 80), (0, 20), (40, 60), (80, 100), (100, 120)]);
}

fn order_with(seen: &[(u64, u64)]) -> Order<u32> {
    let mut footprint = Footprint::default();
    for (from, to) in seen {
        footprint.insert(&identity(&piece(*from, *to)), 0, 1);
    }
    Order::new(LIMITS, footprint)
}

#[test]
fn a_pack_that_is_no_repull_is_never_trimmed() {
    let mut order = order_with(&[(0, 20)]);
    let actions = order.offered(0, parcel(&piece(0, 40)), 1);
    assert!(matches!(&actions[..], [Action::Answer(1, Answer::Conflict(_))]), "{actions:?}");
}

#[test]
fn a_repull_whose_body_is_filtered_cannot_be_cut_and_is_a_conflict() {
    let mut order = order_with(&[(0, 20)]);
    let mut filtered = repull(0, 40);
    filtered.header.ours.as_mut().unwrap().raw = 10;
    let actions = order.offered(0, parcel(&filtered), 1);
    assert!(matches!(&actions[..], [Action::Answer(1, Answer::Conflict(_))]), "{actions:?}");
}

#[test]
fn a_repull_over_what_is_on_its_way_waits_until_that_is_durable() {
    let mut order = order_with(&[]);
    let actions = order.offered(0, parcel(&piece(0, 20)), 1);
    let Action::Write(first, _) = actions[0] else { panic!("{actions:?}") };
    let actions = order.offered(0, parcel(&repull(0, 40)), 2);
    assert!(matches!(actions[..], [Action::Answer(2, Answer::Busy { .. })]), "{actions:?}");
    order.committed(&[first], 1);
    let actions = order.offered(1, parcel(&repull(0, 40)), 3);
    let [Action::Write(_, parcel)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(parcel.trimmed_to, [(20, 40)]);
}
