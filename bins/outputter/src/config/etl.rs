//! `[etl]`.

use super::FileSettings;
use crate::file::template::Template;
use logferry_node::config::{ByteSize, rules};
use std::path::PathBuf;

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

impl EtlSettings {
    pub(super) fn validate(&self) -> Result<(), String> {
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
    pub(super) fn validate_path(&self, file: &FileSettings) -> Result<(), String> {
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
