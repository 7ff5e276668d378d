//! Files that were copied and cut more than once between two looks: what they held in between is in copies that no path leads to and nobody
//! knows. Those that were made since the last look at the folder are read, between what was there before and what is there now.

use super::copies::names_of;
use super::listings::{is_past, now_ns};
use super::missed::{Homes, Missed};
use super::missed_order::ReadMissed;
use super::origin::is_same;
use super::source::Source;
use super::{Followed, Follower};
use crate::files;
use crate::identity::FileKey;
use crate::tracker::{FileNumber, Place};
use crate::unpack::uncompressed_path;
use logferry_pack::StreamId;
use std::io;
use std::path::Path;
use std::time::Instant;
use tracing::info;

/// Clocks that differ by less were not set.
const CLOCK_STEP_MIN_NS: i64 = 1_000_000_000;

/// Most looks at once where names are shifted all the time.
pub(super) const LOOKS_MAX: usize = 4;

/// Copies that are made of a file from now on are no older than its folder is now, unless the clock that stamps files is set back.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiesKnown {
    /// When names had changed last in its folder.
    names_changed_ns: i64,
    /// When that was asked, by a clock that nobody sets.
    asked: Instant,
}

impl CopiesKnown {
    fn none() -> CopiesKnown {
        CopiesKnown { names_changed_ns: 0, asked: Instant::now() }
    }

    /// Whether a file was made since then, by the clock as it is now; one of a time to come was made before that was set.
    fn is_new(&self, born_ns: i64, now_ns: i64) -> bool {
        let asked_ns =
            now_ns.saturating_sub(i64::try_from(self.asked.elapsed().as_nanos()).unwrap_or(i64::MAX));
        let was_set_back = asked_ns.saturating_add(CLOCK_STEP_MIN_NS) < self.names_changed_ns;
        let since_ns = if was_set_back { asked_ns } else { self.names_changed_ns };
        born_ns > since_ns && born_ns <= now_ns.saturating_add(CLOCK_STEP_MIN_NS)
    }
}

impl Follower {
    /// When names changed last in the folders where a file would be rotated, by the clock that stamps files: what is made there from now
    /// on is no older.
    pub(super) fn names_changed_ns(home: &Path) -> i64 {
        let folders = names_of(home).into_iter().map(|name| files::folder_of(&name));
        folders
            .filter_map(|folder| files::facts_at(&folder).ok())
            .map(|facts| facts.touched_ns)
            .max()
            .unwrap_or(0)
    }

    /// What is known of copies of a file that is followed from now on, if any are ever looked for.
    pub(super) fn copies_known_at(&self, source: usize, path: &Path) -> CopiesKnown {
        let Source { paths, shelf, .. } = &self.sources[source];
        if paths.has_times() || shelf.is_some() {
            return CopiesKnown::none();
        }
        let (asked, changed_ns) = (Instant::now(), Follower::names_changed_ns(path));
        // What is made within this tick of the clock has no later time.
        let names_changed_ns = if is_past(changed_ns) { changed_ns } else { changed_ns - 1 };
        CopiesKnown { names_changed_ns, asked }
    }

    /// Whether nothing was cut of a stream: its first line does not tell whether its file was cut since that was seen.
    pub(super) fn is_unread(&self, id: StreamId) -> bool {
        self.ledger.stream(id).is_some_and(|stream| stream.evidence().is_none())
    }

    /// Whether copies of a file are looked for that was copied and cut.
    fn may_have_been_cut(&self, file: &Followed) -> bool {
        let Source { paths, shelf, .. } = &self.sources[file.source];
        let is_left_alone = file.packed || file.place != Place::Here || file.key.born_ns == 0;
        let has_no_copies = paths.has_times() || shelf.is_some() || !paths.covers(&file.path);
        !is_left_alone && !has_no_copies && self.searched_lost
    }

