//! Paths at which an earlier process had met streams. What is new there waits until the one that was there before was found or is known to be
//! nowhere, and until it is unpacked, should it have been compressed meanwhile.

use super::{Followed, Follower};
use crate::identity::FileKey;
use crate::ledger::record::Met;
use logferry_pack::StreamId;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Paths at which nobody reads new files yet.
#[derive(Default)]
pub(super) struct HomesBefore {
    /// The youngest file of each, and its stream.
    youngest: HashMap<PathBuf, (FileKey, StreamId)>,
    by_stream: HashMap<StreamId, PathBuf>,
    /// Many of the streams may be found, or nowhere.
    is_due: bool,
}

impl HomesBefore {
    pub(super) fn new<'a>(all: impl Iterator<Item = &'a Met>) -> HomesBefore {
        let mut homes = HomesBefore::default();
        for met in all {
            let youngest = homes.youngest.entry(met.home()).or_insert((met.key, met.stream));
            if youngest.0.born_ns < met.key.born_ns {
                *youngest = (met.key, met.stream);
            }
        }
        homes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.youngest.is_empty()
    }

    /// The youngest file that was there, and its stream.
    pub(super) fn at(&self, home: &Path) -> Option<(FileKey, StreamId)> {
        self.youngest.get(home).copied()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.youngest.keys()
    }

    /// All streams that had no file were looked for.
    pub(super) fn was_searched(&mut self) {
        self.is_due = true;
    }

    /// The path of a stream, at which what is new is read from now on.
    fn release(&mut self, id: StreamId) -> Option<PathBuf> {
        let home = self.by_stream.remove(&id)?;
        self.youngest.remove(&home);
        Some(home)
    }

    /// The paths of all streams that are not waited for.
    fn release_unless(&mut self, is_awaited: impl Fn(StreamId) -> bool) -> BTreeSet<PathBuf> {
        self.is_due = false;
        let free = self.youngest.extract_if(|_, (_, id)| !is_awaited(*id)).map(|(home, _)| home).collect();
        self.by_stream = self.youngest.iter().map(|(home, (_, id))| (*id, home.clone())).collect();
        free
    }
}

impl Follower {
    /// New files whose paths are free by now are read.
    pub(super) fn release_homes(&mut self) {
        if self.homes_before.is_empty() || !self.searched_lost {
            return;
        }
        let unpacks = self.unpacks() || self.unpacked_unmet().any(|file| file.queued);
        if unpacks && !self.homes_before.is_due {
            return;
        }
        let (ledger, by_stream) = (&self.ledger, &self.by_stream);
        let is_lost = |id: StreamId| {
            !by_stream.contains_key(&id) && ledger.stream(id).is_some_and(|stream| !stream.orphan)
        };
        let free = self.homes_before.release_unless(|id| unpacks && is_lost(id));
        let held = self.unmet_where(|file| free.contains(file.path.as_path()));
        held.into_iter().for_each(|number| self.queue(number));
    }

    /// A stream was found, or is nowhere: what is new at its path is read.
    pub(super) fn release_home_of(&mut self, id: StreamId) {
        if let Some(home) = self.homes_before.release(id) {
            self.unmet_at(&home).into_iter().for_each(|number| self.queue(number));
        }
    }

    /// Whether a file that is new took the path of one that was not found yet.
    pub(super) fn waits_for_first_look(&self, file: &Followed) -> bool {
        file.stream.is_none() && self.homes_before.at(&file.path).is_some() && self.keeps_order(file.source)
    }
}
