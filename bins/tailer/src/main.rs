//! `logferry-tailer`: follows log files and ships their lines to the next tier.

use logferry_durable::RealDisk;
use logferry_node::cli;
use logferry_node::runtime::Node;
use logferry_tailer::config::TailerConfig;
use logferry_tailer::tailer::Tailer;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    cli::main_with(
        "tailer",
        "Follows log files and ships their lines.",
        |config: &TailerConfig| &config.node,
        run,
    )
}

async fn run(node: Node, mut config: TailerConfig) -> anyhow::Result<()> {
    config.node = node.settings.clone();
    let tailer = Tailer::start(&config, Arc::new(RealDisk))?;
    node.serve_admin(tailer.status()).await?;
    node.stop.cancelled().await;
    tailer.stop().await
}
