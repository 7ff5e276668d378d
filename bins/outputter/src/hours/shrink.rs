//! What goes when the books outgrow their memory.

use super::book::HourBook;
use super::books::{Books, memory_of};
use super::fact::HourKey;
use std::collections::BTreeSet;

/// When the books are over their memory, they shrink to this part of it (in hundredths): shrinking looks at all hours.
const SHRINK_TO_PERCENT: usize = 90;

/// What had to go because the books outgrew their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Squeezed {
    /// Hours that were not complete.
    pub incomplete: Vec<HourKey>,
    /// Hours of which a mark or a hook was due.
    pub untold: Vec<HourKey>,
    /// Others.
    pub complete: Vec<HourKey>,
}

impl Books {
    /// Forgets what is least needed while the books take more than `bytes_max`, hours that were quiet for longest first: complete hours, then
    /// of those that have work left all that it does not need, then those whose files are to be finished, which the disk tells, too, then hours
    /// that are not complete, and those with other work last.
    pub fn shrink(&mut self, bytes_max: usize) -> Squeezed {
        let mut squeezed = Squeezed::default();
        if self.memory_bytes <= bytes_max {
            return squeezed;
        }
        let target = bytes_max / 100 * SHRINK_TO_PERCENT;
        let (to_be_finished, changed) = (self.to_be_finished(), self.changed.clone());
        // Of one that has just changed a mark of its day may be due.
        let has_work = |key: &HourKey, book: &HourBook| book.has_work() || changed.contains(key);
        let is_needed = |key: &HourKey, book: &HourBook| has_work(key, book) || to_be_finished.contains(key);
        let mut complete =
            self.forget_oldest(target, |key, book| book.is_complete() && !is_needed(key, book)).1;
        self.slim_oldest(target, is_needed);
        let known = self.hours.len();
        complete.extend(self.forget_oldest(target, |key, book| book.is_complete() && !has_work(key, book)).1);
        self.has_overlooked |= self.hours.len() < known;
        squeezed.incomplete = self.forget_oldest(target, |key, book| !has_work(key, book)).0;
        let (incomplete, mut untold) = self.forget_oldest(target, has_work);
        untold.extend(incomplete);
        Squeezed { untold, complete, ..squeezed }
    }

