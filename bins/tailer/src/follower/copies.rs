//! Copies: after a copytruncate what was not read of a file is in its copy, and the copy itself is nothing new.

use super::scan::{LOOK_APART, Source};
use super::work::Worked;
use super::{Followed, Follower};
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{EndMark, FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::past::PastFile;
use crate::ledger::record::{Met, Tail};
use crate::tracker::{Age, FileNumber, Place};
use crate::unpack::packing;
use logferry_pack::StreamId;
use metrics::counter;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::{error, info};

/// Files with the same first line that a new one is compared with.
const ALIKE_MAX: usize = 16;
/// Bytes that are compared at the beginning and at the end of what two files have in common.
const COMPARED_BYTES: u64 = 64 << 10;

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

/// What is known of a file from before it was cut.
pub(super) struct Before {
    pub file: FileNumber,
    /// Offset up to which packs were cut.
    pub at: u64,
    pub end_mark: Option<EndMark>,
    pub recent: VecDeque<Tail>,
}

/// A file that begins as a stream does.
struct Candidate {
    path: PathBuf,
    facts: Facts,
    handle: File,
}

impl Follower {
    /// Looks for a copy that has all that was read of a stream, and reads on in it. False when there is none.
    pub(super) fn continue_in_copy(&mut self, id: StreamId, before: Option<&Before>) -> bool {
        let candidates = self.candidates(id);
        let has_all = |candidate: &&Candidate| self.has_what_was_read(id, before, candidate).unwrap_or(false);
        let longest = candidates.iter().filter(has_all).max_by_key(|candidate| candidate.facts.size);
        let Some(copy) = longest else {
            if let Some(before) = before {
                self.mark_shorter_copies(id, before, &candidates);
            }
            return false;
        };
        let (path, facts) = (copy.path.clone(), copy.facts);
        self.came_after_copy(id, &path, facts.size);
        if !self.adopt(id, &path, facts.key, before.map(|before| before.file)) {
            return false;
        }
        counter!("logferry_tailer_copies_continued_total").increment(1);
        info!(copy = %path.display(), stream = %id, "the file was cut after it had been copied: the rest is read from the copy");
        true
    }

    /// The bytes of a stream are in a copy of this length: what its file had beyond came between the copy and the cut.
    fn came_after_copy(&mut self, id: StreamId, copy: &Path, length: u64) {
        let unread = self.ledger.take_unread(id, length);
        if unread > 0 {
            error!(copy = %copy.display(), bytes = unread, "bytes that came between the copy and the cut are gone");
            self.figures.lost(unread, "truncated");
        }
    }

    /// The stream's bytes are in this file from now on.
    fn adopt(&mut self, id: StreamId, path: &Path, key: FileKey, successor: Option<FileNumber>) -> bool {
        let Some(source) = self.source_of(id) else { return false };
        self.ledger.rehome(id, key, path.as_os_str().as_bytes());
        let number = match self.tracker.find(key) {
            Some(number) => number,
            None => match self.try_open(source, path, Place::Gone { replaced: true }) {
                Ok(number) => number,
                // The stream keeps its new home: it is looked for again at the next start.
                Err(_) => return true,
            },
        };
        let end = self.ledger.stream(id).map_or(0, |stream| stream.cut_end());
        if let Some(file) = self.files.get_mut(&number) {
            (file.stream, file.cutter) = (Some(id), Cutter::new(end));
            (file.verified, file.suspect, file.successor) = (true, None, successor);
            self.by_stream.insert(id, number);
        }
        if let Some(successor) = successor {
            self.goes_before(number, successor);
        }
        self.queue(number);
        true
    }

    fn source_of(&self, id: StreamId) -> Option<usize> {
        let source = &self.ledger.stream(id)?.met.source;
        self.sources.iter().position(|candidate| candidate.settings.name == *source)
    }

    /// Other files in the folders of a stream's source that begin as it does and are no streams themselves.
    fn candidates(&self, id: StreamId) -> Vec<Candidate> {
        let (Some(stream), Some(source)) = (self.ledger.stream(id), self.source_of(id)) else {
            return vec![];
        };
        let own = stream.met.home();
        let mut folders: BTreeSet<PathBuf> = self.sources[source].folders.clone();
        folders.insert(files::folder_of(&own));
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let paths = entries.flatten().flatten().map(|entry| entry.path());
        let named = paths.filter(|path| is_named_after(path, &stream.met.path));
        let found = named.filter_map(|path| self.candidate(source, path, stream.met.key, stream.met.head));
        found.chain(self.held_candidates(id, source)).collect()
    }

    /// Whether another file of its source, named after a file without a stream, begins as that did: it has the bytes, and ships them. A
    /// compressed one may, too.
    pub(super) fn has_copy_beginning(&self, number: FileNumber, head: Head) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let Source { settings, pattern, folders, .. } = &self.sources[file.source];
        let own = file.path.as_os_str().as_bytes();
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let mut paths = entries.flatten().flatten().map(|entry| entry.path());
        paths.any(|path| {
            let mut bytes = [0; HEAD_BYTES_MAX];
            is_named_after(&path, own)
                && pattern.covers(&path)
                && files::open_below(&path, &settings.roots)
                    .and_then(|file| files::read_head(&file, &mut bytes))
                    .is_ok_and(|filled| {
                        head.agrees(&bytes[..filled]) || packing(&path, &bytes[..filled]).is_some()
                    })
        })
    }

    /// The same among files that are held open: copies may have been compressed or moved since they were opened.
    fn held_candidates(&self, id: StreamId, source: usize) -> impl Iterator<Item = Candidate> {
        let met = self.ledger.stream(id).map(|stream| &stream.met);
        let free = self
            .files
            .values()
            .filter(move |file| file.source == source && file.stream.is_none() && !file.packed);
        free.filter_map(move |file| {
            let met = met.filter(|met| met.key != file.key && is_named_after(&file.path, &met.path))?;
            let handle = file.handle().and_then(File::try_clone).ok()?;
            let facts = Facts { key: file.key, ..files::facts_of(&handle).ok()? };
            let mut bytes = [0; HEAD_BYTES_MAX];
            let filled = files::read_head(&handle, &mut bytes).ok()?;
            let candidate = Candidate { path: file.path.clone(), facts, handle };
            met.head.agrees(&bytes[..filled]).then_some(candidate)
        })
    }

    fn candidate(&self, source: usize, path: PathBuf, not: FileKey, head: Head) -> Option<Candidate> {
        let facts = files::facts_at(&path).ok().filter(|facts| facts.is_file && facts.key != not)?;
        let is_stream = |number| self.files.get(&number).is_some_and(|file| file.stream.is_some());
        if self.tracker.find(facts.key).is_some_and(is_stream) || self.ledger.current(facts.key).is_some() {
            return None;
        }
        let handle = files::open_below(&path, &self.sources[source].settings.roots).ok()?;
        let mut bytes = [0; HEAD_BYTES_MAX];
        let filled = files::read_head(&handle, &mut bytes).ok()?;
        head.agrees(&bytes[..filled]).then_some(Candidate { path, facts, handle })
    }

    fn has_what_was_read(&self, id: StreamId, before: Option<&Before>, copy: &Candidate) -> io::Result<bool> {
        let Some(stream) = self.ledger.stream(id) else { return Ok(false) };
        if copy.facts.size < stream.cut_end() {
            return Ok(false);
        }
        if let Some(mark) = before.and_then(|before| before.end_mark) {
            return files::has_mark(&copy.handle, &mark);
        }
        let first_cut = stream.entries.front().map(|entry| entry.cut);
        let first_cut = first_cut.map(|cut| Tail { offset: cut.offset, span: cut.span, sum: cut.sum });
        match stream.tail.or(first_cut) {
            Some(tail) => files::has(&copy.handle, &tail),
            None => Ok(true),
        }
    }

    /// Copies that were made before the last bytes were read have nothing more to give: they are only to be known.
    fn mark_shorter_copies(&mut self, id: StreamId, before: &Before, candidates: &[Candidate]) {
        let head_bytes = self.ledger.stream(id).map_or(0, |stream| u64::from(stream.met.head.length));
        for copy in candidates.iter().filter(|copy| copy.facts.size <= before.at && copy.facts.size > 0) {
            let size = copy.facts.size;
            let whole = before.recent.iter().rev().find(|pack| pack.offset + pack.span <= size);
            let known = match whole {
                // It may still be being copied: what it will have up to there was read, too.
                Some(pack) => files::has(&copy.handle, pack).unwrap_or(false).then_some(before.at),
                // Nothing but the first line tells, and a young file may have the same: what it grows by is its own.
                None => (size > head_bytes).then_some(size),
            };
            if let Some(known) = known {
                self.ledger.copy_known(id, copy.facts.key, known);
                self.know_by_content(id, copy, known);
            }
        }
    }

    /// A copy that is compressed is another file, and is known by what it ended with. `length` bytes of it need not be shipped.
    fn know_by_content(&mut self, id: StreamId, copy: &Candidate, length: u64) {
        let size = copy.facts.size;
        let offset = size - size.min(COMPARED_BYTES);
        let (Ok(Some(end)), Some(stream)) =
            (files::content(&copy.handle, offset, size - offset), self.ledger.stream(id))
        else {
            return;
        };
        let Met { source, path, head, .. } = stream.met.clone();
        let tail = Some(Tail { offset, span: size - offset, sum: end.sum });
        let keys = vec![FileKey::NOWHERE, copy.facts.key];
        self.ledger.past_copy_known(&source, PastFile { stream: id, keys, path, head, length, tail });
    }

    /// Where the bytes of a file that has no stream yet come from.
    pub(super) fn origin_of(&mut self, number: FileNumber, head: Head) -> io::Result<Origin> {
        let Some(file) = self.files.get(&number) else { return Ok(Origin::Own) };
        let source = self.sources[file.source].settings.name.clone();
        let (key, size) = (file.key, file.size);
        if file.packed && self.continues_lost(number, &source, head)? {
            return Ok(Origin::Continued);
        }
        let Some(file) = self.files.get(&number) else { return Ok(Origin::Own) };
        if let Some(past) = self.past_of(file, &source, head)? {
            let (known, is_packed) = (past.length, file.packed);
            if is_packed && size <= known {
                let copy = PastFile { keys: vec![key], length: size, tail: None, ..past };
                self.ledger.past_copy_known(&source, copy);
            }
            if size <= known {
                return Ok(Origin::Copy);
            }
            // What it was compressed from may have been read further, and is not remembered before that is acknowledged.
            if is_packed && let Some(origin) = self.compare_with_living(number, &source, head)? {
                return Ok(origin);
            }
            return Ok(Origin::RestOfCopy(known));
        }
        // Files that are named after different times are not copies of each other.
        if file.time.is_some() && !file.packed {
            return Ok(Origin::Own);
        }
        // Unpacked only in case a stream goes on in it.
        let elsewhere = file.packed && !self.sources[file.source].pattern.covers(&file.path);
        if let Some(origin) = self.compare_with_living(number, &source, head)? {
            return Ok(origin);
        }
        Ok(if elsewhere { Origin::Copy } else { Origin::Own })
    }

    /// Compares a new file with all that are followed and begin with the same line.
    fn compare_with_living(
        &mut self,
        number: FileNumber,
        source: &str,
        head: Head,
    ) -> io::Result<Option<Origin>> {
        let alike: Vec<StreamId> = self.ledger.with_head(source, head).take(ALIKE_MAX).collect();
        for id in alike {
            if let Some(origin) = self.compare(number, id)? {
                return Ok(Some(origin));
            }
        }
        Ok(None)
    }

    /// What was read to its end and this file is a copy of. Where it is one of several, the one of which most was read.
    fn past_of(&self, file: &Followed, source: &str, head: Head) -> io::Result<Option<PastFile>> {
        let mut found: Option<&PastFile> = None;
        for past in self.ledger.past_files().with_head(source, head).take(ALIKE_MAX) {
            if found.is_some_and(|found| found.length >= past.length) {
                continue;
            }
            let is_this = past.keys.first() == Some(&file.key);
            let is_other = !is_this && file.packed && is_named_after(&file.path, &past.path);
            // The first line alone says nothing: many files have the same.
            let tail = past.tail.filter(|_| file.packed || past.length > u64::from(head.length));
            let agrees = match tail {
                Some(tail) => files::has(file.handle()?, &tail)?,
                // Without birth times a number may be that of another file with the same line.
                None => is_this && (past.tail.is_none() || file.key.born_ns != 0),
            };
            if (is_this || is_other) && agrees {
                found = Some(past);
            }
        }
        Ok(found.cloned())
    }

    /// Compares a new file with one that is followed; `None` when it is another.
    fn compare(&mut self, number: FileNumber, id: StreamId) -> io::Result<Option<Origin>> {
        let now = Instant::now();
        let Some(&other_number) = self.by_stream.get(&id) else { return Ok(None) };
        if !self.reach(other_number)? {
            return Ok(None);
        }
        let (Some(file), Some(other)) = (self.files.get(&number), self.files.get(&other_number)) else {
            return Ok(None);
        };
        let facts = files::facts_of(other.handle()?)?;
        if !is_named_after(&file.path, other.path.as_os_str().as_bytes()) {
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
        // Files that were moved away are not cut any more.
        if other.place != Place::Here && facts.links > 0 && !file.packed {
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
        let head_bytes = self.ledger.stream(id).map_or(0, |stream| u64::from(stream.met.head.length));
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
        // A cut is noticed by the file that is cut; here only the wait must end.
        Ok((waited < wait).then_some(Origin::Unclear(now + LOOK_APART.max(waited / 2))))
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
        let streams = self.ledger.with_head(source, head).filter(|id| !self.by_stream.contains_key(id));
        for id in streams.take(ALIKE_MAX).collect::<Vec<_>>() {
            let (Some(file), Some(stream)) = (self.files.get(&number), self.ledger.stream(id)) else {
                continue;
            };
            if stream.orphan || !is_named_after(&file.path, &stream.met.path) {
                continue;
            }
            let handle = file.handle()?.try_clone()?;
            let facts = Facts { key: file.key, ..files::facts_of(&handle)? };
            let (path, key) = (file.path.clone(), file.key);
            let copy = Candidate { path: path.clone(), facts, handle };
            if !self.has_what_was_read(id, None, &copy)? {
                continue;
            }
            self.came_after_copy(id, &path, copy.facts.size);
            if self.adopt(id, &path, key, None) {
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
fn is_same(one: &File, other: &File, common: u64) -> io::Result<bool> {
    let span = common.min(COMPARED_BYTES);
    for offset in [0, common - span] {
        if files::content(one, offset, span)? != files::content(other, offset, span)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `app.log.1`, `app.log-20261121`, `app-1.log` are named after `app.log`, which is not named after itself.
pub(crate) fn is_named_after(copy: &Path, original: &[u8]) -> bool {
    let original = Path::new(std::ffi::OsStr::from_bytes(original));
    let (Some(name), Some(stem)) = (copy.file_name(), original.file_stem()) else { return false };
    copy != original && name.as_bytes().starts_with(stem.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_copies_are_named_after_their_files() {
        let is = |copy: &str| is_named_after(Path::new(copy), b"/log/app.log");
        assert!(is("/log/app.log.1") && is("/log/old/app.log") && is("/log/app-20261121.log"));
        assert!(!is("/log/app.log") && !is("/log/db.log.1"));
    }
}
