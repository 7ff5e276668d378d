//! Copies: after a copytruncate what was not read of a file is in its copy, and the copy itself is nothing new.

use super::cut_between::LOOKS_MAX;
use super::handles::open_known;
use super::listings::is_without_descriptors;
use super::missed_order::is_moved;
use super::origin::{ALIKE_MAX, is_same};
use super::sought::Sought;
use super::source::Source;
use super::{Followed, Follower};
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{EndMark, FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::past::PastFile;
use crate::ledger::record::{Met, Tail};
use crate::rotated_names::{SEPARATORS, is_stamp_part};
use crate::tracker::{FileNumber, Place};
use crate::unpack::{packing, plain_path};
use logferry_pack::StreamId;
use metrics::counter;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::{error, info};

/// Bytes that are compared at the beginning and at the end of what two files have in common.
pub(super) const COMPARED_BYTES: u64 = 64 << 10;

/// What is known of a file from before it was cut.
pub(super) struct Before {
    /// Offset up to which packs were cut.
    pub at: u64,
    pub end_mark: Option<EndMark>,
    pub recent: VecDeque<Tail>,
}

/// A file that begins as a stream does.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) facts: Facts,
    pub(super) handle: File,
}

/// Whether there is a copy in which a stream goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InCopy {
    /// There is, and it is read.
    Found,
    /// Not all that may be one could be looked at.
    Unclear,
    Nowhere,
}

/// What a file has of a stream.
enum Has {
    /// All that was read of it, and perhaps more.
    All,
    /// So many bytes, all of which were read.
    Beginning(u64),
}

/// Why not all files that may be a copy could be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unseen {
    /// Names were shifted just then.
    Shifted,
    WithoutDescriptors,
}

/// Files that have something of a stream.
struct Copies {
    all: Vec<(Has, Candidate)>,
    unseen: Option<Unseen>,
}

impl Copies {
    fn take(&mut self, found: io::Result<Option<(Has, Candidate)>>) {
        match found {
            Ok(found) => self.all.extend(found),
            Err(error) if is_without_descriptors(&error) => self.unseen = Some(Unseen::WithoutDescriptors),
            Err(error) if is_moved(&error) => _ = self.unseen.get_or_insert(Unseen::Shifted),
            Err(_) => {}
        }
    }
}

fn begins_so(handle: &File, head: Head) -> bool {
    let mut bytes = [0; HEAD_BYTES_MAX];
    files::read_head(handle, &mut bytes).is_ok_and(|filled| head.agrees(&bytes[..filled]))
}

/// A file that is held open, if it begins so: it may have been compressed or moved since it was opened.
fn held_candidate(file: &Followed, head: Head) -> io::Result<Option<Candidate>> {
    let handle = file.handle()?.try_clone()?;
    let facts = Facts { key: file.key, ..files::facts_of(&handle)? };
    Ok(begins_so(&handle, head).then_some(Candidate { path: file.path.clone(), facts, handle }))
}

impl Follower {
    /// Looks for a copy that has all that was read of a stream, and reads on in it.
    pub(super) fn continue_in_copy(&mut self, id: StreamId, sought: &mut Sought) -> InCopy {
        if self.comes_later(sought) {
            return InCopy::Unclear;
        }
        let copies = self.copies_of(id, sought.before.as_ref());
        let with_all = copies.all.iter().filter(|(has, _)| matches!(has, Has::All)).map(|(_, copy)| copy);
        let Some(copy) = with_all.max_by_key(|copy| copy.facts.size) else {
            let may_be_unseen = match copies.unseen {
                Some(Unseen::Shifted) => sought.was_shifted(),
                Some(Unseen::WithoutDescriptors) => true,
                None => false,
            };
            if may_be_unseen {
                return InCopy::Unclear;
            }
            self.know_shorter_copies(id, &copies.all);
            return InCopy::Nowhere;
        };
        let (path, facts) = (copy.path.clone(), copy.facts);
        let is_in_its_place = self.ledger.stream(id).is_some_and(|stream| stream.met.home() == path);
        self.came_after_copy(id, &path, facts.size);
        if !self.adopt(id, &path, facts.key, self.successor_of(sought)) {
            return InCopy::Nowhere;
        }
        if is_in_its_place {
            info!(path = %path.display(), stream = %id, "the file was replaced by one that has what was read of it: going on there");
            return InCopy::Found;
        }
        counter!("logferry_tailer_copies_continued_total").increment(1);
        info!(copy = %path.display(), stream = %id, "the file was cut after it had been copied: the rest is read from the copy");
        InCopy::Found
    }

