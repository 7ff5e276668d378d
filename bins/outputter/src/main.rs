//! `logferry-outputter`: a thin shell over the library.

use logferry_outputter::OutputterConfig;
use std::process::ExitCode;

fn main() -> ExitCode {
    let about = "Takes packs in and puts their lines into files, every line exactly once";
    logferry_node::cli::main_with(
        "outputter",
        about,
        |config: &OutputterConfig| &config.node,
        logferry_outputter::run,
    )
}
