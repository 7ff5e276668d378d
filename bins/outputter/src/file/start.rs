//! The start of the file output: recovery, then all that is around the committer. A disk of the files that is away is waited for; where there
//! is a spool for them, packs are taken meanwhile, judged by what the journal says.

use super::archive::Form;
use super::commit::{self, Committer, CommitterOptions, SharedOrder};
use super::file_recovery::FileRecovery;
use super::guard::Guards;
use super::mounted;
use super::own_fault::is_own_fault;
use super::recovery::{self, Failure, Recovered, Recovery};
use super::replace;
use super::store::{Folders, StoreOptions};
use super::template::Template;
use crate::config::FileSettings;
use crate::figures::Figures;
use crate::finish::shell::{FINISH_DIR, FinishThread, tell_of_folder};
use crate::hours::other_files;
use crate::hours::shell::Hours;
use crate::outputs::route::Reply;
use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use logferry_durable::{Disk, RealDisk, is_full};
use logferry_footprint::Footprint;
use logferry_pack::Limits;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a folder of finished files that is away is looked for.
const FINISH_DIR_INTERVAL: Duration = Duration::from_secs(5);
/// A log file and its header file.
const DESCRIPTORS_PER_FILE: usize = 2;

/// What the file output is put together from.
pub(super) struct Start {
    pub(super) settings: FileSettings,
    pub(super) var_dir: PathBuf,
    pub(super) limits: Limits,
    pub(super) stop: CancellationToken,
    pub(super) figures: Arc<Figures>,
    pub(super) hours: Option<Hours>,
}

/// Files and journal, brought to one truth.
pub(super) struct Files {
    recovery: FileRecovery,
    recovered: Recovered,
}

impl Files {
    /// What is committed; to be taken once.
    pub(super) fn take_footprint(&mut self) -> Footprint {
        std::mem::take(&mut self.recovered.state.footprint)
    }
}

/// How the output begins.
pub(super) enum Beginning {
    Whole(Box<Files>),
    /// The files are away. What the journal says is committed.
    Away(Footprint),
}

/// The committer, and threads that end after it.
pub(super) struct Assembled {
    pub(super) committer: Committer<Reply>,
    pub(super) helpers: Vec<JoinHandle<()>>,
}

impl Start {
    /// Recovers, and waits while the disk has no room for the journal or that of the files is away; for the files it does not wait when
    /// packs `can_wait` for them in a spool.
    pub(super) fn begin(&self, can_wait: bool) -> anyhow::Result<Beginning> {
        self.figures.set_problem(Some("starting: files and journal are being recovered".into()));
        let mut said = String::new();
        loop {
            let failure = match self.recover() {
                Ok(files) => return Ok(Beginning::Whole(Box::new(files))),
                Err(failure) => failure,
            };
            if !passes(&failure) || self.stop.is_cancelled() {
                return Err(failure.into());
            }
            self.say(&failure, &mut said);
            // Without a sound journal nobody knows which packs were written.
            if can_wait
                && matches!(failure, Failure::Files(_))
                && let Some(state) = recovery::journaled(&RealDisk, &self.var_dir)?
            {
                return Ok(Beginning::Away(state.footprint));
            }
            commit::pause(&self.stop);
        }
    }

    /// Waits until files that were away are recovered, and goes on with them; `None` when the program stops before.
    pub(super) fn wait(&self, order: &SharedOrder<Reply>, ended: &Receiver<()>) -> Option<Assembled> {
        let mut said = String::new();
        while commit::pause(&self.stop) {
            let assembled = self.recover().map_err(anyhow::Error::new).and_then(|mut files| {
                commit::lock(order).recovered(self.limited(files.take_footprint()));
                self.assemble(files, order, ended.clone())
            });
            match assembled {
                Ok(assembled) => {
                    commit::lock(order).healed();
                    self.figures.set_problem(None);
                    tracing::info!("the output can be written again");
                    return Some(assembled);
                }
                Err(error) => self.say(&error, &mut said),
            }
        }
        None
    }

    fn say(&self, failure: &impl ToString, said: &mut String) {
        let text = failure.to_string();
        let problem = format!("the output cannot be written: {text}");
        if *said != text {
            tracing::error!("{problem}; it is tried again");
        }
        *said = text;
        self.figures.set_problem(Some(problem));
    }

    pub(super) fn limited(&self, footprint: Footprint) -> Footprint {
        let bytes_max = usize::try_from(self.settings.footprint_memory.0).unwrap_or(usize::MAX);
        footprint.limited(bytes_max, logferry_footprint::WhenFull::RefuseNew)
    }

    fn recover(&self) -> Result<Files, Failure> {
        let recovery = self.open().map_err(Failure::Files)?;
        let recovered =
            Recovery { files: &recovery, var_dir: &self.var_dir, now_unix: commit::now_unix() }.run()?;
        Ok(Files { recovery, recovered })
    }

