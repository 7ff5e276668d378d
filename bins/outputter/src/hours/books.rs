//! All books. Pure: takes what the committer and the header files tell, and the time; no I/O, no clock.

use super::book::{HourBook, Part, Standing};
use super::calendar::Calendar;
use super::catch_up::Said;
use super::fact::{Fact, HourKey};
use super::state::Change;
use logferry_pack::Hour;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Doublings of the wait between two repulls of an hour.
const ASKED_DOUBLINGS_MAX: u32 = 6;

/// What is counted and what follows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Books {
    /// Bytes of each header file that are counted.
    pub(super) files: BTreeMap<String, u64>,
    pub(super) hours: BTreeMap<HourKey, HourBook>,
    /// Hours that changed since [`Books::take_changed`].
    #[serde(skip)]
    pub(super) changed: BTreeSet<HourKey>,
    /// Hours of which nothing was known before, since [`Books::take_anew`].
    #[serde(skip)]
    anew: Vec<HourKey>,
    #[serde(skip)]
    pub(super) memory_bytes: usize,
    /// See [`Books::take_slim`].
    #[serde(skip)]
    slim: BTreeSet<HourKey>,
    /// See [`Books::finishable`].
    #[serde(skip)]
    pub(super) unfinished: BTreeMap<String, BTreeSet<HourKey>>,
    /// Somebody finishes log files, and says so.
    #[serde(skip)]
    pub(super) has_finisher: bool,
    /// See [`Books::take_overlooked`].
    #[serde(skip)]
    pub(super) has_overlooked: bool,
    /// When they were saved, if that was told.
    #[serde(skip)]
    saved_ms: Option<i64>,
    /// When the newest hour begins that was forgotten because they had outgrown their memory, in milliseconds since 1970.
    #[serde(skip)]
    pub(super) squeezed_to_ms: Option<i64>,
}

/// What an hour's mark should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkWork {
    /// The hour.
    pub key: HourKey,
    /// Lines that the mark is to tell; `None`: there must be none.
    pub lines: Option<u64>,
    /// Lines that it told before.
    pub before: Option<u64>,
}

/// How a day stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Day {
    /// All its hours are complete.
    Whole,
    /// It goes on, or one of its hours is not complete.
    Open,
    /// It is over, and these hours are not known; all others are complete.
    Unknown(Vec<HourKey>),
}

/// An hour of which packs are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The hour.
    pub key: HourKey,
    /// Numbers of packs, as ranges without their ends.
    pub ids: Vec<(u64, u64)>,
    /// Where known: stream and its bytes, as a range without its end.
    pub ranges: Vec<(u128, u64, u64)>,
    /// Lines came late, and no done pack tells of them.
    pub is_late: bool,
    /// How often it was asked for.
    pub asked: u32,
}

impl Books {
    /// From stored files and hours.
    pub(super) fn of(files: BTreeMap<String, u64>, hours: BTreeMap<HourKey, HourBook>) -> Books {
        Books { files, hours, ..Books::default() }
    }

    /// Makes what is not stored.
    pub fn reopened(mut self) -> Books {
        self.memory_bytes = self.hours.iter().map(|(key, book)| memory_of(key, book)).sum();
        self.changed = self.hours.keys().cloned().collect();
        for (key, book) in &self.hours {
            for path in book.parts.keys() {
                self.unfinished.entry(path.clone()).or_default().insert(key.clone());
            }
        }
        self
    }

    /// When they were saved; where that was not told, when the last pack that they know was received.
    pub(super) fn saved_ms(&self) -> Option<i64> {
        self.saved_ms.or_else(|| self.hours.values().map(|book| book.sum().last_ms).max())
    }

    /// Bytes of a header file that are counted; `None`: the file is not known.
    pub fn counted(&self, path: &str) -> Option<u64> {
        self.files.get(path).copied()
    }

    /// All hours, in order.
    pub fn hours(&self) -> impl Iterator<Item = (&HourKey, &HourBook)> {
        self.hours.iter()
    }

