//! Descriptors: as many files are held open as the limit allows. The least recently active are closed, and opened again when there is
//! something to read, if the path still leads to them.

use super::{Followed, Follower};
use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::tracker::{Age, FileNumber, Place};
use metrics::counter;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Descriptors that are left for connections, the state log and the reading of folders.
const OTHER_DESCRIPTORS: usize = 64;
/// Files that are open beyond the limit at most: deleted ones cannot be closed before they are read.
const BEYOND_MAX: usize = OTHER_DESCRIPTORS / 4;
/// Time between two tries to close one where none could be closed.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// Time between two warnings that files cannot be opened or read.
const TROUBLE_TOLD_APART: Duration = Duration::from_secs(10);
/// After all open files were looked through for one to close, the next so often are the first that is no worse.
const SETTLED_TIMES: usize = 64;
/// Fewer open files than this would be closed and opened all the time.
const OPEN_FILES_MIN: usize = 16;

/// The open files, least recently active first (as far as one bit each tells).
#[derive(Debug)]
pub(super) struct OpenFiles {
    limit: usize,
    open: usize,
    order: VecDeque<FileNumber>,
    is_over: bool,
    settles_for: Option<Settled>,
    /// Until then there is no room.
    full_until: Option<Instant>,
}

impl OpenFiles {
    /// `wanted` as far as the system allows it.
    pub(super) fn new(wanted: u64) -> OpenFiles {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let allowed = allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let limit = wanted.min(allowed.saturating_sub(OTHER_DESCRIPTORS)).max(OPEN_FILES_MIN);
        OpenFiles {
            limit,
            open: 0,
            order: VecDeque::new(),
            is_over: false,
            settles_for: None,
            full_until: None,
        }
    }

    /// Files that are open.
    pub(super) fn count(&self) -> usize {
        self.open
    }

    /// Most files that are held open.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// When there may be room, if there is none now.
    pub(super) fn full_until(&self) -> Option<Instant> {
        self.full_until.filter(|_| self.open >= self.limit + BEYOND_MAX)
    }

    /// Files that may wait to be read with their descriptors open, at a start with many of them: there must be room for others.
    pub(super) fn waiting_max(&self) -> usize {
        self.limit / 2
    }
}

/// What may be closed, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    /// What was read to its end.
    Read,
    /// What is at its path.
    Unread,
    /// Whatever can be opened again.
    Moved,
}

