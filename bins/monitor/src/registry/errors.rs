//! The latest errors, in memory; the database has the older ones.

use super::ErrorEntry;
use std::collections::VecDeque;

/// See the module. Oldest first.
pub(super) struct Errors {
    entries: VecDeque<Remembered>,
    count_max: usize,
    /// There were more than are remembered.
    is_cut: bool,
}

struct Remembered {
    entry: ErrorEntry,
    /// Its number in the queue to the database, if it waited there at the start: the database may have it all the same.
    queued: Option<u64>,
}

impl Errors {
    pub(super) fn new(count_max: usize) -> Errors {
        Errors { entries: VecDeque::new(), count_max, is_cut: false }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &ErrorEntry> {
        self.entries.iter().map(|remembered| &remembered.entry)
    }

    /// Whether there are older ones than these.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// One more, the newest.
    pub(super) fn keep(&mut self, entry: ErrorEntry) {
        self.push(Remembered { entry, queued: None });
    }

    /// One more that waits in the queue since before this run.
    pub(super) fn keep_queued(&mut self, number: u64, entry: ErrorEntry) {
        self.push(Remembered { entry, queued: Some(number) });
    }

    fn push(&mut self, remembered: Remembered) {
        self.entries.push_back(remembered);
        while self.entries.len() > self.count_max {
            self.entries.pop_front();
            self.is_cut = true;
        }
    }

    /// The database has all of the queue up to this number, and gives them itself.
    pub(super) fn forget_queued_up_to(&mut self, number: u64) {
        self.entries.retain(|remembered| remembered.queued.is_none_or(|queued| queued > number));
    }

    /// The latest of the database, oldest first: all that is remembered is younger.
    pub(super) fn put_before(&mut self, older: Vec<ErrorEntry>) {
        let room = self.count_max.saturating_sub(self.entries.len());
        // as many as were asked for: there may be more
        self.is_cut |= older.len() >= self.count_max || older.len() > room;
        for entry in older.into_iter().rev().take(room) {
            self.entries.push_front(Remembered { entry, queued: None });
        }
    }
}
