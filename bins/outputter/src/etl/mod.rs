//! Tables of complete hours: a durable queue of hours, and threads that make their tables.
//!
//! ```text
//! books ─ an hour is complete (again) ─▶ queue (fsynced) ─▶ workers ─▶ tables, etl_done/ or etl_fail/
//! ```
//!
//! An hour leaves the queue when its tables are in place or when it has failed for good; an hour that a full disk or a bad program
//! keeps waiting is named in `/readyz`. Programs, columns and lists are read anew for each hour, so that a mended one needs no restart.
//!
//! Not in here: how tables are made (`logferry-etl`), and when an hour is complete. Nothing of it can hold up packs.

pub mod figures;
mod settings;
mod shell;
mod worker;

pub use shell::EtlOutput;

use crate::config::EtlSettings;
use crate::file::mounted::Ground;
use crate::finish::LogFiles;

use figures::EtlFigures;
use logferry_durable::{DirLock, RealDisk, lock_dir};
use logferry_etl::publish::{Store, WORK_DIR};
use logferry_etl::queue::{DurableQueue, Wanted};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Whether tables can be made as the settings say: reads and compiles all files that they name.
///
/// # Errors
/// Names the file and what is wrong in it.
pub fn check(settings: &EtlSettings, zone: &str) -> Result<(), String> {
    let plan =
        logferry_etl::plan::Plan::load(&settings.plan_files()).map_err(|error| format!("etl: {error}"))?;
    plan.line_program(zone).map(drop).map_err(|error| format!("etl: {error}"))
}

/// The queue and its workers. Clones are handles to the same.
#[derive(Clone)]
pub struct Etl(Arc<Shared>);

struct Shared {
    settings: EtlSettings,
    /// Of times that have none.
    zone: String,
    /// Folders of log files.
    roots: Vec<PathBuf>,
    /// Tells whether the disk of the tables is there.
    ground: Ground,
    queue: Mutex<DurableQueue>,
    changed: Condvar,
    is_stopping: AtomicBool,
    /// Opened by the first worker that can: a folder that is away holds up nothing else.
    store: Mutex<Option<(Store, DirLock)>>,
    figures: EtlFigures,
    started: Instant,
    files: Option<SharedLogFiles>,
}

/// Filled in when the output's files are recovered.
type SharedLogFiles = Arc<Mutex<Option<LogFiles>>>;

/// A panic aborts the process, so poisoning tells nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Etl {
    /// Opens the queue in `var_dir`, of hours whose log files are below `roots` and are not written to any more.
    ///
    /// # Errors
    /// The queue cannot be read or made.
    pub fn open(settings: EtlSettings, var_dir: &Path, zone: &str, roots: Vec<PathBuf>) -> io::Result<Etl> {
        Etl::open_with(settings, var_dir, zone, roots, None)
    }

    /// The same beside an output that writes to the files: no hour is begun before `files` are known.
    fn open_with(
        settings: EtlSettings,
        var_dir: &Path,
        zone: &str,
        roots: Vec<PathBuf>,
        files: Option<SharedLogFiles>,
    ) -> io::Result<Etl> {
        let queue = DurableQueue::open(Arc::new(RealDisk), &var_dir.join("etl"))?;
        let figures = EtlFigures::default();
        figures.set_waiting(queue.queue().len());
        let ground = Ground::new("etl.dir", &settings.dir, WORK_DIR, var_dir);
        Ok(Etl(Arc::new(Shared {
            settings,
            zone: zone.to_owned(),
            roots,
            ground,
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            store: Mutex::new(None),
            figures,
            started: Instant::now(),
            files,
        })))
    }

    /// An hour is complete, perhaps again: durable when it returns.
    ///
    /// # Errors
    /// Those of the disk: to be said again.
    pub fn want(&self, wanted: Wanted) -> io::Result<()> {
        let mut queue = lock(&self.0.queue);
        let key = wanted.key.clone();
        if queue.want(wanted)? {
            tracing::debug!(hour = %key, "the hour waits for its tables");
        }
        self.0.figures.set_waiting(queue.queue().len());
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// There is no room for threads.
    pub fn start(&self) -> io::Result<Vec<JoinHandle<()>>> {
        let start = |number| {
            let shared = Arc::clone(&self.0);
            std::thread::Builder::new().name(format!("etl-{number}")).spawn(move || worker::run(&shared))
        };
        (0..self.0.settings.workers).map(start).collect()
    }

    /// Tells the workers to stop; what they have not finished is made anew after the next start.
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
    }

    /// The files are known.
    fn go_on(&self) {
        // Who looks whether they are holds the queue: nobody is woken in vain.
        drop(lock(&self.0.queue));
        self.0.changed.notify_all();
    }

    /// What keeps tables from being made.
    pub fn problems(&self) -> Vec<String> {
        self.0.figures.problems()
    }

    /// By name, for the admin endpoint.
    pub fn figures(&self) -> BTreeMap<String, u64> {
        self.0.figures.by_name()
    }
}

impl Shared {
    /// Whether log files may not be read yet.
    fn waits_for_files(&self) -> bool {
        self.files.as_ref().is_some_and(|files| lock(files).is_none())
    }

    fn log_files(&self) -> Option<LogFiles> {
        self.files.as_ref().and_then(|files| lock(files).clone())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The folder of tables; finishes what a crash left when it is opened.
    fn store(&self) -> io::Result<Store> {
        let mut opened = lock(&self.store);
        self.ground.check()?;
        if let Some((store, _)) = &*opened {
            return Ok(store.clone());
        }
        self.ground.open()?;
        let held = lock_dir(&Store::work_dir(&self.settings.dir))?;
        let (store, recovered) = Store::open(Arc::new(RealDisk), &self.settings.dir)?;
        if recovered != logferry_etl::publish::Recovered::default() {
            let (finished, removed) = (recovered.finished, recovered.removed);
            tracing::info!(finished, removed, "hours of an earlier run were put into place, remains removed");
        }
        *opened = Some((store.clone(), held));
        Ok(store)
    }
}
