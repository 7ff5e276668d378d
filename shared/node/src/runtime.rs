//! Start and stop of a program.

use crate::admin::{self, Around, Status};
use crate::config::NodeSettings;
use crate::monitor::MonitorLink;
use crate::monitor::hours::{HourNews, Told};
use crate::process::Process;
use anyhow::Context;
use logferry_durable::{DirLock, Disk, RealDisk, lock_dir};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::process::SECOND_SIGNAL_STATUS;

/// A running node: logging and metrics are set up, `var_dir` exists and is locked, signals are watched.
pub struct Node {
    /// Settings, `name` filled in.
    pub settings: NodeSettings,
    /// Cancelled by the first SIGTERM or SIGINT; the second exits at once with status 130.
    pub stop: CancellationToken,
    role: &'static str,
    started: Instant,
    process: &'static Process,
    token: Option<String>,
    monitor: MonitorLink,
    /// Held for as long as the node lives.
    _lock: DirLock,
}

impl Node {
    /// Sets all that up. Panics anywhere abort the process from here on. Call inside a tokio runtime.
    ///
    /// Logging, metrics, signals and the panic hook belong to the process: a second node in the same process shares
    /// those of the first.
    pub fn start(settings: &NodeSettings, role: &'static str) -> anyhow::Result<Node> {
        let mut settings = settings.clone();
        if settings.name.is_empty() {
            settings.name = host_name()?;
        }
        let token_file = Some(&settings.token_file).filter(|file| !file.is_empty());
        let token = token_file.map(|file| admin::read_token(Path::new(file))).transpose();
        let token = token.context("token_file in [node]")?;
        let process = Process::get(&settings).context("cannot watch signals")?;
        let lock = lock_var_dir(&settings.var_dir)?;
        let version = env!("CARGO_PKG_VERSION");
        let var_dir = settings.var_dir.display();
        tracing::info!(role, name = %settings.name, version, %var_dir, pid = std::process::id(), "started");
        let monitor = MonitorLink::start(&settings, role, process.reports.clone())?;
        let stop = process.stop.child_token();
        Ok(Node { settings, stop, role, started: Instant::now(), process, token, monitor, _lock: lock })
    }

    /// `var_dir`.
    pub fn var_dir(&self) -> &Path {
        &self.settings.var_dir
    }

    /// `tailer`, `collector`, `outputter`.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// Serves the admin endpoint until the process ends (no-op when it is off); returns the bound address and writes
    /// it to `VAR_DIR/admin.addr`. `status` gives `ready`, `problems` and `figures`; the rest is filled in here.
    pub async fn serve_admin(
        &self,
        status: impl Fn() -> Status + Send + Sync + 'static,
    ) -> anyhow::Result<Option<SocketAddr>> {
        self.serve_admin_with(status, axum::Router::new()).await
    }

    /// The way to the monitor, for whoever ends the program.
    pub(crate) fn monitor(&self) -> MonitorLink {
        self.monitor.clone()
    }

    /// The same with pages of the program's own, for everybody.
    pub async fn serve_admin_with(
        &self,
        status: impl Fn() -> Status + Send + Sync + 'static,
        pages: axum::Router,
    ) -> anyhow::Result<Option<SocketAddr>> {
        self.serve_admin_pages(status, pages, axum::Router::new()).await
    }

    /// The same with routes for those who bring the node's token, or are on the same machine where it has none (see
    /// [`admin::Access`]).
    pub async fn serve_admin_guarded(
        &self,
        status: impl Fn() -> Status + Send + Sync + 'static,
        guarded: axum::Router,
    ) -> anyhow::Result<Option<SocketAddr>> {
        self.serve_admin_pages(status, axum::Router::new(), guarded).await
    }

    /// The same with both.
    pub async fn serve_admin_pages(
        &self,
        status: impl Fn() -> Status + Send + Sync + 'static,
        pages: axum::Router,
        guarded: axum::Router,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let fill = self.status_filler();
        let status: Arc<dyn Fn() -> Status + Send + Sync> = Arc::new(move || fill(status()));
        let told = status.clone();
        let _ = self.monitor.status.set(Box::new(move || told()));
        let pages = admin::front_page().merge(pages);
        let served =
            admin::Served { status, pages, guarded, token: self.token.clone(), around: Box::new(|all| all) };
        self.serve("admin", &self.settings.admin, served).await
    }

