//! Files that had a plain path while no tailer ran, and are not there any more. No path of the source leads to them, but the folder shows what
//! they are: named after the log, and made between the file that was read last and the one that is there now, or, where files are copied and
//! truncated, since the state was written last.

use super::Follower;
use super::copies::names_of;
use super::cut_between::LOOKS_MAX;
use super::handles::open_known;
use super::listings::is_without_descriptors;
use super::missed_alike::Candidate;
use super::missed_order::{ReadMissed, is_moved};
use super::packed::Packed;
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::owed::Owed;
use crate::tracker::{FileNumber, Place};
use crate::unpack::{is_foreign, packing, reader, uncompressed_path};
use logferry_pack::StreamId;
use metrics::counter;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Longest time of looking where names are shifted all the while.
const NAMES_SHIFTED_MAX: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOKED_APART: Duration = Duration::from_millis(2);

pub(super) const MAY_BE_COPY: &str = "it begins as another one that was read, and may be a copy of it";

/// A file that was missed.
pub(super) struct Missed {
    pub(super) path: PathBuf,
    pub(super) facts: Facts,
    /// Younger than the file that has the path now.
    pub(super) is_younger: bool,
}

impl Missed {
    /// What had the path first was changed first, renamed or copied. Names may be shifted within one tick of the clock: then what was made
    /// first.
    pub(super) fn age(&self) -> (i64, i64) {
        (self.facts.changed_ns, self.facts.key.born_ns)
    }
}

/// What became of one.
enum Found {
    Followed(FileNumber),
    /// It is unpacked, and followed then.
    Unpacking,
    /// It is none: its lines are elsewhere, or not to be shipped.
    Nothing,
}

/// The names that files of a folder may be named after, by their first part, each with the home that it is of.
type NamesByStem<'a> = HashMap<String, Vec<(PathBuf, &'a Path)>>;

/// Files that had a path before, by that.
pub(super) struct Rotated {
    pub(super) by_home: BTreeMap<PathBuf, Vec<(PathBuf, Facts)>>,
    /// No folder was out of reach.
    pub(super) all_listed: bool,
}

/// Files at one path, one after another: those that were read there.
pub(super) type Homes = BTreeMap<PathBuf, Vec<FileKey>>;

