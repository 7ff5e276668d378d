//! Links between tiers: protocol v2, both sides. A [`Sender`] gets packs to one of its targets and reports how each was
//! settled; a [`Receiver`] takes packs in and lets its owner answer each.
//!
//! The frames ([`frame`]) and the choice of what goes where ([`pool`]) are sans-io; thin tokio shells do the sockets. What a pack
//! means, and whether it was seen, is not decided here.

mod answer;
mod budget;
pub mod frame;
pub mod pool;
mod receiver;
mod sender;
mod session;

pub use answer::{Answer, Answerer, Incoming, Outcome, Outgoing, Peer, Settled};
pub use budget::{Budget, Permit};
pub use receiver::{Receiver, ReceiverOptions};
pub use sender::{Health, Sender, SenderOptions};
