//! One worker: takes the oldest hour that waits, makes its tables, says what became of it.

use super::{Shared, lock};
use crate::finish::LogFiles;
use logferry_etl::counts::Counts;
use logferry_etl::job::{Job, JobError, Progress, Recipe};
use logferry_etl::plan::Plan;
use logferry_etl::publish::DoneMark;
use logferry_etl::queue::{Ended, Wanted};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Longest wait without a look at the queue.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two lines in the log about an hour that takes long.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// Endings of files that were compressed when their hour was complete.
const COMPRESSED: [&str; 2] = ["zst", "gz"];
/// So often files may be moved while the tables of an hour are made.
const MOVES_MAX: usize = 3;

/// Why an attempt did not come to an end.
enum Hindered {
    Job(JobError),
    /// Program, columns, lists or folder cannot be used: to be tried again, because an operator can mend them.
    Setup(String),
}

impl From<io::Error> for Hindered {
    fn from(error: io::Error) -> Hindered {
        Hindered::Job(JobError::Disk(error))
    }
}

/// Works until it is told to stop.
pub(super) fn run(shared: &Shared) {
    while let Some(wanted) = next(shared) {
        let ended = match make(shared, &wanted) {
            Ok(mark) => done(shared, &wanted, &mark),
            Err(hindered) => hindered_by(shared, &wanted, hindered),
        };
        let mut queue = lock(&shared.queue);
        if let Err(error) = queue.ended(&wanted, ended, shared.now_ms()) {
            tracing::warn!(hour = %wanted.key, "the queue of hours cannot be written, the hour's tables are made again after a restart: {error}");
        }
        shared.figures.set_waiting(queue.queue().len());
    }
}

