//! Tests of the monitor: one program, since each would have to be built and linked with everything.

mod access;
mod alerts;
mod database_away;
mod databases;
mod forget;
mod hours;
mod intake;
mod kept_rows;
mod kills;
mod nodes;
mod older_errors;
mod openapi;
mod page;
mod program;
mod slow_database;
mod sqlite_trouble;
mod support;
mod takeover;
mod webhook_https;
