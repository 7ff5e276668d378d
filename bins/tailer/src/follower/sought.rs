//! Streams whose bytes may be in a copy that cannot be looked at for now, because descriptors are short or names are being shifted: what is known
//! of them is kept until it can. Meanwhile nobody ships what may be such a copy, and what was written later waits.

use super::Follower;
use super::copies::{Before, Candidate, is_named_after_any, names_of};
use crate::files;
use crate::identity::Head;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::info;

/// Most searches that may end in vain because names were shifted all the while.
const SHIFTED_MAX: u32 = 8;
/// What was written later waits for no longer than this.
const AWAITED_MAX: Duration = Duration::from_secs(60);

/// What is known of a stream that is looked for.
pub(super) struct Sought {
    /// The path at which its file was.
    pub(super) home: PathBuf,
    pub(super) before: Option<Before>,
    /// The file that goes on when its copy is read.
    pub(super) successor: Option<FileNumber>,
    since: Instant,
    /// Searches so far, and those of them in which names were shifted.
    searches: u32,
    shifted: u32,
}

impl Sought {
    pub(super) fn new(home: PathBuf, before: Option<Before>, successor: Option<FileNumber>) -> Sought {
        Sought { home, before, successor, since: Instant::now(), searches: 0, shifted: 0 }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether what was written later waits.
    fn is_awaited(&self) -> bool {
        self.since.elapsed() < AWAITED_MAX
    }

    /// Names were shifted during a search; whether another may find more.
    pub(super) fn was_shifted(&mut self) -> bool {
        self.shifted += 1;
        self.shifted < SHIFTED_MAX
    }
}

/// All of them: there may be as many as logs.
#[derive(Default)]
pub(super) struct SoughtStreams {
    all: HashMap<StreamId, Sought>,
    by_home: HashMap<PathBuf, Vec<StreamId>>,
    by_successor: HashMap<FileNumber, Vec<StreamId>>,
}

impl SoughtStreams {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&StreamId, &Sought)> {
        self.all.iter()
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Sought> {
        self.all.get(&id)
    }

    /// Those whose file was at a path.
    fn at(&self, home: &Path) -> impl Iterator<Item = (StreamId, &Sought)> {
        self.listed(self.by_home.get(home))
    }

    fn before(&self, successor: FileNumber) -> impl Iterator<Item = (StreamId, &Sought)> {
        self.listed(self.by_successor.get(&successor))
    }

    fn listed<'a>(&'a self, ids: Option<&'a Vec<StreamId>>) -> impl Iterator<Item = (StreamId, &'a Sought)> {
        ids.into_iter().flatten().filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    fn insert(&mut self, id: StreamId, sought: Sought) {
        self.remove(id);
        self.by_home.entry(sought.home.clone()).or_default().push(id);
        if let Some(successor) = sought.successor {
            self.by_successor.entry(successor).or_default().push(id);
        }
        self.all.insert(id, sought);
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Sought> {
        let sought = self.all.remove(&id)?;
        unlist(&mut self.by_home, &sought.home, id);
        if let Some(successor) = sought.successor {
            unlist(&mut self.by_successor, &successor, id);
        }
        Some(sought)
    }

    /// This file goes on when a stream was read.
    pub(super) fn goes_before(&mut self, id: StreamId, successor: FileNumber) {
        if let Some(sought) = self.remove(id) {
            self.insert(id, Sought { successor: Some(successor), ..sought });
        }
    }
}

fn unlist<K: Hash + Eq>(lists: &mut HashMap<K, Vec<StreamId>>, key: &K, id: StreamId) {
    if let Some(ids) = lists.get_mut(key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            lists.remove(key);
        }
    }
}

impl Follower {
    /// A stream is looked for again, and soon if it is new among them.
    pub(super) fn seek(&mut self, id: StreamId, mut sought: Sought) {
        match sought.searches {
            0 => {
                info!(path = %sought.home.display(), stream = %id, "not all that may have the rest of a file could be looked at: looking again");
                self.search_again.soon(Instant::now());
            }
            _ => self.search_again.later(Instant::now()),
        }
        sought.searches += 1;
        self.sought.insert(id, sought);
    }