/// What was the best that could be closed when all were looked through, and how often that may be taken for so.
#[derive(Clone, Copy, Debug)]
struct Settled {
    kind: Kind,
    times: usize,
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
        let (source, path, key) = (file.source, file.path.clone(), file.key);
        self.make_room()?;
        let roots = &self.sources[source].settings.roots;
        let Some(handle) = open_known(&path, key, roots)? else {
            return self.moved_while_closed(number);
        };
        self.reopened(number, handle);
        Ok(true)
    }

    fn reopened(&mut self, number: FileNumber, handle: File) {
        counter!("logferry_tailer_files_reopened_total").increment(1);
        if let Some(file) = self.files.get_mut(&number) {
            file.handle = Some(handle);
        }
        self.opened(number);
    }

    /// Makes sure that one more file may be opened.
    ///
    /// # Errors
    /// All that may be open are, and none of them can be closed for now.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        if self.open_files.open < self.open_files.limit + BEYOND_MAX {
            return Ok(());
        }
        let now = Instant::now();
        if self.open_files.full_until.is_none_or(|until| until <= now) {
            self.find_displaced();
            if self.close_any(None) {
                return Ok(());
            }
            self.open_files.full_until = Some(now + FULL_RETRY);
        }
        Err(io::Error::other(
            "as many files are open as may be (open_files), and were moved or deleted before they were read",
        ))
    }

    /// Whether it is time to tell of trouble with a file again: it may be that of thousands.
    pub(super) fn may_tell_trouble(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.trouble_told.is_none_or(|told| now.duration_since(told) >= TROUBLE_TOLD_APART);
        if is_due {
            self.trouble_told = Some(now);
        }
        is_due
    }

    /// Files that were moved while they were open can be closed when it is known where they are.
    fn find_displaced(&mut self) {
        for number in self.displaced.iter().copied().collect::<Vec<_>>() {
            let Some(file) = self.files.get(&number).filter(|file| file.handle.is_some() && !file.packed)
            else {
                continue;
            };
            let leads_to_it = |path: &Path| files::facts_at(path).is_ok_and(|facts| facts.key == file.key);
            if leads_to_it(&file.path) {
                continue;
            }
            let folders = &self.sources[file.source].folders;
            let Some(found) = folders.iter().find_map(|folder| self.find_in(folder, file.key).ok().flatten())
            else {
                continue;
            };
            self.is_named(number, found);
        }
    }

    /// The descriptor of a file was opened.
    pub(super) fn opened(&mut self, number: FileNumber) {
        self.open_files.open += 1;
        self.open_files.order.push_back(number);
        while self.open_files.open > self.open_files.limit {
            if !self.close_any(Some(number)) {
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

    /// Closes files that can be opened again, as long as there are any: others need so many descriptors.
    pub(super) fn close_some(&mut self, wanted: usize) {
        let _ = (0..wanted).all(|_| self.close_any(None));
    }

    /// Closes the least recently active file that can be opened again: one that was read, or else one that has more to read, and last one
    /// that was moved and may go before it is read.
    fn close_any(&mut self, keep: Option<FileNumber>) -> bool {
        let settles_for = self.open_files.settles_for.take_if(|settled| settled.times > 0);
        let mut best: Option<(Kind, FileNumber)> = None;
        // Each may have its second chance once.
        for turn in 0..self.open_files.order.len() * 2 {
            if turn >= self.open_files.order.len() && best.is_some() {
                break;
            }
            let Some(number) = self.open_files.order.pop_front() else { return false };
            let Some(file) = self.files.get_mut(&number).filter(|file| file.handle.is_some()) else {
                continue;
            };
            self.open_files.order.push_back(number);
            if std::mem::take(&mut file.active) || Some(number) == keep {
                continue;
            }
            let is_better = |kind: &Kind| best.is_none_or(|(best, _)| *kind < best);
            let Some(kind) = self.closed_as(number).filter(is_better) else { continue };
            if !self.is_at_its_path(number) {
                continue;
            }
            best = Some((kind, number));
            if kind <= settles_for.map_or(Kind::Read, |settled| settled.kind) {
                break;
            }
        }
        let Some((kind, number)) = best else { return false };
        // To look through all of them for each that is opened would cost more than to open one again.
        let times = settles_for.map_or(SETTLED_TIMES, |settled| settled.times - 1);
        self.open_files.settles_for = (kind > Kind::Read).then_some(Settled { kind, times });
        match self.open_files.order.back() == Some(&number) {
            true => _ = self.open_files.order.pop_back(),
            false => self.open_files.order.retain(|other| *other != number),
        }
        if let Some(file) = self.files.get_mut(&number) {
            file.handle = None;
        }
        self.one_open_less();
        true
    }

    /// As what a file may be closed, as long as its path leads to it.
    fn closed_as(&self, number: FileNumber) -> Option<Kind> {
        let file = self.files.get(&number)?;
        let stream = file.stream.and_then(|id| self.ledger.stream(id));
        let is_read = match stream {
            Some(stream) => file.size <= file.cutter.seen_to() && stream.next_unsent().is_none(),
            None => file.size <= file.cutter.at(),
        };
        let is_input = self.sources[file.source].shelf.is_some();
        // Its path may be another file's by now, and mostly is in the end.
        let is_known_there = || file.place == Place::Here || self.by_path.get(&file.path) == Some(&number);
        let may_wait = is_read || stream.is_none_or(|stream| stream.conflict.is_none());
        if file.packed || file.unlinked || is_input || !may_wait || !is_known_there() {
            return None;
        }
        Some(match (is_read, file.place) {
            (true, _) => Kind::Read,
            (false, Place::Here) => Kind::Unread,
            (false, _) => Kind::Moved,
        })
    }

    fn is_at_its_path(&self, number: FileNumber) -> bool {
        let is_it = |file: &Followed| files::facts_at(&file.path).is_ok_and(|facts| facts.key == file.key);
        self.files.get(&number).is_some_and(is_it)
    }

    /// Whether a closed file is as it was, so that there is nothing to open it for.
    pub(super) fn is_closed_and_same(&self, number: FileNumber) -> bool {
        let is_here = |file: &Followed| file.place == Place::Here && !file.hour_over;
        self.files.get(&number).is_some_and(is_here) && self.is_as_it_was_closed(number)
    }

    /// When a closed file that was moved away is finished, if there is nothing to open it for before that.
    pub(super) fn closed_until(&self, number: FileNumber) -> Option<Instant> {
        let file =
            self.files.get(&number).filter(|file| file.handle.is_none() && file.place != Place::Here)?;
        match self.age_of(file) {
            Age::Until(due) => self.is_as_it_was_closed(number).then_some(due),
            _ => None,
        }
    }

    fn is_as_it_was_closed(&self, number: FileNumber) -> bool {
        let Some(file) = self.files.get(&number).filter(|file| file.handle.is_none()) else { return false };
        let stream = file.stream.map(|id| self.ledger.stream(id));
        let is_settled = match stream {
            Some(Some(stream)) => stream.next_unsent().is_none() && stream.conflict.is_none(),
            Some(None) => false,
            None => true,
        };
        let read_to = if file.stream.is_some() { file.cutter.seen_to() } else { file.cutter.at() };
        // Somebody may have written as much anew.
        let seen = stream.flatten().and_then(|stream| stream.seen);
        let same = |facts: Facts| {
            facts.key == file.key
                && facts.size == read_to
                && seen.is_none_or(|(_, touched_ns)| touched_ns == facts.touched_ns)
        };
        // An entry that is still open ends when its time is over, and is read then.
        let has_nothing = is_settled && file.cutter.entry_bytes() == 0;
        has_nothing && files::facts_at(&file.path).is_ok_and(same)
    }

    /// A closed file is not at its path any more: one with a stream is looked for as after a restart. Whether it is open again.
    ///
    /// # Errors
    /// Where it is cannot be told, or it cannot be opened there: that is tried again.
    fn moved_while_closed(&mut self, number: FileNumber) -> io::Result<bool> {
        const TOLD: &str = "a file that was closed for now is not where it was";
        let Some(file) = self.files.get(&number) else { return Ok(false) };
        if let Some(id) = file.stream {
            let (source, size) = (file.source, file.size);
            info!(path = %file.path.display(), "{TOLD}: looking for it");
            self.let_go(number);
            let Some(met) = self.ledger.stream(id).map(|stream| stream.met.clone()) else { return Ok(false) };
            self.ledger.left_at(id, size);
            self.search(source, &met);
            return Ok(false);
        }
        let Some(found) = self.find_in_folders(file.source, file.key)? else {
            let (path, unread) = (file.path.clone(), file.size.saturating_sub(file.cutter.at()));
            info!(path = %path.display(), "{TOLD}, and nowhere else");
            self.let_go(number);
            self.deleted_while_closed(&path, unread);
            return Ok(false);
        };
        let handle = open_known(&found, file.key, &self.sources[file.source].settings.roots)?;
        let handle = handle.ok_or_else(|| io::Error::other("it is being moved"))?;
        info!(from = %file.path.display(), to = %found.display(), "{TOLD}");
        self.is_named(number, found);
        self.reopened(number, handle);
        Ok(true)
    }

    /// Looks for a file in the folders of a source.
    fn find_in_folders(&self, source: usize, key: FileKey) -> io::Result<Option<PathBuf>> {
        let mut hidden = None;
        for folder in &self.sources[source].folders {
            match self.find_in(folder, key) {
                Ok(Some(found)) => return Ok(Some(found)),
                Err(error) if !files::is_absent(&error) => hidden = Some(error),
                Ok(None) | Err(_) => {}
            }
        }
        hidden.map_or(Ok(None), Err)
    }

    fn deleted_while_closed(&self, path: &Path, unread: u64) {
        if unread > 0 {
            error!(path = %path.display(), bytes = unread, "a file was deleted before it was read to its end: there are more of them than open_files");
            self.figures.lost(unread, "deleted");
        }
    }
}

/// Opens the file at a path if it is still that file.
pub(super) fn open_known(path: &Path, key: FileKey, roots: &[String]) -> io::Result<Option<File>> {
    let handle = match files::open_below(path, roots) {
        Ok(handle) => handle,
        Err(error) if files::is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((files::facts_of(&handle)?.key == key).then_some(handle))
}
