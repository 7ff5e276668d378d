//! Makes tables of the lines of complete hours: a program turns each line into a [`Record`], the [lists](lists::Lists) say which are kept,
//! the [`Columns`](columns::Columns) what is written of them, and an hour's tables appear together or not at all.
//!
//! ```text
//! file ─ lines ─▶ program ─ record ─▶ lists ─▶ columns ─▶ tables, aside ─▶ publish
//!                    └────────── what fails ─────┴──────▶ rejects, aside ─┘
//! ```
//!
//! The nouns: a [`Cell`] is a value, a [`Record`] what a program made of a line, an [`HourKey`](hour::HourKey) names an hour of a
//! source of a host, a [`Job`](job::Job) makes the tables of one, the [`Store`](publish::Store) is the folder with the tables of all,
//! the [`Queue`](queue::Queue) holds the hours that wait.
//!
//! Not in here: connections, threads, the clock, and when an hour is complete.
//!
//! ```
//! use logferry_etl::cell::{Cell, ColumnType, Typed};
//!
//! let cell = Cell::Text("42".to_owned());
//! assert_eq!(ColumnType::Int.typed(cell), Ok(Typed::Int(42)));
//! assert!(ColumnType::Int.typed(Cell::Text("many".to_owned())).is_err());
//! ```

pub mod cell;
pub mod columns;
pub mod counts;
pub mod engine;
pub mod examples;
pub mod format;
pub mod hour;
pub mod input;
pub mod job;
pub mod lists;
pub mod partition;
#[cfg(feature = "vrl")]
pub mod plan;
pub mod program;
pub mod publish;
pub mod queue;
pub mod rejects;
pub mod staging;
pub mod tables;
#[cfg(feature = "vrl")]
mod vrl_program;

pub use cell::{Cell, Record};
