//! Tests of the outputter: one program, since each would have to be built and linked with everything.
//! Tests that need a process of their own are beside it.

mod away;
mod backlog;
mod bad_files;
mod bad_input;
mod common;
mod etl;
mod exactly_once;
mod finish;
mod gap_hold;
mod hours;
mod old_hours;
mod order;
mod relay;
mod replace;
mod repull;
mod retention;
mod shelf;
mod told;
mod whole_hours;
