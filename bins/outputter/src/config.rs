//! Configuration of the outputter: `outputter.toml`.

use crate::file::archive::Form;
use crate::file::template::Template;
use crate::finish::{FinishSettings, Plan, RetentionSettings};
use logferry_node::config::{
    ByteSize, Interval, ListenSettings, NodeSettings, ProgramConfig, Setting, Settings, rules,
};
use logferry_spool::SpoolOptions;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that a held pack waits for its answer: well below a sender's `ack_timeout` (60 s by default), so
/// that waiting for a gap never looks like a broken connection. Longer waits go on across resends.
pub const HOLD_ANSWER_MAX: Duration = Duration::from_secs(20);

/// More threads than any disk has use for.
const SYNC_THREADS_MAX: u64 = 256;

logferry_node::settings! {
    /// `[file]`: log files under `dir/log_data`, header lines under `dir/headers`.
    pub struct FileSettings {
        /// Folder that holds log_data/, headers/ and received/.
        pub dir: PathBuf = PathBuf::new(),
        /// Path of a log file below log_data/; placeholders {source} {host} {hour} {day} {ip} {stream}; parts that expand to nothing vanish.
        pub path: String = "{source}/{host}_{hour}".to_owned(),
        /// Acknowledge after fsync; false: after write(2), which a power loss can undo.
        pub sync: bool = true,
        /// Compress log files as they come, each pack a member or frame: "none", "gzip" (NAME.gz) or "zstd" (NAME.zst). A folder keeps the form that it began with.
        pub archive: String = "none".to_owned() => rules::one_of(&["none", "gzip", "zstd"]),
        /// How long a pack that leaves a gap waits for what is missing before it is written anyway.
        pub reorder_wait: Interval = Interval::secs(10),
        /// Compressed bytes of packs that may wait behind gaps; beyond, senders are told to send again later.
        pub hold_bytes_max: ByteSize = ByteSize::mib(8),
        /// Decompressed bytes in memory, from inflating to the end of the group commit.
        pub inflate_memory: ByteSize = ByteSize::mib(16),
        /// Threads that inflate; 0: one per core.
        pub inflate_threads: u64 = 0,
        /// Log files kept open between commits, those used last (two descriptors each; at most half of the process's descriptors).
        pub open_files_max: u64 = 1024,
        /// Free bytes of the disk that are left to others: below, nothing is taken in, and /readyz says so. "0B": all may be used.
        pub min_free: ByteSize = ByteSize(0),
        /// Threads that fsync the files of one group commit at the same time; they only wait. More help with many streams.
        pub sync_threads: u64 = 16,
        /// Memory of all footprints. Above it, identities of packs are forgotten, those of the streams that were quiet for longest first, but never the last 16 of a stream nor which bytes it had; when even that fills it, packs of new streams are told to come later, and /readyz says so. About 100 bytes a quiet stream.
        pub footprint_memory: ByteSize = ByteSize::mib(128) => rules::at_least(ByteSize::mib(1)),
        /// How long a stream's footprint is kept after its last pack.
        pub footprint_keep: Interval = Interval::secs(30 * 24 * 3600),
    }
}

logferry_node::settings! {
    /// `[spool]`: packs on disk for an output that is away, while the others go on.
    pub struct SpoolSettings {
        /// Cap of the packs kept on disk for an output that is away; each output has a spool of its own. Those of [file] go there where there is another output; else senders are told to come again later, and keep them.
        pub max_bytes: ByteSize = ByteSize::gib(20),
        /// Size of a segment file.
        pub segment_bytes: ByteSize = ByteSize::mib(8) => rules::at_least(ByteSize::kib(4)),
    }
}

