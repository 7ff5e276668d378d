//! `etl test`: does a program make of its examples what they say?

use crate::{Output, Verdict};
use anyhow::Context;
use logferry_etl::examples;
use logferry_etl::plan::{self, compile};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Programs in VRL.
    #[arg(value_name = "PROGRAM", required = true)]
    programs: Vec<PathBuf>,
    /// The examples [default: beside each program, access.tests.toml for access.vrl].
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
    /// Time zone of times that have none.
    #[arg(long, default_value = "UTC")]
    zone: String,
}

pub(crate) fn test(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    if args.tests.is_some() && args.programs.len() > 1 {
        writeln!(output.err, "--tests is for one program, not for {}", args.programs.len())?;
        return Ok(Verdict::Usage);
    }
    let mut verdict = Verdict::Fine;
    for path in &args.programs {
        let file = args.tests.clone().unwrap_or_else(|| path.with_extension("tests.toml"));
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("no examples of {}: cannot read {}", path.display(), file.display()))?;
        let tests = examples::parse(&text).with_context(|| file.display().to_string())?;
        let mut program = plan::line_program(compile(path)?, &args.zone)?;
        let mut failed = 0;
        for test in &tests {
            let differences = test.run(&mut *program)?;
            let word = if differences.is_empty() { "ok  " } else { "FAIL" };
            writeln!(output.out, "{word}  {}", test.name)?;
            for difference in &differences {
                writeln!(output.out, "      {difference}")?;
            }
            failed += usize::from(!differences.is_empty());
        }
        let passed = tests.len() - failed;
        writeln!(output.out, "{}: {passed} passed, {failed} failed", path.display())?;
        verdict = verdict.and(if failed == 0 { Verdict::Fine } else { Verdict::Problem });
    }
    Ok(verdict)
}
