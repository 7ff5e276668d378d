//! Links between tiers: protocol v2, both sides. The sessions are sans-io state machines under thin tokio shells.
//! A [`Sender`] gets packs to one of its targets and reports how each was settled; a [`Receiver`] takes packs in
//! and lets its owner answer each. What a pack means, and whether it was seen, is not decided here.

use bytes::Bytes;
use logferry_footprint::Remembered;
use logferry_node::config::{ListenSettings, NodeSettings, SendSettings};
use logferry_pack::{Limits, Pack, StreamId};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Byte budget of the process. Permits give their bytes back when dropped.
#[derive(Clone, Debug)]
pub struct Budget {}
impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Budget {
        todo!("{bytes}")
    }
    /// Waits for `bytes` (a wish larger than the whole budget waits for all of it).
    pub async fn acquire(&self, bytes: u64) -> Permit {
        todo!("{bytes}")
    }
    /// Bytes given out.
    pub fn used(&self) -> u64 {
        todo!()
    }
}
/// Bytes taken from a [`Budget`] until dropped.
#[derive(Debug)]
pub struct Permit {}

/// A pack on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The owner's own number for it, unique while it is not settled.
    pub ticket: u64,
    /// Stream, for order and for spreading over targets.
    pub stream: StreamId,
    /// Header as `Pack::encode_header` gives it.
    pub header: Bytes,
    /// Body.
    pub body: Bytes,
}

/// How a pack was settled. `busy` never shows here: the sender waits and sends again by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Durable at the next tier or beyond.
    Ok,
    /// Was there already.
    Duplicate,
    /// Refused for good.
    Rejected {
        /// Short stable label.
        reason: String,
    },
    /// Overlaps what was seen, under another identity.
    Conflict(Remembered),
}

/// A settled pack.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Ticket of the [`Outgoing`].
    pub ticket: u64,
    /// Outcome.
    pub outcome: Outcome,
}

/// Everything a sender needs.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// From the configuration.
    pub settings: SendSettings,
    /// Node name for HELLO.
    pub node: String,
    /// Role for HELLO: `tailer` or `collector`.
    pub role: &'static str,
}

/// State of a sender for `/readyz`, metrics and the decision to spool.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Targets with a live session (HELLO exchanged).
    pub targets_up: usize,
    /// Bytes submitted and not settled.
    pub unsettled_bytes: u64,
    /// Packs submitted and not settled.
    pub unsettled_packs: u64,
    /// Age of the oldest pack that is not settled, in milliseconds.
    pub oldest_unsettled_ms: u64,
    /// Last error, with the target's address.
    pub last_error: Option<String>,
}

/// The sending side. Cheap to clone.
#[derive(Clone)]
pub struct Sender {}
impl Sender {
    /// Starts the tasks for all targets. Settled packs come out of the receiver, in any order.
    pub fn start(options: SenderOptions, stop: CancellationToken) -> (Sender, mpsc::UnboundedReceiver<Settled>) {
        todo!("{options:?}{stop:?}")
    }
    /// Hands a pack over; waits while the window is full. Packs of one stream are sent in the order of submission. Keeps the
    /// pack until it is settled, through reconnects and failovers.
    pub async fn submit(&self, pack: Outgoing) {
        todo!("{pack:?}")
    }
    /// Hands a pack over if there is room in the window now, or gives it back.
    pub fn try_submit(&self, pack: Outgoing) -> Result<(), Outgoing> {
        todo!("{pack:?}")
    }
    /// Takes back all packs that are not settled, in the order of submission. Nothing will be reported of them any more.
    pub fn withdraw(&self) -> Vec<Outgoing> {
        todo!()
    }
    /// Now.
    pub fn health(&self) -> Health {
        todo!()
    }
    /// Waits until `targets_up` becomes zero or non-zero, or a pack was settled.
    pub async fn changed(&self) {
        todo!()
    }
}

/// An answer to a pack that came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Durable.
    Ok,
    /// Seen before, and durable.
    Duplicate,
    /// Not now.
    Busy {
        /// When to send it again.
        retry_ms: u64,
    },
    /// Never.
    Rejected {
        /// Short stable label.
        reason: String,
    },
    /// The footprint's view.
    Conflict(Remembered),
}

/// Who sent a pack.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address.
    pub addr: SocketAddr,
    /// Node name from HELLO.
    pub node: String,
    /// Role from HELLO.
    pub role: String,
}

/// A pack that came in: parsed, within limits, its body's crc checked.
pub struct Incoming {
    /// The pack.
    pub pack: Pack,
    /// Who sent it.
    pub peer: Arc<Peer>,
    /// To be answered exactly once; dropped unanswered (a stop), the peer sends the pack again later.
    pub answer: Answerer,
}

/// One-shot answer to one pack. Holds the pack's share of the memory budget until dropped.
pub struct Answerer {}
impl Answerer {
    /// Sends the answer (from any thread; never blocks). Nothing happens when the peer is gone.
    pub fn send(self, answer: Answer) {
        todo!("{answer:?}")
    }
}

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
    pub fn new(_settings: &ListenSettings, _node: &NodeSettings, _role: &'static str, _budget: Budget) -> ReceiverOptions {
        todo!()
    }
}

/// The receiving side.
pub struct Receiver {}
impl Receiver {
    /// Binds the address.
    pub async fn bind(options: ReceiverOptions) -> std::io::Result<Receiver> {
        todo!("{options:?}")
    }
    /// The bound address (port 0 in the configuration is any free port).
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Serves until `stop`; then says BYE, takes no more packs, delivers answers for a bounded time and returns.
    pub async fn run(self, packs: mpsc::Sender<Incoming>, stop: CancellationToken) {
        todo!("{packs:?}{stop:?}")
    }
}
impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("pack", &self.pack.header).finish_non_exhaustive()
    }
}
