//! A monitor in this process, and peers that speak to it as nodes do.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod http;
pub(crate) mod mariadb;
pub(crate) mod proxy;
pub(crate) mod raw;

use logferry_durable::RealDisk;
use logferry_monitor::MonitorConfig;
use logferry_monitor::database::{Database, Url};
use logferry_monitor::monitor::Running;
use logferry_monitor::registry::ErrorEntry;
use logferry_node::config::Interval;
use logferry_node::monitor::message::{self, Fields};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration for a folder; the database is at `url`.
pub(crate) fn config(dir: &Path, url: &str) -> MonitorConfig {
    let mut config = MonitorConfig::default();
    config.node.name = "monitor-1".into();
    config.node.var_dir = dir.to_owned();
    config.listen.addr = "127.0.0.1:0".into();
    config.database.url = url.to_owned();
    config.check.interval = Interval::ms(200);
    config
}

/// The SQLite database of a folder.
pub(crate) fn sqlite(dir: &Path) -> String {
    format!("sqlite://{}", dir.join("monitor.db").display())
}

pub(crate) async fn start(config: &MonitorConfig) -> Running {
    Running::start(config, Arc::new(RealDisk)).await.expect("the monitor starts")
}

/// What the database holds.
pub(crate) async fn database(url: &str) -> Database {
    let url = Url::parse(url).expect("a good URL");
    Database::open(&url, Duration::from_secs(10)).await.expect("the database opens")
}

/// Waits until `holds` says yes.
pub(crate) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A node's connection.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn connect(addr: SocketAddr) -> Peer {
        Peer(TcpStream::connect(addr).await.expect("connected"))
    }

    /// Sends a message that gets no answer.
    pub(crate) async fn tell(&mut self, message: &[(&str, &str)]) {
        message::write(&mut self.0, &fields(message)).await.expect("sent");
    }

    /// `err` and `msg` of the answer.
    pub(crate) async fn ask(&mut self, message: &[(&str, &str)]) -> (String, String) {
        self.tell(message).await;
        let answer = message::read(&mut self.0).await.expect("read").expect("an answer");
        (answer["err"].clone(), answer["msg"].clone())
    }
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A message of a node of ours.
pub(crate) fn ours<'a>(request: &'a str, name: &'a str, instance: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("req", request),
        ("ip", "127.0.0.1"),
        ("port", "0"),
        ("hostname", "host-1"),
        ("role", "tailer"),
        ("name", name),
        ("version", "0.1.0"),
        ("instance", instance),
    ]
}

/// An entry of the error log of the node `a1`.
pub(crate) fn entry(text: &str) -> ErrorEntry {
    ErrorEntry {
        unix_ms: 1_700_000_000_123,
        ip: "10.0.0.7".into(),
        port: 4000,
        role: "tailer".into(),
        name: "web-1".into(),
        kind: "ERROR".into(),
        text: text.into(),
        node: "a1".into(),
    }
}

/// The message with more keys.
pub(crate) fn with<'a>(
    mut message: Vec<(&'a str, &'a str)>,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    message.extend_from_slice(more);
    message
}
