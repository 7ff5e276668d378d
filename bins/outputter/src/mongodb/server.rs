//! The server behind the driver: databases, indexes, and one bulk write at a time, its end told in our words.

use super::MongodbOptions;
use super::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc};
use super::indexes::Indexes;
use super::outcome::{BulkEnd, WriteFault};
use super::parse::Doc;
use futures_util::TryStreamExt;
use mongodb::bson::raw::cstr;
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{Acknowledgment, ClientOptions, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Collection};
use std::collections::HashMap;
use std::sync::Arc;

/// "Not authorized".
const UNAUTHORIZED: i32 = 13;

/// Whether the server has a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// None with its `_id`.
    No,
    /// It.
    Same,
    /// Another one with its `_id`.
    Other,
}

/// A client and what it knows. Cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
    options: Arc<MongodbOptions>,
    indexes: Indexes,
}

impl Server {
    /// Reads the connection string; connects when there is something to write.
    pub(super) async fn new(options: Arc<MongodbOptions>) -> anyhow::Result<Server> {
        let mut client = ClientOptions::parse(&options.uri).await?;
        client.app_name.get_or_insert_with(|| "logferry".to_owned());
        client.connect_timeout = Some(options.connect_timeout);
        client.server_selection_timeout = Some(options.connect_timeout);
        client.max_pool_size = Some(options.pool_max);
        let client = Client::with_options(client)?;
        let indexes = Indexes::new(client.clone(), options.clone());
        Ok(Server { client, options, indexes })
    }

    fn write_concern(&self) -> WriteConcern {
        let w = match self.options.write_concern {
            Some(nodes) => Acknowledgment::Nodes(nodes),
            None => Acknowledgment::Majority,
        };
        WriteConcern::builder()
            .w(w)
            .w_timeout(self.options.write_timeout)
            .journal(self.options.journal)
            .build()
    }

    fn collection(&self, database: &str) -> Collection<RawDocumentBuf> {
        self.client.database(database).collection(&self.options.collection)
    }

    /// Writes documents of one database.
    pub(super) async fn write(&self, database: &str, docs: &[Doc]) -> BulkEnd {
        if let Err(error) = self.indexes.create(database).await {
            return error;
        }
        // The server has the same time to reach the write concern, and the answer must still arrive.
        let limit = self.options.write_timeout + self.options.connect_timeout;
        let writing = async {
            match self.options.key {
                None => self.insert(database, docs).await,
                Some(_) => self.upsert(database, docs).await,
            }
        };
        tokio::time::timeout(limit, writing)
            .await
            .unwrap_or_else(|_| BulkEnd::NoAnswer(format!("no answer within {limit:?}")))
    }

    async fn insert(&self, database: &str, docs: &[Doc]) -> BulkEnd {
        let documents = docs.iter().map(|doc| &doc.bson);
        let collection = self.collection(database);
        let inserting = collection.insert_many(documents).ordered(false).write_concern(self.write_concern());
        match inserting.await {
            Ok(_) => BulkEnd::Answered { faults: Vec::new(), write_concern: None },
            Err(error) => end_of(&error),
        }
    }

    async fn upsert(&self, database: &str, docs: &[Doc]) -> BulkEnd {
        let mut updates = RawArrayBuf::new();
        for doc in docs {
            let Some(filter) = &doc.filter else { continue };
            let mut set = RawDocumentBuf::new();
            set.append(cstr!("$set"), &*doc.bson);
            let mut update = RawDocumentBuf::new();
            update.append(cstr!("q"), &**filter);
            update.append(cstr!("u"), &*set);
            update.append(cstr!("upsert"), true);
            updates.push(&*update);
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("update"), self.options.collection.as_str());
        command.append(cstr!("ordered"), true);
        // So that no write goes on after it was given up here and sent again: newer ones would be overwritten.
        let millis = self.options.write_timeout.as_millis();
        command.append(cstr!("maxTimeMS"), i64::try_from(millis).unwrap_or(i64::MAX));
        let concern = mongodb::bson::serialize_to_raw_document_buf(&self.write_concern());
        match concern {
            Ok(concern) => command.append(cstr!("writeConcern"), &*concern),
            Err(error) => return BulkEnd::Unsendable(error.to_string()),
        }
        command.append(cstr!("updates"), &*updates);
        match self.client.database(database).run_raw_command(command).await {
            Ok(reply) => end_of_reply(&reply),
            Err(error) => end_of(&error),
        }
    }

