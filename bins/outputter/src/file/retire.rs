//! The committer's part in finishing a log file: from one moment on its bytes are elsewhere.
//!
//! Whoever made the new file asks; nothing is done when packs came meanwhile. See `roll_forward` for the order and for what a crash leaves.

use super::commit::{Committer, now_unix};
use super::headers::{self, Finished, Place};
use super::journal::{Commit, Lengths};
use super::replace::is_aside;
use super::walk;
use crossbeam_channel::Sender;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Asks the committing thread between two groups; the answer comes through the sender, or never when it ends before.
#[derive(Debug)]
pub enum Request {
    /// The committed lengths of a file; none while it is not to be written to.
    Lengths(String, Sender<Option<Lengths>>),
    /// The committed lengths of all files.
    Files(Sender<BTreeMap<String, Lengths>>),
    /// [`Committer::retire`].
    Retire(String, Lengths, Finished, Sender<io::Result<bool>>),
    /// [`Committer::forget`].
    Forget(String, Sender<io::Result<bool>>),
}

impl<W> Committer<W> {
    /// Does what it is asked; an answer that nobody waits for is dropped.
    pub fn answer(&mut self, request: Request) {
        self.answer_unless(request, |_| false);
    }

    /// The same; but for asking again later, nothing is done with files that are `busy`.
    pub(super) fn answer_unless(&mut self, request: Request, busy: impl Fn(&str) -> bool) {
        match request {
            Request::Retire(path, _, _, answer) | Request::Forget(path, answer) if busy(&path) => {
                drop(answer.send(Ok(false)));
            }
            Request::Lengths(path, answer) => drop(answer.send(self.committed_lengths(&path))),
            Request::Files(answer) => {
                let mut files = self.store.table().clone();
                files.retain(|path, _| !is_aside(path));
                drop(answer.send(files));
            }
            Request::Retire(path, expected, finished, answer) => {
                drop(answer.send(self.retire(&path, expected, &finished)));
            }
            Request::Forget(path, answer) => drop(answer.send(self.forget(&path))),
        }
    }

    /// The committed lengths of a file; none while it is not to be written to.
    pub fn committed_lengths(&self, path: &str) -> Option<Lengths> {
        if walk::holds(self.store.unusable(), path) {
            return None;
        }
        self.store.table().get(path).copied()
    }

    /// A log file with these committed lengths is finished. False: it is not as expected, and nothing was done.
    ///
    /// # Errors
    /// Those of the disk. If its line may be there, the file is not written to until it is recovered, which also tells whether it is finished.
    pub fn retire(&mut self, path: &str, expected: Lengths, finished: &Finished) -> io::Result<bool> {
        if self.committed_lengths(path) != Some(expected) || expected.data != finished.data {
            return Ok(false);
        }
        let unopenable = self.store.prepare(&BTreeSet::from([path]))?.pop();
        self.store.check_mounted()?;
        if let Some(unopenable) = unopenable {
            return Err(unopenable.error);
        }
        self.journal_reconciled()?;
        if self.committed_lengths(path) != Some(expected) {
            return Ok(false);
        }
        let retired = self.retire_prepared(path, expected, finished);
        if let Err(error) = &retired {
            self.give_up_for_a_while(path, error);
        }
        retired.map(|()| true)
    }

    fn retire_prepared(&mut self, path: &str, expected: Lengths, finished: &Finished) -> io::Result<()> {
        let line = headers::finished_line(finished);
        let ended = self.store.append_last_line(path, &line)?;
        let begun = self.files.roll_forward(path, finished)?;
        let lengths = Lengths { headers: ended.headers, ..begun };
        self.store.retired(path, lengths);
        match (&self.hours, &finished.place) {
            // The line itself is to be read: marks go by it, whatever is killed.
            (Some(hours), Place::Removed) => hours.found(path, lengths.headers),
            (Some(hours), _) => hours.grew(path, expected.headers, lengths.headers, Vec::new()),
            (None, _) => {}
        }
        // If it fails, a snapshot has it before the next group is written, and recovery finds it out after a crash.
        let files = vec![(path.to_owned(), lengths)];
        self.log.append(&Commit { now_unix: now_unix(), files, ..Commit::default() }.to_bytes());
        if let Err(error) = self.log.commit() {
            tracing::error!("the journal cannot be written, the next commit tries again: {error}");
        }
        Ok(())
    }

    /// Forgets a file whose bytes were removed, header file and all. False: it has bytes, and nothing was done.
    ///
    /// # Errors
    /// Those of the disk: to be asked again.
    pub fn forget(&mut self, path: &str) -> io::Result<bool> {
        if self.committed_lengths(path).is_none_or(|lengths| lengths.data > 0) {
            return Ok(false);
        }
        self.store.check_mounted()?;
        self.store.remove(path)?;
        Ok(true)
    }
}
