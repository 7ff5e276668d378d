//! Files that had a plain path while no tailer ran, and are not there any more. No path of the source leads to them, but the folder shows what
//! they are: named after the log, and made between the file that was read last and the one that is there now, or, where files are copied and
//! truncated, since the state was written last.

use super::Follower;
use crate::files::{self, Facts};
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::tracker::{FileNumber, Place};
use logferry_pack::StreamId;
use metrics::counter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// A file that was missed.
struct Missed {
    /// Time of its last change, in nanoseconds since 1970: what had the path first was changed first, renamed or copied.
    changed_ns: i64,
    path: PathBuf,
    bytes: u64,
    /// Younger than the file that has the path now.
    is_younger: bool,
}

impl Follower {
    /// Finds such files of all sources and has them read, between those that were there before and after them.
    pub(super) fn find_missed(&mut self) {
        for index in 0..self.sources.len() {
            let source = &self.sources[index];
            let is_plain = !files::is_glob(source.paths.named().glob()) && !source.paths.has_times();
            if is_plain && source.shelf.is_none() {
                self.find_missed_of(index);
            }
        }
    }

    fn find_missed_of(&mut self, index: usize) {
        let home = PathBuf::from(&self.sources[index].settings.path);
        let now_there = files::facts_at(&home).ok();
        let now_key = now_there.map(|facts| facts.key);
        let before = self.homes_before.get(&home).copied();
        let last_read = self.last_read_at(index, &home, before, now_key);
        let stopped_ns = self
            .stopped_ns
            .filter(|_| self.sources[index].was_started && self.has_other_content(now_key, before));
        let is_younger = |facts: &Facts| now_key.is_some_and(|now| facts.key.born_ns >= now.born_ns);
        let is_missed = |facts: &Facts| {
            let born = facts.key.born_ns;
            let is_between = last_read.is_some_and(|last| born > last.born_ns) && !is_younger(facts);
            facts.is_file
                && facts.size > 0
                && (is_between || stopped_ns.is_some_and(|stopped| born >= stopped))
        };
        let Ok(entries) = std::fs::read_dir(files::folder_of(&home)) else { return };
        let paths = entries.flatten().map(|entry| entry.path()).filter(|path| is_rotated_from(path, &home));
        let found: Vec<Missed> = paths
            .filter_map(|path| Some((files::facts_at(&path).ok().filter(is_missed)?, path)))
            .filter(|(facts, path)| !self.is_known_file(facts.key) && !self.is_of_another(index, path))
            .map(|(facts, path)| {
                let is_younger = is_younger(&facts);
                Missed { changed_ns: facts.changed_ns, path, bytes: facts.size, is_younger }
            })
            .collect();
        let mut read = Vec::new();
        for missed in &found {
            let number = self.read_missed(index, &home, missed);
            read.extend(number.map(|number| (missed.changed_ns, &missed.path, number)));
        }
        if read.is_empty() {
            return;
        }
        read.sort();
        let read: Vec<FileNumber> = read.into_iter().map(|(.., number)| number).collect();
        // Each goes to the front of the queue: the first one must get there last.
        read.iter().rev().for_each(|number| self.queue(*number));
        self.put_between(&read, last_read, before, now_key);
    }

    /// The file that was read last goes first, in its copy if it has one, then those that were missed, and the one that is there now.
    fn put_between(
        &mut self,
        missed: &[FileNumber],
        last_read: Option<FileKey>,
        before: Option<(FileKey, StreamId)>,
        now: Option<FileKey>,
    ) {
        let in_copy = before.and_then(|(_, stream)| self.by_stream.get(&stream).copied());
        let last_read = last_read.and_then(|key| self.tracker.find(key));
        let now = now.and_then(|key| self.tracker.find(key));
        let mut rest = missed.to_vec();
        if let Some(last_read) = last_read.filter(|number| Some(*number) != in_copy) {
            // It was copied, cut and filled again, before some of the others or after them.
            let changed_ns = |number: &FileNumber| {
                let file = self.files.get(number);
                file.and_then(|file| files::facts_at(&file.path).ok()).map(|facts| facts.changed_ns)
            };
            let last_changed = changed_ns(&last_read);
            let place = rest.iter().take_while(|number| changed_ns(number) < last_changed).count();
            rest.insert(place, last_read);
        }
        let mut order: Vec<FileNumber> = in_copy.into_iter().filter(|number| Some(*number) != now).collect();
        order.extend(rest.into_iter().chain(now));
        if let Some(first) = order.first().and_then(|number| self.files.get_mut(number)) {
            first.predecessor = first.predecessor.filter(|number| !order.contains(number));
        }
        order.windows(2).for_each(|pair| self.goes_before(pair[0], pair[1]));
    }