    /// Whether the server takes writes as ours are, with the same write concern: an update of no document, which changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn takes_writes(&self, database: &str) -> Result<(), String> {
        let concern = mongodb::bson::serialize_to_document(&self.write_concern());
        let command = doc! {
            "update": &self.options.collection,
            // Whatever it meets, what is set on insert only is never set by an update.
            "updates": [{ "q": { "_id": "logferry" }, "u": { "$setOnInsert": { "logferry": true } }, "upsert": false }],
            "writeConcern": concern.map_err(|error| error.to_string())?,
        };
        let target = self.client.database(database);
        let asking = tokio::time::timeout(self.options.write_timeout, target.run_command(command));
        match asking.await {
            Err(_) => Err("no answer in time".to_owned()),
            Ok(Ok(reply)) => match reply.get_document("writeConcernError") {
                Ok(failed) => {
                    Err(failed.get_str("errmsg").unwrap_or("the write concern is not reached").to_owned())
                }
                Err(_) => Ok(()),
            },
            Ok(Err(error)) => {
                let must_be_allowed =
                    matches!(&*error.kind, ErrorKind::Command(refused) if refused.code == UNAUTHORIZED);
                let hint = if must_be_allowed {
                    " (the user needs the right to update: without it a bad document cannot be told from a server that takes none)"
                } else {
                    ""
                };
                Err(format!("{error}{hint}"))
            }
        }
    }

    /// Whether these documents are there, one by one.
    pub(super) async fn look_for(&self, database: &str, docs: &[&Doc]) -> Result<Vec<There>, String> {
        let ids: Vec<Option<Bson>> = docs.iter().map(|doc| doc.stored_id()).collect();
        let collection: Collection<Document> =
            self.client.database(database).collection(&self.options.collection);
        let some: Vec<&Bson> = ids.iter().flatten().collect();
        // Whatever the connection string prefers: a secondary may not have it yet.
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let mut finding = collection.find(doc! { "_id": { "$in": some } }).selection_criteria(primary);
        if !docs.iter().any(|doc| doc.has_own_id) {
            finding = finding.projection(doc! { "_id": 1 });
        }
        let asking = async { finding.await?.try_collect::<Vec<Document>>().await };
        let found = match tokio::time::timeout(self.options.write_timeout, asking).await {
            Ok(found) => found.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let found: HashMap<String, &Document> =
            found.iter().filter_map(|found| Some((found.get("_id")?.to_string(), found))).collect();
        let there =
            docs.iter().zip(ids).map(|(doc, id)| match id.and_then(|id| found.get(&id.to_string())) {
                None => There::No,
                Some(_) if !doc.has_own_id => There::Same,
                Some(found) => match Document::try_from(&*doc.bson) {
                    Ok(ours) if ours == **found => There::Same,
                    _ => There::Other,
                },
            });
        Ok(there.collect())
    }
}

/// The driver's error in our words.
pub(super) fn end_of(error: &Error) -> BulkEnd {
    match &*error.kind {
        ErrorKind::InsertMany(failed) => BulkEnd::Answered {
            faults: failed
                .write_errors
                .iter()
                .flatten()
                .map(|fault| WriteFault {
                    index: fault.index,
                    code: fault.code,
                    message: fault.message.clone(),
                    // The driver leaves `keyPattern` out.
                    key: None,
                })
                .collect(),
            write_concern: failed.write_concern_error.as_ref().map(|failed| failed.message.clone()),
        },
        ErrorKind::Command(refused) => {
            BulkEnd::Refused { code: refused.code, message: refused.message.clone() }
        }
        ErrorKind::InvalidArgument { message, .. } => BulkEnd::Unsendable(message.clone()),
        ErrorKind::BsonSerialization(error) => BulkEnd::Unsendable(error.to_string()),
        ErrorKind::Bson(error) => BulkEnd::Unsendable(error.to_string()),
        _ => BulkEnd::NoAnswer(error.to_string()),
    }
}

/// The answer to an `update` command.
fn end_of_reply(reply: &Document) -> BulkEnd {
    let faults = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let number = |fault: &Document, key: &str| match fault.get(key) {
        Some(value) => value.as_i32().or_else(|| value.as_i64().and_then(|long| i32::try_from(long).ok())),
        None => None,
    };
    let faults = faults.iter().filter_map(|fault| fault.as_document()).map(|fault| WriteFault {
        index: number(fault, "index").and_then(|index| usize::try_from(index).ok()).unwrap_or(0),
        code: number(fault, "code").unwrap_or(0),
        message: fault.get_str("errmsg").unwrap_or_default().to_owned(),
        key: fault.get_document("keyPattern").ok().map(|key| key.keys().cloned().collect()),
    });
    let write_concern = reply.get_document("writeConcernError").ok();
    BulkEnd::Answered {
        faults: faults.collect(),
        write_concern: write_concern
            .map(|failed| failed.get_str("errmsg").unwrap_or("no reason given").to_owned()),
    }
}
