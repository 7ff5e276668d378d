//! `migrate-config`: configurations of ours made of one of the legacy system, with remarks on what changes and what has no counterpart.

mod draft;
mod ini;
mod outputs;
mod senders;
mod shared;

use crate::config_check::{Role, problems_of};
use crate::{Output, Verdict};
use anyhow::Context;
use ini::Ini;
use shared::Source;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// INI file of a legacy node or of the legacy monitor.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The role to migrate, where the file has several.
    #[arg(long)]
    role: Option<LegacyRole>,
    /// Write tailer.toml, collector.toml … into this folder; without it the configuration is printed.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Protocol to send with: v1 as long as the next node may be a legacy one, then v2.
    #[arg(long, value_name = "v1|v2", default_value = "v1", value_parser = ["v1", "v2"])]
    protocol: String,
}

/// Roles of the legacy program, by their sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
enum LegacyRole {
    /// `[tail]`, and `[logd]`, the lines over TCP.
    Tail,
    Collector,
    Fcollector,
    Etlcollector,
    Mgocollector,
    Monitor,
}

impl LegacyRole {
    const ALL: [LegacyRole; 6] = [
        LegacyRole::Tail,
        LegacyRole::Collector,
        LegacyRole::Fcollector,
        LegacyRole::Etlcollector,
        LegacyRole::Mgocollector,
        LegacyRole::Monitor,
    ];

    fn sections(self) -> &'static [&'static str] {
        match self {
            LegacyRole::Tail => &["tail", "logd"],
            LegacyRole::Collector => &["collector"],
            LegacyRole::Fcollector => &["fcollector"],
            LegacyRole::Etlcollector => &["etlcollector"],
            LegacyRole::Mgocollector => &["mgocollector"],
            LegacyRole::Monitor => &["receiver", "heart_beat"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            LegacyRole::Monitor => "monitor",
            role => role.sections()[0],
        }
    }

    fn ours(self) -> Role {
        match self {
            LegacyRole::Tail => Role::Tailer,
            LegacyRole::Collector => Role::Collector,
            LegacyRole::Monitor => Role::Monitor,
            LegacyRole::Fcollector | LegacyRole::Etlcollector | LegacyRole::Mgocollector => Role::Outputter,
        }
    }

    fn draft(self, source: Source<'_>) -> String {
        match self {
            LegacyRole::Tail => senders::tailer(source),
            LegacyRole::Collector => senders::collector(source),
            LegacyRole::Fcollector => outputs::files(source),
            LegacyRole::Etlcollector => outputs::etl(source),
            LegacyRole::Mgocollector => outputs::mongodb(source),
            LegacyRole::Monitor => outputs::monitor(source),
        }
    }
}

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let shown = args.file.display();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let ini =
        Ini::parse(&String::from_utf8_lossy(&bytes)).map_err(|fault| anyhow::anyhow!("{shown}:{fault}"))?;
    let has = |role: &LegacyRole| role.sections().iter().any(|section| ini.has(section));
    let mut roles: Vec<LegacyRole> = LegacyRole::ALL.into_iter().filter(has).collect();
    if let Some(role) = args.role {
        roles.retain(|found| *found == role);
    }
    let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    match (roles.as_slice(), &args.to) {
        ([], _) => {
            let known: Vec<&str> = LegacyRole::ALL.iter().flat_map(|role| role.sections()).copied().collect();
            writeln!(output.err, "{shown}: none of the sections [{}] is there", known.join("] ["))?;
            Ok(Verdict::Usage)
        }
        ([role], None) => {
            let text = migrated(*role, args, &ini, output)?;
            write!(output.out, "{text}")?;
            verdict(*role, &text, output)
        }
        (_, None) => {
            writeln!(
                output.err,
                "{shown} has several roles ({}): add --role, or --to DIR",
                names.join(", ")
            )?;
            Ok(Verdict::Usage)
        }
        (_, Some(dir)) => {
            let mut all = Verdict::Fine;
            for role in roles {
                let text = migrated(role, args, &ini, output)?;
                let path = dir.join(format!("{}.toml", role.ours().name()));
                // What is there may be what somebody has finished by hand.
                let file = std::fs::File::create_new(&path);
                std::io::Write::write_all(
                    &mut file.with_context(|| format!("cannot create {}", path.display()))?,
                    text.as_bytes(),
                )?;
                writeln!(output.out, "{}: role {}", path.display(), role.name())?;
                all = all.and(verdict(role, &text, output)?);
            }
            Ok(all)
        }
    }
}

/// The configuration; with what this build cannot check as comments.
fn migrated(role: LegacyRole, args: &Args, ini: &Ini, output: &mut Output<'_>) -> anyhow::Result<String> {
    let draft = |with_features| {
        role.draft(Source::new(role.name(), role.sections(), args, ini.clone(), with_features))
    };
    let text = draft(true);
    if problems_of(role.ours(), &text)?.is_empty() {
        return Ok(text);
    }
    let plain = draft(false);
    if plain != text {
        writeln!(
            output.err,
            "an output is there as a comment, because this ferryctl was built without its feature"
        )?;
    }
    Ok(plain)
}

fn verdict(role: LegacyRole, text: &str, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let problems = problems_of(role.ours(), text)?;
    for problem in &problems {
        writeln!(output.err, "to be mended by hand: {problem}")?;
    }
    Ok(if problems.is_empty() { Verdict::Fine } else { Verdict::Problem })
}
