//! Where a pack ends: after the last newline of what was read, or before the last line that begins an entry. Pure; the caller
//! does the reading.
//!
//! A last line without its newline waits in the file, and so does a last entry until the next one begins. How far they were looked
//! through is remembered, so that a long line that is written in small pieces is not looked through again for each piece.

use crate::encoding::{Newline, TextEncoding};
use crate::entries::{Entries, OpenEntry, Place};

/// An unfinished line up to this length is read again when there is more of it; a longer one only when its end is there.
const REREAD_BYTES_MAX: u64 = 4 << 10;

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

/// How the files of a source are cut.
#[derive(Clone, Debug)]
pub struct Cutting {
    limits: CutLimits,
    encoding: TextEncoding,
    entries: Option<Entries>,
    buffer_bytes: usize,
}

impl Cutting {
    /// Lines that end with the byte 0A, each on its own.
    pub fn of_lines(limits: CutLimits) -> Cutting {
        Cutting::new(limits, TextEncoding::Verbatim, None, limits.buffer_bytes())
    }

    /// `buffer_bytes` is the size of the buffer, at least [`Cutting::buffer_bytes_min`].
    pub fn new(
        limits: CutLimits,
        encoding: TextEncoding,
        entries: Option<Entries>,
        buffer_bytes: usize,
    ) -> Cutting {
        Cutting { limits, encoding, entries, buffer_bytes }
    }

    /// Size of the buffer that holds any one pack.
    pub fn buffer_bytes_min(limits: &CutLimits, entries: Option<&Entries>) -> usize {
        limits.buffer_bytes().max(entries.map_or(0, Entries::bytes_max))
    }

    /// Which lines belong together, if not each is on its own.
    pub fn entries(&self) -> Option<&Entries> {
        self.entries.as_ref()
    }

    /// What the bytes are.
    pub fn encoding(&self) -> TextEncoding {
        self.encoding
    }

    /// Length at which a line without an end is split.
    pub fn line_bytes(&self) -> usize {
        self.limits.line_bytes
    }
}

/// Position in one stream. Stream offsets are file offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cutter {
    at: u64,
    scanned: u64,
    /// The entry at `at`, as far as its lines are whole; within what was looked through.
    open: OpenEntry,
    /// The unfinished line behind it has its end by now.
    has_line_end: bool,
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
    /// The end of a line whose beginning is not in the buffer: read again.
    Again,
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
    /// Entries that were cut because they were longer than the limit.
    pub entries_cut: u64,
}

impl Cutter {
    /// Starts at `offset`.
    pub fn new(offset: u64) -> Cutter {
        Cutter { at: offset, scanned: 0, open: OpenEntry::default(), has_line_end: false }
    }

    /// Offset of the first byte that is in no pack yet.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the unfinished entry and line at [`Cutter::at`], as far as they were looked through.
    pub fn partial_bytes(&self) -> u64 {
        self.scanned
    }

    /// Bytes of whole lines that wait for the end of their entry.
    pub fn entry_bytes(&self) -> u64 {
        self.open.bytes as u64
    }

    /// Offset up to which the file was looked through.
    pub fn seen_to(&self) -> u64 {
        self.at + self.scanned
    }

    /// Whether a pack can be cut without another byte: an unfinished line is over the limit, or has its end.
    pub fn is_over(&self, cutting: &Cutting) -> bool {
        self.has_line_end || self.scanned >= cutting.limits.line_bytes as u64 && self.open.bytes == 0
    }

    /// What to read next. `bytes_wanted` is the wish for a pack, at most `pack_bytes`.
    pub fn window(&self, cutting: &Cutting, bytes_wanted: usize, big_endian_by_mark: bool) -> Window {
        let limits = &cutting.limits;
        let wanted = bytes_wanted.min(limits.pack_bytes) as u64;
        let end = match self.scanned {
            scanned if scanned < wanted => wanted as usize,
            scanned if scanned < limits.pack_bytes as u64 => limits.pack_bytes,
            _ => cutting.buffer_bytes,
        };
        let newline = cutting.encoding.newline(big_endian_by_mark);
        let scanned = newline.unit_start(self.seen_to()).max(self.at) - self.at;
        let open = self.open.bytes as u64;
        let is_near = self.scanned - open <= REREAD_BYTES_MAX;
        let start = if cutting.entries.is_some() && (is_near || self.has_line_end) { open } else { scanned };
        let start = (start as usize).min(cutting.buffer_bytes);
        Window { offset: self.at + start as u64, start, end }
    }

