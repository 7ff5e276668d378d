//! Files that were to be finished when the books forgot their hours: the disk and the marks tell which they are.

use super::shell::{FinishThread, Known, Memory, RETRY_INTERVAL, are_told};
use crate::file::journal::Lengths;
use crate::hours::fact::HourKey;
use crate::hours::keeper::{SharedBooks, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

/// Files whose marks are looked for together: each time all names of their folders are read.
const FILES_AT_ONCE: usize = 1_000;
/// Bytes of header files that are read before.
const HEADER_BYTES_AT_ONCE: u64 = 64 << 20;
/// Where it is shown that marks cannot be read.
const MARKS: &str = "marks of files to be finished";

/// Where looking for them is.
#[derive(Debug, Default)]
pub(super) struct Overlooked {
    /// What is gone through now.
    pass: Option<Pass>,
    /// Hours were forgotten since all files were begun to be gone through.
    is_wanted: bool,
    /// When all files were begun to be gone through.
    begun_at: Option<Instant>,
    /// Those that are looked at again.
    waiting: BTreeSet<String>,
    /// When.
    look_at: Option<Instant>,
}

/// Going through files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pass {
    /// Only those that wait, not all.
    is_of_waiting: bool,
    /// The file that was looked at last.
    after: String,
}

impl Overlooked {
    /// Whether a file is looked at again.
    pub(super) fn waits_for(&self, path: &str) -> bool {
        self.waiting.contains(path)
    }

    /// What is to be gone through now; `is_wanted`: hours were forgotten. What is begun goes on: who began anew each time would never reach the last
    /// files while the books are full.
    fn next(&mut self, is_wanted: bool, now: Instant) -> Option<Pass> {
        self.is_wanted |= is_wanted;
        let is_past = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        if self.pass.is_none() {
            let is_of_waiting = if self.is_wanted && is_past(self.begun_at.map(|at| at + RETRY_INTERVAL)) {
                (self.is_wanted, self.begun_at) = (false, Some(now));
                false
            } else if !self.waiting.is_empty() && is_past(self.look_at) {
                true
            } else {
                return None;
            };
            self.pass = Some(Pass { is_of_waiting, after: String::new() });
        }
        self.pass.clone()
    }

    fn looked_at(&mut self, path: &str, is_settled: bool) {
        if let Some(pass) = &mut self.pass {
            path.clone_into(&mut pass.after);
        }
        match is_settled {
            true => drop(self.waiting.remove(path)),
            false => drop(self.waiting.insert(path.to_owned())),
        }
    }

    /// All were looked at.
    fn ended(&mut self, now: Instant) {
        self.pass = None;
        self.look_at = Some(now + RETRY_INTERVAL);
    }
}

impl FinishThread {
    /// Finishes files that the books do not know, if there may be such, as far as there is time `until` others are to go. Those that cannot be
    /// finished now are tried again.
    pub(super) fn finish_overlooked(&self, books: &SharedBooks, memory: &mut Memory, until: Instant) {
        let is_wanted = lock(books).take_overlooked();
        let now = Instant::now();
        let Some(pass) = memory.overlooked.next(is_wanted, now).filter(|_| now < until) else { return };
        let Some(files) = self.committed_files() else { return };
        let is_overlooked = |path: &String, lengths: &Lengths| {
            // An hour without lines is a file, too.
            let has_log_file = || self.finisher.folders.log_file(path).exists();
            lock(books).counted(path).is_none() && (lengths.data > 0 || has_log_file())
        };
        let is_left = |path: &String| files.get(path).is_some_and(|lengths| is_overlooked(path, lengths));
        memory.overlooked.waiting.retain(is_left);
        let rest = files.range::<String, _>((Bound::Excluded(pass.after), Bound::Unbounded));
        let is_meant = |(path, lengths): &(&String, &Lengths)| {
            let waits = memory.retry_at.get(*path).is_some_and(|at| now < *at);
            match pass.is_of_waiting {
                true => !waits && memory.overlooked.waits_for(path),
                false => !waits && is_overlooked(path, lengths),
            }
        };
        let due: Vec<(&String, Lengths)> =
            rest.filter(is_meant).map(|(path, lengths)| (path, *lengths)).collect();
        let mut due = due.as_slice();
        while !due.is_empty() {
            let mut at_once = AtOnce::default();
            let count = due.iter().take_while(|(_, lengths)| at_once.takes(lengths.headers)).count();
            let (some, others) = due.split_at(count);
            if !self.finish_marked(books, some, memory, until) {
                return;
            }
            due = others;
        }
        memory.overlooked.ended(Instant::now());
        if memory.overlooked.waiting.is_empty() {
            self.figures.clear_notice(MARKS);
        }
    }

