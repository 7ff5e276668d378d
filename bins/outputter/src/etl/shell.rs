//! ETL as the outputter runs it: or nothing, when it is not configured.

use super::{Etl, lock};
use crate::config::EtlSettings;
use crate::hours::fact;
use crate::hours::report::HourReport;
use crate::hours::runner::HourSink;
use anyhow::Context;
use logferry_etl::hour::HourKey;
use logferry_etl::queue::Wanted;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The queue and its threads, if `[etl]` is there. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct EtlOutput {
    etl: Option<Etl>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl EtlOutput {
    /// Opens the queue and starts the workers.
    ///
    /// # Errors
    /// The queue cannot be opened, or there is no room for threads.
    pub fn start(settings: Option<EtlSettings>, var_dir: &Path, zone: &str) -> anyhow::Result<EtlOutput> {
        let Some(settings) = settings else { return Ok(EtlOutput::default()) };
        let etl =
            Etl::open(settings, var_dir, zone).context("the queue of hours for [etl] cannot be opened")?;
        let threads = etl.start().context("no threads for [etl]")?;
        Ok(EtlOutput { etl: Some(etl), threads: Arc::new(Mutex::new(threads)) })
    }

    /// What takes complete hours.
    pub fn sink(&self) -> Option<Arc<dyn HourSink>> {
        self.etl.clone().map(|etl| Arc::new(etl) as Arc<dyn HourSink>)
    }

    /// What keeps tables from being made.
    pub fn problems(&self) -> Vec<String> {
        self.etl.as_ref().map(Etl::problems).unwrap_or_default()
    }

    /// By name, for the admin endpoint.
    pub fn figures(&self) -> BTreeMap<String, u64> {
        self.etl.as_ref().map(Etl::figures).unwrap_or_default()
    }

    /// Stops the workers and waits for them; what they have not finished is made anew after the next start.
    pub fn finish(&self) {
        if let Some(etl) = &self.etl {
            etl.stop();
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic aborts the process, so there is nothing to be told.
            let _ = thread.join();
        }
    }
}

impl HourSink for Etl {
    fn holds(&self, key: &fact::HourKey) -> bool {
        // One that has no key there was never taken.
        HourKey::new(&key.source, &key.host, Some(key.hour))
            .is_ok_and(|key| lock(&self.0.queue).queue().holds(&key))
    }

    fn take(&self, report: &HourReport, data: &Path) -> Result<(), String> {
        let hour = report.hour.parse().map_err(|_| format!("{:?} is no hour", report.hour))?;
        let key =
            HourKey::new(&report.source, &report.host, Some(hour)).map_err(|error| error.to_string())?;
        let paths = report.files.iter().map(|path| data.join(path)).collect();
        let total = report.total.unwrap_or(report.packs);
        self.want(Wanted { key, total, lines: report.lines, paths }).map_err(|error| error.to_string())
    }
}
