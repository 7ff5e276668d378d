//! Keeps the books: counts what the committer tells, reads what it did not, writes marks, and says what is to be run.

use super::books::Books;
use super::calendar::Calendar;
use super::catch_up::{self, Last};
use super::fact::HourKey;
use super::finishable::Finishing;
use super::hooks::{DueHook, HookKind, HookQueue};
use super::lookup::Lookup;
use super::mailbox::{Mail, Mailbox, News};
use super::marks::Marks;
use super::notices;
use super::other_files::FilesOf;
use super::report;
use super::runner::{Ended, Job, Runner};
use super::shrink::Squeezed;
use super::state::{self, Change};
use crate::figures::Figures;
use logferry_durable::{Disk, Log};
use metrics::{counter, gauge};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Name of the log of the books in `var_dir`.
pub const LOG: &str = "hours";
/// Longest that the keeper sleeps: hooks may be due again.
const TICK: Duration = Duration::from_secs(1);
/// How often old hours and wanted repulls are looked for, and for each hour that is known so much less often: looking goes through all.
const LOOK_INTERVAL_MS: i64 = 1_000;
const LOOK_INTERVAL_PER_HOUR_US: i64 = 500;
/// How often the books are saved when they changed; what came since is read again from the header files.
const SAVE_INTERVAL_MS: i64 = 60_000;
/// How long after a failure a header file is read or a mark written again.
pub(super) const RETRY_MS: i64 = 5_000;
/// Packs that came so long before the books were saved are in them: news of them may lag, and times at which clocks were set back mean two.
const SAVED_LAG_MS: i64 = 2 * 3_600_000;
/// Repulls that are asked for at a time.
const ASKING_MAX: usize = 2;

/// The books, shared with whoever shows them.
pub type SharedBooks = Arc<Mutex<Books>>;

/// Locks the books. A panic aborts the process, so poisoning tells nothing.
pub fn lock(books: &SharedBooks) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How to keep them.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// How long an hour is remembered after its last pack, in milliseconds.
    pub keep_ms: i64,
    /// Memory of the books, in bytes.
    pub memory_max: usize,
    /// How long packs may be missing before a repull is wanted, in milliseconds.
    pub repull_wait_ms: i64,
    /// Hosts whose tailers can be asked.
    pub hosts_asked: BTreeSet<String>,
    /// Which hooks there are.
    pub hooks: Vec<HookKind>,
    /// Hooks that run at a time.
    pub hooks_at_once: usize,
    /// What becomes of log files of complete hours.
    pub finishing: Finishing,
}

/// Where things are.
pub struct Places {
    /// File system.
    pub disk: Arc<dyn Disk>,
    /// Folder of the header files.
    pub headers: PathBuf,
    /// Writes marks.
    pub marks: Marks,
}

/// The keeper of the books: one thread.
pub struct Keeper {
    pub(super) places: Places,
    pub(super) calendar: Calendar,
    pub(super) options: KeeperOptions,
    pub(super) books: SharedBooks,
    log: Log,
    /// The books that were found lack at most what came last.
    is_sound: bool,
    /// When the books that were found were saved.
    saved_before_ms: Option<i64>,
    pub(super) hooks: HookQueue,
    pub(super) lookup: Lookup,
    pub(super) files_of: Option<FilesOf>,
    /// Why a hook of a kind failed last.
    hook_errors: BTreeMap<HookKind, String>,
    /// Repulls that are being asked for.
    asking: usize,
    /// Header files that could not be read, and their committed lengths.
    pub(super) unread: BTreeMap<String, u64>,
    /// The same of those that say that all was removed.
    removed: BTreeMap<String, u64>,
    retry_at_ms: i64,
    /// The books changed since they were saved.
    pub(super) is_changed: bool,
    saved_ms: i64,
    /// When old hours and wanted repulls are looked for next.
    look_at_ms: i64,
    pub(super) figures: Arc<Figures>,
}