    /// One hour.
    pub fn hour(&self, key: &HourKey) -> Option<&HourBook> {
        self.hours.get(key)
    }

    /// A header file has grown from byte `from` to byte `to`, by these packs. Returns the byte from which it is to be read instead, if
    /// the books did not know it up to `from` or the packs are not told.
    pub fn heard(&mut self, path: &str, from: u64, to: u64, facts: Option<&[Fact]>) -> Option<u64> {
        match (self.counted(path), facts) {
            (None, _) if from > 0 => return Some(0),
            // It was moved away and begins anew: what it had is still in the output.
            (Some(counted), None) if from == 0 && counted > 0 => {
                self.files.insert(path.to_owned(), 0);
                return Some(0);
            }
            (Some(counted), _) if from > counted => return Some(counted),
            // It was cut, or another one is in its place.
            (Some(counted), _) if from < counted && from > 0 => {
                self.recount(path);
                return Some(0);
            }
            (_, None) => return Some(from),
            (_, Some(facts)) => self.count(path, facts, to),
        }
        None
    }

    /// Packs of a header file, up to byte `to` of it.
    pub fn count(&mut self, path: &str, facts: &[Fact], to: u64) {
        for fact in facts {
            let before = self.hours.get(&fact.key).map_or(0, |book| memory_of(&fact.key, book));
            let book = self.hours.entry(fact.key.clone()).or_default();
            if book.parts.is_empty() {
                self.anew.push(fact.key.clone());
            }
            if book.parts.values().any(|part| part.is_slim) {
                self.slim.insert(fact.key.clone());
            }
            book.add(path, fact);
            self.memory_bytes = (self.memory_bytes + memory_of(&fact.key, book)).saturating_sub(before);
            self.changed.insert(fact.key.clone());
            self.stir(path, &fact.key);
        }
        self.files.insert(path.to_owned(), to);
    }

    /// What a header file says.
    pub fn take(&mut self, path: &str, said: &Said<'_>) {
        match said {
            Said::Packs(facts, to) => self.count(path, facts, *to),
            Said::Replaced => self.rebuilt(path),
        }
    }

    /// A file was rebuilt from its source: it is to be read again from its beginning. Which packs the hour had is still known, only
    /// what the file holds is counted anew.
    pub fn rebuilt(&mut self, path: &str) {
        self.files.remove(path);
        for (key, book) in &mut self.hours {
            if book.rebuilt(path) {
                self.changed.insert(key.clone());
            }
        }
    }

    /// What a file had is forgotten: it is to be read again from its beginning.
    pub fn recount(&mut self, path: &str) {
        self.files.remove(path);
        for (key, book) in self.hours.iter_mut().filter(|(_, book)| book.parts.contains_key(path)) {
            let before = memory_of(key, book);
            book.parts.remove(path);
            self.memory_bytes = (self.memory_bytes + memory_of(key, book)).saturating_sub(before);
            self.changed.insert(key.clone());
        }
    }

    /// Hours for which something came since the last time, and of which not all is known that their files had, to save memory: what the files
    /// say of them is to be read again.
    pub fn take_slim(&mut self) -> BTreeSet<HourKey> {
        std::mem::take(&mut self.slim)
    }

    /// Hours that changed since the last time.
    pub fn take_changed(&mut self) -> BTreeSet<HourKey> {
        std::mem::take(&mut self.changed)
    }

    /// Hours of which nothing was known before, since the last time.
    pub fn take_anew(&mut self) -> Vec<HourKey> {
        std::mem::take(&mut self.anew)
    }

    /// Whether a later hour of the same source and host is known.
    pub fn has_later(&self, key: &HourKey) -> bool {
        let later = self.hours.range::<HourKey, _>((Bound::Excluded(key), Bound::Unbounded)).next();
        later.is_some_and(|(later, _)| (&later.source, &later.host) == (&key.source, &key.host))
    }