    /// The bytes of a stream are in a copy of this length: what its file had beyond came between the copy and the cut.
    pub(super) fn came_after_copy(&mut self, id: StreamId, copy: &Path, length: u64) {
        let unread = self.ledger.take_unread(id, length);
        if unread > 0 {
            error!(copy = %copy.display(), bytes = unread, "bytes that came between the copy and the cut are gone");
            self.figures.lost(unread, "truncated");
        }
    }

    /// The stream's bytes are in this file from now on.
    pub(super) fn adopt(
        &mut self,
        id: StreamId,
        path: &Path,
        key: FileKey,
        successor: Option<FileNumber>,
    ) -> bool {
        let Some(source) = self.source_of(id) else { return false };
        // A copy may have a name that tells none.
        let Some(before_home) = self.ledger.stream(id).map(|stream| stream.met.home()) else { return false };
        let time = self.sources[source].paths.time_of(&before_home);
        self.sought.remove(id);
        self.ledger.rehome(id, key, path.as_os_str().as_bytes());
        let number = match self.tracker.find(key) {
            Some(number) => number,
            None => match self.try_open_known(source, path, key, Place::Gone { replaced: true }) {
                Ok(number) => number,
                // The stream keeps its new home, and is looked for there.
                Err(_) => {
                    self.seek(id, Sought::new(before_home, None, successor));
                    return true;
                }
            },
        };
        let successor = successor.filter(|successor| *successor != number);
        let end = self.ledger.stream(id).map_or(0, |stream| stream.cut_end());
        if let Some(file) = self.files.get_mut(&number) {
            file.cutter = Cutter::new(end);
            (file.verified, file.suspect, file.successor) = (true, None, successor);
            file.time = file.time.or(time);
            self.is_read_as(number, id);
        }
        if let Some(successor) = successor.map(|successor| self.first_since(id, successor)) {
            // What the successor waited for was there before this one, too.
            let before = self.files.get(&successor).and_then(|file| file.predecessor);
            self.goes_before(number, successor);
            if let Some(before) = before.filter(|before| !self.waits_behind(*before, number)) {
                self.goes_before(before, number);
            }
        }
        self.queue(number);
        true
    }

    /// The file that goes on after a stream, of those that `successor` waits for: what is by now in a file that the stream was in came after
    /// it.
    fn first_since(&self, id: StreamId, successor: FileNumber) -> FileNumber {
        let was = self.ledger.stream(id).map_or(&[][..], |stream| &stream.was);
        let is_since = |number: &FileNumber| {
            let file = self.files.get(number);
            file.is_some_and(|file| was.contains(&file.key) && file.stream != Some(id))
        };
        self.with_predecessors(successor).filter(is_since).last().unwrap_or(successor)
    }

    /// Whether a file comes after another one, or is it.
    fn waits_behind(&self, number: FileNumber, other: FileNumber) -> bool {
        self.with_predecessors(number).any(|number| number == other)
    }

    /// A file, the one that it waits for, the one that that waits for, and so on.
    fn with_predecessors(&self, number: FileNumber) -> impl Iterator<Item = FileNumber> {
        let before = |number: &FileNumber| self.files.get(number).and_then(|file| file.predecessor);
        std::iter::successors(Some(number), before).take(self.files.len() + 1)
    }

    pub(super) fn source_of(&self, id: StreamId) -> Option<usize> {
        let source = &self.ledger.stream(id)?.met.source;
        self.sources.iter().position(|candidate| candidate.settings.name == *source)
    }

