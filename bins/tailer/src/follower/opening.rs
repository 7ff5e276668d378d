//! Opening what a look has found, and following it from where it was left.

use super::attach::Attached;
use super::handles::open_known;
use super::packed::Content;
use super::tally::Counted;
use super::{Followed, Follower};
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::hour::until;
use crate::identity::FileKey;
use crate::ledger::looks::FileLook;
use crate::tracker::{FileNumber, Place, Sighting};
use jiff::Timestamp;
use metrics::counter;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files of a source that are opened before others get their turn.
const OPENED_AT_ONCE: usize = 64;

impl Follower {
    /// Opens files that were found, a few at a time, and not many more than can be read soon.
    pub(super) fn open_some(&mut self, index: usize) {
        for _ in 0..OPENED_AT_ONCE {
            if self.ready.len() >= self.open_files.waiting_max() {
                return;
            }
            if self.make_room().is_err() {
                return;
            }
            let Some(sighting) = self.sources[index].to_open.pop_front() else { break };
            self.open(index, &sighting);
        }
        if self.sources[index].to_open.is_empty() {
            self.all_opened(index);
        }
    }

    fn open(&mut self, source: usize, sighting: &Sighting) {
        // It may have come between the looks: it belongs to the first source whose path leads to it.
        let earlier = self.sources[..source].iter().position(|other| other.paths.covers(&sighting.path));
        if let Some(earlier) = earlier {
            let earlier = &mut self.sources[earlier];
            (earlier.names_changed, earlier.next_look) = (true, Instant::now());
            return;
        }
        if self.tracker.find(sighting.key).is_some() || self.open_unchanged(source, sighting) {
            return;
        }
        let look = FileLook { size: sighting.size, changed_ns: sighting.changed_ns };
        let handle = match self.unpack_if(source, &sighting.path, sighting.key, look, None) {
            Content::Packed => return,
            Content::Plain(handle) => handle,
        };
        if self.sources[source].paths.wants_packed(&sighting.path) {
            return;
        }
        // It is not opened twice: it may be deleted any moment.
        match handle.and_then(|handle| self.follow_once(source, &sighting.path, handle, Place::Here)) {
            Ok(number) => {
                self.sources[source].failed.remove(&sighting.path);
                self.meet_before_its_turn(number, true);
                self.queue(number);
            }
            Err(error) if files::is_absent(&error) => {}
            Err(error) => {
                counter!("logferry_tailer_open_failures_total").increment(1);
                self.sources[source].open_failed(&sighting.path, &error);
            }
        }
    }

    /// A file that looks as it did when all of it was acknowledged is followed without being opened.
    fn open_unchanged(&mut self, source: usize, sighting: &Sighting) -> bool {
        if sighting.key.born_ns == 0 {
            // Another file may have the same number, and have been changed in the same second.
            return false;
        }
        let stream = self.ledger.current(sighting.key).and_then(|id| self.ledger.stream(id));
        let Some(stream) = stream.filter(|stream| stream.has_all_of(sighting.size, sighting.touched_ns))
        else {
            return false;
        };
        let home = stream.met.home();
        let attached = Attached { stream: Some(stream.met.stream), at: sighting.size, home: Some(home) };
        let Ok(facts) = files::facts_at(&sighting.path) else { return false };
        let is_same =
            (facts.key, facts.size, facts.touched_ns) == (sighting.key, sighting.size, sighting.touched_ns);
        if is_same {
            let number = self.follow_as_attached(source, &sighting.path, None, &facts, Place::Here, attached);
            self.caught_up(number);
        }
        is_same
    }

