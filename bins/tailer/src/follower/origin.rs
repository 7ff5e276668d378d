//! Where the bytes of a file without a stream come from: they are its own, or somebody else's that were copied.

use super::Follower;
use super::copies::{COMPARED_BYTES, Candidate, is_named_after, is_named_after_any, names_of};
use super::followed::Followed;
use super::scan::LOOK_APART;
use super::source::Source;
use super::work::Worked;
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::past::PastFile;
use crate::ledger::record::Tail;
use crate::tracker::{Age, FileNumber, Place};
use crate::unpack::{is_foreign, packing};
use logferry_pack::StreamId;
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::info;

/// Folders of a source that are all asked for copies of a file that ends, unless some are on file systems of other hosts.
const FOLDERS_ASKED_MAX: usize = 256;
/// Files with the same first line that a new one is compared with.
pub(super) const ALIKE_MAX: usize = 16;
/// A compressed file that may be the copy of one that waits is looked at again after this time.
const WAITING_LOOKED_AT: Duration = Duration::from_millis(200);

/// Where the bytes of a new file come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// Nobody has shipped them.
    Own,
    /// They are a copy of what was shipped up to here, and go on.
    RestOfCopy(u64),
    /// They were shipped.
    Copy,
    /// They are a stream that goes on here.
    Continued,
    /// They are a copy of a file that may be cut in a moment. Look again then.
    Unclear(Instant),
}

impl Follower {
    /// Where the bytes of a file that has no stream yet come from.
    pub(super) fn origin_of(&mut self, number: FileNumber, head: Head) -> io::Result<Origin> {
        let Some(file) = self.files.get(&number) else { return Ok(Origin::Own) };
        let source = self.sources[file.source].settings.name.clone();
        let (key, size, packed) = (file.key, file.size, file.packed);
        let heads = if packed { self.beginnings(number, &source)? } else { vec![head] };
        // Its stream may be one whose file is found in a moment.
        if packed && !self.searched_lost && self.may_be_copy_of_sought(number, &source, &heads) {
            return Ok(Origin::Unclear(Instant::now() + WAITING_LOOKED_AT));
        }
        for head in heads.iter().filter(|_| packed) {
            if self.continues_lost(number, &source, *head)? {
                return Ok(Origin::Continued);
            }
        }
        let Some(file) = self.files.get(&number) else { return Ok(Origin::Own) };
        if let Some(past) = self.past_of(number, file, &source, &heads)? {
            let (known, is_packed) = (past.length, file.packed);
            let is_own = past.keys.first() == Some(&key) && size == known;
            if is_packed && size <= known && !is_own {
                let copy = PastFile { keys: vec![key], length: size, tail: None, ..past };
                self.ledger.past_copy_known(&source, copy);
            }
            if size <= known {
                return Ok(Origin::Copy);
            }
            // What it was compressed from may have been read further, and is not remembered before that is acknowledged.
            if is_packed && let Some(origin) = self.compare_with_living(number, &source, &heads)? {
                return Ok(origin);
            }
            return Ok(Origin::RestOfCopy(known));
        }
        if self.continues_replaced(number, head)? {
            return Ok(Origin::Continued);
        }
        let Some(file) = self.files.get(&number) else { return Ok(Origin::Own) };
        // Files that are named after different times are not copies of each other; only what is being written is copied.
        let is_named = file.time.is_some() && !self.sources[file.source].paths.has_current();
        if !file.packed && (is_named || file.is_presumed) {
            return Ok(Origin::Own);
        }
        if self.may_be_copy_of_sought(number, &source, &heads) {
            return Ok(Origin::Unclear(Instant::now() + WAITING_LOOKED_AT));
        }
        // Unpacked only in case a stream goes on in it.
        let is_packed = file.packed;
        let elsewhere = is_packed && !self.sources[file.source].paths.covers(&file.path);
        if let Some(origin) = self.compare_with_living(number, &source, &heads)? {
            return Ok(origin);
        }
        if elsewhere && !self.missed_packed.contains(&key) {
            return Ok(Origin::Copy);
        }
        let waiting = if is_packed { self.waiting_as(number, head) } else { Vec::new() };
        if !waiting.is_empty() {
            // It may be the copy of one of these, which may wait for it: they are compared as streams from now on.
            for other in waiting {
                let file = self.files.get(&other).filter(|_| self.searched_lost);
                if file.is_some_and(|file| !self.waits_for_first_look(file)) {
                    self.meet_before_its_turn(other, false);
                }
            }
            return Ok(Origin::Unclear(Instant::now() + WAITING_LOOKED_AT));
        }
        Ok(if elsewhere && self.is_missed_copy(number, head)? { Origin::Copy } else { Origin::Own })
    }

