//! What is counted for whoever watches a host: by counters that begin at 0 with each process.

#[path = "it/common/mod.rs"]
mod common;

use common::{Rig, Tier, append, figure, lines, wait_until};
use logferry_tailer::config::Start;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// A counter of this process, to which every test of this file adds.
fn counter(name: &str) -> u64 {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    let metrics = METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().expect("the first one"));
    let text = metrics.render();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_file_that_may_be_a_copy_is_counted_once_over_restarts_and_not_shipped() {
    const MISSED: &str = "logferry_tailer_missed_files_total";
    counter(MISSED);
    let tier = Tier::start().await;
    let rig = Rig::new(&tier);
    append(&rig.log(), lines(0, 10));
    let mut tailer = rig.start();
    tier.wait_stored(&lines(0, 10));
    wait_until("settled", || figure(&tailer, "caught_up") == 1);
    tailer.stop().await.expect("a clean stop");
    std::fs::rename(rig.log(), rig.at("app.log.1")).expect("renamed");
    rig.wait_for_another_birth_time(&rig.at("app.log.1"));
    // It had the path while no tailer ran, for all that is known, and begins as what was read.
    std::fs::write(rig.at("app.log.0"), lines(0, 5)).expect("written");
    rig.wait_for_another_birth_time(&rig.at("app.log.0"));
    let mut expected = lines(0, 10);
    for (round, counted) in [1, 0, 0, 1, 0].into_iter().enumerate() {
        if round == 2 {
            // Another name is not another file.
            std::fs::rename(rig.at("app.log.0"), rig.at("app.log.2")).expect("renamed");
        }
        if round == 3 {
            append(&rig.at("app.log.2"), lines(5, 1));
        }
        let before = counter(MISSED);
        append(&rig.log(), format!("round {round}\n"));
        expected.extend(format!("round {round}\n").bytes());
        tailer = rig.start();
        tier.wait_stored(&expected);
        wait_until("settled", || figure(&tailer, "caught_up") == 1 && figure(&tailer, "files") == 1);
        tailer.stop().await.expect("a clean stop");
        assert_eq!(counter(MISSED) - before, counted, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_state_that_cannot_be_read_is_counted_and_the_source_begins_as_start_says() {
    const FAILURES: &str = "logferry_tailer_line_record_failures_total";
    for (start, expected) in [(Start::Beginning, "one\ntwo\n"), (Start::End, "")] {
        let before = counter(FAILURES);
        let tier = Tier::start().await;
        let mut rig = Rig::new(&tier);
        // Opened like a file, but it cannot be read, whoever asks.
        let record = rig.folder.path().join("line.rec");
        std::fs::create_dir(&record).expect("a folder");
        rig.config.source[0].line_record = record.to_str().expect("plain").into();
        rig.config.source[0].start = start;
        append(&rig.log(), "one\ntwo\n");
        let tailer = rig.start();
        wait_until("the file is open", || figure(&tailer, "files") == 1);
        append(&rig.log(), "three\n");
        tier.wait_stored(format!("{expected}three\n").as_bytes());
        tailer.stop().await.expect("a clean stop");
        let counted = counter(FAILURES) - before;
        assert_eq!(counted, 1);
        // It is not asked for again, also if it can be read by now.
        std::fs::remove_dir(&record).expect("removed");
        std::fs::write(&record, format!("{} 1\n", rig.log().display())).expect("written");
        let tailer = rig.start();
        append(&rig.log(), "four\n");
        tier.wait_stored(format!("{expected}three\nfour\n").as_bytes());
        tailer.stop().await.expect("a clean stop");
        assert_eq!(counter(FAILURES) - before, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_not_listed_for_each_of_many_files_that_are_rotated_or_deleted() {
    const LISTED: &str = "logferry_tailer_folders_listed_total";
    const FILES: usize = 1_500;
    counter(LISTED);
    let tier = Tier::start().await;
    let mut rig = Rig::new(&tier);
    rig.follow("*.log");
    rig.config.limits.open_files = 16;
    let path = |number: usize, end: &str| rig.at(&format!("app-{number:03}.log{end}"));
    let line = |number: usize, part: &str| format!("file {number} {part}\n").into_bytes();
    (0..FILES).for_each(|number| append(&path(number, ""), line(number, "one")));
    let tailer = rig.start();
    wait_until("all is shipped", || (figure(&tailer, "caught_up"), tier.lock().streams.len()) == (1, FILES));
    let before = counter(LISTED);
    for number in 0..FILES {
        std::fs::rename(path(number, ""), path(number, ".1")).expect("renamed");
        append(&path(number, ""), line(number, "two"));
    }
    wait_until("the new ones are shipped", || tier.lock().streams.len() == 2 * FILES);
    wait_until("the old ones are done with", || figure(&tailer, "files") == FILES as u64);
    (0..FILES).for_each(|number| std::fs::remove_file(path(number, "")).expect("removed"));
    wait_until("the deleted ones are done with", || figure(&tailer, "files") == 0);
    // While names change a listing is worth nothing a moment later.
    let listed = counter(LISTED) - before;
    assert!(listed < FILES as u64 / 3, "{listed} listings");
    assert_eq!(figure(&tailer, "lost_bytes"), 0);
    tailer.stop().await.expect("a clean stop");
}