    /// Finishes those of these files all of whose hours have marks. False when there was no time for all; there is for one.
    fn finish_marked(
        &self,
        books: &SharedBooks,
        files: &[(&String, Lengths)],
        memory: &mut Memory,
        until: Instant,
    ) -> bool {
        let mut hours: Vec<io::Result<BTreeMap<HourKey, u64>>> = Vec::new();
        for (path, lengths) in files {
            if self.stop.is_cancelled() || (!hours.is_empty() && Instant::now() >= until) {
                break;
            }
            hours.push(self.finisher.layout(path, *lengths).map(|layout| layout.hours));
        }
        let marks = self.marks.find(hours.iter().flatten().flat_map(BTreeMap::keys));
        match &marks {
            Ok(_) => self.figures.clear_notice(MARKS),
            Err(error) => {
                let text = format!("files that wait cannot be finished: their marks cannot be read: {error}");
                if self.figures.set_notice(MARKS, text.clone()) {
                    tracing::error!("{text}");
                }
            }
        }
        let looked_at = hours.len();
        for (index, ((path, lengths), hours)) in files.iter().zip(&hours).enumerate() {
            if self.stop.is_cancelled() {
                return false;
            }
            let is_settled = match (hours, &marks) {
                (Ok(hours), Ok(marks)) if !hours.is_empty() && are_told(hours, marks) => {
                    // Finishing takes long, looking does not.
                    if index > 0 && Instant::now() >= until {
                        return false;
                    }
                    self.is_free(books, path, *lengths, hours, memory) && self.finish_file(path, memory)
                }
                // It is not complete.
                (Ok(_), Ok(_)) => true,
                (Ok(_), Err(_)) => false,
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound && self.is_gone(path) => true,
                (Err(error), _) => {
                    self.cannot_finish(path, error, memory);
                    false
                }
            };
            memory.overlooked.looked_at(path, is_settled);
        }
        looked_at == files.len()
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

/// Files whose header files are read at once, so that their marks are looked for together: one, or as many as are within the limits.
#[derive(Debug, Default)]
pub(super) struct AtOnce {
    files: usize,
    header_bytes: u64,
}

impl AtOnce {
    /// Whether one more with a header file of so many bytes is taken.
    pub(super) fn takes(&mut self, header_bytes: u64) -> bool {
        self.files += 1;
        self.header_bytes = self.header_bytes.saturating_add(header_bytes);
        self.files == 1 || (self.files <= FILES_AT_ONCE && self.header_bytes <= HEADER_BYTES_AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pass(is_of_waiting: bool, after: &str) -> Option<Pass> {
        Some(Pass { is_of_waiting, after: after.into() })
    }

    #[test]
    fn all_files_are_gone_through_to_the_last_one_however_often_hours_are_forgotten_meanwhile() {
        let (mut overlooked, begin) = (Overlooked::default(), Instant::now());
        assert_eq!(overlooked.next(false, begin), None);
        assert_eq!(overlooked.next(true, begin), pass(false, ""));
        overlooked.looked_at("m", true);
        assert_eq!(overlooked.next(true, begin), pass(false, "m"));
        overlooked.looked_at("z", true);
        overlooked.ended(begin);
        assert_eq!(overlooked.next(false, begin), None, "not again at once");
        assert_eq!(overlooked.next(false, begin + RETRY_INTERVAL), pass(false, ""), "once more");
        overlooked.ended(begin + RETRY_INTERVAL);
        assert_eq!(overlooked.next(false, begin + 3 * RETRY_INTERVAL), None);
    }

    #[test]
    fn files_that_could_not_be_finished_are_looked_at_again_and_no_others() {
        let (mut overlooked, begin) = (Overlooked::default(), Instant::now());
        overlooked.next(true, begin);
        overlooked.looked_at("a", false);
        overlooked.looked_at("b", true);
        overlooked.ended(begin);
        assert!(overlooked.waits_for("a") && !overlooked.waits_for("b"));
        let again = begin + RETRY_INTERVAL;
        assert_eq!(overlooked.next(false, again - Duration::from_secs(1)), None);
        assert_eq!(overlooked.next(false, again), pass(true, ""));
        overlooked.looked_at("a", true);
        overlooked.ended(again);
        assert_eq!(overlooked.next(false, again + RETRY_INTERVAL), None);
    }

    #[test]
    fn few_large_header_files_are_read_at_once_or_many_small_ones() {
        let many = |bytes: u64, files: usize| {
            let mut at_once = AtOnce::default();
            std::iter::repeat_n(bytes, files).take_while(|bytes| at_once.takes(*bytes)).count()
        };
        assert_eq!((many(1, 5), many(1, 5_000), many(1, 0)), (5, FILES_AT_ONCE, 0));
        assert_eq!((many(HEADER_BYTES_AT_ONCE / 3, 9), many(u64::MAX, 9)), (3, 1));
    }
}
