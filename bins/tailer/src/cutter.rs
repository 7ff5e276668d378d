//! Where a pack ends: after the last newline of what was read. Pure; the caller does the reading.
//!
//! A last line without its newline waits in the file. How far it was looked through is remembered, so that
//! a long line that is written in small pieces is not looked through again for each piece.

use memchr::{memchr, memchr_iter, memrchr};

/// How large packs get.
#[derive(Clone, Copy, Debug)]
pub struct CutLimits {
    /// Bytes of a pack of several lines.
    pub pack_bytes: usize,
    /// Length at which a line without an end is split.
    pub line_bytes: usize,
    /// Lines of a pack; 0: no limit.
    pub lines: u64,
}

impl CutLimits {
    /// Size of the buffer that holds any one pack.
    pub fn buffer_bytes(&self) -> usize {
        self.pack_bytes.max(self.line_bytes)
    }
}

/// Position in one stream. Stream offsets are file offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cutter {
    at: u64,
    scanned: u64,
}

/// Which bytes to read before [`Cutter::look`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// File offset to read from.
    pub offset: u64,
    /// Where the first of them goes in the buffer.
    pub start: usize,
    /// Where the last of them may end in the buffer.
    pub end: usize,
}

/// What a look at new bytes found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// No end of a line yet.
    Partial,
    /// A pack may be cut.
    Cut(Piece),
}

/// The bytes of one pack: `span` bytes from the start of the buffer, of which the first `unread` are known to hold
/// no newline and are still to be read from the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset in the stream.
    pub offset: u64,
    /// Length in bytes.
    pub span: usize,
    /// Bytes at the front of the buffer that were not read this time.
    pub unread: usize,
    /// Number of lines.
    pub lines: u64,
    /// A line longer than the limit was split.
    pub split: bool,
}

impl Cutter {
    /// Starts at `offset`.
    pub fn new(offset: u64) -> Cutter {
        Cutter { at: offset, scanned: 0 }
    }

    /// Offset of the first byte that is in no pack yet.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the unfinished line at [`Cutter::at`], as far as they were looked through.
    pub fn partial_bytes(&self) -> u64 {
        self.scanned
    }

    /// Offset up to which the file was looked through.
    pub fn seen_to(&self) -> u64 {
        self.at + self.scanned
    }

    /// Whether a pack can be cut without another byte: an unfinished line is over the limit.
    pub fn is_over(&self, limits: &CutLimits) -> bool {
        self.scanned >= limits.line_bytes as u64
    }

    /// What to read next. `bytes_wanted` is the wish for a pack, at most `pack_bytes`.
    pub fn window(&self, limits: &CutLimits, bytes_wanted: usize) -> Window {
        let start = (self.scanned as usize).min(limits.buffer_bytes());
        let wanted = bytes_wanted.min(limits.pack_bytes);
        let end = match start {
            start if start < wanted => wanted,
            start if start < limits.pack_bytes => limits.pack_bytes,
            _ => limits.buffer_bytes(),
        };
        Window { offset: self.at + start as u64, start, end }
    }

    /// Looks at `buffer[window.start..filled]`, which was just read, and moves on if a pack can be cut.
    pub fn look(&mut self, buffer: &[u8], window: Window, filled: usize, limits: &CutLimits) -> Look {
        let fresh = &buffer[window.start..filled];
        let long_line = window.start >= limits.pack_bytes;
        let newline = if long_line { memchr(b'\n', fresh) } else { memrchr(b'\n', fresh) };
        let Some(newline) = newline else {
            self.scanned = filled as u64;
            return self.split(limits);
        };
        let (end, lines) = self.limit_lines(fresh, newline, limits);
        let piece = Piece {
            offset: self.at,
            span: window.start + end + 1,
            unread: window.start,
            lines,
            split: false,
        };
        self.at += piece.span as u64;
        let nothing_more = end == newline && !long_line;
        self.scanned = if nothing_more { (filled - piece.span) as u64 } else { 0 };
        Look::Cut(piece)
    }

    /// Takes the unfinished line as it is, at the end of a file that will not grow any more. The caller has looked
    /// through all of the file before.
    pub fn flush(&mut self) -> Option<Piece> {
        let span = self.scanned as usize;
        if span == 0 {
            return None;
        }
        let piece = Piece { offset: self.at, span, unread: span, lines: 1, split: false };
        *self = Cutter::new(self.at + span as u64);
        Some(piece)
    }

    fn split(&mut self, limits: &CutLimits) -> Look {
        if self.scanned < limits.line_bytes as u64 {
            return Look::Partial;
        }
        let span = limits.line_bytes;
        let piece = Piece { offset: self.at, span, unread: span, lines: 0, split: true };
        self.at += span as u64;
        self.scanned -= span as u64;
        Look::Cut(piece)
    }

