//! Reads header files: what the books have not counted of them.

use super::fact::Fact;
use crate::file::headers::{self, Line, Place};
use crate::file::walk::Lines;
use jiff::tz::TimeZone;
use logferry_durable::DiskFile;
use std::io;

/// Packs that are read before they are counted.
const FACTS_AT_ONCE: usize = 1_024;
/// The last line of a header file is looked for in so many bytes at its end.
const TAIL_BYTES: u64 = 64 << 10;

/// What a part of a header file says.
#[derive(Debug)]
pub enum Said<'a> {
    /// These packs are in the log file; the byte of the header file up to which they reach.
    Packs(&'a [Fact], u64),
    /// The log file is another one since: what was said before counts no more.
    Replaced,
    /// The lines of the packs before were removed, because they were old.
    Removed,
}

/// Reads a header file from byte `from` to byte `to` and gives what it says to `take`, in order. Returns whether the last that it says is that
/// lines were removed.
pub fn read(
    file: &dyn DiskFile,
    (from, to): (u64, u64),
    zone: &TimeZone,
    now_ms: i64,
    mut take: impl FnMut(Said<'_>),
) -> io::Result<bool> {
    let mut lines = Lines::new(file, from, to);
    let (mut facts, mut is_removed) = (Vec::new(), false);
    while let Some(line) = lines.next()? {
        let said = match headers::parse_line(line) {
            Some(Line::Pack(header)) => {
                facts.push(Fact::from_file(&header, zone, now_ms));
                is_removed = false;
                None
            }
            Some(Line::Replaced(_)) => Some(Said::Replaced),
            Some(Line::Finished(finished)) if finished.place == Place::Removed => Some(Said::Removed),
            _ => None,
        };
        if let Some(said) = said {
            is_removed = matches!(said, Said::Removed);
            take(Said::Packs(&facts, lines.at));
            facts.clear();
            take(said);
        }
        if facts.len() >= FACTS_AT_ONCE {
            take(Said::Packs(&facts, lines.at));
            facts.clear();
        }
    }
    take(Said::Packs(&facts, to));
    Ok(is_removed)
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