impl Keeper {
    /// Opens the books in `var_dir`. Damage never keeps them from being opened: what is lost is read again.
    pub fn open(
        places: Places,
        var_dir: &Path,
        calendar: Calendar,
        options: KeeperOptions,
        figures: Arc<Figures>,
    ) -> io::Result<Keeper> {
        let (log, found) = Log::open(places.disk.clone(), var_dir, LOG)?;
        let (books, is_sound) = state::read(&found);
        if !is_sound && !found.is_new() {
            tracing::error!(report = %found.report, "the books of the hours are damaged: reading all header files");
        }
        Ok(Keeper {
            places,
            calendar,
            options,
            saved_before_ms: books.saved_ms(),
            books: Arc::new(Mutex::new(books)),
            log,
            is_sound,
            hooks: HookQueue::default(),
            lookup: Lookup::default(),
            files_of: None,
            hook_errors: BTreeMap::new(),
            asking: 0,
            unread: BTreeMap::new(),
            removed: BTreeMap::new(),
            retry_at_ms: 0,
            is_changed: true,
            saved_ms: 0,
            look_at_ms: i64::MIN,
            figures,
        })
    }

    /// Hours may be spread over several files: they are asked for where those that are known are not all.
    #[must_use]
    pub fn with_other_files(self, files_of: Option<FilesOf>) -> Keeper {
        Keeper { files_of, ..self }
    }

    /// The books, for whoever shows them.
    pub fn books(&self) -> SharedBooks {
        self.books.clone()
    }

    /// Brings the books up to the header files: `committed` has the path and the committed length of each.
    pub fn catch_up(&mut self, committed: impl IntoIterator<Item = (String, u64)>, now_ms: i64) {
        let mut removed: BTreeMap<HourKey, Vec<(String, u64)>> = BTreeMap::new();
        for (path, to) in committed {
            let counted = lock(&self.books).counted(&path);
            if counted.is_none() && self.is_quiet(&path, now_ms) {
                continue;
            }
            let forgotten = if counted.is_none() { self.forgotten(&path, to, now_ms) } else { None };
            match forgotten {
                Some(last) if last.is_removed => removed.entry(last.key).or_default().push((path, to)),
                None if counted != Some(to) => self.take_news(News::to_be_read(path, to), now_ms),
                _ => {}
            }
        }
        // A kill may have come before their marks went.
        let marked = self.places.marks.find(removed.keys()).unwrap_or_default();
        for (path, to) in marked.keys().filter_map(|key| removed.get(*key)).flatten() {
            self.take_news(News::to_be_read(path.clone(), *to), now_ms);
        }
        self.take_removed(now_ms);
        let mut books = lock(&self.books);
        // Marks may be there that the books do not know of, because they were not saved since, or be gone.
        self.lookup.all(&books);
        books.expect_finisher(self.options.finishing);
    }

    /// The end of a file that the books do not know because all of it is older than what they remember, and not because they were not saved since.
    fn forgotten(&self, path: &str, to: u64, now_ms: i64) -> Option<Last> {
        let forgotten_to_ms = self.forgotten_to_ms(now_ms)?;
        let opened = self.places.disk.open(&self.places.headers.join(path));
        let last = opened.and_then(|file| catch_up::last(&*file, to, self.calendar.own_zone())).ok()??;
        (last.at_ms < forgotten_to_ms).then_some(last)
    }

    /// Whether a header file was not even written since: what it says was known and is forgotten, and nobody needs to open it.
    fn is_quiet(&self, path: &str, now_ms: i64) -> bool {
        let modified_ms = || self.places.disk.modified_ms(&self.places.headers.join(path));
        self.forgotten_to_ms(now_ms)
            .is_some_and(|forgotten_ms| modified_ms().is_some_and(|at_ms| at_ms < forgotten_ms))
    }