    /// Opens the folders, which are created at the first start.
    fn open(&self) -> io::Result<FileRecovery> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let form = Form::of(&self.settings.archive);
        let dir = &self.settings.dir;
        let folders = Folders::new(dir).with_form(form);
        mounted::check_files(&folders, || {
            let state = recovery::journaled(&RealDisk, &self.var_dir)?;
            Ok(state.map(|state| state.files).unwrap_or_default())
        })?;
        disk.create_dir_all(dir)?;
        form.settle(&*disk, dir)?;
        for folder in [&folders.data, &folders.headers] {
            disk.create_dir_all(folder)?;
        }
        let guards = Some(Arc::new(Guards::new(&folders)?));
        let group_bytes_max = self.group_bytes_max() + self.limits.raw_bytes_max as u64;
        Ok(FileRecovery { disk, folders, guards, group_bytes_max })
    }

    fn group_bytes_max(&self) -> u64 {
        self.settings.inflate_memory.0 / 2
    }

    /// Puts the committer together, and starts the threads that work with it. Files are finished until `ended`.
    pub(super) fn assemble(
        &self,
        Files { recovery, recovered }: Files,
        order: &SharedOrder<Reply>,
        ended: Receiver<()>,
    ) -> anyhow::Result<Assembled> {
        let Start { settings, var_dir, figures, .. } = self;
        let options = CommitterOptions {
            answer: Reply::send_written,
            store: store_options(settings),
            group_bytes_max: usize::try_from(self.group_bytes_max()).unwrap_or(usize::MAX),
            footprint_keep_secs: settings.footprint_keep.0.as_secs(),
            free_min: settings.min_free.0,
        };
        let committed = recovered.state.files.iter();
        let committed = committed.filter(|(path, _)| !replace::is_aside(path));
        let committed = committed.map(|(path, lengths)| (path.clone(), lengths.headers)).collect();
        let mut committer = Committer::new(recovery, recovered, order.clone(), figures.clone(), options);
        let mut helpers = Vec::new();
        if let Some(hours) = &self.hours {
            let (requests, asked) = crossbeam_channel::unbounded();
            committer.listen_to(asked);
            // First, because it may fail, and the books are to be opened once.
            helpers.extend(self.start_finisher(hours.clone(), requests.clone(), ended)?);
            let files_of = other_files::asking(Template::parse(&settings.path)?, requests.clone());
            let folders = (settings.dir.as_path(), var_dir.as_path());
            let (teller, keeper) = hours.start(folders, committed, files_of, figures.clone())?;
            helpers.push(keeper);
            committer.tell_hours(teller);
            hours.tell_of_files(requests);
        }
        Ok(Assembled { committer, helpers })
    }

    /// A folder of finished files that is on a disk that is away is waited for; all else that keeps it from being used is a wrong setting.
    fn start_finisher(
        &self,
        hours: Hours,
        requests: crossbeam_channel::Sender<super::retire::Request>,
        ended: Receiver<()>,
    ) -> anyhow::Result<Option<JoinHandle<()>>> {
        let (dir, var_dir) = (self.settings.dir.clone(), self.var_dir.clone());
        let keep = self.settings.footprint_keep.0;
        let (figures, stop) = (self.figures.clone(), self.stop.clone());
        let template = Template::parse(&self.settings.path)?;
        let make = move || {
            let files_of = other_files::asking(template.clone(), requests.clone());
            let folders = (dir.as_path(), var_dir.as_path());
            let made = hours.finisher(folders, keep, requests.clone(), figures.clone(), stop.clone())?;
            Ok(made.map(|finisher| FinishThread { files_of, ..finisher }))
        };
        let first = match make() {
            Ok(None) => return Ok(None),
            Err(error) if !is_away(&error) => return Err(error).context("finish.dir cannot be used"),
            first => first,
        };
        let figures = self.figures.clone();
        let finish = move || {
            if let Some(finisher) = wait_for_finisher(first, make, &figures, &ended) {
                finisher.run(&ended);
            }
        };
        Ok(Some(std::thread::Builder::new().name("finish".into()).spawn(finish)?))
    }
}

fn wait_for_finisher(
    first: io::Result<Option<FinishThread>>,
    make: impl Fn() -> io::Result<Option<FinishThread>>,
    figures: &Figures,
    ended: &Receiver<()>,
) -> Option<FinishThread> {
    let mut made = first;
    loop {
        match made {
            Ok(finisher) => {
                figures.clear_notice(FINISH_DIR);
                return finisher;
            }
            Err(error) => tell_of_folder(figures, &error),
        }
        if !matches!(ended.recv_timeout(FINISH_DIR_INTERVAL), Err(RecvTimeoutError::Timeout)) {
            return None;
        }
        made = make();
    }
}

/// Whether a start that fails like this may succeed later without anybody changing a setting.
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Journal(error) => is_full(error),
        Failure::Files(error) => is_away(error),
    }
}

/// Whether an error says that a disk is not there now, fails, or takes nothing, rather than that something else is where a folder should be
/// or may not be used.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, NotFound};
    !is_own_fault(error) && !matches!(error.kind(), NotFound | AlreadyExists)
}

fn store_options(settings: &FileSettings) -> StoreOptions {
    let number = |setting| usize::try_from(setting).unwrap_or(usize::MAX);
    StoreOptions {
        sync: settings.sync,
        open_max: number(settings.open_files_max).min(open_files_possible()),
        sync_threads: number(settings.sync_threads),
    }
}

/// Log files that half of the descriptors allow; the rest is for connections and the program itself.
fn open_files_possible() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    (descriptors / 2 / DESCRIPTORS_PER_FILE).max(1)
}