    /// What the files of an hour say of it, read from their beginning. One that was moved away and began anew says less than is known.
    pub(super) fn recounted(&mut self, key: &HourKey, read: HourBook) {
        let Some(book) = self.hours.get_mut(key) else { return };
        let before = memory_of(key, book);
        let says_all =
            |path: &String, part: &Part| book.parts.get(path).is_none_or(|known| part.lines >= known.lines);
        let (all, less): (BTreeMap<_, _>, BTreeMap<_, _>) =
            read.parts.into_iter().partition(|(path, part)| says_all(path, part));
        if less.is_empty() && book.parts.keys().all(|path| all.contains_key(path)) {
            book.told = read.told;
        }
        book.parts.extend(all);
        self.memory_bytes = (self.memory_bytes + memory_of(key, book)).saturating_sub(before);
    }

    /// What is to be done with the hour's mark.
    pub fn mark_work(&self, key: &HourKey) -> Option<MarkWork> {
        let book = self.hours.get(key)?;
        let before = book.marked;
        let lines = match book.standing() {
            Standing::Whole => Some(book.sum().lines),
            // What the mark says was true, and is until a done pack tells the new number.
            Standing::Late => before,
            // Nothing but what a repull brought is known of it, and nothing against its mark.
            Standing::Open if book.sum().ids.is_empty() => before,
            Standing::Open | Standing::Missing => None,
        };
        (lines != before).then(|| MarkWork { key: key.clone(), lines, before })
    }

    /// Something is to be tried again.
    pub fn touch(&mut self, key: HourKey) {
        self.changed.insert(key);
    }

    /// The mark is there, durably.
    pub fn marked(&mut self, key: &HourKey, lines: Option<u64>) {
        let Some(book) = self.hours.get_mut(key) else { return };
        let is_same = book.marked == lines;
        book.marked = lines;
        match book.is_complete() {
            true => book.marked_packs = book.sum().total,
            false if !is_same => book.marked_packs = 0,
            false => {}
        }
    }

    /// What the mark says was true of the files that are known, with so many packs.
    pub(super) fn mark_was_true(&mut self, key: &HourKey, packs: u64) {
        if let Some(book) = self.hours.get_mut(key).filter(|book| book.may_have_other_files()) {
            book.marked_packs = packs;
        }
    }

    /// How the day stands that a complete hour is in.
    pub fn day(&self, key: &HourKey, calendar: &Calendar, now_ms: i64) -> Day {
        let hour_of = |hour| HourKey { hour, ..key.clone() };
        let known = |hour| self.hours.get(&hour_of(hour)).filter(|book| !book.parts.is_empty());
        if !known(key.hour).is_some_and(HourBook::is_complete) {
            return Day::Open;
        }
        let expected = calendar.hours_of_day(&key.host, key.hour);
        let names = (0..24)
            .filter_map(|hour| Hour::new(key.hour.year(), key.hour.month(), key.hour.day(), hour).ok());
        if !names.filter_map(known).all(HourBook::is_complete) {
            return Day::Open;
        }
        let unknown: Vec<HourKey> =
            expected.iter().filter(|hour| known(**hour).is_none()).map(|hour| hour_of(*hour)).collect();
        // Hours to come are no question to the disk.
        let is_over = expected
            .last()
            .is_none_or(|last| known(*last).is_some() || calendar.end_ms(&key.host, *last) <= now_ms);
        match unknown.is_empty() {
            true => Day::Whole,
            false if is_over => Day::Unknown(unknown),
            false => Day::Open,
        }
    }

    /// What is missing of an hour.
    pub fn wanted(&self, key: &HourKey) -> Option<Wanted> {
        let book = self.hours.get(key)?;
        let ids = book.sum().missing_ids();
        let ranges = match ids.first() {
            Some((first, _)) => self.missing_ranges(key, book, *first == 1),
            None => book.missing_of_told().unwrap_or_default().ranges,
        };
        let is_late = book.standing() == Standing::Late;
        Some(Wanted { key: key.clone(), ids, ranges, is_late, asked: book.asked })
    }

