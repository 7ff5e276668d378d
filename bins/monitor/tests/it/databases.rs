//! The same suite against SQLite and a real MariaDB, and MariaDB frozen, read-only and killed.

use crate::support::mariadb::MariaDb;
use crate::support::raw::Raw;
use crate::support::{Peer, config, database, entry, ours, sqlite, start, wait_until, with};
use logferry_monitor::alerts::{AlertRow, AlertState};
use logferry_monitor::database::{Database, Old, Url};
use logferry_monitor::registry::{Change, HourRow, NodeRow, State};
use logferry_node::monitor::hours::HourNews;
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

fn row(id: &str, port: u16, state: State) -> NodeRow {
    NodeRow {
        id: id.into(),
        ip: "10.0.0.7".into(),
        port,
        role: "tailer".into(),
        name: "wéb-1 🚢 <b>".into(),
        host: "host-1".into(),
        version: "0.1.0".into(),
        state,
        since_ms: 1_700_000_000_000,
        registered_ms: 1_700_000_000_000,
    }
}

fn hour(host: &str, lines: u64) -> HourRow {
    let (host, source) = (host.to_owned(), "ac cess 🚢".to_owned());
    let news =
        HourNews { host, source, hour: 2026112101, lines, missing: vec![(1, 9)], ..HourNews::default() };
    HourRow { node: "o1".into(), news, told_ms: 1_700_000_000_000 }
}

fn alert() -> AlertRow {
    AlertRow {
        id: 1_700_000_000_000,
        unix_ms: 1_700_000_000_000,
        kind: "lag".into(),
        subject: "tailer wéb-1 🚢".into(),
        state: AlertState::Raised,
        text: "'; DROP TABLE logferry_alert".into(),
        delivery: [("ops".to_owned(), "waiting".to_owned())].into(),
    }
}

/// What is written is read back; a node that moves or leaves has no row in the legacy table; nothing is written twice.
async fn keeps_what_it_is_given(url: &str) {
    let mut database = database(url).await;
    let changes = [
        Change::Node(row("a1", 4000, State::Up)),
        Change::Node(row("b2", 0, State::Up)),
        Change::Error(entry("quotes ' \" \\ and 🚢\u{202e}")),
        Change::Hour(hour("WEB-1", 3)),
        Change::Hour(hour("web-1", u64::MAX)),
        Change::Hour(hour("web-1", 4)),
        Change::Alert(alert()),
    ];
    assert_eq!(database.applied(u64::MAX).await.expect("asked"), 0);
    database.apply(u64::MAX, (0, 3), &changes.iter().collect::<Vec<_>>()).await.expect("written");
    database.apply(u64::MAX, (0, 3), &changes.iter().collect::<Vec<_>>()).await.expect_err("written already");
    assert_eq!(database.applied(u64::MAX).await.expect("asked"), 3);
    let mut nodes = database.nodes().await.expect("nodes");
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(nodes, [row("a1", 4000, State::Up), row("b2", 0, State::Up)]);
    let mut hours = database.hours(10).await.expect("hours");
    hours.sort_by(|one, other| one.news.host.cmp(&other.news.host));
    assert_eq!(hours, [hour("WEB-1", 3), hour("web-1", 4)]);
    assert_eq!(database.errors(10).await.expect("errors"), [entry("quotes ' \" \\ and 🚢\u{202e}")]);
    let ports = async |database: &mut Database| {
        let rows = database.legacy_nodes().await.expect("rows");
        rows.into_iter().map(|row| row.port).collect::<Vec<_>>()
    };
    assert_eq!(ports(&mut database).await, [4000]);
    let moved = [&Change::AddressLeft(row("a1", 4000, State::Up)), &Change::Node(row("a1", 4001, State::Up))];
    database.apply(u64::MAX, (3, 4), &moved).await.expect("moved");
    assert_eq!(ports(&mut database).await, [4001]);
    database.apply(u64::MAX, (4, 5), &[&Change::Node(row("a1", 4001, State::Left))]).await.expect("left");
    assert!(ports(&mut database).await.is_empty());
    database
        .apply(u64::MAX, (5, 6), &[&Change::Forgotten(row("b2", 0, State::Left))])
        .await
        .expect("forgotten");
    assert_eq!(database.nodes().await.expect("nodes").len(), 1);
    let others: Vec<Change> = (0..99).map(|number| Change::Error(entry(&number.to_string()))).collect();
    database.apply(u64::MAX, (6, 105), &others.iter().collect::<Vec<_>>()).await.expect("written");
    let texts: Vec<String> =
        database.errors(99).await.expect("errors").into_iter().map(|error| error.text).collect();
    assert_eq!(texts, (0..99).map(|number| number.to_string()).collect::<Vec<_>>(), "in their order");
    let mut deleted = async |old| database.prune(old, 60).await.expect("pruned");
    assert_eq!(deleted(Old::Errors(1_700_000_000_123)).await, 0);
    assert_eq!(deleted(Old::Errors(1_700_000_000_124)).await, 60, "a slice at a time");
    assert_eq!(deleted(Old::Errors(1_700_000_000_124)).await, 40);
    assert_eq!(deleted(Old::Hours(2026112101)).await, 0);
    assert_eq!(deleted(Old::Hours(2026112102)).await, 2);
    assert_eq!(deleted(Old::Alerts(i64::MAX)).await, 1);
    assert!(database.errors(10).await.expect("errors").is_empty());
    assert!(database.hours(10).await.expect("hours").is_empty());
}

