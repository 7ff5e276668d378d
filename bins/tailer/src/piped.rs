//! `app | logferry-tailer --stdin --source NAME`: ships what an application writes to its standard output, and ends with it.
//!
//! It is a tailer of its own, with a state folder of its own, whose only source is an input that nobody listens for.

use crate::config::TailerConfig;
use crate::figures::Figures;
use crate::input::InputSettings;
use crate::input::inlet::Intake;
use crate::input::stdin::Reading;
use crate::tailer::Tailer;
use anyhow::Context;
use clap::Parser;
use logferry_durable::RealDisk;
use logferry_node::cli;
use logferry_node::config::{self, Interval, Mode, ProgramConfig, Setting};
use logferry_node::runtime::Node;
use logferry_pack::Name;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a stop waits for what was read to be handed over.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Time between two looks at whether all has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Arguments of `--stdin`.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "logferry-tailer",
    version,
    about = "Ships the lines of standard input, and ends with it.",
    after_help = "Exit status 0: all lines have arrived, or they are kept in the state folder and the next start ships them.\n\
                  The hour of the clock in which it ends stays open for more: the next start with this state folder closes it.\n\
                  Several of these at a time on one host need a --source of their own each."
)]
pub struct PipedArgs {
    /// Ship standard input.
    #[arg(long, required = true)]
    pub stdin: bool,
    /// Name of the source that the lines belong to.
    #[arg(long, value_name = "NAME")]
    pub source: String,
    /// Next tier, in place of [send] to; several: failover. Needed without --config.
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Vec<String>,
    /// Configuration file of a tailer: [node], [pack], [send], and the [[source]] of this name, if it is there, count.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State folder; default: stdin/NAME below that of the configuration, without one var/stdin/NAME.
    #[arg(long, value_name = "DIR")]
    pub var_dir: Option<PathBuf>,
    /// Name of this host in packs; default: that of the configuration, or the host name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Address of /metrics, /healthz and /readyz; default: none.
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    /// How long to wait, after the last line, for the next tier to have all.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub wait: Interval,
}

impl PipedArgs {
    /// The configuration of the tailer.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn configuration(&self) -> Result<TailerConfig, String> {
        let mut config = match &self.config {
            Some(path) => config::load::<PipedConfig>(path).map_err(|error| error.to_string())?.0,
            None => TailerConfig::default(),
        };
        let source = &self.source;
        Name::new(source.as_str()).map_err(|error| format!("--source {source:?}: {error}"))?;
        let node = &mut config.node;
        let own_folder = || node.var_dir.join("stdin").join(source);
        node.var_dir = self.var_dir.clone().unwrap_or_else(own_folder);
        // These are the addresses of the tailer that runs on this host already.
        (node.admin, node.heartbeat) = (self.admin.clone().unwrap_or_default(), String::new());
        if let Some(name) = &self.name {
            config::rules::node_name(name).map_err(|error| format!("--name {error}"))?;
            node.name = name.clone();
        }
        if !self.to.is_empty() {
            config::rules::addresses(&self.to).map_err(|error| format!("--to {error}"))?;
            config.send.to = self.to.clone();
            config.send.mode = if self.to.len() > 1 { Mode::Failover } else { Mode::Single };
        }
        if config.send.to.is_empty() {
            return Err("there is no next tier: name it with --to HOST:PORT, or in [send] of --config FILE"
                .to_owned());
        }
        config.send.validate()?;
        config.source.retain(|known| known.name == *source);
        config.source.iter_mut().for_each(|known| known.path.clear());
        let known = config.input.iter().find(|input| input.name == *source).cloned();
        let mut input = known.unwrap_or_default();
        input.name = source.clone();
        input.listen.clear();
        config.input = vec![input];
        Ok(config)
    }
}

/// The file of a tailer, in which standard input may be a `[[source]]` without a path, and nothing needs to be followed.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct PipedConfig(TailerConfig);

impl ProgramConfig for PipedConfig {
    fn tables() -> Vec<(&'static str, &'static [Setting])> {
        TailerConfig::tables()
    }

    fn validate(&self) -> Result<(), String> {
        let mut config = self.0.clone();
        let is_input = |name: &str| self.0.input.iter().any(|input| input.name == name);
        let without_path = self.0.source.iter().filter(|source| source.path.is_empty());
        let mut names: Vec<&str> = without_path.map(|source| source.name.as_str()).collect();
        if self.0.source.is_empty() && self.0.input.is_empty() {
            names.push("stdin");
        }
        names.retain(|name| !name.is_empty() && !is_input(name));
        // As it will be: the source of an input that nobody listens for.
        config.input.extend(names.into_iter().map(|name| InputSettings {
            name: name.to_owned(),
            listen: vec![format!("unix:///stdin/{name}")],
            ..InputSettings::default()
        }));
        config.validate()
    }
}

