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
pub mod figures;
pub mod file;

pub use config::{FileSettings, OutputterConfig};

use anyhow::Context;
use file::commit;
use file::output::FileOutput;
use logferry_link::{Budget, Receiver, ReceiverOptions};
use logferry_node::admin::Status;
use logferry_node::runtime::Node;
use tokio::sync::mpsc;

/// Packs between the connections and the judge; their bytes are bounded by `listen.memory`.
const INCOMING_PACKS_MAX: usize = 256;

/// Runs the outputter until it is told to stop and what it accepted is committed.
pub async fn run(node: Node, config: OutputterConfig) -> anyhow::Result<()> {
    raise_open_files_limit();
    let budget = Budget::new(config.listen.memory.0);
    let options = ReceiverOptions::new(&config.listen, &node.settings, node.role(), budget);
    let limits = options.limits;
    let settings = config.file.context("no output is configured")?;
    let (var_dir, stop) = (node.var_dir().to_owned(), node.stop.clone());
    let output =
        tokio::task::spawn_blocking(move || FileOutput::start(&settings, &var_dir, limits, &stop)).await??;
    let receiver = Receiver::bind(options)
        .await
        .with_context(|| format!("listen.addr: cannot bind {}", config.listen.addr))?;
    let own_ip = receiver.local_addr().ip();
    tracing::info!(addr = %receiver.local_addr(), "taking packs");
    serve_status(&node, &output).await?;
    let (packs, packs_taken) = mpsc::channel(INCOMING_PACKS_MAX);
    let receiving = tokio::spawn(receiver.run(packs, node.stop.clone()));
    output.run(packs_taken, own_ip, node.stop.clone()).await;
    receiving.await.context("the receiver failed")
}

async fn serve_status(node: &Node, output: &FileOutput) -> anyhow::Result<()> {
    let (order, figures) = (output.order(), output.figures());
    let status = move || {
        let order_figures = commit::lock(&order).figures();
        let problems = figures.problems();
        Status {
            ready: problems.is_empty(),
            problems,
            figures: figures.by_name(&order_figures),
            ..Status::default()
        }
    };
    node.serve_admin(status).await.map(drop)
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