logferry_node::settings! {
    /// `[hours]`: the completeness books, their marks under `received/`, and hooks.
    pub struct HoursSettings {
        /// Command and arguments run for each complete hour, at least once; its facts are in LOGFERRY_… variables. Empty: none.
        pub on_complete: Vec<String> = Vec::new(),
        /// URL that gets a POST with the hour's facts as JSON for each complete hour, at least once: "http://…". "" is none.
        pub webhook: String = String::new(),
        /// Longest that a command or webhook may take; then it has failed, and is run again later.
        pub hook_timeout: Interval = Interval::secs(300) => rules::at_least(Interval::ms(1)),
        /// Commands that run at a time, and webhooks, and hours that are put into the queue of [etl].
        pub hooks_at_once: u64 = 4 => rules::between(1, 64),
        /// How long an hour is remembered after its last pack. One that is not complete by then expires with a warning.
        pub keep: Interval = Interval::secs(4 * 24 * 3600) => rules::at_least(Interval::secs(1)),
        /// Memory of the books; about 1 KiB an hour of a source of a host. Above it, complete hours are forgotten first.
        pub memory: ByteSize = ByteSize::mib(64) => rules::at_least(ByteSize::mib(1)),
        /// Time zones of hosts whose clocks show another time than this node's, { "web-1" = "Asia/Tokyo" }: for the marks of days.
        pub zones: BTreeMap<String, String> = BTreeMap::new() => known_zones,
    }
}

logferry_node::settings! {
    /// `[repull]`: asking tailers for what is missing.
    pub struct RepullSettings {
        /// How long packs of an hour may be missing, with nothing of it coming, before a repull is wanted. Twice as long after each time.
        pub wait: Interval = Interval::secs(900) => rules::at_least(Interval::ms(1)),
        /// Admin endpoints of tailers by host, { "web-1" = "web-1:9311" }. Of other hosts it is only said what is missing.
        pub hosts: BTreeMap<String, String> = BTreeMap::new() => addresses_by_host,
        /// File whose first line is the token that the tailers ask for (their node.token_file); "" is none.
        pub token_file: PathBuf = PathBuf::new(),
    }
}

fn known_zones(zones: &BTreeMap<String, String>) -> Result<(), String> {
    zones.values().try_for_each(rules::time_zone)
}

fn addresses_by_host(hosts: &BTreeMap<String, String>) -> Result<(), String> {
    hosts.values().try_for_each(rules::address)
}

logferry_node::settings! {
    /// `[etl]`: tables of complete hours. Needs a program that was built with `--features etl`.
    pub struct EtlSettings {
        /// Folder of the tables, with their marks under etl_done/ and etl_fail/ and what failed under etl_reject/.
        pub dir: PathBuf = PathBuf::new(),
        /// The program in VRL that makes a record of each line.
        pub program: PathBuf = PathBuf::new(),
        /// The columns file: which fields of a record are written, and into which partitions.
        pub columns: PathBuf = PathBuf::new(),
        /// Format of the table files: "parquet", "tsv" or "ndjson".
        pub format: String = "parquet".to_owned() => rules::one_of(&["parquet", "tsv", "ndjson"]),
        /// A substring of user agents a line: marks event_isspider and event_spiderdetail. "" is none.
        pub spider_list: PathBuf = PathBuf::new(),
        /// A regular expression a line: lines of other hosts are dropped. "" keeps all.
        pub hosts_white_list: PathBuf = PathBuf::new(),
        /// An address a line, # comments: its lines are dropped. "" is none.
        pub ip_black_list: PathBuf = PathBuf::new(),
        /// Hours that are worked on at the same time.
        pub workers: u64 = 2 => rules::between(1, 64),
        /// Memory for rows that wait to be written, over all workers.
        pub memory: ByteSize = ByteSize::mib(64) => rules::at_least(ByteSize::mib(1)),
        /// Partitions that a worker writes at the same time; one beyond closes the file that was quiet for longest.
        pub open_partitions_max: u64 = 64 => rules::between(1, 10_000),
        /// Table files that an hour may have; beyond, it fails, because its partitions are not what they were meant to be.
        pub files_max: u64 = 10_000 => rules::between(1, 1_000_000),
        /// An hour of which more lines than this are rejected fails and keeps its old tables, in per cent.
        pub rejected_percent_max: u64 = 50 => rules::between(0, 100),
    }
}

