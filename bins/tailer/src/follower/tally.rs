//! Figures of all files, kept by changing them file by file: with many files summing up would cost more than reading.

use super::source::Source;
use super::{Followed, Follower};
use crate::ledger::Ledger;
use crate::tracker::FileNumber;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Most problems of sources that the status names.
const PROBLEMS_TOLD_MAX: usize = 8;

/// What one file adds to the figures, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counted {
    lag: u64,
    partial: u64,
}

/// The sums, and the files whose part of them is no longer known to be right.
#[derive(Default, Debug)]
pub(super) struct Tally {
    sum: Counted,
    touched: BTreeSet<FileNumber>,
}

impl Tally {
    /// Something about a file has changed.
    pub(super) fn touch(&mut self, number: FileNumber) {
        self.touched.insert(number);
    }

    /// A file is not followed any more.
    pub(super) fn remove(&mut self, file: &Followed) {
        self.replace(file.counted, Counted::default());
    }

    fn replace(&mut self, before: Counted, after: Counted) {
        self.sum.lag = (self.sum.lag + after.lag).saturating_sub(before.lag);
        self.sum.partial = (self.sum.partial + after.partial).saturating_sub(before.partial);
    }
}

impl Counted {
    fn of(file: &Followed, ledger: &Ledger) -> Counted {
        let stream = file.stream.and_then(|stream| ledger.stream(stream));
        // Without a stream its first line has not come, or it is a copy of what was shipped.
        let unmet = file.size.saturating_sub(file.cutter.at());
        match stream {
            Some(stream) => Counted {
                lag: file.size.saturating_sub(stream.frontier),
                partial: file.cutter.partial_bytes(),
            },
            None => Counted { lag: unmet, partial: unmet },
        }
    }
}

impl Follower {
    /// Names what is missing of the sources' files; a few of very many.
    fn publish_problems(&self) {
        let all = || self.sources.iter().flat_map(Source::problems);
        let mut told: Vec<String> = all().take(PROBLEMS_TOLD_MAX).collect();
        if told.len() == PROBLEMS_TOLD_MAX {
            let more = all().count() - told.len();
            told.extend((more > 0).then(|| format!("and {more} more, see the log")));
        }
        if let Ok(mut problems) = self.figures.source_problems.lock() {
            *problems = told;
        }
    }

    pub(super) fn publish(&mut self) {
        for number in std::mem::take(&mut self.tally.touched) {
            let Some(file) = self.files.get_mut(&number) else { continue };
            let counted = Counted::of(file, &self.ledger);
            self.tally.replace(std::mem::replace(&mut file.counted, counted), counted);
        }
        let entries = self.ledger.orphans().flat_map(|stream| &stream.entries);
        let orphaned: u64 = entries.map(|entry| entry.cut.span).sum();
        let sought = self.sought.iter().filter_map(|(id, _)| self.ledger.stream(*id));
        let sought: u64 = sought.map(|stream| stream.left.saturating_sub(stream.frontier)).sum();
        let figures = &self.figures;
        figures.files.store(self.files.len() as u64, Ordering::Relaxed);
        figures.queue_packs.store(self.ledger.unsettled() as u64, Ordering::Relaxed);
        figures.partial_bytes.store(self.tally.sum.partial, Ordering::Relaxed);
        figures.lag_bytes.store(self.tally.sum.lag + orphaned + sought, Ordering::Release);
        figures.packed_files_known.store(self.packed.len() as u64, Ordering::Relaxed);
        figures.files_open.store(self.open_files.count() as u64, Ordering::Relaxed);
        let unreadable: usize = self.sources.iter().map(Source::unreadable).sum();
        figures.unreadable.store(unreadable as u64, Ordering::Relaxed);
        self.publish_problems();
        let count = |of: fn(&Source) -> bool| self.sources.iter().filter(|source| of(source)).count() as u64;
        figures.sources_empty.store(count(Source::is_without_files), Ordering::Relaxed);
        figures.sources_polled.store(count(|source| !source.is_watched), Ordering::Relaxed);
        let is_known = self.sources.iter().all(|source| source.looked && source.to_open.is_empty());
        figures.looked.store(is_known && self.searched_lost && self.sought.is_empty(), Ordering::Release);
    }
}
