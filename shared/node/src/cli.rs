//! Command line of the programs, and the front that each program's `main` is.

use crate::config::{self, NodeSettings, ProgramConfig};
use crate::priority;
use crate::runtime::Node;
use clap::{Args, FromArgMatches};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit status for a configuration with mistakes and for wrong arguments.
pub const USAGE_STATUS: u8 = 2;

/// Time that blocking tasks get to end after the program's own stop is done.
const RUNTIME_STOP_MAX: Duration = Duration::from_secs(5);

/// Arguments that all programs take.
#[derive(clap::Args, Debug, Clone)]
pub struct CommonArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Print every setting with its help and default, as a TOML file, and exit.
    #[arg(long)]
    pub help_config: bool,
}

/// A whole program: reads arguments and configuration, starts the node, runs `run` until it returns, reports.
///
/// `node_of` finds the `[node]` table in the configuration. Without `--config` the file is
/// `/etc/logferry/ROLE.toml`. Exit status: 0 after a graceful stop, 1 when `run` failed, 2 for a configuration with
/// mistakes.
pub fn main_with<C, Run, Running>(
    role: &'static str,
    about: &'static str,
    node_of: fn(&C) -> &NodeSettings,
    run: Run,
) -> ExitCode
where
    C: ProgramConfig,
    Run: FnOnce(Node, C) -> Running,
    Running: Future<Output = anyhow::Result<()>>,
{
    let args = parse_args(role, about);
    if args.help_config {
        print(&config::render_reference::<C>());
        return ExitCode::SUCCESS;
    }
    let config = match config::load::<C>(&args.config) {
        Ok(config) => config,
        Err(error) => {
            print_error(&format!("error: {error}"));
            return ExitCode::from(USAGE_STATUS);
        }
    };
    if args.check_config {
        if let Err(error) = config.check() {
            print_error(&format!("error: {}: {error}", args.config.display()));
            return ExitCode::from(USAGE_STATUS);
        }
        print(&format!("{}: ok\n", args.config.display()));
        return ExitCode::SUCCESS;
    }
    run_program(role, node_of(&config).clone(), |node| run(node, config))
}

/// Starts the node, runs `run` until it returns, reports: for a program that reads its arguments itself.
pub fn run_program<Run, Running>(role: &'static str, settings: NodeSettings, run: Run) -> ExitCode
where
    Run: FnOnce(Node) -> Running,
    Running: Future<Output = anyhow::Result<()>>,
{
    match run_node(role, settings, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Node::fatal(&error),
    }
}

fn parse_args(role: &'static str, about: &'static str) -> CommonArgs {
    // clap wants names that live as long as the process, and so they do
    let program: &'static str = format!("logferry-{role}").leak();
    let default_file: &'static str = format!("/etc/logferry/{role}.toml").leak();
    let command = clap::Command::new(program)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("Signals: SIGTERM and SIGINT stop gracefully, a second one exits at once.");
    let command = CommonArgs::augment_args(command)
        .about(about) // after the arguments, which bring a text of their own
        .mut_arg("config", |config| config.required(false).default_value(default_file));
    let matches = command.get_matches();
    CommonArgs::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn run_node<Run, Running>(role: &'static str, settings: NodeSettings, run: Run) -> anyhow::Result<()>
where
    Run: FnOnce(Node) -> Running,
    Running: Future<Output = anyhow::Result<()>>,
{
    let troubles = priority::apply(&settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let began = Instant::now();
    let outcome = runtime.block_on(async {
        let node = Node::start(&settings, role)?;
        troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
        let monitor = node.monitor();
        let outcome = run(node).await;
        let error = outcome.as_ref().err().map(|error| format!("the program ends: {error:#}"));
        monitor.say_goodbye(error.as_deref()).await;
        outcome
    });
    runtime.shutdown_timeout(RUNTIME_STOP_MAX);
    if outcome.is_ok() {
        tracing::info!(role, ran_s = began.elapsed().as_secs(), "stopped");
    }
    outcome
}

/// To stdout; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// To stderr, with a newline.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