    /// The youngest file that was read at a path, other than the one that is there now. Where birth times are not kept, none is known to be.
    fn last_read_at(
        &self,
        index: usize,
        home: &Path,
        before: Option<(FileKey, StreamId)>,
        now: Option<FileKey>,
    ) -> Option<FileKey> {
        let name = &self.sources[index].settings.name;
        let streams = self.ledger.streams().filter(|stream| stream.met.source == *name);
        let streams = streams.filter(|stream| stream.met.home() == home).map(|stream| stream.met.key);
        let past = self.ledger.past_files().of(name).filter(|file| file.path == home.as_os_str().as_bytes());
        let past = past.flat_map(|file| file.keys.iter().copied());
        // A stream may go on in a copy by now.
        let before = before.map(|(key, _)| key);
        let keys = streams.chain(past).chain(before);
        keys.filter(|key| key.born_ns > 0 && Some(*key) != now).max_by_key(|key| key.born_ns)
    }

    /// Whether what a path had when the state was written last is not what it has now: another file is there, or it was cut.
    fn has_other_content(&self, now: Option<FileKey>, before: Option<(FileKey, StreamId)>) -> bool {
        let (Some(now), Some((key, stream))) = (now, before) else { return true };
        let is_still =
            || self.tracker.find(now).is_none_or(|number| self.is_still(number, stream).unwrap_or(true));
        now != key || self.ledger.current(now) != Some(stream) || !is_still()
    }

    fn is_known_file(&self, key: FileKey) -> bool {
        self.tracker.find(key).is_some()
            || self.ledger.current(key).is_some()
            || self.ledger.past_files().has_anywhere(key)
    }

    fn is_of_another(&self, index: usize, path: &Path) -> bool {
        self.sources.iter().enumerate().any(|(other, source)| other != index && source.paths.covers(path))
    }

    /// Follows a file that was missed, unless it may be a copy of one that was read: nothing is shipped twice on a guess.
    fn read_missed(&mut self, index: usize, home: &Path, missed: &Missed) -> Option<FileNumber> {
        let name = self.sources[index].settings.name.clone();
        let Missed { path, bytes, is_younger, .. } = missed;
        let mut head = [0; HEAD_BYTES_MAX];
        let roots = &self.sources[index].settings.roots;
        let filled =
            files::open_below(path, roots).and_then(|file| files::read_head(&file, &mut head)).ok()?;
        let head = Head::finished(&head[..filled])?;
        let mut begin = [0; HEAD_BYTES_MAX];
        let begin_now = files::open_below(home, roots).and_then(|file| files::read_head(&file, &mut begin));
        if *is_younger && begin_now.is_ok_and(|filled| head.agrees(&begin[..filled])) {
            // A copy of what is there: should that be cut now, its stream goes on in it.
            return None;
        }
        let is_alike = self.ledger.with_head(&name, head).next().is_some()
            || self.ledger.past_files().with_head(&name, head).next().is_some();
        let followed =
            if is_alike { None } else { self.try_open(index, path, Place::Gone { replaced: true }).ok() };
        let Some(number) = followed else {
            counter!("logferry_tailer_missed_files_total").increment(1);
            warn!(
                path = %path.display(), source = name, bytes,
                "a file that had the source's path while no tailer ran is not shipped, because it begins as another one that was read: if it is \
                 no copy, ship it with `logferry-tailer --stdin --source NAME --to HOST:PORT < FILE`, under a NAME of its own"
            );
            return None;
        };
        info!(path = %path.display(), source = name, bytes, "a file that had the source's path while no tailer ran is read");
        self.begins_at(number, home);
        Some(number)
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
    let (stem, ending) = live_name.rsplit_once('.').map_or((live_name, ""), |(stem, ending)| (stem, ending));
    let inside = || name.strip_prefix(stem)?.strip_suffix(ending)?.strip_suffix('.');
    let added = name.strip_prefix(live_name).or_else(inside).unwrap_or_default();
    let is_separated = added.starts_with(['.', '-', '_']);
    is_separated
        && added.contains(|letter: char| letter.is_ascii_digit())
        && added.chars().all(|letter| letter.is_ascii_digit() || ".-_".contains(letter))
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
