//! The MongoDB output: a document per line, exactly once by its `_id`, or merged by a key.
//!
//! ```text
//! packs ─▶ parse (threads) ─▶ slices, in order ─▶ savers (tasks) ─▶ the server ─▶ progress: a pack is whole when all its documents are
//!                              as there is room      └▶ dead-letter file             acknowledged, or in the dead-letter file
//! ```
//!
//! Which packs come here, and what becomes of them while the server is away, is decided in [`crate::outputs`].

pub mod dead_letter;
pub mod document;
mod indexes;
pub mod outcome;
mod parse;
mod progress;
mod room;
mod saver;
mod server;

use crate::config::MongodbSettings;
use crate::config::SpoolSettings;
use crate::outputs::away::{Away, AwayOptions, SharedFigures, Stored, ToStore};
use crate::outputs::backlog::BacklogLimits;
use crate::outputs::keeper::KeeperOptions;
use crate::outputs::route::Route;
use dead_letter::DeadLetters;
use logferry_durable::RealDisk;
use logferry_node::quarantine::Quarantine;
use logferry_pack::Limits;
use logferry_transform::{Format, Program, Transform};
use mongodb::bson;
use mongodb::options::ConnectionString;
use parse::{Doc, Parsers, Slice};
use room::{Room, Turn};
use saver::{Saver, Shared};
use server::Server;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use saver::Problem;

/// Name of the output: its folder in `var_dir`, and its label in figures.
pub const NAME: &str = "mongodb";
/// Memory of a pack that is being stored, in bytes for each of its lines': its body. Documents are counted for themselves.
const COST_PER_RAW_BYTE: u64 = 1;
/// Parts of `memory`: bodies of packs get one, slices that wait for their turn one, documents on their way to the server two.
const MEMORY_PARTS: u64 = 4;
/// Threads that parse, at most: what each has parsed while it is another one's turn takes memory.
const PARSERS_MAX: usize = 8;
/// Slices that fit into the room at least, so that savers do not run dry.
const SLICES_MIN: usize = 8;
/// Servers that a replica set can have, and so a write concern can ask for.
const WRITE_CONCERN_MAX: u32 = 50;
/// Bytes of one group that goes to the spool or comes from there.
const GROUP_BYTES_MAX: u64 = 2 << 20;
/// How long a pack is left without an answer: well below a sender's `ack_timeout`.
const ANSWER_MS_MAX: u64 = 20_000;

/// Settings, understood.
#[derive(Clone, Debug)]
pub struct MongodbOptions {
    uri: String,
    database: String,
    per_day: bool,
    collection: String,
    /// Field by which documents are merged; none: they are inserted.
    key: Option<String>,
    transform: Transform,
    zone: String,
    store_unparsed: bool,
    bulk_size: usize,
    savers: usize,
    /// A number of servers; none: the majority.
    write_concern: Option<u32>,
    journal: bool,
    write_timeout: Duration,
    connect_timeout: Duration,
    pool_max: u32,
    /// For bodies and documents on their way, in bytes.
    memory: usize,
    /// Specifications for `createIndexes`.
    indexes: Vec<bson::Document>,
}

impl MongodbOptions {
    /// Compiles the program; errors begin with the key.
    pub fn new(settings: &MongodbSettings, zone: &str) -> Result<MongodbOptions, String> {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let write_concern = match settings.write_concern.as_str() {
            "majority" => None,
            text => Some(text.parse().ok().filter(|nodes| (1..=WRITE_CONCERN_MAX).contains(nodes)).ok_or_else(|| {
                format!(
                    "mongodb.write_concern is {text:?}: set it to \"majority\" or a number of servers from 1 to {WRITE_CONCERN_MAX}"
                )
            })?),
        };
        // As far as it goes without asking a name server.
        ConnectionString::parse(&settings.uri).map_err(|error| {
            format!("mongodb.uri is no connection string such as \"mongodb://db-1:27017\": {}", error.kind)
        })?;
        let transform = transform(settings)?;
        check_fields(settings, &transform)?;
        let pool_max = match settings.pool_max {
            0 => settings.savers + 2,
            given => given,
        };
        Ok(MongodbOptions {
            uri: settings.uri.clone(),
            database: settings.database.clone(),
            per_day: settings.per_day,
            collection: settings.collection.clone(),
            key: (settings.mode == "upsert").then(|| settings.key.clone()),
            transform,
            zone: zone.to_owned(),
            store_unparsed: settings.unparsed == "store",
            bulk_size: number(settings.bulk_size),
            savers: number(settings.savers),
            write_concern,
            journal: settings.journal,
            write_timeout: settings.write_timeout.0,
            connect_timeout: settings.connect_timeout.0,
            pool_max: u32::try_from(pool_max).unwrap_or(u32::MAX),
            memory: number(settings.memory.0),
            indexes: indexes(settings)?,
        })
    }