logferry_node::settings! {
    /// `[mongodb]`: a document per line. Needs a program that was built with the feature `mongodb`.
    pub struct MongodbSettings {
        /// Where the server is: a MongoDB connection string; it may name several servers and TLS.
        pub uri: String = "mongodb://localhost:27017".to_owned(),
        /// Database; with per_day the day of the pack's hour is added: logs20261121.
        pub database: String = "logs".to_owned(),
        /// One database a day, so that a day is dropped at once; false: `database` alone.
        pub per_day: bool = true,
        /// Collection.
        pub collection: String = "lines".to_owned(),
        /// insert: a document for each line, known by its place, so that a pack that comes again changes nothing. upsert: lines with the same `key` merge into one document.
        pub mode: String = "insert".to_owned() => rules::one_of(&["insert", "upsert"]),
        /// Named format of the lines: combined, nginx_json, json, raw, logd_transaction. Not with `program`.
        pub format: String = String::new(),
        /// File of a VRL program that makes a document of a line. Not with `format`.
        pub program: PathBuf = PathBuf::new(),
        /// Field by which documents are merged (mode = "upsert").
        pub key: String = "transaction_id".to_owned(),
        /// Lines that do not fit: dead_letter, or store (as `message` and `error`).
        pub unparsed: String = "dead_letter".to_owned() => rules::one_of(&["dead_letter", "store"]),
        /// Disk for dead letters: with more than this in `var_dir`/dead_letter packs are held instead, until somebody removes files.
        pub dead_letter_max: ByteSize = ByteSize::gib(1) => rules::at_least(ByteSize::mib(1)),
        /// Documents in one write.
        pub bulk_size: u64 = 1000 => rules::between(1, 100_000),
        /// Writes at the same time.
        pub savers: u64 = 4 => rules::between(1, 256),
        /// What the server has to say before a document counts as stored: majority, or a number of servers from 1 to 50.
        pub write_concern: String = "majority".to_owned(),
        /// Documents count as stored when the server has them in its journal on disk; false: in memory.
        pub journal: bool = true,
        /// Longest that a write may take, and that the server may take to reach the write concern.
        pub write_timeout: Interval = Interval::secs(30),
        /// Longest that connecting and looking for a server may take.
        pub connect_timeout: Interval = Interval::secs(5),
        /// Connections to a server at most; 0: as many as savers need.
        pub pool_max: u64 = 0,
        /// Indexes to create in each collection: fields with commas between them, - before one that goes down: ["time", "host,-time"]. In mode upsert, `key` has a unique one in any case.
        pub indexes: Vec<String> = Vec::new(),
        /// How long documents are kept, by an index on ttl_field; 0s: for ever.
        pub ttl: Interval = Interval::secs(0),
        /// Field with the time that ttl counts from.
        pub ttl_field: String = "time".to_owned(),
        /// Packs that wait for the server in memory; above it they go to the spool.
        pub queue_bytes_max: ByteSize = ByteSize::mib(8) => rules::at_least(ByteSize::kib(64)),
        /// How long a pack waits for the server before it goes to the spool, and is acknowledged from there.
        pub spool_after: Interval = Interval::secs(2),
        /// Memory for lines and documents on their way to the server, beside the lines of a single pack that are more.
        pub memory: ByteSize = ByteSize::mib(32) => rules::at_least(ByteSize::mib(1)),
        /// Memory of footprints: which packs are stored or in the spool.
        pub footprint_memory: ByteSize = ByteSize::mib(32) => rules::at_least(ByteSize::mib(1)),
        /// How long a stream's footprint is kept after its last pack.
        pub footprint_keep: Interval = Interval::secs(30 * 24 * 3600),
    }
}

/// The whole of `outputter.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputterConfig {
    /// `[node]`.
    pub node: NodeSettings,
    /// `[listen]`.
    pub listen: ListenSettings,
    /// `[spool]`: for an output that is away.
    pub spool: SpoolSettings,
    /// `[file]`.
    pub file: Option<FileSettings>,
    /// `[hours]`.
    pub hours: HoursSettings,
    /// `[repull]`.
    pub repull: RepullSettings,
    /// `[finish]`.
    pub finish: FinishSettings,
    /// `[retention]`.
    pub retention: RetentionSettings,
    /// `[etl]`.
    pub etl: Option<EtlSettings>,
    /// `[mongodb]`.
    pub mongodb: Option<MongodbSettings>,
}

