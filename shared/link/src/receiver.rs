//! The receiving side: a listener and two tasks for each connection.

use crate::answer::{Answerer, Incoming, OpenAnswer, Peer, Reply};
use crate::budget::Budget;
use crate::frame::{self, Frame, HEAD_BYTES, Hello, PREFACE, SEQUENCE_BYTES};
use crate::{Answer, session};
use bytes::{Buf, BytesMut};
use logferry_node::config::{ListenSettings, NodeSettings};
use logferry_pack::{Codec, Limits, Pack};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a stop waits for packs that were read to be answered.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything a receiver needs.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// From the configuration.
    pub settings: ListenSettings,
    /// Node name for HELLO.
    pub node: String,
    /// Role for HELLO: `collector` or `outputter`.
    pub role: &'static str,
    /// Limits for packs.
    pub limits: Limits,
    /// Memory for packs that were read and not answered, over all connections.
    pub budget: Budget,
}

impl ReceiverOptions {
    /// From settings.
    pub fn new(
        settings: &ListenSettings,
        node: &NodeSettings,
        role: &'static str,
        budget: Budget,
    ) -> ReceiverOptions {
        let bytes = |size: logferry_node::config::ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        ReceiverOptions {
            settings: settings.clone(),
            node: node.name.clone(),
            role,
            limits: Limits {
                header_bytes_max: bytes(settings.header_max),
                pack_bytes_max: bytes(settings.pack_max),
                raw_bytes_max: bytes(settings.raw_max),
            },
            budget,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            role: self.role.to_owned(),
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            codecs: [Codec::Zlib, Codec::Zstd, Codec::None].map(|codec| codec.to_string()).to_vec(),
            max_header: self.limits.header_bytes_max as u64,
            max_pack: self.limits.pack_bytes_max as u64,
            window: self.settings.window.0,
            token: None,
            codec: Some(Codec::Zlib.to_string()),
        }
    }
}

/// The receiving side.
pub struct Receiver {
    listener: TcpListener,
    addr: SocketAddr,
    options: Arc<ReceiverOptions>,
}

