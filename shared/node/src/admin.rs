//! The admin endpoint: /metrics, /healthz, /readyz.

use std::collections::BTreeMap;

/// What `/readyz` answers (as JSON; 200 when ready, else 503) and `ferryctl status` shows.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// `tailer`, `collector`, `outputter`.
    pub role: String,
    /// Node name.
    pub name: String,
    /// Program version.
    pub version: String,
    /// Does its work.
    pub ready: bool,
    /// Why not ready, for people.
    pub problems: Vec<String>,
    /// Figures: `lag_bytes`, `queue_bytes`, `queue_packs`, `spool_bytes`, `spool_packs`, `targets_up`, ….
    pub figures: BTreeMap<String, u64>,
    /// Last WARN or ERROR that was logged.
    pub last_error: Option<String>,
    /// Seconds since start.
    pub uptime_s: u64,
}