    /// Hours that a condition holds for, those that were quiet for longest first.
    fn oldest(&self, is_meant: impl Fn(&HourKey, &HourBook) -> bool) -> Vec<HourKey> {
        let meant = self.hours.iter().filter(|(key, book)| is_meant(key, book));
        let mut by_age: Vec<_> = meant.map(|(key, book)| (book.sum().last_ms, key)).collect();
        by_age.sort_unstable();
        by_age.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// Forgets the oldest of these hours until the books take no more than `target`. Gives those that were not whole, and the others.
    fn forget_oldest(
        &mut self,
        target: usize,
        is_meant: impl Fn(&HourKey, &HourBook) -> bool,
    ) -> (Vec<HourKey>, Vec<HourKey>) {
        if self.memory_bytes <= target {
            return Default::default();
        }
        let (mut bytes, mut keys) = (self.memory_bytes, self.oldest(is_meant));
        keys.retain(|key| {
            let is_needed = bytes > target;
            bytes = bytes.saturating_sub(self.hours.get(key).map_or(0, |book| memory_of(key, book)));
            is_needed
        });
        let incomplete: BTreeSet<HourKey> = self.forget(keys.clone()).into_iter().collect();
        keys.retain(|key| !incomplete.contains(key));
        (incomplete.into_iter().collect(), keys)
    }

    fn slim_oldest(&mut self, target: usize, is_meant: impl Fn(&HourKey, &HourBook) -> bool) {
        if self.memory_bytes <= target {
            return;
        }
        for key in self.oldest(is_meant) {
            if self.memory_bytes <= target {
                return;
            }
            let Some(book) = self.hours.get_mut(&key) else { continue };
            let before = memory_of(&key, book);
            book.slim();
            self.memory_bytes = (self.memory_bytes + memory_of(&key, book)).saturating_sub(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::Fact;
    use super::super::finishable::Finishing;
    use super::super::hooks::Extent;
    use super::*;
    use logferry_pack::{HourRange, PackIdentity, StreamId};

    const STREAMS: u64 = 40;

    fn key(number: u32) -> HourKey {
        HourKey {
            source: "access".into(),
            host: format!("web-{number}"),
            hour: 2026112100.try_into().unwrap(),
        }
    }

    /// Packs of an hour of many streams, whose done pack tells of them.
    fn hour(number: u32) -> Vec<Fact> {
        let stream = |id: u64| StreamId(u128::from(number) << 32 | u128::from(id));
        let pack = |id: u64, span: u64| {
            let identity = PackIdentity { stream: stream(id.min(STREAMS)), offset: 10 - span, span, sum: 0 };
            Fact {
                at_ms: i64::from(number) + 1,
                range: Some((identity, 0)),
                ..Fact::of_a_test(key(number), id, span == 0)
            }
        };
        let told = (1..=STREAMS).map(|id| HourRange { stream: stream(id), from: 0, to: 10 }).collect();
        let done = Fact { hour_ranges: Some(told), ..pack(STREAMS + 1, 0) };
        (1..=STREAMS).map(|id| pack(id, 10)).chain([done]).collect()
    }

    /// Complete hours, the hooks of the first ones due.
    fn books(hours: u32, due: u32) -> Books {
        let mut books = Books::default();
        for number in 0..hours {
            books.count(&format!("file-{number}"), &hour(number), 1);
            let key = key(number);
            let lines = books.hour(&key).map(|book| book.sum().lines);
            books.marked(&key, lines);
            let extent = books.hour(&key).and_then(HourBook::extent).expect("complete");
            if number >= due {
                books.hours.get_mut(&key).expect("there").hooked = [extent; 3];
            }
        }
        // They are settled.
        books.take_changed();
        books
    }

    #[test]
    fn hours_with_hooks_due_are_kept_without_what_the_hooks_do_not_need() {
        let mut books = books(40, 20);
        let (before, extents) = (books.memory_bytes(), extents(&books));
        let squeezed = books.shrink(before / 4);
        assert_eq!((squeezed.complete.len(), squeezed.incomplete, squeezed.untold), (20, vec![], vec![]));
        assert!(books.memory_bytes() <= before / 4);
        assert_eq!(extents_of(&books, 20), extents[..20], "they are as complete as before");
        assert_eq!(books.hours().count(), 20);
        let memory: usize = books.hours().map(|(key, book)| memory_of(key, book)).sum();
        assert_eq!(books.memory_bytes(), memory);
        // Lines that come late still count.
        let late = Fact { range: None, ..Fact::of_a_test(key(0), STREAMS + 2, true) };
        books.count("file-0", std::slice::from_ref(&late), 2);
        assert_eq!(books.hour(&key(0)).and_then(HourBook::whole_lines), Some(10 * (STREAMS + 2)));
        // But what its file says of it is to be read again: they may have numbers that others had.
        assert_eq!(books.take_slim(), BTreeSet::from([key(0)]));
        let read = |facts: &[Fact]| {
            let mut read = HourBook::default();
            facts.iter().for_each(|fact| read.add("file-0", fact));
            read
        };
        books.recounted(&key(0), read(std::slice::from_ref(&late)));
        let lines = books.hour(&key(0)).and_then(HourBook::whole_lines);
        assert_eq!(lines, Some(10 * (STREAMS + 2)), "a file that begins anew takes nothing away");
        let all = [hour(0), vec![late]].concat();
        books.recounted(&key(0), read(&all));
        assert_eq!(books.hour(&key(0)).map(|book| &book.parts), Some(&read(&all).parts));
        let memory: usize = books.hours().map(|(key, book)| memory_of(key, book)).sum();
        assert_eq!((books.memory_bytes(), books.counted("file-0")), (memory, Some(2)));
        books.count("file-0", &[], 3);
        assert_eq!(books.take_slim(), BTreeSet::new());
    }

    #[test]
    fn an_hour_whose_numbers_have_holes_that_a_repull_filled_stays_whole_when_it_is_slim() {
        let mut book = HourBook::default();
        for fact in hour(0) {
            let is_numbered = fact.id != 3;
            book.add("a", &Fact { is_numbered, ..fact });
        }
        let lines = book.whole_lines();
        assert!(lines.is_some());
        book.slim();
        assert_eq!((book.whole_lines(), book.sum().total), (lines, STREAMS + 1));
    }

    #[test]
    fn hours_whose_files_are_to_be_finished_are_forgotten_behind_other_complete_ones_and_before_others() {
        let mut books = books(40, 0);
        books.expect_finisher(Finishing::InPlace);
        (20..40).for_each(|number| books.finished(&format!("file-{number}"), 1));
        let before = books.memory_bytes();
        books.shrink(before * 6 / 10);
        assert!((0..20).all(|number| books.hour(&key(number)).is_some()));
        assert!(!books.take_overlooked() && books.hours().count() < 40);
        let mut open = hour(50);
        open.pop();
        books.count("open", &open, 1);
        books.take_changed();
        assert_eq!(books.shrink(before / 20).incomplete, []);
        assert!(books.take_overlooked() && books.hours().count() > 1, "who finishes files has to look");
        assert!(books.hour(&key(0)).is_none(), "that which was quiet for longest");
        assert!(books.hour(&key(50)).is_some(), "nobody else knows what is missing of it");
        assert_eq!(books.shrink(before / 100).incomplete, [key(50)]);
        assert_eq!(books.hours().count(), 0);
    }

    #[test]
    fn hooks_that_have_to_be_forgotten_are_told_after_hours_that_are_not_complete() {
        let mut books = books(10, 10);
        let mut open = hour(50);
        open.pop();
        books.count("open", &open, 1);
        books.take_changed();
        let squeezed = books.shrink(books.memory_bytes() / 40);
        assert_eq!(squeezed.incomplete, [key(50)]);
        assert!(!squeezed.untold.is_empty() && squeezed.untold.len() < 10, "{:?}", squeezed.untold);
        assert_eq!(squeezed.untold[0], key(0), "those that were quiet for longest");
    }

    #[test]
    fn an_hour_that_is_not_settled_yet_is_forgotten_after_those_that_are() {
        let mut books = books(10, 0);
        books.touch(key(0));
        books.shrink(books.memory_bytes() / 2);
        assert!(books.hour(&key(0)).is_some() && books.hour(&key(1)).is_none(), "its day may get a mark");
    }

    fn extents_of(books: &Books, hours: u32) -> Vec<Option<Extent>> {
        (0..hours).map(|number| books.hour(&key(number)).and_then(HourBook::extent)).collect()
    }

    fn extents(books: &Books) -> Vec<Option<Extent>> {
        extents_of(books, 40)
    }
}
