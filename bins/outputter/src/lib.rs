//! The outputter: takes packs in and puts their lines into files, every line exactly once and in stream order.
//!
//! Not in here: connections to other tiers beyond taking packs in, and anything per line.
//!
//! The nouns are the [`OutputterConfig`], the [`FileOutput`](file::output::FileOutput) with its
//! [`Order`](file::order::Order) (what becomes of a pack) and its [`Committer`](file::commit::Committer) (how packs become
//! durable together), and the path [`Template`](file::template::Template) of log files:
//!
//! ```
//! use logferry_outputter::file::template::{Fields, Template};
//!
//! let template = Template::parse("{source}/{host}_{hour}").expect("known placeholders");
//! let fields = Fields { source: Some("access"), host: Some("web-1"), ip: "10.0.0.7", hour: 2026112013, stream: None };
//! assert_eq!(template.expand(&fields).expect("safe names"), "access/web-1_2026112013");
//! ```

pub mod config;
#[cfg_attr(not(feature = "etl"), path = "etl/absent.rs")]
pub mod etl;
pub mod figures;
pub mod file;
pub mod finish;
pub mod hours;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod outputs;
mod room;
mod second;

pub use config::{EtlSettings, FileSettings, HoursSettings, OutputterConfig, RepullSettings};

use crate::figures::Figures;
use anyhow::Context;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use etl::EtlOutput;
use file::archive::Form;
use file::commit::{self, SharedOrder};
use file::output::FileOutput;
use file::template::Template;
use finish::Plan;
use hours::redo;
use hours::report::Filter;
use hours::shell::{Finish, Hours};
use logferry_durable::RealDisk;
use logferry_link::{Budget, HopStamp, LegacyFootprint, Receiver, ReceiverOptions};
use logferry_node::admin::Status;
use logferry_node::quarantine::Quarantine;
use logferry_node::runtime::Node;
use outputs::route::Reply;
use second::Second;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Packs between the connections and the judge; their bytes are bounded by `listen.memory`.
const INCOMING_PACKS_MAX: usize = 256;

const FOOTPRINT_FULL: &str = "the memory of footprints is full, packs of new streams wait until old ones expire: raise \
    file.footprint_memory, or lower file.footprint_keep";

/// Runs the outputter until it is told to stop and what it accepted is committed.
pub async fn run(node: Node, config: OutputterConfig) -> anyhow::Result<()> {
    raise_open_files_limit();
    if config.file.is_none() {
        return second::run_alone(node, config).await;
    }
    let second = Second::default();
    let budget = Budget::new(config.listen.memory.0);
    let mut options = ReceiverOptions::new(&config.listen, &node.settings, node.role(), budget);
    prepare_for_legacy(&mut options, &node)?;
    let limits = options.limits;
    let settings = config.file.clone().context("no output is configured")?;
    let finish_dir = Some(&config.finish.dir).filter(|dir| !dir.as_os_str().is_empty());
    let roots = std::iter::once(settings.dir.join("log_data")).chain(finish_dir.cloned()).collect();
    let etl = EtlOutput::start(config.etl.clone(), node.var_dir(), &node.settings.time_zone, roots)?;
    let (hours, repull) = (config.hours.clone(), config.repull.clone());
    let hours = Hours::new(hours, repull, node.settings.zone()?).context("hours.zones")?;
    let form = Form::of(&settings.archive);
    let plan = Plan::new(&config.finish, &settings.dir.join("log_data"), form).map_err(anyhow::Error::msg)?;
    let (of_finish, retention) = (config.finish.clone(), config.retention.clone());
    let finish = Finish { settings: of_finish, retention, plan };
    let hours = hours.with_etl(etl.sink()).with_finish(finish);
    let (figures, order) = (Arc::new(Figures::default()), Arc::new(OnceLock::new()));
    let shown_figures = figures.clone();
    let told = hours.clone();
    node.tell_hours(move |to| told.news(to));
    node.watch_disk(&settings.dir);
    // First, because recovery can take long, or wait for room: whoever asks is to be told.
    let template = Template::parse(&settings.path).context("file.path")?;
    let redo = config
        .etl
        .as_ref()
        .map(|etl| redo::routes(hours.clone(), settings.dir.clone(), template, etl.dir.clone()));
    let pages = (hours_page(hours.clone()), redo.unwrap_or_default());
    let listens = Arc::new(AtomicBool::new(false));
    let shown = Shown {
        figures: figures.clone(),
        order: order.clone(),
        second: second.clone(),
        etl: etl.clone(),
        listens: listens.clone(),
    };
    serve_status(&node, shown, pages).await?;
    let starting = async || second.start(&node, &config, limits).await;
    if room::wait(&node.stop, &figures, starting).await?.is_none() {
        return Ok(());
    }
    let (var_dir, stop) = (node.var_dir().to_owned(), node.stop.clone());
    let (unwritten, spool) = (settings.clone(), config.spool.options());
    let can_wait = second.route().is_some();
    let starting =
        move || FileOutput::start(&settings, &var_dir, limits, &stop, figures, Some(&hours), can_wait);
    let mut output = match tokio::task::spawn_blocking(starting).await? {
        Err(error) if node.stop.is_cancelled() => {
            tracing::info!("stopped before it was ready: {error:#}");
            return Ok(());
        }
        started => started?,
    };
    output.set_route(second.route());
    let (var_dir, bytes_max) = (node.var_dir().to_owned(), node.settings.quarantine_max.0);
    let open_shelf = async || {
        let (unwritten, spool, var_dir) = (unwritten.clone(), spool, var_dir.clone());
        let has_route = second.route().is_some();
        let opening = move || {
            let quarantine = Quarantine::open(Arc::new(RealDisk), &var_dir, bytes_max)
                .context("the quarantine cannot be opened")?;
            FileOutput::open_shelf(&unwritten, &var_dir, limits, spool, Arc::new(quarantine), has_route)
                .context("the spool of packs that cannot be written yet cannot be opened")
        };
        tokio::task::spawn_blocking(opening).await?
    };
    match room::wait(&node.stop, &shown_figures, open_shelf).await? {
        Some(shelving) => output.keep_unwritten(shelving),
        None => return Ok(()),
    }
    order.get_or_init(|| output.order());
    let receiver = Receiver::bind(options)
        .await
        .with_context(|| format!("listen.addr: cannot bind {}", config.listen.addr))?;
    listens.store(true, Ordering::Release);
    let hops = HopStamp::new(receiver.local_addr().ip(), node.settings.zone()?);
    tracing::info!(addr = %receiver.local_addr(), "taking packs");
    let (packs, packs_taken) = mpsc::channel(INCOMING_PACKS_MAX);
    let receiving = tokio::spawn(receiver.run(packs, node.stop.clone()));
    output.run(packs_taken, hops, node.stop.clone()).await;
    second.finish().await;
    tokio::task::spawn_blocking(move || etl.finish()).await?;
    receiving.await.context("the receiver failed")
}

