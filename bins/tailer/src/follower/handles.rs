//! Descriptors: as many files are held open as the limit allows. The least recently active are closed, and opened again when there is
//! something to read, if the path still leads to them.

use super::{Followed, Follower};
use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::tracker::{FileNumber, Place};
use metrics::counter;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use tracing::{error, info, warn};

/// Descriptors that are left for connections, the state log and the reading of folders.
const OTHER_DESCRIPTORS: usize = 64;
/// Fewer open files than this would be closed and opened all the time.
const OPEN_FILES_MIN: usize = 16;

/// The open files, least recently active first (as far as one bit each tells).
#[derive(Debug)]
pub(super) struct OpenFiles {
    limit: usize,
    open: usize,
    order: VecDeque<FileNumber>,
    is_over: bool,
}

impl OpenFiles {
    /// `wanted` as far as the system allows it.
    pub(super) fn new(wanted: u64) -> OpenFiles {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let allowed = allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let limit = wanted.min(allowed.saturating_sub(OTHER_DESCRIPTORS)).max(OPEN_FILES_MIN);
        OpenFiles { limit, open: 0, order: VecDeque::new(), is_over: false }
    }

    /// Files that are open.
    pub(super) fn count(&self) -> usize {
        self.open
    }

    /// Most files that are held open.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Files that may wait to be read with their descriptors open, at a start with many of them: there must be room for others.
    pub(super) fn waiting_max(&self) -> usize {
        self.limit / 2
    }
}

impl Followed {
    /// The descriptor; after [`Follower::reach`] it is open.
    pub(super) fn handle(&self) -> io::Result<&File> {
        self.handle.as_ref().ok_or_else(|| io::Error::other("the file is closed for now"))
    }
}

impl Follower {
    /// Makes sure that the descriptor of a file is open. False when the file is gone: then it is followed no more.
    pub(super) fn reach(&mut self, number: FileNumber) -> io::Result<bool> {
        let Some(file) = self.files.get_mut(&number) else { return Ok(false) };
        file.active = true;
        if file.handle.is_some() {
            return Ok(true);
        }
        let roots = &self.sources[file.source].settings.roots;
        let Some(handle) = open_known(&file.path, file.key, roots)? else {
            self.moved_while_closed(number);
            return Ok(false);
        };
        counter!("logferry_tailer_files_reopened_total").increment(1);
        file.handle = Some(handle);
        self.opened(number);
        Ok(true)
    }

    /// The descriptor of a file was opened.
    pub(super) fn opened(&mut self, number: FileNumber) {
        self.open_files.open += 1;
        self.open_files.order.push_back(number);
        while self.open_files.open > self.open_files.limit {
            if !self.close_one(number, false) && !self.close_one(number, true) {
                if !std::mem::replace(&mut self.open_files.is_over, true) {
                    warn!(
                        open = self.open_files.open,
                        "more files are open than open_files allows: they were moved or deleted, and could not be opened again"
                    );
                }
                break;
            }
        }
    }

    /// A descriptor was given up with its file.
    pub(super) fn one_open_less(&mut self) {
        self.open_files.open = self.open_files.open.saturating_sub(1);
        self.open_files.is_over = false;
    }

    /// Closes the least recently active file that can be opened again; with `unread` also one that has more to read.
    fn close_one(&mut self, keep: FileNumber, unread: bool) -> bool {
        // Each may have its second chance once.
        for _ in 0..self.open_files.order.len() * 2 {
            let Some(number) = self.open_files.order.pop_front() else { return false };
            let Some(file) = self.files.get_mut(&number).filter(|file| file.handle.is_some()) else {
                continue;
            };
            if std::mem::take(&mut file.active) || number == keep || !self.may_close(number, unread) {
                self.open_files.order.push_back(number);
                continue;
            }
            if let Some(file) = self.files.get_mut(&number) {
                file.handle = None;
            }
            self.one_open_less();
            return true;
        }
        false
    }

    /// Whether a file can be opened again: its path leads to it at this moment.
    fn may_close(&self, number: FileNumber, unread: bool) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let stream = file.stream.and_then(|id| self.ledger.stream(id));
        let is_read = match stream {
            Some(stream) => file.size <= file.cutter.seen_to() && stream.next_unsent().is_none(),
            None => file.size <= file.cutter.at(),
        };
        let is_input = self.sources[file.source].shelf.is_some();
        let may_be_reached = file.place == Place::Here && !file.packed && !file.unlinked && !is_input;
        let may_wait = is_read || unread && stream.is_none_or(|stream| stream.conflict.is_none());
        may_be_reached && may_wait && files::facts_at(&file.path).is_ok_and(|facts| facts.key == file.key)
    }

    /// Whether a closed file is as it was, so that there is nothing to open it for.
    pub(super) fn is_closed_and_same(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number).filter(|file| file.handle.is_none()) else { return false };
        let has_nothing = match file.stream.map(|id| self.ledger.stream(id)) {
            Some(Some(stream)) => stream.next_unsent().is_none() && stream.conflict.is_none(),
            Some(None) => false,
            None => true,
        };
        let read_to = if file.stream.is_some() { file.cutter.seen_to() } else { file.cutter.at() };
        let is_here = file.place == Place::Here && !file.hour_over;
        // Somebody may have written as much anew.
        let seen = file.stream.and_then(|id| self.ledger.stream(id)?.seen);
        let same = |facts: Facts| {
            facts.key == file.key
                && facts.size == read_to
                && seen.is_none_or(|(_, touched_ns)| touched_ns == facts.touched_ns)
        };
        is_here && has_nothing && files::facts_at(&file.path).is_ok_and(same)
    }

    /// A closed file is not at its path any more: it is looked for as after a restart.
    fn moved_while_closed(&mut self, number: FileNumber) {
        let Some(file) = self.let_go(number) else { return };
        info!(path = %file.path.display(), "a file that was closed for now is not where it was: looking for it");
        let Some(id) = file.stream else {
            let found = self.sources[file.source]
                .folders
                .iter()
                .find_map(|folder| files::find_in(folder, file.key).ok().flatten());
            let opened =
                found.map(|found| self.try_open(file.source, &found, Place::Gone { replaced: true }));
            match opened {
                Some(Ok(number)) => self.queue(number),
                _ => self.deleted_while_closed(&file.path, file.size.saturating_sub(file.cutter.at())),
            }
            return;
        };
        let Some(met) = self.ledger.stream(id).map(|stream| stream.met.clone()) else { return };
        self.ledger.left_at(id, file.size);
        self.search(file.source, &met);
    }

    fn deleted_while_closed(&self, path: &Path, unread: u64) {
        if unread > 0 {
            error!(path = %path.display(), bytes = unread, "a file was deleted before it was read to its end: there are more of them than open_files");
            self.figures.lost(unread, "deleted");
        }
    }
}

/// Opens the file at a path if it is still that file.
fn open_known(path: &Path, key: FileKey, roots: &[String]) -> io::Result<Option<File>> {
    let handle = match files::open_below(path, roots) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((files::facts_of(&handle)?.key == key).then_some(handle))
}
