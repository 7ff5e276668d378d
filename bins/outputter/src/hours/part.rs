//! What one file has of an hour: numbers of packs, and bytes of streams.

use super::book::STREAMS_MAX;
use super::fact::Fact;
use logferry_footprint::Ranges;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Runs of pack numbers that a book tells apart in one file. Packs come nearly in order; only a stranger goes beyond.
pub const ID_RUNS_MAX: usize = 4_096;
/// Byte ranges of a stream that are told apart.
pub const STREAM_RANGES_MAX: usize = 256;

/// What one file has of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Numbers of packs.
    pub ids: Ranges,
    /// Those of packs with bytes of a stream.
    pub ids_with_bytes: Ranges,
    /// Those of done packs without bytes.
    pub ids_of_done: Ranges,
    /// A pack with bytes had the number of another one, or of a done pack: numbers do not tell what is there. Another pack without bytes that
    /// has the number of one with bytes means nothing: tailers send it for a number of which they do not know whether its pack arrived.
    pub has_twice: bool,
    /// Number of packs, as the newest done pack says; 0: there was none.
    pub total: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the first pack was received, in milliseconds since 1970.
    pub first_ms: i64,
    /// When the last was.
    pub last_ms: i64,
    /// By stream.
    pub streams: BTreeMap<u128, StreamPart>,
    /// A repull has brought some of it.
    pub is_refilled: bool,
    /// There were too many runs of numbers: some that came are not in `ids`.
    pub is_scattered: bool,
    /// There were too many streams or ranges: `streams` does not have them all.
    pub has_more_ranges: bool,
    /// Which bytes of which streams it has was forgotten, to save memory: before anything that comes is judged, the file is to be read again.
    pub is_slim: bool,
}

/// What a file has of a stream in an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPart {
    /// Where shipping of the stream began.
    pub first: u64,
    /// Stream bytes.
    pub ranges: Ranges,
    /// Where the hour ends in the stream, as a done pack says.
    pub end: Option<u64>,
}

impl Part {
    /// A pack is in the file.
    pub fn add(&mut self, fact: &Fact) {
        self.first_ms = if self.last_ms == 0 { fact.at_ms } else { self.first_ms.min(fact.at_ms) };
        self.last_ms = self.last_ms.max(fact.at_ms);
        self.lines = self.lines.saturating_add(fact.lines);
        self.bytes = self.bytes.saturating_add(fact.bytes);
        self.add_range(fact);
        if !fact.is_numbered {
            self.is_refilled = true;
            return;
        }
        if fact.done {
            self.total = self.total.max(fact.id);
        }
        // A number of u64::MAX has no range; nobody counts that far.
        let end = fact.id.saturating_add(1);
        self.ids.insert(fact.id, end);
        if self.ids.list().len() > ID_RUNS_MAX {
            self.forget_last_run();
        }
        // Packs of legacy nodes are streams of their own, and only their numbers tell of them.
        let Some((identity, _)) = fact.range else { return };
        let ids = match identity.span {
            0 if fact.done => &mut self.ids_of_done,
            0 => return,
            _ => {
                self.has_twice |= self.ids_with_bytes.covers(fact.id, end);
                &mut self.ids_with_bytes
            }
        };
        if ids.list().len() < ID_RUNS_MAX {
            ids.insert(fact.id, end);
        }
    }

    /// Keeps the set bounded: the hour can no longer be told to be whole.
    fn forget_last_run(&mut self) {
        let mut runs = self.ids.list().to_vec();
        runs.pop();
        self.ids = Ranges::try_from(runs).unwrap_or_default();
        self.is_scattered = true;
    }

    /// Forgets which bytes of which streams it has.
    pub(super) fn slim(&mut self) {
        let Part { total, lines, bytes, first_ms, last_ms, .. } = *self;
        let ids = std::mem::take(&mut self.ids);
        let slim = Part { ids, total, lines, bytes, first_ms, last_ms, ..Part::default() };
        *self = Part { is_slim: true, ..slim };
    }

    fn add_range(&mut self, fact: &Fact) {
        let Some((identity, first)) = fact.range else { return };
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&identity.stream.0) {
            self.has_more_ranges = true;
            return;
        }
        let stream = self.streams.entry(identity.stream.0).or_default();
        stream.first = first;
        if fact.done {
            stream.end = stream.end.max(Some(identity.end()));
        }
        stream.ranges.insert(identity.offset, identity.end());
        if stream.ranges.list().len() > STREAM_RANGES_MAX {
            stream.forget_last_range();
            self.has_more_ranges = true;
        }
    }
}

impl StreamPart {
    fn forget_last_range(&mut self) {
        let mut ranges = self.ranges.list().to_vec();
        ranges.pop();
        self.ranges = Ranges::try_from(ranges).unwrap_or_default();
    }
}
