//! The keeper's part in telling of complete hours: their marks and those of their days, then their hooks.

use super::fact::HourKey;
use super::hooks::HookKind;
use super::keeper::{Keeper, lock};
use super::state::Change;
use metrics::counter;
use std::io;

/// Where problems of marks are shown.
const MARKS: &str = "received/";

impl Keeper {
    /// Writes the marks of hours that changed, and those of their days; queues hooks.
    pub(super) fn settle(&mut self, now_ms: i64) {
        let changed = lock(&self.books).take_changed();
        for key in changed {
            match self.settle_hour(&key).and_then(|()| self.settle_day(&key)) {
                Ok(()) => {
                    self.figures.clear_file_problem(MARKS);
                    self.queue_hooks(&key, now_ms);
                }
                Err(error) => {
                    self.figures.set_file_problem(MARKS, &error);
                    counter!("logferry_outputter_hour_mark_failures_total").increment(1);
                    lock(&self.books).touch(key);
                }
            }
        }
    }

    fn settle_hour(&mut self, key: &HourKey) -> io::Result<()> {
        let work = lock(&self.books).mark_work(key);
        let Some(work) = work else {
            let mut books = lock(&self.books);
            let marked = books.hour(key).and_then(|book| book.marked);
            // A done pack without lines makes it another number of packs.
            books.marked(key, marked);
            return Ok(());
        };
        self.places.marks.settle(&work)?;
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

    fn settle_day(&self, key: &HourKey) -> io::Result<()> {
        if lock(&self.books).is_whole_day(key, &self.calendar) && self.places.marks.create_day(key)? {
            counter!("logferry_outputter_day_marks_total").increment(1);
            tracing::info!(hour = %key, "the day is complete");
        }
        Ok(())
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