impl Follower {
    /// Finds such files of all sources and has them read, between those that were there before and after them.
    pub(super) fn find_missed(&mut self) {
        let looked_until = Instant::now() + NAMES_SHIFTED_MAX;
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            if source.paths.has_times() || source.shelf.is_some() {
                continue;
            }
            let homes = self.homes_of(index);
            let mut read_at = BTreeMap::<PathBuf, ReadMissed>::new();
            for look in 1.. {
                read_at.values_mut().for_each(|read| read.failed.clear());
                for (home, rotated) in self.rotated_from(&homes).by_home {
                    let keys = homes.get(&home).map_or(&[][..], Vec::as_slice);
                    let read = read_at.entry(home.clone()).or_default();
                    self.find_missed_at(index, &home, keys, rotated, read);
                }
                // Names may be shifted just now: by what rotates thousands of logs one by one, or again and again.
                let is_over = look >= LOOKS_MAX && Instant::now() >= looked_until;
                if is_over || !read_at.values().any(ReadMissed::is_to_be_tried) {
                    break;
                }
                let wanted: usize = read_at.values().map(ReadMissed::without_descriptors).sum();
                self.close_some(wanted);
                std::thread::sleep(LOOKED_APART);
            }
            for (home, read) in read_at {
                for (path, facts, error) in &read.failed {
                    self.cannot_read_missed(index, path, facts, error);
                }
                let keys = homes.get(&home).map_or(&[][..], Vec::as_slice);
                let (before, now) = (self.homes_before.at(&home), read.now);
                self.put_in_turn(&read, last_read_of(keys, before, now), before, now);
            }
            self.tell_owed_and_gone(index);
        }
    }

    /// Compressed files that an earlier process was to read, and that nobody can read any more.
    fn tell_owed_and_gone(&mut self, index: usize) {
        let name = self.sources[index].settings.name.clone();
        let is_gone = |owed: &&Owed| {
            let found = self.find_in(&files::folder_of(&owed.path()), owed.key);
            !self.missed_packed.contains(&owed.key) && matches!(found, Ok(None))
        };
        let gone: Vec<Owed> = self.ledger.owed_of(&name).filter(is_gone).cloned().collect();
        for owed in gone {
            self.packed_lost(index, &owed.path(), owed.key, owed.look, "deleted");
            self.ledger.tell_missed(owed.key, owed.look);
        }
    }

    /// The paths of a source at which files were read.
    fn homes_of(&self, index: usize) -> Homes {
        let source = &self.sources[index];
        let name = &source.settings.name;
        let mut homes = Homes::new();
        if !files::is_glob(source.paths.named().glob()) {
            homes.insert(PathBuf::from(&source.settings.path), Vec::new());
        }
        let streams = self.ledger.streams().filter(|stream| stream.met.source == *name);
        for (home, key) in streams.map(|stream| (stream.met.home(), stream.met.key)) {
            homes.entry(home).or_default().push(key);
        }
        for file in self.ledger.past_files().of(name) {
            let home = PathBuf::from(std::ffi::OsStr::from_bytes(&file.path));
            homes.entry(home).or_default().extend(&file.keys);
        }
        // Streams may go on in copies by now, and are at home there: nobody writes to those.
        self.homes_before.paths().for_each(|home| {
            homes.entry(home.clone()).or_default();
        });
        homes.retain(|home, _| source.paths.covers(home));
        homes
    }

    /// Files beside these paths that may have been there before, and that nobody knows.
    pub(super) fn rotated_from(&self, homes: &Homes) -> Rotated {
        let mut folders: BTreeMap<PathBuf, NamesByStem> = BTreeMap::new();
        for home in homes.keys() {
            for name in names_of(home) {
                let Some(stem) = text_of(name.file_name()).map(|name| parts_of(name).0.to_owned()) else {
                    continue;
                };
                let by_stem = folders.entry(files::folder_of(&name)).or_default();
                by_stem.entry(stem).or_default().push((name, home));
            }
        }
        let (mut found, mut all_listed) = (BTreeMap::<PathBuf, Vec<(PathBuf, Facts)>>::new(), true);
        for (folder, by_stem) in folders {
            // Not held while names are looked at: that may take another look at the folder.
            let listing = self.listings.borrow_mut().of(&folder);
            let listing = match listing {
                Ok(listing) => listing,
                Err(error) => {
                    all_listed &= error.kind() == io::ErrorKind::NotFound;
                    continue;
                }
            };
            let beside: BTreeSet<&OsStr> =
                by_stem.keys().flat_map(|stem| listing.beginning_with(stem)).collect();
            for path in beside.into_iter().map(|name| folder.join(name)) {
                let plain = uncompressed_path(&path);
                let Some(name) = text_of(plain.file_name()) else { continue };
                let stems = name.match_indices(['.', '-', '_']).map(|(at, _)| &name[..at]);
                let beside = stems.filter_map(|stem| by_stem.get(stem)).flatten();
                let named = beside.filter(|(name, _)| is_rotated_from(&plain, name));
                let Some((_, home)) = named.max_by_key(|(name, _)| name.as_os_str().len()) else { continue };
                if self.sources.iter().any(|source| source.paths.covers(&path)) {
                    continue;
                }
                let facts = files::facts_at(&path).ok().filter(|facts| facts.is_file && facts.size > 0);
                if let Some(facts) = facts.filter(|facts| !self.is_known_file(facts.key)) {
                    found.entry(PathBuf::from(home)).or_default().push((path, facts));
                }
            }
        }
        Rotated { by_home: found, all_listed }
    }

    fn find_missed_at(
        &mut self,
        index: usize,
        home: &Path,
        keys: &[FileKey],
        rotated: Vec<(PathBuf, Facts)>,
        read: &mut ReadMissed,
    ) {
        let now_key = files::facts_at(home).ok().map(|facts| facts.key);
        let before = self.homes_before.at(home);
        let last_read = last_read_of(keys, before, now_key);
        // What comes after that waits for it.
        read.now = read.now.or(now_key);
        let stopped_ns = self
            .stopped_ns
            .filter(|_| self.sources[index].was_started)
            .filter(|_| self.missed_before || self.has_other_content(now_key, before));
        let is_younger = |facts: &Facts| now_key.is_some_and(|now| facts.key.born_ns >= now.born_ns);
        let is_missed = |path: &Path, facts: &Facts| {
            let born = facts.key.born_ns;
            if self.ledger.owes(facts.key) {
                return true;
            }
            if uncompressed_path(path) != path {
                // It was made when it was compressed; the time of its last change stays, if any does.
                return stopped_ns.is_some_and(|stopped| born >= stopped && facts.changed_ns >= stopped);
            }
            let is_between = last_read.is_some_and(|last| born > last.born_ns) && !is_younger(facts);
            is_between || stopped_ns.is_some_and(|stopped| born >= stopped)
        };
        let missed: Vec<Missed> = rotated
            .into_iter()
            .filter(|(path, facts)| is_missed(path, facts))
            .map(|(path, facts)| Missed { is_younger: is_younger(&facts), path, facts })
            .collect();
        self.read_missed(index, home, missed, read);
    }

    fn cannot_read_missed(&mut self, index: usize, path: &Path, facts: &Facts, error: &io::Error) {
        self.not_shipped(index, path, facts, &format!("it cannot be read: {error}"));
    }

    /// Reads what was missed while the tailer ran. What cannot be opened is to be tried again; unless descriptors are short, that is told.
    pub(super) fn read_missed_since(
        &mut self,
        index: usize,
        home: &Path,
        missed: Vec<Missed>,
        read: &mut ReadMissed,
    ) {
        self.read_missed(index, home, missed, read);
        for (path, facts, error) in &read.failed {
            if !is_without_descriptors(error) && !is_moved(error) && self.make_room().is_ok() {
                self.cannot_read_missed(index, path, facts, error);
            }
        }
    }

    fn read_missed(&mut self, index: usize, home: &Path, mut missed: Vec<Missed>, read: &mut ReadMissed) {
        missed.sort_by(|a, b| a.age().cmp(&b.age()).then_with(|| a.path.cmp(&b.path)));
        read.failed.clear();
        for missed in missed {
            match self.take_missed(index, home, &missed) {
                Ok(Found::Followed(number)) => read.add(missed, Some(number)),
                Ok(Found::Unpacking) => read.add(missed, None),
                Ok(Found::Nothing) => {}
                Err(error) => read.failed.push((missed.path, missed.facts, error)),
            }
        }
    }

    /// Whether what a path had when the state was written last is not what it has now: another file is there, or it was cut.
    fn has_other_content(&self, now: Option<FileKey>, before: Option<(FileKey, StreamId)>) -> bool {
        let (Some(now), Some((key, stream))) = (now, before) else { return true };
        let is_still =
            || self.tracker.find(now).is_none_or(|number| self.is_still(number, stream).unwrap_or(true));
        // Of one that nothing was read of nobody can tell.
        let is_unread = self.ledger.stream(stream).is_none_or(|stream| stream.evidence().is_none());
        now != key || self.ledger.current(now) != Some(stream) || is_unread || !is_still()
    }

    fn is_known_file(&self, key: FileKey) -> bool {
        let is_followed = |number| {
            // What was unpacked for a stream whose file is gone may be none of its.
            self.files.get(&number).is_some_and(|file| !file.packed || file.stream.is_some())
        };
        self.tracker.find(key).is_some_and(is_followed)
            || self.ledger.current(key).is_some()
            || self.ledger.past_files().has_anywhere(key)
    }

    /// Follows a file that was missed, unless it may be a copy of one that was read: nothing is shipped twice on a guess.
    fn take_missed(&mut self, index: usize, home: &Path, missed: &Missed) -> io::Result<Found> {
        let Missed { path, facts, is_younger } = missed;
        let roots = &self.sources[index].settings.roots;
        // Names may be shifted just now.
        let Some(file) = open_known(path, facts.key, roots)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut bytes = [0; HEAD_BYTES_MAX];
        let filled = files::read_head(&file, &mut bytes)?;
        if is_foreign(path, &bytes[..filled]) {
            self.not_shipped(index, path, facts, "it is compressed in a way that is not read");
            return Ok(Found::Nothing);
        }
        if let Some(packing) = packing(path, &bytes[..filled]) {
            let mut content = reader(packing, io::BufReader::new(file))?.take(HEAD_BYTES_MAX as u64);
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            return Ok(
                Head::finished(&bytes).map_or(Found::Nothing, |head| self.take_packed(index, missed, head))
            );
        }
        let Some(head) = Head::finished(&bytes[..filled]) else { return Ok(Found::Nothing) };
        if *is_younger && self.is_copy_of_home(index, home, missed)? {
            // Should that be cut now, its stream goes on in it.
            return Ok(Found::Nothing);
        }
        let candidate =
            Candidate { source: index, head, path, key: facts.key, file: &file, size: facts.size };
        if self.may_be_copy(&candidate)? {
            self.not_shipped(index, path, facts, MAY_BE_COPY);
            return Ok(Found::Nothing);
        }
        let number = self.try_open_known(index, path, facts.key, Place::Gone { replaced: true })?;
        self.tell_missed(index, missed);
        self.begins_at(number, home);
        Ok(Found::Followed(number))
    }

    /// A compressed one is a stream before it is unpacked, so that it is not forgotten if the process ends before that.
    fn take_packed(&mut self, index: usize, missed: &Missed, head: Head) -> Found {
        let Missed { path, facts, .. } = missed;
        let name = self.sources[index].settings.name.clone();
        let is_alike = self.ledger.with_head(&name, head).next().is_some()
            || self.ledger.past_files().with_head(&name, head).next().is_some();
        if is_alike {
            // Whether it is a copy, or has the rest of one that is gone, is told when it is unpacked.
            self.missed_packed.insert(facts.key);
            self.ledger.owe(Owed::new(&name, facts.key, path, facts.look()));
            self.unpack_missed(index, missed);
            return Found::Unpacking;
        }
        let Some(stream) = self.meet(index, path, facts.key, head, 0) else { return Found::Nothing };
        self.tell_missed(index, missed);
        if let Some(number) = self.tracker.find(facts.key)
            && let Some(file) = self.files.get_mut(&number)
        {
            file.cutter = Cutter::new(0);
            self.is_read_as(number, stream);
        }
        self.unpack_missed(index, missed);
        Found::Unpacking
    }

    /// It may have been unpacked already, to look for what another one lacks.
    fn unpack_missed(&mut self, index: usize, missed: &Missed) {
        let Missed { path, facts, .. } = missed;
        if let Some(number) = self.tracker.find(facts.key) {
            self.queue(number);
            return;
        }
        if matches!(self.packed.get(&facts.key), Some(Packed::Known(_))) {
            self.packed.remove(&facts.key);
        }
        self.is_packed(index, path, facts.key, facts.look());
    }

    fn tell_missed(&self, index: usize, missed: &Missed) {
        let (path, source) = (missed.path.display(), &self.sources[index].settings.name);
        info!(%path, source, bytes = missed.facts.size, "a file that had the source's path while no tailer ran is read");
    }

    /// Says so, once as long as it stays as it is: the state remembers it.
    pub(super) fn not_shipped(&mut self, index: usize, path: &Path, facts: &Facts, why: &str) {
        if !self.ledger.tell_missed(facts.key, facts.look()) {
            return;
        }
        let bytes = facts.size;
        counter!("logferry_tailer_missed_files_total").increment(1);
        let source = &self.sources[index].settings.name;
        warn!(
            path = %path.display(), source, bytes, why,
            "a file that had the source's path while no tailer ran is not shipped: if its lines are missing, ship it with \
             `logferry-tailer --stdin --source NAME --to HOST:PORT < FILE`, under a NAME of its own"
        );
    }

    /// A file that is not where it was has bytes of its own, which were written at this path: they are a stream from now on, so that another
    /// restart finds them, too, and what was written there afterwards waits for them.
    pub(super) fn begins_at(&mut self, number: FileNumber, home: &Path) {
        self.tracker.settled(number, home.to_owned());
        let Ok((bytes, filled)) = self.head_bytes(number) else { return };
        let Some(head) = Head::complete(&bytes[..filled]) else { return };
        if self.files.get(&number).is_some_and(|file| file.stream.is_none()) {
            self.begin_stream(number, home, head, 0);
        }
    }
}

