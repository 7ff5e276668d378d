//! Packs on their way in and out, and what is said of them.

use crate::budget::Permit;
use bytes::Bytes;
use logferry_footprint::Remembered;
use logferry_pack::{Pack, StreamId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

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

impl Outgoing {
    /// Bytes of header and body.
    pub fn bytes(&self) -> u64 {
        (self.header.len() + self.body.len()) as u64
    }
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Ticket of the [`Outgoing`].
    pub ticket: u64,
    /// Outcome.
    pub outcome: Outcome,
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
        /// When to send it again, in milliseconds.
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
    /// To be answered once; dropped unanswered (at a stop), the peer sends the pack again later.
    pub answer: Answerer,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("pack", &self.pack.header)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What a connection's writer is told.
#[derive(Debug)]
pub(crate) enum Reply {
    Ack(u64, Answer),
    Pong(u64),
    Bye(&'static str),
}

/// One-shot answer to one pack. Holds the pack's share of the memory budget until dropped.
#[derive(Debug)]
pub struct Answerer {
    pub(crate) sequence: u64,
    pub(crate) replies: mpsc::UnboundedSender<Reply>,
    pub(crate) open: OpenAnswer,
    pub(crate) permit: Permit,
}

impl Answerer {
    /// Sends the answer (from any thread; never blocks). Nothing happens when the peer is gone.
    pub fn send(self, answer: Answer) {
        let _ = self.replies.send(Reply::Ack(self.sequence, answer));
        drop((self.open, self.permit));
    }
}

/// Counts the packs of a connection that are not answered yet.
#[derive(Debug)]
pub(crate) struct OpenAnswer(Arc<AtomicU64>);

impl OpenAnswer {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> OpenAnswer {
        count.fetch_add(1, Ordering::AcqRel);
        OpenAnswer(count.clone())
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