    /// Stream bytes between those that the hour has; before them, if its first pack is missing; and up to where it ends.
    fn missing_ranges(&self, key: &HourKey, book: &HourBook, from_start: bool) -> Vec<(u128, u64, u64)> {
        if let Some(missing) = book.missing_of_told() {
            return missing.ranges;
        }
        if book.parts.values().any(|part| part.has_more_ranges) {
            return Vec::new();
        }
        let mut missing = Vec::new();
        for (stream, part) in book.parts.values().flat_map(|part| &part.streams) {
            let ranges = part.ranges.list();
            let begin = ranges.first().map(|(from, _)| *from).or(part.end);
            let end = ranges.last().map(|(_, to)| *to).max(part.end);
            let (Some(begin), Some(end)) = (begin, end) else { continue };
            let begin = if from_start { self.reached_before(key, *stream, begin, part.first) } else { begin };
            let gaps = part.ranges.missing(begin, end);
            missing.extend(gaps.into_iter().map(|(from, to)| (*stream, from, to)));
        }
        missing
    }

    /// Where the hours beside this one leave off in a stream, at or before `offset`; else where shipping of it began.
    fn reached_before(&self, key: &HourKey, stream: u128, offset: u64, first: u64) -> u64 {
        let Ok(earliest) = Hour::new(1, 1, 1, 0) else { return offset };
        let others = self.hours.range(HourKey { hour: earliest, ..key.clone() }..);
        let others = others.take_while(|(other, _)| (&other.source, &other.host) == (&key.source, &key.host));
        let parts = others.filter(|(other, _)| *other != key).flat_map(|(_, book)| book.parts.values());
        let ranges = parts.filter_map(|part| part.streams.get(&stream)).flat_map(|part| part.ranges.list());
        ranges.map(|(_, to)| *to).filter(|to| *to <= offset).max().unwrap_or(first).min(offset)
    }

    /// Hours of which nobody can know whether they are whole, because what came for them is more than a book tells apart.
    pub fn vague(&self) -> impl Iterator<Item = &HourKey> {
        let is_vague = |book: &HourBook| book.standing() != Standing::Whole && book.is_vague();
        self.hours.iter().filter(move |(_, book)| is_vague(book)).map(|(key, _)| key)
    }

