//! The tailer's own spool: files may vanish while no target is there, and nothing is lost, or counted as lost, that the spool has.

use crate::common::{Manner, Rig, Tier, append, figure, lines, wait_until};
use logferry_durable::faulty::{Faults, FaultyDisk};
use logferry_node::config::ByteSize;
use logferry_pack::Codec;
use std::net::TcpListener;
use std::sync::Arc;

/// A rig whose source has a spool, and whose target is not there.
fn rig(tier: &Tier) -> Rig {
    let mut rig = Rig::new(tier);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    rig.config.send.to = vec![nobody.to_string()];
    rig.config.source[0].spool = true;
    rig
}

/// The same with a target that is there.
fn with_target(mut rig: Rig, tier: &Tier) -> Rig {
    rig.config.send.to = vec![tier.addr.to_string()];
    rig
}

fn assert_in_order(tier: &Tier) {
    let state = tier.lock();
    let offsets = state.seen.iter().map(|seen| seen.identity.offset);
    assert!(offsets.is_sorted(), "packs of a stream came out of order");
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_only_the_spool_knows_after_a_power_loss_are_neither_lost_nor_sent_twice() {
    let tier = Tier::start().await;
    let mut rig = rig(&tier);
    let disk = FaultyDisk::new(7);
    rig.disk = Arc::new(disk.clone());
    let written = lines(0, 3000);
    append(&rig.log(), &written);
    let tailer = rig.start();
    wait_until("all is in the spool", || {
        figure(&tailer, "bytes_total") == written.len() as u64 && figure(&tailer, "caught_up") == 1
    });
    // The state log does not have the last of it on the disk yet.
    disk.set_faults(Faults { die_after: Some(0), ..Faults::default() });
    tailer.stop().await.expect("stopped");
    disk.crash();
    std::fs::remove_file(rig.log()).expect("the file vanishes");

    let rig = with_target(rig, &tier);
    let tailer = rig.start();
    tier.wait_stored(&written);
    wait_until("the spool is empty", || figure(&tailer, "spool_packs") == 0);
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    assert_eq!(tier.lock().duplicates, 0);
    assert_in_order(&tier);
    tailer.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_packs_of_a_stream_queue_behind_those_in_the_spool() {
    let tier = Tier::start().await;
    let rig = rig(&tier);
    append(&rig.log(), lines(0, 500));
    let tailer = rig.start();
    wait_until("all is in the spool", || figure(&tailer, "caught_up") == 1);
    let spooled = figure(&tailer, "spool_packs");
    tailer.stop().await.expect("stopped");

    let rig = with_target(rig, &tier);
    tier.behave(Manner::Silent);
    let tailer = rig.start();
    wait_until("the target is there", || !tier.lock().seen.is_empty());
    append(&rig.log(), lines(500, 500));
    wait_until("newer packs are in the spool, too", || figure(&tailer, "spool_packs") > spooled);
    tier.behave(Manner::Store);
    tier.wait_stored(&lines(0, 1000));
    wait_until("the spool is empty", || figure(&tailer, "spool_packs") == 0);
    tailer.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_stops_its_sources_and_no_others_and_says_so() {
    let tier = Tier::start().await;
    let mut rig = rig(&tier);
    rig.config.pack.codec = Codec::None;
    (rig.config.spool.max_bytes, rig.config.spool.segment_bytes) = (ByteSize::kib(64), ByteSize::kib(8));
    // What is written at once is one pack, so what was cut when the spool was found full is known to the byte.
    (rig.config.pack.max_bytes, rig.config.pack.max_line) = (ByteSize::kib(256), ByteSize::kib(256));
    let mut other = rig.config.source[0].clone();
    (other.name, other.spool) = ("other".into(), false);
    other.path = rig.at("other.log").to_str().expect("plain").into();
    rig.config.source.push(other);
    let (mut written, fills, more) = (lines(0, 1_000), lines(1_000, 1_000), lines(10_000, 100));
    let other = lines(50_000, 50);
    assert!(more.len() != other.len() && (written.len() + fills.len()) > (64 << 10));
    append(&rig.log(), &written);
    let tailer = rig.start();
    wait_until("the first pack is in the spool", || figure(&tailer, "spool_packs") == 1);
    append(&rig.log(), &fills);
    written.extend(fills);
    wait_until("the spool is full", || {
        figure(&tailer, "spool_full") == 1 && figure(&tailer, "bytes_total") == written.len() as u64
    });
    assert!(tailer.status()().problems.iter().any(|problem| problem.contains("spool")));
    append(&rig.log(), &more);
    append(&rig.at("other.log"), &other);
    let cut = (written.len() + other.len()) as u64;
    wait_until("the other file is read, and no more of the first", || figure(&tailer, "bytes_total") == cut);
    written.extend(more);
    tailer.stop().await.expect("stopped");

    let rig = with_target(rig, &tier);
    let tailer = rig.start();
    wait_until("all is stored", || {
        let mut contents = tier.contents();
        contents.sort_by_key(Vec::len);
        contents == [other.clone(), written.clone()]
    });
    wait_until("the spool is empty", || figure(&tailer, "spool_packs") == 0);
    assert_eq!((figure(&tailer, "lost_bytes"), figure(&tailer, "spool_full")), (0, 0));
    tailer.stop().await.expect("stopped");
}
