//! The indexes of each database that is written to. Documents wait for those of an empty collection; the building of one on a large
//! collection goes on beside the writes.

use super::MongodbOptions;
use super::bson::doc;
use super::outcome::BulkEnd;
use super::server::end_of;
use mongodb::Client;
use mongodb::error::ErrorKind;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// When indexes that could not be created are tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Longest that building one may take before the server is asked again: the connection may be dead.
const BUILD_MAX: Duration = Duration::from_secs(6 * 3_600);
/// "There is such an index, with other options" and "… under another name": for an operator to settle.
const CONFLICTS: [i32; 2] = [85, 86];
/// The server changes its role.
const ROLE_CHANGES: [i32; 7] = [91, 189, 10_107, 11_600, 11_602, 13_435, 13_436];

/// How a command ended; `None`: it has not yet.
type Ended = Option<Result<(), BulkEnd>>;

#[derive(Clone)]
enum State {
    Created,
    /// Not, and when to try again.
    Failed(Instant),
    Creating(watch::Receiver<Ended>),
    /// Writes went on without waiting any longer.
    Building,
}

/// By database. Clones share them.
#[derive(Clone)]
pub(super) struct Indexes {
    client: Client,
    options: Arc<MongodbOptions>,
    states: Arc<Mutex<HashMap<String, State>>>,
}

impl Indexes {
    pub(super) fn new(client: Client, options: Arc<MongodbOptions>) -> Indexes {
        Indexes { client, options, states: Arc::default() }
    }

    /// Creates the indexes of a database that is written to for the first time, and waits for them as long as for a write. What takes longer is
    /// built while documents are stored; what the server refuses is said and tried again later, and documents are stored without.
    pub(super) async fn create(&self, database: &str) -> Result<(), BulkEnd> {
        if self.options.indexes.is_empty() {
            return Ok(());
        }
        let Some(mut ended) = self.begin(database) else { return Ok(()) };
        let waiting = ended.wait_for(Option::is_some);
        match tokio::time::timeout(self.options.write_timeout, waiting).await {
            Ok(Ok(ended)) => ended.clone().unwrap_or(Ok(())),
            // The task ends only with the program.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let mut states = self.states();
                if matches!(states.get(database), Some(State::Creating(_))) {
                    states.insert(database.to_owned(), State::Building);
                    tracing::warn!(
                        database,
                        "creating the indexes takes longer than mongodb.write_timeout: documents are stored while they are built"
                    );
                }
                Ok(())
            }
        }
    }

    /// What to wait for; `None`: nothing.
    fn begin(&self, database: &str) -> Option<watch::Receiver<Ended>> {
        let mut states = self.states();
        match states.get(database) {
            Some(State::Created | State::Building) => return None,
            Some(State::Failed(again)) if Instant::now() < *again => return None,
            Some(State::Creating(ended)) => return Some(ended.clone()),
            Some(State::Failed(_)) | None => {}
        }
        let (tell, ended) = watch::channel(None);
        states.insert(database.to_owned(), State::Creating(ended.clone()));
        let (indexes, database) = (self.clone(), database.to_owned());
        tokio::spawn(async move {
            let outcome = indexes.run(&database).await;
            tell.send_replace(Some(outcome));
        });
        Some(ended)
    }

    /// Whoever gives up waiting must not end the command: a server may stop building for a client that is gone.
    async fn run(&self, database: &str) -> Result<(), BulkEnd> {
        let command =
            doc! { "createIndexes": &self.options.collection, "indexes": self.options.indexes.clone() };
        let target = self.client.database(database);
        let error = match tokio::time::timeout(BUILD_MAX, target.run_command(command)).await {
            Ok(Ok(_)) => {
                if let Some(State::Building) = self.states().insert(database.to_owned(), State::Created) {
                    tracing::info!(database, "the indexes are built");
                }
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.states().remove(database);
                return Err(BulkEnd::NoAnswer("no answer in time when indexes were created".to_owned()));
            }
        };
        match *error.kind {
            ErrorKind::Command(ref refused) if !ROLE_CHANGES.contains(&refused.code) => {
                let settle = if CONFLICTS.contains(&refused.code) { "; drop the other one" } else { "" };
                tracing::error!(
                    database,
                    "the indexes cannot be created, documents are stored without: {error}{settle}"
                );
                metrics::counter!("logferry_mongodb_index_failures_total").increment(1);
                self.states().insert(database.to_owned(), State::Failed(Instant::now() + RETRY));
                Ok(())
            }
            _ => {
                self.states().remove(database);
                Err(end_of(&error))
            }
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