    /// Where the monitor is told of hours from; `None` while they are not known. Only the first call counts.
    pub fn tell_hours(&self, source: impl Fn(&mut Told) -> Option<Vec<HourNews>> + Send + Sync + 'static) {
        let _ = self.monitor.hours.set(Box::new(source));
    }

    /// The monitor is told of the room on the disk of this folder, beside that of `var_dir`.
    pub fn watch_disk(&self, folder: &Path) {
        self.monitor.folders.watch(folder);
    }

    /// Serves `pages` beside /metrics, /healthz and /readyz at an address of the program's own, which the setting `key` gives; the bound
    /// address is written to `VAR_DIR/KEY.addr`. `around` is put around all of it.
    pub async fn serve_own(
        &self,
        key: &str,
        addr: &str,
        status: impl Fn() -> Status + Send + Sync + 'static,
        pages: axum::Router,
        around: Around,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let fill = self.status_filler();
        let status: Arc<dyn Fn() -> Status + Send + Sync> = Arc::new(move || fill(status()));
        let served = admin::Served { status, pages, guarded: axum::Router::new(), token: None, around };
        self.serve(key, addr, served).await
    }

    /// Writes a bound address to `VAR_DIR/KEY.addr`, for tools: the configured port may be 0.
    pub fn publish_addr(&self, key: &str, addr: SocketAddr) {
        if let Err(error) = admin::write_addr(&self.var_dir().join(format!("{key}.addr")), addr) {
            tracing::warn!("{error:#}");
        }
    }

    async fn serve(
        &self,
        key: &str,
        addr: &str,
        served: admin::Served,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let addr_file = self.var_dir().join(format!("{key}.addr"));
        admin::forget_addr(&addr_file)?;
        if addr.is_empty() {
            return Ok(None);
        }
        let addr = admin::serve(key, addr, self.process, served).await?;
        // A full disk is just what the endpoint is there to tell of.
        if let Err(error) = admin::write_addr(&addr_file, addr) {
            tracing::warn!("{error:#}");
        }
        tracing::info!(%addr, "{key} endpoint: /metrics /healthz /readyz");
        Ok(Some(addr))
    }

    /// Adds to a program's status what every node knows of itself.
    fn status_filler(&self) -> impl Fn(Status) -> Status + Send + Sync + 'static {
        let (role, name, started) = (self.role, self.settings.name.clone(), self.started);
        let (last_problem, stop) = (self.process.last_problem.clone(), self.stop.clone());
        move |mut status| {
            status.role = role.to_owned();
            status.name = name.clone();
            status.version = env!("CARGO_PKG_VERSION").to_owned();
            status.uptime_s = started.elapsed().as_secs();
            if let Some((logged, text)) = last_problem.get() {
                status.last_error = Some(text);
                status.last_error_s = Some(logged.elapsed().as_secs());
            }
            if stop.is_cancelled() {
                status.ready = false;
                status.problems.insert(0, "stopping".to_owned());
            }
            status
        }
    }

    /// Reports an error that ends the program: `error: …` with its causes on stderr; exit status 1.
    pub fn fatal(error: &anyhow::Error) -> ExitCode {
        crate::cli::print_error(&error_text(error));
        ExitCode::from(1)
    }
}

/// `error: …`, then one line per cause that says something new.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
    }
    text
}

pub(crate) fn host_name() -> anyhow::Result<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().ok().filter(|name| !name.is_empty());
    let name = name.context("this machine has no usable host name: set name in [node]")?;
    crate::config::rules::node_name(&name.to_owned())
        .map_err(|error| anyhow::anyhow!("host name {error}: set name in [node]"))?;
    Ok(name.to_owned())
}

/// Creates `dir` durably and locks it.
fn lock_var_dir(dir: &Path) -> anyhow::Result<DirLock> {
    RealDisk.create_dir_all(dir).with_context(|| {
        format!(
            "var_dir {} cannot be created: set var_dir in [node] to a folder this user may write",
            dir.display()
        )
    })?;
    lock_dir(dir).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => anyhow::anyhow!("var_dir {error}"),
        _ => anyhow::Error::new(error).context(format!("var_dir {} cannot be locked", dir.display())),
    })
}