    /// The first line of a file, and beginnings of it by which others are known: they had no more when they were met.
    fn beginnings(&self, number: FileNumber, source: &str) -> io::Result<Vec<Head>> {
        let (bytes, filled) = self.head_bytes(number)?;
        Ok(self.ledger.beginnings(source, &bytes[..filled]))
    }

    /// Compares a new file with all that are followed and begin with the same line.
    fn compare_with_living(
        &mut self,
        number: FileNumber,
        source: &str,
        heads: &[Head],
    ) -> io::Result<Option<Origin>> {
        let Some(file) = self.files.get(&number) else { return Ok(None) };
        let by_name = heads.iter().flat_map(|head| self.ledger.with_head_and_name(source, *head, &file.path));
        // Some have other names than those under which they were met.
        let others = heads.iter().flat_map(|head| self.ledger.with_head(source, *head).take(ALIKE_MAX));
        let mut seen = HashSet::new();
        let alike = by_name.chain(others).filter(|id| seen.insert(*id));
        let alike =
            alike.filter(|id| self.is_named_after_file_of(file, *id) && self.may_share_lines(number, *id));
        for id in self.beside_first(&file.path, alike) {
            if let Some(origin) = self.compare(number, id)? {
                return Ok(Some(origin));
            }
        }
        Ok(None)
    }

    /// Of streams that a file may be of, those of its folder, and a few of those of others: there may be one of the same name in each of thousands.
    fn beside_first(&self, path: &Path, streams: impl Iterator<Item = StreamId>) -> Vec<StreamId> {
        let folder = files::folder_of(path);
        let is_beside = |id: &StreamId| {
            let home = self.ledger.stream(*id).map(|stream| stream.met.home());
            let number = self.by_stream.get(id);
            let now = number.and_then(|number| self.files.get(number)).map(|file| &file.path);
            home.iter().chain(now).any(|path| files::folder_of(path) == folder)
        };
        let (mut beside, elsewhere): (Vec<_>, Vec<_>) = streams.partition(is_beside);
        beside.extend(elsewhere.into_iter().take(ALIKE_MAX));
        beside
    }

    /// A file that waits for others is a stream from now on, if its bytes are surely its own: so that it is missed when it is deleted while no
    /// tailer runs, and a compressed copy of it is known. Only a name with a time in it tells without a comparison.
    pub(super) fn meet_before_its_turn(&mut self, number: FileNumber, only_named: bool) {
        let Some(file) = self.files.get(&number) else { return };
        let source = &self.sources[file.source];
        let is_named = file.time.is_some() && !file.is_presumed && !source.paths.has_current();
        if file.stream.is_some() || file.packed || source.shelf.is_some() || only_named && !is_named {
            return;
        }
        let Ok((bytes, filled)) = self.head_bytes(number) else { return };
        let Some(head) = Head::complete(&bytes[..filled]) else { return };
        let is_compressed =
            packing(&file.path, &bytes[..filled]).is_some() || is_foreign(&file.path, &bytes[..filled]);
        if is_compressed || self.is_known_copy(number) {
            return;
        }
        if !matches!(self.origin_of(number, head), Ok(Origin::Own)) {
            return;
        }
        let Some(file) = self.files.get(&number) else { return };
        let (size, path) = (file.size, file.path.clone());
        if let Some(stream) = self.begin_stream(number, &path, head, 0) {
            self.ledger.saw(stream, size, 0);
            if let Some(file) = self.files.get_mut(&number) {
                file.size_trusted = size;
            }
        }
    }

