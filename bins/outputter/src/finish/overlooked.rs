//! Files that were to be finished when the books forgot their hours: the disk and the marks tell which they are.

use super::shell::{FinishThread, Known, Memory, RETRY_INTERVAL, are_told};
use crate::file::journal::Lengths;
use crate::hours::fact::HourKey;
use crate::hours::keeper::{SharedBooks, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

/// Files whose marks are looked for together: each time all names of their folders are read.
const AT_ONCE: usize = 1_000;

/// Where looking for them is.
#[derive(Debug, Default)]
pub(super) struct Overlooked {
    /// When it goes on; none while there is nothing to be found.
    look_at: Option<Instant>,
    /// The file that was looked at last.
    after: String,
    /// Those that are looked at again in the next round.
    waiting: BTreeSet<String>,
}

impl Overlooked {
    /// Whether a file is looked at again.
    pub(super) fn waits_for(&self, path: &str) -> bool {
        self.waiting.contains(path)
    }
}

impl FinishThread {
    /// Finishes files that the books do not know, if there may be such, as far as there is time `until` others are to go. Those that cannot be
    /// finished now are tried again.
    pub(super) fn finish_overlooked(&self, books: &SharedBooks, memory: &mut Memory, until: Instant) {
        if lock(books).take_overlooked() {
            (memory.overlooked.look_at, memory.overlooked.after) = (Some(Instant::now()), String::new());
        }
        if memory.overlooked.look_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let Some(files) = self.committed_files() else { return };
        let after = Bound::Excluded(memory.overlooked.after.clone());
        let is_unknown =
            |(path, lengths): &(&String, &Lengths)| lengths.data > 0 && lock(books).counted(path).is_none();
        let mut unknown = files.range::<String, _>((after, Bound::Unbounded)).filter(is_unknown);
        loop {
            let some: Vec<(&String, Lengths)> =
                unknown.by_ref().take(AT_ONCE).map(|(path, lengths)| (path, *lengths)).collect();
            if some.is_empty() {
                break;
            }
            if !self.finish_marked(books, &some, memory, until) {
                return;
            }
        }
        let overlooked = &mut memory.overlooked;
        overlooked.after.clear();
        overlooked.waiting.retain(|path| files.contains_key(path));
        overlooked.look_at = (!overlooked.waiting.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
    }

    /// Finishes those of these files all of whose hours have marks. False when there was no time for all.
    fn finish_marked(
        &self,
        books: &SharedBooks,
        files: &[(&String, Lengths)],
        memory: &mut Memory,
        until: Instant,
    ) -> bool {
        let hours_of =
            |(path, lengths): &(&String, Lengths)| Some(self.finisher.layout(path, *lengths).ok()?.hours);
        let hours: Vec<Option<BTreeMap<HourKey, u64>>> = files.iter().map(hours_of).collect();
        let marks = self.marks.find(hours.iter().flatten().flat_map(BTreeMap::keys)).ok();
        for ((path, lengths), hours) in files.iter().zip(&hours) {
            if self.stop.is_cancelled() || Instant::now() >= until {
                return false;
            }
            memory.overlooked.after.clone_from(path);
            let is_settled = match (hours, &marks) {
                (Some(hours), Some(marks)) if !hours.is_empty() && are_told(hours, marks) => {
                    self.is_free(books, path, *lengths, hours, memory) && self.finish_file(path, memory)
                }
                // It is not complete.
                (Some(_), Some(_)) => true,
                _ => false,
            };
            match is_settled {
                true => drop(memory.overlooked.waiting.remove(*path)),
                false => drop(memory.overlooked.waiting.insert((*path).clone())),
            }
        }
        true
    }

    /// Whether nothing else comes first.
    fn is_free(
        &self,
        books: &SharedBooks,
        path: &str,
        lengths: Lengths,
        hours: &BTreeMap<HourKey, u64>,
        memory: &mut Memory,
    ) -> bool {
        let is_open = hours.keys().any(|key| lock(books).has_open(key));
        let is_quiet = |known: Arc<Known>| known.last_ms <= self.quiet_since_ms();
        !is_open && !self.is_read(hours.keys()) && self.known(path, lengths, memory).is_ok_and(is_quiet)
    }
}
