//! Tests of the tailer: one program, since each would have to be built and linked with everything.
//! Tests that need a process of their own are beside it.

mod choosing;
mod common;
mod compressed;
mod copies;
mod current;
mod docs;
mod exactly_once;
mod following;
mod held_back;
mod hours;
mod inputs;
mod interpreter;
mod legacy_state;
mod lost_bytes;
mod missed;
mod odd_files;
mod packed_replaced;
mod replaced;
mod rotation;
mod same_names;
mod spooling;
mod state_log;
mod throttle;
mod time_patterns;
mod two_sources;
