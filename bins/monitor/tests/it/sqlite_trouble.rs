//! SQLite in trouble: nodes are answered, what waits is kept, what is wrong is said, and all is stored when it is over.

use crate::support::{Peer, config, database, ours, start, wait_until, with};
use logferry_monitor::monitor::Running;
use logferry_node::config::Interval;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A monitor whose database is in `DIR/db`, and its node.
struct Trial {
    dir: tempfile::TempDir,
    url: String,
    monitor: Running,
    peer: Peer,
    told: u64,
}

impl Trial {
    async fn start(dir: tempfile::TempDir) -> Trial {
        std::fs::create_dir_all(dir.path().join("db")).expect("a folder");
        let url = crate::support::sqlite(&dir.path().join("db"));
        let mut config = config(dir.path(), &url);
        config.database.timeout = Interval::ms(300);
        config.check.errors_per_minute = 100_000;
        let monitor = start(&config).await;
        let peer = Peer::connect(monitor.addr).await;
        let mut trial = Trial { dir, url, monitor, peer, told: 0 };
        trial.answers("register").await;
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn answers(&mut self, request: &str) {
        let began = Instant::now();
        let status = [("status", r#"{"ready":true,"every_ms":3600000}"#)];
        assert_eq!(self.peer.ask(&with(ours(request, "web-1", "a1"), &status)).await.0, "0");
        assert!(began.elapsed() < Duration::from_secs(10), "{request}: {:?}", began.elapsed());
    }

    async fn report(&mut self, more: &str) {
        let text = format!("number {} {more}", self.told);
        let report = with(ours("report", "web-1", "a1"), &[("type", "ERROR"), ("msg", &text)]);
        assert_eq!(self.peer.ask(&report).await.0, "0");
        self.told += 1;
    }

    /// Reports and heartbeats come until the status says what is wrong, and go on.
    async fn is_said(&mut self, why: &str, more: &str) {
        let problems = |trial: &Trial| trial.monitor.monitor.status().problems.join("; ");
        let begun = Instant::now();
        while !(problems(self).contains("the database is away") && problems(self).contains(why)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{why:?} is not said: {:?}", problems(self));
            self.report(more).await;
            self.answers("heartbeat").await;
        }
        assert!(self.monitor.monitor.status().ready);
        for _ in 0..5 {
            self.report(more).await;
            self.answers("heartbeat").await;
        }
        assert!(self.monitor.monitor.journal_waiting() > 0);
    }

    async fn is_written(&self) {
        wait_until("written", async || self.monitor.monitor.journal_waiting() == 0).await;
        wait_until("well again", async || self.monitor.monitor.status().problems.is_empty()).await;
    }

    /// All reports from this one on are in the database, once, in their order; and so is the node.
    async fn ends(self, first: u64) {
        self.is_written().await;
        self.monitor.stop().await;
        let mut database = database(&self.url).await;
        let errors = database.errors(100_000).await.expect("errors");
        let numbers: Vec<u64> = errors
            .iter()
            .filter_map(|error| error.text.strip_prefix("number ")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(numbers, (first..self.told).collect::<Vec<_>>());
        assert_eq!(database.nodes().await.expect("nodes")[0].name, "web-1");
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(arguments).arg(folder).status().is_ok_and(|status| status.success())
}

/// A small file system, unmounted when it is dropped.
struct Small(PathBuf);

impl Small {
    fn mounted(test: &str, folder: PathBuf) -> Option<Small> {
        std::fs::create_dir_all(&folder).expect("a folder");
        if !mount(&["-t", "tmpfs", "-o", "size=512k", "logferry-test"], &folder) {
            logferry_trial::lacking(test, "a tmpfs cannot be mounted here (root is needed)");
            return None;
        }
        Some(Small(folder))
    }

    fn remount(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], &self.0), "{option}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_stored_after_another_has_locked_the_file_for_long() {
    let mut trial = Trial::start(tempfile::tempdir().expect("a folder")).await;
    trial.is_written().await;
    let other = rusqlite::Connection::open(trial.path("db/monitor.db")).expect("opened");
    other.busy_timeout(Duration::from_secs(20)).expect("set");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    trial.is_said("locked", "").await;
    other.execute_batch("ROLLBACK").expect("released");
    trial.is_written().await;
    trial.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_stored_after_the_disk_of_the_file_was_full() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(disk) = Small::mounted("the_disk_of_the_file_was_full", dir.path().join("db")) else { return };
    let mut trial = Trial::start(dir).await;
    trial.is_said("full", &"x".repeat(3_000)).await;
    disk.remount("size=64m");
    trial.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_stored_after_the_file_could_only_be_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(disk) = Small::mounted("the_file_could_only_be_read", dir.path().join("db")) else { return };
    drop(database(&crate::support::sqlite(&dir.path().join("db"))).await);
    disk.remount("ro");
    let mut trial = Trial::start(dir).await;
    trial.is_said("can only be read", "").await;
    disk.remount("rw");
    trial.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_goes_to_a_new_file_after_the_old_one_was_removed() {
    let mut trial = Trial::start(tempfile::tempdir().expect("a folder")).await;
    let hours = r#"[{"host":"web-1","source":"access","hour":2026112101,"state":"complete","total":1}]"#;
    let told = with(ours("hours", "out-1", "o1"), &[("hours", hours)]);
    assert_eq!(trial.peer.ask(&told).await.0, "0");
    trial.report("").await;
    trial.is_written().await;
    for name in ["db/monitor.db", "db/monitor.db-wal", "db/monitor.db-shm"] {
        std::fs::remove_file(trial.path(name)).expect("removed");
    }
    let first = trial.told;
    trial.report("").await;
    let url = trial.url.clone();
    wait_until("the node and the hour are in the new file", async || {
        let Ok(mut database) = logferry_monitor::database::Database::open(
            &logferry_monitor::database::Url::parse(&url).expect("a good URL"),
            Duration::from_secs(10),
        )
        .await
        else {
            return false;
        };
        let nodes = database.nodes().await.is_ok_and(|nodes| nodes.iter().any(|node| node.id == "a1"));
        nodes && database.hours(9).await.is_ok_and(|hours| hours.len() == 1)
    })
    .await;
    trial.ends(first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_stored_after_the_folder_of_the_file_was_away() {
    let mut trial = Trial::start(tempfile::tempdir().expect("a folder")).await;
    trial.report("").await;
    trial.is_written().await;
    std::fs::rename(trial.path("db"), trial.path("elsewhere")).expect("moved");
    trial.is_said("unable to open", "").await;
    std::fs::rename(trial.path("elsewhere"), trial.path("db")).expect("moved back");
    trial.ends(0).await;
}
