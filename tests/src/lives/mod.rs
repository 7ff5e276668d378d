//! Random lives of log files, each with a tailer of its own: an interpreter of actions ([`Life`]) does to files, program, clock and
//! connection what hosts do to them, and a model of what was written ([`content`]) says what must arrive. Several lives share a
//! collector and an outputter that are killed meanwhile ([`tiers::Tiers`]).

mod actions;
pub mod content;
mod life;
mod losses;
pub mod shape;
pub mod tiers;
mod verify;

pub use life::{HOUR_LENGTH, Kind, Life};
