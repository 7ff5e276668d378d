//! The keeper's part in finding marks of hours that the books have forgotten.
//!
//! An hour that is just new has none, and nothing is looked for. One that may have been known before waits until the names of its folder were
//! read: once for all that wait, and the next time the later the more names there are. Nothing of that is kept in memory.

use super::book::HourBook;
use super::books::Books;
use super::catch_up::{self, Said};
use super::fact::{Fact, HourKey};
use super::keeper::{Keeper, RETRY_MS, lock};
use super::mailbox::News;
use super::other_files::FilesOf;
use metrics::counter;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Where problems of marks are shown.
pub(super) const MARKS: &str = "received/";
/// So many names are read each millisecond, on average.
const NAMES_PER_MS: usize = 50;
const HOUR_MS: i64 = 3_600_000;

/// Which marks are to be looked for, and when.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// Hours with which nothing is done before their marks are found; whether their files were read from the beginning.
    waiting: BTreeMap<HourKey, bool>,
    /// Hours that were looked up since: the day of one whose packs are missing has no mark.
    pub(super) fresh: BTreeSet<HourKey>,
    /// Hours that wait of which the books know a part, and their files all.
    known_in_part: BTreeSet<HourKey>,
    next_ms: i64,
    /// Hours whose other files were looked for.
    asked_for: BTreeSet<HourKey>,
    /// The last try failed.
    pub(super) is_failing: bool,
}

impl Lookup {
    /// All hours that are known are looked up.
    pub(super) fn all(&mut self, books: &Books) {
        for (key, _) in books.hours() {
            self.waiting.entry(key.clone()).or_insert(true);
        }
    }

    /// Hours were forgotten.
    pub(super) fn forget(&mut self, is_known: impl Fn(&HourKey) -> bool) {
        self.asked_for.retain(&is_known);
        self.known_in_part.retain(is_known);
    }

    /// Whether an hour waits for its marks to be found.
    pub(super) fn waits_for(&self, key: &HourKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// Whether any hour waits.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether names may be read now.
    pub(super) fn is_free(&self, now_ms: i64) -> bool {
        now_ms >= self.next_ms
    }

    /// So many names were read.
    pub(super) fn took(&mut self, names: usize, now_ms: i64) {
        self.is_failing = false;
        self.next_ms = now_ms.saturating_add(i64::try_from(names / NAMES_PER_MS).unwrap_or(i64::MAX));
    }

    /// It failed, and is tried again later.
    pub(super) fn failed(&mut self, now_ms: i64) {
        self.is_failing = true;
        self.next_ms = now_ms.saturating_add(RETRY_MS);
    }
}

impl Keeper {
    /// Hours are known anew; `is_again`: a file that is not new was read from its beginning.
    pub(super) fn note_anew(&mut self, is_again: bool, now_ms: i64) {
        let (anew, slim) = {
            let mut books = lock(&self.books);
            (books.take_anew(), books.take_slim())
        };
        for key in anew {
            if is_again || self.may_have_been_known(&key, now_ms) {
                *self.lookup.waiting.entry(key).or_default() |= is_again;
            }
        }
        for key in slim {
            self.lookup.waiting.entry(key.clone()).or_default();
            self.lookup.known_in_part.insert(key);
        }
    }

    /// Whether an hour may have been forgotten. One that is just new is younger than what is forgotten for its age, and the last one of its host.
    fn may_have_been_known(&self, key: &HourKey, now_ms: i64) -> bool {
        self.may_be_squeezed(key) || self.is_old(key, now_ms) || lock(&self.books).has_later(key)
    }

    /// Whether an hour may have been forgotten because the books had outgrown their memory. Its file may be known for the sake of others.
    fn may_be_squeezed(&self, key: &HourKey) -> bool {
        let squeezed_to_ms = lock(&self.books).squeezed_to_ms;
        squeezed_to_ms.is_some_and(|to_ms| self.begin_ms(key) <= to_ms)
    }

    pub(super) fn begin_ms(&self, key: &HourKey) -> i64 {
        self.calendar.end_ms(&key.host, key.hour).saturating_sub(HOUR_MS)
    }

    fn is_old(&self, key: &HourKey, now_ms: i64) -> bool {
        self.begin_ms(key) <= now_ms.saturating_sub(self.options.keep_ms)
    }