impl SpoolSettings {
    /// Of one spool.
    pub(crate) fn options(&self) -> SpoolOptions {
        SpoolOptions { bytes_max: self.max_bytes.0, segment_bytes: self.segment_bytes.0 }
    }
}

impl ProgramConfig for OutputterConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![
            ("node", NodeSettings::SETTINGS),
            ("listen", ListenSettings::SETTINGS),
            ("spool", SpoolSettings::SETTINGS),
            ("file", FileSettings::SETTINGS),
            ("hours", HoursSettings::SETTINGS),
            ("repull", RepullSettings::SETTINGS),
            ("finish", FinishSettings::SETTINGS),
            ("retention", RetentionSettings::SETTINGS),
            ("etl", EtlSettings::SETTINGS),
            ("mongodb", MongodbSettings::SETTINGS),
        ]
    }

    fn validate(&self) -> Result<(), String> {
        rules::all([
            rules::ensure(!self.listen.addr.is_empty(), || {
                "listen.addr is not set: say where packs come in, such as addr = \"0.0.0.0:1306\"".into()
            }),
            self.hours.validate(),
            self.validate_ages(),
            rules::ensure(self.file.is_some() || self.mongodb.is_some(), || {
                "no output is configured: add a [file] table with dir = \"…\", or [mongodb]".into()
            }),
            self.file.as_ref().map_or(Ok(()), |file| self.validate_file(file)),
            self.mongodb.as_ref().map_or(Ok(()), |mongodb| mongodb.validate(&self.listen, &self.node)),
            self.etl.as_ref().map_or(Ok(()), |etl| self.validate_etl(etl)),
            self.validate_effects(),
        ])
    }

    #[cfg(feature = "etl")]
    fn check(&self) -> Result<(), String> {
        self.etl.as_ref().map_or(Ok(()), |etl| crate::etl::check(etl, &self.node.time_zone))
    }
}

impl OutputterConfig {
    fn validate_ages(&self) -> Result<(), String> {
        let age = self.retention.age.0;
        rules::ensure(age.is_zero() || age >= self.hours.keep.0, || {
            format!(
                "retention.age ({}) is below hours.keep ({}): an hour must not be removed while lines of it are waited for",
                self.retention.age, self.hours.keep
            )
        })
    }

    fn validate_file(&self, file: &FileSettings) -> Result<(), String> {
        let finish = Plan::new(&self.finish, &file.dir.join("log_data"), Form::of(&file.archive));
        rules::all([file.validate(&self.listen), finish.map(drop)])
    }

    fn validate_etl(&self, etl: &EtlSettings) -> Result<(), String> {
        let has_files = rules::ensure(self.file.is_some(), || {
            "etl.dir takes tables that are made of the log files: add a [file] table with dir = \"…\"".into()
        });
        let path = self.file.as_ref().map_or(Ok(()), |file| etl.validate_path(file));
        rules::all([has_files, path, etl.validate()])
    }

    /// Hours are known from the header files, so nothing that follows from them can be had without `[file]`.
    fn validate_effects(&self) -> Result<(), String> {
        let (finish, retention) = (&self.finish, &self.retention);
        let set = [
            ("hours.on_complete", !self.hours.on_complete.is_empty()),
            ("hours.webhook", !self.hours.webhook.is_empty()),
            ("repull.hosts", !self.repull.hosts.is_empty()),
            ("finish.compress", finish.compress != "none"),
            ("finish.dir", !finish.dir.as_os_str().is_empty()),
            ("finish.mode", !finish.mode.is_empty()),
            ("finish.owner", !finish.owner.is_empty()),
            ("retention.age", !retention.age.0.is_zero()),
            ("retention.bytes", retention.bytes.0 > 0),
            ("retention.free", retention.free.0 > 0),
        ];
        rules::all(set.map(|(name, is_set)| {
            rules::ensure(self.file.is_some() || !is_set, || {
                format!(
                    "{name} has no effect without [file]: which hours are complete is known from its header files; add [file], or leave it out"
                )
            })
        }))
    }
}