    /// Packs that came before that were in the books, and are forgotten.
    fn forgotten_to_ms(&self, now_ms: i64) -> Option<i64> {
        let keep_ms = self.options.keep_ms;
        let saved_ms = self.saved_before_ms.filter(|_| self.is_sound)?;
        let known_to_ms = saved_ms.saturating_sub(SAVED_LAG_MS.min(keep_ms));
        Some(known_to_ms.min(now_ms.saturating_sub(keep_ms)))
    }

    /// Takes what came, and gives back what is to be run.
    pub fn step(&mut self, mail: Mail, now_ms: i64) -> Vec<Job> {
        for news in mail.news {
            self.take_news(news, now_ms);
        }
        for ended in mail.ended {
            self.take_ended(ended, now_ms);
        }
        if now_ms >= self.retry_at_ms && !self.unread.is_empty() {
            self.retry_at_ms = now_ms + RETRY_MS;
            for (path, to) in std::mem::take(&mut self.unread) {
                self.take_news(News::to_be_read(path, to), now_ms);
            }
        }
        self.take_removed(now_ms);
        self.settle(now_ms);
        let mut jobs = self.hooks_due(now_ms);
        if now_ms >= self.look_at_ms {
            let known = i64::try_from(lock(&self.books).hours().count()).unwrap_or(i64::MAX);
            let slower_ms = known.saturating_mul(LOOK_INTERVAL_PER_HOUR_US) / 1_000;
            self.look_at_ms = now_ms.saturating_add(LOOK_INTERVAL_MS).saturating_add(slower_ms);
            jobs.extend(self.repulls_due(now_ms));
            self.expire(now_ms);
            self.show();
        }
        let is_due = self.is_changed && now_ms.saturating_sub(self.saved_ms) >= SAVE_INTERVAL_MS;
        if is_due || (self.log.wants_snapshot() && !self.log.is_poisoned()) {
            self.save(now_ms);
        } else {
            self.commit();
        }
        jobs
    }

    /// What fails is in the next snapshot. Until then a hook that has run may run again after a kill, a repull be asked for once more.
    fn commit(&mut self) {
        let was_failing = self.log.is_poisoned();
        if let Err(error) = self.log.commit()
            && !was_failing
        {
            tracing::warn!("what became of hours is not written before the books are saved again: {error}");
        }
    }

    fn take_news(&mut self, news: News, now_ms: i64) {
        let is_known = lock(&self.books).counted(&news.path).is_some();
        // Its file was there before the books knew of it.
        let is_again = news.is_replaced || (!is_known && news.from > 0);
        self.count_news(news, now_ms);
        self.note_anew(is_again, now_ms);
    }

