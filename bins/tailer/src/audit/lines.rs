//! Bytes to lines, lines to totals.

use memchr::memchr;
use xxhash_rust::xxh3::Xxh3;

/// A line, its newline included. What stands behind the last newline is one too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// Offset of its first byte.
    pub offset: u64,
    /// Length in bytes.
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
    length: u64,
}

impl Lines {
    /// From the byte at `offset` on.
    pub fn new(offset: u64) -> Lines {
        Lines { hasher: Xxh3::new(), offset, length: 0 }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(Line)) {
        let mut rest = bytes;
        while let Some(newline) = memchr(b'\n', rest) {
            let (end, after) = rest.split_at(newline + 1);
            self.add(end);
            line(self.take());
            rest = after;
        }
        self.add(rest);
    }

    /// Passes over bytes that do not count; a line that was begun ends before them.
    pub fn skip(&mut self, bytes: u64, line: impl FnOnce(Line)) {
        self.end(line);
        self.offset += bytes;
    }

    /// No more bytes come.
    pub fn end(&mut self, line: impl FnOnce(Line)) {
        if self.length > 0 {
            line(self.take());
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn take(&mut self) -> Line {
        let line = Line { offset: self.offset, length: self.length, hash: self.hasher.digest128() };
        self.hasher.reset();
        self.offset += self.length;
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
        assert_eq!(whole.0, [(5, 4), (9, 1), (10, 4), (14, 4)]);
        assert_eq!(cut(&[b"on", b"e", b"\n\ntwo", b"\n", b"", b"rest"]), whole);
    }

    #[test]
    fn totals_do_not_depend_on_the_order_and_on_every_byte() {
        let totals = |bytes: &[u8]| cut(&[bytes]).1;
        assert_eq!(totals(b"a\nbb\nc\n"), totals(b"c\na\nbb\n"));
        for other in [&b"a\nbb\n"[..], b"a\nbb\nc\nc\n", b"a\nbB\nc\n", b"a\nbb\nc"] {
            assert_ne!(totals(b"a\nbb\nc\n"), totals(other));
        }
        let text = serde_json::to_string(&totals(b"a\n")).expect("JSON");
        assert_eq!(serde_json::from_str::<Totals>(&text).expect("read back"), totals(b"a\n"));
    }

    #[test]
    fn what_is_passed_over_moves_the_offset_of_the_next_line() {
        let (mut cutter, mut found) = (Lines::new(0), Vec::new());
        cutter.feed(b"a\nb", |line| found.push((line.offset, line.length)));
        cutter.skip(10, |line| found.push((line.offset, line.length)));
        cutter.feed(b"c\n", |line| found.push((line.offset, line.length)));
        assert_eq!(found, [(0, 2), (2, 1), (13, 2)]);
    }
}
