//! What every program shares: configuration, logging, graceful stop, the admin endpoint, the quarantine folder.
//! Knows nothing of packs, links or files that are followed.

pub mod admin;
pub mod cli;
pub mod config;
pub mod quarantine;
pub mod runtime;
