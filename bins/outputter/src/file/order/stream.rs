//! The packs of one stream that are on their way or held.

use super::{Accepted, OrderLimits, Parcel};
use logferry_pack::PackIdentity;
use std::collections::BTreeMap;

pub(super) struct StreamOrder<W> {
    /// By offset and span. Ranges do not overlap.
    pub(super) pending: BTreeMap<(u64, u64), Pending<W>>,
    /// By offset, span and sum.
    pub(super) held: BTreeMap<(u64, u64, u32), Held<W>>,
    /// When the first pack behind the present gap came, in milliseconds.
    pub(super) gap_since_ms: Option<u64>,
}

pub(super) struct Pending<W> {
    pub(super) accepted: Accepted,
    pub(super) body_bytes: u64,
    pub(super) waiters: Vec<W>,
}

pub(super) struct Held<W> {
    pub(super) parcel: Parcel,
    pub(super) waiters: Vec<W>,
    pub(super) since_ms: u64,
}

impl<W> StreamOrder<W> {
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.held.is_empty() && self.gap_since_ms.is_none()
    }

    pub(super) fn is_overdue(&self, now_ms: u64, limits: &OrderLimits) -> bool {
        self.gap_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= limits.reorder_wait_ms)
            || limits.reorder_wait_ms == 0
    }

    pub(super) fn overlaps_pending(&self, identity: &PackIdentity) -> bool {
        let end = identity.end();
        // Ranges do not overlap each other, so only the last one that begins before `end` can reach in; packs
        // without a span lie between them.
        let mut before = self.pending.range(..(end, 0)).rev().filter(|((_, span), _)| *span > 0);
        before.next().is_some_and(|((offset, span), _)| offset.saturating_add(*span) > identity.offset)
    }

    pub(super) fn pending_ends_at(&self, offset: u64) -> bool {
        let mut before = self.pending.range(..(offset, 0)).rev().filter(|((_, span), _)| *span > 0);
        before.next().is_some_and(|((from, span), _)| from.saturating_add(*span) == offset)
    }
}

impl<W> Default for StreamOrder<W> {
    fn default() -> Self {
        StreamOrder { pending: BTreeMap::new(), held: BTreeMap::new(), gap_since_ms: None }
    }
}
