//! Header files: one line per pack, beside each log file, in the order of the bodies.
//!
//! | line | meaning |
//! |---|---|
//! | `{"Route":[…],"PackLen":N}` | the pack's header as it came, hops included; its decompressed body is the next `raw` bytes of the log file |
//! | … of a back-filled pack, parts of which were there | one such line for each part that was missing, as if it were a pack of its own, codec `none` |
//! | `{"Stored":{"Bytes":N,"Crc":C}}` | the body of the pack in the next line is stored as the next N bytes of the log file, compressed; C is their crc32c |
//! | `{"DataAt":N}` | the next body stands at byte N of the log file: bytes before it came from elsewhere, or were taken away |
//! | `{"Finished":{"Place":{"File":F},"Data":N,"Bytes":B,"Crc":C}}` | the N bytes of the log file are in the file F, which has B bytes now, with the crc32c C; the next body stands at byte 0 of a new log file |
//! | `{"Finished":{"Place":"Removed",…}}` | they were removed, and with them what was finished before, because they were old; the next body stands at byte 0 of a new log file |
//! | `{"Finished":{"Place":"LogFile",…}}` | they were put into stream order where they are (see `layout`); the next body stands at byte N |
//! | `{"Replaced":"STREAM"}` | the log file was replaced by another: what is told before this line counts no more. STREAM, 32 hex digits, names the replacement |
//! | empty | nothing |
//!
//! So a header file describes its log file on its own, and recovery can tell from the two what was written whole.

use bytes::Bytes;
use logferry_pack::{Decoded, Header, Limits, Pack, StreamId};
use serde::{Deserialize, Serialize};

/// A line of a header file.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A pack.
    Pack(Box<Header>),
    /// How the body of the pack in the next line is stored.
    Stored(Stored),
    /// The next body stands at this byte.
    DataAt(u64),
    /// What came before was put where it stays.
    Finished(Finished),
    /// The log file was put in the place of another by this replacement.
    Replaced(StreamId),
    /// Nothing.
    Empty,
}

/// A body in a log file that is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Stored {
    /// Bytes in the log file.
    pub bytes: u64,
    /// Their crc32c.
    pub crc: u32,
}

impl Stored {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Stored {
        Stored { bytes: bytes.len() as u64, crc: logferry_pack::crc32c(bytes) }
    }
}

/// What became of the bytes of a log file when it was finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Finished {
    /// Where they are now.
    pub place: Place,
    /// How many they were, in the log file.
    pub data: u64,
    /// Length of the file that they are in, with them; 0 when they were removed.
    pub bytes: u64,
    /// crc32c of that file, where it is another one than the log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc: Option<u32>,
}

/// Where the bytes of a finished log file are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Where they were, in stream order.
    LogFile,
    /// In another file, perhaps compressed: its path.
    File(String),
    /// Nowhere: they were old.
    Removed,
}

impl Finished {
    /// Byte of the log file at which the next body stands.
    pub fn next_at(&self) -> u64 {
        if self.place == Place::LogFile { self.data } else { 0 }
    }
}

/// Bytes of the length in front of an encoded header.
const LENGTH_BYTES: usize = 4;
/// What a line of [`Line::Stored`] begins with.
const STORED: &str = "{\"Stored\":";
/// What a line of [`Line::Finished`] begins with.
const FINISHED: &str = "{\"Finished\":";
/// What a line of [`Line::Replaced`] begins with.
const REPLACED: &str = "{\"Replaced\":\"";

/// Limits for lines: what was taken in may be read again, whatever the limits of the network are by now.
const ON_DISK: Limits =
    Limits { header_bytes_max: LINE_BYTES_MAX, pack_bytes_max: usize::MAX, raw_bytes_max: usize::MAX };

