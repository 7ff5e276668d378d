//! Start and stop of a program.

use crate::config::NodeSettings;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// A running node: logging and metrics are set up, `var_dir` exists and is locked, signals are watched.
pub struct Node {
    /// Settings, `name` filled in.
    pub settings: NodeSettings,
    /// Cancelled by the first SIGTERM or SIGINT; the second exits at once with status 130.
    pub stop: CancellationToken,
}

impl Node {
    /// Sets all that up. Panics anywhere abort the process from here on. Call inside a tokio runtime.
    pub fn start(settings: &NodeSettings, role: &'static str) -> anyhow::Result<Node> {
        todo!("{settings:?}{role}")
    }
    /// `var_dir`.
    pub fn var_dir(&self) -> &Path {
        &self.settings.var_dir
    }
    /// Serves the admin endpoint until the process ends (no-op when it is off); returns the bound address.
    pub async fn serve_admin(
        &self,
        status: impl Fn() -> crate::admin::Status + Send + Sync + 'static,
    ) -> anyhow::Result<Option<std::net::SocketAddr>> {
        todo!("{}", status().ready)
    }
}