/// Containers of two hosts may say one address: its row stays until the last of them has left.
async fn shares_addresses(url: &str) {
    let mut database = database(url).await;
    let at = database.applied(7).await.expect("asked");
    let changes = [row("s1", 4009, State::Up), row("s2", 4009, State::Up)].map(Change::Node);
    database.apply(7, (at, 1), &changes.iter().collect::<Vec<_>>()).await.expect("written");
    let is_there = async |database: &mut Database| {
        database.legacy_nodes().await.expect("rows").iter().any(|row| row.port == 4009)
    };
    database.apply(7, (1, 2), &[&Change::Node(row("s1", 4009, State::Left))]).await.expect("left");
    assert!(is_there(&mut database).await);
    database.apply(7, (2, 3), &[&Change::Forgotten(row("s2", 4009, State::Up))]).await.expect("forgotten");
    assert!(!is_there(&mut database).await);
}

/// A monitor that is started again knows its nodes and errors, and the tables are made once.
async fn remembers_over_a_restart(url: &str) {
    for round in 0..2 {
        let dir = tempfile::tempdir().expect("a folder, another each time");
        let monitor = start(&config(dir.path(), url)).await;
        if round == 0 {
            let mut peer = Peer::connect(monitor.addr).await;
            assert_eq!(peer.ask(&ours("register", "web-9", "c3")).await.0, "0");
            let report = with(ours("report", "web-9", "c3"), &[("type", "ERROR"), ("msg", "kept")]);
            assert_eq!(peer.ask(&report).await.0, "0");
        } else {
            wait_until("restored", async || {
                let knows = monitor.monitor.nodes().iter().any(|node| node.row.name == "web-9");
                knows && !monitor.monitor.errors(10, |entry| entry.text == "kept").is_empty()
            })
            .await;
        }
        monitor.stop().await;
    }
}

/// Ids that differ in case alone are two nodes, and an alert may be for any number of webhooks.
async fn takes_ids_and_deliveries_as_they_are(url: &str) {
    let mut database = database(url).await;
    let ids = ["case", "CASE", "Case"];
    let mut changes: Vec<Change> = ids.map(|id| Change::Node(row(id, 0, State::Up))).into();
    let delivery = (0..200).map(|number| (format!("webhook-{number}"), "waiting".to_owned())).collect();
    changes.push(Change::Alert(AlertRow { delivery, ..alert() }));
    let at = database.applied(9).await.expect("asked");
    database.apply(9, (at, 1), &changes.iter().collect::<Vec<_>>()).await.expect("written");
    database.apply(9, (1, 2), &[&Change::Forgotten(row("CASE", 0, State::Up))]).await.expect("forgotten");
    let mut found: Vec<String> =
        database.nodes().await.expect("nodes").into_iter().map(|row| row.id).collect();
    found.retain(|id| id.eq_ignore_ascii_case("case"));
    found.sort();
    assert_eq!(found, ["Case", "case"]);
}

async fn make_version_5(raw: &Raw<'_>, migrations: [&str; 5]) {
    raw.run("CREATE TABLE logferry_schema (version INT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL)")
        .await;
    for statement in migrations.iter().flat_map(|file| file.split(';')).filter(|sql| !sql.trim().is_empty()) {
        raw.run(statement).await;
    }
    raw.run("INSERT INTO logferry_schema VALUES (5, '0005_legacy_rows_kept')").await;
}

/// What an earlier version has stored is there after its tables were brought up to date.
async fn keeps_the_rows_of_version_5(raw: Raw<'_>, migrations: [&str; 5]) {
    make_version_5(&raw, migrations).await;
    raw.run(
        "INSERT INTO logferry_node (id, ip, port, role, name, host, version, state, since_ms, registered_ms) \
         VALUES ('Ab', '10.0.0.7', 4000, 'tailer', 'web-1', 'host-1', '0.1.0', 'up', 1, 1)",
    )
    .await;
    raw.run(
        "INSERT INTO logferry_alert VALUES (7, 7, 'lag', 'tailer web-1', 'raised', 'slow', '{\"ops\":\"sent\"}')",
    )
    .await;
    for _ in 0..2 {
        let rows = database(&raw.url()).await.nodes().await.expect("nodes");
        assert_eq!(rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), ["Ab"]);
    }
    assert_eq!(raw.texts("SELECT delivery FROM logferry_alert").await, ["{\"ops\":\"sent\"}"]);
    let newest = raw.texts("SELECT CAST(MAX(version) AS CHAR(9)) FROM logferry_schema").await;
    assert_eq!(newest, ["6"]);
}

