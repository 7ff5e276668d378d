//! Packs go straight to an output that can be away: there is no `[file]`.

use super::route::Route;
use logferry_link::{HopStamp, Incoming};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Takes packs in until there are no more.
pub async fn run(mut packs: mpsc::Receiver<Incoming>, mut hops: HopStamp, route: Route) {
    while let Some(Incoming { mut pack, peer, elapsed, answer, .. }) = packs.recv().await {
        pack.push_hop(&hops.hop(peer.addr, jiff::Timestamp::now(), elapsed));
        // A pack that was asked for again is known by its lines, if all lines of its range are in it.
        let is_whole = pack.header.ours.as_ref().is_some_and(|ours| ours.raw == ours.identity.span);
        let may_overlap = pack.header.repull && is_whole;
        route.offer(Arc::new(pack), may_overlap, answer);
    }
}
