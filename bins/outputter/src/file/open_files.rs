//! The descriptors of log files and header files: a bounded number, those used last.

use super::guard::FileIdentity;
use super::journal::Lengths;
use logferry_durable::DiskFile;
use std::collections::{BTreeSet, HashMap};

/// A log file and its header file, open.
pub struct OpenFile {
    /// Log file.
    pub data: Box<dyn DiskFile>,
    /// Header file.
    pub headers: Box<dyn DiskFile>,
    /// Lengths with what was appended since the last commit.
    pub written: Lengths,
    /// Which files these are, where that can be told.
    pub identity: Option<FileIdentity>,
}

/// Open files by path.
pub struct OpenFiles {
    files: HashMap<String, Used>,
    files_max: usize,
    uses: u64,
}

struct Used {
    file: OpenFile,
    last_used: u64,
}

impl OpenFiles {
    /// For `files_max` files, at least one.
    pub fn new(files_max: usize) -> OpenFiles {
        OpenFiles { files: HashMap::new(), files_max: files_max.max(1), uses: 0 }
    }

    /// Most files at a time.
    pub fn max(&self) -> usize {
        self.files_max
    }

    /// Files open now.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Forgets the descriptors of all files.
    pub fn close_all(&mut self) {
        self.files.clear();
    }

    /// An open file.
    pub fn get(&self, path: &str) -> Option<&OpenFile> {
        self.files.get(path).map(|used| &used.file)
    }

    /// An open file, to be changed.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut OpenFile> {
        self.files.get_mut(path).map(|used| &mut used.file)
    }

    /// Makes an open file the one used last.
    pub fn touch(&mut self, path: &str) {
        self.uses += 1;
        if let Some(used) = self.files.get_mut(path) {
            used.last_used = self.uses;
        }
    }

    /// Keeps a file open, as the one used last.
    pub fn insert(&mut self, path: &str, file: OpenFile) {
        self.uses += 1;
        self.files.insert(path.to_owned(), Used { file, last_used: self.uses });
    }

    /// Closes a file.
    pub fn close(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// Makes room for `paths` by closing the files that were not used for longest; none of `paths` is closed.
    pub fn make_room(&mut self, paths: &BTreeSet<&str>) {
        let new = paths.iter().filter(|path| !self.files.contains_key(**path)).count();
        let surplus = (self.files.len() + new).saturating_sub(self.files_max);
        if surplus == 0 {
            return;
        }
        let idle = self.files.iter().filter(|(path, _)| !paths.contains(path.as_str()));
        let mut idle: Vec<(u64, String)> = idle.map(|(path, used)| (used.last_used, path.clone())).collect();
        idle.sort_unstable();
        for (_, path) in idle.into_iter().take(surplus) {
            self.files.remove(&path);
        }
    }
}
