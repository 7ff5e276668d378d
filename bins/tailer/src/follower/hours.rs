//! Closing hours: done packs.

use super::Follower;
use crate::body::Lead;
use crate::closing::Outlook;
use crate::config::Start;
use crate::event::{Job, Load, ToShipper};
use crate::ledger::record::{Cut, Mark};
use crate::tracker::FileNumber;
use jiff::Timestamp;
use logferry_pack::Hour;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Instant;
use tracing::{debug, info};

impl Follower {
    /// After a look at a source: closes the hours that are over.
    pub(super) fn close_hours(&mut self, index: usize) {
        let named = self.named_hours(index);
        let now = Timestamp::now();
        let (held, seen_to) = self.hidden_hours(index, now);
        let source = &self.sources[index];
        let name = source.settings.name.clone();
        let goes_on = source.settings.start == Start::End || source.line_record.is_some();
        let at_end = goes_on && !self.ledger.is_source_started(&name);
        let clock = self.clock.clone();
        let outlook = Outlook {
            clock: &clock,
            now,
            grace: source.paths.has_hours().then_some(source.settings.grace.0),
            named,
            held,
            seen_to,
            from_files: !at_end,
        };
        let over =
            if source.paths.has_hours() { hours_over(&outlook) } else { self.days_over(index, &outlook) };
        self.finish_named(index, &over);
        if self.shared.journal_down.load(Ordering::Acquire) {
            return;
        }
        let closing = outlook.closing(self.ledger.hours(), &name, || self.ledger.unsettled_hours(&name));
        for hour in closing.close {
            debug!(source = name, %hour, "the hour is closed");
            self.ledger.close_hour(&name, hour);
            self.figures.hour_closed();
        }
        if let Some(to) = closing.passed_over_to {
            info!(source = name, %to, "a long time without files: its hours are passed over");
        }
        if let Some(due) = closing.due {
            self.ledger.set_hours_due(&name, due);
        }
        self.send_marks();
        let waiting = self.ledger.hours().open(&name).filter(|hour| outlook.is_over(*hour)).count() as u64;
        let before = std::mem::replace(&mut self.sources[index].hours_waiting, waiting);
        // Modulo 2^64, so that it may go down.
        self.figures.hours_waiting.fetch_add(waiting.wrapping_sub(before), Ordering::AcqRel);
    }

    /// The hours of files that cannot be opened; and when all of a source was last seen, if now some of it is hidden: a folder, or a file
    /// whose hours its name does not tell.
    fn hidden_hours(&mut self, index: usize, now: Timestamp) -> (BTreeSet<Hour>, Option<Timestamp>) {
        let source = &mut self.sources[index];
        let has_hours = source.paths.has_hours();
        let mut held = BTreeSet::new();
        let mut is_hidden = source.has_hidden_folders();
        for path in source.failed_within_roots() {
            match source.paths.time_of(path).filter(|_| has_hours) {
                Some(time) => _ = held.insert(time.hour),
                None => is_hidden = true,
            }
        }
        // What was in a file before it was cut may come yet.
        for (_, sought) in self.sought.iter().filter(|(id, _)| self.source_of(**id) == Some(index)) {
            match self.sources[index].paths.time_of(&sought.home).filter(|_| has_hours) {
                Some(time) => _ = held.insert(time.hour),
                None => is_hidden = true,
            }
        }
        let source = &mut self.sources[index];
        if !is_hidden {
            source.seen_to = now;
        }
        (held, is_hidden.then_some(source.seen_to))
    }

    /// The hours that files of a source are named after, and whether there is something going on in them.
    fn named_hours(&self, index: usize) -> BTreeMap<Hour, bool> {
        let mut named = BTreeMap::new();
        if !self.sources[index].paths.has_hours() {
            return named;
        }
        let now = Instant::now();
        for file in self.files.values().filter(|file| file.source == index) {
            let Some(time) = file.time else { continue };
            let quiet = now.saturating_duration_since(file.quiet_since);
            let unread = file.size > file.cutter.at();
            let busy = file.queued
                || file.failing_since.is_some()
                || unread
                || quiet < self.sources[index].settings.rotate_wait.0;
            *named.entry(time.hour).or_insert(false) |= busy;
        }
        named.extend(self.hours_to_unpack(index).map(|hour| (hour, true)));
        named
    }

    /// Days that files of a source are named after, by their first hours, and whether they are over.
    fn days_over(&self, index: usize, outlook: &Outlook<'_>) -> BTreeMap<Hour, bool> {
        let source = &self.sources[index];
        if !source.paths.has_times() {
            return BTreeMap::new();
        }
        let of_source = self.files.values().filter(|file| file.source == index);
        let days: BTreeSet<Hour> = of_source.filter_map(|file| Some(file.time?.hour)).collect();
        let is_over = |day: &Hour| outlook.is_day_over(*day, &days, source.settings.grace.0);
        days.iter().map(|day| (*day, is_over(day))).collect()
    }

    /// Files whose hour or day is over are finished: a last line without an end is shipped.
    fn finish_named(&mut self, index: usize, over: &BTreeMap<Hour, bool>) {
        // Most sources have no times in their names: looking through all files costs each of them.
        if over.is_empty() {
            return;
        }
        let mut unfinished: Vec<FileNumber> = Vec::new();
        for (number, file) in self.files.iter_mut().filter(|(_, file)| file.source == index) {
            file.hour_over = file.time.is_some_and(|time| over.get(&time.hour) == Some(&true));
            if file.hour_over && file.size > file.cutter.at() {
                unfinished.push(*number);
            }
        }
        unfinished.into_iter().for_each(|number| self.queue(number));
    }

    /// Puts packs without lines on their way.
    pub(super) fn send_marks(&mut self) {
        while self.can_cut() {
            let Some(mark) = self.ledger.next_mark() else { return };
            let Some(ticket) = self.ledger.send_mark(&mark) else { return };
            self.pass_on_records();
            let Mark { source, hour, id, done, stream, first, offset } = mark;
            let Ok(source) = logferry_pack::Name::new(source) else { continue };
            let hour_ranges =
                if done { self.ledger.ranges().all_of(source.as_str(), hour) } else { Vec::new() };
            let cut = Cut { offset, span: 0, sum: 0, lines: 0, hour, id };
            let _ = self.shipper.send(ToShipper::Expect(ticket));
            let load = Load::Mark { done };
            let _ = self.jobs.send(Job {
                ticket,
                load,
                buffer: Vec::new(),
                cut,
                lead: Lead::default(),
                stream,
                first,
                source,
                hour_ranges,
            });
        }
    }
}

fn hours_over(outlook: &Outlook<'_>) -> BTreeMap<Hour, bool> {
    outlook.named.keys().map(|hour| (*hour, outlook.is_over(*hour))).collect()
}