/// `app.log.1`, `app.log-20261121` and `app-20261121.log` may be what `app.log` was renamed to: beside its name there are numbers only.
pub(super) fn is_rotated_from(path: &Path, live: &Path) -> bool {
    let (Some(name), Some(live_name)) = (text_of(path.file_name()), text_of(live.file_name())) else {
        return false;
    };
    let (stem, ending) = parts_of(live_name);
    let inside = || name.strip_prefix(stem)?.strip_suffix(ending)?.strip_suffix('.');
    let added = name.strip_prefix(live_name).or_else(inside).unwrap_or_default();
    let is_separated = added.starts_with(['.', '-', '_']);
    is_separated
        && added.contains(|letter: char| letter.is_ascii_digit())
        && added.chars().all(|letter| letter.is_ascii_digit() || ".-_".contains(letter))
}

/// The youngest file that was read at a path, other than the one that is there now. Where birth times are not kept, none is known to be.
fn last_read_of(
    keys: &[FileKey],
    before: Option<(FileKey, StreamId)>,
    now: Option<FileKey>,
) -> Option<FileKey> {
    // A stream may go on in a copy by now.
    let keys = keys.iter().copied().chain(before.map(|(key, _)| key));
    keys.filter(|key| key.born_ns > 0 && Some(*key) != now).max_by_key(|key| key.born_ns)
}

/// A name without its ending, and that.
fn parts_of(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}

fn text_of(name: Option<&std::ffi::OsStr>) -> Option<&str> {
    name.and_then(std::ffi::OsStr::to_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_has_the_name_of_the_log_and_numbers() {
        let is = |name: &str| is_rotated_from(&Path::new("/log").join(name), Path::new("/log/app.log"));
        assert!(
            is("app.log.1")
                && is("app.log-20261121")
                && is("app-2026-11-21.log")
                && is("app.log.2026-11-21_07")
        );
        for other in [
            "app.log",
            "app.log.gz",
            "app.log.1.gz",
            "app-worker.log",
            "app.log.bak",
            "app1.log",
            "db.log.1",
            "app.log.",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
