//! The output that can be away, if one is configured: started, shown and stopped beside `[file]`, or alone.

use crate::config::OutputterConfig;
use crate::figures::Figures;
use crate::outputs::away::SharedFigures;
use crate::outputs::direct;
use crate::outputs::route::Route;
use anyhow::Context;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use logferry_link::{Budget, HopStamp, Receiver, ReceiverOptions};
use logferry_node::admin::Status;
use logferry_node::runtime::Node;
use logferry_pack::Limits;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is wrong with the output itself, for people.
type ProblemTexts = Box<dyn Fn() -> Vec<String> + Send + Sync>;

struct Running {
    route: Route,
    figures: SharedFigures,
    problems: ProblemTexts,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// The output, once it is started. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Second {
    running: Arc<OnceLock<Running>>,
}

impl Second {
    /// Starts what is configured.
    #[cfg(feature = "mongodb")]
    pub(crate) async fn start(
        &self,
        node: &Node,
        config: &OutputterConfig,
        limits: Limits,
    ) -> anyhow::Result<()> {
        let Some(settings) = &config.mongodb else { return Ok(()) };
        let disk = Arc::new(logferry_durable::RealDisk);
        let bytes_max = node.settings.quarantine_max.0;
        let quarantine = logferry_node::quarantine::Quarantine::open(disk, node.var_dir(), bytes_max)
            .context("the quarantine cannot be opened")?;
        let zone = &node.settings.time_zone;
        let started = crate::mongodb::start(
            settings,
            &config.spool,
            zone,
            node.var_dir(),
            limits,
            Arc::new(quarantine),
        );
        let (away, route, status) = started.await.context("[mongodb] cannot be started")?;
        let task = tokio::spawn(away.run(node.stop.clone()));
        let problems = status.problems;
        self.running.get_or_init(|| Running {
            route,
            figures: status.figures,
            problems: Box::new(move || problems.iter().filter_map(|problem| problem.text()).collect()),
            task: Mutex::new(Some(task)),
        });
        Ok(())
    }

    /// None is built in; the configuration was refused if it asks for one.
    #[cfg(not(feature = "mongodb"))]
    #[expect(clippy::unused_async, reason = "the same call as with an output built in")]
    pub(crate) async fn start(&self, _: &Node, _: &OutputterConfig, _: Limits) -> anyhow::Result<()> {
        Ok(())
    }

    /// The way to it.
    pub(crate) fn route(&self) -> Option<Route> {
        self.running.get().map(|running| running.route.clone())
    }

    /// Adds its problems and figures. With its server away packs are still taken, into the spool; with a spool that takes none they are
    /// not.
    pub(crate) fn add_to(&self, status: &mut Status) {
        let Some(running) = self.running.get() else { return };
        let figures = running.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.problems.extend((running.problems)());
        if let Some(trouble) = &figures.spool_trouble {
            status.problems.push(format!("the spool takes no packs: {trouble}"));
            status.ready = false;
        }
        if figures.record_trouble {
            status
                .problems
                .push("what is stored cannot be recorded: see the log, and the disk of node.var_dir".into());
            status.ready = false;
        }
        let numbers = [
            ("backlog_packs", figures.packs),
            ("backlog_bytes", figures.bytes),
            ("backlog_storing", figures.storing),
            ("backlog_spooling", u64::from(figures.spooling)),
            ("backlog_footprint_bytes", figures.footprint_bytes),
        ];
        status.figures.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
    }

    /// Waits until it has ended, after the stop.
    pub(crate) async fn finish(&self) {
        let task = self.running.get().map(|running| &running.task);
        let task = task.and_then(|task| task.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(task) = task
            && task.await.is_err()
        {
            tracing::error!("the second output ended badly");
        }
    }
}

/// Runs the outputter without `[file]`.
pub(crate) async fn run_alone(node: Node, config: OutputterConfig) -> anyhow::Result<()> {
    let budget = Budget::new(config.listen.memory.0);
    let mut options = ReceiverOptions::new(&config.listen, &node.settings, node.role(), budget);
    crate::prepare_for_legacy(&mut options, &node)?;
    let second = Second::default();
    let figures = Arc::new(Figures::default());
    let (shown, shown_figures) = (second.clone(), figures.clone());
    let status = move || {
        let (ready, problems) = (shown.running.get().is_some(), shown_figures.problems());
        let mut status = Status { ready, problems, ..Status::default() };
        shown.add_to(&mut status);
        status
    };
    node.serve_admin_with(status, no_hours_page()).await?;
    let starting = async || second.start(&node, &config, options.limits).await;
    if crate::room::wait(&node.stop, &figures, starting).await?.is_none() {
        return Ok(());
    }
    let route = second.route().context("no output is configured")?;
    let receiver = Receiver::bind(options)
        .await
        .with_context(|| format!("listen.addr: cannot bind {}", config.listen.addr))?;
    let hops = HopStamp::new(receiver.local_addr().ip(), node.settings.zone()?);
    tracing::info!(addr = %receiver.local_addr(), "taking packs");
    let (packs, packs_taken) = mpsc::channel(crate::INCOMING_PACKS_MAX);
    let receiving = tokio::spawn(receiver.run(packs, node.stop.clone()));
    direct::run(packs_taken, hops, route).await;
    second.finish().await;
    receiving.await.context("the receiver failed")
}

/// `/hours` of an outputter without `[file]`.
fn no_hours_page() -> Router {
    let text = "this outputter has no [file], and the books of the hours are those of its header files";
    let answer = move || async move { (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": text }))) };
    Router::new().route("/hours", get(answer))
}
