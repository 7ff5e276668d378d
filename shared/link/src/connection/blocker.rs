//! What keeps a receiving connection from taking its next pack.

use crate::answer::Incoming;
use crate::budget::{Budget, Permit};
use std::pin::Pin;
use tokio::sync::mpsc;

/// What was waited for.
pub(super) enum Unblocked {
    /// There is memory for the pack that has begun.
    Memory(Permit),
    /// The owner took the pack that waited for it, or has gone.
    Owner { took_pack: bool },
}

/// A wait that goes on while other events are handled.
pub(super) struct Blocker(Pin<Box<dyn Future<Output = Unblocked> + Send>>);

impl Blocker {
    pub(super) fn memory(budget: Budget, bytes: u64) -> Blocker {
        Blocker(Box::pin(async move { Unblocked::Memory(budget.acquire(bytes).await) }))
    }

    pub(super) fn owner(packs: mpsc::Sender<Incoming>, incoming: Incoming) -> Blocker {
        Blocker(Box::pin(async move { Unblocked::Owner { took_pack: packs.send(incoming).await.is_ok() } }))
    }
}

/// Waits for the end of `blocker`; without one, forever.
pub(super) async fn unblocked(blocker: &mut Option<Blocker>) -> Unblocked {
    match blocker {
        Some(Blocker(waiting)) => waiting.await,
        None => std::future::pending().await,
    }
}