impl Receiver {
    /// Binds the address. The error names it.
    pub async fn bind(options: ReceiverOptions) -> io::Result<Receiver> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("listen on {}: {error}", options.settings.addr))
        };
        let listener = TcpListener::bind(&options.settings.addr).await.map_err(named)?;
        let addr = listener.local_addr()?;
        Ok(Receiver { listener, addr, options: Arc::new(options) })
    }

    /// The bound address (port 0 in the configuration is any free port).
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`; then says BYE, takes no more packs, delivers answers for a bounded time and returns.
    pub async fn run(self, packs: mpsc::Sender<Incoming>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let slots =
            Arc::new(Semaphore::new(usize::try_from(self.options.settings.connections_max).unwrap_or(4_096)));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    refused("accept_failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                refused("too_many_connections");
                continue;
            };
            let (options, packs, stop) = (self.options.clone(), packs.clone(), stop.clone());
            connections.spawn(async move {
                metrics::gauge!("logferry_link_connections").increment(1);
                if let Err(refusal) = serve(stream, addr, &options, packs, stop).await {
                    refused(refusal.reason);
                    tracing::warn!(peer = %addr, reason = refusal.reason, error = %refusal.error, "connection refused");
                }
                metrics::gauge!("logferry_link_connections").decrement(1);
                drop(slot);
            });
        }
        drop(packs);
        connections.close();
        connections.wait().await;
    }
}

fn refused(reason: &'static str) {
    metrics::counter!("logferry_link_refused_total", "reason" => reason).increment(1);
}

/// Why a connection was closed by us.
struct Refusal {
    reason: &'static str,
    error: io::Error,
}

impl Refusal {
    fn new(reason: &'static str, what: &str) -> Refusal {
        Refusal { reason, error: io::Error::new(ErrorKind::InvalidData, what.to_owned()) }
    }
}

/// How reading from a connection ended without a refusal.
enum End {
    Closed,
    Stopping,
}

async fn serve(
    mut stream: TcpStream,
    addr: SocketAddr,
    options: &Arc<ReceiverOptions>,
    packs: mpsc::Sender<Incoming>,
    stop: CancellationToken,
) -> Result<(), Refusal> {
    let _ = stream.set_nodelay(true);
    let greeting = timeout(options.settings.hello_timeout.0, welcome(&mut stream, options)).await;
    let Some(hello) = greeting.unwrap_or_else(|_| Err(Refusal::new("hello_timeout", "no HELLO in time")))?
    else {
        return Ok(());
    };
    tracing::info!(peer = %addr, node = hello.node, role = hello.role, "connected");
    let peer = Arc::new(Peer { addr, node: hello.node, role: hello.role });
    let (reader, writer) = stream.into_split();
    let (replies, outbox) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write_replies(writer, outbox, options.settings.frame_timeout.0));
    let open = Arc::new(AtomicU64::new(0));
    let mut connection =
        Connection { reader, options: options.clone(), peer, packs, replies, open: open.clone() };
    let end = tokio::select! {
        end = connection.read() => end,
        () = stop.cancelled() => Ok(End::Stopping),
    };
    if !matches!(end, Ok(End::Closed)) {
        let reason = end.as_ref().err().map_or("stopping", |refusal| refusal.reason);
        let _ = connection.replies.send(Reply::Bye(reason));
    }
    if matches!(end, Ok(End::Stopping)) {
        wait_answered(&open).await;
    }
    // The writer ends when the last handle to it is gone; answers of packs still with the owner keep it for that long.
    drop(connection);
    if !matches!(end, Ok(End::Closed)) {
        let _ = timeout(DRAIN_MAX, writing).await;
    }
    end.map(drop)
}

async fn wait_answered(open: &AtomicU64) {
    let answered = async {
        while open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = timeout(DRAIN_MAX, answered).await;
}

/// Preface and HELLOs. `None` when the peer left without a word, as a port check does.
async fn welcome(stream: &mut TcpStream, options: &ReceiverOptions) -> Result<Option<Hello>, Refusal> {
    let broken = |error: io::Error| Refusal { reason: "hello_broken", error };
    let mut preface = [0; PREFACE.len()];
    if stream.read(&mut preface[..1]).await.map_err(broken)? == 0 {
        return Ok(None);
    }
    // Protocol v1 begins with a header length; its place is here.
    if preface[0] != PREFACE[0] {
        return Err(Refusal::new("not_v2", "the first byte is none of protocol v2"));
    }
    stream.read_exact(&mut preface[1..]).await.map_err(broken)?;
    if preface != PREFACE {
        return Err(Refusal::new("not_v2", "the first bytes are none of protocol v2"));
    }
    match session::read_frame(stream).await {
        Ok(Frame::Hello(hello)) => {
            let answer = frame::encode(&Frame::Hello(options.hello()));
            stream.write_all(&answer).await.map_err(broken)?;
            Ok(Some(hello))
        }
        Ok(_) => Err(Refusal::new("no_hello", "another frame in place of HELLO")),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Refusal { reason: "bad_frame", error }),
        Err(error) => Err(broken(error)),
    }
}

/// The reading half of a connection.
struct Connection<R> {
    reader: R,
    options: Arc<ReceiverOptions>,
    peer: Arc<Peer>,
    packs: mpsc::Sender<Incoming>,
    replies: mpsc::UnboundedSender<Reply>,
    open: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    async fn read(&mut self) -> Result<End, Refusal> {
        loop {
            let mut head = [0; HEAD_BYTES];
            let idle = self.options.settings.idle_timeout.0;
            match timeout(idle, self.reader.read_exact(&mut head)).await {
                Err(_) => return Err(Refusal::new("idle", "no frame in time")),
                // The peer has gone, with or without a word: it will connect again and send what was not answered.
                Ok(Err(_)) => return Ok(End::Closed),
                Ok(Ok(_)) => {}
            }
            let (kind, length) = frame::parse_head(head, self.options.limits.pack_bytes_max)
                .map_err(|bad| Refusal::new(bad.reason(), &bad.to_string()))?;
            if kind == frame::KIND_PACK {
                if !self.read_pack(length).await? {
                    return Ok(End::Closed);
                }
                continue;
            }
            let Some(payload) = self.read_payload(length).await? else { return Ok(End::Closed) };
            match frame::decode(kind, &payload).map_err(|bad| Refusal::new(bad.reason(), &bad.to_string()))? {
                Frame::Ping(number) => drop(self.replies.send(Reply::Pong(number))),
                Frame::Bye(_) | Frame::Pong(_) | Frame::Skipped => {}
                Frame::Hello(_) | Frame::Ack(..) => {
                    return Err(Refusal::new("unexpected_frame", "not for a server"));
                }
            }
        }
    }

    /// A payload, in a buffer of just its size. `None` when the peer went away in the middle.
    async fn read_payload(&mut self, length: usize) -> Result<Option<BytesMut>, Refusal> {
        let mut payload = BytesMut::with_capacity(length);
        let limit = self.options.settings.frame_timeout.0;
        let reading = async {
            while payload.len() < length {
                let rest = length - payload.len();
                if (&mut self.reader).take(rest as u64).read_buf(&mut payload).await.unwrap_or(0) == 0 {
                    return false;
                }
            }
            true
        };
        match timeout(limit, reading).await {
            Err(_) => Err(Refusal::new("slow", "a frame was not whole in time")),
            Ok(whole) => Ok(whole.then_some(payload)),
        }
    }

    /// Takes the bytes from the budget, then from the socket, and hands the pack on. False when the peer or the owner has gone.
    async fn read_pack(&mut self, length: usize) -> Result<bool, Refusal> {
        if length < SEQUENCE_BYTES {
            return Err(Refusal::new("bad_frame", "PACK without a sequence"));
        }
        let permit = self.options.budget.acquire(length as u64).await;
        let Some(mut payload) = self.read_payload(length).await? else { return Ok(false) };
        let sequence = payload.get_u64_le();
        let answer =
            Answerer { sequence, replies: self.replies.clone(), open: OpenAnswer::new(&self.open), permit };
        match Pack::parse(payload.freeze(), &self.options.limits) {
            Ok(pack) => {
                metrics::counter!("logferry_link_packs_received_total").increment(1);
                metrics::counter!("logferry_link_bytes_received_total").increment(length as u64);
                Ok(self.packs.send(Incoming { pack, peer: self.peer.clone(), answer }).await.is_ok())
            }
            Err(bad) => {
                refused(bad.reason());
                tracing::warn!(peer = %self.peer.addr, node = self.peer.node, error = %bad, "pack rejected");
                answer.send(Answer::Rejected { reason: bad.reason().to_owned() });
                Ok(true)
            }
        }
    }
}

/// Writes answers until there is nobody left to give one.
async fn write_replies(
    mut writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::UnboundedReceiver<Reply>,
    limit: Duration,
) {
    let mut bytes = BytesMut::new();
    while let Some(reply) = outbox.recv().await {
        let mut next = Some(reply);
        while let Some(reply) = next {
            bytes.extend_from_slice(&frame::encode(&match reply {
                Reply::Ack(sequence, answer) => Frame::Ack(sequence, answer),
                Reply::Pong(number) => Frame::Pong(number),
                Reply::Bye(reason) => Frame::Bye(reason.to_owned()),
            }));
            next = outbox.try_recv().ok();
        }
        if !matches!(timeout(limit, writer.write_all(&bytes)).await, Ok(Ok(()))) {
            return; // the peer is gone; it sends again what it has no answer for
        }
        bytes.clear();
    }
    let _ = writer.shutdown().await;
}
