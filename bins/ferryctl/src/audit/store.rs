//! The store's side of an audit: the log file of an hour.

use super::host::Told;
use anyhow::Context;
use logferry_tailer::audit::{Line, Lines, Totals};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What a file is in sum; `None` when there is none.
pub(crate) fn totals(path: &Path) -> anyhow::Result<Option<Totals>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let mut totals = Totals::default();
    read(file, |line| totals.add(&line)).with_context(|| path.display().to_string())?;
    Ok(Some(totals))
}

/// Its lines.
pub(crate) fn lines(path: &Path) -> anyhow::Result<Vec<Told>> {
    let mut lines = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    read(file, |line| lines.push((line.offset, line.length, line.short_hash())))
        .with_context(|| path.display().to_string())?;
    Ok(lines)
}

fn read(mut file: File, mut line: impl FnMut(Line)) -> std::io::Result<()> {
    let mut lines = Lines::new(0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.feed(&buffer[..count], &mut line),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    lines.end(line);
    Ok(())
}
