//! What a done pack says of its hour beside the number of packs: which bytes of which streams the hour has. Packs that are shipped again
//! are cut and numbered otherwise; the bytes are the same.
//!
//! The key is `hour_ranges` of `Route[0]`: `STREAM:FROM-TO` for each range, with commas between; the stream as 32 hex digits, the offset of its
//! first byte and of the one after its last. It is not there when there are more than [`HOUR_RANGES_MAX`].

use crate::header::decimal;
use crate::{Header, StreamId};
use serde_json::Value;

const KEY: &str = "hour_ranges";

/// Most ranges in a header: they take less than a third of what a header may have.
pub const HOUR_RANGES_MAX: usize = 256;

/// Bytes of a stream in an hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HourRange {
    /// Stream.
    pub stream: StreamId,
    /// First byte.
    pub from: u64,
    /// Byte after the last.
    pub to: u64,
}

impl Header {
    /// The bytes of the hour; `None` when the pack does not say, or not in this way.
    pub fn hour_ranges(&self) -> Option<Vec<HourRange>> {
        let text = self.origin_rest.get(KEY).and_then(Value::as_str).filter(|_| self.done)?;
        let ranges: Option<Vec<HourRange>> = text.split(',').take(HOUR_RANGES_MAX + 1).map(parse).collect();
        ranges.filter(|ranges| ranges.len() <= HOUR_RANGES_MAX)
    }

    /// Says which bytes the hour has; nothing when there are none, or too many ranges.
    pub fn set_hour_ranges(&mut self, ranges: &[HourRange]) {
        if ranges.is_empty() || ranges.len() > HOUR_RANGES_MAX {
            return;
        }
        let texts: Vec<String> =
            ranges.iter().map(|HourRange { stream, from, to }| format!("{stream}:{from}-{to}")).collect();
        self.origin_rest.insert(KEY.to_owned(), texts.join(",").into());
    }
}

fn parse(text: &str) -> Option<HourRange> {
    let (stream, range) = text.split_once(':')?;
    let (from, to) = range.split_once('-')?;
    let number = |text| decimal(KEY, text).ok();
    let range = HourRange { stream: stream.parse().ok()?, from: number(from)?, to: number(to)? };
    (range.from < range.to).then_some(range)
}
