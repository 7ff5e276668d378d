//! Which of many files with a backlog goes first. Files that were read to their ends once do not wait.

use super::Follower;
use super::source::Source;
use crate::config::CatchUp;
use crate::pattern::FileTime;
use crate::tracker::FileNumber;
use std::collections::BTreeSet;

/// The place of a file among those of its source that are behind: by the time in its name, else by its last change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    time: Option<FileTime>,
    changed_ns: i64,
}

/// Files of a source that were not read to their ends yet since they were met, as far as their order matters.
#[derive(Default, Debug)]
pub(super) struct Backlog {
    files: BTreeSet<(Rank, FileNumber)>,
}

impl Backlog {
    fn first(&self, order: CatchUp) -> Option<Rank> {
        let first = if order == CatchUp::Newest { self.files.last() } else { self.files.first() };
        first.map(|(rank, _)| *rank)
    }
}

impl Source {
    /// The rank of a file that is met; `None` where its order does not matter.
    pub(super) fn rank_of(
        &self,
        time: Option<FileTime>,
        changed_ns: i64,
        is_behind_at_start: bool,
    ) -> Option<Rank> {
        match (time, self.settings.catch_up) {
            // Hours come in their order, unless something else is asked for.
            (Some(_), _) => Some(Rank { time, changed_ns: 0 }),
            (None, CatchUp::Fair) => None,
            (None, CatchUp::Oldest | CatchUp::Newest) => {
                is_behind_at_start.then_some(Rank { time: None, changed_ns })
            }
        }
    }
}

impl Follower {
    pub(super) fn enter_backlog(&mut self, number: FileNumber) {
        let Some(file) = self.files.get(&number) else { return };
        if let Some(rank) = file.rank {
            self.sources[file.source].backlog.files.insert((rank, number));
        }
    }

    /// Whether files of the file's source have to wait for their turn.
    pub(super) fn has_backlog(&self, number: FileNumber) -> bool {
        self.files.get(&number).is_some_and(|file| !self.sources[file.source].backlog.files.is_empty())
    }

    /// Whether other files of its source go before a file.
    pub(super) fn waits_in_backlog(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let source = &self.sources[file.source];
        let order = source.settings.catch_up;
        // One that was read to its end once does not wait for an older file that comes later, after a clock went back: nobody
        // would wake it.
        let Some(own) = file.rank.filter(|rank| source.backlog.files.contains(&(*rank, number))) else {
            return false;
        };
        source.backlog.first(order).is_some_and(|first| match order {
            CatchUp::Newest => own < first,
            CatchUp::Fair | CatchUp::Oldest => own > first,
        })
    }

    /// A file was read to its end for the first time since it was met: those that come after it go on.
    pub(super) fn caught_up(&mut self, number: FileNumber) {
        let Some(file) = self.files.get_mut(&number) else { return };
        let Some(rank) = file.rank else { return };
        let source = &mut self.sources[file.source];
        let order = source.settings.catch_up;
        if !source.backlog.files.remove(&(rank, number)) {
            return;
        }
        if file.time.is_none() || order == CatchUp::Newest {
            // What it gets from now on is new.
            file.rank = None;
        }
        let Some(next) = source.backlog.first(order) else { return };
        let of_next = source.backlog.files.range((next, FileNumber::MIN)..=(next, FileNumber::MAX));
        let waiting: Vec<FileNumber> = of_next.map(|(_, file)| *file).collect();
        waiting.into_iter().for_each(|file| self.queue(file));
    }
}
