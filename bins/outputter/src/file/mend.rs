//! Tries again to recover the files that could not be recovered at the start, or failed one time after the other since.

use super::commit::{Committer, lock, now_unix};
use super::file_recovery::Journaled;
use super::replace::is_aside;
use super::walk;
use std::io;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// How long a file is left alone at which writing failed one time after the other; each time twice as long.
const GIVEN_UP_FIRST: Duration = Duration::from_secs(1);
/// Doublings of that.
const DOUBLINGS_MAX: u32 = 6;
/// Files that are tried in one round, so that many bad ones leave time for the good ones.
const FILES_PER_ROUND: usize = 64;

/// A file at which writing failed one time after the other.
pub(super) struct GivenUp {
    times: u32,
    until: Instant,
    error: String,
}

impl<W> Committer<W> {
    /// Each attempt at such a file costs the others some seconds, so it is made less and less often.
    pub(super) fn give_up_for_a_while(&mut self, path: &str, error: &io::Error) {
        let times = self.given_up.get(path).map_or(0, |before| before.times);
        let until = Instant::now() + GIVEN_UP_FIRST * (1 << times.min(DOUBLINGS_MAX));
        let given_up = GivenUp { times: times + 1, until, error: error.to_string() };
        self.given_up.insert(path.to_owned(), given_up);
        self.store.give_up(path);
        tracing::error!(path, times, %error, "writing fails again and again at this file: the others go on without it");
    }

    /// Tries some of the files that must not be written to yet. Between groups only: a pack that is found to be written already must
    /// not be in one.
    pub fn mend_files(&mut self) {
        // Files that are away with their disk are not gone.
        if self.store.check_mounted().is_err() {
            return;
        }
        let unusable = self.store.unusable();
        let last = &self.mended_last;
        let behind = unusable.range::<String, _>((Bound::Excluded(last), Bound::Unbounded));
        let paths = behind.chain(unusable.range::<String, _>(..=last));
        let paths: Vec<String> = paths.take(FILES_PER_ROUND).cloned().collect();
        let mut is_changed = false;
        for path in paths {
            self.mended_last.clone_from(&path);
            if let Some(given_up) = self.given_up.get(&path) {
                self.figures.set_file_problem(&path, &io::Error::other(given_up.error.clone()));
                if Instant::now() < given_up.until {
                    continue;
                }
            }
            let mended = if path.ends_with('/') { self.mend_folder(&path) } else { self.mend_file(&path) };
            match mended {
                Ok(()) if self.given_up.contains_key(&path) => is_changed = true,
                Ok(()) => {
                    is_changed = true;
                    self.figures.clear_file_problem(&path);
                    tracing::info!(path, "it can be written to again");
                }
                Err(error) => drop(self.figures.set_file_problem(&path, &error)),
            }
        }
        self.figures.set_files_unusable(self.store.unusable().len() as u64);
        // What was found is in the files, durably, and would be found again: the journal can have it later.
        if is_changed && let Err(error) = self.snapshot() {
            tracing::error!("the journal's snapshot cannot be written, the next commit tries again: {error}");
        }
    }

    fn mend_folder(&mut self, folder: &str) -> io::Result<()> {
        let below = walk::files_below(&*self.files.disk, &self.files.folders.headers, folder)?;
        let unlisted = below.unlisted.into_iter().map(|(folder, _)| folder);
        let found: Vec<String> = below.files.into_iter().chain(unlisted).collect();
        if self.unread.remove(folder) {
            self.unread.extend(found.iter().cloned());
        }
        self.store.listed(folder, &found);
        Ok(())
    }

    fn mend_file(&mut self, path: &str) -> io::Result<()> {
        let is_sound = !walk::holds(&self.unread, path);
        let journaled = Journaled { lengths: self.store.table().get(path).copied(), is_sound };
        let truth = self.files.recover(path, journaled)?;
        let (mut order, now_unix) = (lock(&self.order), now_unix());
        let packs = truth.packs.iter();
        let actions =
            packs.flat_map(|pack| order.found_written(&pack.identity(), pack.first, now_unix)).collect();
        drop(order);
        self.act(actions);
        self.store.recovered(path, truth.lengths);
        if let (Some(hours), Some(lengths)) = (self.hours.as_ref().filter(|_| !is_aside(path)), truth.lengths)
        {
            hours.found(path, lengths.headers);
        }
        self.unread.remove(path);
        Ok(())
    }
}
