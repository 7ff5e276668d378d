//! `logferry-tailer`: follows log files and ships their lines to the next tier.

use logferry_durable::RealDisk;
use logferry_node::cli;
use logferry_node::runtime::Node;
use logferry_tailer::config::TailerConfig;
use logferry_tailer::piped;
use logferry_tailer::repull::{client, http};
use logferry_tailer::tailer::Tailer;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "repull") {
        return client::main(std::env::args_os().skip(1));
    }
    if std::env::args_os().any(|argument| argument == "--stdin") {
        return piped::main();
    }
    cli::main_with(
        "tailer",
        "Follows log files and ships their lines. `app | logferry-tailer --stdin --source NAME` ships those of an application: see --stdin --help. \
         `logferry-tailer repull --help`: ship some again.",
        |config: &TailerConfig| &config.node,
        run,
    )
}

async fn run(node: Node, mut config: TailerConfig) -> anyhow::Result<()> {
    config.node = node.settings.clone();
    let tailer = Tailer::start(&config, Arc::new(RealDisk))?;
    node.serve_admin_guarded(tailer.status(), http::routes(tailer.counter())).await?;
    node.stop.cancelled().await;
    tailer.stop().await
}
