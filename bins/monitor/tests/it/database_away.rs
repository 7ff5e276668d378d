//! The database is away: nothing that was acknowledged is lost, and nobody waits.

use crate::support::{Peer, config, database, entry, ours, sqlite, start, wait_until, with};
use logferry_durable::RealDisk;
use logferry_monitor::MonitorConfig;
use logferry_monitor::journal::{Journal, JournalError};
use logferry_monitor::registry::Change;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn numbered(number: u32) -> Change {
    Change::Error(entry(&format!("number {number}")))
}

#[tokio::test]
async fn what_was_acknowledged_while_the_database_was_away_is_written_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    // a folder in the place of the file: SQLite cannot open it
    let url = sqlite(dir.path());
    std::fs::create_dir(dir.path().join("monitor.db")).expect("in the way");
    let away = start(&config(dir.path(), &url)).await;
    let mut peer = Peer::connect(away.addr).await;
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    for number in 0..20 {
        let text = format!("number {number}");
        let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
        assert_eq!(peer.ask(&report).await.0, "0");
    }
    assert!(away.monitor.status().problems[0].contains("degraded"), "{:?}", away.monitor.status());
    assert!(away.monitor.status().ready);
    away.stop().await;
    std::fs::remove_dir(dir.path().join("monitor.db")).expect("out of the way");
    let back = start(&config(dir.path(), &url)).await;
    assert_eq!((back.monitor.nodes().len(), back.monitor.errors(100, |_| true).len()), (1, 20));
    wait_until("the queue is written", async || back.monitor.journal_waiting() == 0).await;
    back.stop().await;
    let mut database = database(&url).await;
    let texts: Vec<String> =
        database.errors(100).await.expect("errors").into_iter().map(|error| error.text).collect();
    assert_eq!(texts, (0..20).map(|number| format!("number {number}")).collect::<Vec<_>>());
    assert_eq!(database.nodes().await.expect("nodes")[0].name, "web-1");
}

/// A copy of the folder at any moment is what a kill would leave.
#[tokio::test]
async fn who_came_and_left_survives_a_kill_also_when_the_queue_takes_no_reports_any_more() {
    let (dir, killed) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let url = sqlite(dir.path());
    std::fs::create_dir(dir.path().join("monitor.db")).expect("in the way");
    let mut config = config(dir.path(), &url);
    config.database.queue_max = logferry_node::config::ByteSize::kib(64);
    config.check.errors_per_minute = 10_000;
    let away = start(&config).await;
    let mut peer = Peer::connect(away.addr).await;
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    let text = "disk full ".repeat(300);
    let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
    let mut taken = 0;
    while peer.ask(&report).await.0 == "0" {
        taken += 1;
    }
    assert!(taken > 5, "{taken}");
    for _ in 0..10 {
        assert_eq!(peer.ask(&report).await.0, "1", "nodes keep their reports");
        assert_eq!(peer.ask(&ours("register", "web-2", "b2")).await.0, "0");
        assert_eq!(peer.ask(&ours("unregister", "web-2", "b2")).await.0, "0");
    }
    assert_eq!(peer.ask(&ours("register", "web-3", "c3")).await.0, "0");
    assert_eq!(peer.ask(&ours("unregister", "web-1", "a1")).await.0, "0");
    for entry in std::fs::read_dir(dir.path()).expect("listed").filter_map(Result::ok) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), killed.path().join(entry.file_name())).expect("copied");
        }
    }
    away.stop().await;
    config.node.var_dir = killed.path().to_owned();
    config.database.url = sqlite(killed.path());
    let back = start(&config).await;
    let states: Vec<_> =
        back.monitor.nodes().iter().map(|node| (node.row.name.clone(), node.row.state.word())).collect();
    assert_eq!(states, [("web-1".into(), "left"), ("web-2".into(), "left"), ("web-3".into(), "up")]);
    assert_eq!(back.monitor.errors(1_000, |entry| entry.kind == "ERROR").len(), taken);
    back.stop().await;
}

