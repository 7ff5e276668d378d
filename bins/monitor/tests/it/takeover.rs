//! The tables of a legacy monitor, in SQLite and in MariaDB: what is in them stays, and however they are made, ours hold all.

use crate::support::mariadb::MariaDb;
use crate::support::raw::Raw;
use crate::support::{Peer, config, database, ours, start, wait_until, with};
use logferry_monitor::registry::State;
use logferry_node::config::Interval;

async fn report(peer: &mut Peer, text: &str) {
    let message = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", text)]);
    assert_eq!(peer.ask(&message).await.0, "0");
}

/// Errors of ours that are too old are deleted; what the legacy table has is not ours to delete.
async fn keeps_the_legacy_error_log(raw: Raw<'_>) {
    raw.run(
        "CREATE TABLE service_error_log (ctime DATETIME NOT NULL, ip VARCHAR(80), role VARCHAR(64), \
         error_type VARCHAR(80), error_msg TEXT)",
    )
    .await;
    raw.run(
        "INSERT INTO service_error_log VALUES ('2019-05-05 10:00:00', '10.0.0.7:1', 'tail', 'ERROR', 'old')",
    )
    .await;
    let mut opened = database(&raw.url()).await;
    assert_eq!(opened.applied(1).await.expect("asked"), 0);
    raw.run("INSERT INTO logferry_error (unix_ms, ip, port, role, name, kind, text) VALUES (5, '', 0, '', '', '', 'old')")
        .await;
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), &raw.url());
    config.database.keep_errors = Interval::secs(60);
    let monitor = start(&config).await;
    wait_until("the clock is doubted: nothing is known of this century", async || {
        monitor.monitor.status().problems.iter().any(|problem| problem.contains("the clock says"))
    })
    .await;
    let unix_ms = monitor.monitor.now().unix_ms.to_string();
    let new =
        with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", "new"), ("unix_ms", &unix_ms)]);
    assert_eq!(Peer::connect(monitor.addr).await.ask(&new).await.0, "0");
    wait_until("ours is pruned and the new one written", async || {
        raw.texts("SELECT text FROM logferry_error ORDER BY id").await == ["new"]
    })
    .await;
    monitor.stop().await;
    assert_eq!(raw.texts("SELECT error_msg FROM service_error_log ORDER BY ctime").await, ["old", "new"]);
}

/// A row that was added by hand is probed, and stays as it was written.
async fn leaves_rows_that_were_added_by_hand(raw: Raw<'_>) {
    raw.run(
        "CREATE TABLE registered_node (ip VARCHAR(64) NOT NULL, port INT NOT NULL, role VARCHAR(64) NOT NULL, \
         hostname VARCHAR(255) NOT NULL, ctime TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (ip, port))",
    )
    .await;
    let ports = [1, 2].map(|port| format!("('127.0.0.1', {port}, 'tail', 'by-hand', '2019-05-05 10:00:00')"));
    raw.run(&format!("INSERT INTO registered_node VALUES {}", ports.join(", "))).await;
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), &raw.url())).await;
    wait_until("they are probed in vain", async || {
        let nodes = monitor.monitor.nodes();
        nodes.len() == 2 && nodes.iter().all(|node| node.row.state == State::Silent)
    })
    .await;
    wait_until("that is written", async || {
        raw.texts("SELECT state FROM logferry_node").await == ["silent", "silent"]
    })
    .await;
    let times = "SELECT CAST(ctime AS CHAR(19)) FROM registered_node";
    assert_eq!(raw.texts(times).await, ["2019-05-05 10:00:00"; 2]);
    assert_eq!(monitor.monitor.status().figures["changes_refused_total"], 0);
    raw.run("DELETE FROM registered_node WHERE port = 1").await;
    wait_until("it is not a node any more", async || {
        raw.texts("SELECT id FROM logferry_node").await == ["127.0.0.1:2"]
    })
    .await;
    monitor.stop().await;
}

/// Where a legacy table takes less than ours, or nothing at all, ours have all of it.
async fn keeps_whole_texts_although_the_legacy_tables_do_not(raw: Raw<'_>, legacy: &str, cut: &[&str]) {
    raw.run(legacy).await;
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), &raw.url())).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let long = "🚢 ".repeat(500);
    for text in ["before", &long, "after"] {
        report(&mut peer, text).await;
    }
    wait_until("written", async || monitor.monitor.journal_waiting() == 0).await;
    assert_eq!(monitor.monitor.status().figures["changes_refused_total"], 0);
    monitor.stop().await;
    let texts = raw.texts("SELECT text FROM logferry_error ORDER BY id").await;
    assert_eq!(texts, ["before", &long, "after"]);
    let mut kept = raw.texts("SELECT error_msg FROM service_error_log").await;
    kept.sort();
    assert_eq!(kept, cut);
}