    /// Opens a file and follows it, if it is there still.
    ///
    /// # Errors
    /// `NotFound` if another file has its name by now.
    pub(super) fn try_open_known(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        place: Place,
    ) -> io::Result<FileNumber> {
        self.make_room()?;
        match open_known(path, key, &self.sources[source].settings.roots)? {
            Some(handle) => self.follow_once(source, path, handle, place),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Follows an open file, unless it is already followed.
    fn follow_once(
        &mut self,
        source: usize,
        path: &Path,
        handle: File,
        place: Place,
    ) -> io::Result<FileNumber> {
        let facts = files::facts_of(&handle)?;
        // One that the source's path leads to is found by the next look, however long that takes: it is not to be let go before, or it
        // would be new then.
        let place = match place {
            Place::Gone { replaced } if self.sources[source].paths.covers(path) => Place::Moved { replaced },
            _ => place,
        };
        // Between the look and the opening another file may have come there.
        match self.tracker.find(facts.key) {
            Some(known) => Ok(known),
            None => self.follow(source, path, handle, &facts, place),
        }
    }

    /// Follows an open file; `facts` are those of the file that the path leads to.
    pub(super) fn follow(
        &mut self,
        source: usize,
        path: &Path,
        handle: File,
        facts: &Facts,
        place: Place,
    ) -> io::Result<FileNumber> {
        let attached = self.attach(source, path, &handle, facts.key, facts.size)?;
        let number = self.follow_as_attached(source, path, Some(handle), facts, place, attached);
        self.opened(number);
        Ok(number)
    }

    fn follow_as_attached(
        &mut self,
        source: usize,
        path: &Path,
        handle: Option<File>,
        facts: &Facts,
        place: Place,
        attached: Attached,
    ) -> FileNumber {
        let home = attached.home.unwrap_or_else(|| path.to_owned());
        let number = self.tracker.opened(source, home.clone(), facts.key, place);
        let before = self.tracker.predecessor(source, &home, facts.key);
        let predecessor = before.or_else(|| self.input_file_before(source, path));
        let (time, is_presumed) = self.time_of_file(source, &home, path, facts);
        let is_behind_at_start = !self.searched_lost && facts.size > attached.at;
        let rank = self.sources[source].rank_of(time, facts.changed_ns, is_behind_at_start);
        let now = Instant::now();
        let readable = self.sources[source].readable(path);
        match attached.stream {
            Some(stream) => _ = self.by_stream.insert(stream, number),
            None => self.unmet.list(path, number),
        }
        if place != Place::Here {
            self.displaced.insert(number);
        }
        let copies_known = self.copies_known_at(source, path);
        let target = self.target_of(path);
        if let Some(target) = &target {
            if self.sources[source].folders.insert(files::folder_of(target)) {
                // It must be watched from now on.
                self.sources[source].next_look = now;
            }
            self.by_path.insert(target.clone(), number);
        }
        self.by_path.insert(path.to_owned(), number);
        self.files.insert(
            number,
            Followed {
                source,
                path: path.to_owned(),
                time,
                is_presumed,
                rank,
                hour_over: false,
                target,
                names: Vec::new(),
                handle,
                active: true,
                key: facts.key,
                size: facts.size.min(readable),
                unlinked: false,
                size_trusted: attached.at,
                quiet_since: if time.is_some() { quiet_since(facts.changed_ns, now) } else { now },
                place,
                predecessor,
                successor: None,
                stream: attached.stream,
                begun: None,
                cutter: Cutter::new(attached.at),
                split: None,
                end_mark: None,
                marks: VecDeque::new(),
                verified: false,
                suspicious: false,
                unlinked_since: None,
                recent: VecDeque::new(),
                compressed_at: None,
                suspect: None,
                packed: false,
                waiting_since: None,
                line_bytes: 0,
                queued: false,
                looked_at: None,
                stirred: false,
                failing_since: None,
                copies_known,
                counted: Counted::default(),
            },
        );
        if let Some(before) = predecessor {
            self.successors.entry(before).or_default().push(number);
        }
        self.enter_backlog(number);
        self.tally.touch(number);
        number
    }

    /// What a path leads to over symbolic links, if it has any. Asking for a folder once is enough for a while.
    fn target_of(&mut self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name()?;
        let target = if path.is_symlink() {
            std::fs::canonicalize(path).ok()?
        } else {
            let folder = files::folder_of(path);
            if self.real_folder.0 != folder {
                self.real_folder = (folder.clone(), std::fs::canonicalize(&folder).ok()?);
            }
            self.real_folder.1.join(name)
        };
        (target != path).then_some(target)
    }
}

/// When a file last changed, as far as the clock that it was stamped by can be believed.
fn quiet_since(changed_ns: i64, now: Instant) -> Instant {
    let since = Timestamp::from_nanosecond(i128::from(changed_ns)).ok();
    let quiet = since.map_or(Duration::ZERO, |since| until(Timestamp::now(), since));
    now.checked_sub(quiet).unwrap_or(now)
}