#[tokio::test]
async fn a_database_that_comes_back_gets_everything_without_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = sqlite(dir.path());
    std::fs::create_dir(dir.path().join("monitor.db")).expect("in the way");
    let monitor = start(&config(dir.path(), &url)).await;
    let mut peer = Peer::connect(monitor.addr).await;
    assert_eq!(peer.ask(&ours("register", "web-1", "a1")).await.0, "0");
    std::fs::remove_dir(dir.path().join("monitor.db")).expect("out of the way");
    wait_until("written", async || monitor.monitor.journal_waiting() == 0).await;
    wait_until("healthy", async || monitor.monitor.status().problems.is_empty()).await;
    monitor.stop().await;
    assert_eq!(database(&url).await.nodes().await.expect("nodes").len(), 1);
}

#[tokio::test]
async fn changes_are_written_once_although_a_try_that_was_given_up_came_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut database = database(&sqlite(dir.path())).await;
    assert_eq!(database.applied(7).await.expect("asked"), 0);
    let changes: Vec<Change> = (0..5).map(numbered).collect();
    let changes: Vec<&Change> = changes.iter().collect();
    database.apply(7, (0, 5), &changes).await.expect("written");
    database.apply(7, (0, 5), &changes).await.expect_err("it has come through already");
    assert_eq!(database.applied(7).await.expect("asked"), 5);
    assert_eq!(database.errors(100).await.expect("errors").len(), 5);
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_what_it_has_over_restarts() {
    let dir = tempfile::tempdir().expect("a folder");
    let bytes_max = 4 << 10;
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), bytes_max).expect("opened");
    let mut taken = 0;
    let refused = loop {
        match journal.append(vec![numbered(taken)]).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, JournalError::Full(bytes_max));
    assert!(taken > 10, "{taken}");
    journal.written(3).await;
    let id = journal.id();
    drop(journal);
    let mut reopened = None;
    wait_until("the thread has ended", async || {
        let journal = Journal::open(Arc::new(RealDisk), dir.path(), bytes_max).expect("opened");
        let is_through = journal.waiting().0 == u64::from(taken - 3);
        reopened = Some(journal);
        is_through
    })
    .await;
    let journal = reopened.expect("opened");
    assert_eq!(journal.id(), id);
    let oldest = journal.oldest(usize::MAX);
    assert_eq!(oldest.first().map(|(number, _)| *number), Some(4));
    assert_eq!(oldest.last(), Some(&(u64::from(taken), numbered(taken - 1))));
    journal.append(vec![numbered(taken)]).await.expect("there is room again");
    let last = journal.oldest(usize::MAX).pop();
    assert!(last.is_some_and(|(number, change)| number > taken.into() && change == numbered(taken)));
}

async fn reports(config: &MonitorConfig, numbers: std::ops::Range<u32>) {
    let monitor = start(config).await;
    let mut peer = Peer::connect(monitor.addr).await;
    for number in numbers {
        let text = format!("number {number}");
        let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
        assert_eq!(peer.ask(&report).await.0, "0");
    }
    wait_until("the queue is written", async || monitor.monitor.journal_waiting() == 0).await;
    monitor.stop().await;
}

/// The slots of the queue in `var_dir`, with what is in them.
fn slots(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let slots = ["journal.0", "journal.1"].map(|name| dir.join(name));
    slots.into_iter().filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}

#[tokio::test]
async fn nothing_is_taken_for_written_after_the_queue_was_damaged_lost_or_replaced_by_an_older_copy() {
    for trouble in ["an older copy", "cut", "damaged", "lost"] {
        let (dir, store) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
        let config = config(dir.path(), &sqlite(store.path()));
        reports(&config, 0..5).await;
        let older = slots(dir.path());
        reports(&config, 5..10).await;
        for (path, mut bytes) in slots(dir.path()) {
            let half = bytes.len() / 2;
            match trouble {
                "an older copy" | "lost" => std::fs::remove_file(path).expect("removed"),
                "cut" => std::fs::write(path, &bytes[..half]).expect("written"),
                _ => {
                    bytes[half] ^= 0xff;
                    std::fs::write(path, bytes).expect("written");
                }
            }
        }
        if trouble == "an older copy" {
            older.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("written"));
        }
        // twice, because a start must not make the next one believe that the database has lost something
        reports(&config, 10..15).await;
        reports(&config, 15..20).await;
        let mut database = database(&config.database.url).await;
        let texts: Vec<String> =
            database.errors(100).await.expect("errors").into_iter().map(|error| error.text).collect();
        assert_eq!(texts, (0..20).map(|number| format!("number {number}")).collect::<Vec<_>>(), "{trouble}");
    }
}
