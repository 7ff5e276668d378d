//! Which decisions of the registry are on their way to the queue: what the database says is older than they are.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    begun: AtomicU64,
    settled: AtomicU64,
}

/// A decision that is neither in the queue nor owed yet; it is when this is dropped.
pub(crate) struct Storing<'a>(&'a Decisions);

impl Decisions {
    /// One more. Call it while the registry that decided is held.
    pub(crate) fn begin(&self) -> Storing<'_> {
        self.begun.fetch_add(1, SeqCst);
        Storing(self)
    }

    /// All there were.
    pub(crate) fn count(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    /// All there were, if none of them is on its way.
    pub(crate) fn settled(&self) -> Option<u64> {
        // in this order: what begins between the two makes them differ
        let settled = self.settled.load(SeqCst);
        (self.begun.load(SeqCst) == settled).then_some(settled)
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.0.settled.fetch_add(1, SeqCst);
    }
}
