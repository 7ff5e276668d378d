//! Reads header files: what the books have not counted of them.

use super::fact::{Fact, HourKey};
use crate::file::headers::{self, Line};
use crate::file::past::tells_removed;
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
}

/// The end of a header file.
#[derive(Debug)]
pub struct Last {
    /// Hour of its last pack.
    pub key: HourKey,
    /// When that was received, in milliseconds since 1970.
    pub at_ms: i64,
    /// All that it had was removed since.
    pub is_removed: bool,
}

/// Reads a header file from byte `from` to byte `to` and gives what it says to `take`, in order. Returns whether all that it had was removed
/// in the end. Its packs count all the same: lines that come late are not all that the hour had.
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
        is_removed = tells_removed(line).unwrap_or(is_removed);
        match headers::parse_line(line) {
            Some(Line::Pack(header)) => facts.push(Fact::from_file(&header, zone, now_ms)),
            Some(Line::Replaced(_)) => {
                take(Said::Packs(&facts, lines.at));
                facts.clear();
                take(Said::Replaced);
            }
            _ => {}
        }
        if facts.len() >= FACTS_AT_ONCE {
            take(Said::Packs(&facts, lines.at));
            facts.clear();
        }
    }
    take(Said::Packs(&facts, to));
    Ok(is_removed)
}

/// The end of a header file; `None` when its last bytes do not tell.
pub fn last(file: &dyn DiskFile, to: u64, zone: &TimeZone) -> io::Result<Option<Last>> {
    let from = to.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(to - from).unwrap_or_default()];
    file.read_exact_at(&mut tail, from)?;
    let mut is_removed = None;
    let pack = tail.split(|byte| *byte == b'\n').rev().find_map(|line| {
        is_removed = is_removed.or_else(|| tells_removed(line));
        match headers::parse_line(line) {
            Some(Line::Pack(header)) => Some(header),
            _ => None,
        }
    });
    // A line without a readable time is as new as can be: it is not passed over.
    let fact = pack.map(|header| Fact::from_file(&header, zone, i64::MAX));
    Ok(fact.map(|Fact { key, at_ms, .. }| Last { key, at_ms, is_removed: is_removed == Some(true) }))
}
