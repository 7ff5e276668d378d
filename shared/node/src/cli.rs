//! Command line of the programs.

use std::path::PathBuf;

/// Arguments that all four programs take.
#[derive(clap::Args, Debug, Clone)]
pub struct CommonArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    pub check_config: bool,
}