    /// Other files in the folders of a stream's source that have something of it and are no streams themselves. Only those are held open.
    fn copies_of(&self, id: StreamId, before: Option<&Before>) -> Copies {
        let mut copies = Copies { all: Vec::new(), unseen: None };
        let (Some(stream), Some(source)) = (self.ledger.stream(id), self.source_of(id)) else {
            return copies;
        };
        let own = stream.met.home();
        let Source { folders, paths: of_source, .. } = &self.sources[source];
        let names = names_of(&own);
        let mut folders: BTreeSet<PathBuf> = folders.clone();
        folders.extend(names.iter().map(|name| files::folder_of(name)));
        // A file that is named after another time has lines of its own, whatever it begins with.
        let is_of_time = |path: &Path| !of_source.differ_in_time(path, &own);
        // What was renamed over it may have what was read, too.
        let mut last = None;
        let mut is_settled = false;
        for _ in 0..LOOKS_MAX {
            // Their descriptors first.
            copies = Copies { all: Vec::new(), unseen: None };
            let changed_ns = Follower::names_changed_ns(&own);
            // Where names are shifted just now, one of them may lead nowhere, or to another file.
            let (mut seen, mut is_shifted) = (Vec::new(), false);
            let entries = self.entries_named_after(folders.iter(), &names);
            if entries.is_without_descriptors {
                copies.unseen = Some(Unseen::WithoutDescriptors);
            }
            for (path, inode) in entries.found {
                let facts = files::facts_at(&path).ok();
                is_shifted |= facts.is_none_or(|facts| facts.is_file && facts.key.inode != inode);
                seen.push((path.clone(), facts.map(|facts| facts.key)));
                let may_be = |facts: &Facts| facts.is_file && facts.key != stream.met.key;
                let Some(facts) = facts.filter(may_be).filter(|_| is_of_time(&path)) else { continue };
                let candidate = self.candidate(source, path, facts, stream.met.head);
                copies.take(candidate.map(|found| self.with_what_it_has(id, before, found?)));
            }
            is_shifted |= changed_ns != Follower::names_changed_ns(&own);
            // A listing knows a link, not what it leads to.
            is_settled = !is_shifted || last.as_ref() == Some(&seen);
            if is_settled && copies.unseen.is_none() {
                break;
            }
            last = Some(seen);
        }
        if !is_settled {
            copies.unseen.get_or_insert(Unseen::Shifted);
        }
        let is_free = |file: &&Followed| file.key != stream.met.key && !file.packed && is_of_time(&file.path);
        for file in self.unmet_named_after(source, &names).filter(is_free) {
            let candidate = held_candidate(file, stream.met.head);
            copies.take(candidate.map(|found| self.with_what_it_has(id, before, found?)));
        }
        copies
    }

    fn with_what_it_has(
        &self,
        id: StreamId,
        before: Option<&Before>,
        candidate: Candidate,
    ) -> Option<(Has, Candidate)> {
        let has_all = self.may_go_on_in(id, &candidate)
            && self.has_what_was_read(id, before, &candidate).unwrap_or(false);
        let has =
            if has_all { Has::All } else { Has::Beginning(self.known_beginning(id, before?, &candidate)?) };
        Some((has, candidate))
    }

    /// Whether another file of its source, named after a file without a stream, begins as that did: it has the bytes, and ships them. A
    /// compressed one may, too.
    pub(super) fn has_copy_beginning(&self, number: FileNumber, head: Head) -> bool {
        let Some(file) = self.files.get(&number) else { return false };
        let Source { settings, paths: of_source, folders, .. } = &self.sources[file.source];
        let own = &file.path;
        self.named_after(folders.iter(), std::slice::from_ref(own)).iter().any(|path| {
            let mut bytes = [0; HEAD_BYTES_MAX];
            path != own
                && of_source.covers(path)
                && files::open_below(path, &settings.roots)
                    .and_then(|file| files::read_head(&file, &mut bytes))
                    .is_ok_and(|filled| {
                        head.agrees(&bytes[..filled]) || packing(path, &bytes[..filled]).is_some()
                    })
        })
    }

