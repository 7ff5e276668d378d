//! Savers: each gathers documents and writes them, again and again until each is stored or in the dead-letter file.

use super::dead_letter::{DeadLetters, Letter};
use super::outcome::{Fate, Judgement, judge};
use super::parse::Doc;
use super::server::{Server, There};
use metrics::{Counter, counter, gauge, histogram};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// Bytes of documents in one write, so that it stays below what a server takes.
const BULK_BYTES_MAX: usize = 8 << 20;
/// Waits between tries: the first, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// How often a document is tried that meets another one with the same key, or `_id`, which is not there when looked for.
const RACES_MAX: u32 = 5;
/// How often a document is tried alone that is refused for a reason that may be the server's: while other documents are stored, and while
/// none is (for some two minutes).
const SUSPECT_TRIES: u32 = 6;
const SUSPECT_TRIES_MAX: u32 = 40;

/// What savers share.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) letters: Arc<DeadLetters>,
    pub(super) bulk_size: usize,
    pub(super) ordered: bool,
    pub(super) problem: Problem,
    pub(super) letters_problem: Problem,
    /// Documents that were stored.
    pub(super) stored: AtomicU64,
}

/// What is wrong now, and since when.
#[derive(Clone)]
pub struct Problem {
    /// What is not done meanwhile.
    what: &'static str,
    state: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Problem {
    pub(super) fn new(what: &'static str) -> Problem {
        Problem { what, state: Arc::default() }
    }

    fn set(&self, text: Option<&str>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (text, &mut *state) {
            (None, None) => return,
            (None, Some((since, _))) => {
                tracing::info!("over after {:.1?}: mongodb {}", since.elapsed(), self.what);
                *state = None;
            }
            (Some(text), None) => {
                tracing::warn!("mongodb {}, packs wait: {text}", self.what);
                *state = Some((Instant::now(), text.to_owned()));
            }
            (Some(text), Some((_, known))) => text.clone_into(known),
        }
        gauge!("logferry_mongodb_held", "because" => self.what).set(f64::from(u8::from(state.is_some())));
    }

    /// For people.
    pub fn text(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map(|(since, text)| {
            format!(
                "mongodb {} since {} s, packs wait in the spool: {text}",
                self.what,
                since.elapsed().as_secs()
            )
        })
    }
}

struct Counters {
    stored: Counter,
    dead: Counter,
    retries: Counter,
}

/// A saver.
pub(super) struct Saver {
    shared: Arc<Shared>,
    docs: UnboundedReceiver<Vec<Doc>>,
    /// Documents that were given to it and are not settled.
    load: Arc<AtomicUsize>,
    waiting: VecDeque<Doc>,
    counters: Counters,
}

impl Saver {
    pub(super) fn new(
        shared: Arc<Shared>,
        docs: UnboundedReceiver<Vec<Doc>>,
        load: Arc<AtomicUsize>,
    ) -> Saver {
        let counters = Counters {
            stored: counter!("logferry_mongodb_documents_total"),
            dead: counter!("logferry_mongodb_dead_letters_total"),
            retries: counter!("logferry_mongodb_retries_total"),
        };
        Saver { shared, docs, load, waiting: VecDeque::new(), counters }
    }

    /// Runs until no more documents can come.
    pub(super) async fn run(mut self) {
        while let Some(bulk) = self.next_bulk().await {
            let count = bulk.len();
            self.settle(bulk).await;
            self.load.fetch_sub(count, Relaxed);
        }
    }

