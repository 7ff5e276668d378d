//! The file output: log files and header lines, exactly once, by group commit.
//!
//! ```text
//! packs ─▶ order (judge) ─▶ inflate (threads) ─▶ commit (one thread) ─▶ log_data/ headers/ journal ─▶ answers
//! ```

pub mod commit;
pub mod guard;
pub mod headers;
pub mod inflate;
pub mod journal;
pub mod order;
pub mod output;
pub mod recovery;
pub mod store;
pub mod sync;
pub mod template;
pub mod walk;
