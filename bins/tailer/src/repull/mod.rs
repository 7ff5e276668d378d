//! Repull: ships again what a host's files hold of an hour, a file or a byte range, when somebody asks for it.
//!
//! Packs of a repull have `repull` in their headers, so that no tier drops them on the way and the store writes only what it
//! lacks. They are apart from what is being followed: no number of an hour, no frontier and no journal record is theirs. What is on its way
//! for the first time is left alone (only what the next tier has acknowledged is shipped again), and goes first.
//!
//! A *replacement* (`--replace`) ships a whole hour that is over as a stream of its own ([`logferry_pack::Place`]), which the store writes aside
//! and puts in the place of its own file when all of it is there.
//!
//! A [`Request`](request::Request) is taken by the [`Desk`](desk::Desk), which remembers it and its
//! [`Progress`](request::Progress) for as long as the process lives. The worker (a thread, one repull at a time) asks the
//! follower what it [knows](known::Known), [finds](find) the files, and ships them. A restart interrupts a repull: whoever asked is told, and
//! asks again, which sends nothing twice to the file.

pub mod client;
mod courier;
pub mod desk;
pub mod find;
pub mod http;
pub mod known;
mod replacement;
pub mod request;
mod worker;

pub(crate) use courier::Courier;
pub(crate) use worker::{Parts, Worker};

/// Tickets of repulls begin here. Above them, at 2^63, begin those of packs that are sent from the tailer's spool.
pub(crate) const TICKETS_FROM: u64 = 1 << 62;

/// Whether a ticket is that of a repull.
pub(crate) fn is_repull(ticket: u64) -> bool {
    ticket >> 62 == 1
}
