//! Thousands of connections cost little memory, whatever they announce. A process of its own, whose memory is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test may panic, and talks to who runs it

use logferry_link::frame::{self, Frame, HEAD_BYTES, Hello, KIND_ACK, PREFACE};
use logferry_link::{Answer, Budget, Incoming, Receiver, ReceiverOptions};
use logferry_node::config::{ListenSettings, NodeSettings};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 2_000;
const MEMORY: u64 = 24 << 20;
/// Clients are in this process too, but have no buffers of their own.
const BYTES_PER_CONNECTION: u64 = 12 << 10;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn greeted(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hello = frame::encode(&Frame::Hello(Hello { node: "client".to_owned(), ..Hello::default() }));
    stream.write_all(&[&PREFACE[..], &hello].concat()).unwrap();
    let (_, length) = frame::parse_head(read(&mut stream), 0).unwrap();
    stream.read_exact(&mut vec![0; length]).unwrap();
    stream
}

fn read<const COUNT: usize>(stream: &mut TcpStream) -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn pack() -> Vec<u8> {
    let json = br#"{"Route":[{"ip":"127.0.0.1","hour":"2026112101","id":"1","lines":"1"}],"PackLen":9000}"#;
    [&[json.len() as u8, 0, 0, 0], &json[..], &[7; 9_000]].concat()
}

/// Sends a pack and waits until it is acknowledged.
fn send_pack(stream: &mut TcpStream, sequence: u64) {
    stream.write_all(&frame::encode(&Frame::Pack(sequence, pack().into()))).unwrap();
    loop {
        let (kind, length) = frame::parse_head(read(stream), 0).unwrap();
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        if kind == KIND_ACK {
            assert_eq!(frame::decode(kind, &payload), Ok(Frame::Ack(sequence, Answer::Ok)));
            return;
        }
    }
}

async fn own(mut packs: mpsc::Receiver<Incoming>) {
    while let Some(incoming) = packs.recv().await {
        incoming.answer.send(Answer::Ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_cost_little_memory_whatever_they_announce() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    if limit.current.is_some_and(|most| most < 2 * CONNECTIONS as u64 + 100) {
        return logferry_trial::skipped("many_connections", "too few file descriptors are allowed");
    }
    let settings = ListenSettings { addr: "127.0.0.1:0".to_owned(), ..ListenSettings::default() };
    let budget = Budget::new(MEMORY);
    let options = ReceiverOptions::new(&settings, &NodeSettings::default(), "collector", budget.clone());
    let receiver = Receiver::bind(options).await.unwrap();
    let (addr, stop) = (receiver.local_addr(), CancellationToken::new());
    let (packs_in, packs) = mpsc::channel(16);
    tokio::spawn(own(packs));
    let running = tokio::spawn(receiver.run(packs_in, stop.clone()));

    let taken = budget.clone();
    let clients = tokio::task::spawn_blocking(move || {
        let before = resident();
        let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| greeted(addr)).collect();
        streams.iter_mut().for_each(|stream| send_pack(stream, 1));
        let idle = resident() - before;
        assert!(idle < CONNECTIONS as u64 * BYTES_PER_CONNECTION, "{idle} bytes for idle connections");
        // Each announces the largest pack, and begins it.
        let begun = [&frame::pack_front(2, 16 << 20)[..], &[0; HEAD_BYTES + 3_000]].concat();
        streams[1..].iter_mut().for_each(|stream| stream.write_all(&begun).unwrap());
        let begin = Instant::now();
        while taken.used() < 16 << 20 {
            assert!(begin.elapsed() < Duration::from_secs(10), "nobody gets memory");
            std::thread::yield_now();
        }
        let announced = resident() - before;
        assert!(announced < CONNECTIONS as u64 * BYTES_PER_CONNECTION + MEMORY, "{announced} bytes");
        println!(
            "{CONNECTIONS} connections: idle {} KiB, with packs begun {} KiB",
            idle >> 10,
            announced >> 10
        );
        streams.truncate(1);
        send_pack(&mut streams[0], 2);
    });
    clients.await.unwrap();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(budget.used(), 0);
}
