//! Where the bodies of a log file stand, as its header file says, and how they stand in stream order.
//!
//! A log file that is put into stream order keeps its header file: [`in_stream_order`] says the same of the same lines each
//! time, so the lines before tell where the bodies are after.

use super::headers::{self, Finished, Line, Stored};
use super::journal::Lengths;
use super::walk::Lines;
use crate::hours::fact::HourKey;
use logferry_durable::DiskFile;
use logferry_pack::Header;
use std::collections::BTreeMap;
use std::io;

/// Stands for the packs of legacy nodes in a log file, each of which is a stream of its own. No stream of a file has this id.
const LEGACY_STREAM: u128 = u128::MAX;

/// A run of bytes of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in the log file.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// What they are the body of; `None`: they came from elsewhere.
    pub body: Option<SegmentBody>,
}

/// A body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentBody {
    /// Stream.
    pub stream: u128,
    /// Where in the stream; of a pack of a legacy node its number.
    pub offset: u64,
    /// crc32c of the bytes, where the pack has it.
    pub sum: Option<u32>,
}

/// What a header file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The bytes of the log file, all of them, in their order.
    pub segments: Vec<Segment>,
    /// Hours of the packs, those of finished and removed bytes, too, with their lines.
    pub hours: BTreeMap<HourKey, u64>,
    /// What became of bytes that are finished, oldest first.
    pub finished: Vec<Finished>,
}

impl Layout {
    /// Reads the committed part of a header file.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` for a line that is none, because nothing is known of what follows.
    pub fn read(headers: &dyn DiskFile, committed: Lengths) -> io::Result<Layout> {
        let mut layout = Layout::default();
        let mut stored = None;
        let mut lines = Lines::new(headers, 0, committed.headers);
        while let Some(line) = lines.next()? {
            match headers::parse_line(line) {
                Some(Line::Empty) => {}
                Some(Line::Pack(header)) => layout.push(&header, stored.take()),
                Some(Line::Stored(next)) => stored = Some(next),
                Some(Line::DataAt(at)) => layout.go_on_at(at),
                Some(Line::Finished(finished)) => layout.finish(finished),
                Some(Line::Replaced(_)) => layout = Layout::default(),
                None => {
                    return Err(bad(format!("a line before byte {} of the header file is none", lines.at)));
                }
            }
        }
        if lines.at != committed.headers {
            return Err(bad(format!("the header file ends at byte {} in the middle of a line", lines.at)));
        }
        layout.go_on_at(committed.data);
        Ok(layout)
    }

    /// Bytes of the log file.
    pub fn len(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.at + last.len)
    }

    /// Whether the log file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, header: &Header, stored: Option<Stored>) {
        let lines = self.hours.entry(HourKey::of(header)).or_default();
        *lines = lines.saturating_add(header.lines);
        let Some(ours) = &header.ours else { return };
        let (len, sum) =
            stored.map_or((ours.raw, ours.body_sum()), |stored| (stored.bytes, Some(stored.crc)));
        // Packs of a legacy node come in any order, and only their numbers tell it.
        let (stream, offset) = match ours.is_legacy() {
            true => (LEGACY_STREAM, header.id),
            false => (ours.identity.stream.0, ours.identity.offset),
        };
        let body = SegmentBody { stream, offset, sum };
        if len > 0 {
            self.segments.push(Segment { at: self.len(), len, body: Some(body) });
        }
    }

    /// Bytes from elsewhere reach up to `at`, or those behind it were taken away.
    fn go_on_at(&mut self, at: u64) {
        while let Some(last) = self.segments.pop_if(|last| last.at + last.len > at) {
            // What is left of a body that was cut is not that body any more.
            if last.at < at {
                self.segments.push(Segment { at: last.at, len: at - last.at, body: None });
            }
        }
        let len = self.len();
        if len < at {
            self.segments.push(Segment { at: len, len: at - len, body: None });
        }
    }

    fn finish(&mut self, finished: Finished) {
        self.go_on_at(finished.data);
        self.segments = match finished.next_at() {
            0 => Vec::new(),
            _ => moved_up(
                in_stream_order(&self.segments).unwrap_or_else(|| std::mem::take(&mut self.segments)),
            ),
        };
        self.finished.push(finished);
    }
}