    /// Files whose turn has not come and that a compressed file may be the copy of.
    fn waiting_as(&self, number: FileNumber, head: Head) -> Vec<FileNumber> {
        let Some(file) = self.files.get(&number) else { return Vec::new() };
        let paths = &self.sources[file.source].paths;
        // One that was missed lies beside the file that it may be of; those of other folders may wait for it.
        let is_missed = self.missed_packed.contains(&file.key);
        let folder = files::folder_of(&file.path);
        let may_be = |other: &Followed| {
            let mut bytes = [0; HEAD_BYTES_MAX];
            let is_waiting = other.source == file.source && !other.packed;
            is_waiting
                && other.cutter.at() == 0
                && (!is_missed || files::folder_of(&other.path) == folder)
                && is_named_after(&file.path, other.path.as_os_str().as_bytes())
                && !paths.differ_in_time(&file.path, &other.path)
                && other
                    .handle()
                    .and_then(|handle| files::read_head(handle, &mut bytes))
                    .is_ok_and(|filled| head.agrees(&bytes[..filled]))
        };
        self.unmet_where(may_be)
    }

    fn is_named_after_file_of(&self, file: &Followed, id: StreamId) -> bool {
        let other = self.by_stream.get(&id).and_then(|other| self.files.get(other));
        other.is_some_and(|other| is_named_after(&file.path, other.path.as_os_str().as_bytes()))
    }

