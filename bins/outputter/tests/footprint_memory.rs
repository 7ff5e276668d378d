//! What is remembered of streams stays within its memory, and the limit gives up neither bytes nor exactly-once: packs of
//! new streams wait.

#![allow(clippy::unwrap_used)] // test code outside of test functions

#[path = "it/common/mod.rs"]
mod common;

use common::running::{Client, folders_in, start, until};
use common::{identity, pack, parcel, read_output};
use logferry_durable::RealDisk;
use logferry_footprint::{Footprint, WhenFull};
use logferry_link::{Answer, Outcome};
use logferry_node::config::ByteSize;
use logferry_outputter::file::order::{Action, Order, OrderLimits};
use logferry_pack::{Codec, Pack, StreamId};
use std::collections::BTreeSet;

const LIMITS: OrderLimits =
    OrderLimits { reorder_wait_ms: 1, hold_answer_ms: 1_000, hold_bytes_max: 1 << 20 };
const MEMORY_BYTES: usize = 20_000;

/// The `index`-th pack of a stream, ten bytes long.
fn pack_of(stream: u64, index: u64) -> Pack {
    let line = format!("{stream:4} {index:4}\n");
    pack(StreamId(stream.into()), "web", 2026112100, index * 10, line.as_bytes(), Codec::None)
}

fn is_full(order: &Order<u64>) -> bool {
    order.figures().footprint_is_full
}

/// Offers a pack and commits it, if it is accepted. Gives the answer.
fn deliver(order: &mut Order<u64>, pack: &Pack, now_unix: u64) -> Answer {
    let mut actions = order.offered(0, parcel(pack), 0);
    if let [Action::Write(accepted, _)] = actions[..] {
        actions = order.committed(&[accepted], now_unix);
    }
    let Ok([Action::Answer(0, answer)]) = <[_; 1]>::try_from(actions) else { panic!("one answer") };
    answer
}

#[test]
fn a_full_footprint_has_new_streams_wait_until_old_ones_expire_and_knows_all_others() {
    let mut order = Order::new(LIMITS, Footprint::default().limited(MEMORY_BYTES, WhenFull::RefuseNew));
    let mut streams = 0;
    while !is_full(&order) {
        assert_eq!(deliver(&mut order, &pack_of(streams, 0), 1_000 + streams), Answer::Ok);
        streams += 1;
    }
    assert!(streams > 100, "{streams} streams in {MEMORY_BYTES} bytes");
    assert!(matches!(deliver(&mut order, &pack_of(streams, 0), 5_000), Answer::Busy { .. }));
    for stream in [0, 1, streams - 1] {
        assert_eq!(deliver(&mut order, &pack_of(stream, 0), 5_000), Answer::Duplicate);
        assert_eq!(deliver(&mut order, &pack_of(stream, 1), 5_000), Answer::Ok);
        assert!(matches!(deliver(&mut order, &pack_of(stream, 5), 5_000), Answer::Busy { .. }), "a new gap");
    }
    assert!(order.figures().footprint_bytes <= MEMORY_BYTES as u64);
    assert!(order.expire(0, 5_000, 1_000) > 100);
    assert!(!is_full(&order));
    assert_eq!(deliver(&mut order, &pack_of(streams, 0), 5_000), Answer::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_setting_bounds_it_also_over_a_restart_and_what_was_acknowledged_stays_known() {
    let dir = tempfile::tempdir().unwrap();
    let small = |file: &mut logferry_outputter::FileSettings| {
        file.footprint_memory = ByteSize(MEMORY_BYTES as u64);
    };
    let running = start(dir.path(), small).await;
    let mut client = Client::new(&running.addr);
    let mut streams_written = 0;
    while !(running.order_figures)().footprint_is_full {
        assert_eq!(client.deliver([pack_of(streams_written, 0)].iter()).await, [Outcome::Ok]);
        streams_written += 1;
    }
    client.submit(&pack_of(streams_written, 0)).await;
    let busy = || running.figures.by_name(&Default::default())["busy_total"] > 0;
    until("the new stream is told to come later", busy).await;
    let figures = (running.order_figures)();
    assert_eq!(figures.streams, streams_written);
    assert!(figures.footprint_bytes <= MEMORY_BYTES as u64, "{figures:?}");
    running.stop().await;
    drop(client);

    let running = start(dir.path(), small).await;
    let figures = (running.order_figures)();
    assert!(figures.footprint_bytes <= MEMORY_BYTES as u64, "{figures:?}");
    let written = read_output(&RealDisk, &folders_in(dir.path()));
    let streams: BTreeSet<u128> = written.iter().map(|(_, pack)| pack.stream.0).collect();
    assert_eq!((streams.len(), written.len() as u64), (written.len(), figures.streams));
    let mut client = Client::new(&running.addr);
    for stream in streams {
        let known = pack_of(stream as u64, 0);
        assert_eq!(identity(&known).stream.0, stream);
        assert_eq!(client.deliver([known].iter()).await, [Outcome::Duplicate]);
    }
    running.stop().await;
}
