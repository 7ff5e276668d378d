//! Which log files are to be finished: only those are looked at with which something may have to be done.

use super::book::HourBook;
use super::books::Books;
use super::fact::HourKey;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of log files whose hours are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finishing {
    /// Nobody finishes them.
    #[default]
    Not,
    /// They are finished where they are.
    InPlace,
    /// They are compressed or moved.
    Elsewhere,
}

impl Books {
    /// Complete hours are remembered until their files are finished.
    pub fn expect_finisher(&mut self, finishing: Finishing) {
        self.has_finisher = finishing != Finishing::Not;
        // What was forgotten before is still in its log file. One that stays there tells nothing, and to read them all at each start is too much.
        self.has_overlooked = finishing == Finishing::Elsewhere;
    }

    /// Whether hours may have been forgotten before their files were finished, since the last time that this was asked.
    pub fn take_overlooked(&mut self) -> bool {
        std::mem::take(&mut self.has_overlooked)
    }

    /// Complete hours that wait for their files to be finished. Those of a file that goes on do not: it is finished when a later hour of it is
    /// complete.
    pub(super) fn to_be_finished(&self) -> BTreeSet<HourKey> {
        match self.has_finisher {
            true => self.finishable(i64::MAX).into_values().flat_map(|(_, hours)| hours).collect(),
            false => BTreeSet::new(),
        }
    }

    /// Log files all of whose hours are complete, with nothing left to do for them, and of which nothing came since `quiet_since_ms`; with
    /// the counted bytes of their header files, and the hours that changed since [`Books::finished`]. All others were complete then.
    pub fn finishable(&self, quiet_since_ms: i64) -> BTreeMap<String, (u64, Vec<HourKey>)> {
        let is_done = |book: &HourBook| {
            book.marked.is_some()
                && book.sum().last_ms <= quiet_since_ms
                && book.is_complete()
                && !book.has_work()
        };
        let mut files = BTreeMap::new();
        for (path, keys) in &self.unfinished {
            let Some(counted) = self.files.get(path) else { continue };
            let of_file =
                |key: &&HourKey| self.hours.get(*key).is_some_and(|book| book.parts.contains_key(path));
            let hours: Vec<HourKey> = keys.iter().filter(of_file).cloned().collect();
            if !hours.is_empty() && hours.iter().all(|key| self.hours.get(key).is_some_and(is_done)) {
                files.insert(path.clone(), (*counted, hours));
            }
        }
        files
    }

    /// Nothing is left to be done with a file, of whose header file so many bytes are counted, until something comes.
    pub fn finished(&mut self, path: &str, counted: u64) {
        if self.counted(path) == Some(counted) {
            self.unfinished.remove(path);
        }
    }

    /// Something came for an hour.
    pub(super) fn stir(&mut self, path: &str, key: &HourKey) {
        match self.unfinished.get_mut(path) {
            Some(hours) if hours.contains(key) => {}
            Some(hours) => drop(hours.insert(key.clone())),
            None => drop(self.unfinished.insert(path.to_owned(), [key.clone()].into())),
        }
    }

