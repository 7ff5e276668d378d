//! Starts the keeper on real files.

use super::calendar::Calendar;
use super::fact::HourKey;
use super::finishable::Finishing;
use super::hooks::HookKind;
use super::keeper::{Keeper, KeeperOptions, Places, SharedBooks, lock};
use super::mailbox::{Mailbox, Teller};
use super::marks::{LOG_DATA, Marks};
use super::news;
use super::other_files::FilesOf;
use super::redo::{self, Queued, Refused};
use super::report::{self, Filter, HourReport, Report};
use super::runner::{HourSink, Runner};
use crate::config::{HoursSettings, RepullSettings};
use crate::figures::Figures;
use crate::file::guard::{Guard, check_beside};
use crate::file::retire::Request;
use crate::file::store::Folders;
use crate::file::template::{Fields, Template};
use crate::finish::finisher::PlaceGuard;
use crate::finish::shell::FinishThread;
use crate::finish::{FinishSettings, Finisher, LogFiles, Pasts, Plan, RetentionSettings};
use crossbeam_channel::Sender;
use jiff::tz::TimeZone;
use logferry_durable::{Disk, RealDisk};
use logferry_node::monitor::hours::{HourNews, Told};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Wait before the books are opened again, when that failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Where problems of the books are shown.
const BOOKS: &str = "the books of the hours";

/// How the books are kept, and where they are shown.
#[derive(Clone)]
pub struct Hours {
    hours: HoursSettings,
    repull: RepullSettings,
    calendar: Calendar,
    books: Arc<OnceLock<SharedBooks>>,
    etl: Option<Arc<dyn HourSink>>,
    finish: Option<Finish>,
    /// For [`Hours::report`].
    pasts: Arc<Mutex<Pasts>>,
}

/// What becomes of complete files.
#[derive(Clone, Debug)]
pub struct Finish {
    /// `[finish]`.
    pub settings: FinishSettings,
    /// `[retention]`.
    pub retention: RetentionSettings,
    /// What follows from the settings.
    pub plan: Plan,
}

impl Hours {
    /// `zone` is the node's.
    ///
    /// # Errors
    /// A host's zone is not known.
    pub fn new(hours: HoursSettings, repull: RepullSettings, zone: TimeZone) -> Result<Hours, jiff::Error> {
        let calendar = Calendar::of(&hours, zone)?;
        Ok(Hours {
            hours,
            repull,
            calendar,
            books: Arc::default(),
            etl: None,
            finish: None,
            pasts: Arc::default(),
        })
    }

    /// Complete hours are put into `etl`, too.
    #[must_use]
    pub fn with_etl(self, etl: Option<Arc<dyn HourSink>>) -> Hours {
        Hours { etl, ..self }
    }

    /// Complete files are finished, and removed when they are old.
    #[must_use]
    pub fn with_finish(self, finish: Finish) -> Hours {
        Hours { finish: Some(finish), ..self }
    }

    /// The answer of `/hours`; none as long as the books are not open.
    pub fn report(&self, filter: &Filter) -> Option<Report> {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut report =
            self.books.get().map(|books| report::report(&lock(books), &self.calendar, filter, now_ms))?;
        if let Some(finish) = &self.finish {
            let mut pasts = self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
            for hour in &mut report.hours {
                // While they are away, the log files are all that can be named.
                if let Ok(files) = finish.plan.files_now(&hour.files, &mut pasts) {
                    hour.files = files;
                }
            }
        }
        Some(report)
    }