/// The segments in stream order: the bodies of each stream take the places of the bodies of that stream, in the order of their
/// offsets, and all else stays between them. `None`: they are in order. Their `at` says where they are now.
pub fn in_stream_order(segments: &[Segment]) -> Option<Vec<Segment>> {
    let mut by_stream: BTreeMap<u128, Vec<(u64, usize)>> = BTreeMap::new();
    for (index, segment) in segments.iter().enumerate() {
        if let Some(body) = segment.body {
            by_stream.entry(body.stream).or_default().push((body.offset, index));
        }
    }
    let mut ordered = segments.to_vec();
    let mut is_changed = false;
    for bodies in by_stream.values().filter(|bodies| !bodies.is_sorted()) {
        let mut sorted = bodies.clone();
        sorted.sort_unstable();
        is_changed = true;
        for ((_, place), (_, index)) in bodies.iter().zip(&sorted) {
            ordered[*place] = segments[*index];
        }
    }
    is_changed.then_some(ordered)
}

/// The segments one behind the other.
fn moved_up(mut segments: Vec<Segment>) -> Vec<Segment> {
    let mut at = 0;
    for segment in &mut segments {
        segment.at = at;
        at += segment.len;
    }
    segments
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(at: u64, len: u64, stream: u128, offset: u64) -> Segment {
        Segment { at, len, body: Some(SegmentBody { stream, offset, sum: None }) }
    }

    #[test]
    fn bodies_take_the_places_of_their_stream_and_foreign_bytes_stay() {
        let foreign = Segment { at: 30, len: 5, body: None };
        let found = [body(0, 10, 1, 20), body(10, 20, 2, 0), foreign, body(35, 4, 1, 0), body(39, 16, 1, 4)];
        let ordered = in_stream_order(&found).unwrap();
        assert_eq!(ordered, [found[3], found[1], foreign, found[4], found[0]]);
        let moved = moved_up(ordered);
        assert_eq!(moved.iter().map(|segment| segment.at).collect::<Vec<_>>(), [0, 4, 24, 29, 45]);
        assert_eq!(in_stream_order(&moved), None);
    }

    #[test]
    fn packs_of_a_legacy_node_are_put_into_the_order_of_their_numbers() {
        let mut layout = Layout::default();
        let json = |id: u64| {
            format!(
                r#"{{"Route":[{{"ip":"10.0.0.7","hour":"2026112101","id":"{id}","lines":"1"}}],"PackLen":1}}"#
            )
        };
        for id in [3, 1, 2] {
            let Some(Line::Pack(mut header)) = headers::parse_line(json(id).as_bytes()) else {
                panic!("a header")
            };
            let body =
                logferry_pack::Compressor::new(logferry_pack::Codec::Zlib, 1).unwrap().compress(b"line\n");
            let mut pack = logferry_pack::Pack { header: (*header).clone(), body };
            pack.adopt(&logferry_pack::Limits::default()).unwrap();
            *header = pack.header;
            layout.push(&header, None);
        }
        let ordered = in_stream_order(&layout.segments).unwrap();
        assert_eq!(ordered.iter().map(|segment| segment.at).collect::<Vec<_>>(), [5, 10, 0]);
        assert_eq!(layout.hours.keys().map(HourKey::to_string).collect::<Vec<_>>(), ["10.0.0.7_2026112101"]);
    }

    #[test]
    fn bytes_that_were_taken_away_are_not_bodies_any_more() {
        let mut layout =
            Layout { segments: vec![body(0, 10, 1, 0), body(10, 10, 1, 10)], ..Layout::default() };
        layout.go_on_at(15);
        assert_eq!(layout.segments, [body(0, 10, 1, 0), Segment { at: 10, len: 5, body: None }]);
        layout.go_on_at(18);
        assert_eq!(layout.segments[2], Segment { at: 15, len: 3, body: None });
        layout.go_on_at(0);
        assert!(layout.is_empty());
    }
}