    /// Whether a file may have lines of a stream: not if their names tell different times.
    fn may_share_lines(&self, number: FileNumber, id: StreamId) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let home = self.ledger.stream(id).map(|stream| stream.met.home());
        home.is_some_and(|home| !self.sources[file.source].paths.differ_in_time(&file.path, &home))
    }

    /// What was read to its end and this file is a copy of. Where it is one of several, the one of which most was read.
    fn past_of(
        &self,
        number: FileNumber,
        file: &Followed,
        source: &str,
        heads: &[Head],
    ) -> io::Result<Option<PastFile>> {
        let mut found: Option<&PastFile> = None;
        let past_files = self.ledger.past_files();
        let paths = &self.sources[file.source].paths;
        let may_be_other =
            |past: &&PastFile| !paths.differ_in_time(&file.path, Path::new(OsStr::from_bytes(&past.path)));
        // Others are told by their names, and only what is compressed is a copy of one that is gone.
        let may_be_copy =
            |past: &&PastFile| file.packed && is_named_after(&file.path, &past.path) && may_be_other(past);
        let of_source =
            heads.iter().filter(|_| file.packed).flat_map(|head| past_files.with_head(source, *head));
        let of_file = heads.iter().flat_map(|head| past_files.of_file(file.key, *head));
        let folder = files::folder_of(&file.path);
        let is_beside =
            |past: &&PastFile| files::folder_of(Path::new(OsStr::from_bytes(&past.path))) == folder;
        let (beside, elsewhere): (Vec<_>, Vec<_>) = of_source.filter(may_be_copy).partition(is_beside);
        let alike = beside.into_iter().take(ALIKE_MAX).chain(elsewhere.into_iter().take(ALIKE_MAX));
        for past in of_file.chain(alike) {
            if found.is_some_and(|found| found.length >= past.length) {
                continue;
            }
            let is_this = past.keys.first() == Some(&file.key);
            let is_other = !is_this && may_be_copy(&past);
            // The first line alone says nothing: many files have the same.
            let tail = past.tail.filter(|_| file.packed || past.length > u64::from(past.head.length));
            // One that was written to since is a copy only if its content says so.
            let is_rewritten = file.packed && is_this && !self.looks_as_known(number);
            let tail = tail.or_else(|| self.tail_of_stream(source, past).filter(|_| is_rewritten));
            let agrees = match tail {
                Some(tail) => files::has(file.handle()?, &tail)?,
                // Without birth times a number may be that of another file with the same line.
                None => is_this && !is_rewritten && (past.tail.is_none() || file.key.born_ns != 0),
            };
            if (is_this || is_other) && agrees {
                found = Some(past);
            }
        }
        Ok(found.cloned())
    }

    /// The last pack that is known of a stream that a file is a copy of.
    pub(super) fn tail_of_stream(&self, source: &str, copy: &PastFile) -> Option<Tail> {
        let of_stream = || self.ledger.stream(copy.stream)?.tail;
        let mut others = self.ledger.past_files().with_head(source, copy.head);
        let of_other = others.find(|other| other.stream == copy.stream && other.tail.is_some());
        of_other.and_then(|other| other.tail).or_else(of_stream)
    }

    /// Compares a new file with one that is followed; `None` when it is another.
    fn compare(&mut self, number: FileNumber, id: StreamId) -> io::Result<Option<Origin>> {
        let now = Instant::now();
        let Some(&other_number) = self.by_stream.get(&id) else { return Ok(None) };
        if !self.reach(other_number)? {
            // It was closed and is gone by now: its stream may go on in this very file, or is known to be at its end.
            return Ok(Some(Origin::Unclear(now)));
        }
        let (Some(file), Some(other)) = (self.files.get(&number), self.files.get(&other_number)) else {
            return Ok(None);
        };
        let facts = files::facts_of(other.handle()?)?;
        if !file.packed && file.time.is_some() && !other.is_presumed {
            return Ok(None);
        }
        if facts.size < other.cutter.at()
            || !self.has_its_head(other_number, id)?
            || !self.has_its_end(other_number)?
            || !self.has_its_tail(other_number, id)?
        {
            // It was cut just now, and perhaps filled again or moved; its stream decides what becomes of copies.
            self.queue(other_number);
            return Ok(Some(Origin::Unclear(now + LOOK_APART)));
        }
        let head_bytes = self.ledger.stream(id).map_or(0, |stream| u64::from(stream.met.head.length));
        let has_no_more = file.size <= facts.size && file.size > head_bytes;
        // Files that were moved away are not cut any more.
        if other.place != Place::Here && facts.links > 0 && !file.packed && !has_no_more {
            return Ok(None);
        }
        let common = file.size.min(facts.size);
        if !is_same(file.handle()?, other.handle()?, common)? {
            // A cut in this very moment makes every copy differ: what was compared must still be there.
            let was_cut =
                files::facts_of(other.handle()?)?.size < common || !self.has_its_end(other_number)?;
            if was_cut {
                self.queue(other_number);
            }
            return Ok(was_cut.then_some(Origin::Unclear(now + LOOK_APART)));
        }
        let was_moved = facts.links == 0 || file.packed;
        let wait = self.sources[file.source].settings.rotate_wait.0;
        let ends_alike = file.size == facts.size || file.packed && other.compressed_at == Some(file.size);
        if was_moved && ends_alike && (file.size > head_bytes || file.packed) {
            let (key, size) = (file.key, file.size);
            if file.packed && other.cutter.at() < size && !files::ends_with(file.handle()?, size, b'\n')? {
                // The other file holds its last line back. It is known to be finished only as long as this copy is not let go.
                self.compressed(other_number, size);
                return Ok(Some(Origin::Unclear(now + LOOK_APART.max(wait / 2))));
            }
            self.ledger.copy_known(id, key, size);
            return Ok(Some(Origin::Copy));
        }
        if file.packed {
            return Ok(None);
        }
        let since = match file.suspect {
            Some((size, since)) if size == file.size => since,
            _ => now,
        };
        let size = file.size;
        if let Some(file) = self.files.get_mut(&number) {
            file.suspect = Some((size, since));
        }
        let waited = now.saturating_duration_since(since);
        if waited >= wait && has_no_more {
            // All that it has is shipped from the other one. Should that be cut, its stream finds the copy; should this one get lines of its
            // own, it is judged anew.
            if self.held_copies.entry(id).or_default().insert(number) {
                let file = self.files.get(&number);
                let path = file.map(|file| file.path.display().to_string());
                info!(path, stream = %id, "the file has the beginning of another and nothing else: taken for a copy of it");
            }
            return Ok(Some(Origin::Copy));
        }
        // A cut is noticed by the file that is cut; here only the wait must end.
        Ok((waited < wait).then_some(Origin::Unclear(now + LOOK_APART.max(waited / 2))))
    }

    /// A stream ends: what has the beginning of its file and nothing else is remembered as a copy of it.
    pub(super) fn know_held_copies(&mut self, id: StreamId) {
        for number in self.held_copies.remove(&id).into_iter().flatten() {
            let Some(file) = self.files.get(&number).filter(|file| file.stream.is_none()) else { continue };
            let now = file.handle.as_ref().map(files::facts_of);
            let size = now.map_or(file.size, |facts| facts.map_or(0, |facts| facts.size));
            if file.cutter.at() == size {
                self.ledger.copy_known(id, file.key, size);
            }
        }
        for (copy, size) in self.unclear_copies(id) {
            self.ledger.copy_known(id, copy, size);
        }
    }

    /// What is still waited for whether it is a copy, and whole copies that nobody has looked at yet. When the stream's file is gone there
    /// is nothing to compare them with.
    fn unclear_copies(&self, id: StreamId) -> Vec<(FileKey, u64)> {
        let of_stream = self.by_stream.get(&id).and_then(|number| self.files.get(number));
        // Those that are named after their times are told by that.
        let may_have = |own: &&Followed| !own.packed && (own.time.is_none() || own.is_presumed);
        let Some(own) = of_stream.filter(may_have) else { return Vec::new() };
        let (Ok(handle), Some(stream)) = (own.handle(), self.ledger.stream(id)) else { return Vec::new() };
        // What nobody has acknowledged may be read from a copy yet.
        let (met, length) = (&stream.met, stream.frontier);
        let Source { settings, folders, paths, .. } = &self.sources[own.source];
        let names = names_of(&own.path);
        let may_be = |path: &Path| {
            let is_named_by_time = paths.time_of(path).is_some() && !own.is_presumed;
            !is_named_by_time && is_named_after_any(path, &names) && !paths.differ_in_time(path, &met.home())
        };
        let head_bytes = u64::from(met.head.length);
        if length <= head_bytes {
            return Vec::new();
        }
        let is_copy = |copy: &File, size: u64| {
            size > head_bytes && size <= length && is_same(copy, handle, size).unwrap_or(false)
        };
        let suspects = self
            .unmet_named_after(own.source, &names)
            .filter(|file| file.suspect.is_some_and(|(size, _)| size == file.size) && may_be(&file.path));
        let suspects = suspects.filter_map(|file| {
            let copy = file.handle().ok()?;
            let size = files::facts_of(copy).ok()?.size;
            is_copy(copy, size).then_some((file.key, size))
        });
        // A source may have thousands of folders, and as many files may end at once: then beside it, and where it was met.
        let own_folders = names.iter().chain([&met.home()]).map(|name| files::folder_of(name)).collect();
        let are_all_asked =
            folders.len() <= FOLDERS_ASKED_MAX && !folders.iter().any(|folder| files::is_remote(folder));
        let folders: &BTreeSet<PathBuf> = if are_all_asked { folders } else { &own_folders };
        let listed = self.named_after(folders.iter(), &names).into_iter();
        let listed = listed.filter(|path| paths.covers(path) && may_be(path));
        let listed = listed.filter_map(|path| {
            let facts = files::facts_at(&path).ok().filter(|facts| facts.is_file && facts.size == length)?;
            let is_known = facts.key == own.key
                || self.ledger.current(facts.key).is_some()
                || self.ledger.past_files().has_anywhere(facts.key);
            let copy = if is_known { None } else { files::open_below(&path, &settings.roots).ok() };
            is_copy(&copy?, length).then_some((facts.key, length))
        });
        suspects.chain(listed).collect()
    }

    /// A compressed copy of a file has `size` bytes.
    fn compressed(&mut self, number: FileNumber, size: u64) {
        if let Some(file) = self.files.get_mut(&number).filter(|file| file.compressed_at != Some(size)) {
            file.compressed_at = Some(size);
            self.queue(number);
        }
    }

    /// A stream whose file is nowhere may go on in what was unpacked.
    fn continues_lost(&mut self, number: FileNumber, source: &str, head: Head) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(false) };
        let is_named = |id: &StreamId| {
            let home = self.ledger.stream(*id).map(|stream| stream.met.home());
            home.is_some_and(|home| is_named_after_any(&file.path, &names_of(&home)))
        };
        let is_lost = |id: &StreamId| self.is_lost(*id) && self.may_share_lines(number, *id);
        let by_name = self.ledger.with_head_and_name(source, head, &file.path);
        let by_name: Vec<StreamId> = by_name.into_iter().filter(is_lost).filter(is_named).collect();
        // Copies may be named after what a link leads to.
        let links = self.ledger.with_head(source, head).filter(|_| self.sources[file.source].has_links);
        let links = links.filter(|id| !by_name.contains(id)).filter(is_lost).filter(is_named);
        let mut streams = self.beside_first(&file.path, by_name.iter().copied().chain(links));
        // Of which nothing was cut, any file with their first line may be: those of which it can be told go first.
        streams.sort_by_key(|id| self.is_unread(*id));
        for id in streams {
            let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(id)) else {
                continue;
            };
            let handle = file.handle()?.try_clone()?;
            let facts = Facts { key: file.key, ..files::facts_of(&handle)? };
            let (path, key) = (file.path.clone(), file.key);
            let copy = Candidate { path: path.clone(), facts, handle };
            let home = stream.met.home();
            let successor = self.by_path.get(&home).copied();
            if !self.has_what_was_read(id, None, &copy)? {
                continue;
            }
            self.came_after_copy(id, &path, copy.facts.size);
            let is_new =
                |number: &FileNumber| self.files.get(number).is_some_and(|file| file.stream.is_none());
            let successor = successor.filter(|next| *next != number && is_new(next));
            if self.adopt(id, &path, key, successor) {
                info!(copy = %path.display(), stream = %id, "the rest of a file that is gone is read from its compressed copy");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all of a file without a stream is known to be a copy.
    pub(super) fn is_known_copy(&self, number: FileNumber) -> bool {
        self.files.get(&number).is_some_and(|file| file.cutter.at() > 0 && file.size <= file.cutter.at())
    }

    /// A copy has nothing to read until it grows.
    pub(super) fn rest_as_copy(&mut self, number: FileNumber) -> io::Result<Worked> {
        self.caught_up(number);
        let Some(file) = self.files.get_mut(&number) else { return Ok(Worked::Rest) };
        file.cutter = Cutter::new(file.size.max(1));
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        match self.age_of(file) {
            Age::Over => self.close(number),
            Age::Until(due) => return Ok(Worked::At(due)),
            Age::Living | Age::Rotated => {}
        }
        Ok(Worked::Rest)
    }
}

/// Whether two files have the same bytes at the beginning and at the end of their first `common` bytes.
pub(super) fn is_same(one: &File, other: &File, common: u64) -> io::Result<bool> {
    let span = common.min(COMPARED_BYTES);
    for offset in [0, common - span] {
        if files::content(one, offset, span)? != files::content(other, offset, span)? {
            return Ok(false);
        }
    }
    Ok(true)
}
