//! Which entries of the error log somebody gets to see: the latest are in memory, all others in the database, which may be away.

use crate::database::{Database, DatabaseError};
use crate::monitor::Monitor;
use crate::registry::{Change, ErrorEntry};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// People who may have the database searched at a time; others wait.
const SEARCHES_MAX: usize = 2;
/// Longest that one search takes: what was not looked at by then is said to be left.
const SEARCH_MAX: Duration = Duration::from_secs(3);
/// Rows of the database that are held at a time.
const SLICE: u64 = 1_000;

/// Entries, newest first, and whether there may be more.
#[derive(Debug)]
pub struct Found {
    /// Those that are wanted.
    pub entries: Vec<ErrorEntry>,
    /// What of the older ones.
    pub rest: Rest,
}

/// What was not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// Older entries, in memory or in the database.
    Older,
    /// Rows of the database below this number.
    Below(i64),
    /// The database, for this reason.
    Away(String),
}

/// Who is let to the database.
#[derive(Debug)]
pub(crate) struct Searches(Semaphore);

impl Default for Searches {
    fn default() -> Searches {
        Searches(Semaphore::new(SEARCHES_MAX))
    }
}

impl Monitor {
    /// The latest errors that `wanted` says yes to, newest first, at most `count`: those in memory.
    pub fn errors(&self, count: usize, wanted: impl Fn(&ErrorEntry) -> bool) -> Vec<ErrorEntry> {
        self.latest_errors(count, wanted).entries
    }

    /// The same, and whether there are older ones.
    pub fn latest_errors(&self, count: usize, wanted: impl Fn(&ErrorEntry) -> bool) -> Found {
        let registry = self.registry();
        let mut found = registry.errors().rev().filter(|entry| wanted(entry));
        let entries = found.by_ref().take(count).cloned().collect();
        let is_all = found.next().is_none() && !registry.has_older_errors();
        Found { entries, rest: if is_all { Rest::None } else { Rest::Older } }
    }

    /// Errors that `wanted` says yes to, newest first, at most `count`, of all there are: those that wait for the database, and those that
    /// it has, below the row `before` if there is one. Where it does not answer, those in memory.
    pub async fn all_errors(
        &self,
        count: usize,
        (since_ms, before): (i64, Option<i64>),
        wanted: impl Fn(&ErrorEntry) -> bool,
    ) -> Found {
        let searched = match self.health.away() {
            None => self.search(count, (since_ms, before), &wanted).await.map_err(|error| error.to_string()),
            Some(why) => Err(why),
        };
        searched.unwrap_or_else(|why| {
            let entries = if before.is_none() { self.errors(count, wanted) } else { Vec::new() };
            Found { entries, rest: Rest::Away(why) }
        })
    }

    async fn search(
        &self,
        count: usize,
        (since_ms, before): (i64, Option<i64>),
        wanted: &impl Fn(&ErrorEntry) -> bool,
    ) -> Result<Found, DatabaseError> {
        let _one = self.searches.0.acquire().await;
        let deadline = Instant::now() + SEARCH_MAX;
        // before the database is asked: what it takes meanwhile is found there, and told apart by its number
        let mut waiting = if before.is_none() { self.waiting_errors() } else { Vec::new() };
        let url = self.config.database_url().map_err(|error| DatabaseError::Away(error.to_string()))?;
        let mut database = Database::connect(&url, SEARCH_MAX.min(self.config.database.timeout.0)).await?;
        let (mut entries, mut below) = (Vec::new(), before.unwrap_or(i64::MAX));
        loop {
            let slice = database.errors_below(self.journal.id(), (below, since_ms), SLICE).await?;
            let new = waiting.drain(..).filter(|(number, _)| *number > slice.applied);
            entries.extend(new.map(|(_, entry)| entry).filter(|entry| wanted(entry)));
            let is_last = (slice.rows.len() as u64) < SLICE;
            for (row, entry) in slice.rows {
                if entries.len() >= count {
                    entries.truncate(count);
                    return Ok(Found { entries, rest: going_on(below) });
                }
                below = row;
                entries.extend(Some(entry).filter(wanted));
            }
            if is_last {
                return Ok(Found { entries, rest: Rest::None });
            }
            if Instant::now() >= deadline {
                return Ok(Found { entries, rest: going_on(below) });
            }
        }
    }

    /// Errors that wait for the database with their numbers, newest first.
    fn waiting_errors(&self) -> Vec<(u64, ErrorEntry)> {
        let error = |(number, change)| match change {
            Change::Error(entry) => Some((number, entry)),
            _ => None,
        };
        self.journal.oldest(usize::MAX).into_iter().rev().filter_map(error).collect()
    }
}

/// Where no row was passed there are more that wait for the database than were asked for, and these have no number there.
fn going_on(below: i64) -> Rest {
    if below == i64::MAX { Rest::Older } else { Rest::Below(below) }
}
