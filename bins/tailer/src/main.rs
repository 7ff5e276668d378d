//! `logferry-tailer`: follows log files and ships their lines to the next tier.

use logferry_durable::RealDisk;
use logferry_node::cli;
use logferry_node::runtime::Node;
use logferry_tailer::config::TailerConfig;
use logferry_tailer::piped;
use logferry_tailer::tailer::Tailer;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    if std::env::args_os().any(|argument| argument == "--stdin") {
        return piped::main();
    }
    cli::main_with(
        "tailer",
        "Follows log files and ships their lines. `app | logferry-tailer --stdin --source NAME` ships those of an application: see --stdin --help.",
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
