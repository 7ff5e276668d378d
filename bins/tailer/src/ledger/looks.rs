//! How files looked when it was settled what becomes of them, where their streams do not tell: compressed files whose content is known, and
//! files that are not shipped. One that looks otherwise by now may hold something else.

use super::Ledger;
use super::record::Record;
use crate::identity::FileKey;
use std::collections::{BTreeMap, VecDeque};

/// Most files of each kind that are remembered so.
const FILES_MAX: usize = 16_384;

/// The length of a file, and when it was written to last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct FileLook {
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of its content (mtime), in nanoseconds since 1970.
    pub changed_ns: i64,
}

/// Files with their looks, oldest first.
pub type LookList = Vec<(FileKey, FileLook)>;

/// Files with their looks, up to a number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Looks {
    by_key: BTreeMap<FileKey, FileLook>,
    order: VecDeque<FileKey>,
}

impl Looks {
    /// How a file looked.
    pub fn get(&self, key: FileKey) -> Option<FileLook> {
        self.by_key.get(&key).copied()
    }

    fn insert(&mut self, key: FileKey, look: FileLook) {
        if self.by_key.insert(key, look).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > FILES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }

    pub(super) fn list(&self) -> LookList {
        self.order.iter().filter_map(|key| Some((*key, self.get(*key)?))).collect()
    }

    pub(super) fn of(list: LookList) -> Looks {
        let mut looks = Looks::default();
        list.into_iter().for_each(|(key, look)| looks.insert(key, look));
        looks
    }
}

impl Ledger {
    /// How a compressed file looked when its content was known.
    pub fn known_look(&self, key: FileKey) -> Option<FileLook> {
        self.known_looks.get(key)
    }

    /// The content of a compressed file that looks like this is known.
    pub fn content_known(&mut self, key: FileKey, look: FileLook) {
        if self.known_look(key) != Some(look) || self.owes(key) {
            self.write(Record::ContentKnown { key, look });
        }
    }

    /// A file that looks like this is not shipped. False if that was told before.
    pub fn tell_missed(&mut self, key: FileKey, look: FileLook) -> bool {
        let is_new = self.missed_looks.get(key) != Some(look);
        if is_new || self.owes(key) {
            self.write(Record::Missed { key, look });
        }
        is_new
    }

    pub(super) fn apply_look(&mut self, record: &Record) {
        if let Record::ContentKnown { key, .. } | Record::Missed { key, .. } = record {
            self.owed.remove(key);
        }
        match *record {
            Record::ContentKnown { key, look } => self.known_looks.insert(key, look),
            Record::Missed { key, look } => self.missed_looks.insert(key, look),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_looks_are_forgotten_beyond_the_limit_and_a_newer_look_replaces_an_older_one() {
        let key = |inode| FileKey { device: 1, inode, born_ns: 5 };
        let look = |size| FileLook { size, changed_ns: 7 };
        let mut looks = Looks::default();
        (0..=FILES_MAX as u64).for_each(|inode| looks.insert(key(inode), look(inode)));
        looks.insert(key(1), look(70));
        assert_eq!((looks.get(key(0)), looks.get(key(1))), (None, Some(look(70))));
        assert_eq!((looks.list().len(), Looks::of(looks.list())), (FILES_MAX, looks));
    }
}