impl MongodbSettings {
    fn validate(&self, listen: &ListenSettings, node: &NodeSettings) -> Result<(), String> {
        if self.queue_bytes_max.0 * 2 > listen.memory.0 {
            return Err(format!(
                "mongodb.queue_bytes_max ({}) must be at most half of listen.memory ({}): else packs that wait for the \
                 server leave the other outputs no memory",
                self.queue_bytes_max, listen.memory
            ));
        }
        #[cfg(feature = "mongodb")]
        return crate::mongodb::MongodbOptions::new(self, &node.time_zone).map(drop);
        #[cfg(not(feature = "mongodb"))]
        {
            let _ = node;
            Err("[mongodb] needs a program that was built with it: cargo build --features mongodb".into())
        }
    }
}

impl HoursSettings {
    fn validate(&self) -> Result<(), String> {
        if !self.webhook.is_empty() && !self.webhook.starts_with("http://") {
            return Err(format!(
                "hours.webhook is {:?}: it must begin with http:// (for https put a proxy on this machine)",
                self.webhook
            ));
        }
        Ok(())
    }
}

impl EtlSettings {
    fn validate(&self) -> Result<(), String> {
        if !cfg!(feature = "etl") {
            return Err("[etl] is not in this build of the outputter: build it with --features etl".into());
        }
        let needed = [
            ("dir", &self.dir, "which folder takes the tables"),
            ("program", &self.program, "which program makes records of lines"),
            ("columns", &self.columns, "which file says what is written"),
        ];
        rules::all(needed.map(|(name, path, what)| {
            rules::ensure(!path.as_os_str().is_empty(), || format!("etl.{name} is not set: say {what}"))
        }))
    }

    /// An hour's tables are made of its files, so no file may have lines of another hour: they would be in the tables of both.
    fn validate_path(&self, file: &FileSettings) -> Result<(), String> {
        // A template that is none is told of elsewhere.
        if Template::parse(&file.path).map_or(true, |template| template.has_files_of_one_hour()) {
            return Ok(());
        }
        Err(format!(
            "file.path is {:?}, but [etl] makes the tables of an hour of all lines of its files: a file must hold one hour of one \
             source of one host, so put {{source}}, {{host}} and {{hour}} into it (hours that are in other files already are not \
             taken apart), or leave [etl] out",
            file.path
        ))
    }
}

