//! The order of files that had one path after another while no tailer ran, some of which have yet to be unpacked, so that they are no
//! followed files yet.

use super::packed::Packed;
use super::{Followed, Follower};
use crate::identity::FileKey;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::collections::HashMap;

/// Files of one path, in the order in which they are to be read.
struct Succession {
    /// The stream that was read last, wherever its file is by now.
    first: Option<StreamId>,
    keys: Vec<FileKey>,
}

/// The files of several paths.
#[derive(Default)]
pub(super) struct Successions {
    all: Vec<Succession>,
    /// Files that wait, by their place among these.
    waiting: HashMap<FileKey, usize>,
}

impl Successions {
    /// Each of these files waits until all before it are read.
    pub(super) fn add(&mut self, first: Option<StreamId>, keys: Vec<FileKey>) {
        if self.all.iter().any(|known| known.first == first && known.keys == keys) {
            return;
        }
        self.waiting.extend(keys.iter().map(|key| (*key, self.all.len())));
        self.all.push(Succession { first, keys });
    }
}

impl Follower {
    /// Whether a compressed file is the next one that others wait for.
    pub(super) fn is_next_in_succession(&self, key: FileKey) -> bool {
        let Some(succession) = self.successions.waiting.get(&key) else { return false };
        let keys = &self.successions.all[*succession].keys;
        keys.last() != Some(&key)
            && keys.iter().take_while(|other| **other != key).all(|other| !self.is_to_be_read(*other))
    }

    /// Whether a file has to wait until others are unpacked and read. Once it need not, it never has to again.
    pub(super) fn waits_in_succession(&mut self, number: FileNumber) -> bool {
        if self.successions.waiting.is_empty() {
            return false;
        }
        let Some(file) = self.files.get(&number) else { return false };
        let Some(succession) = self.successions.waiting.get(&file.key) else { return false };
        // Whose lines are in what was unpacked is not known yet: others may be waiting for it.
        if file.packed && file.stream.is_none() {
            return false;
        }
        let Succession { first, keys } = &self.successions.all[*succession];
        let key = file.key;
        let waits_for_first = || first.is_some_and(|id| file.stream != Some(id) && self.is_to_come(id));
        let before = || keys.iter().take_while(|other| **other != key);
        // Those before it may not be met yet.
        let is_early = || !self.searched_lost && keys.first() != Some(&key);
        let waits = file.stream.is_none_or(|id| Some(id) != *first)
            && (is_early() || waits_for_first() || before().any(|other| self.is_to_be_read(*other)));
        if !waits {
            self.successions.waiting.remove(&key);
        }
        waits
    }

    /// Whether a file may have to wait until others are unpacked and read.
    pub(super) fn is_in_succession(&self, key: FileKey) -> bool {
        self.successions.waiting.contains_key(&key)
    }

    /// Whether a stream has more to read, perhaps in a file that is being unpacked.
    fn is_to_come(&self, id: StreamId) -> bool {
        if let Some(number) = self.by_stream.get(&id) {
            return self.is_unfinished(*number);
        }
        let is_there = self.ledger.stream(id).is_some_and(|stream| !stream.orphan);
        is_there && (self.is_awaited(id) || self.unpacks() || self.unpacked_unmet().any(|file| file.queued))
    }

    fn is_to_be_read(&self, key: FileKey) -> bool {
        match (self.packed.get(&key), self.tracker.find(key)) {
            (Some(Packed::Waiting { .. } | Packed::Unpacking { .. }), _) => true,
            (_, Some(number)) => {
                let is_unknown =
                    |file: &Followed| file.packed && file.stream.is_none() && !self.waits_in_backlog(number);
                self.files.get(&number).is_some_and(is_unknown) || self.is_unfinished(number)
            }
            _ => false,
        }
    }
}