    /// Reads such copies of a file that has no stream (any more): it was cut, or it is empty and may have been filled and cut. Whether there
    /// are any.
    ///
    /// # Errors
    /// No room to open them for now: they are found again.
    pub(super) fn find_cut_between(
        &mut self,
        number: FileNumber,
        before: Option<StreamId>,
    ) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(false) };
        // One of them may be the copy in which it goes on.
        if !self.may_have_been_cut(file) || self.waits_for_sought(number) {
            return Ok(false);
        }
        let (home, key) = (file.path.clone(), file.key);
        let stream = before.or_else(|| self.stream_before(number));
        let mut read = ReadMissed::default();
        let mut looked = self.read_cut_between(number, before, &mut read);
        for _ in 1..LOOKS_MAX {
            if looked.is_err() || !read.moved() {
                break;
            }
            looked = self.read_cut_between(number, before, &mut read);
        }
        if read.is_any() {
            self.put_in_turn(&read, None, stream.map(|id| (FileKey::NOWHERE, id)), Some(key));
            info!(path = %home.display(), "the file was copied and cut more than once since it was looked at");
        }
        looked.map(|()| read.is_any())
    }

    fn read_cut_between(
        &mut self,
        number: FileNumber,
        before: Option<StreamId>,
        read: &mut ReadMissed,
    ) -> io::Result<()> {
        let Some(file) = self.files.get(&number) else { return Ok(()) };
        let (index, home, known) = (file.source, file.path.clone(), file.copies_known);
        let (asked, changed_ns) = (Instant::now(), Follower::names_changed_ns(&home));
        if changed_ns == known.names_changed_ns && before.is_none() {
            return Ok(());
        }
        let now_ns = now_ns();
        // Of a compressed one nobody knows whether it was made of a copy, or of a file that is held open and read.
        let is_missed = |missed: &Missed| {
            known.is_new(missed.facts.key.born_ns, now_ns) && uncompressed_path(&missed.path) == missed.path
        };
        let (copies, all_listed) = self.copies_beside(&home);
        // One that is a copy of what is there is nothing new, until that is cut. It may be one if that cannot be told now.
        let may_be_copy = |missed: &Missed| self.is_copy_of_home(index, &home, missed).unwrap_or(true);
        let (waiting, missed): (Vec<Missed>, Vec<Missed>) =
            copies.into_iter().filter(is_missed).partition(may_be_copy);
        let is_any = !missed.is_empty();
        if is_any {
            self.make_room()?;
        }
        self.read_missed_since(index, &home, missed, read);
        if !read.all_opened() {
            self.make_room()?;
        }
        // What is made within this tick of the clock has no later time.
        let is_done = all_listed && waiting.is_empty() && read.all_opened() && is_past(changed_ns);
        if let Some(file) = self.files.get_mut(&number).filter(|_| is_done) {
            file.copies_known = CopiesKnown { names_changed_ns: changed_ns, asked };
        }
        Ok(())
    }

    /// The stream that a file waits for: there was no room for the copies when it was cut.
    fn stream_before(&self, number: FileNumber) -> Option<StreamId> {
        let before = self.files.get(&number)?.predecessor?;
        self.files.get(&before)?.stream
    }

    /// Files that are named after one, and that nobody knows; and whether all folders could be seen.
    fn copies_beside(&self, home: &Path) -> (Vec<Missed>, bool) {
        let homes = Homes::from([(home.to_owned(), Vec::new())]);
        let found = self.rotated_from(&homes);
        let copies = found.by_home.into_values().flatten();
        (copies.map(|(path, facts)| Missed { path, facts, is_younger: true }).collect(), found.all_listed)
    }

    /// Whether a file is a copy of what is there.
    pub(super) fn is_copy_of_home(&self, index: usize, home: &Path, missed: &Missed) -> io::Result<bool> {
        let Missed { path, facts, .. } = missed;
        let roots = &self.sources[index].settings.roots;
        let (copy, there) = (files::open_below(path, roots)?, files::open_below(home, roots)?);
        Ok(files::facts_of(&there)?.size >= facts.size && is_same(&copy, &there, facts.size)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_are_made_after_the_clock_was_set_back_are_no_older_than_what_is_known() {
        const SECOND_NS: i64 = 1_000_000_000;
        let now_ns = now_ns();
        let is_new = |known_s: i64, clock_s: i64, born_s: i64| {
            let known = CopiesKnown { names_changed_ns: now_ns + known_s * SECOND_NS, asked: Instant::now() };
            known.is_new(now_ns + born_s * SECOND_NS, now_ns + clock_s * SECOND_NS)
        };
        // The clock goes on.
        assert!(is_new(-5, 60, 1) && is_new(-5, 60, -4) && !is_new(-5, 60, -6) && !is_new(0, 60, 0));
        // It was set back by an hour: what is made now is new, what was made before is not.
        assert!(is_new(0, -3_600, -3_599) && !is_new(0, -3_600, -3_700) && !is_new(0, -3_600, -5));
        // The folder was changed long before.
        assert!(is_new(-7_200, -3_600, -3_599) && !is_new(-7_200, -3_600, -7_300));
    }
}
