//! A database that is slow, or busy, but there: what waits for it is written.

use crate::support::mariadb::MariaDb;
use crate::support::{Peer, config, database, entry, ours, proxy, start, wait_until, with};
use logferry_monitor::registry::{Change, ErrorEntry};
use logferry_node::config::Interval;
use logferry_node::monitor::hours::HourNews;
use mysql_async::prelude::Queryable;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_database_takes_all_although_a_transaction_takes_longer_than_an_answer_may() {
    let Some(server) = MariaDb::start("a_distant_database_takes_all") else { return };
    drop(database(&server.url()).await);
    let near = ([127, 0, 0, 1], server.port()).into();
    let addr = proxy::delayed(near, Duration::from_millis(10)).await;
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), &format!("mysql://logferry:secret@{addr}/logferry"));
    config.database.timeout = Interval::ms(400);
    config.check.interval = Interval::secs(30);
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for number in 0..20 {
        let name = format!("web-{number}");
        let message = ours("register", &name, &name);
        assert_eq!(
            peer.ask(&with(message, &[("port", "4000"), ("ip", &format!("10.0.0.{number}"))])).await.0,
            "0"
        );
    }
    let hour =
        |number: u32| HourNews { host: format!("web-{number}"), hour: 2026112101, ..HourNews::default() };
    let hours = serde_json::to_string(&(0..300).map(hour).collect::<Vec<_>>()).expect("JSON");
    assert_eq!(peer.ask(&with(ours("hours", "out-1", "o1"), &[("hours", &hours)])).await.0, "0");
    wait_until("all is written", async || monitor.monitor.journal_waiting() == 0).await;
    monitor.stop().await;
    let mut database = database(&server.url()).await;
    assert_eq!(
        (database.nodes().await.expect("nodes").len(), database.hours(999).await.expect("hours").len()),
        (20, 300)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_that_cannot_be_deleted_hold_up_nothing_and_are_told() {
    let Some(server) = MariaDb::start("old_rows_that_cannot_be_deleted") else { return };
    let mut filled = database(&server.url()).await;
    let old = |number: i64| Change::Error(ErrorEntry { unix_ms: number, ..entry("old") });
    let changes: Vec<Change> = (0..5).map(old).collect();
    assert_eq!(filled.applied(1).await.expect("asked"), 0);
    filled.apply(1, (0, 5), &changes.iter().collect::<Vec<_>>()).await.expect("written");
    let mut other = mysql_async::Conn::from_url(server.url()).await.expect("connected");
    other.query_drop("BEGIN").await.expect("begun");
    other.query_drop("SELECT id FROM logferry_error WHERE id = 1 FOR UPDATE").await.expect("locked");

    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), &server.url());
    config.database.timeout = Interval::ms(500);
    config.database.keep_errors = Interval::secs(60);
    let monitor = start(&config).await;
    let now = monitor.monitor.now();
    monitor.monitor.registry().compare_clock(now.unix_ms, now);
    wait_until("it is told", async || {
        let is_of_the_lock =
            |problem: &String| problem.contains("old rows") && !problem.contains("the clock");
        monitor.monitor.status().problems.iter().any(is_of_the_lock)
    })
    .await;
    let mut peer = Peer::connect(monitor.addr).await;
    let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", "new")]);
    assert_eq!(peer.ask(&report).await.0, "0");
    wait_until("written", async || monitor.monitor.journal_waiting() == 0).await;
    let problems = monitor.monitor.status().problems;
    assert!(!problems.iter().any(|problem| problem.contains("away")), "{problems:?}");
    other.query_drop("ROLLBACK").await.expect("released");
    monitor.stop().await;
    assert_eq!(filled.errors(10).await.expect("errors").len(), 6);
}
