//! Packs on their way in and out, and what is said of them.

use crate::budget::Permit;
use bytes::Bytes;
use logferry_footprint::Remembered;
use logferry_pack::{Pack, StreamId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A pack on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The owner's own number for it, unique while it is not settled.
    pub ticket: u64,
    /// Stream, for order.
    pub stream: StreamId,
    /// Shipped again: in order with the others of its stream that are, and with no first delivery.
    pub apart: bool,
    /// Header as `Pack::encode_header` gives it.
    pub header: Bytes,
    /// Body.
    pub body: Bytes,
}

impl Outgoing {
    /// Packs of one lane keep their order.
    pub(crate) fn lane(&self) -> Lane {
        Lane { stream: self.stream, apart: self.apart }
    }

    /// Bytes of header and body.
    pub fn bytes(&self) -> u64 {
        (self.header.len() + self.body.len()) as u64
    }
}

/// Which packs are kept in order: those of a stream, but for those that are shipped again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Lane {
    pub(crate) stream: StreamId,
    pub(crate) apart: bool,
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

impl Answer {
    /// Label for counters.
    pub fn status(&self) -> &'static str {
        match self {
            Answer::Ok => "ok",
            Answer::Duplicate => "duplicate",
            Answer::Busy { .. } => "busy",
            Answer::Rejected { .. } => "rejected",
            Answer::Conflict(_) => "conflict",
        }
    }
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
    /// How long reading it took, from the frame's beginning to its end.
    pub elapsed: Duration,
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

/// When a pack whose answerer was dropped is sent again, in milliseconds.
const DROPPED_RETRY_MS: u64 = 1_000;

/// An answer on its way back to the connection: the pack's sequence there, and what is said of it.
pub(crate) type Reply = (u64, Answer);

/// One-shot answer to one pack. Holds the pack's share of the memory budget until dropped. Dropped without an answer, it asks the
/// peer to send the pack again later.
#[derive(Debug)]
pub struct Answerer {
    sequence: u64,
    /// `None` once it is answered.
    replies: Option<mpsc::UnboundedSender<Reply>>,
    _permit: Permit,
}

impl Answerer {
    pub(crate) fn new(sequence: u64, replies: mpsc::UnboundedSender<Reply>, permit: Permit) -> Answerer {
        Answerer { sequence, replies: Some(replies), _permit: permit }
    }

    /// Sends the answer (from any thread; never blocks). Nothing happens when the peer is gone.
    pub fn send(mut self, answer: Answer) {
        self.reply(answer);
    }

    fn reply(&mut self, answer: Answer) {
        if let Some(replies) = self.replies.take() {
            let _ = replies.send((self.sequence, answer));
        }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.reply(Answer::Busy { retry_ms: DROPPED_RETRY_MS });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn a_pack_is_answered_once_even_if_nobody_does() {
        let (replies, mut answers) = mpsc::unbounded_channel();
        let budget = Budget::new(10_000);
        let answerer =
            |sequence| Answerer::new(sequence, replies.clone(), budget.try_acquire(1_000).unwrap());
        let (first, second) = (answerer(1), answerer(2));
        assert_eq!(budget.used(), 2_048);
        first.send(Answer::Ok);
        drop(second);
        assert_eq!(budget.used(), 0);
        assert_eq!(answers.try_recv(), Ok((1, Answer::Ok)));
        assert_eq!(answers.try_recv(), Ok((2, Answer::Busy { retry_ms: 1_000 })));
        assert!(answers.try_recv().is_err());
    }
}
