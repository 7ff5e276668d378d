//! Changes of the monitor's own that the queue did not take: nobody else has them, so they are given back later.

use super::Change;
use metrics::counter;
use std::collections::VecDeque;

/// Changes that are kept; more are counted and lost.
const OWED_MAX: usize = 4_096;
/// Changes that are given back at a time.
const GIVEN_BACK_MAX: usize = 256;

/// See the module. Oldest first.
#[derive(Debug, Default)]
pub(super) struct Owed {
    changes: VecDeque<Change>,
    lost: u64,
}

impl Owed {
    /// One more; it is younger than all of them.
    pub(super) fn push(&mut self, change: Change) {
        if self.changes.len() < OWED_MAX {
            self.changes.push_back(change);
        } else {
            self.lose();
        }
    }

    /// The oldest.
    pub(super) fn take(&mut self) -> Vec<Change> {
        let count = self.changes.len().min(GIVEN_BACK_MAX);
        self.changes.drain(..count).collect()
    }

    /// They were in vain again, and are older than all that came meanwhile.
    pub(super) fn put_back(&mut self, changes: Vec<Change>) {
        for change in changes.into_iter().rev() {
            if self.changes.len() < OWED_MAX {
                self.changes.push_front(change);
            } else {
                self.lose();
            }
        }
    }

    /// Whether a node is forgotten that the database still has.
    pub(super) fn forgets(&self, id: &str) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Forgotten(row) if row.id == id))
    }

    pub(super) fn has(&self, wanted: impl Fn(&Change) -> bool) -> bool {
        self.changes.iter().any(wanted)
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn lose(&mut self) {
        self.lost += 1;
        counter!("logferry_monitor_changes_lost_total").increment(1);
        if self.lost == 1 {
            tracing::error!(
                "changes of the monitor's own are lost: the queue takes none, and {OWED_MAX} wait"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row_by_hand;
    use super::*;

    #[test]
    fn what_is_owed_keeps_its_order_and_is_bounded() {
        let mut owed = Owed::default();
        let change = |port| Change::Forgotten(row_by_hand(port));
        (1..=3).for_each(|port| owed.push(change(port)));
        let taken = owed.take();
        owed.push(change(4));
        owed.put_back(taken);
        assert_eq!(owed.take(), (1..=4).map(change).collect::<Vec<_>>());
        (0..OWED_MAX + 7).for_each(|_| owed.push(change(5)));
        assert_eq!((owed.len(), owed.lost(), owed.take().len()), (OWED_MAX, 7, GIVEN_BACK_MAX));
    }
}