    /// A file that begins so, if it is none that is read.
    ///
    /// # Errors
    /// It cannot be opened.
    fn candidate(
        &self,
        source: usize,
        path: PathBuf,
        facts: Facts,
        head: Head,
    ) -> io::Result<Option<Candidate>> {
        let is_stream = |number| self.files.get(&number).is_some_and(|file| file.stream.is_some());
        if self.tracker.find(facts.key).is_some_and(is_stream) || self.ledger.current(facts.key).is_some() {
            return Ok(None);
        }
        match open_known(&path, facts.key, &self.sources[source].settings.roots)? {
            Some(handle) => Ok(begins_so(&handle, head).then_some(Candidate { path, facts, handle })),
            // Another has its name by now.
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn has_what_was_read(
        &self,
        id: StreamId,
        before: Option<&Before>,
        copy: &Candidate,
    ) -> io::Result<bool> {
        let Some(stream) = self.ledger.stream(id) else { return Ok(false) };
        if copy.facts.size < stream.cut_end() {
            return Ok(false);
        }
        if let Some(mark) = before.and_then(|before| before.end_mark) {
            return files::has_mark(&copy.handle, &mark);
        }
        match stream.evidence() {
            Some(tail) => files::has(&copy.handle, &tail),
            // The first line is that of many files.
            None => self.is_known_of_other(id, copy).map(|is_known| !is_known),
        }
    }

    /// Whether a file is known to have the bytes of another stream, and still has them: it may have been copied over, and without birth times
    /// it may be a new one under an old number. Or it has all the bytes of another one that is followed, and more than a first line.
    fn is_known_of_other(&self, id: StreamId, copy: &Candidate) -> io::Result<bool> {
        let Candidate { facts, handle, .. } = copy;
        if let Some(met) = self
            .ledger
            .stream(id)
            .map(|stream| &stream.met)
            .filter(|met| facts.size > u64::from(met.head.length))
        {
            let beside = self.ledger.with_head_and_name(&met.source, met.head, &copy.path);
            let others = beside.into_iter().chain(self.ledger.with_head(&met.source, met.head));
            let others = others.filter(|other| *other != id);
            let followed = others.filter_map(|other| self.files.get(self.by_stream.get(&other)?));
            for other in followed.filter_map(|other| other.handle.as_ref()).take(ALIKE_MAX) {
                if files::facts_of(other)?.size >= facts.size && is_same(handle, other, facts.size)? {
                    return Ok(true);
                }
            }
        }
        if self.has_what_is_lost(id, copy)? {
            return Ok(true);
        }
        let known = self.ledger.past_files().with_key(facts.key);
        for (source, past) in known.filter(|(_, past)| past.stream != id) {
            let tail = past.tail.or_else(|| self.tail_of_stream(source, past));
            let is_still = match tail.filter(|tail| tail.end() <= facts.size.min(past.length)) {
                Some(tail) => files::has(handle, &tail)?,
                None => facts.key.born_ns != 0 && facts.size <= past.length,
            };
            if is_still {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Up to where a copy that was made before the last bytes were read has nothing more to give.
    fn known_beginning(&self, id: StreamId, before: &Before, copy: &Candidate) -> Option<u64> {
        let met = &self.ledger.stream(id)?.met;
        let size = copy.facts.size;
        // What took the place of the file is none: it has lines of its own from the first one on.
        if size > before.at || size == 0 || names_of(&met.home()).contains(&copy.path) {
            return None;
        }
        match before.recent.iter().rev().find(|pack| pack.end() <= size) {
            // It may still be being copied: what it will have up to there was read, too.
            Some(pack) => files::has(&copy.handle, pack).unwrap_or(false).then_some(before.at),
            // Nothing but the first line tells, and a young file may have the same: what it grows by is its own.
            None => (size > u64::from(met.head.length)).then_some(size),
        }
    }

    /// Such copies are only to be known.
    fn know_shorter_copies(&mut self, id: StreamId, copies: &[(Has, Candidate)]) {
        for (has, copy) in copies {
            if let Has::Beginning(known) = *has {
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
}

/// `app.log.1`, `app.log-20261121`, `app-1.log` are named after `app.log`, which is not named after itself, and so are their compressed
/// copies; `app-error.log` and `app1.log` are files of their own.
pub(crate) fn is_named_after(copy: &Path, original: &[u8]) -> bool {
    if !may_be_named_after(copy.as_os_str().as_bytes(), original) {
        return false;
    }
    let original = Path::new(std::ffi::OsStr::from_bytes(original));
    let (plain_copy, plain_original) = (plain_path(copy), plain_path(original));
    let (Some(name), Some(own)) = (plain_copy.file_name(), plain_original.file_name()) else { return false };
    let (name, own) = (name.to_string_lossy(), own.to_string_lossy());
    // What has a number already gets the next one.
    let numbered =
        || own.rsplit_once('.').is_some_and(|(base, number)| is_stamp_part(number) && has_stamp(&name, base));
    copy != original && (has_stamp(&name, &own) || numbered())
}

/// Whether a name begins as every copy of a file does. That is told at once of most of thousands.
fn may_be_named_after(copy: &[u8], original: &[u8]) -> bool {
    let name_of = |path| memchr::memrchr(b'/', path).map_or(path, |slash| &path[slash + 1..]);
    let own = name_of(original);
    name_of(copy).starts_with(&own[..memchr::memchr(b'.', own).unwrap_or(own.len())])
}

/// A path, and what it leads to over links of another name: copies are named after that.
pub(crate) fn names_of(path: &Path) -> Vec<PathBuf> {
    let target = path.is_symlink().then(|| std::fs::canonicalize(path).ok()).flatten();
    std::iter::once(path.to_owned()).chain(target).collect()
}

/// Whether a file is named after one of these.
pub(crate) fn is_named_after_any(copy: &Path, names: &[PathBuf]) -> bool {
    names.iter().any(|name| is_named_after(copy, name.as_os_str().as_bytes()))
}

/// Whether a name is the other one, or that and the number or time of a rotation.
fn has_stamp(name: &str, own: &str) -> bool {
    let (stem, ending) = own.rsplit_once('.').unwrap_or((own, ""));
    let inside = || {
        let added = name.strip_prefix(stem)?;
        // What is compressed may have lost the ending.
        Some(added.strip_suffix(ending).and_then(|added| added.strip_suffix('.')).unwrap_or(added))
    };
    let behind = name.strip_prefix(own);
    behind.is_some_and(|added| added.is_empty() || added.starts_with('.') || is_stamp(added))
        || inside().is_some_and(is_stamp)
}

/// `-1`, `.2026-11-21`, `_20261121T07`, `-old`.
fn is_stamp(added: &str) -> bool {
    added.starts_with(SEPARATORS) && added.split(SEPARATORS).all(is_stamp_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotated_names::{plain_name, root_of, roots_of_copy};

    #[test]
    fn rotated_copies_are_named_after_their_files_and_others_are_not() {
        let is = |copy: &str, original: &str| is_named_after(Path::new(copy), original.as_bytes());
        for copy in [
            "app.log.1",
            "old/app.log",
            "app-20261121.log",
            "app.log-20261121",
            "app.log.1.gz",
            "app.log.bak",
            "app.1.log",
            "app-1.log.zst",
            "app-2026-11-21T07.log.bz2",
            "app.log.gz",
            "app_2026-11-21.gz",
            "app-old.log",
        ] {
            assert!(is(&format!("/log/{copy}"), "/log/app.log"), "{copy}");
        }
        for other in [
            "app.log",
            "db.log.1",
            "app-error.log",
            "app1.log",
            "app_ssl.log",
            "application.log",
            "app-error.log.1",
        ] {
            assert!(!is(&format!("/log/{other}"), "/log/app.log"), "{other}");
        }
        assert!(is("/log/app.log.2", "/log/app.log.1") && is("/log/app.log.2.gz", "/log/app.log.1.gz"));
        assert!(is("/log/current-3", "/log/current") && !is("/log/current_ssl", "/log/current"));
        assert!(
            !is("/log/worker10.log", "/log/worker1.log") && !is("/log/job-11.log.gz", "/log/job-1.log.gz")
        );
    }

    #[test]
    fn what_is_named_after_a_file_is_found_by_the_root_of_its_name() {
        let bases =
            ["app.log", "app", "app.log.1", "app-1.log", ".app", "a.b.c", "app.", "current", "app_x.log.old"];
        let added = [
            "",
            ".1",
            "-20261121",
            "-1.log",
            ".bak",
            "_2026-11-21T07.log",
            ".log",
            "-old",
            ".gz",
            ".1.zst",
            ".other",
        ];
        let mut names = Vec::new();
        for base in bases {
            names.extend(added.iter().map(|added| format!("{base}{added}")));
        }
        let mut named = 0;
        for (copy, own) in names.iter().flat_map(|copy| names.iter().map(move |own| (copy, own))) {
            let (copy_path, own_path) = (Path::new("/log").join(copy), Path::new("/log").join(own));
            if is_named_after(&copy_path, own_path.as_os_str().as_bytes()) {
                let (copy, own) =
                    (plain_name(&copy_path).expect("a name"), plain_name(&own_path).expect("a name"));
                assert!(roots_of_copy(&copy).any(|root| root == root_of(&own)), "{copy} of {own}");
                named += 1;
            }
        }
        assert!(named > 500, "{named}");
    }
}
