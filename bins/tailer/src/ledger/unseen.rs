//! What of a source could not be seen when it was looked at for the first time: it is there from the first time all the same.

use super::Ledger;
use super::record::Record;
use crate::identity::FileKey;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most files of a source that are remembered so; further ones are new when they can be read.
const FILES_MAX: usize = 8_192;
/// Clocks that stamp files are behind by up to this, in nanoseconds.
const STAMP_BEHIND_NS: i64 = 20_000_000;

/// A first look at a source that did not see everything.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FirstLook {
    /// Name of the source.
    pub source: String,
    /// When it began, in nanoseconds since 1970.
    pub at_ns: i64,
    /// Files that could not be opened.
    pub files: Vec<FileKey>,
    /// Bytes of the paths of folders that could not be listed, or were not there.
    pub folders: Vec<Vec<u8>>,
}

impl FirstLook {
    /// Whether it would have seen a file that is seen now. One whose age nobody knows is taken for a new one, so that nothing is lost.
    fn missed(&self, path: &Path, key: FileKey) -> bool {
        if key.born_ns == 0 {
            return false;
        }
        let is_below = |folder: &Vec<u8>| path.starts_with(OsStr::from_bytes(folder));
        self.files.contains(&key)
            || key.born_ns < self.at_ns - STAMP_BEHIND_NS && self.folders.iter().any(is_below)
    }
}

impl Ledger {
    /// The first look at a source did not see everything.
    pub fn first_look(&mut self, mut look: FirstLook) {
        look.files.truncate(FILES_MAX);
        self.write(Record::Unseen(look));
    }

    /// All of a source was seen by now.
    pub fn all_seen(&mut self, source: &str) {
        self.write(Record::AllSeen(source.to_owned()));
    }

    /// Whether the first look at a source did not see everything, and no later one did.
    pub fn has_unseen(&self, source: &str) -> bool {
        self.unseen.contains_key(source)
    }

    /// Whether a file was there at the first look at its source, and is met only now.
    pub fn is_of_first_look(&self, source: &str, path: &Path, key: FileKey) -> bool {
        self.unseen.get(source).is_some_and(|look| look.missed(path, key)) && self.past(key).is_empty()
    }

    pub(super) fn apply_unseen(&mut self, record: Record) {
        match record {
            Record::Unseen(look) => _ = self.unseen.insert(look.source.clone(), look),
            Record::AllSeen(source) => _ = self.unseen.remove(&source),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_known_by_its_file_or_by_its_folder_and_age() {
        let key = |inode, born_ns| FileKey { device: 1, inode, born_ns };
        let at_ns = 1_000 * STAMP_BEHIND_NS;
        let (files, folders) = (vec![key(1, at_ns + 5), key(2, 0)], vec![b"/log/a".to_vec()]);
        let look = FirstLook { source: "app".into(), at_ns, files, folders };
        let missed = |path: &str, key| look.missed(Path::new(path), key);
        assert!(missed("/log/b/app.log", key(1, at_ns + 5)) && missed("/log/a/b/app.log", key(3, 7)));
        assert!(!missed("/log/ab/app.log", key(3, 7)), "another folder");
        assert!(!missed("/log/a/app.log", key(3, at_ns)), "made since, or then");
        assert!(!missed("/log/b/app.log", key(2, 0)), "nobody knows its age");
    }
}