    /// Index of the newline to cut after, and the number of lines up to it.
    fn limit_lines(&self, fresh: &[u8], newline: usize, limits: &CutLimits) -> (usize, u64) {
        let lines = bytecount::count(&fresh[..=newline], b'\n') as u64;
        if limits.lines == 0 || lines <= limits.lines {
            return (newline, lines);
        }
        let last = memchr_iter(b'\n', fresh).nth(limits.lines as usize - 1).unwrap_or(newline);
        (last, limits.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file that grows, and the shell around the cutter as the follower has it.
    struct Shell {
        file: Vec<u8>,
        cutter: Cutter,
        limits: CutLimits,
        buffer: Vec<u8>,
        bytes_read: u64,
        packs: Vec<(Piece, Vec<u8>)>,
    }

    impl Shell {
        fn new(pack_bytes: usize, line_bytes: usize, lines: u64) -> Shell {
            let limits = CutLimits { pack_bytes, line_bytes, lines };
            let buffer = vec![0xAA; limits.buffer_bytes()];
            Shell { file: vec![], cutter: Cutter::new(0), limits, buffer, bytes_read: 0, packs: vec![] }
        }

        fn read(&mut self, offset: usize, start: usize, end: usize) -> usize {
            let available = self.file.len().saturating_sub(offset).min(end - start);
            self.buffer[start..start + available].copy_from_slice(&self.file[offset..offset + available]);
            self.bytes_read += available as u64;
            start + available
        }

        fn keep(&mut self, piece: Piece) {
            self.read(piece.offset as usize, 0, piece.unread);
            self.packs.push((piece, self.buffer[..piece.span].to_vec()));
        }

        fn drain(&mut self) {
            loop {
                let window = self.cutter.window(&self.limits, self.limits.pack_bytes);
                let filled = self.read(window.offset as usize, window.start, window.end);
                let before = self.cutter;
                match self.cutter.look(&self.buffer, window, filled, &self.limits) {
                    Look::Cut(piece) => self.keep(piece),
                    Look::Partial if self.cutter == before => return,
                    Look::Partial => {}
                }
            }
        }

        fn joined(&self) -> Vec<u8> {
            self.packs.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
        }
    }

    /// Bytes with newlines often enough to matter.
    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![4 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()];
        prop::collection::vec(prop::collection::vec(byte, 0..120), 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn packs_are_the_file_in_order_whole_lines_and_within_limits(
            pieces in pieces(), pack_bytes in 1usize..80, line_bytes in 1usize..80, lines in 0u64..5,
        ) {
            let mut shell = Shell::new(pack_bytes, line_bytes, lines);
            for piece in &pieces {
                shell.file.extend_from_slice(piece);
                shell.drain();
            }
            let all: Vec<u8> = pieces.concat();
            let joined = shell.joined();
            prop_assert_eq!(&joined[..], &all[..joined.len()]);
            prop_assert_eq!(shell.cutter.at(), joined.len() as u64);
            prop_assert!(!all[joined.len()..].contains(&b'\n'), "a whole line was left behind");
            prop_assert!(all.len() - joined.len() < line_bytes, "a line over the limit was left behind");
            for (piece, bytes) in &shell.packs {
                let newlines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                prop_assert_eq!(piece.lines, newlines);
                prop_assert!(piece.span <= pack_bytes.max(line_bytes));
                prop_assert!(lines == 0 || newlines <= lines);
                prop_assert!(piece.split || bytes.ends_with(b"\n"));
                prop_assert!(!piece.split || piece.span == line_bytes);
            }
        }
    }

    #[test]
    fn a_long_line_in_small_pieces_is_read_about_twice() {
        let mut shell = Shell::new(1 << 20, 1 << 20, 0);
        for _ in 0..3_000 {
            shell.file.extend_from_slice(&[b'x'; 100]);
            shell.drain();
        }
        shell.file.push(b'\n');
        shell.drain();
        assert_eq!(shell.packs.len(), 1);
        assert_eq!(shell.packs[0].0.lines, 1);
        assert!(shell.bytes_read <= 2 * 300_001, "{} bytes were read", shell.bytes_read);
    }

    #[test]
    fn an_unfinished_last_line_is_flushed_as_it_is() {
        let mut shell = Shell::new(64, 64, 0);
        shell.file = b"one\ntwo".to_vec();
        shell.drain();
        let piece = shell.cutter.flush().expect("there is a partial line");
        shell.keep(piece);
        assert_eq!(shell.joined(), b"one\ntwo");
        assert_eq!(shell.cutter.flush(), None);
    }
}
