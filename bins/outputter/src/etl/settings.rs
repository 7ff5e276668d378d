//! `[etl]`, as the crate `logferry-etl` wants it.

use logferry_etl::format::Format;
use logferry_etl::lists::ListFiles;
use logferry_etl::plan::PlanFiles;
use logferry_etl::tables::Bounds;

use crate::config::EtlSettings;

impl EtlSettings {
    pub(super) fn plan_files(&self) -> PlanFiles {
        PlanFiles {
            program: self.program.clone(),
            columns: self.columns.clone(),
            lists: ListFiles {
                spiders: self.spider_list.clone(),
                hosts: self.hosts_white_list.clone(),
                addresses: self.ip_black_list.clone(),
            },
        }
    }

    /// Checked when the configuration was read.
    pub(super) fn table_format(&self) -> Format {
        match self.format.as_str() {
            "tsv" => Format::Tsv,
            "ndjson" => Format::Ndjson,
            _ => Format::Parquet,
        }
    }

    /// Of one worker.
    pub(super) fn bounds(&self) -> Bounds {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Bounds {
            memory_bytes: size(self.memory.0 / self.workers.max(1)),
            open_max: size(self.open_partitions_max),
            files_max: size(self.files_max),
        }
    }
}
