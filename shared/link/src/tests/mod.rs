//! The shells of both sides over in-memory pipes, with the clock of the runtime stopped: it jumps when all wait.

mod patience;
mod refusals;
mod sender_ends;
mod simulation;

use crate::decoder::{Decoded, Decoder};
use crate::frame::{self, Frame, Hello, PREFACE};
use crate::receiver::{self, Shared};
use crate::{Answer, Budget, Incoming, Outgoing, ReceiverOptions};
use bytes::Bytes;
use logferry_node::config::{ListenSettings, NodeSettings};
use logferry_pack::StreamId;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PIPE_BYTES: usize = 16 << 10;

/// A pack as a legacy node would make it: with no identity to check.
fn outgoing(ticket: u64, stream: u128, body_bytes: usize) -> Outgoing {
    let json = format!(
        "{{\"Route\":[{{\"ip\":\"127.0.0.1\",\"hour\":\"2026112101\",\"id\":\"{ticket}\",\"lines\":\"1\"}}],\"PackLen\":{body_bytes}}}"
    );
    assert!(json.len() < 128, "one group of the varint");
    let header = [&[json.len() as u8, 0, 0, 0], json.as_bytes()].concat();
    Outgoing {
        ticket,
        stream: StreamId(stream),
        apart: false,
        header: header.into(),
        body: Bytes::from(vec![ticket as u8; body_bytes]),
    }
}

/// The same as the payload of a PACK frame.
fn pack(id: u64, body_bytes: usize) -> Bytes {
    let Outgoing { header, body, .. } = outgoing(id, 0, body_bytes);
    [header, body].concat().into()
}

/// Counters of this thread, from here on.
struct Counters {
    handle: PrometheusHandle,
    _guard: metrics::LocalRecorderGuard<'static>,
}

impl Counters {
    fn install() -> Counters {
        // A recorder for each test that runs: a few hundred bytes that live as long as the process.
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        Counters { handle: recorder.handle(), _guard: metrics::set_default_local_recorder(recorder) }
    }

    /// All series of a counter that are not zero, as `(value of the label, count)`.
    fn of(&self, name: &str) -> Vec<(String, u64)> {
        let mut series: Vec<_> = self
            .handle
            .render()
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("\"} "))
            .map(|(label, count)| {
                let label = label.split_once("=\"").map_or("", |(_, value)| value);
                (label.to_owned(), count.parse().expect("a whole number"))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        series.sort();
        series
    }

    /// One series, by its name and labels.
    fn value(&self, name: &str, labels: &str) -> u64 {
        let text = self.handle.render();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(labels)?.trim().parse().ok();
        text.lines().find_map(value).unwrap_or(0)
    }

    fn refused(&self) -> Vec<(String, u64)> {
        self.of("logferry_link_refused_total")
    }
}

/// A receiver without its listener.
struct Rig {
    counters: Counters,
    shared: Arc<Shared>,
    budget: Budget,
    packs: mpsc::Receiver<Incoming>,
    stop: CancellationToken,
}

impl Rig {
    /// With `memory` bytes, and room for 4 packs on the way to the owner.
    fn new(memory: u64, change: impl FnOnce(&mut ListenSettings)) -> Rig {
        let counters = Counters::install();
        let mut settings = ListenSettings::default();
        change(&mut settings);
        let (budget, stop) = (Budget::new(memory), CancellationToken::new());
        let node = NodeSettings { name: "server".to_owned(), ..NodeSettings::default() };
        let options = ReceiverOptions::new(&settings, &node, "collector", budget.clone());
        let (packs_in, packs) = mpsc::channel(4);
        let shared = Arc::new(Shared::new(options, packs_in, stop.clone()));
        Rig { counters, shared, budget, packs, stop }
    }

    fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(theirs);
        let addr = "192.0.2.1:7".parse().expect("an address");
        tokio::spawn(receiver::serve(reader, writer, addr, self.shared.clone()));
        Client { stream: ours, decoder: Decoder::new(0) }
    }

    async fn greeted(&self) -> Client {
        let mut client = self.connect();
        client.send(&PREFACE).await;
        client.frame(&Frame::Hello(Hello { node: "client".to_owned(), ..Hello::default() })).await;
        assert!(matches!(client.next().await, Some(Frame::Hello(_))));
        client
    }

    async fn take(&mut self) -> Incoming {
        self.packs.recv().await.expect("a connection")
    }
}

/// The other end of a connection, to behave in any way.
struct Client {
    stream: DuplexStream,
    decoder: Decoder,
}

impl Client {
    /// Bytes; the peer may close before it has them all.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    async fn frame(&mut self, frame: &Frame) {
        self.send(&frame::encode(frame)).await;
    }

    /// The next frame; `None` once the peer has closed.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Decoded::Frame(frame) = self.decoder.decode().expect("good frames") {
                return Some(frame);
            }
            let mut byte = [0; 1];
            if self.stream.read(&mut byte).await.expect("a pipe") == 0 {
                return None;
            }
            self.decoder.feed(&byte);
        }
    }

    /// The next frame that is no PING.
    async fn answer(&mut self) -> Option<Frame> {
        loop {
            match self.next().await {
                Some(Frame::Ping(_)) => {}
                other => return other,
            }
        }
    }
}

fn busy(sequence: u64) -> Option<Frame> {
    Some(Frame::Ack(sequence, Answer::Busy { retry_ms: 1_000 }))
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
