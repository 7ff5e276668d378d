//! Savers: each gathers documents and writes them, again and again until each is stored or in the dead-letter file.

use super::dead_letter::{DeadLetters, Letter};
use super::outcome::{Fate, judge};
use super::parse::Doc;
use super::server::Server;
use metrics::{Counter, counter, histogram};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// Bytes of documents in one write, so that it stays below what a server takes.
const BULK_BYTES_MAX: usize = 8 << 20;
/// Waits between tries: the first, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// How often a document is tried that meets another one with the same key which is not there when looked for.
const RACES_MAX: u32 = 5;

/// What savers share.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) letters: Arc<DeadLetters>,
    pub(super) bulk_size: usize,
    pub(super) ordered: bool,
    pub(super) problem: Problem,
}

/// What is wrong now, and since when.
#[derive(Clone, Default)]
pub struct Problem(Arc<Mutex<Option<(Instant, String)>>>);

impl Problem {
    fn set(&self, text: Option<&str>) {
        let mut problem = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (text, &mut *problem) {
            (None, None) => {}
            (None, Some((since, _))) => {
                tracing::info!("MongoDB takes documents again after {:.1?}", since.elapsed());
                *problem = None;
            }
            (Some(text), None) => {
                tracing::warn!("MongoDB takes no documents, they wait: {text}");
                *problem = Some((Instant::now(), text.to_owned()));
            }
            (Some(text), Some((_, known))) => text.clone_into(known),
        }
    }

    /// For people.
    pub fn text(&self) -> Option<String> {
        let problem = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problem.as_ref().map(|(since, text)| {
            format!(
                "mongodb takes no documents since {} s, packs wait in the spool: {text}",
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
        let (mut backoff, mut races) = (BACKOFF_FIRST, 0);
        while let Some(bulk) = rest.pop_front() {
            let Some(first) = bulk.first() else { continue };
            let database = first.progress.database.clone();
            let begin = Instant::now();
            let end = self.shared.server.write(&database, &bulk).await;
            histogram!("logferry_mongodb_write_seconds").record(begin.elapsed().as_secs_f64());
            let judgement = judge(&end, bulk.len(), self.shared.ordered);
            if judgement.halve {
                let mut bulk = bulk;
                let behind = bulk.split_off(bulk.len() / 2);
                rest.push_front(behind);
                rest.push_front(bulk);
                continue;
            }
            self.shared.problem.set(judgement.problem.as_deref());
            let before = bulk.len();
            let again = self.sort_out(&database, bulk, judgement.fates, &mut races).await;
            if again.is_empty() {
                backoff = BACKOFF_FIRST;
                continue;
            }
            let is_stuck = again.len() == before || judgement.problem.is_some();
            rest.push_front(again);
            if is_stuck {
                self.counters.retries.increment(1);
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }

    /// Gives back what is to be tried again, in order.
    async fn sort_out(
        &mut self,
        database: &str,
        bulk: Vec<Doc>,
        fates: Vec<Fate>,
        races: &mut u32,
    ) -> Vec<Doc> {
        let (mut again, mut stored, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        let asked: Vec<_> =
            bulk.iter().zip(&fates).filter(|(_, fate)| matches!(fate, Fate::Ask(_))).collect();
        let asked: Vec<_> = asked.into_iter().map(|(doc, _)| doc.id).collect();
        let present = match asked.is_empty() {
            true => Ok(Default::default()),
            false => self.shared.server.present(database, &asked).await,
        };
        *races = if asked.is_empty() { 0 } else { *races + 1 };
        for (doc, fate) in bulk.into_iter().zip(fates) {
            match (fate, &present) {
                (Fate::Stored, _) => stored.push(doc),
                (Fate::Again, _) | (Fate::Ask(_), Err(_)) => again.push(doc),
                (Fate::Ask(_), Ok(present)) if present.contains(&doc.id[..]) => stored.push(doc),
                // Two outputters made the document at the same time: now it is there to be updated.
                (Fate::Ask(_), Ok(_)) if self.shared.ordered && *races < RACES_MAX => again.push(doc),
                (Fate::Ask(reason) | Fate::Dead(reason), _) => dead.push((doc, reason)),
            }
        }
        self.counters.stored.increment(stored.len() as u64);
        stored.iter().for_each(|doc| doc.progress.arrived());
        if !dead.is_empty() {
            self.counters.dead.increment(dead.len() as u64);
            let letters = dead.iter().map(|(doc, reason)| doc.letter(reason.clone())).collect();
            bury(&self.shared, letters).await;
            dead.iter().for_each(|(doc, _)| doc.progress.arrived());
        }
        again
    }
}

/// Writes letters into the dead-letter file, until it takes them.
pub(super) async fn bury(shared: &Arc<Shared>, letters: Vec<Letter>) {
    let letters = Arc::new(letters);
    loop {
        let (files, copy) = (shared.letters.clone(), letters.clone());
        let put = tokio::task::spawn_blocking(move || files.put(&copy)).await;
        let error = match put {
            Ok(Ok(())) => {
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
        shared.problem.set(Some(&format!("the dead-letter file cannot be written: {error}")));
        tokio::time::sleep(BACKOFF_MAX).await;
    }
}
