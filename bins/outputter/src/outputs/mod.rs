//! Several outputs in one outputter: a pack is acknowledged when each has it, or the spool has it for the one that is away.
//!
//! ```text
//! packs ─▶ [file]: judged, written, fsynced ─▶ route ─▶ an output that can be away ─▶ answers
//!                                                        └ backlog (decides), keeper (spool, footprint), the output itself
//! ```
//!
//! `[file]` comes first where it is configured: it judges packs (duplicates, gaps, conflicts), and only what it has goes on. The other
//! output has footprints of its own, so neither repeats anything because of the other. Without `[file]` packs go straight to it.

pub mod away;
pub mod backlog;
pub mod direct;
pub mod keeper;
pub mod log;
pub mod route;
