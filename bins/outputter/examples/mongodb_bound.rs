//! The bound of `scripts/bench --mongodb`: the driver's own `insert_many` of the documents of an access log, in bulks of 1,000, as
//! many at once as there are savers. Making the documents is not counted.
//!
//! `mongodb_bound URI LOG DATABASE SAVERS`: prints `DOCUMENTS SECONDS`.

#![allow(clippy::print_stdout)] // its purpose

use anyhow::Context;
use bytes::Bytes;
use logferry_transform::{Format, Origin, Outcome, Runner, Transform, Value};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, RawDocumentBuf, serialize_to_document, serialize_to_raw_document_buf};
use mongodb::options::{Acknowledgment, WriteConcern};
use mongodb::{Client, Collection};
use std::time::Instant;

const BULK: usize = 1_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [uri, log, database, savers] = &words[..] else {
        anyhow::bail!("usage: mongodb_bound URI LOG DATABASE SAVERS");
    };
    let documents = documents(&std::fs::read(log).with_context(|| log.clone())?)?;
    let collection: Collection<RawDocumentBuf> =
        Client::with_uri_str(uri).await?.database(database).collection("lines");
    let savers: usize = savers.parse()?;
    let count = documents.len();
    let begin = Instant::now();
    let mut tasks = Vec::new();
    let bulks: Vec<Vec<RawDocumentBuf>> = documents.chunks(BULK).map(<[_]>::to_vec).collect();
    for part in 0..savers {
        let own: Vec<_> = bulks.iter().skip(part).step_by(savers).cloned().collect();
        tasks.push(tokio::spawn(insert(collection.clone(), own)));
    }
    for task in tasks {
        task.await??;
    }
    println!("{count} {:.3}", begin.elapsed().as_secs_f64());
    Ok(())
}

async fn insert(
    collection: Collection<RawDocumentBuf>,
    bulks: Vec<Vec<RawDocumentBuf>>,
) -> mongodb::error::Result<()> {
    let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    for bulk in bulks {
        collection.insert_many(bulk).ordered(false).write_concern(concern.clone()).await?;
    }
    Ok(())
}

fn documents(log: &[u8]) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let mut runner = Runner::new(Transform::Format(Format::Combined), "UTC")?;
    let origin = Origin::new("demo-host", "access", "2026112113", "0f");
    let lines = log.split_inclusive(|byte| *byte == b'\n');
    let mut documents = Vec::new();
    for line in lines {
        if let Outcome::Document(document) = runner.run(&Bytes::copy_from_slice(line), &origin, 0) {
            let mut bson: Document = serialize_to_document(&serde_json::to_value(Value::Object(document))?)?;
            // As large as those of the output.
            let mut id = vec![0; 24];
            id[..8].copy_from_slice(&(documents.len() as u64).to_be_bytes());
            bson.insert("_id", Binary { subtype: BinarySubtype::Generic, bytes: id });
            documents.push(serialize_to_raw_document_buf(&bson)?);
        }
    }
    Ok(documents)
}