/// Longest line.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// The line for a pack, newline included.
pub fn pack_line(pack: &Pack) -> Vec<u8> {
    let encoded = pack.encode_header();
    let json = encoded.get(LENGTH_BYTES..).unwrap_or_default();
    let mut line = Vec::with_capacity(json.len() + 1);
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The line before that of a pack whose body is stored in another form.
pub fn stored_line(stored: Stored) -> Vec<u8> {
    let Stored { bytes, crc } = stored;
    format!("{STORED}{{\"Bytes\":{bytes},\"Crc\":{crc}}}}}\n").into_bytes()
}

/// The line that says where the next body stands. Begins with a newline, in case the last line has none.
pub fn data_at_line(data_at: u64) -> Vec<u8> {
    format!("\n{{\"DataAt\":{data_at}}}\n").into_bytes()
}

/// The line that says where the bytes are now. Begins with a newline, in case the last line has none.
pub fn finished_line(finished: &Finished) -> Vec<u8> {
    // Plain data into memory: JSON has no way to fail here.
    let json = serde_json::to_string(finished).unwrap_or_default();
    format!("\n{FINISHED}{json}}}\n").into_bytes()
}

/// The line that says that the log file is another one.
pub fn replaced_line(replacement: StreamId) -> Vec<u8> {
    format!("{REPLACED}{replacement}\"}}\n").into_bytes()
}

/// The line of a pack of a replacement as that of a pack of its true stream; `None` when it is no line of such a pack.
pub fn in_place(line: &[u8]) -> Option<(Header, logferry_pack::Place, Vec<u8>)> {
    let (header, body_len) = parse_pack(line)?;
    let place = header.place().ok().flatten()?;
    // Only its length is written.
    let body = Bytes::from(vec![0; body_len]);
    let line = pack_line(&Pack { header: header.in_place(place), body });
    Some((header, place, line))
}

/// Reads a line, newline not included; `None` when it is none of the known.
pub fn parse_line(line: &[u8]) -> Option<Line> {
    if line.is_empty() {
        return Some(Line::Empty);
    }
    if let Some(rest) = line.strip_prefix(b"{\"DataAt\":") {
        let digits = std::str::from_utf8(rest.strip_suffix(b"}")?).ok()?;
        return digits.parse().ok().map(Line::DataAt);
    }
    if let Some(rest) = line.strip_prefix(STORED.as_bytes()) {
        return serde_json::from_slice(rest.strip_suffix(b"}")?).ok().map(Line::Stored);
    }
    if let Some(rest) = line.strip_prefix(FINISHED.as_bytes()) {
        return serde_json::from_slice(rest.strip_suffix(b"}")?).ok().map(Line::Finished);
    }
    if let Some(rest) = line.strip_prefix(REPLACED.as_bytes()) {
        let digits = std::str::from_utf8(rest.strip_suffix(b"\"}")?).ok()?;
        return digits.parse().ok().map(Line::Replaced);
    }
    parse_pack(line).map(|(header, _)| Line::Pack(Box::new(header)))
}

/// The same of lines that say what became of the bytes before; `None` for all others.
pub fn parse_past(line: &[u8]) -> Option<Line> {
    let is_meant = line.starts_with(FINISHED.as_bytes()) || line.starts_with(REPLACED.as_bytes());
    if is_meant { parse_line(line) } else { None }
}

/// The header of a pack, and the length of its body as it was sent.
fn parse_pack(line: &[u8]) -> Option<(Header, usize)> {
    let mut encoded = Vec::with_capacity(LENGTH_BYTES + line.len());
    encoded.extend_from_slice(&padded_length(line.len())?);
    encoded.extend_from_slice(line);
    match logferry_pack::decode_header(&encoded, &ON_DISK) {
        Ok(Decoded::Header { header, body_at, pack_len }) => Some((header, pack_len - body_at)),
        _ => None,
    }
}

/// wire.md: LEB128 in its shortest form, least significant group first, padded with zeros.
fn padded_length(len: usize) -> Option<[u8; LENGTH_BYTES]> {
    let mut rest = u32::try_from(len).ok().filter(|len| *len < 1 << 28)?;
    let mut bytes = [0; LENGTH_BYTES];
    for byte in &mut bytes {
        let group = (rest & 0x7f) as u8;
        rest >>= 7;
        *byte = if rest > 0 { group | 0x80 } else { group };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        assert_eq!(padded_length(5), Some([5, 0, 0, 0]));
        assert_eq!(padded_length(300), Some([0xac, 2, 0, 0]));
        assert_eq!(padded_length((1 << 28) - 1), Some([0xff, 0xff, 0xff, 0x7f]));
        assert_eq!(padded_length(1 << 28), None);
    }

    #[test]
    fn marks_are_read_back_and_nonsense_is_not() {
        let mark = data_at_line(17);
        let lines: Vec<_> = mark.split(|byte| *byte == b'\n').map(parse_line).collect();
        assert_eq!(lines, [Some(Line::Empty), Some(Line::DataAt(17)), Some(Line::Empty)]);
        let stored = Stored::of(b"123456789");
        let line = stored_line(stored);
        assert_eq!(line, b"{\"Stored\":{\"Bytes\":9,\"Crc\":3808858755}}\n");
        assert_eq!(parse_line(line.trim_ascii_end()), Some(Line::Stored(stored)));
        for crc in [None, Some(5)] {
            let place = Place::File("/done/a \"b\"\n.gz".into());
            let finished = Finished { place, data: 17, bytes: 9, crc };
            let mark = finished_line(&finished);
            let lines: Vec<_> = mark.split(|byte| *byte == b'\n').map(parse_line).collect();
            assert_eq!(lines, [Some(Line::Empty), Some(Line::Finished(finished)), Some(Line::Empty)]);
        }
        let replaced = replaced_line(StreamId(7));
        assert_eq!(parse_line(&replaced[..replaced.len() - 1]), Some(Line::Replaced(StreamId(7))));
        for bad in [
            &b"{\"DataAt\":-1}"[..],
            b"{\"Finished\":{\"Place\":\"Removed\",\"Data\":1}}",
            b"{\"Finished\":{}",
            b"{\"Replaced\":\"7\"}",
            b"{\"DataAt\":1",
            b"{\"DataAt\":}",
            b"{",
            b"\0\0",
            b"{\"Route\":[]}",
        ] {
            assert_eq!(parse_line(bad), None, "{bad:?}");
        }
    }
}
