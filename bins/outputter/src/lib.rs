//! The outputter: takes packs in and puts their lines into files, every line exactly once and in stream order.

pub mod config;
pub mod file;

pub use config::{FileSettings, OutputterConfig};
