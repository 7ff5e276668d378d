//! ETL as the outputter runs it: or nothing, when it is not configured.

use super::{Etl, SharedLogFiles, lock};
use crate::config::EtlSettings;
use crate::finish::LogFiles;
use crate::hours::fact;
use crate::hours::report::HourReport;
use crate::hours::runner::HourSink;
use anyhow::Context;
use logferry_etl::hour::HourKey;
use logferry_etl::queue::Wanted;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wait before the queue is opened again, when that failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// The queue and its threads, if `[etl]` is there. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct EtlOutput {
    running: Option<Arc<Running>>,
}

struct Running {
    /// Filled in once it can be opened: a full disk holds up nothing else.
    etl: OnceLock<Etl>,
    /// Why it is not open.
    problem: Mutex<Option<String>>,
    is_stopping: Mutex<bool>,
    stopping: Condvar,
    files: SharedLogFiles,
    /// Opens the queue, and ends with its workers.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EtlOutput {
    /// Opens the queue and starts the workers, or tries that until it succeeds. Log files are below `roots`; hours wait until who writes to
    /// them has told of them ([`HourSink::follow`]).
    ///
    /// # Errors
    /// There is no room for threads.
    pub fn start(
        settings: Option<EtlSettings>,
        var_dir: &Path,
        zone: &str,
        roots: Vec<PathBuf>,
    ) -> anyhow::Result<EtlOutput> {
        let Some(settings) = settings else { return Ok(EtlOutput::default()) };
        let running = Arc::new(Running {
            etl: OnceLock::new(),
            problem: Mutex::default(),
            is_stopping: Mutex::default(),
            stopping: Condvar::new(),
            files: SharedLogFiles::default(),
            thread: Mutex::default(),
        });
        let (var_dir, zone, opened) = (var_dir.to_owned(), zone.to_owned(), Arc::clone(&running));
        let files = running.files.clone();
        let open =
            move || Etl::open_with(settings.clone(), &var_dir, &zone, roots.clone(), Some(files.clone()));
        let workers = running.try_start(&open);
        let thread = std::thread::Builder::new().name("etl".into()).spawn(move || opened.run(workers, open));
        *lock(&running.thread) = Some(thread.context("no thread for [etl]")?);
        Ok(EtlOutput { running: Some(running) })
    }

    /// What takes complete hours.
    pub fn sink(&self) -> Option<Arc<dyn HourSink>> {
        self.running.clone().map(|running| running as Arc<dyn HourSink>)
    }

    /// What keeps tables from being made.
    pub fn problems(&self) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let unopened = lock(&running.problem).clone();
        running.etl.get().map(Etl::problems).into_iter().flatten().chain(unopened).collect()
    }

    /// By name, for the admin endpoint.
    pub fn figures(&self) -> BTreeMap<String, u64> {
        let etl = self.running.as_ref().and_then(|running| running.etl.get());
        etl.map(Etl::figures).unwrap_or_default()
    }

    /// Stops the workers and waits for them; what they have not finished is made anew after the next start.
    pub fn finish(&self) {
        let Some(running) = &self.running else { return };
        *lock(&running.is_stopping) = true;
        running.stopping.notify_all();
        if let Some(thread) = lock(&running.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Running {
    /// Until it is to stop.
    fn run(&self, mut workers: Option<Vec<JoinHandle<()>>>, open: impl Fn() -> io::Result<Etl>) {
        while workers.is_none() {
            if self.wait(Some(REOPEN_PAUSE)) {
                return;
            }
            workers = self.try_start(&open);
        }
        self.wait(None);
        if let Some(etl) = self.etl.get() {
            etl.stop();
        }
        for worker in workers.into_iter().flatten() {
            // A panic aborts the process, so there is nothing to be told.
            let _ = worker.join();
        }
    }

    fn try_start(&self, open: &impl Fn() -> io::Result<Etl>) -> Option<Vec<JoinHandle<()>>> {
        match open().and_then(|etl| Ok((etl.start().inspect_err(|_| etl.stop())?, etl))) {
            Ok((workers, etl)) => {
                self.etl.get_or_init(|| etl);
                if lock(&self.problem).take().is_some() {
                    tracing::info!("the queue of hours for [etl] is open");
                }
                Some(workers)
            }
            Err(error) => {
                let problem =
                    format!("etl: the queue of hours cannot be opened, complete hours wait: {error}");
                if lock(&self.problem).replace(problem.clone()).as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                None
            }
        }
    }

    /// Until it is to stop, or so long. Gives whether it is to stop.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let is_stopping = lock(&self.is_stopping);
        match longest {
            None => {
                *self.stopping.wait_while(is_stopping, |stop| !*stop).unwrap_or_else(PoisonError::into_inner)
            }
            Some(longest) => {
                let waited = self.stopping.wait_timeout_while(is_stopping, longest, |stop| !*stop);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

impl HourSink for Running {
    fn follow(&self, files: LogFiles) {
        *lock(&self.files) = Some(files);
        if let Some(etl) = self.etl.get() {
            etl.go_on();
        }
    }

    fn holds(&self, key: &fact::HourKey) -> bool {
        // What a queue has that is not open yet, nobody knows.
        let Some(etl) = self.etl.get() else { return true };
        // One that has no key there was never taken.
        HourKey::new(&key.source, &key.host, Some(key.hour))
            .is_ok_and(|key| lock(&etl.0.queue).queue().holds(&key))
    }

    fn take(&self, report: &HourReport, data: &Path) -> Result<(), String> {
        let etl = self.etl.get().ok_or("the queue of hours for [etl] is not open yet")?;
        let hour = report.hour.parse().map_err(|_| format!("{:?} is no hour", report.hour))?;
        let key =
            HourKey::new(&report.source, &report.host, Some(hour)).map_err(|error| error.to_string())?;
        let paths = report.files.iter().map(|path| data.join(path)).collect();
        let total = report.total.unwrap_or(report.packs);
        etl.want(Wanted { key, total, lines: report.lines, paths }).map_err(|error| error.to_string())
    }
}
