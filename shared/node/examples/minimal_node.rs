//! The smallest program on `logferry-node`: waits for a signal. `[demo]` can make it misbehave, for the tests.

use logferry_node::cli::main_with;
use logferry_node::config::{NodeSettings, ProgramConfig, Setting, Settings};
use logferry_node::runtime::Node;
use logferry_node::{admin::Status, settings};
use std::process::ExitCode;
use std::time::{Duration, Instant};

settings! {
    /// `[demo]`: what this program does.
    pub struct DemoSettings {
        /// Blocks all the runtime's threads, as a bug would.
        pub block: bool = false,
        /// Panics in a background task.
        pub panic: bool = false,
        /// Is not ready before so many milliseconds.
        pub ready_after_ms: u64 = 0,
        /// Fails with this text.
        pub fail: String = String::new(),
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DemoConfig {
    node: NodeSettings,
    demo: DemoSettings,
}
impl ProgramConfig for DemoConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        vec![("node", NodeSettings::SETTINGS), ("demo", DemoSettings::SETTINGS)]
    }
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

fn main() -> ExitCode {
    main_with("demo", "Waits for a signal.", |config: &DemoConfig| &config.node, run)
}

async fn run(node: Node, config: DemoConfig) -> anyhow::Result<()> {
    let (started, starts_for) = (Instant::now(), Duration::from_millis(config.demo.ready_after_ms));
    node.serve_admin(move || Status { ready: started.elapsed() >= starts_for, ..Status::default() }).await?;
    if !config.demo.fail.is_empty() {
        return Err(anyhow::anyhow!("no such device").context(config.demo.fail));
    }
    if config.demo.panic {
        tokio::spawn(async { panic!("a broken promise") });
    }
    if config.demo.block {
        for _ in 0..64 {
            tokio::spawn(async { std::thread::park() });
        }
        std::thread::park();
    }
    node.stop.cancelled().await;
    Ok(())
}
