//! The way of a pack from one output to the next, and of the answer back.

use super::backlog::Overlap;
use logferry_link::{Answer, Answerer};
use logferry_pack::Pack;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A pack for an output that can be away.
pub(super) struct Offer {
    pub(super) pack: Arc<Pack>,
    pub(super) overlap: Overlap,
    pub(super) reply: Answerer,
}

/// Where packs go that the outputs before have.
#[derive(Clone)]
pub struct Route {
    offers: mpsc::UnboundedSender<Offer>,
}

impl Route {
    /// A way, and its other end.
    pub(super) fn new() -> (Route, mpsc::UnboundedReceiver<Offer>) {
        let (offers, taken) = mpsc::unbounded_channel();
        (Route { offers }, taken)
    }

    /// Sends a pack on. The queue is bounded by the memory that packs without an answer may take (`listen.memory`).
    pub(super) fn offer(&self, pack: Arc<Pack>, overlap: Overlap, reply: Answerer) {
        // At a stop nobody is there to take it: unanswered, the sender keeps it.
        let _ = self.offers.send(Offer { pack, overlap, reply });
    }
}

/// Whoever waits for the file output's answer: the sender, or the next output.
pub struct Reply {
    answerer: Answerer,
    next: Option<(Route, Arc<Pack>)>,
}

impl Reply {
    /// To the sender, by way of `route` if there is one, once this output has the pack.
    pub fn new(answerer: Answerer, pack: &Pack, route: Option<&Route>) -> Reply {
        Reply { answerer, next: route.map(|route| (route.clone(), Arc::new(pack.clone()))) }
    }

    /// Sends the answer: what this output has goes on to the next, anything else back to the sender.
    pub fn send(self, answer: Answer) {
        match (self.next, &answer) {
            (Some((route, pack)), Answer::Ok | Answer::Duplicate) => {
                let overlap = Overlap::of_stored(&pack);
                route.offer(pack, overlap, self.answerer);
            }
            _ => self.answerer.send(answer),
        }
    }
}
