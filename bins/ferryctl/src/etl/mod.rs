//! `etl`: makes tables of given files as the outputter does, has a running outputter make some again, and runs the examples of a program.

#[cfg(feature = "etl")]
mod progress;
mod redo;
#[cfg(feature = "etl")]
mod run;
#[cfg(feature = "etl")]
mod test;

pub(crate) use redo::{Args as RedoArgs, redo};
#[cfg(feature = "etl")]
pub(crate) use run::{Args as RunArgs, run};
#[cfg(feature = "etl")]
pub(crate) use test::{Args as TestArgs, test};

#[cfg(not(feature = "etl"))]
pub(crate) use absent::{Args as RunArgs, Args as TestArgs, run, run as test};

/// What stands here in a program that was built without its feature.
#[cfg(not(feature = "etl"))]
mod absent {
    use crate::{Output, Verdict};

    #[derive(clap::Args)]
    pub(crate) struct Args {
        /// Not in this build.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    }

    pub(crate) fn run(args: &Args, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
        let _ = &args.ignored;
        writeln!(output.err, "this ferryctl was built without ETL: build it with --features etl")?;
        Ok(Verdict::Usage)
    }
}
