//! The file output: log files and header lines, exactly once, by group commit.
//!
//! ```text
//! packs ─▶ order (judge) ─▶ inflate (threads) ─▶ commit (one thread) ─▶ log_data/ headers/ journal ─▶ answers
//! ```

pub mod archive;
pub mod commit;
pub mod file_recovery;
pub mod group;
pub mod guard;
pub mod headers;
pub mod if_there;
pub mod inflate;
pub mod journal;
pub mod layout;
pub mod mend;
pub mod mounted;
pub mod open_files;
pub mod order;
pub mod output;
pub mod own_fault;
pub mod past;
pub mod recovery;
pub mod replace;
pub mod retire;
pub mod roll_forward;
pub mod shelf;
mod start;
pub mod store;
pub mod sync;
pub mod template;
pub mod trim;
pub mod waiting;
pub mod walk;
