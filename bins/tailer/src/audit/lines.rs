//! Bytes to lines, lines to totals.

use memchr::memchr;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

/// A line, its newline included. What stands behind the last newline is one too, as if it had one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Offset of its first byte.
    pub offset: u64,
    /// Offset of the byte after its last.
    pub end: u64,
    /// Length in bytes: of its text, where that is not what the file holds.
    pub length: u64,
    /// xxh3-128 of it.
    pub hash: u128,
}

impl Line {
    /// The half of its hash that is told line by line.
    pub fn short_hash(&self) -> u64 {
        self.hash as u64
    }
}

/// Cuts a run of bytes, which comes in parts, into lines. Holds no bytes, so lines may be of any length.
pub struct Lines {
    hasher: Xxh3,
    offset: u64,
    end: u64,
    length: u64,
}

impl Lines {
    /// From the byte at `offset` on.
    pub fn new(offset: u64) -> Lines {
        Lines { hasher: Xxh3::new(), offset, end: offset, length: 0 }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(Line)) {
        let mut rest = bytes;
        while let Some(newline) = memchr(b'\n', rest) {
            let (end, after) = rest.split_at(newline + 1);
            self.end += end.len() as u64;
            self.add(end);
            line(self.take());
            rest = after;
        }
        self.end += rest.len() as u64;
        self.add(rest);
    }

    /// Takes the text of a line, or of a piece of one, that stands there. What was begun goes on with it, wherever that was.
    pub fn feed_text(&mut self, at: Range<u64>, text: &[u8], line: impl FnOnce(Line)) {
        if self.length == 0 {
            self.offset = at.start;
        }
        self.end = at.end;
        self.add(text);
        if text.ends_with(b"\n") {
            line(self.take());
        }
    }

    /// No more bytes come. A last line without an end was shipped with one.
    pub fn end(&mut self, line: impl FnOnce(Line)) {
        if self.length > 0 {
            self.add(b"\n");
            line(self.take());
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn take(&mut self) -> Line {
        let hash = self.hasher.digest128();
        let line = Line { offset: self.offset, end: self.end, length: self.length, hash };
        self.hasher.reset();
        self.offset = self.end;
        self.length = 0;
        line
    }
}

/// What lines are together, whatever their order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Number.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Sum of their hashes, modulo 2^128.
    pub sum: u128,
}

impl Totals {
    /// Counts a line.
    pub fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.bytes += line.length;
        self.sum = self.sum.wrapping_add(line.hash);
    }

    /// The sum as 32 hexadecimal digits.
    pub fn sum_text(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// As JSON: numbers, and the sum as hexadecimal digits.
#[derive(serde::Serialize, serde::Deserialize)]
struct Written {
    lines: u64,
    bytes: u64,
    sum: String,
}

impl serde::Serialize for Totals {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { lines: self.lines, bytes: self.bytes, sum: self.sum_text() }.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Totals {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Totals, D::Error> {
        let Written { lines, bytes, sum } = Written::deserialize(deserializer)?;
        let sum = u128::from_str_radix(&sum, 16).map_err(serde::de::Error::custom)?;
        Ok(Totals { lines, bytes, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> (Vec<(u64, u64)>, Totals) {
        let (mut cutter, mut found, mut totals) = (Lines::new(5), Vec::new(), Totals::default());
        let mut take = |line: Line| {
            found.push((line.offset, line.length));
            totals.add(&line);
        };
        parts.iter().for_each(|part| cutter.feed(part, &mut take));
        cutter.end(&mut take);
        (found, totals)
    }

    #[test]
    fn lines_are_the_same_however_their_bytes_come() {
        let whole = cut(&[b"one\n\ntwo\nrest"]);
        assert_eq!(whole.0, [(5, 4), (9, 1), (10, 4), (14, 5)]);
        assert_eq!(cut(&[b"on", b"e", b"\n\ntwo", b"\n", b"", b"rest"]), whole);
    }

    #[test]
    fn totals_do_not_depend_on_the_order_and_on_every_byte() {
        let totals = |bytes: &[u8]| cut(&[bytes]).1;
        assert_eq!(totals(b"a\nbb\nc\n"), totals(b"c\na\nbb\n"));
        for other in [&b"a\nbb\n"[..], b"a\nbb\nc\nc\n", b"a\nbB\nc\n", b"a\nbb\nC"] {
            assert_ne!(totals(b"a\nbb\nc\n"), totals(other));
        }
        let text = serde_json::to_string(&totals(b"a\n")).expect("JSON");
        assert_eq!(serde_json::from_str::<Totals>(&text).expect("read back"), totals(b"a\n"));
    }

    #[test]
    fn a_line_of_which_pieces_were_left_out_goes_on_and_says_where_it_begins_and_ends() {
        let (mut cutter, mut found) = (Lines::new(0), Vec::new());
        let mut take = |line: Line| found.push((line.offset, line.end, line.length));
        cutter.feed_text(0..4, b"a\n", &mut take);
        cutter.feed_text(4..8, b"bc", &mut take);
        cutter.feed_text(20..30, b"d\n", &mut take);
        cutter.feed_text(40..41, b"e", &mut take);
        cutter.end(&mut take);
        assert_eq!(found, [(0, 4, 2), (4, 30, 4), (40, 41, 2)]);
    }
}