/// The program.
pub fn main() -> ExitCode {
    let args = PipedArgs::parse();
    let config = match args.configuration() {
        Ok(config) => config,
        Err(error) => {
            cli::print_error(&format!("error: {error}"));
            return ExitCode::from(cli::USAGE_STATUS);
        }
    };
    cli::run_program("tailer", config.node.clone(), move |node| run(node, config, args.wait.0))
}

async fn run(node: Node, mut config: TailerConfig, wait: Duration) -> anyhow::Result<()> {
    config.node = node.settings.clone();
    let input: &InputSettings = config.input.first().context("an input for standard input")?;
    let tailer = Tailer::start(&config, Arc::new(RealDisk))?;
    node.serve_admin(tailer.status()).await?;
    let figures = tailer.figures();
    let intake = tailer.intake(&input.name).context("an input for standard input")?;
    let line_bytes_max = config.pack.max_line.0 as usize;
    let mut reading =
        Reading::start(intake.clone(), line_bytes_max).context("standard input cannot be read")?;
    let ended = tokio::select! {
        _ = &mut reading.ended => true,
        () = node.stop.cancelled() => false,
    };
    if ended {
        info!("standard input has ended");
        let arrived = all_arrived(&intake, &figures, wait, &node.stop).await;
        if arrived || !node.stop.is_cancelled() {
            tailer.stop_within(Duration::ZERO).await?;
        } else {
            tailer.stop().await?;
        }
    } else {
        reading.stop();
        let _ = tokio::time::timeout(STOP_WAIT, &mut reading.ended).await;
        intake.seal();
        tailer.stop().await?;
    }
    if ended && !figures.has_closed_hours() {
        info!("an hour that is over has no done pack yet: the next start with this folder closes it");
    }
    let left = intake.shelf.lines_bytes();
    if left > 0 {
        warn!(
            bytes = left, folder = %config.node.var_dir.display(),
            "the next tier does not have all lines yet: they are kept on the disk, and the next start with this folder ships them"
        );
    }
    Ok(())
}

/// Waits until the files of the input are gone, which they are when the next tier has all of them, and the hours that are over are closed.
async fn all_arrived(intake: &Intake, figures: &Figures, wait: Duration, stop: &CancellationToken) -> bool {
    let begin = Instant::now();
    let mut sealed = false;
    while begin.elapsed() < wait && !stop.is_cancelled() {
        if intake.is_idle() {
            if intake.shelf.is_empty() && figures.has_closed_hours() {
                return true;
            }
            if !sealed {
                intake.seal();
                sealed = true;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::config::sources;

    fn args(words: &[&str]) -> PipedArgs {
        PipedArgs::parse_from([&["logferry-tailer", "--stdin", "--source", "job"], words].concat())
    }

    #[test]
    fn without_a_file_a_target_is_all_it_needs() {
        let config = args(&["--to", "127.0.0.1:1302"]).configuration().expect("enough");
        assert_eq!(config.node.var_dir, PathBuf::from("var/stdin/job"));
        assert_eq!(sources(&config).expect("good")[0].name, "job");
        assert!(args(&[]).configuration().expect_err("no target").contains("--to"));
        assert!(args(&["--to", "nowhere"]).configuration().expect_err("bad").contains("--to"));
    }

    #[test]
    fn a_source_of_a_file_that_is_there_for_standard_input_needs_no_path_and_others_keep_their_rules() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tailer.toml");
        let configuration = |sources: &str| {
            let text = format!("{sources}[send]\nto = [\"127.0.0.1:1\"]\n");
            std::fs::write(&path, text).expect("written");
            args(&["--config", path.to_str().expect("plain")]).configuration()
        };
        let job = "[[source]]\nname = \"job\"\nexclude = ['^DEBUG']\n";
        let config = configuration(job).expect("good");
        assert_eq!(sources(&config).expect("good")[0].exclude, ["^DEBUG"]);
        assert_eq!(configuration("").expect("good").source.len(), 0);
        assert!(configuration(&job.replace("DEBUG", "(")).expect_err("bad").contains("exclude"));
        assert!(configuration(&format!("{job}{job}")).expect_err("twice").contains("used twice"));
    }

    #[test]
    fn of_a_file_it_takes_target_and_filters_and_keeps_out_of_the_way_of_its_tailer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tailer.toml");
        let text = "[node]\nvar_dir = \"/state\"\nadmin = \"127.0.0.1:9311\"\n\
                    [[source]]\nname = \"job\"\npath = \"/a\"\nexclude = ['^DEBUG']\n\
                    [[source]]\nname = \"other\"\npath = \"/b\"\n[send]\nto = [\"127.0.0.1:1\"]\n";
        std::fs::write(&path, text).expect("written");
        let config = args(&["--config", path.to_str().expect("plain")]).configuration().expect("good");
        assert_eq!(
            (config.node.var_dir.to_str(), config.node.admin.as_str()),
            (Some("/state/stdin/job"), "")
        );
        let sources = sources(&config).expect("good");
        assert_eq!((sources.len(), sources[0].exclude.len()), (1, 1));
    }
}