    /// The database of an hour, `YYYYMMDDHH`.
    fn database(&self, hour: &str) -> String {
        let day = if self.per_day { hour.get(..8).unwrap_or_default() } else { "" };
        format!("{}{day}", self.database)
    }
}

fn transform(settings: &MongodbSettings) -> Result<Transform, String> {
    let has_program = !settings.program.as_os_str().is_empty();
    match (settings.format.as_str(), has_program) {
        ("", false) => Err("mongodb.format is not set: name a format such as \"combined\", or a file with a VRL program in mongodb.program".into()),
        ("", true) => {
            let program = Program::from_file(&settings.program);
            program.map(Transform::Program).map_err(|error| format!("mongodb.program: {error}"))
        }
        (_, true) => Err("mongodb.format and mongodb.program are both set: leave one out".into()),
        (name, false) => {
            let format = name.parse::<Format>().map_err(|error| format!("mongodb.format: {error}"))?;
            Ok(Transform::Format(format))
        }
    }
}

/// Refuses settings that need a field which documents of a named format never have. What a program makes nobody knows.
fn check_fields(settings: &MongodbSettings, transform: &Transform) -> Result<(), String> {
    let Transform::Format(format) = transform else { return Ok(()) };
    let (name, field, key) = (&settings.format, &settings.ttl_field, &settings.key);
    if !settings.ttl.0.is_zero() && !format.time_fields().contains(&field.as_str()) {
        let have = match format.time_fields() {
            [] => "have no field with a time".to_owned(),
            fields => format!("have their time in {:?}", fields.join(", ")),
        };
        return Err(format!(
            "mongodb.ttl would let nothing expire: it counts from a time in {field:?} (ttl_field), and documents of the format {name:?} \
             {have}; use a mongodb.program that makes one, or leave ttl out and drop old databases"
        ));
    }
    match format.fields() {
        Some(fields) if settings.mode == "upsert" && !fields.contains(&key.as_str()) => Err(format!(
            "mongodb.key is {key:?}, which no document of the format {name:?} has, so that each line would be a dead letter: name one \
             of {}, use a mongodb.program that makes it, or mode = \"insert\"",
            fields.join(", ")
        )),
        _ => Ok(()),
    }
}

fn indexes(settings: &MongodbSettings) -> Result<Vec<bson::Document>, String> {
    let mut specifications = Vec::new();
    for index in &settings.indexes {
        let mut fields = bson::Document::new();
        for field in index.split(',').map(str::trim) {
            let (name, direction) = field.strip_prefix('-').map_or((field, 1), |name| (name, -1));
            if name.is_empty() {
                return Err(format!(
                    "mongodb.indexes: {index:?} has an empty field; write it as \"time\" or \"host,-time\""
                ));
            }
            fields.insert(name, direction);
        }
        specifications.push(specification(fields));
    }
    if settings.mode == "upsert" {
        let mut unique = specification(bson::doc! { &settings.key: 1 });
        unique.insert("unique", true);
        specifications.push(unique);
    }
    if !settings.ttl.0.is_zero() {
        let mut ttl = specification(bson::doc! { &settings.ttl_field: 1 });
        ttl.insert("expireAfterSeconds", i64::try_from(settings.ttl.0.as_secs()).unwrap_or(i64::MAX));
        specifications.retain(|other| other.get("key") != ttl.get("key"));
        specifications.push(ttl);
    }
    Ok(specifications)
}

/// Named as the server's own tools name it.
fn specification(fields: bson::Document) -> bson::Document {
    let name =
        fields.iter().map(|(name, direction)| format!("{name}_{direction}")).collect::<Vec<_>>().join("_");
    bson::doc! { "key": fields, "name": name }
}

/// What is shown of it.
pub struct MongodbStatus {
    /// Packs that wait.
    pub figures: SharedFigures,
    /// What is wrong with the server, and with the dead-letter files.
    pub problems: [Problem; 2],
}

