//! The reject file of an hour: a JSON object for each line that failed, `{"line": 12, "reason": "…", "text": "…"}`.

use crate::hour::HourKey;
use crate::staging::{Aside, Staging};
use serde::Serialize;
use std::io;

/// Folder of the reject files, below that of all tables.
pub const DIR: &str = "etl_reject";
/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct Reject<'a> {
    line: u64,
    reason: &'a str,
    text: &'a str,
}

/// The reject file, made when the first line fails.
#[derive(Default)]
pub struct Rejects {
    aside: Option<Aside>,
    buffer: Vec<u8>,
    count: u64,
}

impl Rejects {
    /// Takes line number `line`, from 1.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn push(&mut self, staging: &mut Staging, line: u64, reason: &str, text: &str) -> io::Result<()> {
        self.count += 1;
        serde_json::to_writer(&mut self.buffer, &Reject { line, reason, text })?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES { self.flush(staging) } else { Ok(()) }
    }

    fn flush(&mut self, staging: &mut Staging) -> io::Result<()> {
        let aside = match self.aside.take() {
            Some(aside) => aside,
            None => staging.create()?,
        };
        aside.file.append(&[&self.buffer])?;
        self.buffer.clear();
        self.aside = Some(aside);
        Ok(())
    }

    /// Finishes the file, if there is one.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn finish(mut self, staging: &mut Staging, key: &HourKey) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.flush(staging)?;
        }
        match self.aside {
            Some(aside) => staging.finish(aside, format!("{DIR}/{}.ndjson", key.path()), self.count),
            None => Ok(()),
        }
    }
}
