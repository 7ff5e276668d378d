//! `pack inspect`: header, route and checks of every pack in a file.

mod report;
mod stream;

use crate::{Output, Verdict};
use anyhow::Context;
use logferry_pack::Limits;
use report::{Inspector, PackReport};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use stream::PackStream;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files of packs, one after another: captures, quarantine files, spool exports; "-" is stdin.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print the lines of each pack too; with --quiet, the lines alone.
    #[arg(long)]
    body: bool,
    /// Print nothing of a pack that is sound.
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// Print one JSON object per pack.
    #[arg(long, conflicts_with = "body")]
    json: bool,
}

/// Wider than any node's limits: this is where one looks at what a node refused.
pub(crate) const LIMITS: Limits =
    Limits { header_bytes_max: 16 << 20, pack_bytes_max: 256 << 20, raw_bytes_max: 1 << 30 };

pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Fine;
    for file in &args.files {
        verdict = verdict.and(inspect_file(file, args, output)?);
    }
    Ok(verdict)
}

fn inspect_file(file: &Path, args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    let name = if file == Path::new("-") { "stdin".into() } else { file.display().to_string() };
    let input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(file).with_context(|| format!("cannot open {name}"))?),
    };
    let mut packs = PackStream::new(input, LIMITS);
    let mut inspector = Inspector::new();
    let mut totals = Totals::default();
    loop {
        match packs.next() {
            Ok(None) => break,
            Ok(Some(found)) => {
                let report = inspector.inspect(&found);
                totals.add(&report);
                print_pack(&name, &report, inspector.body(), args, output)?;
            }
            Err(stream::Stopped::Unreadable(error)) => {
                return Err(error).with_context(|| format!("cannot read {name}"));
            }
            Err(stream::Stopped::NoPack { at, left, reason }) => {
                totals.problems += 1;
                print_no_pack(&name, at, left, &reason, args, output)?;
                break;
            }
        }
    }
    if !args.json && !args.quiet {
        writeln!(output.out, "{name}: {totals}")?;
    }
    if totals.packs == 0 && totals.problems == 0 {
        writeln!(output.err, "{name}: is empty, there is no pack")?;
        return Ok(Verdict::Problem);
    }
    Ok(if totals.problems == 0 { Verdict::Fine } else { Verdict::Problem })
}

fn print_pack(
    name: &str,
    report: &PackReport,
    body: &[u8],
    args: &Args,
    output: &mut Output<'_>,
) -> anyhow::Result<()> {
    if args.json {
        writeln!(output.out, "{}", serde_json::to_string(report)?)?;
    } else if !args.quiet {
        write!(output.out, "{report}")?;
    } else if !report.sound {
        writeln!(output.err, "{name}: at byte {}: {}", report.at, report.checks.faults().join("; "))?;
    }
    if args.body {
        output.out.write_all(body)?;
    }
    Ok(())
}

fn print_no_pack(
    name: &str,
    at: u64,
    left: &str,
    reason: &str,
    args: &Args,
    output: &mut Output<'_>,
) -> anyhow::Result<()> {
    let text = format!("no pack at byte {at}: {reason}; {left}");
    if args.json {
        let fault = serde_json::json!({ "at": at, "sound": false, "error": text });
        writeln!(output.out, "{fault}")?;
    } else {
        writeln!(output.err, "{name}: {text}")?;
    }
    Ok(())
}

/// Of one file.
#[derive(Default)]
struct Totals {
    packs: u64,
    lines: u64,
    raw_bytes: u64,
    body_bytes: u64,
    problems: u64,
}
impl Totals {
    fn add(&mut self, report: &PackReport) {
        self.packs += 1;
        self.lines += report.lines;
        self.raw_bytes += report.raw_bytes.unwrap_or(0);
        self.body_bytes += report.body_bytes;
        self.problems += u64::from(!report.sound);
    }
}
impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} packs, {} lines, {} bytes", self.packs, self.lines, self.raw_bytes)?;
        match self.problems {
            0 => write!(f, ", all sound"),
            problems => write!(f, ", {problems} with problems"),
        }
    }
}
