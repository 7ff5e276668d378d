//! Reads header files: what the books have not counted of them.

use super::fact::Fact;
use crate::file::headers::{self, Line};
use crate::file::walk::Lines;
use jiff::tz::TimeZone;
use logferry_durable::DiskFile;
use std::io;

/// Packs that are read before they are counted.
const FACTS_AT_ONCE: usize = 1_024;
/// The last line of a header file is looked for in so many bytes at its end.
const TAIL_BYTES: u64 = 64 << 10;

/// Reads the packs of a header file from byte `from` to byte `to` and gives them to `count` in order, with the byte up to which they
/// reach.
pub fn read(
    file: &dyn DiskFile,
    (from, to): (u64, u64),
    zone: &TimeZone,
    now_ms: i64,
    mut count: impl FnMut(&[Fact], u64),
) -> io::Result<()> {
    let mut lines = Lines::new(file, from, to);
    let mut facts = Vec::new();
    while let Some(line) = lines.next()? {
        if let Some(Line::Pack(header)) = headers::parse_line(line) {
            facts.push(Fact::from_file(&header, zone, now_ms));
        }
        if facts.len() >= FACTS_AT_ONCE {
            count(&facts, lines.at);
            facts.clear();
        }
    }
    count(&facts, to);
    Ok(())
}

/// When the last pack of a header file was received, in milliseconds since 1970; `None` when its end does not tell.
pub fn last_ms(file: &dyn DiskFile, to: u64, zone: &TimeZone) -> io::Result<Option<i64>> {
    let from = to.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(to - from).unwrap_or_default()];
    file.read_exact_at(&mut tail, from)?;
    let pack = tail.split(|byte| *byte == b'\n').rev().find_map(|line| match headers::parse_line(line) {
        Some(Line::Pack(header)) => Some(header),
        _ => None,
    });
    // A line without a readable time is as new as can be: it is not passed over.
    Ok(pack.map(|header| Fact::from_file(&header, zone, i64::MAX).at_ms))
}