    /// Looks at `buffer[window.start..filled]`, which was just read, and moves on if a pack can be cut.
    pub fn look(
        &mut self,
        buffer: &[u8],
        window: Window,
        filled: usize,
        cutting: &Cutting,
        big_endian_by_mark: bool,
    ) -> Look {
        let fresh = &buffer[window.start..filled];
        if let Some(entries) = &cutting.entries {
            return self.look_for_entries(entries, fresh, window, cutting, big_endian_by_mark);
        }
        let limits = &cutting.limits;
        let newline = cutting.encoding.newline(big_endian_by_mark);
        let long_line = self.scanned >= limits.pack_bytes as u64;
        let end =
            if long_line { newline.first(fresh, window.offset) } else { newline.last(fresh, window.offset) };
        let Some(last) = end else {
            self.scanned = filled as u64;
            return self.split(limits);
        };
        let (end, lines) = limit_lines(fresh, window.offset, last, newline, limits);
        let piece = Piece {
            offset: self.at,
            span: window.start + end,
            unread: window.start,
            lines,
            split: false,
            entries_cut: 0,
        };
        self.at += piece.span as u64;
        let nothing_more = end == last && !long_line;
        self.scanned = if nothing_more { (filled - piece.span) as u64 } else { 0 };
        Look::Cut(piece)
    }

    /// Takes the unfinished entry and line as they are, at the end of a file that will not grow any more. The caller has looked
    /// through all of the file before.
    pub fn flush(&mut self) -> Option<Piece> {
        let span = self.scanned as usize;
        if span == 0 {
            return None;
        }
        let lines = self.open.lines + u64::from(span > self.open.bytes);
        let piece = Piece { offset: self.at, span, unread: span, lines, split: false, entries_cut: 0 };
        *self = Cutter::new(self.at + span as u64);
        Some(piece)
    }

    /// Takes the whole lines of the unfinished entry, which was silent for long enough.
    pub fn close_entry(&mut self) -> Option<Piece> {
        (self.open.bytes > 0).then(|| self.take(self.open, self.open.bytes, 0))
    }

    fn split(&mut self, limits: &CutLimits) -> Look {
        if self.scanned < limits.line_bytes as u64 {
            return Look::Partial;
        }
        let span = limits.line_bytes;
        let piece = Piece { offset: self.at, span, unread: span, lines: 0, split: true, entries_cut: 0 };
        self.at += span as u64;
        self.scanned -= span as u64;
        Look::Cut(piece)
    }

    /// `fresh` was read from the end of the open entry on, or from further behind in its unfinished last line.
    fn look_for_entries(
        &mut self,
        entries: &Entries,
        fresh: &[u8],
        window: Window,
        cutting: &Cutting,
        big_endian_by_mark: bool,
    ) -> Look {
        let newline = cutting.encoding.newline(big_endian_by_mark);
        self.has_line_end = false;
        if window.start > self.open.bytes {
            self.scanned = (window.start + fresh.len()) as u64;
            self.has_line_end = newline.first(fresh, window.offset).is_some();
            return if self.has_line_end { Look::Again } else { self.over(entries, &cutting.limits) };
        }
        let begun = self.open;
        let (mut at, mut lines, mut over) = (0, begun.lines, 0);
        // The last line that begins an entry: where it stands, how many lines and entries that were too long come before it.
        let mut last: Option<(usize, u64, u64)> = None;
        while let Some(length) = newline.first(&fresh[at..], window.offset + at as u64) {
            let line = &fresh[at..at + length];
            let place = entries.place(self.open, line, window.offset + at as u64, big_endian_by_mark);
            if place != Place::Within {
                over += u64::from(place == Place::Over);
                let is_full = begun.bytes + at > cutting.limits.pack_bytes
                    || cutting.limits.lines > 0 && lines > cutting.limits.lines;
                match last {
                    // What comes behind is looked at again with the next pack.
                    Some((end, lines, over)) if is_full => {
                        (self.open, self.scanned) = (OpenEntry { bytes: begun.bytes + end, lines }, 0);
                        return Look::Cut(self.take(self.open, window.start, over));
                    }
                    _ => last = Some((at, lines, over)),
                }
            }
            self.open = self.open.with(place, line);
            lines += 1;
            at += length;
        }
        self.scanned = (begun.bytes + fresh.len()) as u64;
        let Some((end, lines, over)) = last else { return self.over(entries, &cutting.limits) };
        let rest = self.open;
        let piece = self.take(OpenEntry { bytes: begun.bytes + end, lines }, window.start, over);
        self.open = rest;
        Look::Cut(piece)
    }

    /// Nothing begins another entry: perhaps this one is too long, or its first line.
    fn over(&mut self, entries: &Entries, limits: &CutLimits) -> Look {
        match self.open.bytes {
            0 => self.split(limits),
            _ if self.scanned >= entries.bytes_max() as u64 && self.scanned > self.open.bytes as u64 => {
                Look::Cut(self.take(self.open, self.open.bytes, 1))
            }
            _ => Look::Partial,
        }
    }

