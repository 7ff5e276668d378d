//! Packs against a model of the file, however it is read.

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
    let mut settings = SourceSettings { name: "app".into(), encoding: encoding.into(), ..Default::default() };
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

#[test]
fn an_entry_that_is_just_as_long_as_one_may_be_holds_up_nothing_behind_it() {
    let limits = CutLimits { pack_bytes: 100, line_bytes: 100, lines: 0 };
    let entries = Entries::new(&multiline(200, "utf-8")).expect("good");
    let buffer_bytes = Cutting::buffer_bytes_min(&limits, entries.as_ref());
    let mut shell = Shell::new(100, 100, 0);
    shell.cutting = Cutting::new(limits, TextEncoding::Verbatim, entries, buffer_bytes);
    shell.buffer = vec![0xAA; buffer_bytes];
    let line = |first: &str| format!("{first}{}\n", "x".repeat(99 - first.len())).into_bytes();
    let longest = [line("#1"), line(" more")].concat();
    assert_eq!(longest.len(), 200);
    for more in [longest.as_slice(), b"#2\n", b"#3\n"] {
        shell.file.extend_from_slice(more);
        shell.drain();
    }
    assert_eq!(shell.packs.iter().map(|(piece, _)| piece.span).collect::<Vec<_>>(), [200, 3]);
    assert_eq!(shell.cutter.entry_bytes(), 3);
}

#[test]
fn a_first_line_that_is_just_as_long_as_one_may_be_holds_up_nothing_behind_it() {
    let limits = CutLimits { pack_bytes: 100, line_bytes: 300, lines: 0 };
    let entries = Entries::new(&multiline(200, "utf-8")).expect("good");
    let buffer_bytes = Cutting::buffer_bytes_min(&limits, entries.as_ref());
    let mut shell = Shell::new(100, 300, 0);
    shell.cutting = Cutting::new(limits, TextEncoding::Verbatim, entries, buffer_bytes);
    shell.buffer = vec![0xAA; buffer_bytes];
    let longest = format!("#1{}\n", "x".repeat(297)).into_bytes();
    assert_eq!(longest.len(), 300);
    for more in [longest.as_slice(), b"#2\n", b"#3\n"] {
        shell.file.extend_from_slice(more);
        shell.drain();
    }
    assert_eq!(shell.packs.iter().map(|(piece, _)| piece.span).collect::<Vec<_>>(), [300, 3]);
    assert_eq!(shell.cutter.entry_bytes(), 3);
}
