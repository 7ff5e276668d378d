//! A tailer in this process, a folder of log files, and a next tier that remembers what it took.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use logferry_durable::{Disk, RealDisk};
use logferry_footprint::{Footprint, Verdict};
use logferry_link::{Answer, Budget, Incoming, Receiver, ReceiverOptions};
use logferry_node::config::{ByteSize, Interval, ListenSettings, NodeSettings, SendSettings};
use logferry_pack::{Codec, Decompressor, Limits, Pack, PackIdentity, StreamId};
use logferry_tailer::config::{SourceSettings, TailerConfig};
use logferry_tailer::tailer::Tailer;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; only reached when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How the next tier answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As an outputter does, by its footprint.
    Store,
    /// Not at all; packs are kept until the manner changes.
    Silent,
    /// Refuses for good.
    Reject,
}

/// A pack that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub identity: PackIdentity,
    pub first: u64,
    pub hour: String,
    pub id: u64,
    pub lines: u64,
    pub source: String,
    pub done: bool,
}

/// What the next tier knows.
pub struct State {
    pub manner: Manner,
    pub footprint: Footprint,
    /// Bytes by stream, in the order of first sight.
    pub streams: Vec<(StreamId, BTreeMap<u64, Vec<u8>>)>,
    /// Every pack that came in, whatever the answer.
    pub seen: Vec<Seen>,
    /// Of these, those without lines, apart.
    pub marks: Vec<Seen>,
    pub conflicts: usize,
    pub duplicates: usize,
    silent: Vec<Incoming>,
    decompressor: Decompressor,
}

/// The next tier.
#[derive(Clone)]
pub struct Tier {
    state: Arc<Mutex<State>>,
    pub addr: SocketAddr,
    stop: CancellationToken,
}

impl Tier {
    pub async fn start() -> Tier {
        let settings = ListenSettings { addr: "127.0.0.1:0".into(), ..Default::default() };
        let node = NodeSettings { name: "store".into(), ..Default::default() };
        let options = ReceiverOptions::new(&settings, &node, "outputter", Budget::new(64 << 20));
        let receiver = Receiver::bind(options).await.expect("a free port");
        let addr = receiver.local_addr();
        let stop = CancellationToken::new();
        let (packs, mut incoming) = tokio::sync::mpsc::channel(16);
        tokio::spawn(receiver.run(packs, stop.clone()));
        let state = Arc::new(Mutex::new(State {
            manner: Manner::Store,
            footprint: Footprint::default(),
            streams: Vec::new(),
            seen: Vec::new(),
            marks: Vec::new(),
            conflicts: 0,
            duplicates: 0,
            silent: Vec::new(),
            decompressor: Decompressor::new(),
        }));
        let tier = Tier { state, addr, stop };
        let taking = tier.clone();
        tokio::spawn(async move {
            while let Some(pack) = incoming.recv().await {
                taking.lock().take(pack);
            }
        });
        tier
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked meanwhile")
    }

    /// Changes the manner; packs that waited are answered by it.
    pub fn behave(&self, manner: Manner) {
        let mut state = self.lock();
        state.manner = manner;
        for incoming in std::mem::take(&mut state.silent) {
            state.take(incoming);
        }
    }

    /// Packs that were not answered are not taken any more, as when their connections are gone.
    pub fn drop_unanswered(&self) {
        self.lock().silent.clear();
    }

    /// All bytes, stream after stream in the order of first sight.
    pub fn stored(&self) -> Vec<u8> {
        let state = self.lock();
        state.streams.iter().flat_map(|(_, parts)| parts.values().flatten().copied()).collect()
    }

    /// Contents of the streams.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        let state = self.lock();
        state.streams.iter().map(|(_, parts)| parts.values().flatten().copied().collect()).collect()
    }

    /// Waits until exactly these bytes are stored.
    #[track_caller]
    pub fn wait_stored(&self, expected: &[u8]) {
        let reached = reached(|| self.stored() == expected);
        let stored = self.stored();
        assert!(reached, "stored {:?}, expected {:?}", excerpt(&stored), excerpt(expected));
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        if Arc::strong_count(&self.state) <= 2 {
            self.stop.cancel();
        }
    }
}

impl State {
    fn take(&mut self, incoming: Incoming) {
        let ours = incoming.pack.header.ours.clone().expect("a pack of ours");
        let seen = Seen {
            identity: ours.identity,
            first: ours.first,
            hour: incoming.pack.header.hour.to_string(),
            id: incoming.pack.header.id,
            lines: incoming.pack.header.lines,
            source: ours.source.as_str().to_owned(),
            done: incoming.pack.header.done,
        };
        if ours.identity.span == 0 {
            assert!(ours.identity.sum == 0 && incoming.pack.header.lines == 0 && incoming.pack.header.repull);
            self.marks.push(seen);
        } else {
            self.seen.push(seen);
        }
        match self.manner {
            Manner::Silent => self.silent.push(incoming),
            Manner::Reject => incoming.answer.send(Answer::Rejected { reason: "test".into() }),
            Manner::Store => {
                let answer = self.judge(&incoming.pack, &ours.identity, ours.first);
                incoming.answer.send(answer);
            }
        }
    }

