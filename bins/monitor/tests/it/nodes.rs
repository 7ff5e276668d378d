//! Messages of nodes, legacy and ours, against a running monitor.

use crate::support::{Peer, config, database, ours, sqlite, start, wait_until, with};
use logferry_monitor::registry::State;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `{"err":"0","msg":"success"}` with its length, as legacy nodes read it.
const SUCCESS: &[u8] = b"\x1b\0\0\0{\"err\":\"0\",\"msg\":\"success\"}";

/// The six messages that two legacy nodes sent: register, warning, register, error, warning, unregister; byte by byte.
const RECORDED: &[u8] = include_bytes!("../data/node-messages.bin");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_legacy_nodes_register_log_and_leave() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = sqlite(dir.path());
    let monitor = start(&config(dir.path(), &url)).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for piece in RECORDED.chunks(7) {
        peer.0.write_all(piece).await.expect("sent");
    }
    let mut answers = vec![0; 3 * SUCCESS.len()];
    peer.0.read_exact(&mut answers).await.expect("three answers");
    assert_eq!(answers, SUCCESS.repeat(3));
    let errors = monitor.monitor.errors(100, |entry| entry.kind == "WARNING" || entry.kind == "ERROR");
    let told: Vec<_> = errors.iter().rev().map(|error| (error.kind.as_str(), error.port)).collect();
    assert_eq!(told, [("WARNING", 34001), ("ERROR", 34001), ("WARNING", 34001)]);
    assert!(errors[0].text.contains("721.784µs"), "{}", errors[0].text);
    let nodes = monitor.monitor.nodes();
    assert_eq!(nodes.len(), 2);
    monitor.stop().await;
    let mut database = database(&url).await;
    let rows = database.legacy_nodes().await.expect("rows");
    assert_eq!(rows.len(), 1, "the one that unregistered is gone: {rows:?}");
    assert_eq!((rows[0].ip.as_str(), rows[0].host.as_str()), ("10.0.0.7", "web-1"));
}

#[tokio::test]
async fn requests_that_are_unknown_or_unclear_are_answered_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let mut peer = Peer::connect(monitor.addr).await;
    assert_eq!(peer.ask(&[("req", "dance"), ("ip", "10.0.0.7"), ("port", "4000")]).await.0, "-1");
    assert_eq!(peer.ask(&[("req", "register"), ("ip", "10.0.0.7")]).await.0, "1");
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    monitor.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_end_their_connection_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let mut good = Peer::connect(monitor.addr).await;
    for bytes in [&[0xff; 16][..], b"GET / HTTP/1.1\r\n\r\n", b"\x02\0\0\0{}\x02\0\0\0[]"] {
        let mut bad = Peer::connect(monitor.addr).await;
        bad.0.write_all(bytes).await.expect("sent");
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), bad.0.read_to_end(&mut rest))
            .await
            .expect("closed");
    }
    assert_eq!(good.ask(&ours("register", "web-1", "a1")).await.0, "0");
    monitor.stop().await;
}

#[tokio::test]
async fn heartbeats_bring_status_and_reports_are_stored_with_the_nodes_own_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = sqlite(dir.path());
    let monitor = start(&config(dir.path(), &url)).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let status = r#"{"ready":true,"lag_bytes":42,"every_ms":10000,"from_the_future":[1]}"#;
    assert_eq!(peer.ask(&with(ours("heartbeat", "web-1", "a1"), &[("status", status)])).await.0, "0");
    let unix_ms = (monitor.monitor.now().unix_ms - 60_000).to_string();
    let report = [("type", "ERROR"), ("msg", "disk <b>full</b>"), ("unix_ms", unix_ms.as_str())];
    assert_eq!(peer.ask(&with(ours("report", "web-1", "a1"), &report)).await.0, "0");
    let node = &monitor.monitor.nodes()[0];
    assert_eq!(node.status.as_ref().map(|status| status.lag_bytes), Some(42));
    assert_eq!(monitor.monitor.errors(1, |_| true)[0].unix_ms.to_string(), unix_ms);
    monitor.stop().await;
    let stored = database(&url).await.errors(10).await.expect("errors");
    assert_eq!((stored.len(), stored[0].text.as_str()), (1, "disk <b>full</b>"));
}

#[tokio::test]
async fn a_node_that_does_not_answer_probes_turns_silent_and_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let alive = tokio::spawn(answer_probes(listener));
    let mut peer = Peer::connect(monitor.addr).await;
    let port_text = port.to_string();
    let register = [
        ("req", "register"),
        ("ip", "127.0.0.1"),
        ("port", &port_text),
        ("hostname", "web-1"),
        ("role", "tail"),
    ];
    assert_eq!(peer.ask(&register).await.0, "0");
    let state = || monitor.monitor.nodes()[0].row.state;
    alive.abort();
    wait_until("silent", async || state() == State::Silent).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("bound again");
    let alive = tokio::spawn(answer_probes(listener));
    wait_until("up again", async || state() == State::Up).await;
    let kinds: Vec<_> = monitor.monitor.errors(10, |_| true).into_iter().map(|error| error.kind).collect();
    assert_eq!(kinds, ["heart-beat", "no heart-beat"]);
    alive.abort();
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_holds_up_no_probe_of_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), "");
    // what hangs does so for the whole test
    config.check.probe_timeout = logferry_node::config::Interval::secs(600);
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let mut register = async |name: &str, listener: &tokio::net::TcpListener| {
        let port = listener.local_addr().expect("an address").port().to_string();
        let message =
            [("req", "register"), ("ip", "127.0.0.1"), ("port", &port), ("hostname", name), ("role", "tail")];
        assert_eq!(peer.ask(&message).await.0, "0");
    };
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    register("mute", &mute).await;
    let (held, _) = mute.accept().await.expect("it is probed");
    let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    register("good", &good).await;
    for _ in 0..5 {
        let (mut stream, _) = good.accept().await.expect("it is probed");
        stream.write_all(b"!").await.expect("answered");
    }
    drop(good);
    wait_until("silent", async || {
        monitor.monitor.nodes().iter().any(|node| node.row.name == "good" && node.row.state == State::Silent)
    })
    .await;
    drop(held);
    monitor.stop().await;
}

async fn answer_probes(listener: tokio::net::TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let _ = stream.write_all(b"!").await;
    }
}
