//! A receiver without file descriptors goes on when there are some again. A process of its own, as the limit is the process's.

#![allow(clippy::unwrap_used)] // a test may panic

use logferry_link::frame::{self, Frame, HEAD_BYTES, Hello, KIND_HELLO, PREFACE};
use logferry_link::{Budget, Receiver, ReceiverOptions};
use logferry_node::config::{ListenSettings, NodeSettings};
use metrics_exporter_prometheus::PrometheusBuilder;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(10);

/// The log as a text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(words)).count()
    }
}

/// Descriptors, until there are no more.
fn take_all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn a_receiver_without_descriptors_says_so_once_a_second_and_goes_on_with_some() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (_metrics, log) = (metrics::set_default_local_recorder(&recorder), Log::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(subscriber);
    let failures = || {
        let name = "logferry_link_refused_total{reason=\"accept_failed\"} ";
        let text = recorder.handle().render();
        text.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or(0)
    };

    let settings = ListenSettings { addr: "127.0.0.1:0".to_owned(), ..ListenSettings::default() };
    let options =
        ReceiverOptions::new(&settings, &NodeSettings::default(), "collector", Budget::new(1 << 20));
    let receiver = Receiver::bind(options).await.unwrap();
    let (addr, stop) = (receiver.local_addr(), CancellationToken::new());
    let (packs_in, _packs) = mpsc::channel(1);
    let running = tokio::spawn(receiver.run(packs_in, stop.clone()));

    let mut all = getrlimit(Resource::Nofile);
    all.current = Some(100);
    setrlimit(Resource::Nofile, all).unwrap();
    let mut taken = take_all_descriptors();
    taken.pop();
    // The kernel takes the connection with the one that is left; the receiver has none for it.
    let mut stream = timeout(LIMIT, TcpStream::connect(addr)).await.unwrap().unwrap();
    let begin = Instant::now();
    while failures() < 5 {
        assert!(begin.elapsed() < LIMIT, "{} failures", failures());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines = log.lines_with("cannot accept a connection");
    assert!(lines >= 1 && lines as u64 <= 1 + begin.elapsed().as_secs(), "{lines} lines");

    drop(taken);
    stream.write_all(&PREFACE).await.unwrap();
    stream.write_all(&frame::encode(&Frame::Hello(Hello::default()))).await.unwrap();
    let mut head = [0; HEAD_BYTES];
    timeout(LIMIT, stream.read_exact(&mut head)).await.expect("an answer in time").unwrap();
    assert_eq!(head[0], KIND_HELLO);
    stop.cancel();
    drop(stream);
    timeout(LIMIT, running).await.expect("the receiver stops").unwrap();
}
