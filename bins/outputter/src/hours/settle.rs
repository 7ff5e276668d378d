//! The keeper's part in telling of complete hours: their marks and those of their days, then their hooks.

use super::book::Standing;
use super::books::Day;
use super::fact::HourKey;
use super::hooks::HookKind;
use super::keeper::{Keeper, lock};
use super::lookup::MARKS;
use super::state::Change;
use logferry_pack::Hour;
use metrics::counter;
use std::collections::BTreeMap;
use std::io;

/// An hour of a day, and those of which it is not known whether they are complete.
type UnsureDay = (HourKey, Vec<HourKey>);

/// The first hour of the day that an hour is in.
fn day_of(key: &HourKey) -> HourKey {
    let hour = key.hour;
    let first = Hour::new(hour.year(), hour.month(), hour.day(), 0).unwrap_or(hour);
    HourKey { hour: first, ..key.clone() }
}

impl Keeper {
    /// Writes the marks of hours that changed, and those of their days; queues hooks.
    pub(super) fn settle(&mut self, now_ms: i64) {
        self.look_for_marks(now_ms);
        let changed = lock(&self.books).take_changed();
        let mut unsure_days = BTreeMap::new();
        for key in changed {
            if self.lookup.waits_for(&key) || self.is_half_read(&key) {
                lock(&self.books).touch(key);
                continue;
            }
            match self.settle_hour(&key).and_then(|()| self.settle_day(&key, now_ms)) {
                Ok(unknown) => {
                    if !self.lookup.is_failing {
                        self.figures.clear_file_problem(MARKS);
                    }
                    self.queue_hooks(&key, now_ms);
                    if !unknown.is_empty() {
                        // The last of its hours asks for a day.
                        unsure_days.insert(day_of(&key), (key, unknown));
                    }
                }
                Err(error) => {
                    self.figures.set_file_problem(MARKS, &error);
                    counter!("logferry_outputter_hour_mark_failures_total").increment(1);
                    lock(&self.books).touch(key);
                }
            }
        }
        self.settle_days(unsure_days, now_ms);
    }

    fn settle_hour(&mut self, key: &HourKey) -> io::Result<()> {
        let work = lock(&self.books).mark_work(key);
        let Some(work) = work else {
            self.settle_fresh(key)?;
            let mut books = lock(&self.books);
            let marked = books.hour(key).and_then(|book| book.marked);
            // A done pack without lines makes it another number of packs.
            books.marked(key, marked);
            return Ok(());
        };
        self.places.marks.settle(&work)?;
        self.lookup.fresh.remove(key);
        self.is_changed = true;
        lock(&self.books).marked(key, work.lines);
        match work.lines {
            Some(lines) => {
                counter!("logferry_outputter_hour_marks_total").increment(1);
                tracing::info!(hour = %key, lines, "the hour is complete");
            }
            None => tracing::warn!(hour = %key, "the hour is not complete any more: its mark is taken away"),
        }
        Ok(())
    }

    /// An hour whose packs are missing, and whose mark somebody took away while nobody looked, leaves its day no mark.
    fn settle_fresh(&mut self, key: &HourKey) -> io::Result<()> {
        if self.lookup.fresh.contains(key) {
            let standing = lock(&self.books).hour(key).map(|book| book.standing());
            if standing == Some(Standing::Missing) {
                self.places.marks.remove_day(key)?;
            }
            self.lookup.fresh.remove(key);
        }
        Ok(())
    }

    /// The mark of the day that an hour is in. Gives hours whose marks are to be looked for before it can be said.
    fn settle_day(&self, key: &HourKey, now_ms: i64) -> io::Result<Vec<HourKey>> {
        let day = lock(&self.books).day(key, &self.calendar, now_ms);
        match day {
            Day::Whole => self.create_day(key).map(|()| Vec::new()),
            Day::Open => Ok(Vec::new()),
            Day::Unknown(hours) => Ok(hours),
        }
    }

    fn create_day(&self, key: &HourKey) -> io::Result<()> {
        if self.places.marks.create_day(key)? {
            counter!("logferry_outputter_day_marks_total").increment(1);
            tracing::info!(hour = %key, "the day is complete");
        }
        Ok(())
    }

    /// Marks of days some of whose hours are forgotten.
    fn settle_days(&mut self, days: BTreeMap<HourKey, UnsureDay>, now_ms: i64) {
        if days.is_empty() {
            self.lookup.is_failing &= self.lookup.is_waited_for();
            return;
        }
        let settled = match self.lookup.is_free(now_ms) {
            true => {
                self.places.marks.look(days.values().flat_map(|(_, unknown)| unknown)).and_then(|found| {
                    self.lookup.took(found.names, now_ms);
                    let is_marked = |key: &HourKey| found.lines.contains_key(key);
                    let mut whole = days.values().filter(|(_, unknown)| unknown.iter().all(is_marked));
                    whole.try_for_each(|(key, _)| self.create_day(key)).map(|()| true)
                })
            }
            false => Ok(false),
        };
        if let Err(error) = &settled {
            self.look_failed(error, now_ms);
        }
        if !matches!(settled, Ok(true)) {
            days.into_values().for_each(|(key, _)| lock(&self.books).touch(key));
        }
    }

    fn queue_hooks(&mut self, key: &HourKey, now_ms: i64) {
        let mut books = lock(&self.books);
        let Some((extent, hooked)) = books.hour(key).and_then(|book| Some((book.extent()?, book.hooked)))
        else {
            return;
        };
        for kind in HookKind::ALL.into_iter().filter(|kind| hooked[*kind as usize] != extent) {
            if self.options.hooks.contains(&kind) {
                self.hooks.add(key, kind, extent, now_ms);
            } else {
                // A hook that is configured later is not told of the past.
                books.apply(&Change::Hooked { key: key.clone(), kind, extent });
            }
        }
    }
}
