//! The tables of one hour: its files' lines through the engine into tables aside, then published.

use crate::columns::Columns;
use crate::counts::Counts;
use crate::engine::{Engine, Judged};
use crate::format::Format;
use crate::hour::HourKey;
use crate::input::{InputLine, LINE_BYTES_MAX, Lines, is_damage};
use crate::lists::Lists;
use crate::program::{Line, LineProgram};
use crate::publish::{DoneMark, Store};
use crate::rejects::Rejects;
use crate::staging::Staging;
use crate::tables::{Bounds, TableError, Tables};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Lines between two calls of the observer.
const OBSERVED_LINES: u64 = 512;
/// Below this many lines a share of rejected ones says nothing.
const JUDGED_LINES_MIN: u64 = 20;

/// How tables are made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Format of the files.
    pub format: Format,
    /// What is written.
    pub columns: Columns,
    /// Bounds of memory and files.
    pub bounds: Bounds,
    /// An hour of which more lines than this are rejected fails, in per cent.
    pub rejected_percent_max: u64,
}

/// An hour to make tables of.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub key: HourKey,
    /// Its files, in order.
    pub paths: Vec<PathBuf>,
    /// They have as many lines at least, or were cut: no tables are made then.
    pub lines_min: u64,
    /// Folders that they are below: while one is away (not there, or empty as the place of a disk that is not mounted), none of its files is
    /// gone for good.
    pub roots: Vec<PathBuf>,
    /// So many bytes are read of files that may be written to meanwhile; of all others what they have when they are opened.
    pub committed: BTreeMap<PathBuf, u64>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What became of the lines so far.
    pub counts: Counts,
    /// Bytes of the files read, perhaps compressed.
    pub taken: u64,
    /// Bytes of the files that were opened, perhaps compressed.
    pub file_bytes: u64,
}

/// Why an hour has no new tables.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// It will not get better by itself: the hour has failed, and a mark says so.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// What became of the lines until then.
        counts: Counts,
    },
    /// The disk: to be tried again.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// The observer said so.
    #[error("stopped")]
    Stopped,
}

/// Is told how far the job is, every few hundred lines, and may stop it.
pub type Observer<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

impl Job {
    /// Makes the hour's tables and puts them into place of its old ones. After [`JobError::Failed`] a mark says why.
    ///
    /// # Errors
    /// [`JobError`]. Nothing of a job that did not succeed can be seen but the mark, unless the disk failed after the commit: then
    /// the next attempt finishes it first.
    pub fn run(
        &self,
        store: &Store,
        recipe: &Recipe,
        program: &mut dyn LineProgram,
        lists: &Lists,
        observe: Observer<'_>,
    ) -> Result<DoneMark, JobError> {
        let staging = store.begin(&self.key)?;
        let mut run = Run {
            staging,
            tables: Tables::new(&recipe.columns, recipe.format, recipe.bounds, &self.key),
            rejects: Rejects::default(),
            progress: Progress { counts: Counts::default(), taken: 0, file_bytes: 0 },
            first_reject: None,
            key: &self.key,
        };
        let mut engine = Engine { program, lists, columns: &recipe.columns };
        let made = run.read_all(self, &mut engine, observe).and_then(|()| run.judge(recipe, self.lines_min));
        made.and_then(|()| run.publish(store, &self.paths)).map_err(|error| match error {
            // Without its mark nobody would learn that it has failed.
            JobError::Failed { reason, counts } => match store.fail(&self.key, &reason, &counts) {
                Ok(()) => JobError::Failed { reason, counts },
                Err(error) => JobError::Disk(io::Error::new(
                    error.kind(),
                    format!("{reason}; and no mark says so: {error}"),
                )),
            },
            other => {
                // What stays aside is removed by the next attempt.
                let _ = store.abandon(&self.key);
                other
            }
        })
    }
}

/// A disk that is not mounted leaves its folder behind, or not even that.
fn is_away(root: &Path) -> bool {
    std::fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none())
}

/// A job that runs.
struct Run<'a> {
    staging: Staging,
    tables: Tables<'a>,
    rejects: Rejects,
    progress: Progress,
    first_reject: Option<String>,
    key: &'a HourKey,
}

