//! The way of a pack from one output to the next, and of the answer back.

use super::backlog::Overlap;
use crate::file::shelf::{Back, Door};
use logferry_link::{Answer, Answerer};
use logferry_pack::Pack;
use logferry_spool::RecordId;
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

/// Whoever waits for the file output's answer: the sender, the next output, or the shelf that has the pack in the spool.
pub struct Reply {
    to: To,
}

enum To {
    Sender(Answerer),
    /// What the files have goes on; what they cannot take now goes to the shelf, if there is one.
    Next {
        answerer: Answerer,
        pack: Arc<Pack>,
        route: Route,
        door: Option<Door>,
    },
    Shelf(RecordId, Door),
}

impl Reply {
    /// To the sender, by way of `route` if there is one, once this output or its shelf has the pack.
    pub fn new(answerer: Answerer, pack: &Pack, route: Option<&Route>, door: Option<&Door>) -> Reply {
        let Some(route) = route else { return Reply { to: To::Sender(answerer) } };
        let (route, door) = (route.clone(), door.cloned());
        Reply { to: To::Next { answerer, pack: Arc::new(pack.clone()), route, door } }
    }

    /// To the shelf, of a pack that it has in the spool.
    pub(crate) fn of_shelf(record: RecordId, door: Door) -> Reply {
        Reply { to: To::Shelf(record, door) }
    }

    /// Sends the answer: what this output has goes on to the next, anything else back to the sender.
    pub fn send(self, answer: Answer) {
        match (self.to, &answer) {
            (To::Next { answerer, pack, route, .. }, Answer::Ok | Answer::Duplicate) => {
                let overlap = Overlap::of_stored(&pack);
                route.offer(pack, overlap, answerer);
            }
            (To::Sender(answerer) | To::Next { answerer, .. }, _) => answerer.send(answer),
            // At a stop nobody is there to take it: the pack is offered again after the next start.
            (To::Shelf(record, door), _) => drop(door.send(Back::Replayed(record, answer))),
        }
    }

    /// The same from the committer, whose "not now" means that the pack cannot be written.
    pub fn send_written(self, answer: Answer) {
        match (self.to, &answer) {
            (To::Next { answerer, pack, route, door: Some(door) }, Answer::Busy { .. }) => {
                let to = To::Next { answerer, pack: pack.clone(), route, door: None };
                let _ = door.send(Back::Unwritten(pack, Reply { to }));
            }
            (to, _) => Reply { to }.send(answer),
        }
    }
}
