//! What turns a line into a record.

use crate::cell::Record;
use crate::hour::HourKey;

/// A line, and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Without its newline.
    pub text: &'a str,
    /// In the hour, from 1.
    pub number: u64,
    /// Where it begins in the lines of the hour, in bytes.
    pub offset: u64,
    /// Its hour.
    pub key: &'a HourKey,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A record.
    Record(Record),
    /// The program does not want it.
    Dropped,
    /// The program failed, with the reason.
    Rejected(String),
}

/// A program for lines. Real ones are written in VRL; tests have their own.
pub trait LineProgram: Send {
    /// Runs it on a line.
    fn run(&mut self, line: Line<'_>) -> Outcome;
}