impl Run<'_> {
    fn failed(&self, reason: impl Into<String>) -> JobError {
        JobError::Failed { reason: reason.into(), counts: self.progress.counts }
    }

    fn read_all(
        &mut self,
        job: &Job,
        engine: &mut Engine<'_>,
        observe: Observer<'_>,
    ) -> Result<(), JobError> {
        for path in &job.paths {
            let committed = job.committed.get(path).copied().unwrap_or(u64::MAX);
            let opened = Lines::open_to(path, committed);
            let mut lines = opened.map_err(|error| self.unreadable(job, path, error))?;
            let taken_before = self.progress.taken;
            self.progress.file_bytes += lines.file_bytes;
            loop {
                let line = match lines.next_line() {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    Err(error) => {
                        let text = format!("{}: {error}", path.display());
                        return Err(match is_damage(&error) {
                            true => self.failed(text),
                            false => JobError::Disk(io::Error::new(error.kind(), text)),
                        });
                    }
                };
                self.take(&line, engine)?;
                if self.progress.counts.lines.is_multiple_of(OBSERVED_LINES) {
                    self.progress.taken = taken_before + lines.taken();
                    if observe(&self.progress).is_break() {
                        return Err(JobError::Stopped);
                    }
                }
            }
            self.progress.taken = taken_before + lines.taken();
        }
        // Whoever looks only at the last call sees the sums.
        let _ = observe(&self.progress);
        Ok(())
    }

    /// A file that is gone stays gone, unless its folder is; anything else may be a disk that comes back.
    fn unreadable(&self, job: &Job, path: &Path, error: io::Error) -> JobError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => {
                let mut roots = job.roots.iter().filter(|root| path.starts_with(root));
                match roots.find(|root| is_away(root)) {
                    Some(away) => {
                        let text = format!("the folder {} is away: {error}", away.display());
                        JobError::Disk(io::Error::new(error.kind(), text))
                    }
                    None => self.failed(error.to_string()),
                }
            }
            _ => JobError::Disk(error),
        }
    }

    fn take(&mut self, line: &InputLine<'_>, engine: &mut Engine<'_>) -> Result<(), JobError> {
        let counts = &mut self.progress.counts;
        let offset = counts.bytes;
        counts.bytes += line.bytes;
        counts.mended += u64::from(matches!(line.text, std::borrow::Cow::Owned(_)));
        let number = counts.lines + 1;
        let judged = if line.is_cut {
            counts.lines += 1;
            counts.rejected += 1;
            Judged::Rejected(format!("the line is longer than {LINE_BYTES_MAX} bytes, the rest is cut off"))
        } else {
            engine.judge(Line { text: &line.text, number, offset, key: self.key }, counts)
        };
        match judged {
            Judged::Row(row) => {
                self.tables.push(&mut self.staging, row).map_err(|error| self.table_error(error))
            }
            Judged::Dropped => Ok(()),
            Judged::Rejected(reason) => {
                self.rejects.push(&mut self.staging, number, &reason, &line.text)?;
                self.first_reject.get_or_insert_with(|| format!("line {number}: {reason}"));
                Ok(())
            }
        }
    }

    fn table_error(&self, error: TableError) -> JobError {
        match error {
            TableError::Disk(error) => JobError::Disk(error),
            other => self.failed(other.to_string()),
        }
    }

    fn judge(&self, recipe: &Recipe, lines_min: u64) -> Result<(), JobError> {
        let Counts { lines, rejected, .. } = self.progress.counts;
        if lines < lines_min {
            return Err(self.failed(format!(
                "its files have {lines} lines, and {lines_min} at least were stored: ship what is missing again (ferryctl repull --replace), \
                 then ask for the tables (ferryctl etl redo)"
            )));
        }
        let is_bad = lines >= JUDGED_LINES_MIN
            && u128::from(rejected) * 100 > u128::from(lines) * u128::from(recipe.rejected_percent_max);
        match &self.first_reject {
            Some(first) if is_bad => Err(self.failed(format!(
                "{rejected} of {lines} lines were rejected, more than {} %: the program does not fit the log; {first}",
                recipe.rejected_percent_max
            ))),
            _ => Ok(()),
        }
    }

    fn publish(mut self, store: &Store, inputs: &[PathBuf]) -> Result<DoneMark, JobError> {
        let finished = self.tables.finish(&mut self.staging);
        finished.map_err(|error| self.table_error(error))?;
        self.rejects.finish(&mut self.staging, self.key)?;
        Ok(store.publish(self.key, self.staging, &self.progress.counts, inputs)?)
    }
}
