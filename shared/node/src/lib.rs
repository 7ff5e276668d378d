//! What every program shares: configuration, logging, graceful stop, the admin endpoint, the way to
//! the monitor, the quarantine folder.
//! Knows nothing of packs, links or files that are followed.
//!
//! The nouns are a program's [configuration](config::ProgramConfig), the running [`Node`](runtime::Node), its
//! [`Status`](admin::Status) and its [`Quarantine`](quarantine::Quarantine). A program's `main` is one call of
//! [`cli::main_with`]:
//!
//! ```
//! use logferry_node::config::{self, NodeSettings, ProgramConfig, Setting, Settings};
//!
//! #[derive(serde::Deserialize)]
//! struct Config { node: NodeSettings }
//! impl ProgramConfig for Config {
//!     fn tables() -> Vec<(&'static str, &'static [Setting])> { vec![("node", NodeSettings::SETTINGS)] }
//!     fn validate(&self) -> Result<(), String> { Ok(()) }
//! }
//!
//! let config: Config = config::parse("demo.toml", "[node]\nname = \"web-1\"\n").expect("a good file");
//! assert_eq!(config.node.name, "web-1");
//! let error = config::parse::<Config>("demo.toml", "[node]\nnmae = \"web-1\"\n").err().expect("a bad file");
//! assert!(error.to_string().starts_with("demo.toml:2:1: unknown key \"nmae\" in [node]; did you mean \"name\"?"));
//! ```

pub mod admin;
pub mod cli;
pub mod config;
mod logging;
pub mod monitor;
mod priority;
mod process;
pub mod quarantine;
pub mod runtime;
