//! Peers of the legacy system, written from its wire format byte by byte and with its habits: a [`LegacyCollector`] that reads each header
//! with one call, drops bodies that it has seen and forgets keys that it does not know; a [`LegacyTail`] that sends numbered packs of lines, in
//! pieces, with connections that end at any byte.

use logferry_pack::{Codec, Compressor};
use md5::{Digest, Md5};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause before a connection is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// An empty zlib stream as a legacy node writes it.
const EMPTY_ZLIB: &[u8] = &[0x78, 0x9c, 0x01, 0, 0, 0xff, 0xff, 0, 0, 0, 1];

/// The length in front of a header: LEB128, padded with zeros to 4 bytes.
pub fn length(mut number: usize) -> [u8; 4] {
    let mut bytes = [0; 4];
    for byte in &mut bytes {
        *byte = (number & 0x7f) as u8;
        number >>= 7;
        if number > 0 {
            *byte |= 0x80;
        }
    }
    bytes
}

fn number(bytes: [u8; 4]) -> usize {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// A pack: length, header and body.
pub fn pack(route: &[BTreeMap<String, String>], body: &[u8]) -> Vec<u8> {
    let route = serde_json::to_string(route).expect("strings");
    let header = format!("{{\"Route\":{route},\"PackLen\":{}}}", body.len());
    [&length(header.len())[..], header.as_bytes(), body].concat()
}

/// The packs of one hour of a host as a legacy tail cuts them: `lines_each` lines, and the rest in the done pack.
pub fn packs_of_hour(ip: &str, hour: &str, lines: &[u8], lines_each: usize) -> Vec<Vec<u8>> {
    packs_cut(ip, hour, lines, lines_each, false)
}

/// The same packs, shipped again because somebody asked for it.
pub fn repulled_packs_of_hour(ip: &str, hour: &str, lines: &[u8], lines_each: usize) -> Vec<Vec<u8>> {
    packs_cut(ip, hour, lines, lines_each, true)
}

fn packs_cut(ip: &str, hour: &str, lines: &[u8], lines_each: usize, repull: bool) -> Vec<Vec<u8>> {
    let all: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    let full = all.len() / lines_each;
    let mut packs = Vec::new();
    for id in 1..=full + 1 {
        let lines = all.get((id - 1) * lines_each..all.len().min(id * lines_each)).unwrap_or_default();
        let done = id == full + 1;
        let mut origin: BTreeMap<String, String> = [
            ("ip", ip.to_owned()),
            ("hour", hour.to_owned()),
            ("id", id.to_string()),
            ("lines", lines.len().to_string()),
            ("stage", "make pack".to_owned()),
            ("st", "2026-11-21 01:00:00.000".to_owned()),
            ("ed", "2026-11-21 01:00:00.001".to_owned()),
            ("elapse", "812.5µs".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if done {
            origin.insert("done".into(), "1".into());
        }
        if repull || lines.is_empty() {
            origin.insert("repull".into(), "1".into());
        }
        let body = if lines.is_empty() {
            EMPTY_ZLIB.to_vec()
        } else {
            Compressor::new(Codec::Zlib, 6).expect("a codec").compress(&lines.concat()).to_vec()
        };
        packs.push(pack(&[origin], &body));
    }
    packs
}

/// How a peer spoils its own connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// One pack in so many is broken off at any byte, and one in so many leaves before its answer; 0: none.
    pub breaks_off: u32,
    /// Packs are written in pieces of up to so many bytes; 0: in one.
    pub pieces: usize,
}

/// Sends packs one after the other, each until it is answered `ok`, over as many connections as that takes.
pub fn send_all(to: &str, packs: &[Vec<u8>], manners: Manners, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut connection = None;
    for pack in packs {
        while !send(to, &mut connection, pack, manners, &mut random) {
            connection = None;
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}

fn send(
    to: &str,
    connection: &mut Option<TcpStream>,
    pack: &[u8],
    manners: Manners,
    random: &mut StdRng,
) -> bool {
    if connection.is_none() {
        *connection = TcpStream::connect(to).ok();
    }
    let Some(connection) = connection else { return false };
    let _ = connection.set_nodelay(true);
    let is_bad = |random: &mut StdRng| manners.breaks_off > 0 && random.random_ratio(1, manners.breaks_off);
    let end = if is_bad(random) { random.random_range(0..pack.len()) } else { pack.len() };
    let mut left = &pack[..end];
    while !left.is_empty() {
        let most = if manners.pieces == 0 { left.len() } else { manners.pieces.min(left.len()) };
        let (piece, rest) =
            left.split_at(if manners.pieces == 0 { most } else { random.random_range(1..=most) });
        if connection.write_all(piece).is_err() {
            return false;
        }
        left = rest;
    }
    if end < pack.len() || is_bad(random) {
        return false;
    }
    let mut answer = [0; 2];
    connection.read_exact(&mut answer).is_ok() && &answer == b"ok"
}

/// A thread that sends packs as [`send_all`] does.
pub struct LegacyTail {
    thread: JoinHandle<()>,
}

impl LegacyTail {
    /// Starts to send.
    pub fn start(to: &str, packs: Vec<Vec<u8>>, manners: Manners, seed: u64) -> LegacyTail {
        let to = to.to_owned();
        LegacyTail { thread: std::thread::spawn(move || send_all(&to, &packs, manners, seed)) }
    }

    /// Whether all is answered.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all is answered.
    pub fn finish(self) {
        self.thread.join().expect("the tail");
    }
}

/// A legacy collector: takes packs, and passes them on to one target over several connections. What it has taken outlives
/// [`LegacyCollector::kill`] as the files do that a legacy node writes when it ends. (One that is killed at a bad moment loses packs that it has
/// answered, because it answers from memory. No peer can mend that.)
pub struct LegacyCollector {
    addr: String,
    to: String,
    senders: usize,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Vec<u8>>>,
    seen: Mutex<HashSet<[u8; 16]>>,
    taken: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

struct Running {
    stop: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

impl LegacyCollector {
    /// On a port of its own, started.
    pub fn start(to: &str, senders: usize) -> LegacyCollector {
        let addr = format!("127.0.0.1:{}", crate::ports::free_port());
        let mut collector =
            LegacyCollector { addr, to: to.to_owned(), senders, shared: Arc::default(), running: None };
        collector.resume();
        collector
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Packs that it took, dropped as seen, and refused.
    pub fn counts(&self) -> (u64, u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.shared.taken), count(&self.shared.dropped), count(&self.shared.refused))
    }

    /// Ends all connections wherever they are. `forgets`: what it has seen is lost, as it is when it was not saved.
    pub fn kill(&mut self, forgets: bool) {
        let Some(Running { stop, connections, threads }) = self.running.take() else { return };
        stop.store(true, Ordering::SeqCst);
        // Wakes who waits for a connection.
        let _ = TcpStream::connect(&self.addr);
        while threads.iter().any(|thread| !thread.is_finished()) {
            lock(&connections).iter().for_each(|connection| drop(connection.shutdown(Shutdown::Both)));
            std::thread::sleep(Duration::from_millis(1));
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a thread of the legacy collector"));
        if forgets {
            lock(&self.shared.seen).clear();
        }
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let listener = TcpListener::bind(&self.addr).expect("its port");
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let peer = Peer { shared: self.shared.clone(), stop: stop.clone(), connections: connections.clone() };
        let mut threads: Vec<_> = (0..self.senders)
            .map(|_| {
                let (peer, to) = (peer.clone(), self.to.clone());
                std::thread::spawn(move || peer.pass_on(&to))
            })
            .collect();
        threads.push(std::thread::spawn(move || peer.listen(&listener)));
        self.running = Some(Running { stop, connections, threads });
    }
}

impl Drop for LegacyCollector {
    fn drop(&mut self) {
        self.kill(false);
    }
}

#[derive(Clone)]
struct Peer {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Peer {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// So that it can be ended from outside.
    fn register(&self, connection: &TcpStream) {
        let mut connections = lock(&self.connections);
        connections.retain(|known| known.peer_addr().is_ok());
        connections.extend(connection.try_clone());
    }

    fn listen(&self, listener: &TcpListener) {
        let mut threads = Vec::new();
        while let Ok((connection, _)) = listener.accept() {
            if self.stops() {
                break;
            }
            self.register(&connection);
            let peer = self.clone();
            threads.push(std::thread::spawn(move || while peer.take(&connection) {}));
        }
        threads.into_iter().for_each(|thread: JoinHandle<()>| thread.join().expect("a connection"));
    }

    /// Takes a pack; false when the connection is over.
    fn take(&self, mut connection: &TcpStream) -> bool {
        let mut bytes = [0; 4];
        // One call for the length, one for the header, whatever comes of it.
        match connection.read(&mut bytes) {
            Ok(4) => {}
            Ok(1..) => return self.refuse(connection),
            Ok(0) | Err(_) => return false,
        }
        let mut header = vec![0; number(bytes).min(1 << 20)];
        let Ok(read) = connection.read(&mut header) else { return false };
        let Ok(json) = serde_json::from_slice::<Value>(&header[..read]) else {
            return self.refuse(connection);
        };
        let mut route: Vec<BTreeMap<String, String>> =
            serde_json::from_value(json["Route"].clone()).expect("objects of strings");
        let mut body = vec![0; json["PackLen"].as_u64().expect("PackLen") as usize];
        if connection.read_exact(&mut body).is_err() {
            return false;
        }
        self.shared.taken.fetch_add(1, Ordering::Relaxed);
        let is_repull = route[0].get("repull").is_some_and(|repull| repull == "1");
        let is_new = lock(&self.shared.seen).insert(Md5::digest(&body).into());
        if is_new || is_repull {
            route.push(hop());
            lock(&self.shared.queue).push_back(pack(&route, &body));
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        connection.write_all(b"ok").is_ok()
    }

    fn refuse(&self, mut connection: &TcpStream) -> bool {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let _ = connection.write_all(b"wrong header");
        let _ = connection.shutdown(Shutdown::Both);
        false
    }

    fn pass_on(&self, to: &str) {
        let mut connection = None;
        let mut random = StdRng::seed_from_u64(0);
        while !self.stops() {
            let next = lock(&self.shared.queue).pop_front();
            let Some(pack) = next else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if connection.is_none() {
                connection = TcpStream::connect(to).ok();
                connection.iter().for_each(|connection| self.register(connection));
            }
            if self.stops() || !send(to, &mut connection, &pack, Manners::default(), &mut random) {
                lock(&self.shared.queue).push_front(pack);
                connection = None;
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn hop() -> BTreeMap<String, String> {
    [
        ("ip", "10.0.0.9"),
        ("stage", "tcp recv"),
        ("st", "2026-11-21 01:00:01.000"),
        ("ed", "2026-11-21 01:00:01.001"),
        ("elapse", "1.2ms"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The routes of the packs in a header file, in order.
pub fn routes(header_file: &[u8]) -> Vec<Vec<Map<String, Value>>> {
    let lines = header_file.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"Route\""));
    lines
        .map(|line| {
            let header: Value = serde_json::from_slice(line).expect("a header line");
            serde_json::from_value(header["Route"].clone()).expect("a route")
        })
        .collect()
}
