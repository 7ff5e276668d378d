//! In which order files that were missed are read, beside those that had their path before and after them.

use super::Follower;
use super::listings::is_without_descriptors;
use super::missed::Missed;
use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::io;
use std::path::PathBuf;

/// What became of files that were missed at a path, over all looks.
#[derive(Default)]
pub(super) struct ReadMissed {
    /// Those that are to be read, with their numbers if they need not be unpacked first.
    found: Vec<(Missed, Option<FileNumber>)>,
    /// Those that could not be opened at the last look.
    pub(super) failed: Vec<(PathBuf, Facts, io::Error)>,
    /// What had the path at the first look.
    pub(super) now: Option<FileKey>,
}

impl ReadMissed {
    pub(super) fn add(&mut self, missed: Missed, number: Option<FileNumber>) {
        let is_same = |(known, _): &(Missed, _)| known.facts.key == missed.facts.key;
        if !self.found.iter().any(is_same) {
            self.found.push((missed, number));
        }
    }

    /// Whether there is something to read.
    pub(super) fn is_any(&self) -> bool {
        !self.found.is_empty()
    }

    pub(super) fn all_opened(&self) -> bool {
        self.failed.is_empty()
    }

    /// Whether another look may find more.
    pub(super) fn is_to_be_tried(&self) -> bool {
        self.moved() || self.without_descriptors() > 0
    }

    /// How many could not be opened because too many descriptors are open.
    pub(super) fn without_descriptors(&self) -> usize {
        self.failed.iter().filter(|(_, _, error)| is_without_descriptors(error)).count()
    }

    /// Whether some are not where they were a moment ago.
    pub(super) fn moved(&self) -> bool {
        self.failed.iter().any(|(_, _, error)| is_moved(error))
    }
}

/// Whether another file has the name by now, or none.
pub(super) fn is_moved(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Follower {
    /// The file that was read last goes first, in its copy if it has one, then those that were missed, and the one that is there now.
    pub(super) fn put_in_turn(
        &mut self,
        read: &ReadMissed,
        last_read: Option<FileKey>,
        before: Option<(FileKey, StreamId)>,
        now: Option<FileKey>,
    ) {
        if !read.is_any() {
            return;
        }
        let mut found: Vec<&(Missed, Option<FileNumber>)> = read.found.iter().collect();
        found.sort_by(|(a, _), (b, _)| a.age().cmp(&b.age()).then_with(|| a.path.cmp(&b.path)));
        // Each goes to the front of the queue: the first one must get there last.
        found.iter().rev().filter_map(|(_, number)| *number).for_each(|number| self.queue(number));
        let mut order: Vec<FileKey> = found.iter().map(|(missed, _)| missed.facts.key).collect();
        // It was copied, cut and filled again, before some of the others or after them.
        if let Some((last_read, changed_ns)) = last_read.and_then(|key| Some((key, self.changed_ns(key)?))) {
            let place = found.iter().take_while(|(missed, _)| missed.facts.changed_ns < changed_ns).count();
            order.insert(place, last_read);
        }
        order.retain(|key| Some(*key) != now);
        order.extend(now);
        if found.iter().all(|(_, number)| number.is_some()) {
            self.put_one_after_another(before, now, &order);
        } else {
            self.successions.add(before.map(|(_, stream)| stream), order);
        }
    }

    /// When a file that is followed was changed last, where it is known.
    fn changed_ns(&self, key: FileKey) -> Option<i64> {
        let file = self.files.get(&self.tracker.find(key)?)?;
        Some(files::facts_at(&file.path).ok()?.changed_ns)
    }

    fn put_one_after_another(
        &mut self,
        before: Option<(FileKey, StreamId)>,
        now: Option<FileKey>,
        keys: &[FileKey],
    ) {
        let in_copy = before.and_then(|(_, stream)| self.by_stream.get(&stream).copied());
        let now = now.and_then(|key| self.tracker.find(key));
        let mut order: Vec<FileNumber> = in_copy.into_iter().filter(|number| Some(*number) != now).collect();
        let rest = keys.iter().filter_map(|key| self.tracker.find(*key));
        order.extend(rest.filter(|number| Some(*number) != in_copy || Some(*number) == now));
        if let Some(first) = order.first().and_then(|number| self.files.get_mut(number)) {
            first.predecessor = first.predecessor.filter(|number| !order.contains(number));
        }
        order.windows(2).for_each(|pair| self.goes_before(pair[0], pair[1]));
        if let (Some((_, stream)), Some(first)) = (before, order.first()) {
            self.sought.goes_before(stream, *first);
        }
    }
}
