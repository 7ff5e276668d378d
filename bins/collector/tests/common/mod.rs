//! A collector in a folder of its own, and both its neighbours.

use bytes::Bytes;
use logferry_collector::{Collector, CollectorConfig};
use logferry_durable::RealDisk;
use logferry_footprint::{Remembered, SeenPack};
use logferry_link::{
    Answer, Answerer, Budget, Incoming, Outcome, Outgoing, Receiver, ReceiverOptions, Sender, SenderOptions,
    Settled,
};
use logferry_node::config::{ByteSize, Interval, ListenSettings, NodeSettings, SendSettings};
use logferry_pack::{Codec, Header, Limits, Name, Ours, Pack, PackIdentity, StreamId, crc32c};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A folder and the address of a next tier that is not there yet.
pub(crate) struct Test {
    folder: TempDir,
    pub(crate) target: String,
}

impl Test {
    pub(crate) fn new() -> Test {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = free.local_addr().expect("an address").to_string();
        Test { folder: TempDir::new().expect("a folder"), target }
    }

    pub(crate) async fn start(&self) -> Collector {
        self.start_with(|_| {}).await
    }

    /// Short times, so that tests wait for no clock.
    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut CollectorConfig)) -> Collector {
        let mut config = CollectorConfig::default();
        config.node.name = "collector".into();
        config.node.var_dir = self.folder.path().to_owned();
        config.listen.addr = "127.0.0.1:0".into();
        config.send = fast(&self.target);
        config.relay.spool_after = Interval::ms(50);
        config.relay.busy_after = Interval::ms(100);
        change(&mut config);
        Collector::start(&config, Arc::new(RealDisk)).await.expect("a collector")
    }

    pub(crate) fn figure(&self, collector: &Collector, name: &str) -> u64 {
        collector.status()().figures[name]
    }

    /// Removes the oldest segment of the spool, as somebody does who needs room.
    pub(crate) fn remove_segment(&self) {
        let entries = std::fs::read_dir(self.folder.path().join("spool")).expect("the spool");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let oldest = paths.filter(|path| path.extension().is_some_and(|end| end == "seg")).min();
        std::fs::remove_file(oldest.expect("a segment")).expect("removed");
    }

    pub(crate) fn spoil_footprint(&self) {
        let mut spoiled = 0;
        for slot in ["footprint.0", "footprint.1"] {
            let path = self.folder.path().join(slot);
            if let Ok(mut bytes) = std::fs::read(&path) {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
                std::fs::write(&path, bytes).expect("written");
                spoiled += 1;
            }
        }
        assert!(spoiled > 0, "there was a footprint");
    }

    /// Numbers of the packs in the quarantine.
    pub(crate) fn quarantined_packs(&self) -> Vec<u64> {
        let folder = std::fs::read_dir(self.folder.path().join("quarantine")).expect("a quarantine");
        let files = folder.map(|entry| entry.expect("an entry").path());
        let packs = files.filter(|path| path.extension().is_some_and(|ending| ending == "bin"));
        let mut numbers: Vec<u64> = packs
            .map(|path| {
                let bytes = Bytes::from(std::fs::read(path).expect("a file"));
                number_of(&Pack::parse(bytes, &Limits::default()).expect("a pack"))
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

pub(crate) fn conflict() -> Answer {
    Answer::Conflict(Remembered { frontier: 5, packs: vec![SeenPack(0, 5, 77)] })
}

fn fast(target: &str) -> SendSettings {
    SendSettings {
        to: vec![target.to_owned()],
        backoff_min: Interval::ms(5),
        backoff_max: Interval::ms(20),
        ..SendSettings::default()
    }
}

fn pack(stream: u128, number: u64, body: Vec<u8>, repull: bool) -> Pack {
    let span = body.len() as u64;
    let sum = crc32c(&body);
    let identity = PackIdentity { stream: StreamId(stream), offset: number * span, span, sum };
    let ours = Ours {
        host: Name::new("web-1").expect("a name"),
        source: Name::new("access").expect("a name"),
        identity,
        first: 0,
        raw: span,
        raw_sum: None,
        codec: Codec::None,
        crc: crc32c(&body),
    };
    let header = Header {
        ip: "10.0.0.7".into(),
        hour: "2026112101".parse().expect("an hour"),
        id: number + 1,
        lines: 1,
        done: false,
        repull,
        ours: Some(ours),
        origin_rest: Default::default(),
        hops: Vec::new(),
    };
    Pack { header, body: body.into() }
}

fn number_of(pack: &Pack) -> u64 {
    let identity = pack.header.ours.as_ref().expect("a pack of ours").identity;
    identity.offset / identity.span
}

/// Plays a tailer.
pub(crate) struct Tailer {
    sender: Sender,
    settled: mpsc::UnboundedReceiver<Settled>,
    ticket: u64,
    stop: CancellationToken,
}

impl Tailer {
    pub(crate) fn connect(collector: SocketAddr) -> Tailer {
        let stop = CancellationToken::new();
        let options =
            SenderOptions { settings: fast(&collector.to_string()), node: "web-1".into(), role: "tailer" };
        let (sender, settled) = Sender::start(options, stop.clone());
        Tailer { sender, settled, ticket: 0, stop }
    }

    pub(crate) async fn send(&mut self, stream: u128, numbers: Range<u64>) {
        for number in numbers {
            self.submit(&pack(stream, number, b"123456789\n".to_vec(), false)).await;
        }
    }

    /// Packs of 4 KiB.
    pub(crate) async fn send_large(&mut self, stream: u128, numbers: Range<u64>) {
        for number in numbers {
            self.submit(&pack(stream, number, vec![7; 4 << 10], false)).await;
        }
    }

    pub(crate) async fn send_repull(&mut self, stream: u128, number: u64) {
        self.submit(&pack(stream, number, b"123456789\n".to_vec(), true)).await;
    }

    pub(crate) async fn send_without_stream(&mut self) {
        let mut pack = pack(1, 0, b"123456789\n".to_vec(), false);
        pack.header.ours = None;
        self.submit(&pack).await;
    }

    async fn submit(&mut self, pack: &Pack) {
        self.ticket += 1;
        let stream = pack.header.ours.as_ref().map_or(StreamId(0), |ours| ours.identity.stream);
        let (header, body) = (pack.encode_header(), pack.body.clone());
        self.sender.submit(Outgoing { ticket: self.ticket, stream, apart: false, header, body }).await;
    }

    pub(crate) fn is_waiting(&mut self) -> bool {
        self.settled.try_recv().is_err()
    }

    /// The next `count` packs that are settled are settled so.
    pub(crate) async fn expect(&mut self, count: usize, outcome: &Outcome) {
        for _ in 0..count {
            let settled = tokio::time::timeout(PATIENCE, self.settled.recv()).await;
            let settled = settled.expect("an outcome in time").expect("a sender");
            assert_eq!(&settled.outcome, outcome);
        }
    }
}

impl Drop for Tailer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the outputter does with packs.
#[derive(Clone)]
pub(crate) enum Next {
    Answer(Answer),
    /// Keeps them unanswered until told what to answer.
    Hold,
}

#[derive(Default)]
struct Taken {
    /// Stream, number, hops.
    packs: Vec<(u128, u64, usize)>,
    held: Vec<Answerer>,
    next: Option<Next>,
}

/// Plays an outputter.
pub(crate) struct Outputter {
    taken: Arc<Mutex<Taken>>,
    stop: CancellationToken,
    receiver: JoinHandle<()>,
}

impl Outputter {
    pub(crate) async fn start(addr: &str, next: Next) -> Outputter {
        let settings = ListenSettings { addr: addr.to_owned(), ..ListenSettings::default() };
        let node = NodeSettings { name: "outputter".into(), ..NodeSettings::default() };
        let budget = Budget::new(ByteSize::mib(24).0);
        let receiver = Receiver::bind(ReceiverOptions::new(&settings, &node, "outputter", budget)).await;
        let receiver = receiver.expect("the target's address is free");
        let taken = Arc::new(Mutex::new(Taken { next: Some(next), ..Taken::default() }));
        let stop = CancellationToken::new();
        let (packs, mut packs_in) = mpsc::channel::<Incoming>(16);
        let receiver = tokio::spawn(receiver.run(packs, stop.clone()));
        let taking = taken.clone();
        tokio::spawn(async move {
            while let Some(incoming) = packs_in.recv().await {
                taking.lock().expect("no panic").take(incoming);
            }
        });
        Outputter { taken, stop, receiver }
    }

    /// Changes its mind; what was held is answered so too.
    pub(crate) fn next(&mut self, next: Next) {
        let mut taken = self.taken.lock().expect("no panic");
        if let Next::Answer(answer) = &next {
            taken.held.drain(..).for_each(|held| held.send(answer.clone()));
        }
        taken.next = Some(next);
    }

    /// Leaves without an answer to what it holds; its address is free then.
    pub(crate) async fn stop(self) {
        self.taken.lock().expect("no panic").held.clear();
        self.stop.cancel();
        self.receiver.await.expect("no panic");
    }

    pub(crate) fn held(&self) -> usize {
        self.taken.lock().expect("no panic").held.len()
    }

    /// Numbers of a stream's packs, as they came.
    pub(crate) fn offsets(&self, stream: u128) -> Vec<u64> {
        let taken = self.taken.lock().expect("no panic");
        taken.packs.iter().filter(|pack| pack.0 == stream).map(|pack| pack.1).collect()
    }

    pub(crate) fn hops(&self) -> Vec<usize> {
        self.taken.lock().expect("no panic").packs.iter().map(|pack| pack.2).collect()
    }
}

impl Taken {
    fn take(&mut self, incoming: Incoming) {
        let Incoming { pack, answer, .. } = incoming;
        let stream = pack.header.ours.as_ref().expect("a pack of ours").identity.stream.0;
        self.packs.push((stream, number_of(&pack), pack.header.hops.len()));
        match &self.next {
            Some(Next::Answer(with)) => answer.send(with.clone()),
            _ => self.held.push(answer),
        }
    }
}
