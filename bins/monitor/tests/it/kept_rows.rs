//! Rows of the legacy table that can be read and not deleted, in SQLite and in MariaDB: their nodes do not come back.

use crate::support::http::{delete, served};
use crate::support::mariadb::MariaDb;
use crate::support::raw::Raw;
use crate::support::{Peer, config, database, ours, start, wait_until, with};
use logferry_monitor::monitor::Running;
use logferry_monitor::registry::State;

/// `url`: of the monitor, which may not delete from the table.
async fn stays_gone(raw: Raw<'_>, url: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let config = config(dir.path(), url);
    let monitor = start(&config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    let at_port = |request| {
        let mut message = ours(request, "web-1", "a1");
        message.retain(|(key, _)| *key != "port");
        with(message, &[("port", "1")])
    };
    assert_eq!(peer.ask(&at_port("register")).await.0, "0");
    let hosts = "SELECT hostname FROM registered_node WHERE port = 1";
    wait_until("it has a row", async || raw.texts(hosts).await == ["host-1"]).await;
    assert_eq!(peer.ask(&at_port("unregister")).await.0, "0");
    looked_at(&monitor, &raw, 11).await;
    assert_eq!(raw.texts(hosts).await, ["host-1"], "it cannot be deleted");
    let known = |monitor: &Running| monitor.monitor.nodes().into_iter().find(|node| node.row.port == 1);
    let node = known(&monitor).expect("it has left");
    assert_eq!((node.row.id.as_str(), node.row.state), ("a1", State::Left));
    assert_eq!(delete(served(&monitor).await, "/api/nodes/a1", &[]).await.0, 200);
    looked_at(&monitor, &raw, 12).await;
    assert!(known(&monitor).is_none(), "{:?}", known(&monitor));
    monitor.stop().await;

    let monitor = start(&config).await;
    looked_at(&monitor, &raw, 13).await;
    assert!(known(&monitor).is_none(), "{:?}", known(&monitor));
    let said = "SELECT text FROM logferry_error WHERE kind = 'legacy row'";
    let said = raw.texts(said).await;
    assert!(said.len() == 1 && said[0].contains("grant DELETE"), "{said:?}");
    assert_eq!(monitor.monitor.status().figures["changes_refused_total"], 0);
    raw.run("UPDATE registered_node SET ctime = '2019-05-05 10:00:00' WHERE port = 1").await;
    wait_until("somebody has written it anew", async || known(&monitor).is_some()).await;
    monitor.stop().await;
}

/// Waits until the monitor has looked at the table: it knows a row that was added now.
async fn looked_at(monitor: &Running, raw: &Raw<'_>, port: u16) {
    wait_until("all is written", async || monitor.monitor.journal_waiting() == 0).await;
    raw.run(&format!(
        "INSERT INTO registered_node VALUES ('127.0.0.1', {port}, 'tail', 'by-hand', '2019-05-05 10:00:00')"
    ))
    .await;
    wait_until("it is adopted", async || monitor.monitor.nodes().iter().any(|node| node.row.port == port))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_row_cannot_be_deleted_from_sqlite_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let raw = Raw::Sqlite(dir.path().join("monitor.db"));
    let url = raw.url();
    drop(database(&url).await);
    raw.run(
        "CREATE TRIGGER stays BEFORE DELETE ON registered_node BEGIN SELECT RAISE(ABORT, 'not for you'); END",
    )
    .await;
    stays_gone(raw, &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_row_cannot_be_deleted_from_mariadb_does_not_come_back() {
    let Some(server) = MariaDb::start("a_node_whose_row_cannot_be_deleted") else { return };
    let raw = Raw::MariaDb(&server, "kept");
    raw.run("CREATE TABLE IF NOT EXISTS other (id INT)").await;
    drop(database(&raw.url()).await);
    raw.run("CREATE USER 'clerk'@'%' IDENTIFIED BY 'secret'").await;
    let tables =
        "SELECT CAST(table_name AS CHAR(64)) FROM information_schema.tables WHERE table_schema = 'kept'";
    for table in raw.texts(tables).await {
        let rights = if table == "registered_node" { "SELECT, INSERT, UPDATE" } else { "ALL" };
        raw.run(&format!("GRANT {rights} ON kept.{table} TO 'clerk'@'%'")).await;
    }
    let url = raw.url().replace("boss", "clerk");
    stays_gone(raw, &url).await;
}
