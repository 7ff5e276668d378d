//! The tailer: follows log files, cuts packs of whole lines, journals them, and sends them to the next tier.

pub mod config;
