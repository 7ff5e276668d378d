//! `[file]`.

use crate::file::template::Template;
use logferry_node::config::{ByteSize, Interval, ListenSettings, rules};
use std::path::PathBuf;

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

impl FileSettings {
    pub(super) fn validate(&self, listen: &ListenSettings) -> Result<(), String> {
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
