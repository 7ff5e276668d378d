//! What stands for ETL in a program that was built without its feature: nothing. Such a program refuses `[etl]` in its configuration.

use crate::config::EtlSettings;
use crate::hours::runner::HourSink;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Nothing.
#[derive(Clone, Default)]
pub struct EtlOutput;

impl EtlOutput {
    /// Nothing to start.
    ///
    /// # Errors
    /// None.
    pub fn start(_: Option<EtlSettings>, _: &Path, _: &str, _: Vec<PathBuf>) -> anyhow::Result<EtlOutput> {
        Ok(EtlOutput)
    }

    /// None.
    pub fn sink(&self) -> Option<Arc<dyn HourSink>> {
        None
    }

    /// None.
    pub fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    /// None.
    pub fn figures(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Nothing to wait for.
    pub fn finish(&self) {}
}
