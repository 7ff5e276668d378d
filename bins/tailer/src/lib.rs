//! The tailer: follows log files, cuts packs of whole lines, journals them, and sends them to the next tier.
//!
//! It never decodes packs, and it keeps no lines: the log file is its buffer, and the ledger says which bytes of it
//! are in which pack and which are acknowledged.
//!
//! The parts that decide are pure: [`cutter`] (where a pack ends), [`batching`] (when it leaves), [`tracker`] (which
//! file is which), [`pattern`] and [`hour`] (which hour it is), [`ledger`] (what must not be forgotten), [`conflict`] (what is left to ship when the next tier
//! knows better). Around them are a few threads that talk over channels ([`event`]):
//!
//! ```text
//!  inotify ──▶ follower ── bytes ──▶ compress ── packs ──▶ shipper ──▶ link::Sender
//!  (watch)     files, ledger         one per core          state log      │
//!                 ▲  └──────────── records ──────────────────▲ │ ▲        │
//!                 └───────────────── settled ──────────────────┘ └─ acks ─┘
//! ```
//!
//! A path from file to wire for one line: it is read once into a pooled buffer, cut with its neighbours, journaled,
//! compressed, and sent when the journal record is on the disk.
//!
//! ```
//! use logferry_tailer::cutter::{CutLimits, Cutter, Cutting, Look};
//! let cutting = Cutting::of_lines(CutLimits { pack_bytes: 64, line_bytes: 64, lines: 0 });
//! let (mut cutter, file) = (Cutter::new(0), b"one\ntwo\nthr");
//! let mut buffer = [0; 64];
//! let window = cutter.window(&cutting, 64, false);
//! buffer[..file.len()].copy_from_slice(file);
//! let look = cutter.look(&buffer, window, file.len(), &cutting, false);
//! let Look::Cut(piece) = look else { panic!("two whole lines") };
//! assert_eq!((piece.span, piece.lines, cutter.partial_bytes()), (8, 2, 3));
//! ```

pub mod audit;
pub mod batching;
pub mod body;
pub mod closing;
pub mod compress;
pub mod config;
pub mod conflict;
pub mod cutter;
pub mod encoding;
pub mod entries;
pub mod event;
pub mod figures;
pub mod files;
pub mod filter;
mod follower;
pub mod hour;
pub mod identity;
pub mod input;
pub mod ledger;
pub mod legacy;
pub mod pace;
pub mod pattern;
pub mod piped;
mod recut;
pub mod repull;
pub mod rotated_names;
pub mod shipper;
pub mod spooling;
pub mod tailer;
pub mod tracker;
pub mod unpack;
pub mod walk;
pub mod watch;