/// What taking packs of legacy nodes needs beside the listener.
pub(crate) fn prepare_for_legacy(options: &mut ReceiverOptions, node: &Node) -> anyhow::Result<()> {
    if options.settings.v1 {
        let disk = Arc::new(RealDisk);
        options.legacy_footprint = LegacyFootprint::take_over(&*disk, &options.settings, node.var_dir())?;
        let quarantine = Quarantine::open(disk, node.var_dir(), node.settings.quarantine_max.0)
            .context("the quarantine cannot be opened")?;
        options.quarantine = Some(Arc::new(quarantine));
    }
    Ok(())
}

/// What `/readyz` tells of.
struct Shown {
    figures: Arc<Figures>,
    /// Filled in once recovery is through.
    order: Arc<OnceLock<SharedOrder<Reply>>>,
    second: Second,
    etl: EtlOutput,
    /// Packs are taken.
    listens: Arc<AtomicBool>,
}

async fn serve_status(node: &Node, shown: Shown, (pages, guarded): (Router, Router)) -> anyhow::Result<()> {
    let Shown { figures, order, second, etl, listens } = shown;
    let status = move || {
        let order_figures = order.get().map_or_else(Default::default, |order| commit::lock(order).figures());
        let mut problems = figures.problems();
        if problems.is_empty() && !listens.load(Ordering::Acquire) {
            problems.push("starting: packs are not taken yet".to_owned());
        }
        let is_written = problems.is_empty() || listens.load(Ordering::Acquire) && figures.takes_unwritten();
        problems.extend(order_figures.footprint_is_full.then(|| FOOTPRINT_FULL.to_owned()));
        let ready = is_written && !order_figures.footprint_is_full;
        // Packs are taken whatever becomes of tables.
        problems.extend(etl.problems());
        problems.extend(figures.notices());
        let mut by_name = figures.by_name(&order_figures);
        by_name.extend(etl.figures());
        let mut status = Status { ready, problems, figures: by_name, ..Status::default() };
        second.add_to(&mut status);
        status
    };
    node.serve_admin_pages(status, pages, guarded).await.map(drop)
}

/// `/hours`: the books as JSON, for one `host` or `source`, or of what is `missing`.
fn hours_page(hours: Hours) -> Router {
    let answer = move |Query(filter): Query<Filter>| async move {
        // Of many hours the text takes as long as the report, and nothing else is to wait for it.
        let page = move || hours.report(&filter).map(|report| Json(report).into_response());
        match tokio::task::spawn_blocking(page).await {
            Ok(Some(page)) => page,
            _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    };
    Router::new().route("/hours", get(answer))
}

/// Connections and log files together need more descriptors than the usual soft limit.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files cannot be raised: {error}");
    }
}