    /// Hours with missing packs, and such that are over without a done pack (or have lines that came late without one), that were quiet for
    /// `wait_ms`, longer each time after a repull was asked for.
    pub fn repulls_due(&self, calendar: &Calendar, now_ms: i64, wait_ms: i64) -> Vec<HourKey> {
        let is_due = |key: &HourKey, book: &HourBook| {
            let wait_ms = wait_ms.saturating_mul(1 << book.asked.min(ASKED_DOUBLINGS_MAX));
            let is_quiet_since = |at_ms: i64| now_ms.saturating_sub(at_ms) >= wait_ms;
            is_quiet_since(book.sum().last_ms.max(book.asked_ms))
                // Another repull would tell nothing more.
                && !book.is_vague()
                && !(book.asked > 0 && book.may_have_other_files())
                && match book.standing() {
                    // What came late may not be all that did, and the done pack that tells so may be lost.
                    Standing::Missing | Standing::Late => true,
                    // Its last packs and the done pack may be lost together: then nothing tells that they are missing.
                    Standing::Open => is_quiet_since(calendar.end_ms(&key.host, key.hour)),
                    Standing::Whole => false,
                }
        };
        self.hours.iter().filter(|(key, book)| is_due(key, book)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether an hour is known and is not complete, or something is left to do for it.
    pub fn has_open(&self, key: &HourKey) -> bool {
        let book = self.hours.get(key).filter(|book| !book.parts.is_empty());
        book.is_some_and(|book| !book.is_complete() || book.has_work())
    }

    /// A file was removed, and nothing came since. Returns the hours that are forgotten with it: when something comes, all that its header
    /// file says is read again.
    pub fn removed(&mut self, path: &str) -> Vec<HourKey> {
        self.files.remove(path);
        self.unfinished.remove(path);
        let mut gone = Vec::new();
        for (key, book) in self.hours.iter_mut().filter(|(_, book)| book.parts.contains_key(path)) {
            let before = memory_of(key, book);
            book.parts.remove(path);
            self.memory_bytes = (self.memory_bytes + memory_of(key, book)).saturating_sub(before);
            if book.parts.is_empty() {
                gone.push(key.clone());
            }
        }
        self.forget(gone.clone());
        gone
    }

    /// Applies what no header file says. The hour may be counted later only.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Hooked { key, kind, extent } => {
                self.hours.entry(key.clone()).or_default().hooked[*kind as usize] = *extent;
            }
            Change::Asked { key, times, at_ms } => {
                let book = self.hours.entry(key.clone()).or_default();
                (book.asked, book.asked_ms) = (*times, *at_ms);
            }
            Change::Saved { at_ms } => self.saved_ms = Some(*at_ms),
            Change::Squeezed { to_ms } => self.squeezed_to_ms = self.squeezed_to_ms.max(Some(*to_ms)),
        }
    }

    /// Forgets hours of which nothing came for `keep_ms`, but for those that something is left to be done for. Returns those that were not
    /// complete.
    pub fn expire(&mut self, now_ms: i64, keep_ms: i64) -> Vec<HourKey> {
        let is_old = |book: &HourBook| now_ms.saturating_sub(book.sum().last_ms) > keep_ms;
        let hours = self.hours.iter().filter(|(_, book)| is_old(book) && !book.has_work());
        let mut keys: Vec<HourKey> = hours.map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            let to_be_finished = self.to_be_finished();
            keys.retain(|key| !to_be_finished.contains(key));
        }
        self.forget(keys)
    }

    pub(super) fn forget(&mut self, keys: Vec<HourKey>) -> Vec<HourKey> {
        if keys.is_empty() {
            return keys;
        }
        let mut incomplete = Vec::new();
        for key in keys {
            let Some(book) = self.hours.remove(&key) else { continue };
            self.memory_bytes = self.memory_bytes.saturating_sub(memory_of(&key, &book));
            self.changed.remove(&key);
            self.calm(&key, &book);
            if !book.parts.is_empty() && book.standing() != Standing::Whole {
                incomplete.push(key);
            }
        }
        // A file of which no hour is known any more is read from its beginning when something comes.
        let used: BTreeSet<&String> = self.hours.values().flat_map(|book| book.parts.keys()).collect();
        let unused: Vec<String> = self.files.keys().filter(|path| !used.contains(path)).cloned().collect();
        for path in unused {
            self.files.remove(&path);
        }
        incomplete
    }

    /// Memory, about, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

pub(super) fn memory_of(key: &HourKey, book: &HourBook) -> usize {
    2 * (key.source.len() + key.host.len()) + book.memory_bytes()
}

impl HourBook {
    /// Whether it is whole, and its mark says so.
    pub fn is_complete(&self) -> bool {
        self.standing() == Standing::Whole && self.marked == Some(self.sum().lines)
    }

    /// A file was rebuilt from its source. Returns whether the hour has a part of it.
    pub(super) fn rebuilt(&mut self, path: &str) -> bool {
        let Some(part) = self.parts.get_mut(path) else { return false };
        (part.lines, part.bytes) = (0, 0);
        // Other lines, perhaps as many as before: they are told again.
        self.hooked = Default::default();
        true
    }

    /// Whether a mark or a hook is still due.
    pub(super) fn has_work(&self) -> bool {
        let is_unmarked = || self.whole_lines().is_some_and(|lines| self.marked != Some(lines));
        let is_untold = |extent| self.hooked.iter().any(|told| *told != extent);
        self.extent().map_or_else(is_unmarked, is_untold)
    }
}
