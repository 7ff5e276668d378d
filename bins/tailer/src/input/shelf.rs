//! What an input and the follower both know of the input's files: how much of each is on the disk, which may still grow, which
//! are done with.

use super::inlet::Command;
use crossbeam_channel::Sender as Channel;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ending of the names of an input's files.
pub const ENDING: &str = "lines";

/// The books of an input's files, and its figures.
#[derive(Debug)]
pub struct Shelf {
    /// Name of input and source.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Lines that are on the disk, since the start.
    pub lines_total: AtomicU64,
    /// Messages that were not taken, since the start.
    pub dropped_total: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    books: Mutex<Books>,
    commands: Channel<Command>,
}

#[derive(Debug, Default)]
struct Books {
    /// Length on the disk of each file.
    files: BTreeMap<u64, u64>,
    /// How much of it is the head, which is never shipped.
    heads: BTreeMap<u64, u64>,
    /// The file that is appended to.
    open: Option<u64>,
    /// Files whose release was asked for.
    asked: BTreeSet<u64>,
    trouble: Option<String>,
}

impl Shelf {
    pub(super) fn new(name: &str, folder: &Path, commands: Channel<Command>) -> Shelf {
        Shelf {
            name: name.to_owned(),
            folder: folder.to_owned(),
            lines_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            books: Mutex::default(),
            commands,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Path of the file with a number.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:012}.{ENDING}"))
    }

    /// The number in a file's name.
    pub fn number_of(path: &Path) -> Option<u64> {
        let ending = path.extension().is_some_and(|ending| ending == ENDING);
        path.file_stem().filter(|_| ending)?.to_str()?.parse().ok()
    }

    /// Bytes of a file that are on the disk and may be shipped; all of one that the input does not know.
    pub fn readable(&self, path: &Path) -> u64 {
        Shelf::number_of(path).and_then(|number| self.books().files.get(&number).copied()).unwrap_or(u64::MAX)
    }

    /// Bytes of all files, with their heads.
    pub fn bytes(&self) -> u64 {
        self.books().files.values().sum()
    }

    /// Bytes of lines in all files.
    pub fn lines_bytes(&self) -> u64 {
        let books = self.books();
        books.files.values().sum::<u64>().saturating_sub(books.heads.values().sum())
    }

    /// Whether there is no file: all that came in was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.books().files.is_empty()
    }

    /// Whether a file will not grow any more, is `length` long, and was not asked to be released before.
    pub fn may_release(&self, number: u64, length: u64) -> bool {
        let mut books = self.books();
        let is_whole = books.files.get(&number) == Some(&length);
        is_whole && books.open != Some(number) && books.asked.insert(number)
    }

    /// All of a file is acknowledged, and the state log knows: it may go.
    pub fn release(&self, number: u64) {
        // The input may have ended: then the next start releases it.
        let _ = self.commands.send(Command::Release(number));
    }

    /// What is wrong, for people.
    pub fn trouble(&self) -> Option<String> {
        self.books().trouble.clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        self.books().trouble = trouble;
    }
    pub(super) fn set_head(&self, number: u64, length: u64) {
        self.books().heads.insert(number, length);
    }
    pub(super) fn set_length(&self, number: u64, length: u64) {
        self.books().files.insert(number, length);
    }
    pub(super) fn set_open(&self, number: Option<u64>) {
        self.books().open = number;
    }
    pub(super) fn remove(&self, number: u64) {
        let mut books = self.books();
        books.files.remove(&number);
        books.heads.remove(&number);
        books.asked.remove(&number);
    }
    pub(super) fn first(&self) -> Option<u64> {
        self.books().files.keys().next().copied()
    }
    pub(super) fn last(&self) -> Option<u64> {
        self.books().files.keys().next_back().copied()
    }
}
