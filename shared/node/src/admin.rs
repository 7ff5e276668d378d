//! The admin endpoint: /metrics, /healthz, /readyz, and what a program adds for those who may ask it to do something.

mod access;
mod bounded;

pub use access::{Access, TokenError, credentials, is_asked_by_a_page, is_own_name, read_token};
pub use bounded::Caller;

use crate::monitor::status::{figure, lag_bytes};
use crate::process::Process;
use anyhow::Context;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bounded::BoundedListener;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

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
    /// Seconds since it was logged.
    #[serde(default)]
    pub last_error_s: Option<u64>,
    /// Seconds since start.
    pub uptime_s: u64,
}

/// File in `var_dir` with the address that the endpoint is bound to, for tools: the configured port may be 0.
pub const ADDR_FILE: &str = "admin.addr";

/// What a node serves.
pub(crate) struct Served {
    pub(crate) status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Pages for everybody.
    pub(crate) pages: Router,
    /// Routes for those who have the token.
    pub(crate) guarded: Router,
    pub(crate) token: Option<String>,
    /// What goes around all of it.
    pub(crate) around: Around,
}

/// A rule that a program puts around all that one of its endpoints serves: who may read it, headers of answers.
pub type Around = Box<dyn FnOnce(Router) -> Router + Send>;

/// Binds `addr`, which the setting `key` gives, and serves in the background until the process ends.
pub(crate) async fn serve(
    key: &str,
    addr: &str,
    process: &'static Process,
    served: Served,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(addr)
        .await
        .with_context(|| format!("{key} address {addr} cannot be bound: set {key} to a free one"))?;
    let bound = listener.local_addr()?;
    let access = Access::new(served.token, bound.ip());
    let router = router(process, served.status).merge(served.pages);
    let router = (served.around)(router.merge(access.guard(served.guarded)));
    let service = router.into_make_service_with_connect_info::<Caller>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(BoundedListener::new(listener), service).await {
            tracing::error!(%error, "admin endpoint ended");
        }
    });
    Ok(bound)
}

fn router(process: &'static Process, status: Arc<dyn Fn() -> Status + Send + Sync>) -> Router {
    let told = status.clone();
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { metrics_text(process, &told()) }))
        .route("/readyz", get(move || async move { readiness(status()) }))
}

/// What programs without a page of their own show at `/`.
pub(crate) fn front_page() -> Router {
    Router::new().route("/", get(|| async { "logferry: /metrics /healthz /readyz\n" }))
}

/// What every program exports by the same names, whatever its own are.
fn show(status: &Status) {
    metrics::gauge!("logferry_node_ready").set(if status.ready { 1.0 } else { 0.0 });
    metrics::gauge!("logferry_node_lag_bytes").set(lag_bytes(status) as f64);
    metrics::gauge!("logferry_node_spool_bytes").set(figure(status, &["spool_bytes"]).unwrap_or(0) as f64);
}

fn metrics_text(process: &Process, status: &Status) -> Response {
    show(status);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], process.render_metrics())
        .into_response()
}

fn readiness(status: Status) -> Response {
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(status)).into_response()
}

/// Removes the address of an earlier run, so that nobody takes it for this one's.
pub(crate) fn forget_addr(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", file.display()))
        }
        _ => Ok(()),
    }
}

/// Written aside and renamed, so that a reader sees the whole address or none. Not fsynced: it is void after a crash.
pub(crate) fn write_addr(file: &Path, addr: SocketAddr) -> anyhow::Result<()> {
    let aside = file.with_extension("addr.tmp");
    let write = || -> io::Result<()> {
        std::fs::write(&aside, format!("{addr}\n"))?;
        std::fs::rename(&aside, file)
    };
    write().with_context(|| format!("{} cannot be written", file.display()))
}
