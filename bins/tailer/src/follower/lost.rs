//! Finding again what a restart left: files that were renamed, copied, compressed or deleted while no tailer held them.

use super::copies::InCopy;
use super::listings::is_without_descriptors;
use super::missed::is_rotated_from;
use super::packed_asked::Awaited;
use super::sought::Sought;
use super::{Followed, Follower};
use crate::config::CatchUp;
use crate::files;
use crate::identity::FileKey;
use crate::ledger::record::Met;
use crate::rotated_names::{plain_name, root_of, roots_of_copy};
use crate::tracker::{FileNumber, Place};
use logferry_pack::StreamId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::{info, warn};

/// Whether nothing can be opened.
fn is_without_descriptor() -> bool {
    File::open("/dev/null").is_err_and(|error| is_without_descriptors(&error))
}

impl Follower {
    /// Streams whose files no source's path leads to any more: they were renamed or deleted while no tailer held them.
    pub(super) fn search_lost(&mut self) {
        let is_lost = |met: &&Met| !self.by_stream.contains_key(&met.stream);
        let lost = self.ledger.streams().map(|stream| &stream.met).filter(is_lost).cloned().collect();
        self.search_all(lost);
        self.forget_found();
        self.homes_before.was_searched();
    }

    fn search_all(&mut self, mut lost: Vec<Met>) {
        // Of those that were at one path, the one that was there first.
        lost.sort_by_key(|met| {
            let since = self.sought.get(met.stream).map(Sought::since);
            (since.is_none(), since)
        });
        let is_without = !self.sought.is_empty() && is_without_descriptor();
        for met in lost {
            if is_without && self.sought.get(met.stream).is_some() {
                self.search_again.later(Instant::now());
                continue;
            }
            let Some(source) = self.sources.iter().position(|source| source.settings.name == met.source)
            else {
                warn!(source = met.source, stream = %met.stream, "the source is no longer configured: its file waits");
                continue;
            };
            self.search(source, &met);
        }
    }

    /// A file that was unpacked was read, or is a copy: whoever waited for it waits no more.
    pub(super) fn search_who_waited(&mut self, file: &Followed) {
        if !self.unpacks() {
            return self.search_lost();
        }
        // All are looked for when no more are unpacked. There may be as many as logs: until then those are that this one was for.
        let folder = files::folder_of(&file.path);
        let is_beside = |id: &StreamId| {
            self.ledger.stream(*id).is_some_and(|stream| files::folder_of(&stream.met.home()) == folder)
        };
        let named = self.ledger.with_name(&self.sources[file.source].settings.name, &file.path);
        let beside = named.into_iter().filter(is_beside);
        let waited: BTreeSet<StreamId> = beside.chain(self.asked.by(file.key)).collect();
        let lost = waited.into_iter().filter(|id| !self.by_stream.contains_key(id));
        let lost: Vec<Met> =
            lost.filter_map(|id| self.ledger.stream(id).map(|stream| stream.met.clone())).collect();
        self.search_all(lost);
    }

    /// After the first look at all files: those that are gone are looked for, and what had one path after another is put in its order.
    pub(super) fn first_look_is_over(&mut self) {
        self.search_lost();
        // What was unpacked already waited for this.
        let is_unknown =
            |number: &FileNumber| self.files.get(number).is_some_and(|file| file.stream.is_none());
        let unknown: Vec<FileNumber> = self.unpacked.iter().copied().filter(is_unknown).collect();
        unknown.into_iter().for_each(|number| self.queue(number));
        for (home, files) in self.files_by_home() {
            if files.len() > 1 {
                self.put_in_order(&home, files);
            }
        }
        self.find_missed();
        self.ledger.looks_for_missed(None);
    }

    /// The files that had each path. What goes on in a copy, which no path of its source leads to, had the path that it was copied from.
    fn files_by_home(&self) -> BTreeMap<PathBuf, Vec<FileNumber>> {
        let mut by_home: BTreeMap<PathBuf, Vec<FileNumber>> = BTreeMap::new();
        let mut in_copies = Vec::new();
        for (number, file) in self.files.iter().filter(|(_, file)| self.keeps_order(file.source)) {
            let Some(home) = self.tracker.home(*number) else { continue };
            if self.sources[file.source].paths.covers(home) {
                by_home.entry(home.to_owned()).or_default().push(*number);
            } else {
                in_copies.push((*number, home));
            }
        }
        let mut by_root: HashMap<String, Vec<PathBuf>> = HashMap::new();
        for home in by_home.keys().filter(|_| !in_copies.is_empty()) {
            let name = plain_name(home).unwrap_or_default();
            by_root.entry(root_of(&name).to_owned()).or_default().push(home.clone());
        }
        for (number, copy) in in_copies {
            let name = plain_name(copy).unwrap_or_default();
            let homes = roots_of_copy(&name).filter_map(|root| by_root.get(root)).flatten();
            let homes = homes.filter(|home| is_rotated_from(copy, home));
            // There may be one of the same name in each folder.
            let home = homes.min_by_key(|home| (home.parent() != copy.parent(), *home)).cloned();
            by_home.entry(home.unwrap_or_else(|| copy.to_owned())).or_default().push(number);
        }
        by_home
    }

    /// Whether the files of a source that were at one path are read one after another: `catch_up` may say otherwise.
    pub(super) fn keeps_order(&self, source: usize) -> bool {
        self.sources[source].settings.catch_up == CatchUp::Fair
    }

