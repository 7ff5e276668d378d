//! Streams whose bytes may be in a copy that cannot be looked at for now, because descriptors are short or names are being shifted: what is known
//! of them is kept until it can. Meanwhile nobody ships what may be such a copy, and what was written later waits.

use super::Follower;
use super::copies::{Before, is_named_after_any, names_of};
use crate::identity::Head;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
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
    pub(super) fn new(home: PathBuf, before: Option<Before>) -> Sought {
        let successor = before.as_ref().map(|before| before.file);
        Sought { home, before, successor, since: Instant::now(), searches: 0, shifted: 0 }
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

impl Follower {
    /// A stream is looked for again, and soon if it is new among them.
    pub(super) fn seek(&mut self, id: StreamId, mut sought: Sought) {
        match sought.searches {
            0 => {
                info!(path = %sought.home.display(), stream = %id, "not all that may have the rest of a file could be looked at: looking again");
                self.search_soon();
            }
            _ => self.search_later(),
        }
        sought.searches += 1;
        self.sought.insert(id, sought);
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
        self.sought.get(&id).is_some_and(Sought::is_awaited)
    }

    /// Whether a file has to wait because what had its path before, or was in it, is looked for.
    pub(super) fn waits_for_sought(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number).filter(|_| !self.sought.is_empty()) else { return false };
        let is_there =
            |sought: &Sought| sought.home == file.path && self.by_path.get(&sought.home) == Some(&number);
        self.sought.iter().any(|(id, sought)| {
            let is_before = sought.successor == Some(number) || is_there(sought);
            is_before && file.stream != Some(*id) && sought.is_awaited()
        })
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
        if self.searched_lost {
            let may_be = |sought: &Sought| {
                // What is in the file that was cut is something else by now.
                let is_over_it = sought.home == file.path && sought.successor != Some(number);
                is_over_it || is_named_after(&sought.home)
            };
            return self.sought.iter().any(|(id, sought)| is_alike(id) && may_be(sought));
        }
        let alike = heads.iter().flat_map(|head| self.ledger.with_head_and_name(source, *head, &file.path));
        let mut lost = alike.filter(|id| self.is_lost(*id) && is_alike(id));
        lost.any(|id| self.ledger.stream(id).is_some_and(|stream| is_named_after(&stream.met.home())))
    }
}
