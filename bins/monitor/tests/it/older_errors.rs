//! Errors that are no longer in memory: they are found in the database, and where it is away it is said that they are left out.

use crate::support::http::{get, get_with_headers, served};
use crate::support::mariadb::MariaDb;
use crate::support::{Peer, config, ours, sqlite, start, wait_until, with};
use logferry_monitor::web::{MORE, NEXT};
use std::net::SocketAddr;

/// Numbers of the errors of an answer, what it says of older ones, and where to go on.
async fn ask(addr: SocketAddr, query: &str) -> (Vec<u32>, String, Option<String>) {
    let (errors, headers) = get_with_headers(addr, &format!("/api/errors{query}")).await;
    let texts = errors.as_array().expect("a list").iter().filter_map(|error| error["text"].as_str());
    let numbers =
        texts.filter_map(|text| text.strip_prefix("Number ")).map(|text| text.parse().expect("a number"));
    let header = |name| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    (numbers.collect(), header(MORE).expect("said"), header(NEXT))
}

async fn report(peer: &mut Peer, number: u32) {
    let text = format!("Number {number}");
    let message = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
    assert_eq!(peer.ask(&message).await.0, "0");
}

fn down(newest: u32, oldest: u32) -> Vec<u32> {
    (oldest..=newest).rev().collect()
}

async fn finds_older_errors(url: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), url);
    (config.check.errors_shown, config.check.errors_per_minute) = (5, 100_000);
    let monitor = start(&config).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    wait_until("connected", async || monitor.monitor.status().problems.is_empty()).await;
    for number in 0..3 {
        report(&mut peer, number).await;
    }
    wait_until("nothing is left out", async || ask(addr, "").await == (down(2, 0), "no".into(), None)).await;
    for number in 3..20 {
        report(&mut peer, number).await;
    }
    wait_until("written", async || monitor.monitor.journal_waiting() == 0).await;

    assert_eq!(ask(addr, "").await, (down(19, 15), "yes".into(), None));
    assert!(get(addr, "/errors").await.1.contains("show them from the database"));
    let (mut all, mut question) =
        (Vec::new(), "?all=true&limit=8&text=number&node=web-1&role=tailer".to_owned());
    let more = loop {
        let (found, more, next) = ask(addr, &question).await;
        assert!(found.len() <= 8 && all.len() <= 20, "{all:?}");
        all.extend(found);
        let Some(next) = next else { break more };
        assert_eq!(more, "yes");
        question = format!("?all=true&limit=8&text=number&before={next}");
    };
    assert_eq!((all, more.as_str()), (down(19, 0), "no"));
    assert_eq!(ask(addr, "?all=true&text=number%207").await, (vec![7], "no".into(), None));
    let page = get(addr, "/errors?all=true&limit=8&text=number").await.1;
    assert!(page.contains("Number 12") && !page.contains("Number 11<") && page.contains("before="), "{page}");
    assert!(!page.contains("live.js"), "it would ask the database each second");

    // whatever the database takes meanwhile, each is there once
    let reporting = tokio::spawn(async move {
        for number in 20..400 {
            report(&mut peer, number).await;
        }
    });
    let mut is_over = false;
    while !is_over {
        is_over = reporting.is_finished();
        let (found, more, _) = ask(addr, "?all=true&limit=5000").await;
        assert_eq!((found.clone(), more.as_str()), (down(found[0], 0), "no"));
    }
    reporting.await.expect("reported");
    monitor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_beyond_those_in_memory_are_found_in_sqlite() {
    let dir = tempfile::tempdir().expect("a folder");
    finds_older_errors(&sqlite(dir.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_beyond_those_in_memory_are_found_in_mariadb() {
    let Some(server) = MariaDb::start("errors_beyond_those_in_memory") else { return };
    finds_older_errors(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_database_is_away_it_is_said_that_older_errors_are_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("monitor.db")).expect("in the way of the file");
    let monitor = start(&config(dir.path(), &sqlite(dir.path()))).await;
    let addr = served(&monitor).await;
    let mut peer = Peer::connect(monitor.addr).await;
    report(&mut peer, 7).await;
    assert_eq!(ask(addr, "").await, (vec![7], "yes".into(), None), "nobody knows what the database has");
    assert_eq!(ask(addr, "?all=true").await, (vec![7], "database-away".into(), None));
    assert_eq!(ask(addr, "?before=3").await, (vec![], "database-away".into(), None));
    assert!(get(addr, "/errors?all=true").await.1.contains("Older ones are left out"));
    monitor.stop().await;
}