/// Waits for an hour; `None` when it is time to stop.
fn next(shared: &Shared) -> Option<Wanted> {
    let mut queue = lock(&shared.queue);
    loop {
        if shared.is_stopping.load(Ordering::Relaxed) {
            return None;
        }
        if shared.waits_for_files() {
            queue = shared.changed.wait_timeout(queue, WAIT_MAX).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let now_ms = shared.now_ms();
        if let Some(wanted) = queue.start(now_ms) {
            return Some(wanted);
        }
        let due = queue.queue().due_ms().map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
        let wait = due.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        queue = shared.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn make(shared: &Shared, wanted: &Wanted) -> Result<DoneMark, Hindered> {
    let setup = |error: &dyn std::fmt::Display| Hindered::Setup(error.to_string());
    let store = shared.store().map_err(|error| setup(&error))?;
    let plan = Plan::load(&shared.settings.plan_files()).map_err(|error| setup(&error))?;
    let mut program = plan.line_program(&shared.zone).map_err(|error| setup(&error))?;
    if shared.figures.set_setup_problem(None) {
        tracing::info!("tables can be made again");
    }
    let recipe = Recipe {
        format: shared.settings.table_format(),
        columns: plan.columns.clone(),
        bounds: shared.settings.bounds(),
        rejected_percent_max: shared.settings.rejected_percent_max,
    };
    // Packs of legacy nodes, which have no source, may end without a newline: then the line behind it is of the same line.
    let unended_max = if wanted.key.source.is_empty() { wanted.total } else { 0 };
    let lines_min = wanted.lines.saturating_sub(unended_max);
    let log_files = shared.log_files();
    let mut job = Job {
        key: wanted.key.clone(),
        paths: paths_now(&wanted.paths, log_files.as_ref())?,
        lines_min,
        roots: shared.roots.clone(),
        committed: BTreeMap::new(),
    };
    let mut watch = Watch::new(shared, wanted);
    let mut moves = 0;
    loop {
        job.committed = committed(&job.paths, log_files.as_ref())?;
        let made = job.run(&store, &recipe, &mut *program, &plan.lists, &mut |progress| watch.see(progress));
        if !matches!(made, Err(JobError::Failed { .. })) || moves == MOVES_MAX {
            return made.map_err(Hindered::Job);
        }
        // A file may be finished just before it is opened: that of an hour whose tables are to be made again.
        let paths = paths_now(&wanted.paths, log_files.as_ref())?;
        if paths == job.paths {
            return made.map_err(Hindered::Job);
        }
        (job.paths, moves) = (paths, moves + 1);
        watch.begin_anew();
    }
}

/// Where the lines of these files are now: one that was finished since has taken what late lines were in.
fn paths_now(paths: &[PathBuf], log_files: Option<&LogFiles>) -> io::Result<Vec<PathBuf>> {
    let mut now: Vec<PathBuf> = Vec::new();
    for path in paths {
        for path in existing(path, log_files)? {
            if !now.contains(&path) {
                now.push(path);
            }
        }
    }
    Ok(now)
}

/// Of those that may be written to, what is committed.
fn committed(paths: &[PathBuf], log_files: Option<&LogFiles>) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut committed = BTreeMap::new();
    for (path, log_files) in paths.iter().filter_map(|path| Some((path, log_files?))) {
        committed.extend(log_files.committed(path)?.map(|bytes| (path.clone(), bytes)));
    }
    Ok(committed)
}

/// `path`, and what it became when it was finished, or compressed by somebody.
fn existing(path: &Path, log_files: Option<&LogFiles>) -> io::Result<Vec<PathBuf>> {
    let mut files = log_files.map_or_else(|| Ok(Vec::new()), |log_files| log_files.now(path))?;
    files.retain(|file| file.exists());
    if files.is_empty() {
        let compressed = COMPRESSED.map(|ending| PathBuf::from(format!("{}.{ending}", path.display())));
        let there = std::iter::once(path.to_owned()).chain(compressed).find(|path| path.exists());
        files.push(there.unwrap_or_else(|| path.to_owned()));
    }
    Ok(files)
}

/// Watches a job: counts, tells, stops.
struct Watch<'a> {
    shared: &'a Shared,
    wanted: &'a Wanted,
    counted: Counts,
    told: Instant,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, wanted: &'a Wanted) -> Watch<'a> {
        Watch { shared, wanted, counted: Counts::default(), told: Instant::now() }
    }

    /// The job is begun again; what it counted until then counts again.
    fn begin_anew(&mut self) {
        self.counted = Counts::default();
    }

    fn see(&mut self, progress: &Progress) -> ControlFlow<()> {
        self.shared.figures.count(&progress.counts.since(&self.counted));
        self.counted = progress.counts;
        if self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            let percent = progress.taken * 100 / progress.file_bytes.max(1);
            let Counts { lines, rows, rejected, .. } = progress.counts;
            tracing::info!(hour = %self.wanted.key, percent, lines, rows, rejected, "making tables");
        }
        if self.shared.is_stopping.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn done(shared: &Shared, wanted: &Wanted, mark: &DoneMark) -> Ended {
    shared.figures.clear_problem(&wanted.key);
    shared.figures.count_done();
    let Counts { lines, rows, rejected, spiders, dropped_program, dropped_host, dropped_ip, .. } =
        mark.counts;
    tracing::info!(
        hour = %wanted.key, tables = mark.tables, lines, rows, rejected, spiders, dropped_program, dropped_host, dropped_ip,
        "the hour's tables are in place"
    );
    if lines > 0 && rows == 0 {
        tracing::warn!(hour = %wanted.key, lines, rejected, dropped_program, dropped_host, dropped_ip, "no line of the hour became a row: do the lists and the program fit the log?");
    }
    Ended::Settled
}

fn hindered_by(shared: &Shared, wanted: &Wanted, hindered: Hindered) -> Ended {
    let hour = &wanted.key;
    match hindered {
        Hindered::Job(JobError::Stopped) => return Ended::Stopped,
        // The output ends before its tables do.
        Hindered::Job(JobError::Disk(_)) if shared.is_stopping.load(Ordering::Relaxed) => {
            return Ended::Stopped;
        }
        Hindered::Job(JobError::Failed { reason, .. }) => {
            shared.figures.clear_problem(hour);
            shared.figures.count_failed();
            tracing::error!(%hour, "the hour has no (new) tables, its mark is under etl_fail/: {reason}");
            return Ended::Settled;
        }
        Hindered::Job(JobError::Disk(error)) => {
            if shared.figures.set_problem(hour, error.to_string()) {
                tracing::error!(%hour, "the hour's tables cannot be made, it waits: {error}");
            }
        }
        Hindered::Setup(error) => {
            if shared.figures.set_setup_problem(Some(error.clone())) {
                metrics::counter!("logferry_outputter_etl_setup_failures_total").increment(1);
                tracing::error!(%hour, "tables cannot be made, complete hours wait: {error}");
            }
        }
    }
    Ended::TryAgain
}
