use super::*;
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
