//! A TCP proxy that spoils connections: latency, cut at any byte, dropped acks, black hole, slices, flipped bits.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the proxy does to connections, now. All off by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Waits before each block is passed on.
    pub latency: Duration,
    /// Cuts each connection after a random number of bytes up to this (0: never).
    pub cut_within_bytes: u64,
    /// Frames of kind ACK from the server are swallowed.
    pub drop_acks: bool,
    /// Takes everything, passes nothing on, closes nothing.
    pub black_hole: bool,
    /// Passes on 1 to 7 bytes at a time.
    pub slice: bool,
    /// Flips one bit in about every so many bytes from the client (0: never).
    pub flip_every_bytes: u64,
}

struct Shared {
    faults: Mutex<Faults>,
    epoch: AtomicU64,
    stop: AtomicBool,
    seed: AtomicU64,
    connections: AtomicU64,
}

impl Shared {
    fn faults(&self) -> Faults {
        self.faults.lock().expect("faults").clone()
    }
}

/// A running proxy before one address.
pub struct Proxy {
    addr: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `target`.
    pub fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port of the proxy");
        let addr = listener.local_addr().expect("address of the proxy").to_string();
        let shared = Arc::new(Shared {
            faults: Mutex::default(),
            epoch: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            seed: AtomicU64::new(1),
            connections: AtomicU64::new(0),
        });
        let (target, state) = (target.to_owned(), shared.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.stop.load(Ordering::Relaxed) {
                    return;
                }
                state.connections.fetch_add(1, Ordering::Relaxed);
                connect(client, &target, &state);
            }
        });
        Proxy { addr, shared }
    }
    /// Its address.
    pub fn addr(&self) -> String {
        self.addr.clone()
    }
    /// Sets what it does from now on, also to connections that are open.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().expect("faults") = faults;
    }
    /// Cuts all connections that are open.
    pub fn cut_all(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
    }
    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.cut_all();
        let _ = TcpStream::connect(&self.addr); // wakes the accept loop
    }
}

fn connect(client: TcpStream, target: &str, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let seed = shared.seed.fetch_add(1, Ordering::Relaxed);
    let budget = match shared.faults().cut_within_bytes {
        0 => u64::MAX,
        most => StdRng::seed_from_u64(seed).random_range(1..=most),
    };
    let cut_at = Arc::new(AtomicU64::new(budget));
    for (from, to, from_server) in
        [(client.try_clone(), server.try_clone(), false), (Ok(server), Ok(client), true)]
    {
        let (Ok(from), Ok(to)) = (from, to) else { return };
        let pipe = Pipe {
            random: StdRng::seed_from_u64(seed * 2 + u64::from(from_server)),
            epoch: shared.epoch.load(Ordering::Relaxed),
            shared: shared.clone(),
            cut_at: cut_at.clone(),
            acks: from_server.then(AckFilter::default),
            from,
            to,
        };
        thread::spawn(move || pipe.run());
    }
}

/// One direction of one connection.
struct Pipe {
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
    epoch: u64,
    cut_at: Arc<AtomicU64>,
    acks: Option<AckFilter>,
    random: StdRng,
}

impl Pipe {
    fn run(mut self) {
        let _ = self.from.set_read_timeout(Some(Duration::from_millis(50)));
        let _ = self.to.set_nodelay(true);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if self.shared.epoch.load(Ordering::Relaxed) != self.epoch {
                break;
            }
            match self.from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if self.pass_on(&mut buffer[..count]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    fn pass_on(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        let faults = self.shared.faults();
        if faults.black_hole {
            return Ok(());
        }
        thread::sleep(faults.latency);
        let filtered;
        let bytes: &[u8] = if let Some(acks) = &mut self.acks {
            filtered = acks.filter(bytes, faults.drop_acks);
            &filtered
        } else {
            self.flip_a_bit(bytes, faults.flip_every_bytes);
            bytes
        };
        let left = self.cut_at.load(Ordering::Relaxed);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.write(&bytes[..room], faults.slice)?;
        self.cut_at.store(left - room as u64, Ordering::Relaxed);
        if room < bytes.len() { Err(ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn flip_a_bit(&mut self, bytes: &mut [u8], every_bytes: u64) {
        if every_bytes > 0 && self.random.random_range(0..every_bytes) < bytes.len() as u64 {
            let at = self.random.random_range(0..bytes.len());
            bytes[at] ^= 1 << self.random.random_range(0..8);
        }
    }

    fn write(&mut self, mut bytes: &[u8], slice: bool) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let count = if slice { self.random.random_range(1..=7).min(bytes.len()) } else { bytes.len() };
            self.to.write_all(&bytes[..count])?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

/// Follows the server's frames and leaves out those of kind ACK while told to.
#[derive(Default)]
struct AckFilter {
    head: Vec<u8>,
    body_left: u64,
    dropping: bool,
}

const FRAME_HEAD_BYTES: usize = 5;

impl AckFilter {
    fn filter(&mut self, mut bytes: &[u8], drop_acks: bool) -> Vec<u8> {
        let mut passed = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let count = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(bytes.len());
                if !self.dropping {
                    passed.extend_from_slice(&bytes[..count]);
                }
                self.body_left -= count as u64;
                bytes = &bytes[count..];
                continue;
            }
            let count = (FRAME_HEAD_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.head.len() == FRAME_HEAD_BYTES {
                let length = [self.head[1], self.head[2], self.head[3], self.head[4]];
                self.body_left = u64::from(u32::from_le_bytes(length));
                self.dropping = drop_acks && self.head[0] == logferry_link::frame::KIND_ACK;
                if !self.dropping {
                    passed.extend_from_slice(&self.head);
                }
                self.head.clear();
            }
        }
        passed
    }
}