const NARROW: &str = "CREATE TABLE service_error_log (ctime DATETIME, ip VARCHAR(30), role VARCHAR(20), \
    error_type VARCHAR(20), error_msg VARCHAR(2000), CHECK (LENGTH(error_msg) <= 200))";
const OTHER: &str = "CREATE TABLE service_error_log (ctime DATETIME, ip VARCHAR(30), role VARCHAR(20), \
    error_type VARCHAR(20), error_msg VARCHAR(200), operator VARCHAR(20) NOT NULL)";
const NO_COLUMN: &str =
    "CREATE TABLE service_error_log (ctime DATETIME, ip VARCHAR(30), role VARCHAR(20), error_msg TEXT)";

async fn takes_over(raw: [Raw<'_>; 5]) {
    let [log, hand, narrow, other, no_column] = raw;
    keeps_the_legacy_error_log(log).await;
    leaves_rows_that_were_added_by_hand(hand).await;
    let plain = "? ".repeat(100);
    let kept = [plain.as_str(), "after", "before"];
    keeps_whole_texts_although_the_legacy_tables_do_not(narrow, NARROW, &kept).await;
    keeps_whole_texts_although_the_legacy_tables_do_not(other, OTHER, &[]).await;
    keeps_whole_texts_although_the_legacy_tables_do_not(no_column, NO_COLUMN, &[]).await;
}

/// A table of nodes that cannot be read, or is none, takes no row, and is looked at seldom: the database is not away because of it.
async fn needs_no_legacy_table_of_nodes(raw: Raw<'_>, legacy: &str) {
    raw.run(legacy).await;
    drop(database(&raw.url()).await);
    if legacy == GONE {
        raw.run("DROP TABLE registered_node").await;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let monitor = start(&config(dir.path(), &raw.url())).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let at_port = |request, port| {
        let mut message = ours(request, "web-1", "a1");
        message.retain(|(key, _)| *key != "port");
        with(message, &[("port", port)])
    };
    for port in ["4000", "4001"] {
        assert_eq!(peer.ask(&at_port("register", port)).await.0, "0");
    }
    let problems = || monitor.monitor.status().problems;
    wait_until("the table is known to be no good", async || {
        problems().iter().any(|problem| problem.contains("the table of the legacy monitor"))
    })
    .await;
    wait_until("written", async || monitor.monitor.journal_waiting() == 0).await;
    assert_eq!(problems().len(), 1, "the database is not away: {:?}", problems());
    assert_eq!(peer.ask(&at_port("unregister", "4001")).await.0, "0");
    wait_until("the farewell is written", async || monitor.monitor.journal_waiting() == 0).await;
    assert_eq!(monitor.monitor.status().figures["changes_refused_total"], 0);
    monitor.stop().await;
    assert_eq!(raw.texts("SELECT state FROM logferry_node").await, ["left"]);
    assert!(!dir.path().join("refused.ndjson").exists());
}

const GONE: &str = "CREATE TABLE IF NOT EXISTS other (id INT)";
const OTHER_COLUMNS: &str = "CREATE TABLE registered_node (address VARCHAR(64) NOT NULL)";

async fn needs_no_legacy_tables_of_nodes(raw: [Raw<'_>; 2]) {
    let [gone, other] = raw;
    needs_no_legacy_table_of_nodes(gone, GONE).await;
    needs_no_legacy_table_of_nodes(other, OTHER_COLUMNS).await;
}

#[tokio::test]
async fn a_legacy_table_of_nodes_in_sqlite_may_be_gone_or_another() {
    let dir = tempfile::tempdir().expect("a folder");
    needs_no_legacy_tables_of_nodes(["gone", "columns"].map(|name| Raw::Sqlite(dir.path().join(name)))).await;
}

#[tokio::test]
async fn a_legacy_table_of_nodes_in_mariadb_may_be_gone_or_another() {
    let Some(server) = MariaDb::start("a_legacy_table_of_nodes_in_mariadb") else { return };
    needs_no_legacy_tables_of_nodes(["gone", "columns"].map(|name| Raw::MariaDb(&server, name))).await;
}

const NAMES: [&str; 5] = ["legacy_log", "by_hand", "narrow", "other", "no_column"];

#[tokio::test]
async fn legacy_tables_in_sqlite_stay_and_cost_ours_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    takes_over(NAMES.map(|name| Raw::Sqlite(dir.path().join(name)))).await;
}

#[tokio::test]
async fn legacy_tables_in_mariadb_stay_and_cost_ours_nothing() {
    let Some(server) = MariaDb::start("legacy_tables_in_mariadb") else { return };
    takes_over(NAMES.map(|name| Raw::MariaDb(&server, name))).await;
    let of_latin = NARROW.to_owned() + " CHARACTER SET latin1";
    let (latin, plain) = (Raw::MariaDb(&server, "latin"), "? ".repeat(100));
    keeps_whole_texts_although_the_legacy_tables_do_not(latin, &of_latin, &[&plain, "after", "before"]).await;
}
