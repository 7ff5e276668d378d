//! Judge, inflating and committing of the outputter without threads, on any disk.

use logferry_durable::Disk;
use logferry_link::Answer;
use logferry_outputter::file::archive::Archiver;
use logferry_outputter::file::commit::{Committer, CommitterOptions, SharedOrder, lock};
use logferry_outputter::file::file_recovery::FileRecovery;
use logferry_outputter::file::group::Group;
use logferry_outputter::file::headers::Finished;
use logferry_outputter::file::inflate::{Inflated, Inflaters, Job, RawPool};
use logferry_outputter::file::journal::Lengths;
use logferry_outputter::file::order::{Action, Order, OrderLimits, Parcel};
use logferry_outputter::file::recovery::Recovery;
use logferry_outputter::file::store::{Folders, StoreOptions};
use logferry_outputter::finish::Committed;
use logferry_pack::{Decompressor, Limits};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub const VAR_DIR: &str = "/var";
/// Few open files, so that they are closed and opened again; one syncing thread, so that a seed always gives the same run.
pub const STORE: StoreOptions = StoreOptions { sync: true, open_max: 3, sync_threads: 1 };

pub type Answers = Arc<Mutex<Vec<(usize, usize, Answer)>>>;

/// Whoever sent a pack of a stream.
pub struct Waiter {
    pub stream: usize,
    pub index: usize,
    pub answers: Answers,
}

pub fn answer(waiter: Waiter, answer: Answer) {
    waiter.answers.lock().unwrap().push((waiter.stream, waiter.index, answer));
}

/// The committer on this thread, as who finishes sees it.
pub struct Direct<'a>(pub &'a mut Committer<Waiter>);

impl Committed for Direct<'_> {
    fn lengths(&mut self, path: &str) -> Option<Lengths> {
        self.0.committed_lengths(path)
    }

    fn retire(&mut self, path: &str, expected: Lengths, finished: Finished) -> io::Result<bool> {
        self.0.retire(path, expected, &finished)
    }

    fn forget(&mut self, path: &str) -> io::Result<bool> {
        self.0.forget(path)
    }
}

/// The outputter between two crashes.
pub struct Outputter {
    pub committer: Committer<Waiter>,
    pub order: SharedOrder<Waiter>,
    pub queue: VecDeque<Job>,
    pub inflaters: Inflaters,
    pub decompressor: Decompressor,
    pub archiver: Archiver,
    pub now_ms: u64,
    /// When packs are received, for the books; else by the clock, in milliseconds since 1970.
    pub received_ms: Option<i64>,
}

impl Outputter {
    pub fn start(disk: Arc<dyn Disk>, folders: &Folders) -> io::Result<Outputter> {
        let files = FileRecovery { disk, folders: folders.clone(), guards: None, group_bytes_max: 1 << 20 };
        Outputter::start_on(files, Path::new(VAR_DIR))
    }

    pub fn start_on(files: FileRecovery, var_dir: &Path) -> io::Result<Outputter> {
        let form = files.folders.form;
        let mut recovered = Recovery { files: &files, var_dir, now_unix: 1 }.run()?;
        let footprint = std::mem::take(&mut recovered.state.footprint);
        let limits =
            OrderLimits { reorder_wait_ms: 1_000_000, hold_answer_ms: 20_000, hold_bytes_max: 8 << 20 };
        let order = Arc::new(Mutex::new(Order::new(limits, footprint)));
        let options = CommitterOptions {
            answer,
            store: STORE,
            group_bytes_max: 1 << 20,
            footprint_keep_secs: 1_000,
            free_min: 0,
        };
        let committer = Committer::new(files, recovered, order.clone(), Arc::default(), options);
        let (_, jobs) = crossbeam_channel::unbounded();
        let (done, _) = crossbeam_channel::unbounded();
        let inflaters =
            Inflaters { jobs, done, pool: RawPool::new(1 << 20), limits: Limits::default(), form };
        let decompressor = Decompressor::new();
        Ok(Outputter {
            committer,
            order,
            queue: VecDeque::new(),
            inflaters,
            decompressor,
            archiver: Archiver::new(form),
            now_ms: 0,
            received_ms: None,
        })
    }

    pub fn offer(&mut self, parcel: Parcel, waiter: Waiter) {
        self.now_ms += 1;
        let actions = lock(&self.order).offered(self.now_ms, parcel, waiter);
        self.act(actions);
    }

    /// Gaps are waited for no longer.
    pub fn pass_over_gaps(&mut self) {
        self.now_ms += 2_000_000;
        let actions = lock(&self.order).tick(self.now_ms);
        self.act(actions);
    }

    pub fn act(&mut self, actions: Vec<Action<Waiter>>) {
        for action in actions {
            match action {
                Action::Write(accepted, parcel) => self.queue.push_back(Job { accepted, parcel }),
                Action::Answer(waiter, given) => answer(waiter, given),
            }
        }
    }

    pub fn inflate(&mut self, count: usize) -> Vec<Inflated> {
        let jobs: Vec<Job> = self.queue.drain(..count.min(self.queue.len())).collect();
        let inflated = jobs.into_iter().map(|job| {
            let buffer = self.inflaters.pool.acquire(64 << 10);
            let mut inflated =
                self.inflaters.inflate((&mut self.decompressor, &mut self.archiver), job, buffer);
            for fact in &mut inflated.facts {
                fact.at_ms = self.received_ms.unwrap_or(fact.at_ms);
            }
            inflated
        });
        inflated.collect()
    }

    pub fn group(&mut self, count: usize) -> Group {
        let inflated = self.inflate(count);
        self.committer.group(inflated)
    }

    /// Commits; tries again after failures as the committing thread does, and calls `at_failure`. Err: the power is off.
    pub fn commit(&mut self, count: usize, mut at_failure: impl FnMut(&io::Error)) -> io::Result<()> {
        self.committer.mend_files();
        let mut group = self.group(count);
        for attempt in 0.. {
            let Err(error) = self.committer.try_commit(&mut group) else { break };
            if attempt == 20 {
                return Err(error);
            }
            self.committer.give_up_failing_file(&mut group, &error);
            let actions = lock(&self.order).failing(1);
            self.act(actions);
            at_failure(&error);
        }
        lock(&self.order).healed();
        Ok(())
    }
}