    /// Finds the marks of the hours that wait for that, if it is time.
    pub(super) fn look_for_marks(&mut self, now_ms: i64) {
        if self.lookup.waiting.is_empty() || !self.lookup.is_free(now_ms) {
            return;
        }
        let waiting = std::mem::take(&mut self.lookup.waiting);
        // Of half an hour nobody can say what its marks should be.
        let (half_read, waiting): (BTreeMap<_, _>, BTreeMap<_, _>) =
            waiting.into_iter().partition(|(key, _)| self.is_half_read(key));
        self.lookup.waiting = half_read;
        if waiting.is_empty() {
            return;
        }
        let found = match self.places.marks.look(waiting.keys()) {
            Ok(found) => found,
            Err(error) => {
                self.look_failed(&error, now_ms);
                self.lookup.waiting.extend(waiting.clone());
                return;
            }
        };
        self.lookup.took(found.names, now_ms);
        let mut in_part = BTreeSet::new();
        for (key, is_read) in &waiting {
            let lines = found.lines.get(key).map_or(&[][..], Vec::as_slice);
            match self.found(key, lines, *is_read, now_ms) {
                Ok(()) if self.may_have_other_files(key) => drop(in_part.insert(key.clone())),
                Ok(()) => self.is_looked_up(key),
                Err(error) => {
                    self.look_failed(&error, now_ms);
                    self.lookup.waiting.insert(key.clone(), *is_read);
                }
            }
        }
        self.count_other_files(in_part, now_ms);
    }

    fn is_looked_up(&mut self, key: &HourKey) {
        self.lookup.fresh.insert(key.clone());
        lock(&self.books).touch(key.clone());
    }

    /// Whether an hour is not whole by the files that are known, and others can be looked for.
    fn may_have_other_files(&self, key: &HourKey) -> bool {
        let is_in_part = || lock(&self.books).hour(key).is_some_and(|book| book.whole_lines().is_none());
        self.files_of.is_some() && !self.lookup.asked_for.contains(key) && is_in_part()
    }

    /// Counts what other files have of hours of which perhaps only a part is known. Their marks are looked at once more then.
    fn count_other_files(&mut self, keys: BTreeSet<HourKey>, now_ms: i64) {
        let asked = |files_of: &FilesOf| if keys.is_empty() { None } else { Some(files_of(&keys)) };
        let Some(found) = self.files_of.as_ref().and_then(asked) else { return };
        self.lookup.waiting.extend(keys.iter().map(|key| (key.clone(), true)));
        let Some(found) = found else { return self.lookup.failed(now_ms) };
        let unknown = |(path, _): &(String, u64)| lock(&self.books).counted(path).is_none();
        let files: BTreeSet<(String, u64)> = found.into_values().flatten().filter(unknown).collect();
        for (path, to) in files {
            self.count_news(News::to_be_read(path, to), now_ms);
        }
        self.note_anew(true, now_ms);
        self.lookup.asked_for.extend(keys);
    }

    pub(super) fn look_failed(&mut self, error: &io::Error, now_ms: i64) {
        self.figures.set_file_problem(MARKS, error);
        counter!("logferry_outputter_hour_mark_failures_total").increment(1);
        self.lookup.failed(now_ms);
    }

    /// An hour has marks that tell so many lines: one of them stays.
    fn found(&mut self, key: &HourKey, lines: &[u64], is_read: bool, now_ms: i64) -> io::Result<()> {
        let was_known = || !lines.is_empty() || self.is_old(key, now_ms) || self.may_be_squeezed(key);
        let is_recounted = self.lookup.known_in_part.contains(key) || (!is_read && was_known());
        let mut once = BTreeMap::new();
        if is_recounted {
            let recounted = self.recount(key, lines, now_ms)?;
            lock(&self.books).recounted(key, recounted.book);
            self.lookup.known_in_part.remove(key);
            once = recounted.once;
        }
        let (known, whole, is_sure) = {
            let books = lock(&self.books);
            let book = books.hour(key);
            let is_sure = book.is_some_and(|book| book.marked.is_some() && !book.may_have_other_files());
            (book.and_then(|book| book.marked), book.and_then(HourBook::whole_lines), is_sure)
        };
        let is_there = |told: &u64| lines.contains(told);
        let kept = whole.filter(is_there).or(known.filter(is_there)).or(lines.iter().max().copied());
        for other in lines.iter().filter(|other| Some(**other) != kept) {
            self.places.marks.remove_hour(key, *other)?;
        }
        let is_to_be_proved = kept.is_some() && whole != kept && !(is_sure && kept == known);
        if is_to_be_proved && !is_recounted {
            once = self.recount(key, lines, now_ms)?.once;
        }
        let mut books = lock(&self.books);
        books.marked(key, kept);
        if let Some(packs) = kept.and_then(|kept| once.get(&kept)) {
            books.mark_was_true(key, *packs);
        }
        Ok(())
    }

