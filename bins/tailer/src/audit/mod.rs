//! Audit: what a host's files hold of an hour, line by line, to be compared with what the store holds.
//!
//! Both sides cut bytes into [`Line`]s by the same [`Lines`]; the [`Totals`] of two sides are equal when they have the same lines, in
//! whatever order (files of one source take turns in an hour's file). The host answers `GET /audit?source=S&hour=H` with
//! [`Row`]s, one JSON object a line, as it reads: it reads slowly, so that it does not disturb its host.

mod host;
mod lines;

pub(crate) use host::Auditor;
pub use lines::{Line, Lines, Totals};

use crate::repull::request::Problem;
use std::path::PathBuf;

/// Lines in one [`Row::Lines`].
pub const ROW_LINES_MAX: usize = 1_000;

/// A row of the answer.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// Bytes read so far; comes now and then.
    Progress(u64),
    /// The lines that follow are of this file. Offsets are those of the file.
    File {
        /// Path.
        path: PathBuf,
        /// First byte that counts.
        from: u64,
        /// Byte after the last.
        to: u64,
    },
    /// Lines, if they were asked for: offset, length, hash.
    Lines(Vec<(u64, u64, u64)>),
    /// The ends of the lines of the row before, where text is shipped that is longer or shorter than what stands in the file.
    Ends(Vec<u64>),
    /// What could not be read.
    Problem(Problem),
    /// The end. Without this row the answer is not whole.
    Total(Totals),
}
