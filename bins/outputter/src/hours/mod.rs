//! The completeness books: which packs of each (host, source, hour) are in the output, and what follows from that.
//!
//! ```text
//! committer ─ news ─▶ keeper (one thread) ─▶ books ─▶ marks under received/ ─▶ hooks
//! header files ────▶                              └─▶ what is missing ─▶ repulls
//! ```
//!
//! The header files are the truth: the books are what their lines say, up to a byte of each file that the books remember. So they need
//! no fsync of their own: what a crash took from them is read again from there, and so is everything if they are lost. Only
//! what no header file says (which hooks have run, which repulls were asked for) has records of its own.
//!
//! An hour is *whole* when a done pack said how many packs it has and the output has exactly the numbers 1 to that.
//!
//! Not in here: anything that decides whether a pack is written. The books may be wrong, late or gone, and no line is lost.

pub mod book;
pub mod books;
pub mod calendar;
pub mod catch_up;
pub mod fact;
pub mod finishable;
pub mod hooks;
pub mod keeper;
mod lookup;
pub mod mailbox;
pub mod marks;
pub mod news;
pub mod notices;
pub mod other_files;
pub mod part;
pub mod redo;
pub mod report;
pub mod repull;
pub mod runner;
mod settle;
pub mod shell;
pub mod shrink;
pub mod state;
pub mod store;
pub mod told;
