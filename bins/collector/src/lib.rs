//! The collector: takes packs from tailers, forwards them to outputters, and keeps them in a spool while none of them
//! answers. It acknowledges a pack when the next tier has, or when the pack is fsynced in the spool; never from memory.
//!
//! It never decompresses a pack, and it never decides that a pack is wrong: all but exact duplicates are the
//! outputter's to judge.

pub mod config;
pub mod relay;

pub use config::CollectorConfig;