    /// What has come, up to the limits, of one database.
    async fn next_bulk(&mut self) -> Option<Vec<Doc>> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.docs.recv().await?);
        }
        while self.waiting.len() < self.shared.bulk_size
            && let Ok(more) = self.docs.try_recv()
        {
            self.waiting.extend(more);
        }
        let (mut bulk, mut bytes): (Vec<Doc>, usize) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            bytes += next.bytes();
            let differs = bulk.first().is_some_and(|first| first.progress.database != next.progress.database);
            let is_full = bulk.len() >= self.shared.bulk_size || bytes > BULK_BYTES_MAX;
            if !bulk.is_empty() && (differs || is_full) {
                break;
            }
            bulk.extend(self.waiting.pop_front());
        }
        Some(bulk)
    }

    /// Writes a bulk until nothing of it is left. One of several that a document spoils is cut into halves, the first one first.
    async fn settle(&mut self, bulk: Vec<Doc>) {
        let mut rest = VecDeque::from([bulk]);
        let (mut backoff, mut races, mut is_proved) = (BACKOFF_FIRST, 0, false);
        let mut suspicion = Suspicion { tries: 0, stored_before: self.shared.stored.load(Relaxed) };
        while let Some(mut bulk) = rest.pop_front() {
            let Some(first) = bulk.first() else { continue };
            let database = first.progress.database.clone();
            let begin = Instant::now();
            let end = self.shared.server.write(&database, &bulk).await;
            histogram!("logferry_mongodb_write_seconds").record(begin.elapsed().as_secs_f64());
            let Judgement { fates, mut problem, suspect } = judge(&end, bulk.len(), self.shared.ordered);
            let before = bulk.len();
            let again = match suspect {
                None => {
                    let stored_before = self.shared.stored.load(Relaxed);
                    let sorted = self.sort_out(&database, bulk, fates, &mut races).await;
                    problem = problem.or(sorted.problem);
                    let again = sorted.again.into_iter().map(|(_, doc)| doc).collect();
                    if before > 1 {
                        suspicion = Suspicion { tries: 0, stored_before };
                    }
                    match self.judge_suspects(&database, sorted.suspects, before, &mut suspicion).await {
                        Suspected::Alone(docs) => {
                            rest.push_front(again);
                            docs.into_iter().rev().for_each(|doc| rest.push_front(vec![doc]));
                            continue;
                        }
                        Suspected::Again(docs, why) => {
                            problem = problem.or(why);
                            // In an ordered bulk what is to be sent again is behind the one suspect.
                            docs.into_iter().chain(again).collect()
                        }
                    }
                }
                Some(reason) => match self.shared.server.takes_writes(&database).await {
                    // The state of the server may have changed in between: only what is refused once more is the document's fault.
                    Ok(()) if before > 1 || !is_proved => {
                        is_proved = true;
                        let behind = bulk.split_off(before.div_ceil(2));
                        rest.push_front(behind);
                        rest.push_front(bulk);
                        continue;
                    }
                    Ok(()) => {
                        is_proved = false;
                        self.give_up(bulk.into_iter().map(|doc| (doc, reason.clone())).collect()).await;
                        Vec::new()
                    }
                    Err(why) => {
                        is_proved = false;
                        problem = Some(format!("{reason}; and no document is the cause: {why}"));
                        bulk
                    }
                },
            };
            self.shared.problem.set(problem.as_deref());
            if again.is_empty() {
                backoff = BACKOFF_FIRST;
                continue;
            }
            let is_stuck = again.len() == before || problem.is_some();
            rest.push_front(again);
            if is_stuck {
                self.counters.retries.increment(1);
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Documents of a bulk of `count` that were refused for a reason that may be the server's.
    async fn judge_suspects(
        &mut self,
        database: &str,
        suspects: Vec<(Doc, String)>,
        count: usize,
        suspicion: &mut Suspicion,
    ) -> Suspected {
        let Some((_, reason)) = suspects.first() else {
            suspicion.tries = 0;
            return Suspected::Again(Vec::new(), None);
        };
        let reason = reason.clone();
        let docs = |suspects: Vec<(Doc, String)>| suspects.into_iter().map(|(doc, _)| doc).collect();
        if let Err(why) = self.shared.server.takes_writes(database).await {
            suspicion.tries = 0;
            let problem = format!("{reason}; and no document is the cause: {why}");
            return Suspected::Again(docs(suspects), Some(problem));
        }
        let stored = self.shared.stored.load(Relaxed);
        if count > 1 {
            return Suspected::Alone(docs(suspects));
        }
        suspicion.tries += 1;
        let others_are_stored = stored != suspicion.stored_before;
        let tries_max = if others_are_stored { SUSPECT_TRIES } else { SUSPECT_TRIES_MAX };
        if suspicion.tries < tries_max {
            let problem = (suspicion.tries >= SUSPECT_TRIES).then(|| {
                format!(
                    "{reason}; no other document is stored meanwhile, so the server's state may be the cause"
                )
            });
            return Suspected::Again(docs(suspects), problem);
        }
        suspicion.tries = 0;
        self.give_up(suspects).await;
        Suspected::Again(Vec::new(), None)
    }

    /// Does with each document what became of it.
    async fn sort_out(
        &mut self,
        database: &str,
        bulk: Vec<Doc>,
        fates: Vec<Fate>,
        races: &mut u32,
    ) -> Sorted {
        let (mut sorted, mut asked) = (Sorted::default(), Vec::new());
        for (index, (doc, fate)) in bulk.into_iter().zip(fates).enumerate() {
            match fate {
                Fate::Stored => sorted.stored.push(doc),
                // An `_id` that is derived says where the line is and what it says.
                Fate::Known(_) if !self.shared.ordered && !doc.has_own_id => sorted.stored.push(doc),
                Fate::Again => sorted.again.push((index, doc)),
                Fate::Dead(reason) => sorted.dead.push((doc, reason)),
                Fate::Suspect(reason) => sorted.suspects.push((doc, reason)),
                Fate::Known(reason) => asked.push(Asked { index, doc, reason, is_known: true }),
                Fate::Ask(reason) => asked.push(Asked { index, doc, reason, is_known: false }),
            }
        }
        *races = if asked.is_empty() { 0 } else { *races + 1 };
        let is_race = *races < RACES_MAX;
        if self.shared.ordered {
            // Two outputters made the document at the same time: now it is there to be updated.
            match is_race {
                true => sorted.again.extend(asked.into_iter().map(|asked| (asked.index, asked.doc))),
                false => sorted.dead.extend(asked.into_iter().map(|asked| (asked.doc, asked.reason))),
            }
        } else if !asked.is_empty() {
            self.ask(database, asked, is_race, &mut sorted).await;
        }
        sorted.again.sort_by_key(|(index, _)| *index);
        self.counters.stored.increment(sorted.stored.len() as u64);
        self.shared.stored.fetch_add(sorted.stored.len() as u64, Relaxed);
        sorted.stored.drain(..).for_each(|doc| doc.progress.arrived());
        self.give_up(std::mem::take(&mut sorted.dead)).await;
        sorted
    }

    /// Looks whether documents are there, and whether they are the same. While it may be a race, one that is not there was removed meanwhile.
    async fn ask(&self, database: &str, asked: Vec<Asked>, is_race: bool, sorted: &mut Sorted) {
        let docs: Vec<&Doc> = asked.iter().map(|asked| &asked.doc).collect();
        let there = match self.shared.server.look_for(database, &docs).await {
            Ok(there) => there,
            Err(error) => {
                sorted.problem = Some(error);
                sorted.again.extend(asked.into_iter().map(|asked| (asked.index, asked.doc)));
                return;
            }
        };
        for (Asked { index, doc, reason, is_known }, there) in asked.into_iter().zip(there) {
            match there {
                There::Same => sorted.stored.push(doc),
                There::Other => {
                    sorted.dead.push((doc, format!("another document has its _id already: {reason}")));
                }
                There::No if is_known && is_race => sorted.again.push((index, doc)),
                // The server takes another value for the same: -0.0 for 0, or `a` for `A` by the collection's collation.
                There::No if is_known => {
                    sorted.dead.push((
                        doc,
                        format!("a document whose _id the server takes for the same is there: {reason}"),
                    ));
                }
                There::No => sorted.dead.push((doc, reason)),
            }
        }
    }

    /// Into the dead-letter file.
    async fn give_up(&self, dead: Vec<(Doc, String)>) {
        if dead.is_empty() {
            return;
        }
        self.counters.dead.increment(dead.len() as u64);
        let letters = dead.iter().map(|(doc, reason)| doc.letter(reason.clone())).collect();
        bury(&self.shared, letters).await;
        dead.iter().for_each(|(doc, _)| doc.progress.arrived());
    }
}

/// Of a document that is refused alone.
struct Suspicion {
    /// How often it was.
    tries: u32,
    /// Documents that had been stored when its bulk was sent.
    stored_before: u64,
}

/// What becomes of suspects.
enum Suspected {
    /// Each is to be sent alone.
    Alone(Vec<Doc>),
    /// These are to be sent again, and why it is not known whether they are the cause.
    Again(Vec<Doc>, Option<String>),
}

/// A document of which it is to be asked whether it is there.
struct Asked {
    index: usize,
    doc: Doc,
    reason: String,
    /// Its `_id` is there, or was.
    is_known: bool,
}

/// What became of a bulk.
#[derive(Default)]
struct Sorted {
    stored: Vec<Doc>,
    dead: Vec<(Doc, String)>,
    /// What was refused for a reason that may be the server's.
    suspects: Vec<(Doc, String)>,
    /// What is to be sent again, with its place in the bulk.
    again: Vec<(usize, Doc)>,
    /// Why the server could not be asked.
    problem: Option<String>,
}

/// Writes letters into the dead-letter file, until it takes them.
pub(super) async fn bury(shared: &Arc<Shared>, letters: Vec<Letter>) {
    let letters = Arc::new(letters);
    loop {
        let (files, copy) = (shared.letters.clone(), letters.clone());
        let put = tokio::task::spawn_blocking(move || files.put(&copy)).await;
        let error = match put {
            Ok(Ok(())) => {
                shared.letters_problem.set(None);
                if let Some(first) = letters.first() {
                    tracing::warn!(
                        letters = letters.len(),
                        host = first.host,
                        source = first.source,
                        "into the dead-letter file: {}",
                        first.reason
                    );
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        shared.letters_problem.set(Some(&error));
        tokio::time::sleep(BACKOFF_MAX).await;
    }
}
