//! The operator's tool: checks configurations, looks into packs and spools, asks running nodes how they are.
//! It needs none of a node's locks, and changes nothing there but what it says it does.
//!
//! Each command is a module with a `run` that writes to an [`Output`] and returns a [`Verdict`].
//! Exit status: 0 all well, 1 a problem was found, 2 wrong usage.

mod audit;
mod config_check;
mod etl;
mod hash_password;
mod hours;
mod human;
mod migrate;
mod pack_inspect;
mod quarantine;
mod registry;
mod repull;
mod spool;
mod status;
mod top;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// What a command found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All well: exit status 0.
    Fine,
    /// A problem was found and has been printed: exit status 1.
    Problem,
    /// The command cannot be carried out as it was given, which has been said: exit status 2.
    Usage,
}

impl Verdict {
    /// The worse of two.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        if (self as u8) < (other as u8) { other } else { self }
    }
}

/// Where a command writes.
pub struct Output<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Complaints.
    pub err: &'a mut dyn Write,
}

#[derive(Parser)]
#[command(name = "ferryctl", version, about = "Looks after Logferry nodes, their files and their packs.")]
#[command(after_help = "Exit status: 0 all well, 1 a problem was found, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make configurations of ours from an INI file of the legacy system, with remarks on what changes.
    MigrateConfig(migrate::Args),
    /// Packs: files of them, quarantine files, spool exports.
    #[command(subcommand)]
    Pack(PackCommand),
    /// Quarantines: the packs that a node could not deliver.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Spools: the packs that a node keeps on disk while the next tier is away.
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// Show which hours are complete in an outputter's store, and what is missing of the others.
    Hours(hours::Args),
    /// Tables of log files, by a program in VRL.
    #[command(subcommand)]
    Etl(EtlCommand),
    /// Compare what a host has of an hour with what the store has: missing, doubled and different lines, by file and byte.
    #[command(after_help = "Exit status: 0 all equal, 1 a difference, 2 it could not be compared.")]
    Audit(audit::Args),
    /// Ask a running tailer to ship an hour, a file or a byte range again; the store writes only what it lacks.
    Repull(repull::Args),
    /// Ask running nodes how they are.
    Status(status::Args),
    /// Make the hash of a password, for [access] of the monitor; the password is the first line of standard input.
    HashPassword,
    /// List the nodes that the monitor knows, or have it forget some.
    #[command(
        after_help = "Exit status: 0 all well, 1 a node is silent or not ready, or is up and not to be forgotten, 2 wrong usage, or no node (or more than one) is called so."
    )]
    Nodes(registry::NodesArgs),
    /// Watch the nodes that the monitor knows, live in the terminal.
    Top(top::Args),
    /// List the alerts that the monitor has announced; exit status 1 while one is open.
    Alerts(registry::AlertsArgs),
    /// List the warnings and errors that the monitor was told of.
    Errors(registry::ErrorsArgs),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// List all that is wrong with configuration files, with lines.
    Check(config_check::Args),
}

#[derive(Subcommand)]
enum PackCommand {
    /// Show header, route and checks of every pack.
    Inspect(pack_inspect::Args),
}

#[derive(Subcommand)]
enum QuarantineCommand {
    /// List what is there and why; changes nothing.
    List(quarantine::ListArgs),
    /// Send the sound packs again, and delete those that have arrived.
    Send(quarantine::SendArgs),
}

#[derive(Subcommand)]
enum SpoolCommand {
    /// Check every record; changes nothing, and may run beside the node.
    Check(spool::CheckArgs),
    /// Copy all readable packs to a file; changes nothing, and may run beside the node.
    Export(spool::ExportArgs),
}

#[derive(Subcommand)]
enum EtlCommand {
    /// Make tables of files, as the outputter does of complete hours; tables of an earlier run are replaced.
    Run(etl::RunArgs),
    /// Have a running outputter make the tables of a complete hour again: after they failed, or with another program.
    Redo(etl::RedoArgs),
    /// Run the examples of programs and print what is other than expected.
    Test(etl::TestArgs),
}

/// The whole program: parses `args` (the program's name first), runs the command, gives the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let mut output =
        Output { out: &mut io::BufWriter::new(io::stdout().lock()), err: &mut io::stderr().lock() };
    let outcome = run(&cli.command, &mut output).and_then(|verdict| {
        output.out.flush()?;
        Ok(verdict)
    });
    match outcome {
        Ok(verdict) => ExitCode::from(verdict as u8),
        // `ferryctl … | head`: the reader has what it wanted
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(output.err, "error: {error:#}");
            ExitCode::from(Verdict::Problem as u8)
        }
    }
}

fn run(command: &Command, output: &mut Output<'_>) -> anyhow::Result<Verdict> {
    match command {
        Command::Config(ConfigCommand::Check(args)) => config_check::run(args, output),
        Command::MigrateConfig(args) => migrate::run(args, output),
        Command::Pack(PackCommand::Inspect(args)) => pack_inspect::run(args, output),
        Command::Quarantine(QuarantineCommand::List(args)) => quarantine::list(args, output),
        Command::Quarantine(QuarantineCommand::Send(args)) => quarantine::send(args, output),
        Command::Spool(SpoolCommand::Check(args)) => spool::check(args, output),
        Command::Spool(SpoolCommand::Export(args)) => spool::export(args, output),
        Command::Hours(args) => hours::run(args, output),
        Command::Etl(EtlCommand::Run(args)) => etl::run(args, output),
        Command::Etl(EtlCommand::Redo(args)) => etl::redo(args, output),
        Command::Etl(EtlCommand::Test(args)) => etl::test(args, output),
        Command::Audit(args) => audit::run(args, output),
        Command::Repull(args) => repull::run(args, output),
        Command::Status(args) => status::run(args, output),
        Command::HashPassword => hash_password::run(output),
        Command::Top(args) => top::run(args, output),
        Command::Alerts(args) => registry::alerts(args, output),
        Command::Nodes(args) => registry::nodes(args, output),
        Command::Errors(args) => registry::errors(args, output),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
