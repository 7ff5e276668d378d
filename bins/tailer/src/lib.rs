//! The tailer: follows log files, cuts packs of whole lines, journals them, and sends them to the next tier.

pub mod batching;
pub mod config;
pub mod conflict;
pub mod cutter;
pub mod identity;
pub mod tracker;