    /// Files that had the same path: the one that was there first goes first, and the one that is there now last.
    fn put_in_order(&mut self, home: &Path, mut files: Vec<FileNumber>) {
        files.sort_by_cached_key(|number| {
            let file = self.files.get(number);
            let is_home = file.is_some_and(|file| file.path == home);
            let changed_ns =
                file.and_then(|file| files::facts_at(&file.path).ok()).map(|facts| facts.changed_ns);
            // What is in a file that another stream was in before began when that had gone. Birth times are 0 where there are none.
            let born_ns = file.map(|file| file.key.born_ns);
            let begun_ns =
                if file.is_some_and(|file| self.ledger.was_left(file.key)) { changed_ns } else { born_ns };
            (is_home, begun_ns, changed_ns, *number)
        });
        // In which order they were found says nothing.
        if let Some(first) = files.first().and_then(|number| self.files.get_mut(number)) {
            first.predecessor = None;
        }
        files.windows(2).for_each(|pair| self.goes_before(pair[0], pair[1]));
    }

    pub(super) fn search(&mut self, source: usize, met: &Met) {
        let path = met.home();
        let sought = self.sought.remove(met.stream);
        let mut sought = sought.unwrap_or_else(|| Sought::new(path.clone(), None, None));
        if self.ledger.stream(met.stream).is_some_and(|stream| stream.orphan) {
            self.bytes_gone(met.stream, &path, "replaced");
            self.finish_orphan(met.stream);
            return;
        }
        let mut folders = self.sources[source].folders.clone();
        folders.insert(files::folder_of(&path));
        let mut all_readable = true;
        for folder in folders.into_iter().filter(|_| met.key != FileKey::NOWHERE) {
            match self.find_in(&folder, met.key) {
                Ok(Some(found)) => return self.found(source, met, &found, sought),
                Ok(None) => {}
                Err(error) if files::is_absent(&error) => {}
                Err(_) => all_readable = false,
            }
        }
        match self.continue_in_copy(met.stream, &mut sought) {
            InCopy::Found => return,
            InCopy::Unclear => return self.seek(met.stream, sought),
            InCopy::Nowhere => {}
        }
        let awaited = self.awaits_unpacking(source, met);
        if awaited == Awaited::Unclear {
            return self.seek(met.stream, sought);
        }
        self.no_longer_sought(&sought);
        if awaited == Awaited::Unpacked {
            return;
        }
        if !all_readable {
            self.search_again.later(Instant::now());
        } else {
            // A file that was cut waited for its compressed copy until now.
            let reason = if met.key == FileKey::NOWHERE { "truncated" } else { "deleted" };
            self.know_held_copies(met.stream);
            self.bytes_gone(met.stream, &path, reason);
            self.ledger.finish(met.stream);
            self.release_home_of(met.stream);
        }
    }

    fn found(&mut self, source: usize, met: &Met, found: &Path, sought: Sought) {
        let home = &met.home();
        let look = files::facts_at(found).map(|facts| facts.look()).unwrap_or_default();
        if self.is_packed(source, found, met.key, look) {
            return;
        }
        // A stream that had moved into a copy is at home there, outside of the source's paths: nobody writes to it.
        let is_copy = found == home;
        let replaced = is_copy || files::facts_at(home).is_ok_and(|facts| facts.key != met.key);
        info!(from = %home.display(), to = %found.display(), "a file that was renamed meanwhile is read to its end");
        match self.try_open_known(source, found, met.key, Place::Gone { replaced }) {
            Ok(number) => {
                if self.files.get(&number).is_some_and(|file| file.stream.is_none()) {
                    // It was cut meanwhile and filled again; what was in it goes on in a copy, if anywhere.
                    self.begins_at(number, home);
                    if let Some(copy) = self.by_stream.get(&met.stream).copied() {
                        self.goes_before(copy, number);
                    }
                }
                if self.ledger.stream(met.stream).is_some_and(|stream| stream.orphan) {
                    self.bytes_gone(met.stream, home, "replaced");
                    self.finish_orphan(met.stream);
                }
                let there = self.by_path.get(home).copied();
                let successor = self.successor_of(&sought).or(there).filter(|next| *next != number);
                if let Some(successor) = successor {
                    self.goes_before(number, successor);
                }
                self.no_longer_sought(&sought);
                self.queue(number);
            }
            Err(error) => {
                if self.may_tell_trouble() {
                    warn!(path = %found.display(), %error, "the file cannot be opened: trying again");
                }
                if error.kind() == io::ErrorKind::PermissionDenied {
                    // That may last: nobody waits for it.
                    return self.search_again.later(Instant::now());
                }
                self.seek(met.stream, sought);
            }
        }
    }

    pub(super) fn search_again_when_due(&mut self) {
        if !self.search_again.begins(Instant::now()) {
            return;
        }
        // The first look ends with such a search.
        if self.searched_lost {
            self.search_lost();
        }
        self.search_again.is_over();
    }

    /// What was found otherwise, or is done with, is not looked for any more.
    fn forget_found(&mut self) {
        let (ledger, by_stream) = (&self.ledger, &self.by_stream);
        let is_done = |id: &StreamId| ledger.stream(*id).is_none() || by_stream.contains_key(id);
        let done: Vec<StreamId> = self.sought.iter().map(|(id, _)| *id).filter(is_done).collect();
        done.into_iter().for_each(|id| _ = self.sought.remove(id));
    }
}
