//! `[mongodb]`.

use logferry_node::config::{ByteSize, Interval, ListenSettings, NodeSettings, rules};
use std::path::PathBuf;

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

impl MongodbSettings {
    pub(super) fn validate(&self, listen: &ListenSettings, node: &NodeSettings) -> Result<(), String> {
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