    /// An hour is forgotten.
    pub(super) fn calm(&mut self, key: &HourKey, book: &HourBook) {
        for path in book.parts.keys() {
            let Some(hours) = self.unfinished.get_mut(path) else { continue };
            hours.remove(key);
            if hours.is_empty() {
                self.unfinished.remove(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::Fact;
    use super::super::hooks::{Extent, HookKind};
    use super::super::state::Change;
    use super::*;

    fn key(hour: u32) -> HourKey {
        HourKey {
            source: "access".into(),
            host: "web-1".into(),
            hour: (2026112100 + hour).try_into().unwrap(),
        }
    }

    /// The hour is complete, and everybody told.
    fn complete(books: &mut Books, path: &str, hour: u32, id: u64, to: u64) {
        let fact = Fact { at_ms: 1, ..Fact::of_a_test(key(hour), id, true) };
        books.count(path, &[fact], to);
        let lines = books.hour(&key(hour)).unwrap().whole_lines().unwrap();
        books.marked(&key(hour), Some(lines));
        for kind in HookKind::ALL {
            let extent = Extent { packs: id, lines };
            books.apply(&Change::Hooked { key: key(hour), kind, extent });
        }
    }

    #[test]
    fn a_file_that_is_finished_is_not_looked_at_before_something_comes() {
        let mut books = Books::default();
        (0..20).for_each(|hour| complete(&mut books, &format!("f{hour}"), hour, 1, 10));
        assert_eq!((books.finishable(1).len(), books.finishable(0).len()), (20, 0));
        (0..20).for_each(|hour| books.finished(&format!("f{hour}"), 10));
        assert!(books.unfinished.is_empty() && books.finishable(1).is_empty());
        // Late lines, of which the finisher does not know yet.
        complete(&mut books, "f3", 3, 2, 20);
        books.finished("f3", 10);
        assert_eq!(books.finishable(1), BTreeMap::from([("f3".to_owned(), (20, vec![key(3)]))]));
        let open = Fact { at_ms: 1, ..Fact::of_a_test(key(4), 3, false) };
        books.count("f4", &[open], 20);
        assert_eq!((books.unfinished.len(), books.finishable(1).len()), (2, 1));
        // After a restart nobody knows what was done.
        assert_eq!(books.clone().reopened().finishable(1).len(), 19);
        books.expire(i64::MAX, 1);
        assert!(books.unfinished.is_empty());
    }

    #[test]
    fn a_complete_hour_is_known_until_its_file_is_finished() {
        let mut books = Books::default();
        books.expect_finisher(Finishing::InPlace);
        complete(&mut books, "f0", 0, 1, 10);
        complete(&mut books, "f1", 1, 1, 10);
        books.count("f2", &[Fact { at_ms: 1, ..Fact::of_a_test(key(2), 1, false) }], 10);
        books.finished("f1", 10);
        assert_eq!(books.expire(i64::MAX, 1), [key(2)]);
        assert_eq!(books.hours().map(|(known, _)| known.hour).collect::<Vec<_>>(), [key(0).hour]);
        assert!(books.finishable(1).contains_key("f0"));
        books.finished("f0", 10);
        assert_eq!((books.expire(i64::MAX, 1), books.hours().count()), (vec![], 0));
    }

    #[test]
    fn complete_hours_of_a_file_that_goes_on_are_forgotten() {
        let mut books = Books::default();
        books.expect_finisher(Finishing::InPlace);
        (0..5).for_each(|hour| complete(&mut books, "all", hour, 1, 10 + u64::from(hour)));
        books.count("all", &[Fact { at_ms: 9, ..Fact::of_a_test(key(5), 1, false) }], 20);
        assert_eq!(books.expire(10, 5), []);
        assert_eq!(books.hours().map(|(known, _)| known.hour).collect::<Vec<_>>(), [key(5).hour]);
        complete(&mut books, "all", 5, 2, 30);
        assert_eq!(books.finishable(9)["all"], (30, vec![key(5)]));
    }

    #[test]
    fn a_file_of_many_hours_waits_for_the_last_of_them() {
        let mut books = Books::default();
        complete(&mut books, "day", 0, 1, 10);
        let open = Fact { at_ms: 1, ..Fact::of_a_test(key(1), 1, false) };
        books.count("day", &[open], 20);
        assert!(books.finishable(1).is_empty());
        complete(&mut books, "day", 1, 2, 30);
        assert_eq!(books.finishable(1)["day"], (30, vec![key(0), key(1)]));
        books.finished("day", 30);
        complete(&mut books, "day", 1, 3, 40);
        assert_eq!(books.finishable(1)["day"], (40, vec![key(1)]));
        assert_eq!(books.removed("day"), [key(0), key(1)]);
        assert!(books.unfinished.is_empty());
    }
}
