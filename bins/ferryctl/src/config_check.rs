//! `config check`: all that is wrong with configuration files.

use crate::{Output, Verdict};
use logferry_collector::config::CollectorConfig;
use logferry_monitor::MonitorConfig;
use logferry_node::config::{self, ProgramConfig};
use logferry_outputter::config::OutputterConfig;
use logferry_tailer::config::TailerConfig;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The program that the files are for; told from their names and tables when not given.
    #[arg(long)]
    role: Option<Role>,
    /// Print one JSON object per file.
    #[arg(long)]
    json: bool,
}

/// Programs that have a configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Tailer,
    Collector,
    Outputter,
    Monitor,
}

impl Role {
    /// Its word in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Tailer => "tailer",
            Role::Collector => "collector",
            Role::Outputter => "outputter",
            Role::Monitor => "monitor",
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    role: Option<Role>,
    ok: bool,
    problems: Vec<String>,
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Fine;
    for file in &args.files {
        verdict = verdict.and(check(file, args, output)?);
    }
    Ok(verdict)
}

fn check(file: &Path, args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let role = args.role.or_else(|| role_by_name(file)).or_else(|| role_by_tables(file));
    let (verdict, problems) = match role {
        None => (Verdict::Usage, vec![unknown_role(file)]),
        Some(role) => match load(role, file) {
            Ok(()) => (Verdict::Fine, Vec::new()),
            Err(error) => (Verdict::Problem, error.lines().map(str::to_owned).collect()),
        },
    };
    let report = Report { file, role, ok: verdict == Verdict::Fine, problems };
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string(&report)?)?;
        return Ok(verdict);
    }
    for problem in &report.problems {
        writeln!(output.err, "{problem}")?;
    }
    if report.ok {
        writeln!(output.out, "{}: ok", file.display())?;
    }
    Ok(verdict)
}

fn load(role: Role, file: &Path) -> Result<(), String> {
    fn load_as<C: ProgramConfig>(file: &Path) -> Result<(), String> {
        let config = config::load::<C>(file).map_err(|error| error.to_string())?;
        config.check().map_err(|error| format!("{}: {error}", file.display()))
    }
    match role {
        Role::Tailer => load_as::<TailerConfig>(file),
        Role::Collector => load_as::<CollectorConfig>(file),
        Role::Outputter => load_as::<OutputterConfig>(file),
        Role::Monitor => load_as::<MonitorConfig>(file),
    }
}

/// All that is wrong with the text of a configuration.
pub(crate) fn problems_of(role: Role, text: &str) -> anyhow::Result<Vec<String>> {
    fn problems<C: ProgramConfig>(text: &str) -> Vec<String> {
        let parsed = config::parse::<C>("it", text);
        parsed.err().map(|error| error.to_string().lines().map(str::to_owned).collect()).unwrap_or_default()
    }
    Ok(match role {
        Role::Tailer => problems::<TailerConfig>(text),
        Role::Collector => problems::<CollectorConfig>(text),
        Role::Outputter => problems::<OutputterConfig>(text),
        Role::Monitor => problems::<MonitorConfig>(text),
    })
}

fn unknown_role(file: &Path) -> String {
    match std::fs::metadata(file) {
        Ok(_) => format!(
            "{}: neither its name nor its tables tell which program it is for: add --role tailer, collector, outputter or monitor",
            file.display()
        ),
        Err(error) => format!("{}: {error}", file.display()),
    }
}

/// `tailer.toml`, `web-1.tailer.toml`, `logferry-monitor.toml`, `tailer/config.toml`: the one role that the path's end names.
fn role_by_name(file: &Path) -> Option<Role> {
    let named = |text: &str| {
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let mut found = [Role::Tailer, Role::Collector, Role::Outputter, Role::Monitor]
            .into_iter()
            .zip(["tailer", "collector", "outputter", "monitor"])
            .filter(|(_, name)| words.contains(name))
            .map(|(role, _)| role);
        found.next().filter(|_| found.next().is_none())
    };
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    name(file).and_then(|text| named(&text)).or_else(|| named(&name(file.parent()?)?))
}

/// By the tables that only one program has.
fn role_by_tables(file: &Path) -> Option<Role> {
    let tables: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
    let has = |names: &[&str]| names.iter().any(|name| tables.contains_key(*name));
    match () {
        () if has(&["source", "pack"]) => Some(Role::Tailer),
        () if has(&["database", "check"]) => Some(Role::Monitor),
        () if has(&["file", "mongodb", "etl"]) => Some(Role::Outputter),
        () if has(&["relay"]) || (has(&["listen"]) && has(&["send"])) => Some(Role::Collector),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_told_from_the_file_or_folder_name() {
        for (path, role) in [
            ("/etc/logferry/tailer.toml", Some(Role::Tailer)),
            ("web-1.collector.toml", Some(Role::Collector)),
            ("monitor.toml", Some(Role::Monitor)),
            ("logferry-outputter.toml", Some(Role::Outputter)),
            ("/etc/tailer/config.toml", Some(Role::Tailer)),
            ("/etc/logferry/config.toml", None),
            ("retailer.toml", None),
            ("tailer-to-collector.toml", None),
        ] {
            assert_eq!(role_by_name(Path::new(path)), role, "{path}");
        }
    }
}