/// The output, started: the task that is to run, the way to it, and what is shown.
pub async fn start(
    settings: &MongodbSettings,
    spool: &SpoolSettings,
    zone: &str,
    var_dir: &Path,
    limits: Limits,
    quarantine: Arc<Quarantine>,
) -> anyhow::Result<(Away, Route, MongodbStatus)> {
    let options = MongodbOptions::new(settings, zone).map_err(anyhow::Error::msg)?;
    let options = Arc::new(options);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let away = AwayOptions {
        keeper: KeeperOptions { dir: var_dir.join(NAME), output: NAME, spool: spool.options(), limits },
        backlog: BacklogLimits {
            queue_bytes_max: settings.queue_bytes_max.0,
            storing_cost_max: settings.memory.0 / MEMORY_PARTS,
            spool_after_ms: millis(settings.spool_after.0),
            answer_ms_max: ANSWER_MS_MAX,
            group_bytes_max: GROUP_BYTES_MAX,
            in_order: options.key.is_some(),
        },
        footprint_bytes_max: usize::try_from(settings.footprint_memory.0 / 2).unwrap_or(usize::MAX),
        footprint_keep_secs: settings.footprint_keep.0.as_secs(),
        cost_per_raw_byte: COST_PER_RAW_BYTE,
        quarantine,
    };
    let (stored_out, stored) = unbounded_channel();
    let (store, packs) = unbounded_channel();
    let problem = Problem::new("takes no documents");
    let letters_problem = Problem::new("can write no dead letters");
    let server = Server::new(options.clone()).await?;
    let folder = var_dir.join(dead_letter::FOLDER);
    let letters = Arc::new(DeadLetters::new(Arc::new(RealDisk), folder, settings.dead_letter_max.0));
    let shared = Shared {
        server,
        letters,
        bulk_size: options.bulk_size,
        ordered: options.key.is_some(),
        problem: problem.clone(),
        letters_problem: letters_problem.clone(),
        stored: AtomicU64::new(0),
    };
    spawn(options, Arc::new(shared), limits, packs, stored_out)?;
    let opening = tokio::task::spawn_blocking(move || Away::start(away, store, stored));
    let (away, route, figures) = opening.await??;
    Ok((away, route, MongodbStatus { figures, problems: [problem, letters_problem] }))
}

fn spawn(
    options: Arc<MongodbOptions>,
    shared: Arc<Shared>,
    limits: Limits,
    mut packs: UnboundedReceiver<ToStore>,
    stored: UnboundedSender<Stored>,
) -> anyhow::Result<()> {
    let (jobs, jobs_in) = crossbeam_channel::unbounded();
    let (slices, mut slices_in) = unbounded_channel();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(PARSERS_MAX);
    let part = options.memory / MEMORY_PARTS as usize;
    let parsers = Parsers {
        jobs: jobs_in,
        slices,
        stored,
        options: options.clone(),
        limits,
        turn: Turn::default(),
        room: Room::new(2 * part),
        slice_cost: (part / threads).min(2 * part / SLICES_MIN),
    };
    parse::start(parsers, threads)?;
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(pack) = packs.recv().await {
            let _ = jobs.send((number, pack));
            number += 1;
        }
    });
    let mut savers = Savers::start(&shared, options.savers);
    tokio::spawn(async move {
        while let Some(slice) = slices_in.recv().await {
            savers.take(&shared, slice);
        }
    });
    Ok(())
}

/// The savers' ends.
struct Savers {
    lanes: Vec<(UnboundedSender<Vec<Doc>>, Arc<AtomicUsize>)>,
    bulk_size: usize,
    by_key: bool,
}

impl Savers {
    fn start(shared: &Arc<Shared>, count: usize) -> Savers {
        let lane = |_| {
            let (docs, docs_in) = unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            tokio::spawn(Saver::new(shared.clone(), docs_in, load.clone()).run());
            (docs, load)
        };
        Savers { lanes: (0..count).map(lane).collect(), bulk_size: shared.bulk_size, by_key: shared.ordered }
    }

    /// Documents with the same key go to the same saver; others to the one with the least to do.
    fn take(&mut self, shared: &Arc<Shared>, slice: Slice) {
        let Slice { mut docs, letters, progress, held, .. } = slice;
        if !letters.is_empty() {
            let shared = shared.clone();
            tokio::spawn(async move {
                saver::bury(&shared, letters).await;
                progress.arrived();
                drop(held);
            });
        }
        if self.by_key {
            let mut parts: Vec<Vec<Doc>> = self.lanes.iter().map(|_| Vec::new()).collect();
            for doc in docs {
                parts[doc.lane].push(doc);
            }
            parts
                .into_iter()
                .enumerate()
                .filter(|(_, part)| !part.is_empty())
                .for_each(|(lane, part)| self.give(lane, part));
        } else {
            while !docs.is_empty() {
                let rest = docs.split_off(docs.len().min(self.bulk_size));
                let part = std::mem::replace(&mut docs, rest);
                let least = (0..self.lanes.len()).min_by_key(|lane| self.lanes[*lane].1.load(Relaxed));
                self.give(least.unwrap_or(0), part);
            }
        }
    }

