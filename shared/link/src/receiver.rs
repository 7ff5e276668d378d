//! The receiving side: a listener, and a task for each connection.

use crate::answer::Incoming;
use crate::budget::Budget;
use crate::connection::{Connection, say_last_words};
use crate::figures::{LogGate, ReceiverFigures, refused};
use crate::frame::{self, Frame, Hello};
use crate::legacy::LegacyFootprint;
use crate::session::{ReceiverTimes, Refusal};
use crate::{clock, codec_names};
use logferry_node::config::{ByteSize, ListenSettings, NodeSettings};
use logferry_node::quarantine::Quarantine;
use logferry_pack::{Codec, Limits};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept: with no descriptors left, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a stop waits for packs that were read to be answered.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections above the limit that are told so at a time; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// Shortest time between two log lines about connections that were not let in.
const TROUBLES_INTERVAL: Duration = Duration::from_secs(1);

/// Everything a receiver needs.
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
    /// For packs of legacy peers that are refused: there is no way to tell such a peer to keep them.
    pub quarantine: Option<Arc<Quarantine>>,
    /// Packs that a legacy node had taken before this one took its place.
    pub legacy_footprint: LegacyFootprint,
}

impl ReceiverOptions {
    /// From settings.
    pub fn new(
        settings: &ListenSettings,
        node: &NodeSettings,
        role: &'static str,
        budget: Budget,
    ) -> ReceiverOptions {
        let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
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
            quarantine: None,
            legacy_footprint: LegacyFootprint::default(),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            role: self.role.to_owned(),
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            codecs: codec_names(),
            max_header: self.limits.header_bytes_max as u64,
            max_pack: self.limits.pack_bytes_max as u64,
            window: self.settings.window.0,
            token: None,
            codec: Some(Codec::Zlib.to_string()),
        }
    }
}

/// What the connections of a receiver share.
pub(crate) struct Shared {
    pub(crate) options: ReceiverOptions,
    pub(crate) hello: Hello,
    pub(crate) packs: mpsc::Sender<Incoming>,
    pub(crate) stop: CancellationToken,
    pub(crate) figures: ReceiverFigures,
}

impl Shared {
    pub(crate) fn new(
        options: ReceiverOptions,
        packs: mpsc::Sender<Incoming>,
        stop: CancellationToken,
    ) -> Shared {
        Shared { hello: options.hello(), figures: ReceiverFigures::new(), options, packs, stop }
    }

    pub(crate) fn times(&self) -> ReceiverTimes {
        let settings = &self.options.settings;
        let hello_timeout = settings.hello_timeout.0;
        ReceiverTimes {
            first_byte_timeout: if settings.v1 { settings.v1_idle_timeout.0 } else { hello_timeout },
            hello_timeout,
            idle_timeout: settings.idle_timeout.0,
            frame_timeout: settings.frame_timeout.0,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    pub(crate) fn refused(&self, addr: SocketAddr, refusal: &Refusal) {
        refused(refusal.reason);
        if let Some(suppressed) = self.figures.refusals.pass(clock::now()) {
            tracing::warn!(peer = %addr, reason = refusal.reason, error = %refusal, suppressed, "connection refused");
        }
    }
}

/// The receiving side.
pub struct Receiver {
    listener: TcpListener,
    addr: SocketAddr,
    options: ReceiverOptions,
}

impl Receiver {
    /// Binds the address. The error names it.
    pub async fn bind(options: ReceiverOptions) -> io::Result<Receiver> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("listen on {}: {error}", options.settings.addr))
        };
        let listener = TcpListener::bind(&options.settings.addr).await.map_err(named)?;
        let addr = listener.local_addr()?;
        Ok(Receiver { listener, addr, options })
    }

    /// The bound address (port 0 in the configuration is any free port).
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`; then says BYE, takes no more packs, delivers answers for a bounded time and returns.
    pub async fn run(self, packs: mpsc::Sender<Incoming>, stop: CancellationToken) {
        let door = Door::new(Shared::new(self.options, packs, stop.clone()));
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            match accepted {
                Ok((stream, addr)) => door.open(stream, addr),
                Err(error) => {
                    refused("accept_failed");
                    if let Some(suppressed) = door.troubles.pass(clock::now()) {
                        tracing::warn!(%error, suppressed, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // New connections are refused by the kernel from here on, while the old ones come to their end.
        drop(self.listener);
        let Door { connections, shared, .. } = door;
        drop(shared);
        connections.close();
        connections.wait().await;
    }
}

/// Lets connections in, as many as there may be.
struct Door {
    shared: Arc<Shared>,
    /// For connections that are served.
    slots: Arc<Semaphore>,
    /// For those that are turned away.
    leaving: Arc<Semaphore>,
    connections: TaskTracker,
    troubles: LogGate,
}

impl Door {
    fn new(shared: Shared) -> Door {
        let slots = usize::try_from(shared.options.settings.connections_max).unwrap_or(usize::MAX);
        Door {
            shared: Arc::new(shared),
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            leaving: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            connections: TaskTracker::new(),
            troubles: LogGate::new(TROUBLES_INTERVAL),
        }
    }

    fn open(&self, stream: TcpStream, addr: SocketAddr) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return self.turn_away(stream, addr) };
        let shared = self.shared.clone();
        self.connections.spawn(async move {
            serve_tcp(stream, addr, shared).await;
            drop(slot);
        });
    }

    /// No slot is free: BYE.
    fn turn_away(&self, mut stream: TcpStream, addr: SocketAddr) {
        const REASON: &str = "too_many_connections";
        refused(REASON);
        if let Some(suppressed) = self.troubles.pass(clock::now()) {
            tracing::warn!(peer = %addr, reason = REASON, suppressed, "connection refused");
        }
        let Ok(place) = self.leaving.clone().try_acquire_owned() else { return };
        self.connections.spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let mut bye = frame::encode(&Frame::Bye(REASON.to_owned()));
            say_last_words(&mut reader, &mut writer, &mut bye).await;
            drop(place);
        });
    }
}

async fn serve_tcp(stream: TcpStream, addr: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    serve(reader, writer, addr, shared).await;
}

/// Serves any byte stream to its end.
pub(crate) async fn serve<R, W>(reader: R, writer: W, addr: SocketAddr, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    shared.figures.connections.increment(1);
    Connection::new(reader, writer, addr, shared.clone()).run().await;
    shared.figures.connections.decrement(1);
}
