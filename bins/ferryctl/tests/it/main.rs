//! Tests of `ferryctl`: one program, since each would have to be built and linked with everything.

mod config_check;
mod etl;
mod migrate_config;
mod pack_inspect;
mod quarantine;
mod registry;
mod spool;
mod status;
mod support;
