//! What comes in at the port of the nodes is bounded: connections, time and memory, however it stalls.

use crate::support::{Peer, config, ours, start, wait_until, with};
use logferry_node::config::{ByteSize, Interval};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest that the monitor may take for what it does at once.
const PATIENCE: Duration = Duration::from_secs(20);

async fn is_closed(peer: &mut Peer) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(PATIENCE, peer.0.read(&mut byte)).await.expect("an end"), Ok(0) | Err(_))
}

#[tokio::test]
async fn a_message_that_begins_and_does_not_end_ends_its_connection_and_quiet_nodes_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    config.listen.frame_timeout = Interval::ms(300);
    let monitor = start(&config).await;
    let mut quiet = Peer::connect(monitor.addr).await;
    assert_eq!(quiet.ask(&ours("register", "web-1", "a1")).await.0, "0");
    for begun in [&b"\x90"[..], b"\x90\x01\0\0{\"req\":"] {
        let mut stalled = Peer::connect(monitor.addr).await;
        stalled.0.write_all(begun).await.expect("sent");
        assert!(is_closed(&mut stalled).await);
    }
    assert_eq!(quiet.ask(&ours("register", "web-1", "a1")).await.0, "0");
    monitor.stop().await;
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    config.listen.connections_per_address = 2;
    let monitor = start(&config).await;
    let mut first = Peer::connect(monitor.addr).await;
    let mut second = Peer::connect(monitor.addr).await;
    for peer in [&mut first, &mut second] {
        assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    }
    assert!(is_closed(&mut Peer::connect(monitor.addr).await).await);
    drop(first);
    wait_until("there is a place again", async || {
        let mut peer = Peer::connect(monitor.addr).await;
        let byte = tokio::time::timeout(Duration::from_millis(100), peer.0.read_u8()).await;
        byte.is_err()
    })
    .await;
    monitor.stop().await;
}

#[tokio::test]
async fn large_messages_that_stall_hold_up_other_large_ones_alone_and_not_for_ever() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    config.listen.unfinished_max = ByteSize::mib(1);
    config.listen.frame_timeout = Interval::secs(2);
    let monitor = start(&config).await;
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let mut peer = Peer::connect(monitor.addr).await;
        // 127 KiB are announced
        peer.0.write_all(&[0x80, 0xf8, 0x07, 0, b'{']).await.expect("sent");
        stalled.push(peer);
    }
    let mut peer = Peer::connect(monitor.addr).await;
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0", "small ones pass");
    let long = "x".repeat(64 << 10);
    wait_until("a large one passes, too", async || {
        let mut peer = Peer::connect(monitor.addr).await;
        peer.tell(&with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &long)])).await;
        peer.0.read_u8().await.is_ok()
    })
    .await;
    for mut peer in stalled {
        assert!(is_closed(&mut peer).await);
    }
    monitor.stop().await;
}
