use super::*;
use crate::alerts::book::{GIVEN_UP, SENT};
use crate::alerts::conditions::Condition;
use logferry_durable::RealDisk;

fn at_port(port: u16) -> Identity {
    let (ip, role, instance) = ("127.0.0.1".to_owned(), "collector".to_owned(), "a1".to_owned());
    Identity { ip, port, role, instance, ..Identity::default() }
}

#[tokio::test]
async fn rows_of_the_legacy_table_count_only_if_nothing_was_decided_since_they_were_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 1 << 20).expect("opened");
    let mut config = MonitorConfig::default();
    config.node.var_dir = dir.path().to_owned();
    let monitor = Monitor::new(config, journal.clone(), Arc::new(Health::new(String::new())));
    let write_all = async || {
        let waiting = journal.oldest(usize::MAX);
        journal.written(waiting.last().expect("a change").0).await;
    };
    assert_eq!(monitor.decisions_written(), Some(0));
    monitor.register(&at_port(4000)).await.expect("taken");
    assert_eq!(monitor.decisions_written(), None, "it waits for the database");
    write_all().await;
    let storing = monitor.decisions.begin();
    assert_eq!(monitor.decisions_written(), None, "one is on its way to the queue");
    drop(storing);
    let read = monitor.decisions_written().expect("all are written");
    let row = |port| NodeRow {
        id: format!("127.0.0.1:{port}"),
        port,
        registered_ms: 0,
        ..monitor.nodes()[0].row.clone()
    };
    let (old, added) = (row(4000), row(5000));
    monitor.register(&at_port(4001)).await.expect("taken");
    monitor.adopt(vec![old, added.clone()], read).await;
    assert_eq!(monitor.nodes().len(), 1, "it has left the address of the row");
    write_all().await;
    let read = monitor.decisions_written().expect("all are written");
    monitor.adopt(vec![row(4001), added], read).await;
    assert_eq!(monitor.nodes().iter().map(|node| node.row.port).collect::<Vec<_>>(), [5000, 4001]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_two_tasks_decide_of_a_node_is_stored_in_the_order_of_the_decisions() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 1 << 30).expect("opened");
    let mut config = MonitorConfig::default();
    config.node.var_dir = dir.path().to_owned();
    let health = Arc::new(Health::new(String::new()));
    let monitor = Arc::new(Monitor::new(config, journal.clone(), health));
    for round in 0..300 {
        let together = Arc::new(tokio::sync::Barrier::new(4));
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (monitor, together) = (monitor.clone(), together.clone());
                tokio::spawn(async move {
                    together.wait().await;
                    match task % 2 {
                        0 => monitor.register(&at_port(4000)).await,
                        _ => monitor.unregister(&at_port(4000)).await,
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("stored");
        }
        let stored = journal.oldest(usize::MAX).into_iter().rev().find_map(|(_, change)| match change {
            Change::Node(row) => Some(row),
            _ => None,
        });
        assert_eq!(stored.expect("a row"), monitor.nodes()[0].row, "round {round}");
    }
}

/// A monitor without tasks whose book has so many alerts, which wait for the webhooks `a` and `b`; and their numbers.
fn with_alerts(dir: &std::path::Path, count: usize) -> (Arc<Monitor>, Journal, Vec<i64>) {
    let journal = Journal::open(Arc::new(RealDisk), dir, 1 << 30).expect("opened");
    let mut config = MonitorConfig::default();
    config.node.var_dir = dir.to_owned();
    let monitor = Monitor::new(config, journal.clone(), Arc::new(Health::new(String::new())));
    let wrong = |number: usize| Condition {
        key: number.to_string(),
        kind: "lag",
        subject: "tailer web-1".into(),
        text: "5 bytes wait".into(),
    };
    let receivers = |_: &str| vec!["a".to_owned(), "b".to_owned()];
    let wrong = (0..count).map(wrong).collect();
    let changes = monitor.alerts.book().look(wrong, |_, _| None, receivers, Duration::ZERO, monitor.now());
    let ids: Vec<i64> = changes.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), count);
    (Arc::new(monitor), journal, ids)
}

