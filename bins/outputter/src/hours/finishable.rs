//! Which log files are to be finished: only those are looked at with which something may have to be done.

use super::book::HourBook;
use super::books::Books;
use super::fact::HourKey;
use std::collections::BTreeMap;

impl Books {
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
