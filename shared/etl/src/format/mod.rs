//! How rows become bytes.

pub mod ndjson;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod tsv;

use serde::{Deserialize, Serialize};

/// Format of table files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// [Tab-separated values](tsv).
    Tsv,
    /// [A JSON object a line](ndjson).
    Ndjson,
    /// Parquet: typed columns, zstd.
    #[default]
    Parquet,
}

impl Format {
    /// Of file names, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Tsv => "tsv",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        }
    }
}
