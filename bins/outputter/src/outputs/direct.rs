//! Packs go straight to an output that can be away: there is no `[file]`.

use super::backlog::Overlap;
use super::route::Route;
use logferry_link::{HopStamp, Incoming};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Takes packs in until there are no more.
pub async fn run(mut packs: mpsc::Receiver<Incoming>, mut hops: HopStamp, route: Route) {
    while let Some(Incoming { mut pack, peer, elapsed, answer, .. }) = packs.recv().await {
        pack.push_hop(&hops.hop(peer.addr, jiff::Timestamp::now(), elapsed));
        let overlap = Overlap::of_new(&pack);
        route.offer(Arc::new(pack), overlap, answer);
    }
}