impl FileSettings {
    fn validate(&self, listen: &ListenSettings) -> Result<(), String> {
        rules::all([
            rules::ensure(!self.dir.as_os_str().is_empty(), || {
                "file.dir is not set: say which folder holds log_data/ and headers/".into()
            }),
            Template::parse(&self.path).map(drop).map_err(|error| format!("file.path: {error}")),
            rules::ensure(self.inflate_memory.0 >= 1 << 20, || {
                "file.inflate_memory is below 1MiB: one pack would not fit; set it to 1MiB or more".into()
            }),
            rules::ensure(self.open_files_max >= 2, || {
                "file.open_files_max is below 2: set it to 2 or more".into()
            }),
            rules::ensure((1..=SYNC_THREADS_MAX).contains(&self.sync_threads), || {
                format!("file.sync_threads is {}: set it to 1 to {SYNC_THREADS_MAX}", self.sync_threads)
            }),
            rules::ensure(self.hold_bytes_max < listen.memory, || {
                format!(
                    "file.hold_bytes_max ({}) must be below listen.memory ({}): else packs behind gaps could take all \
                     the memory, and the pack that closes the gap would find none",
                    self.hold_bytes_max, listen.memory
                )
            }),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> OutputterConfig {
        let mut config = OutputterConfig { file: Some(FileSettings::default()), ..Default::default() };
        config.listen.addr = "127.0.0.1:0".into();
        config.file.as_mut().unwrap().dir = "/data/logs".into();
        config
    }

    fn error_after(change: impl Fn(&mut OutputterConfig, &mut FileSettings)) -> String {
        let mut config = good();
        let mut file = config.file.take().unwrap();
        change(&mut config, &mut file);
        config.file = Some(file);
        config.validate().unwrap_err()
    }

    #[cfg(feature = "etl")]
    fn etl_set() -> EtlSettings {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/etl");
        let (program, columns) = (shipped.join("access.vrl"), shipped.join("columns.json"));
        EtlSettings { dir: "/data/etl".into(), program, columns, ..EtlSettings::default() }
    }

    #[cfg(feature = "etl")]
    #[test]
    fn tables_are_only_made_of_files_of_one_hour() {
        let validated = |path: &str| {
            let mut config = good();
            config.file.as_mut().unwrap().path = path.into();
            config.etl = Some(etl_set());
            config.validate()
        };
        for path in ["{source}/{host}_{hour}", "{day}/{host}/{source}_{hour}_{stream}"] {
            validated(path).unwrap();
        }
        for path in
            ["{source}/{day}", "{source}/{host}", "{host}_{hour}", "{source}/{hour}", "{source}/{ip}_{hour}"]
        {
            let error = validated(path).unwrap_err();
            assert!(error.contains("file.path") && error.contains("[etl]"), "{path}: {error}");
        }
    }

    #[cfg(feature = "etl")]
    #[test]
    fn files_of_etl_are_read_when_the_configuration_is_checked() {
        let mut config = good();
        config.etl = Some(etl_set());
        config.check().unwrap();
        let changes: [fn(&mut EtlSettings); 3] = [
            |etl| etl.program = "/nonexistent.vrl".into(),
            |etl| etl.columns = "/nonexistent.json".into(),
            |etl| etl.spider_list = "/nonexistent".into(),
        ];
        for change in changes {
            let mut config = good();
            let mut etl = etl_set();
            change(&mut etl);
            config.etl = Some(etl);
            config.validate().unwrap();
            let error = config.check().unwrap_err();
            assert!(error.contains("etl") && error.contains("/nonexistent"), "{error}");
        }
    }

    #[test]
    fn what_needs_header_files_is_refused_without_file() {
        type Change = fn(&mut OutputterConfig);
        let changes: [(&str, Change); 5] = [
            ("hours.on_complete", |c| c.hours.on_complete = vec!["true".into()]),
            ("hours.webhook", |c| c.hours.webhook = "http://127.0.0.1/".into()),
            ("repull.hosts", |c| drop(c.repull.hosts.insert("a".into(), "a:1".into()))),
            ("finish.compress", |c| c.finish.compress = "zstd".into()),
            ("retention.bytes", |c| c.retention.bytes = ByteSize(1)),
        ];
        for (name, change) in changes {
            let mut config = good();
            (config.file, config.mongodb) = (None, Some(MongodbSettings::default()));
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(name) && error.contains("[file]"), "{name}: {error}");
        }
    }

    #[test]
    fn defaults_with_an_address_and_a_folder_are_valid() {
        good().validate().unwrap();
    }

    #[test]
    fn errors_name_the_key_and_say_what_to_do() {
        assert!(error_after(|c, _| c.hours.webhook = "https://x/".into()).contains("hours.webhook"));
        assert!(error_after(|c, _| c.listen.addr.clear()).contains("listen.addr"));
        assert!(error_after(|_, f| f.dir = PathBuf::new()).contains("file.dir"));
        assert!(error_after(|_, f| f.path = "{sauce}/{host}".into()).contains("{source}"));
        assert!(error_after(|_, f| f.inflate_memory = ByteSize(7)).contains("file.inflate_memory"));
        assert!(error_after(|_, f| f.open_files_max = 0).contains("file.open_files_max"));
        assert!(error_after(|_, f| f.sync_threads = 0).contains("file.sync_threads"));
        assert!(error_after(|_, f| f.hold_bytes_max = ByteSize::gib(1)).contains("listen.memory"));
        let etl = |c: &mut OutputterConfig, _: &mut FileSettings| c.etl = Some(EtlSettings::default());
        let want = if cfg!(feature = "etl") { "etl.dir" } else { "--features etl" };
        assert!(error_after(etl).contains(want));
        let mut none = good();
        none.file = None;
        assert!(none.validate().unwrap_err().contains("[file]"));
    }
}