    /// Cuts off whole lines; `unread` of their bytes are not in the buffer.
    fn take(&mut self, lines: OpenEntry, unread: usize, entries_cut: u64) -> Piece {
        let span = lines.bytes;
        let unread = unread.min(span);
        let piece = Piece { offset: self.at, span, unread, lines: lines.lines, split: false, entries_cut };
        self.at += span as u64;
        self.scanned = self.scanned.saturating_sub(span as u64);
        (self.open, self.has_line_end) = (OpenEntry::default(), false);
        piece
    }
}

/// Index behind the newline to cut after, and the number of lines up to it.
fn limit_lines(fresh: &[u8], offset: u64, last: usize, newline: Newline, limits: &CutLimits) -> (usize, u64) {
    let lines = newline.count(&fresh[..last], offset);
    if limits.lines == 0 || lines <= limits.lines {
        return (last, lines);
    }
    (newline.nth(fresh, offset, limits.lines as usize - 1).unwrap_or(last), limits.lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceSettings;
    use proptest::prelude::*;

    /// A file that grows, and the shell around the cutter as the follower has it.
    struct Shell {
        file: Vec<u8>,
        cutter: Cutter,
        cutting: Cutting,
        buffer: Vec<u8>,
        bytes_read: u64,
        packs: Vec<(Piece, Vec<u8>)>,
    }

    impl Shell {
        fn new(pack_bytes: usize, line_bytes: usize, lines: u64) -> Shell {
            let limits = CutLimits { pack_bytes, line_bytes, lines };
            let buffer = vec![0xAA; limits.buffer_bytes()];
            let cutting = Cutting::of_lines(limits);
            Shell { file: vec![], cutter: Cutter::new(0), cutting, buffer, bytes_read: 0, packs: vec![] }
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
                let window = self.cutter.window(&self.cutting, self.cutting.limits.pack_bytes, false);
                let filled = self.read(window.offset as usize, window.start, window.end);
                let before = self.cutter;
                match self.cutter.look(&self.buffer, window, filled, &self.cutting, false) {
                    Look::Cut(piece) => self.keep(piece),
                    Look::Partial if self.cutter == before => return,
                    Look::Partial | Look::Again => {}
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

    /// Entries that begin with `#`, or `-` not to be a beginning; some lines long.
    fn entry_lines() -> impl Strategy<Value = Vec<String>> {
        let line = (
            prop::sample::select(&["#", "-", "-", ""][..]),
            0usize..30,
            prop::sample::select(&[1usize, 1, 1, 1, 7][..]),
        );
        prop::collection::vec(
            line.prop_map(|(mark, length, times)| format!("{mark}{}\n", "é".repeat(length * times))),
            0..40,
        )
    }

    fn multiline(bytes_max: usize, encoding: &str) -> SourceSettings {
        let mut settings =
            SourceSettings { name: "app".into(), encoding: encoding.into(), ..Default::default() };
        (settings.multiline.start, settings.multiline.max_bytes.0) = ("^#".into(), bytes_max as u64);
        settings
    }

    /// Where entries begin: at each line with a mark, and where the one before would be too long.
    fn model(lines: &[Vec<u8>], bytes_max: usize, is_first: impl Fn(&[u8]) -> bool) -> (Vec<usize>, u64) {
        let (mut starts, mut at, mut over) = (vec![0], 0, 0);
        for line in lines {
            let length = at - starts.last().expect("the first");
            let begins = is_first(line);
            if length > 0 && (begins || length + line.len() > bytes_max) {
                starts.push(at);
                over += u64::from(!begins);
            }
            at += line.len();
        }
        (starts, over)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn packs_end_where_entries_end_however_the_file_is_read(
            lines in entry_lines(), bytes_max in 10usize..400, pack_bytes in 10usize..400, lines_max in 0u64..6,
            reads in prop::collection::vec(1usize..200, 1..30), wide in any::<bool>(),
        ) {
            let encode = |line: &String| -> Vec<u8> {
                if wide { line.encode_utf16().flat_map(u16::to_be_bytes).collect() } else { line.clone().into_bytes() }
            };
            let lines: Vec<Vec<u8>> = lines.iter().map(encode).collect();
            let all = lines.concat();
            let (starts, over) = model(&lines, bytes_max, |line| line.starts_with(if wide { b"\0#" } else { b"#" }));
            // Longer than any line: what is split depends on how it is read.
            let limits = CutLimits { pack_bytes, line_bytes: 600, lines: lines_max };
            let settings = multiline(bytes_max, if wide { "utf-16be" } else { "utf-8" });
            let entries = Entries::new(&settings).expect("good").expect("entries");
            let encoding = crate::entries::encoding_of(&settings).expect("known");
            let buffer_bytes = Cutting::buffer_bytes_min(&limits, Some(&entries));
            let mut shell = Shell::new(pack_bytes, 600, lines_max);
            shell.cutting = Cutting::new(limits, encoding, Some(entries), buffer_bytes);
            shell.buffer = vec![0xAA; buffer_bytes];
            let mut reads = reads.into_iter().cycle();
            while shell.file.len() < all.len() {
                let more = reads.next().expect("endless").min(all.len() - shell.file.len());
                shell.file.extend_from_slice(&all[shell.file.len()..shell.file.len() + more]);
                shell.drain();
            }
            if let Some(piece) = shell.cutter.close_entry() {
                shell.keep(piece);
            }
            prop_assert_eq!(shell.cutter.partial_bytes(), 0);
            prop_assert_eq!(shell.joined(), all.clone());
            let mut cut = 0;
            let (rules, mut chosen) = (crate::body::BodyRules::new(&SourceSettings { exclude: vec!["^#ééé".into()], ..settings }, 600), Vec::new());
            let rules = rules.expect("good");
            for (piece, bytes) in &shell.packs {
                prop_assert!(starts.contains(&(piece.offset as usize)), "a pack begins within an entry");
                let inside = starts.iter().filter(|start| (piece.offset + 1..piece.offset + piece.span as u64).contains(&(**start as u64)));
                let first = inside.clone().next().map_or(piece.span, |start| start - piece.offset as usize);
                prop_assert!(piece.span <= pack_bytes || inside.count() == 0 || first > pack_bytes || piece.span - first <= buffer_bytes);
                let newlines = encoding.newline(false).count(bytes, piece.offset);
                prop_assert_eq!(piece.lines, newlines);
                cut += piece.entries_cut;
                let lead = crate::body::Lead { offset: piece.offset, ..Default::default() };
                chosen.extend(rules.body(bytes, lead).bytes.into_owned());
            }
            // An entry that is cut is counted where the rest of it is seen, or can be no other.
            prop_assert!(cut <= over + shell.packs.len() as u64);
            let ends = starts.iter().skip(1).copied().chain([all.len()]);
            let text = |bytes: &[u8]| encoding.text(bytes, 2, false).0.into_owned();
            let entries = starts.iter().zip(ends).map(|(start, end)| text(&all[*start..end]));
            let expected: Vec<u8> = entries.filter(|entry| !entry.starts_with("#ééé".as_bytes())).flatten().collect();
            prop_assert_eq!(String::from_utf8_lossy(&chosen), String::from_utf8_lossy(&expected));
        }

        #[test]
        fn wide_lines_are_cut_like_narrow_ones(
            lines in entry_lines(), reads in prop::collection::vec(1usize..200, 1..30), pack_bytes in 600usize..900,
        ) {
            let all: Vec<u8> = lines.concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
            let limits = CutLimits { pack_bytes, line_bytes: 600, lines: 0 };
            let encoding = crate::encoding::TextEncoding::of_label("utf-16le").expect("known");
            let mut shell = Shell::new(pack_bytes, 600, 0);
            shell.cutting = Cutting::new(limits, encoding, None, limits.buffer_bytes());
            let mut reads = reads.into_iter().cycle();
            while shell.file.len() < all.len() {
                let more = reads.next().expect("endless").min(all.len() - shell.file.len());
                shell.file.extend_from_slice(&all[shell.file.len()..shell.file.len() + more]);
                shell.drain();
            }
            prop_assert_eq!(shell.joined(), all);
            let counted: u64 = shell.packs.iter().map(|(piece, _)| piece.lines).sum();
            prop_assert_eq!(counted, lines.len() as u64);
        }
    }

    #[test]
    fn a_long_line_of_an_entry_in_small_pieces_is_read_about_twice() {
        let mut shell = Shell::new(1 << 20, 1 << 20, 0);
        let entries = Entries::new(&multiline(1 << 20, "utf-8")).expect("good");
        shell.cutting = Cutting::new(shell.cutting.limits, TextEncoding::Verbatim, entries, 1 << 20);
        shell.file = b"#first\n".to_vec();
        for _ in 0..3_000 {
            shell.file.extend_from_slice(&[b'x'; 100]);
            shell.drain();
        }
        shell.file.extend_from_slice(b"\n#next");
        shell.drain();
        assert_eq!((shell.packs.len(), shell.cutter.entry_bytes()), (0, 300_008));
        assert!(shell.bytes_read <= 3 * 300_100, "{} bytes were read", shell.bytes_read);
        let piece = shell.cutter.close_entry().expect("an entry");
        assert_eq!((piece.span, piece.lines, shell.cutter.partial_bytes()), (300_008, 2, 5));
    }
}
