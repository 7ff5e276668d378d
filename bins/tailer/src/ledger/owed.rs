//! What was missed while no tailer ran: since when, until it was looked for, and compressed files that are still to be told from copies. They are no streams before that, and must not
//! be forgotten if the process ends meanwhile: by the time that it starts again they are older than its state.

use super::Ledger;
use super::looks::FileLook;
use super::record::Record;
use crate::identity::FileKey;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Most files that are remembered so.
const FILES_MAX: usize = 16_384;

/// A compressed file that is to be read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Owed {
    /// Name of the source.
    pub source: String,
    /// The file.
    pub key: FileKey,
    /// Bytes of the path at which it was found.
    pub path: Vec<u8>,
    /// How it looked then.
    pub look: FileLook,
}

impl Owed {
    /// A file of a source.
    pub fn new(source: &str, key: FileKey, path: &Path, look: FileLook) -> Owed {
        Owed { source: source.to_owned(), key, path: path.as_os_str().as_bytes().to_vec(), look }
    }

    /// The path at which it was found.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }
}

impl Ledger {
    /// A compressed file is to be read, until it is a stream, a stream goes on in it, or its content is known.
    pub fn owe(&mut self, owed: Owed) {
        let is_known = self.owed.get(&owed.key).is_some_and(|known| *known == owed);
        if !is_known && self.owed.len() < FILES_MAX {
            self.write(Record::Owed(owed));
        }
    }

    /// Whether a compressed file is to be read.
    pub fn owes(&self, key: FileKey) -> bool {
        self.owed.contains_key(&key)
    }

    /// Since when, in nanoseconds since 1970, files may be missed that an earlier process was still to look for.
    pub fn missed_since(&self) -> Option<i64> {
        self.missed_since
    }

    /// Files that were made since then are looked for; `None` when all were.
    pub fn looks_for_missed(&mut self, since: Option<i64>) {
        if self.missed_since != since {
            self.write(Record::MissedSince(since));
        }
    }

    /// Those of a source.
    pub fn owed_of<'a>(&'a self, source: &'a str) -> impl Iterator<Item = &'a Owed> {
        self.owed.values().filter(move |owed| owed.source == source)
    }
}