    pub(super) fn count_news(&mut self, news: News, now_ms: i64) {
        self.is_changed = true;
        let mut books = lock(&self.books);
        if news.is_replaced {
            books.rebuilt(&news.path);
        }
        let read_from = books.heard(&news.path, news.from, news.to, news.facts.as_deref());
        drop(books);
        let Some(from) = read_from.filter(|from| *from < news.to) else { return };
        match self.read(&news.path, from, news.to, now_ms) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(
                    path = news.path,
                    "the header file is gone: what was not counted of it is not in the books"
                );
                lock(&self.books).count(&news.path, &[], news.to);
            }
            Err(error) => {
                tracing::warn!(path = news.path, %error, "the header file cannot be read: its hours are not up to date until it can");
                counter!("logferry_outputter_hours_read_failures_total").increment(1);
                self.unread.insert(news.path, news.to);
            }
            Ok(true) => drop(self.removed.insert(news.path, news.to)),
            Ok(false) => {}
        }
    }

    /// Whether all that the file had was removed, and nothing came since.
    fn read(&self, path: &str, from: u64, to: u64, now_ms: i64) -> io::Result<bool> {
        let file = self.places.disk.open(&self.places.headers.join(path))?;
        catch_up::read(&*file, (from, to), self.calendar.own_zone(), now_ms, |said| {
            lock(&self.books).take(path, &said);
        })
    }

    fn take_ended(&mut self, ended: Ended, now_ms: i64) {
        match ended {
            Ended::Hook(hook, outcome) => {
                let kind = hook.kind.label();
                counter!("logferry_outputter_hooks_run_total", "kind" => kind).increment(1);
                if let Err(error) = &outcome {
                    counter!("logferry_outputter_hooks_failed_total", "kind" => kind).increment(1);
                    tracing::warn!(hour = %hook.key, kind, "a hook failed and is run again: {error}");
                    self.hook_errors.insert(hook.kind, error.clone());
                }
                if self.hooks.ended(&hook, outcome.is_ok(), now_ms) {
                    let key = hook.key.clone();
                    self.record(&Change::Hooked { key, kind: hook.kind, extent: hook.extent });
                }
            }
            Ended::Repull(wanted, outcome) => {
                self.asking = self.asking.saturating_sub(1);
                if let Err(error) = outcome {
                    counter!("logferry_outputter_repulls_failed_total").increment(1);
                    tracing::warn!(hour = %wanted.key, "a repull cannot be had and is asked for again: {error}");
                }
            }
        }
    }

    /// The hours of removed files are forgotten, with their marks. Until that is saved, their header files are read again at a start, and
    /// say the same.
    fn take_removed(&mut self, now_ms: i64) {
        let removed = std::mem::take(&mut self.removed);
        if removed.is_empty() {
            return;
        }
        let mut books = lock(&self.books);
        let gone: Vec<HourKey> = removed.keys().flat_map(|path| books.removed(path)).collect();
        self.hooks.forget(|key| books.hour(key).is_some());
        drop(books);
        if let Err(error) = self.places.marks.remove_all(&gone) {
            tracing::warn!(%error, "marks of removed hours cannot be removed, it is tried again");
            self.retry_at_ms = now_ms + RETRY_MS;
            self.unread.extend(removed);
        }
    }

    fn record(&mut self, change: &Change) {
        lock(&self.books).apply(change);
        self.log.append(&state::to_bytes(change));
        self.is_changed = true;
    }

    fn hooks_due(&mut self, now_ms: i64) -> Vec<Job> {
        let books = lock(&self.books);
        let extent_of = |key: &HourKey| books.hour(key)?.extent();
        let due = self.hooks.start(now_ms, self.options.hooks_at_once, extent_of);
        let job = |hook: DueHook| {
            let hour = report::complete_hour(&books, &hook.key)?;
            Some(Job::Hook(hook, Box::new(hour)))
        };
        due.into_iter().filter_map(job).collect()
    }

    fn repulls_due(&mut self, now_ms: i64) -> Vec<Job> {
        let due = lock(&self.books).repulls_due(&self.calendar, now_ms, self.options.repull_wait_ms);
        let mut jobs = Vec::new();
        for key in due {
            let can_be_asked = self.options.hosts_asked.contains(&key.host);
            if can_be_asked && self.asking >= ASKING_MAX {
                continue;
            }
            let Some(wanted) = lock(&self.books).wanted(&key) else { continue };
            let (packs, times) =
                (wanted.ids.iter().map(|(from, to)| to - from).sum::<u64>(), wanted.asked + 1);
            counter!("logferry_outputter_repulls_wanted_total").increment(1);
            let what = match packs {
                0 if !wanted.ranges.is_empty() => "bytes of the hour are missing",
                0 if wanted.is_late => {
                    "lines of the hour came late and no done pack tells whether they are all"
                }
                0 => "the hour is over and no done pack came",
                _ => "packs of the hour are missing",
            };
            tracing::warn!(hour = %key, packs, times, asked = can_be_asked, "{what}: a repull is wanted");
            self.record(&Change::Asked { key, times, at_ms: now_ms });
            if can_be_asked {
                self.asking += 1;
                jobs.push(Job::Repull(Box::new(wanted)));
            }
        }
        jobs
    }

    fn expire(&mut self, now_ms: i64) {
        let mut books = lock(&self.books);
        let known = books.hours().count();
        let expired = books.expire(now_ms, self.options.keep_ms);
        let Squeezed { incomplete: squeezed, untold, complete } = books.shrink(self.options.memory_max);
        let begins = [&squeezed, &untold, &complete].into_iter().flatten().map(|key| self.begin_ms(key));
        books.squeezed_to_ms = books.squeezed_to_ms.max(begins.max());
        if books.hours().count() == known {
            return;
        }
        self.is_changed = true;
        self.hooks.forget(|key| books.hour(key).is_some());
        self.lookup.forget(|key| books.hour(key).is_some());
        drop(books);
        for (keys, reason) in [(expired, "expired"), (squeezed, "memory")] {
            for key in keys {
                counter!("logferry_outputter_hours_expired_total", "reason" => reason).increment(1);
                tracing::warn!(hour = %key, reason, "the hour is not complete, and is not watched any more");
            }
        }
        for key in untold {
            counter!("logferry_outputter_hooks_dropped_total").increment(1);
            tracing::error!(
                hour = %key,
                "the books have outgrown hours.memory, and the hour is forgotten although its mark or a hook is due: raise hours.memory and \
                 restart while hours.keep lasts, then it is read again unless its log file has hours that are known"
            );
        }
    }

    fn show(&self) {
        notices::tell_of_hooks(&self.figures, &self.hooks, &self.options.hooks, &self.hook_errors);
        let books = lock(&self.books);
        notices::tell_of_vague_hours(&self.figures, &books);
        let complete = books.hours().filter(|(_, book)| book.is_complete()).count();
        gauge!("logferry_outputter_hours_complete").set(complete as f64);
        gauge!("logferry_outputter_hours_incomplete").set((books.hours().count() - complete) as f64);
        gauge!("logferry_outputter_hours_memory_bytes").set(books.memory_bytes() as f64);
        gauge!("logferry_outputter_hooks_waiting").set(self.hooks.len() as f64);
    }

    /// Saves the books, so that little is to be read again.
    pub fn save(&mut self, now_ms: i64) {
        let bytes = state::to_bytes(&*lock(&self.books));
        self.saved_ms = now_ms;
        match self.log.snapshot(&bytes) {
            Ok(()) => self.is_changed = false,
            Err(error) => {
                tracing::error!("the books of the hours cannot be saved, it is tried again: {error}");
                return;
            }
        }
        self.log.append(&state::to_bytes(&Change::Saved { at_ms: now_ms }));
        let squeezed_to_ms = lock(&self.books).squeezed_to_ms;
        if let Some(to_ms) =
            squeezed_to_ms.filter(|to_ms| *to_ms > now_ms.saturating_sub(self.options.keep_ms))
        {
            self.log.append(&state::to_bytes(&Change::Squeezed { to_ms }));
        }
        self.commit();
    }

    /// Keeps the books until no more news come.
    pub fn run(mut self, committed: BTreeMap<String, u64>, mailbox: &Arc<Mailbox>, runner: &Arc<Runner>) {
        self.catch_up(committed, now_ms());
        loop {
            let mail = mailbox.wait(TICK);
            let is_closed = mail.is_closed;
            let jobs = self.step(mail, now_ms());
            if is_closed {
                return self.save(now_ms());
            }
            for job in jobs {
                start(job, mailbox, runner);
            }
        }
    }
}

fn start(job: Job, mailbox: &Arc<Mailbox>, runner: &Arc<Runner>) {
    let failed = match &job {
        Job::Hook(hook, _) => Ended::Hook(hook.clone(), Err("no thread for it".into())),
        Job::Repull(wanted) => Ended::Repull(wanted.clone(), Err("no thread for it".into())),
    };
    let (sent, runner) = (mailbox.clone(), runner.clone());
    let spawned =
        std::thread::Builder::new().name("hook".into()).spawn(move || sent.put_ended(runner.run(job)));
    if spawned.is_err() {
        mailbox.put_ended(failed);
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