/// A table that is changed may be large, or be read by somebody: that takes longer than an answer may, and nothing else waits for it.
async fn waits_for_a_table_that_is_changed(server: &MariaDb, migrations: [&str; 5]) {
    let raw = Raw::MariaDb(server, "locked");
    make_version_5(&raw, migrations).await;
    let mut reader = mysql_async::Conn::from_url(raw.url()).await.expect("connected");
    reader.query_drop("LOCK TABLES logferry_error READ").await.expect("locked");
    let (url, timeout) = (Url::parse(&raw.url()).expect("clear"), Duration::from_millis(400));
    let opening = tokio::spawn(async move { Database::open(&url, timeout).await.map(drop) });
    let waiting = "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata lock' AND time_ms > 1500";
    wait_until("the change has waited for longer than an answer may take", async || {
        !raw.texts(waiting).await.is_empty()
    })
    .await;
    assert!(!opening.is_finished());
    reader.query_drop("UNLOCK TABLES").await.expect("unlocked");
    opening.await.expect("no panic").expect("brought up to date");
    assert_eq!(raw.texts("SELECT CAST(MAX(version) AS CHAR(9)) FROM logferry_schema").await, ["6"]);
}

macro_rules! version_5 {
    ($dialect:literal) => {
        [
            include_str!(concat!("../../../../deploy/sql/", $dialect, "/0001_legacy_tables.sql")),
            include_str!(concat!("../../../../deploy/sql/", $dialect, "/0002_nodes_and_errors.sql")),
            include_str!(concat!("../../../../deploy/sql/", $dialect, "/0003_hours_and_alerts.sql")),
            include_str!(concat!("../../../../deploy/sql/", $dialect, "/0004_nodes_of_errors.sql")),
            include_str!(concat!("../../../../deploy/sql/", $dialect, "/0005_legacy_rows_kept.sql")),
        ]
    };
}

#[tokio::test]
async fn sqlite_keeps_what_it_is_given() {
    let dir = tempfile::tempdir().expect("a folder");
    keeps_what_it_is_given(&sqlite(dir.path())).await;
    shares_addresses(&sqlite(dir.path())).await;
    takes_ids_and_deliveries_as_they_are(&sqlite(dir.path())).await;
    keeps_the_rows_of_version_5(Raw::Sqlite(dir.path().join("version_5")), version_5!("sqlite")).await;
    remembers_over_a_restart(&sqlite(dir.path())).await;
}

#[tokio::test]
async fn mariadb_keeps_what_it_is_given() {
    let Some(server) = MariaDb::start("mariadb_keeps_what_it_is_given") else { return };
    keeps_what_it_is_given(&server.url()).await;
    shares_addresses(&server.url()).await;
    takes_ids_and_deliveries_as_they_are(&server.url()).await;
    keeps_the_rows_of_version_5(Raw::MariaDb(&server, "version_5"), version_5!("mysql")).await;
    waits_for_a_table_that_is_changed(&server, version_5!("mysql")).await;
    remembers_over_a_restart(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_answered_at_once_while_mariadb_is_frozen_read_only_or_dead_and_nothing_is_lost() {
    let Some(mut server) = MariaDb::start("nodes_are_answered_at_once_while_mariadb_is_away") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), &server.url());
    config.database.timeout = logferry_node::config::Interval::ms(500);
    config.check.errors_per_minute = 10_000;
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    let written = async || monitor.monitor.journal_waiting() == 0;
    let is_well = async || monitor.monitor.status().problems.is_empty();
    wait_until("the first node is written", written).await;
    let mut number = 0;
    for trouble in ["frozen", "read-only", "dead"] {
        match trouble {
            "frozen" => server.signal("STOP"),
            "read-only" => server.sql("SET GLOBAL read_only = 1").await,
            _ => server.kill(),
        }
        let mut noticed = false;
        while !noticed {
            let text = format!("number {number}");
            let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
            let began = Instant::now();
            assert_eq!(peer.ask(&report).await.0, "0");
            assert!(began.elapsed() < Duration::from_secs(5), "{trouble}: {:?}", began.elapsed());
            number += 1;
            noticed = !is_well().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match trouble {
            "frozen" => server.signal("CONT"),
            "read-only" => server.sql("SET GLOBAL read_only = 0").await,
            _ => server.resume(),
        }
        wait_until("written afterwards", written).await;
        wait_until("well again", is_well).await;
    }
    monitor.stop().await;
    let errors = database(&server.url()).await.errors(100_000).await.expect("errors");
    let mut texts: Vec<String> =
        errors.into_iter().filter(|error| error.kind == "ERROR").map(|error| error.text).collect();
    texts.retain(|text| text.starts_with("number "));
    assert_eq!(texts, (0..number).map(|number| format!("number {number}")).collect::<Vec<_>>());
}