/// What the queue says last of an alert at the two webhooks.
fn stored(journal: &Journal, id: i64) -> [String; 2] {
    let last = journal.oldest(usize::MAX).into_iter().rev().find_map(|(_, change)| match change {
        Change::Alert(row) if row.id == id => Some(row),
        _ => None,
    });
    let row = last.expect("stored");
    ["a", "b"].map(|webhook| row.delivery[webhook].clone())
}

#[tokio::test]
async fn what_two_webhooks_made_of_an_alert_is_stored_whichever_of_them_stores_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let (monitor, journal, ids) = with_alerts(dir.path(), 2);
    for (id, later_is_first) in ids.iter().zip([false, true]) {
        let sent = monitor.alerts.book().settle("a", &[*id], SENT);
        let given_up = monitor.alerts.book().settle("b", &[*id], GIVEN_UP);
        let (first, last) = if later_is_first { (given_up, sent) } else { (sent, given_up) };
        monitor.alerts.store(&monitor, first).await;
        monitor.alerts.store(&monitor, last).await;
        assert_eq!(stored(&journal, *id), [SENT, GIVEN_UP]);
    }
}

#[tokio::test]
async fn an_alert_that_could_not_be_stored_at_first_does_not_overtake_what_became_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (monitor, journal, ids) = with_alerts(dir.path(), 1);
    let earlier = monitor.alerts.book().settle("a", &ids, SENT);
    let later = monitor.alerts.book().settle("b", &ids, SENT);
    monitor.alerts.store(&monitor, later).await;
    // the queue refused the earlier one, which is told late
    monitor.registry().not_stored(earlier.into_iter().map(Change::Alert).collect());
    monitor.store_owed().await;
    assert_eq!(stored(&journal, ids[0]), [SENT, SENT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_of_what_was_announced_ends_as_the_book_whoever_writes_it_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let (monitor, journal, ids) = with_alerts(dir.path(), 100);
    for id in &ids {
        let together = Arc::new(tokio::sync::Barrier::new(2));
        let tasks = ["a", "b"].map(|webhook| {
            let (monitor, together, id) = (monitor.clone(), together.clone(), *id);
            tokio::spawn(async move {
                together.wait().await;
                let settled = monitor.alerts.book().settle(webhook, &[id], SENT);
                monitor.alerts.store(&monitor, settled).await;
            })
        });
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(stored(&journal, *id), [SENT, SENT]);
        let file = std::fs::read(dir.path().join(keeper::FILE)).expect("written");
        let file: crate::alerts::Book = serde_json::from_slice(&file).expect("JSON");
        assert!(file.history().eq(monitor.alerts.book().history()), "alert {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_added_by_hand_are_taken_over_while_errors_wait_for_the_database() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = MonitorConfig::default();
    config.node.var_dir = dir.path().to_owned();
    let url = config.database_url().expect("a file");
    drop(crate::database::Database::open(&url, Duration::from_secs(10)).await.expect("opened"));
    let by_hand = rusqlite::Connection::open(dir.path().join("monitor.db")).expect("opened");
    by_hand
        .execute_batch(
            "INSERT INTO registered_node VALUES ('10.0.0.7', 4000, 'tail', 'by-hand', '2019-05-05 10:00:00')",
        )
        .expect("written");
    let journal = Journal::open(Arc::new(RealDisk), dir.path(), 40 << 20).expect("opened");
    let error = |number: u32| Change::Error(ErrorEntry { text: number.to_string(), ..ErrorEntry::default() });
    journal.append((0..50_000).map(error).collect()).await.expect("taken");
    let monitor = Arc::new(Monitor::new(config, journal.clone(), Arc::new(Health::new(String::new()))));
    assert_eq!(monitor.decisions_written(), Some(0), "nothing is decided of a node");

    let stop = CancellationToken::new();
    let writer = tokio::spawn(DatabaseWriter::new(url, monitor.clone()).run(stop.clone()));
    while monitor.nodes().is_empty() {
        assert!(!writer.is_finished());
        tokio::task::yield_now().await;
    }
    assert!(journal.waiting().0 > 0, "the queue had to be empty first");
    stop.cancel();
    writer.await.expect("no panic");
    assert_eq!(journal.waiting().0, 0);
}