    /// Puts a complete hour into the queue of those that become tables, once more. One that the books have forgotten is known by its mark.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn redo_tables(
        &self,
        dir: &Path,
        template: &Template,
        request: redo::Request,
    ) -> Result<Queued, Refused> {
        let etl = self.etl.as_ref().ok_or(Refused::NoEtl)?;
        let books = self.books.get().ok_or(Refused::NotOpen)?;
        let redo::Request { source, host, hour } = request;
        let key = HourKey { source, host, hour };
        let path = expanded(template, &key)?;
        let known = {
            let books = lock(books);
            let is_known = books.hour(&key).is_some_and(|book| !book.parts.is_empty());
            is_known.then(|| report::complete_hour(&books, &key).ok_or(Refused::NotComplete(key.clone())))
        };
        let mut report = match known {
            Some(report) => report?,
            None => self.marked_hour(dir, &key, path)?,
        };
        if let Some(finish) = &self.finish {
            let files = finish.plan.files_now(&report.files, &mut Pasts::default());
            report.files = files.map_err(|error| Refused::Disk(error.to_string()))?;
        }
        let data = dir.join("log_data");
        if !report.files.iter().all(|file| data.join(file).exists()) {
            return Err(Refused::Gone(key));
        }
        etl.take(&report, &data).map_err(Refused::Disk)?;
        Ok(Queued { hour: key.to_string(), files: report.files })
    }

    fn marked_hour(&self, dir: &Path, key: &HourKey, path: String) -> Result<HourReport, Refused> {
        let marks = Marks::new(Arc::new(RealDisk), dir.join("received"), None);
        let found = marks.find([key].into_iter()).map_err(|error| Refused::Disk(error.to_string()))?;
        let lines = found.get(key).and_then(|lines| lines.iter().max().copied());
        let lines = lines.ok_or(Refused::NotComplete(key.clone()))?;
        Ok(HourReport::of_mark(key, lines, path))
    }

    /// What the monitor, which was `told` before, is told now; none as long as the books are not open.
    pub fn news(&self, told: &mut Told) -> Option<Vec<HourNews>> {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        self.books.get().map(|books| told.news(news::all(&lock(books), &self.calendar, now_ms)))
    }

    /// Starts the keeper of the books of the output in `dir`, whose header files have these committed lengths; `files_of` tells of others
    /// where hours have several. It ends when the teller is dropped.
    pub fn start(
        &self,
        (dir, var_dir): (&Path, &Path),
        committed: BTreeMap<String, u64>,
        files_of: Option<FilesOf>,
        figures: Arc<Figures>,
    ) -> io::Result<(Teller, JoinHandle<()>)> {
        let mailbox = Arc::new(Mailbox::default());
        let (hours, repull) = (self.hours.clone(), self.repull.clone());
        let plan = self.finish.as_ref().map(|finish| finish.plan.clone());
        let runner = Runner { hours, repull, dir: dir.to_owned(), etl: self.etl.clone(), plan };
        let (hours, var_dir, taken) = (self.clone(), var_dir.to_owned(), mailbox.clone());
        let keep = move || {
            let Some(keeper) = hours.open(&runner.dir, &var_dir, &figures, &taken) else { return };
            hours.books.get_or_init(|| keeper.books());
            let keeper = keeper.with_other_files(files_of);
            keeper.run(committed, &taken, &Arc::new(runner));
        };
        let thread = std::thread::Builder::new().name("hours".into()).spawn(keep)?;
        Ok((Teller::new(mailbox), thread))
    }

    /// Log files are recovered, and `requests` asks for what is committed of them: tables can be made.
    pub fn tell_of_files(&self, requests: Sender<Request>) {
        if let (Some(etl), Some(finish)) = (&self.etl, &self.finish) {
            etl.follow(LogFiles::new(finish.plan.clone(), requests));
        }
    }

    /// What the thread that finishes the files of the output in `dir` needs, if there is something to be done; which folders were used is
    /// remembered in `var_dir`.
    pub fn finisher(
        &self,
        (dir, var_dir): (&Path, &Path),
        removed_keep: Duration,
        requests: Sender<Request>,
        figures: Arc<Figures>,
        stop: CancellationToken,
    ) -> io::Result<Option<FinishThread>> {
        let Some(Finish { settings, retention, plan }) = self.finish.clone() else { return Ok(None) };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let ground = plan.ground(var_dir);
        match &ground {
            Some(ground) => ground.open()?,
            None => disk.create_dir_all(plan.dir())?,
        }
        let guard = Some(PlaceGuard { links: Guard::new(plan.dir())?, ground });
        let finisher =
            Finisher { disk: disk.clone(), folders: Folders::new(dir).with_form(plan.form), plan, guard };
        Ok(Some(FinishThread {
            finisher,
            finish: settings,
            retention,
            books: self.books.clone(),
            removed_keep,
            marks: Marks::new(disk, dir.join("received"), None),
            calendar: self.calendar.clone(),
            etl: self.etl.clone(),
            requests,
            files_of: None,
            figures,
            stop,
        }))
    }

    /// Tries until it succeeds: a full disk must not keep packs from being taken. None when the program stops before.
    fn open(&self, dir: &Path, var_dir: &Path, figures: &Arc<Figures>, mailbox: &Mailbox) -> Option<Keeper> {
        loop {
            match self.try_open(dir, var_dir, figures) {
                Ok(keeper) => {
                    figures.clear_file_problem(BOOKS);
                    return Some(keeper);
                }
                Err(error) if figures.set_file_problem(BOOKS, &error) => {
                    tracing::error!("the books of the hours cannot be opened, it is tried again: {error}");
                }
                Err(_) => {}
            }
            if mailbox.is_closed() {
                return None;
            }
            std::thread::sleep(REOPEN_PAUSE);
        }
    }

    fn try_open(&self, dir: &Path, var_dir: &Path, figures: &Arc<Figures>) -> io::Result<Keeper> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let received: PathBuf = dir.join("received");
        check_beside(&received, LOG_DATA)?;
        disk.create_dir_all(&received)?;
        let guard = Guard::new(&received)?;
        let marks = Marks::new(disk.clone(), received, Some(guard));
        let places = Places { disk, headers: dir.join("headers"), marks };
        Keeper::open(places, var_dir, self.calendar.clone(), self.options(), figures.clone())
    }

    fn options(&self) -> KeeperOptions {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let number = |setting: u64| usize::try_from(setting).unwrap_or(usize::MAX);
        let command = (!self.hours.on_complete.is_empty()).then_some(HookKind::Command);
        let webhook = (!self.hours.webhook.is_empty()).then_some(HookKind::Webhook);
        let etl = self.etl.as_ref().map(|_| HookKind::Etl);
        let finishing = match &self.finish {
            None => Finishing::Not,
            Some(finish) if finish.plan.stays_in_place() => Finishing::InPlace,
            Some(_) => Finishing::Elsewhere,
        };
        KeeperOptions {
            keep_ms: millis(self.hours.keep.0),
            memory_max: number(self.hours.memory.0),
            repull_wait_ms: millis(self.repull.wait.0),
            hosts_asked: self.repull.hosts.keys().cloned().collect(),
            hooks: command.into_iter().chain(webhook).chain(etl).collect(),
            hooks_at_once: number(self.hours.hooks_at_once),
            finishing,
        }
    }
}

/// Path of an hour's log file.
fn expanded(template: &Template, key: &HourKey) -> Result<String, Refused> {
    let fields = Fields {
        source: (!key.is_legacy()).then_some(key.source.as_str()),
        host: (!key.is_legacy()).then_some(key.host.as_str()),
        ip: &key.host,
        hour: key.hour.into(),
        stream: None,
    };
    let names = [&key.source, &key.host].into_iter().filter(|name| !name.is_empty());
    names.map(logferry_pack::Name::new).collect::<Result<Vec<_>, _>>().map_err(bad_name)?;
    template.expand(&fields).map_err(bad_name)
}

fn bad_name(error: impl std::fmt::Display) -> Refused {
    Refused::BadName(error.to_string())
}
