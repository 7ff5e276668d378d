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
use shared::{Place, Source};
use std::os::unix::fs::OpenOptionsExt;
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
    let found: Vec<LegacyRole> = LegacyRole::ALL.into_iter().filter(has).collect();
    let mut roles = found.clone();
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
            let text = migrated(*role, &found, args, &ini, output)?;
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
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let paths: Vec<PathBuf> = roles.iter().map(|role| dir.join(file_name(*role, &roles))).collect();
            // What is there may be what somebody has finished by hand: nothing is written beside it.
            if let Some(there) = paths.iter().find(|path| path.exists()) {
                anyhow::bail!("{} is there already: move it away, or name another folder", there.display());
            }
            for (role, path) in roles.into_iter().zip(paths) {
                let text = migrated(role, &found, args, &ini, output)?;
                // It may hold the password of a database.
                let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
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

/// Where the configuration of a role goes: `outputter.toml`, or, as several legacy roles became outputters, `outputter-fcollector.toml`.
fn file_name(role: LegacyRole, all: &[LegacyRole]) -> String {
    let ours = role.ours().name();
    let is_only_one = all.iter().filter(|other| other.ours().name() == ours).count() <= 1;
    if is_only_one { format!("{ours}.toml") } else { format!("{ours}-{}.toml", role.name()) }
}

/// The same whether one role of the file is migrated or all.
fn place(role: LegacyRole, found: &[LegacyRole]) -> Place {
    let count = |roles: usize| u16::try_from(roles).unwrap_or(0);
    let before = || found.iter().take_while(|other| **other != role);
    let alike = before().filter(|other| other.ours().name() == role.ours().name());
    Place {
        name: file_name(role, found).trim_end_matches(".toml").to_owned(),
        before: count(before().count()),
        alike_before: count(alike.count()),
    }
}

/// The configuration; with what this build cannot check as comments.
fn migrated(
    role: LegacyRole,
    found: &[LegacyRole],
    args: &Args,
    ini: &Ini,
    output: &mut Output<'_>,
) -> anyhow::Result<String> {
    let draft = |with_features| {
        let place = place(role, found);
        role.draft(Source::new(role.name(), role.sections(), args, ini.clone(), place, with_features))
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
