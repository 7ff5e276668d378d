//! The collector: takes packs from tailers, forwards them to outputters, and keeps them in a spool while none of them
//! answers. It acknowledges a pack when the next tier has, or when the pack is fsynced in the spool; never from memory.
//!
//! It never decompresses a pack, and it never decides that a pack is wrong: all but exact duplicates are the
//! outputter's to judge.
//!
//! The nouns: the [`Collector`] is the running whole; the [`Relay`](relay::Relay) decides, without doing anything itself; a
//! task around it carries out what it decides, with the links on both sides and one thread for the disk.
//!
//! ```
//! use logferry_collector::CollectorConfig;
//! use logferry_node::config::ProgramConfig;
//!
//! let mut config = CollectorConfig::default();
//! config.listen.addr = "0.0.0.0:1302".into();
//! assert!(config.validate().unwrap_err().contains("send.to"));
//! config.send.to = vec!["outputter-1:1306".into()];
//! assert_eq!(config.validate(), Ok(()));
//! ```

pub mod collector;
pub mod config;
pub mod relay;

mod board;
mod seen;
mod shell;
mod store;

pub use collector::Collector;
pub use config::CollectorConfig;