    fn give(&mut self, lane: usize, docs: Vec<Doc>) {
        if let Some((saver, load)) = self.lanes.get(lane) {
            load.fetch_add(docs.len(), Relaxed);
            // Savers end after this.
            let _ = saver.send(docs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_node::config::Interval;

    fn options(change: impl Fn(&mut MongodbSettings)) -> Result<MongodbOptions, String> {
        let mut settings = MongodbSettings { format: "combined".into(), ..Default::default() };
        change(&mut settings);
        MongodbOptions::new(&settings, "UTC")
    }

    #[test]
    fn each_day_has_its_database() {
        assert_eq!(options(|_| {}).unwrap().database("2026112113"), "logs20261121");
        assert_eq!(options(|s| s.per_day = false).unwrap().database("2026112113"), "logs");
    }

    #[test]
    fn errors_name_the_key_and_say_what_to_do() {
        assert!(options(|s| s.format.clear()).unwrap_err().contains("mongodb.program"));
        assert!(options(|s| s.format = "combine".into()).unwrap_err().contains("nginx_json"));
        assert!(options(|s| s.program = "/no/such.vrl".into()).unwrap_err().contains("both"));
        assert!(options(|s| s.uri = "mongodb//bad".into()).unwrap_err().starts_with("mongodb.uri "));
        for bad in ["0", "51", "-1", "many"] {
            assert!(options(|s| s.write_concern = bad.into()).unwrap_err().contains("majority"), "{bad}");
        }
        options(|s| s.write_concern = "50".into()).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/etl/service_log.vrl");
        options(|s| (s.format, s.program) = (String::new(), shipped.into())).unwrap();
        assert!(options(|s| s.indexes = vec!["a,,b".into()]).unwrap_err().contains("mongodb.indexes"));
        let missing = options(|s| (s.format, s.program) = (String::new(), "/no/such.vrl".into()));
        assert!(missing.unwrap_err().starts_with("mongodb.program: "));
    }

    #[test]
    fn fields_that_a_format_never_has_are_refused_where_something_depends_on_them() {
        let with_ttl = |format: &str, field: &str| {
            options(|s| {
                (s.format, s.ttl, s.ttl_field) = (format.into(), Interval::secs(60), field.into());
            })
        };
        for format in ["raw", "json", "logd_transaction"] {
            let error = with_ttl(format, "time").unwrap_err();
            assert!(error.starts_with("mongodb.ttl ") && error.contains("mongodb.program"), "{error}");
        }
        assert!(with_ttl("combined", "when").unwrap_err().contains("\"time\""));
        with_ttl("combined", "time").unwrap();
        with_ttl("nginx_json", "time").unwrap();
        let with_key = |format: &str, key: &str| {
            options(|s| (s.format, s.mode, s.key) = (format.into(), "upsert".into(), key.into()))
        };
        for format in ["combined", "raw"] {
            let error = with_key(format, "transaction_id").unwrap_err();
            assert!(error.starts_with("mongodb.key ") && error.contains("dead letter"), "{error}");
        }
        with_key("combined", "remote_addr").unwrap();
        with_key("json", "transaction_id").unwrap();
        with_key("nginx_json", "transaction_id").unwrap();
        with_key("logd_transaction", "transaction_id").unwrap();
    }

    #[test]
    fn indexes_are_those_that_are_asked_for_and_the_ttl_takes_the_place_of_one_on_its_field() {
        let options = options(|s| {
            (s.mode, s.indexes) = ("upsert".into(), vec!["time".into(), "host, -time".into()]);
            s.format = "nginx_json".into();
            s.ttl = Interval::secs(60);
        });
        let expected = [
            bson::doc! { "key": { "host": 1, "time": -1 }, "name": "host_1_time_-1" },
            bson::doc! { "key": { "transaction_id": 1 }, "name": "transaction_id_1", "unique": true },
            bson::doc! { "key": { "time": 1 }, "name": "time_1", "expireAfterSeconds": 60_i64 },
        ];
        assert_eq!(options.unwrap().indexes, expected);
    }
}
