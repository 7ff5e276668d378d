//! What must be true at the end of a life.

use super::content::{Content, numbers_used_twice};
use super::life::{HOUR_LENGTH, Life};
use super::shape::LINE_BYTES_MAX;
use crate::store::{self, StoredPack};
use crate::{PATIENCE, wait_until};
use rand::Rng;
use std::time::{Duration, Instant};

/// Beyond the latest moment that the clock ever showed: every hour is over by then, and so is its grace.
const BEYOND_ALL: Duration = Duration::from_secs(6);

/// In one of so many lives bytes are taken away at the end that are surely lost.
const LOSE_ONE_IN: u32 = 8;

/// Environment variable: seconds after which a life counts as failed, for those who look for a cause.
const PATIENCE_SECONDS: &str = "LOGFERRY_TEST_PATIENCE";

fn patience() -> Duration {
    let seconds = std::env::var(PATIENCE_SECONDS).ok().and_then(|text| text.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

impl Life<'_> {
    /// Lets everything arrive: the next tier answers, the tailer runs, begun lines are ended; then all hours end.
    ///
    /// # Errors
    /// What was lost, doubled, out of order, in a wrong hour, or not complete.
    pub fn finish(&mut self) -> Result<(), String> {
        // What is in the tailer's own spool is not lost with its file; and of which only a common header was cut, any file may be the copy.
        let is_told = !self.shape.spool && self.shape.header.is_empty();
        if self.random.random_ratio(1, LOSE_ONE_IN) && is_told {
            self.lose()?;
        }
        self.speak();
        self.start();
        self.finish_partials();
        self.reach(Life::all_arrived)?;
        self.clock.step_beyond_all(BEYOND_ALL);
        self.reach(|life, packs| life.all_arrived(packs).and_then(|()| books_are_complete(packs)))?;
        let packs = store::packs(&self.tiers.output, "app", &self.host);
        self.each_pack_is_in_a_right_hour(&packs).map_err(|what| self.told(what))?;
        self.each_pack_ends_where_it_may(&packs).map_err(|what| self.told(what))?;
        wait_until("the tailer is up", || self.tailer.admin().is_some());
        self.counts_no_more_than_was_at_risk().map_err(|what| self.told(what))?;
        let status = self.tailer.stop();
        if status.success() { Ok(()) } else { Err(self.told(format!("{status} at a graceful stop"))) }
    }

    pub(super) fn told(&self, what: String) -> String {
        let log = self.tailer.log_text();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        let packs = store::packs(&self.tiers.output, "app", &self.host);
        let stored: Vec<String> = packs.iter().map(StoredPack::place).collect();
        let (status, stored) = (self.tailer.status().unwrap_or_default(), stored.join("\n"));
        format!("{what}\n{}\n{last}\nstatus: {status}\nstored:\n{stored}", self.trace())
    }

    /// Waits until the store is as `judge` wants it.
    pub(super) fn reach(
        &mut self,
        judge: impl Fn(&Self, &[StoredPack]) -> Result<(), String>,
    ) -> Result<(), String> {
        let begin = Instant::now();
        let patience = patience();
        loop {
            if let Some(status) = self.tailer.exited() {
                return Err(self.told(format!("the tailer has ended by itself with {status}")));
            }
            let packs = store::packs(&self.tiers.output, "app", &self.host);
            let Err(what) = judge(self, &packs) else { return Ok(()) };
            if begin.elapsed() > patience {
                return Err(self.told(what));
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits for something that is not in the store.
    pub(super) fn wait_for(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        self.reach(|life, _| if holds(life) { Ok(()) } else { Err(format!("waited in vain: {what}")) })
    }

    pub(super) fn all_arrived(&self, packs: &[StoredPack]) -> Result<(), String> {
        let arrived = self.arrived_in(packs)?;
        let wrong = arrived.doubled().or_else(|| arrived.missing(&self.contents));
        wrong.or_else(|| numbers_used_twice(packs)).map_or(Ok(()), Err)
    }

    /// The hour of the file's name, or one that the tailer's clock has shown since the line was written.
    fn each_pack_is_in_a_right_hour(&self, packs: &[StoredPack]) -> Result<(), String> {
        let arrived = self.arrived_in(packs)?;
        for pack in packs.iter().filter(|pack| pack.span > 0) {
            let content = &self.contents[arrived.content_of[&pack.stream]];
            // Of a common header nobody can tell whose it is.
            if pack.offset + pack.span <= content.shared as u64 {
                continue;
            }
            let right = match &content.hour {
                Some(hour) => pack.hour == *hour,
                None => self.clock.showed(&pack.hour, content.written_at(pack.offset), HOUR_LENGTH),
            };
            if !right {
                return Err(format!(
                    "a pack at {} is in hour {}: {:?}",
                    pack.offset, pack.hour, content.hour
                ));
            }
        }
        Ok(())
    }
}

impl Life<'_> {
    /// Behind a whole line or entry, but for lines that are too long and what was all that a file had.
    fn each_pack_ends_where_it_may(&self, packs: &[StoredPack]) -> Result<(), String> {
        let arrived = self.arrived_in(packs)?;
        for pack in packs.iter().filter(|pack| pack.span > 0) {
            let content = &self.contents[arrived.content_of[&pack.stream]];
            let end = (pack.offset + pack.span) as usize;
            if !content.was_long(end) && !self.may_end(content, end) {
                return Err(format!("a pack at {} ends within a line or an entry, at {end}", pack.offset));
            }
        }
        Ok(())
    }

    fn may_end(&self, content: &Content, end: usize) -> bool {
        let (before, behind) = content.bytes.split_at(end);
        let line_at = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if line_at == end && self.shape.choice.begins(behind) {
            return true;
        }
        // The entry that it is in.
        let mut at = 0;
        let lines = content.bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
            at += line.len();
            (at - line.len(), line)
        });
        let lines: Vec<(usize, &[u8])> = lines.collect();
        let is_first = |(at, line): &&(usize, &[u8])| *at < end && self.shape.choice.begins(line);
        let from = lines.iter().rev().find(is_first).map_or(0, |(at, _)| *at);
        lines.iter().any(|(at, line)| (from..end).contains(at) && line.len() >= LINE_BYTES_MAX)
    }
}

fn books_are_complete(packs: &[StoredPack]) -> Result<(), String> {
    match store::books(packs).into_iter().find(|(_, book)| !book.is_complete()) {
        Some((hour, book)) => Err(format!("hour {hour} is not complete: {book:?}")),
        None => Ok(()),
    }
}
