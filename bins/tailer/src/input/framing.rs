//! Bytes as they come, to whole lines. Pure.

/// Cuts a stream of bytes into lines of a greatest length.
#[derive(Debug)]
pub struct Framer {
    line_bytes_max: usize,
    /// The line that has no end yet, without the pieces that were split off.
    rest: Vec<u8>,
}

/// Whole lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Framed {
    /// The lines, each with its newline.
    pub bytes: Vec<u8>,
    /// How many of them ended; a split line counts once, with its last piece.
    pub lines: u64,
    /// How many times a line was split because it was too long.
    pub splits: u64,
}

impl Framed {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn end_piece(&mut self, piece: &mut Vec<u8>) {
        self.bytes.append(piece);
        self.bytes.push(b'\n');
    }
}

impl Framer {
    /// For lines of at most so many bytes, newline not counted.
    pub fn new(line_bytes_max: usize) -> Framer {
        Framer { line_bytes_max: line_bytes_max.max(1), rest: Vec::new() }
    }

    /// Takes bytes in; gives the lines that have their ends, and pieces of one that is too long.
    pub fn push(&mut self, mut bytes: &[u8]) -> Framed {
        let mut framed = Framed::default();
        while let Some(newline) = memchr::memchr(b'\n', bytes) {
            self.grow(&bytes[..newline], &mut framed);
            framed.end_piece(&mut self.rest);
            framed.lines += 1;
            bytes = &bytes[newline + 1..];
        }
        self.grow(bytes, &mut framed);
        framed
    }

    /// Ends the last line where it is.
    pub fn finish(&mut self) -> Framed {
        let mut framed = Framed::default();
        if !self.rest.is_empty() {
            framed.end_piece(&mut self.rest);
            framed.lines = 1;
        }
        framed
    }

    /// Whether no line is without an end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn grow(&mut self, mut part: &[u8], framed: &mut Framed) {
        while self.rest.len() + part.len() > self.line_bytes_max {
            let (piece, later) = part.split_at(self.line_bytes_max - self.rest.len());
            self.rest.extend_from_slice(piece);
            framed.end_piece(&mut self.rest);
            framed.splits += 1;
            part = later;
        }
        self.rest.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_keep_all_but_their_split() {
        let mut framer = Framer::new(4);
        assert_eq!(
            framer.push(b"ab\r\n\nabcd\nabcde"),
            Framed { bytes: b"ab\r\n\nabcd\nabcd\n".to_vec(), lines: 3, splits: 1 }
        );
        assert_eq!(framer.finish(), Framed { bytes: b"e\n".to_vec(), lines: 1, splits: 0 });
        assert!(framer.finish().is_empty() && framer.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn it_does_not_matter_how_bytes_are_cut_on_the_way(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'\r')], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..10),
            max in 1usize..12,
        ) {
            let mut whole = Framer::new(max);
            let mut expected = whole.push(&bytes);
            let end = whole.finish();
            expected.bytes.extend(end.bytes);
            let mut parts = Framer::new(max);
            let (mut found, mut at) = (Framed::default(), 0);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            for cut in cuts {
                let framed = parts.push(&bytes[at..cut]);
                found.bytes.extend(framed.bytes);
                found.lines += framed.lines;
                found.splits += framed.splits;
                at = cut;
            }
            found.bytes.extend(parts.finish().bytes);
            prop_assert_eq!(&found, &expected);
            prop_assert!(found.bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= max));
            let without = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != b'\n').copied().collect::<Vec<_>>();
            prop_assert_eq!(without(&found.bytes), without(&bytes));
        }
    }
}