    /// Whether another one that was at the same path is looked for, and was there before: its copy is found first.
    pub(super) fn comes_later(&self, sought: &Sought) -> bool {
        self.sought.at(&sought.home).any(|(_, other)| other.since < sought.since)
    }

    /// Whether a file has what is known of another stream whose file is gone: that one is looked for, or waits for what is being unpacked.
    pub(super) fn has_what_is_lost(&self, id: StreamId, copy: &Candidate) -> io::Result<bool> {
        let Some(met) = self.ledger.stream(id).map(|stream| &stream.met) else { return Ok(false) };
        let others = self.ledger.with_head_and_name(&met.source, met.head, &copy.path);
        for other in others.into_iter().filter(|other| *other != id && self.is_lost(*other)) {
            let before = self.sought.get(other).and_then(|sought| sought.before.as_ref());
            let mark = before.and_then(|before| before.end_mark.as_ref());
            let evidence = self.ledger.stream(other).and_then(|stream| stream.evidence());
            let has_it = match (mark, evidence) {
                (Some(mark), _) => files::has_mark(&copy.handle, mark)?,
                (None, Some(evidence)) => files::has(&copy.handle, &evidence)?,
                (None, None) => false,
            };
            if has_it {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was found, or is nowhere, is not waited for any more.
    pub(super) fn no_longer_sought(&mut self, sought: &Sought) {
        let there = self.by_path.get(&sought.home).copied();
        sought.successor.into_iter().chain(there).for_each(|number| self.queue(number));
    }

    /// The file that goes on when a stream is read to its end: that which was cut, or that which took the path.
    pub(super) fn successor_of(&self, sought: &Sought) -> Option<FileNumber> {
        let is_followed = |number: &FileNumber| self.files.contains_key(number);
        let there = || self.by_path.get(&sought.home).copied().filter(|_| self.searched_lost);
        sought.successor.filter(is_followed).or_else(there)
    }

    /// Whether others wait for a stream that is looked for.
    pub(super) fn is_awaited(&self, id: StreamId) -> bool {
        self.sought.get(id).is_some_and(Sought::is_awaited)
    }

    /// Whether a file has to wait because what had its path before, or was in it, is looked for.
    pub(super) fn waits_for_sought(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number).filter(|_| !self.sought.is_empty()) else { return false };
        let is_there = self.by_path.get(&file.path) == Some(&number);
        let there = self.sought.at(&file.path).filter(|_| is_there);
        let mut all = self.sought.before(number).chain(there);
        all.any(|(id, sought)| file.stream != Some(id) && sought.is_awaited())
    }

    /// Whether a file may be the copy of one that is looked for, or was renamed over it. Before all files were looked at, any that was not
    /// found yet may be that one.
    pub(super) fn may_be_copy_of_sought(&self, number: FileNumber, source: &str, heads: &[Head]) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let is_alike = |id: &StreamId| {
            let met = self.ledger.stream(*id).map(|stream| &stream.met);
            met.is_some_and(|met| met.source == source && heads.contains(&met.head))
        };
        let is_named_after = |home: &Path| {
            is_named_after_any(&file.path, &names_of(home))
                && !self.sources[file.source].paths.differ_in_time(&file.path, home)
        };
        if self.searched_lost && self.sought.is_empty() {
            return false;
        }
        // What is in the file that was cut is something else by now, and one that waited for long enough goes on.
        let is_over_it = |sought: &Sought| sought.successor != Some(number) && sought.is_awaited();
        if self.sought.at(&file.path).any(|(id, sought)| is_alike(&id) && is_over_it(sought)) {
            return true;
        }
        let is_looked_for = |id: &StreamId| match self.searched_lost {
            true => self.sought.get(*id).is_some(),
            false => self.is_lost(*id),
        };
        let alike = heads.iter().flat_map(|head| self.ledger.with_head_and_name(source, *head, &file.path));
        let mut alike = alike.filter(|id| is_looked_for(id) && is_alike(id));
        alike.any(|id| self.ledger.stream(id).is_some_and(|stream| is_named_after(&stream.met.home())))
    }
}