    fn judge(&mut self, pack: &Pack, identity: &PackIdentity, first: u64) -> Answer {
        match self.footprint.judge(identity, first) {
            Verdict::Duplicate => {
                self.duplicates += 1;
                Answer::Duplicate
            }
            Verdict::Conflict(remembered) => {
                self.conflicts += 1;
                Answer::Conflict(remembered)
            }
            Verdict::Next | Verdict::Gap { .. } => {
                self.footprint.insert(identity, first, 0);
                let mut bytes = Vec::new();
                self.decompressor.decompress(pack, &Limits::default(), &mut bytes).expect("a good body");
                if identity.span > 0 {
                    self.parts(identity.stream).insert(identity.offset, bytes);
                }
                Answer::Ok
            }
        }
    }

    fn parts(&mut self, stream: StreamId) -> &mut BTreeMap<u64, Vec<u8>> {
        let index = match self.streams.iter().position(|(known, _)| *known == stream) {
            Some(index) => index,
            None => {
                self.streams.push((stream, BTreeMap::new()));
                self.streams.len() - 1
            }
        };
        &mut self.streams[index].1
    }
}

/// A folder with `logs/` and `var/`, and the configuration of a tailer that follows `logs/app.log`.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub config: TailerConfig,
    pub disk: Arc<dyn Disk>,
}

impl Rig {
    pub fn new(tier: &Tier) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["logs", "var"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let source = SourceSettings {
            name: "app".into(),
            path: folder.path().join("logs/app.log").to_str().expect("plain").into(),
            poll_interval: Interval::ms(50),
            rotate_wait: Interval::ms(150),
            ..Default::default()
        };
        let node =
            NodeSettings { name: "web-1".into(), var_dir: folder.path().join("var"), ..Default::default() };
        let mut config = TailerConfig { node, source: vec![source], ..Default::default() };
        config.send = SendSettings { to: vec![tier.addr.to_string()], ..Default::default() };
        config.pack.codec = Codec::Zlib;
        config.pack.max_bytes = ByteSize::kib(4);
        config.pack.max_line = ByteSize::kib(16);
        config.pack.max_age = Interval::ms(20);
        Rig { folder, config, disk: Arc::new(RealDisk) }
    }

    /// Follows what this pattern leads to instead of `logs/app.log`.
    pub fn follow(&mut self, pattern: &str) {
        self.config.source[0].path = self.at(pattern).to_str().expect("plain").into();
    }

    pub fn log(&self) -> PathBuf {
        self.at("app.log")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    pub fn start(&self) -> Tailer {
        Tailer::start(&self.config, self.disk.clone()).expect("the tailer starts")
    }

    /// Deletes the tailer's state.
    pub fn forget(&self) {
        let var = self.folder.path().join("var");
        std::fs::remove_dir_all(&var).expect("removed");
        std::fs::create_dir(&var).expect("created");
    }

    /// Waits until a new file would be younger than this one by the system's clock for files, which ticks every few milliseconds.
    pub fn wait_for_another_birth_time(&self, path: &Path) {
        let born =
            |path: &Path| std::fs::metadata(path).and_then(|facts| facts.created()).expect("birth time");
        let probe = self.folder.path().join("probe");
        wait_until("the clock of files ticks", || {
            std::fs::write(&probe, "").expect("written");
            let is_younger = born(&probe) > born(path);
            std::fs::remove_file(&probe).expect("removed");
            is_younger
        });
    }

    /// Files in the quarantine.
    pub fn quarantined(&self) -> usize {
        let folder = self.folder.path().join("var/quarantine");
        std::fs::read_dir(folder).map_or(0, |entries| entries.count())
    }
}

/// Appends to a file, creating it.
pub fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = std::fs::File::options().append(true).create(true).open(path).expect("opened");
    file.write_all(bytes.as_ref()).expect("written");
}

/// As `logrotate` with `copytruncate` does.
pub fn copy_and_truncate(rig: &Rig, copy: &str) {
    std::fs::copy(rig.log(), rig.at(copy)).expect("copied");
    std::fs::File::options().write(true).open(rig.log()).expect("opened").set_len(0).expect("truncated");
}

/// Compressed by what `extension` stands for.
pub fn compress(content: &[u8], extension: &str) -> Vec<u8> {
    match extension {
        "gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).expect("in memory");
            encoder.finish().expect("in memory")
        }
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(content).expect("in memory");
            encoder.finish().expect("in memory")
        }
        _ => zstd::encode_all(content, 1).expect("in memory"),
    }
}

/// Contents, whatever the order in which they came.
pub fn sorted(mut contents: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    contents.sort();
    contents
}

/// `count` numbered lines of different lengths.
pub fn lines(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).flat_map(|n| format!("line {n} {}\n", "x".repeat(n * 7 % 61)).into_bytes()).collect()
}

/// One figure of a tailer.
pub fn figure(tailer: &Tailer, name: &str) -> u64 {
    tailer.status()().figures.get(name).copied().unwrap_or_else(|| panic!("there is no figure {name}"))
}

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(reached(condition), "waited in vain: {what}");
}

fn reached(mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    condition()
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (head, tail): (String, String) =
        (text.chars().take(120).collect(), text.chars().rev().take(120).collect());
    format!("{} bytes: {head} … {}", bytes.len(), tail.chars().rev().collect::<String>())
}
