//! The two ends of a connection as state machines without I/O: frames and the time go in, frames to write and news come out.

mod arrival;
mod receiving;
mod sending;

pub(crate) use arrival::{Arrival, MEMORY_WAIT_MAX};
pub use receiving::{ReceiverAction, ReceiverSession, ReceiverTimes, Refusal};
pub use sending::{Broken, SenderAction, SenderSession, SenderTimes};