    /// Whether a file that has a part of the hour could not be read to its end.
    pub(super) fn is_half_read(&self, key: &HourKey) -> bool {
        let books = lock(&self.books);
        let mut paths = books.hour(key).into_iter().flat_map(|book| book.parts.keys());
        !self.unread.is_empty() && paths.any(|path| self.unread.contains_key(path))
    }

    /// Counts what the files that are known have of an hour, and looks which marks, that tell so many lines, were true on the way.
    fn recount(&self, key: &HourKey, marks: &[u64], now_ms: i64) -> io::Result<Recounted> {
        let files: Vec<(String, u64)> = {
            let books = lock(&self.books);
            let mut parts: Vec<_> = books.hour(key).into_iter().flat_map(|book| &book.parts).collect();
            // A mark is of what came first.
            parts.sort_by_key(|(_, part)| part.first_ms);
            parts.into_iter().filter_map(|(path, _)| Some((path.clone(), books.counted(path)?))).collect()
        };
        let mut recounted = Recounted::default();
        for (path, to) in files {
            let file = match self.places.disk.open(&self.places.headers.join(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            catch_up::read(&*file, (0, to), self.calendar.own_zone(), now_ms, |said| match said {
                Said::Packs(facts, _) => {
                    facts
                        .iter()
                        .filter(|fact| fact.key == *key)
                        .for_each(|fact| recounted.add(&path, fact, marks));
                }
                Said::Replaced => {
                    recounted.book.rebuilt(&path);
                }
            })?;
        }
        Ok(recounted)
    }
}

/// An hour as files have it.
#[derive(Default)]
struct Recounted {
    book: HourBook,
    /// By the lines of marks that were true once, the packs that there were then.
    once: BTreeMap<u64, u64>,
}

impl Recounted {
    fn add(&mut self, path: &str, fact: &Fact, marks: &[u64]) {
        self.book.add(path, fact);
        let lines = self.book.parts.values().fold(0_u64, |lines, part| lines.saturating_add(part.lines));
        if marks.contains(&lines) && self.book.whole_lines().is_some() {
            self.once.insert(lines, self.book.sum().total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::Standing;
    use super::*;

    fn fact(id: u64, is_done: bool) -> Fact {
        let hour = 2026112100.try_into().unwrap();
        Fact::of_a_test(HourKey { source: "access".into(), host: "web-1".into(), hour }, id, is_done)
    }

    #[test]
    fn a_mark_stays_while_files_that_it_may_be_of_are_not_known() {
        let key = fact(1, false).key;
        let of_late_lines = |is_proved: bool| {
            let mut books = Books::default();
            books.count("b", &[fact(3, false), fact(4, true)], 10);
            books.marked(&key, Some(20));
            if is_proved {
                books.mark_was_true(&key, 2);
            }
            books
        };
        let books = of_late_lines(false);
        assert_eq!(books.hour(&key).unwrap().standing(), Standing::Late);
        assert!(books.mark_work(&key).is_none() && books.hour(&key).unwrap().extent().is_none());
        let books = of_late_lines(true);
        assert_eq!(books.hour(&key).unwrap().standing(), Standing::Missing);
        assert_eq!(books.mark_work(&key).unwrap().lines, None);
    }

    #[test]
    fn a_file_proves_the_marks_that_were_true_before_something_came_late() {
        let read = |facts: &[Fact]| {
            let mut read = Recounted::default();
            facts.iter().for_each(|fact| read.add("a", fact, &[20, 30]));
            read.once
        };
        assert_eq!(read(&[fact(1, false), fact(2, true), fact(4, false)]), BTreeMap::from([(20, 2)]));
        assert_eq!(read(&[fact(3, false), fact(4, true)]), BTreeMap::new());
    }
}
