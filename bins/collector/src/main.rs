//! `logferry-collector`: takes packs from tailers and forwards them, or keeps them until they can be.

use logferry_collector::{Collector, CollectorConfig};
use logferry_durable::RealDisk;
use logferry_node::cli;
use logferry_node::runtime::Node;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    cli::main_with(
        "collector",
        "Takes packs from tailers and forwards them, or keeps them until they can be.",
        |config: &CollectorConfig| &config.node,
        run,
    )
}

async fn run(node: Node, mut config: CollectorConfig) -> anyhow::Result<()> {
    config.node = node.settings.clone();
    let collector = Collector::start(&config, Arc::new(RealDisk)).await?;
    node.serve_admin(collector.status()).await?;
    node.stop.cancelled().await;
    collector.stop().await
}
