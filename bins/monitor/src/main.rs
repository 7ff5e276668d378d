//! `logferry-monitor`: the registry of nodes, their errors, and the page that shows them.

use logferry_durable::RealDisk;
use logferry_monitor::MonitorConfig;
use logferry_monitor::access::Gate;
use logferry_monitor::monitor::Running;
use logferry_monitor::web;
use logferry_node::cli;
use logferry_node::runtime::Node;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    cli::main_with(
        "monitor",
        "Keeps the registry of nodes and their errors, and shows them on a page.",
        |config: &MonitorConfig| &config.node,
        run,
    )
}

async fn run(node: Node, mut config: MonitorConfig) -> anyhow::Result<()> {
    config.node = node.settings.clone();
    let gate = Arc::new(Gate::new(&config.access)?);
    let guarded = move |all| web::guarded(all, gate);
    let running = Running::start(&config, Arc::new(RealDisk)).await?;
    node.publish_addr("listen", running.addr);
    let (monitor, shown) = (running.monitor.clone(), running.monitor.clone());
    let pages = web::router(running.monitor.clone());
    node.serve_own("http", &config.listen.http, move || shown.status(), pages, Box::new(guarded)).await?;
    // last, because whoever waits for its address finds the others then
    node.serve_admin(move || monitor.status()).await?;
    node.stop.cancelled().await;
    running.stop().await;
    Ok(())
}
