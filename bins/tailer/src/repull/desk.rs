//! The desk: takes requests in, remembers what became of them, and hands them to the worker one at a time.

use super::request::{Progress, Request, State};
use crate::config::TailerConfig;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Repulls that may wait.
pub const WAITING_MAX: usize = 16;
/// Repulls that are over and remembered.
pub const OVER_MAX: usize = 64;

/// Why a request is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Bad(String),
    /// Too many wait.
    #[error("{WAITING_MAX} repulls wait already: try again later")]
    Full,
}

/// Names of what a node ships: sources of files, and inputs, whose files are the tailer's own.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    names: Vec<String>,
    inputs: Vec<String>,
}

impl Sources {
    /// Those of a configuration. A running tailer follows the files of its inputs as sources of the same name.
    pub fn of(config: &TailerConfig) -> Sources {
        let inputs: Vec<String> = config.input.iter().map(|input| input.name.clone()).collect();
        let names = config.source.iter().map(|source| source.name.clone());
        Sources { names: names.filter(|name| !inputs.contains(name)).collect(), inputs }
    }

    /// Sources that can be shipped again and audited.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Inputs, which cannot.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Why a name that is no source's cannot be meant; `None` for a source.
    pub fn refuse(&self, name: &str) -> Option<String> {
        if self.names.iter().any(|known| known == name) {
            return None;
        }
        if self.inputs.iter().any(|input| input == name) {
            return Some(format!(
                "\"{name}\" is an input, which has no files of an application: it can be neither shipped again nor audited"
            ));
        }
        Some(format!("there is no source \"{name}\" here, only: {}", self.names.join(", ")))
    }
}

/// See the module.
pub struct Desk {
    host: String,
    sources: Sources,
    /// Part of the ids: when this process began, in milliseconds.
    epoch: i64,
    jobs: Mutex<Jobs>,
    to_worker: Sender<String>,
}

#[derive(Default)]
struct Jobs {
    last: u64,
    list: VecDeque<Progress>,
}

impl Desk {
    /// Of a node with these sources; ids of what is taken in go to the worker.
    pub fn new(host: &str, sources: Sources, to_worker: Sender<String>) -> Desk {
        let epoch = jiff::Timestamp::now().as_millisecond();
        Desk { host: host.to_owned(), sources, epoch, jobs: Mutex::default(), to_worker }
    }

    /// Name of the node.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the node ships.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn submit(&self, request: Request) -> Result<Progress, Refused> {
        request.check().map_err(Refused::Bad)?;
        if let Some(what) = request.source.as_ref().and_then(|source| self.sources.refuse(source)) {
            return Err(Refused::Bad(what));
        }
        let mut jobs = self.jobs();
        if jobs.list.iter().filter(|job| !job.is_over()).count() >= WAITING_MAX {
            return Err(Refused::Full);
        }
        jobs.last += 1;
        let progress = Progress {
            id: format!("{}-{}", self.epoch, jobs.last),
            host: self.host.clone(),
            request,
            state: State::Waiting,
            bytes_total: 0,
            bytes_done: 0,
            packs_taken: 0,
            packs_there: 0,
            problems: Vec::new(),
            problems_more: 0,
        };
        jobs.list.push_back(progress.clone());
        let surplus = jobs.list.iter().filter(|job| job.is_over()).count().saturating_sub(OVER_MAX);
        let mut surplus = surplus;
        jobs.list.retain(|job| {
            let forget = surplus > 0 && job.is_over();
            surplus -= usize::from(forget);
            !forget
        });
        let _ = self.to_worker.send(progress.id.clone());
        Ok(progress)
    }

    /// One repull.
    pub fn progress(&self, id: &str) -> Option<Progress> {
        self.jobs().list.iter().find(|job| job.id == id).cloned()
    }

    /// All that are remembered, oldest first.
    pub fn list(&self) -> Vec<Progress> {
        self.jobs().list.iter().cloned().collect()
    }

    /// Gives one up, if it is not over.
    pub fn cancel(&self, id: &str) -> Option<Progress> {
        self.change(id, |job| {
            if !job.is_over() {
                job.state = State::Cancelled;
            }
        });
        self.progress(id)
    }

    /// Whether one is to be worked on.
    pub(super) fn is_wanted(&self, id: &str) -> bool {
        self.progress(id).is_some_and(|job| !job.is_over())
    }

    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(job) = self.jobs().list.iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceSettings;
    use crate::input::{self, InputSettings};

    fn desk() -> (Desk, crossbeam_channel::Receiver<String>) {
        let (to_worker, ids) = crossbeam_channel::unbounded();
        let source = SourceSettings { name: "app".into(), path: "/log/a".into(), ..Default::default() };
        let input = InputSettings { name: "syslog".into(), ..Default::default() };
        let mut config = TailerConfig { source: vec![source], input: vec![input], ..Default::default() };
        // As a tailer runs with it.
        config.source = input::config::sources(&config).expect("good");
        assert_eq!(config.source.len(), 2);
        (Desk::new("web-1", Sources::of(&config), to_worker), ids)
    }
    fn hour() -> Request {
        Request { hour: Some("2026112013".parse().expect("an hour")), ..Request::default() }
    }

    #[test]
    fn a_request_that_makes_no_sense_is_refused_with_the_reason() {
        let (desk, ids) = desk();
        let file: Option<std::path::PathBuf> = Some("/log/a".into());
        for (request, reason) in [
            (Request::default(), "an hour or a file"),
            (Request { source: Some("web".into()), ..hour() }, "only: app"),
            (Request { source: Some("syslog".into()), ..hour() }, "is an input"),
            (Request { range: Some((0, 9)), ..hour() }, "needs the file"),
            (Request { fewer_lines: true, ..hour() }, "--replace"),
            (Request { replace: true, file: file.clone(), ..hour() }, "a whole hour"),
            (Request { range: Some((9, 9)), file, ..hour() }, "9-9 is empty"),
        ] {
            let refused = desk.submit(request).expect_err("refused").to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(ids.is_empty());
    }

    #[test]
    fn few_may_wait_and_those_that_are_over_are_forgotten_in_their_order() {
        let (desk, ids) = desk();
        let all: Vec<String> = (0..WAITING_MAX).map(|_| desk.submit(hour()).expect("room").id).collect();
        assert_eq!(desk.submit(hour()), Err(Refused::Full));
        assert_eq!(ids.try_iter().collect::<Vec<_>>(), all);
        for _ in 0..OVER_MAX {
            let first = desk.list().into_iter().find(|job| !job.is_over()).expect("one waits").id;
            desk.cancel(&first);
            assert!(!desk.is_wanted(&first));
            desk.submit(hour()).expect("room");
        }
        assert_eq!(desk.progress(&all[0]).map(|job| job.state), Some(State::Cancelled));
        desk.change(&all[0], |job| job.bytes_done = 7);
        let next = desk.list().into_iter().find(|job| !job.is_over()).expect("one waits").id;
        desk.cancel(&next);
        desk.submit(hour()).expect("room");
        assert_eq!(desk.progress(&all[0]), None);
        assert_eq!(desk.list().len(), OVER_MAX + WAITING_MAX);
    }
}
