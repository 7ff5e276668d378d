//! Tries again to recover the files that could not be recovered at the start, or failed one time after the other since.

use super::commit::{Committer, lock, now_unix};
use super::file_recovery::Journaled;
use super::walk;
use std::io;
use std::ops::Bound;

/// Files that are tried in one round, so that many bad ones leave time for the good ones.
const FILES_PER_ROUND: usize = 64;

impl<W> Committer<W> {
    /// Tries some of the files that must not be written to yet. Between groups only: a pack that is found to be written already must
    /// not be in one.
    pub fn mend_files(&mut self) {
        let unusable = self.store.unusable();
        let last = &self.mended_last;
        let behind = unusable.range::<String, _>((Bound::Excluded(last), Bound::Unbounded));
        let paths = behind.chain(unusable.range::<String, _>(..=last));
        let paths: Vec<String> = paths.take(FILES_PER_ROUND).cloned().collect();
        let mut is_changed = false;
        for path in paths {
            let mended = if path.ends_with('/') { self.mend_folder(&path) } else { self.mend_file(&path) };
            match mended {
                Ok(()) => {
                    is_changed = true;
                    self.figures.clear_file_problem(&path);
                    tracing::info!(path, "it can be written to again");
                }
                Err(error) => drop(self.figures.set_file_problem(&path, &error)),
            }
            self.mended_last = path;
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
        self.unread.remove(path);
        Ok(())
    }
}
