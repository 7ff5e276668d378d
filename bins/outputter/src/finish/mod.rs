//! Finishing: what becomes of a log file when all its hours are complete, and when it is old.
//!
//! ```text
//! books ─ which files are complete and quiet ─▶ finisher (one thread) ─ a new file, aside ─▶ committer (retires the log file)
//!                                               └─ which are too old, too many ─▶ committer (removes them)
//! ```
//!
//! A log file that is out of stream order is put into it; it is compressed, moved, given a mode and an owner, as configured. Its bytes are compared
//! with the checksums of its packs on the way, so nothing damaged is ever finished. Lines that come later begin a new log
//! file, which is added to the finished one when its hours are complete again.
//!
//! Not in here: when an hour is complete (`hours`), and the moment from which on the bytes are elsewhere (`file::retire`).

pub mod finisher;
pub mod log_files;
mod overlooked;
pub mod pasts;
pub mod product;
pub mod retention;
pub mod settings;
pub mod shell;
mod spread;

pub use finisher::{Committed, Finisher};
pub use log_files::LogFiles;
pub use pasts::Pasts;
pub use settings::{FinishSettings, Plan, RetentionSettings};
