//! An operator takes out nodes, with SQLite and with MariaDB: they do not come back unless they speak.

use crate::support::http::{delete, get_json, served};
use crate::support::mariadb::MariaDb;
use crate::support::raw::Raw;
use crate::support::{Peer, config, ours, start, wait_until, with};
use logferry_monitor::registry::State;
use logferry_node::config::Interval;
use serde_json::{Value, json};

/// Of a node that is silent soon after: it announces a heartbeat each millisecond, and no probe is answered.
fn beat<'a>(name: &'a str, instance: &'a str, port: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut message = ours("heartbeat", name, instance);
    message.retain(|(key, _)| *key != "port");
    with(message, &[("port", port), ("status", r#"{"ready":true,"every_ms":1}"#)])
}

async fn forgets_for_good(raw: Raw<'_>) {
    let dir = tempfile::tempdir().expect("a folder");
    raw.run("CREATE TABLE IF NOT EXISTS other (id INT)").await;
    let mut config = config(dir.path(), &raw.url());
    config.alert.hold = Interval::ms(0);
    let monitor = start(&config).await;
    let addr = served(&monitor).await;
    wait_until("the database is read", async || monitor.monitor.status().problems.is_empty()).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let legacy =
        [("req", "register"), ("ip", "127.0.0.1"), ("hostname", "old-1"), ("role", "tail"), ("port", "2")];
    assert_eq!(peer.ask(&legacy).await.0, "0");
    assert_eq!(peer.ask(&beat("web-1", "a1", "1")).await.0, "0");
    assert_eq!(peer.ask(&beat("web-2", "b2", "0")).await.0, "0");
    let open = async || get_json(addr, "/api/alerts").await["open"].as_array().map_or(0, Vec::len);
    wait_until("two are silent", async || open().await >= 2).await;
    raw.run("INSERT INTO registered_node VALUES ('127.0.0.1', 3, 'tail', 'by-hand', '2019-05-05 10:00:00')")
        .await;
    wait_until("all are silent", async || {
        let nodes = monitor.monitor.nodes();
        nodes.len() == 4 && nodes.iter().all(|node| node.row.state == State::Silent) && open().await == 4
    })
    .await;

    for name in ["web-1", "127.0.0.1:2", "b2", "by-hand"] {
        let (code, body) = delete(addr, &format!("/api/nodes/{name}"), &[]).await;
        assert_eq!(code, 200, "{name}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["state"], "silent");
        let is_legacy = matches!(name, "127.0.0.1:2" | "by-hand");
        assert_eq!(
            answer["note"].as_str().expect("a note").contains("next heartbeat"),
            !is_legacy,
            "{answer}"
        );
        assert_eq!(delete(addr, &format!("/api/nodes/{name}"), &[]).await.0, 404);
    }
    wait_until("their alerts are over", async || open().await == 0).await;
    let history = get_json(addr, "/api/alerts").await["history"].clone();
    assert_eq!(history[0]["text"], "the node is not registered any more", "{history}");
    wait_until("their rows are gone", async || {
        raw.texts("SELECT id FROM logferry_node").await.is_empty()
            && raw.texts("SELECT hostname FROM registered_node").await.is_empty()
    })
    .await;
    monitor.stop().await;
    let monitor = start(&config).await;
    wait_until("the database is read", async || monitor.monitor.status().problems.is_empty()).await;
    assert!(monitor.monitor.nodes().is_empty());
    let mut peer = Peer::connect(monitor.addr).await;
    assert_eq!(peer.ask(&beat("web-2", "b2", "0")).await.0, "0");
    assert_eq!(monitor.monitor.nodes()[0].row.id, "b2", "whoever speaks is there");
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_forgotten_have_no_rows_and_no_alerts_in_sqlite() {
    let dir = tempfile::tempdir().expect("a folder");
    forgets_for_good(Raw::Sqlite(dir.path().join("monitor.db"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_forgotten_have_no_rows_and_no_alerts_in_mariadb() {
    let Some(server) = MariaDb::start("nodes_that_are_forgotten") else { return };
    forgets_for_good(Raw::MariaDb(&server, "forgotten")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lives_is_forgotten_only_by_force_and_is_back_with_its_next_heartbeat() {
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), "")).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let status = [("status", r#"{"ready":true,"every_ms":3600000}"#)];
    let beat = with(ours("heartbeat", "out-1", "o1"), &status);
    assert_eq!(peer.ask(&beat).await.0, "0");
    let hours =
        json!([{ "host": "web-1", "source": "access", "hour": 2026112101, "state": "complete", "total": 1 }]);
    let hours = hours.to_string();
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o1"), &[("hours", &hours)])).await.0, "0");
    let (code, body) = delete(addr, "/api/nodes/out-1", &[]).await;
    assert!(code == 409 && body.contains("insist"), "{code} {body}");
    let (code, body) = delete(addr, "/api/nodes/out1", &[]).await;
    assert!(code == 404 && body.contains(r#"did you mean \"out-1\"?"#), "{code} {body}");
    assert_eq!(delete(addr, "/api/nodes/out-1?force=true", &[]).await.0, 200);
    assert!(monitor.monitor.nodes().is_empty());
    assert_eq!(peer.ask(&beat).await.0, "0");
    assert_eq!(get_json(addr, "/api/nodes").await[0]["state"], "up");

    // another of its name tells of the same hour: what the first one told counts beside it
    let other = hours.replace("complete", "open");
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o2"), &[("hours", &other)])).await.0, "0");
    assert_eq!(peer.ask(&with(ours("heartbeat", "out-1", "o2"), &status)).await.0, "0");
    let outputters = get_json(addr, "/api/hours").await["hours"][0]["outputters"].clone();
    assert_eq!(outputters.as_array().map(Vec::len), Some(2), "{outputters}");
    let (code, body) = delete(addr, "/api/nodes/out-1?force=true", &[]).await;
    assert!(code == 409 && body.contains("o1: ") && body.contains("o2: "), "{code} {body}");
    assert_eq!(delete(addr, "/api/nodes/o2?force=true", &[]).await.0, 200);
    assert_eq!(monitor.monitor.nodes()[0].row.id, "o1");
    monitor.stop().await;
}
