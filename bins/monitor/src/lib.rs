//! The monitor: the one place where operators see every node and every error. It keeps a registry of nodes, legacy ones included, in
//! SQLite or MySQL, probes them, stores what they warn of, and shows it on a page.
//!
//! Not in here: anything that data passes through. The monitor may be away at any time, and no line is late for it.
//!
//! The nouns: the [`Registry`](registry::Registry) decides, without doing anything itself; the [`Journal`](journal::Journal) is the
//! queue to the [`Database`](database::Database), on the disk; [`Running`](monitor::Running) is the whole.
//!
//! ```
//! use logferry_monitor::config::MonitorConfig;
//! use logferry_node::config::ProgramConfig;
//!
//! let mut config = MonitorConfig::default();
//! assert!(config.validate().unwrap_err().contains("listen.addr"));
//! config.listen.addr = "0.0.0.0:4040".into();
//! assert_eq!(config.validate(), Ok(()));
//! ```

pub mod access;
pub mod alerts;
pub mod config;
pub mod database;
pub mod error_log;
pub mod journal;
pub mod monitor;
pub mod registry;

mod decisions;
mod intake;
mod prober;
mod pruner;
pub mod web;
mod writer;

pub use config::MonitorConfig;
