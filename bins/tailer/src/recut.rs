//! How the files of a source are cut into packs, and what they say beside their bytes: for the follower, which reads what is new, and for
//! whoever reads it again.
//!
//! [`Recut`] gives the packs of a range that was shipped before, cut by the same [`Cutter`] in a buffer of the same size, so that the
//! [`BodyRules`] judge the same lines: a filter that is asked about a part of a line may say something else than about the whole.

use crate::body::{BodyRules, Lead, SplitLine};
use crate::config::{LongLines, PackSettings, SourceSettings, TailerConfig};
use crate::cutter::{CutLimits, Cutter, Cutting, Look, Piece};
use crate::encoding::{TextEncoding, has_big_endian_mark};
use crate::entries::{Entries, encoding_of};
use crate::files;
use std::fs::File;
use std::io;

/// How large packs get.
pub(crate) fn limits(pack: &PackSettings) -> CutLimits {
    CutLimits {
        pack_bytes: pack.max_bytes.0 as usize,
        line_bytes: pack.max_line.0 as usize,
        lines: pack.max_lines,
    }
}

/// Size of the buffers that hold any one pack of any source.
///
/// # Errors
/// A setting that cannot be understood, with its name.
pub(crate) fn buffer_bytes(sources: &[SourceSettings], limits: &CutLimits) -> Result<usize, String> {
    sources.iter().try_fold(limits.buffer_bytes(), |bytes, settings| {
        Ok(bytes.max(Cutting::buffer_bytes_min(limits, Entries::new(settings)?.as_ref())))
    })
}

/// How the files of a source are cut. `buffer_bytes` is the size of the buffers that they are read into.
///
/// # Errors
/// A setting that cannot be understood, with its name.
pub(crate) fn cutting(
    settings: &SourceSettings,
    limits: CutLimits,
    buffer_bytes: usize,
) -> Result<Cutting, String> {
    Ok(Cutting::new(limits, encoding_of(settings)?, Entries::new(settings)?, buffer_bytes))
}

/// Most bytes before a pack in which the beginning of its first line is looked for, when it is not known. A line that began before that is
/// shipped from there on.
const LINE_SOUGHT_BYTES_MAX: usize = 1 << 30;

/// Where the line begins that is split at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SplitAt {
    pub(crate) offset: u64,
    pub(crate) begin: u64,
}

impl SplitAt {
    /// After a pack that ends within a line.
    pub(crate) fn after(lead: &Lead, span: u64) -> SplitAt {
        SplitAt { offset: lead.offset + span, begin: lead.line.map_or(lead.offset, |line| line.begin) }
    }
}

/// What a file says of a pack that begins at `offset`, beside its bytes.
pub(crate) fn lead(
    file: &File,
    offset: u64,
    cutting: &Cutting,
    body: &BodyRules,
    long_lines: LongLines,
    split: Option<SplitAt>,
) -> io::Result<Lead> {
    let big_endian_by_mark = is_big_endian_by_mark(file, cutting.encoding())?;
    let newline = cutting.encoding().newline(big_endian_by_mark);
    let line_bytes_before = match long_lines {
        LongLines::Split => 0,
        LongLines::Drop => files::line_bytes_before(file, offset, cutting.line_bytes(), newline)?,
    };
    let lead = Lead { offset, line_bytes_before, big_endian_by_mark, ..Lead::default() };
    if !body.judges_split_lines() {
        return Ok(lead);
    }
    let begin = match split.filter(|split| split.offset == offset) {
        Some(split) => split.begin,
        None => offset - files::line_bytes_before(file, offset, LINE_SOUGHT_BYTES_MAX, newline)? as u64,
    };
    let is_judged = |begin: u64| -> io::Result<bool> {
        if offset - begin >= LINE_SOUGHT_BYTES_MAX as u64 {
            return Ok(true);
        }
        // No more than what stands before the pack: what comes behind may not have been there yet when it was cut.
        let mut bytes = vec![0; body.judged_bytes().min((offset - begin) as usize)];
        read_all(file, begin, &mut bytes)?;
        Ok(body.takes_line_that_begins(&bytes, begin, big_endian_by_mark))
    };
    let line = match begin < offset {
        true => Some(SplitLine { begin, is_taken: is_judged(begin)? }),
        false => None,
    };
    Ok(Lead { line, ..lead })
}

/// Whether a file has the byte order mark of big-endian UTF-16, where the encoding goes by it.
pub(crate) fn is_big_endian_by_mark(file: &File, encoding: TextEncoding) -> io::Result<bool> {
    if !encoding.is_by_mark() {
        return Ok(false);
    }
    let mut head = [0; 2];
    let filled = files::read_at(file, 0, &mut head)?;
    Ok(has_big_endian_mark(&head[..filled]))
}

/// All that decides which packs the bytes of a source make.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) cutting: Cutting,
    /// Count nothing.
    pub(crate) body: BodyRules,
    long_lines: LongLines,
}

impl Rules {
    /// Those of one of the sources of a configuration.
    ///
    /// # Errors
    /// A setting that cannot be understood, with its name.
    pub(crate) fn of(config: &TailerConfig, source: &SourceSettings) -> Result<Rules, String> {
        let limits = limits(&config.pack);
        Ok(Rules {
            cutting: cutting(source, limits, buffer_bytes(&config.source, &limits)?)?,
            body: BodyRules::new(source, limits.line_bytes)?.uncounted(),
            long_lines: source.long_lines,
        })
    }

    /// What a file says of a pack that begins at `offset`, beside its bytes.
    pub(crate) fn lead(&self, file: &File, offset: u64) -> io::Result<Lead> {
        self.lead_behind(file, offset, None)
    }

    fn lead_behind(&self, file: &File, offset: u64, split: Option<SplitAt>) -> io::Result<Lead> {
        lead(file, offset, &self.cutting, &self.body, self.long_lines, split)
    }
}

/// The packs of a range of a file, one after the other.
pub(crate) struct Recut<'a> {
    rules: &'a Rules,
    file: &'a File,
    to: u64,
    cutter: Cutter,
    big_endian_by_mark: bool,
    split: Option<SplitAt>,
}

impl<'a> Recut<'a> {
    /// From the byte at `from`, at which a line or a piece of one began when it was cut, up to `to`.
    pub(crate) fn new(rules: &'a Rules, file: &'a File, from: u64, to: u64) -> io::Result<Recut<'a>> {
        let big_endian_by_mark = is_big_endian_by_mark(file, rules.cutting.encoding())?;
        Ok(Recut { rules, file, to, cutter: Cutter::new(from), big_endian_by_mark, split: None })
    }

    /// The next pack: the first `span` bytes of the buffer.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub(crate) fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<(Piece, Lead)>> {
        let (cutting, big_endian) = (&self.rules.cutting, self.big_endian_by_mark);
        buffer.resize(cutting.buffer_bytes(), 0);
        while self.cutter.at() < self.to {
            let window = self.cutter.window(cutting, usize::MAX, big_endian);
            let left = usize::try_from(self.to.saturating_sub(window.offset)).unwrap_or(usize::MAX);
            let end = window.end.min(window.start.saturating_add(left));
            read_all(self.file, window.offset, &mut buffer[window.start..end])?;
            let before = self.cutter;
            let is_all = window.offset + (end - window.start) as u64 >= self.to;
            let piece = match self.cutter.look(buffer, window, end, cutting, big_endian) {
                Look::Cut(piece) => Some(piece),
                // What comes behind belongs to something else: it ended here.
                Look::Partial if is_all => self.cutter.flush(),
                // The buffer is full of whole lines.
                Look::Partial if self.cutter == before => self.cutter.close_entry(),
                Look::Partial | Look::Again => None,
            };
            if let Some(mut piece) = piece {
                read_all(self.file, piece.offset, &mut buffer[..piece.unread])?;
                self.cutter.end_with_a_character(&mut piece, buffer, cutting, big_endian);
                // What stands behind a part that was asked for may be the rest of its last line.
                let end = piece.offset + piece.span as u64;
                let unended = piece.unended && self.file.metadata()?.len() == end;
                let lead = self.rules.lead_behind(self.file, piece.offset, self.split)?;
                let lead = Lead { unended, ..lead };
                self.split = piece.split.then(|| SplitAt::after(&lead, piece.span as u64));
                return Ok(Some((piece, lead)));
            }
        }
        Ok(None)
    }
}

/// Fills the buffer from `offset` on.
pub(crate) fn read_all(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    if files::read_at(file, offset, buffer)? < buffer.len() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn rules(change: impl FnOnce(&mut SourceSettings), limits: CutLimits) -> Rules {
        let mut source = SourceSettings { name: "app".into(), ..Default::default() };
        change(&mut source);
        let buffer_bytes = buffer_bytes(std::slice::from_ref(&source), &limits).expect("good");
        Rules {
            cutting: cutting(&source, limits, buffer_bytes).expect("good"),
            body: BodyRules::new(&source, limits.line_bytes).expect("good"),
            long_lines: source.long_lines,
        }
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    /// Bodies of all packs of a range, put together, with the number of their lines.
    fn body(rules: &Rules, file: &File, from: u64, to: u64) -> (Vec<u8>, u64) {
        let mut recut = Recut::new(rules, file, from, to).expect("read");
        let (mut buffer, mut body, mut lines, mut at) = (Vec::new(), Vec::new(), 0, from);
        while let Some((piece, lead)) = recut.next(&mut buffer).expect("read") {
            assert_eq!((piece.offset, lead.offset), (at, at), "no byte is left out or told twice");
            at += piece.span as u64;
            let of_pack = rules.body.body(&buffer[..piece.span], lead);
            lines += of_pack.lines.unwrap_or(piece.lines);
            body.extend_from_slice(&of_pack.bytes);
        }
        assert_eq!(at, to);
        (body, lines)
    }

    const LIMITS: CutLimits = CutLimits { pack_bytes: 32, line_bytes: 48, lines: 0 };

    #[test]
    fn a_line_that_is_longer_than_a_pack_is_judged_as_a_whole() {
        let rules = rules(|s| s.include = vec!["needle$".into()], LIMITS);
        let long = format!("{}needle\n", "x".repeat(40));
        let text = format!("short\n{long}needle\nshort\n");
        let file = file_of(text.as_bytes());
        let (body, lines) = body(&rules, &file, 0, text.len() as u64);
        assert_eq!((String::from_utf8(body).expect("text"), lines), (format!("{long}needle\n"), 2));
    }

    #[test]
    fn a_line_that_is_split_is_judged_as_a_whole_by_its_first_part_wherever_one_begins_to_read() {
        for (first, taken) in [("needle", false), ("", true)] {
            let rules = rules(|s| s.exclude = vec!["needle".into()], LIMITS);
            let line = format!("{first}{}needle\n", "x".repeat(130));
            let text = format!("one\n{line}two\n");
            let file = file_of(text.as_bytes());
            let expected = if taken { text.clone() } else { "one\ntwo\n".to_owned() };
            let (all, _) = body(&rules, &file, 0, text.len() as u64);
            assert_eq!(String::from_utf8(all).expect("text"), expected);
            // From the second part on, as after a restart; and at its very end, where nothing but the newline is left.
            let end_of_line = 4 + line.len();
            for from in [4 + 48, 4 + 96, end_of_line - 1] {
                let (rest, _) = body(&rules, &file, from as u64, text.len() as u64);
                let expected = if taken { &text[from..] } else { "two\n" };
                assert_eq!(String::from_utf8(rest).expect("text"), expected, "from {from}");
            }
        }
    }

    #[test]
    fn what_follows_a_first_line_that_was_split_is_chosen_with_its_entry() {
        for (first, taken) in [("needle", true), ("", false)] {
            let change = |s: &mut SourceSettings| {
                s.include = vec!["needle".into()];
                s.multiline.start = "^#".into();
                s.multiline.max_bytes = logferry_node::config::ByteSize(64);
            };
            let rules = rules(change, LIMITS);
            let entry = format!("#{first}{}needle\n at\n", "x".repeat(130));
            let text = format!("{entry}# two\n# needle\n");
            let file = file_of(text.as_bytes());
            let expected = if taken { format!("{entry}# needle\n") } else { "# needle\n".to_owned() };
            let (all, _) = body(&rules, &file, 0, text.len() as u64);
            assert_eq!(String::from_utf8(all).expect("text"), expected);
        }
    }

    #[test]
    fn an_end_without_a_newline_gets_one_as_it_did_when_it_was_shipped() {
        let rules = rules(|_| (), LIMITS);
        assert_eq!(body(&rules, &file_of(b"one\ntwo"), 0, 7), (b"one\ntwo\n".to_vec(), 2));
        assert_eq!(body(&rules, &file_of(b"one\ntwo\nthree\n"), 4, 8), (b"two\n".to_vec(), 1));
    }

    #[test]
    fn an_entry_that_fills_the_buffer_is_a_pack() {
        let rules = rules(
            |s| {
                s.multiline.start = "^#".into();
                s.multiline.max_bytes = logferry_node::config::ByteSize(64);
            },
            CutLimits { pack_bytes: 32, line_bytes: 32, lines: 0 },
        );
        let text = format!("#{}\n#next\n", "line\n".repeat(13).trim_end().get(..62).expect("long"));
        assert_eq!(body(&rules, &file_of(text.as_bytes()), 0, text.len() as u64).0, text.as_bytes());
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let (rules, file) = (rules(|_| (), LIMITS), file_of(b"one\n"));
        assert!(Recut::new(&rules, &file, 0, 9).expect("open").next(&mut Vec::new()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Packs of any size that the follower makes: it sees a file in steps, and cuts with less than a full pack when it is throttled.
        #[test]
        fn what_the_follower_ships_in_steps_is_what_is_shipped_again(
            lengths in prop::collection::vec(prop_oneof![6 => 0usize..20, 1 => 30usize..130], 1..30),
            steps in prop::collection::vec((1usize..90, 8usize..64), 1..20),
            encoding in prop::sample::select(&["utf-8", "utf-16le"][..]),
            drop in any::<bool>(), chosen in any::<bool>(), entries in any::<bool>(),
        ) {
            // How long the entry is that a split line is the first of depends on when the file was looked at.
            let are_judged = chosen && !drop && entries;
            let length_max = if are_judged { 40 } else { usize::MAX };
            let text: String = lengths.iter().enumerate().map(|(number, length)| {
                let length = length.min(&length_max);
                let first = if number % 3 == 0 { "#" } else { "" };
                format!("{first}{}7{number}\n", "é".repeat(*length / 2))
            }).collect();
            let bytes: Vec<u8> = match encoding {
                "utf-8" => text.into_bytes(),
                _ => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            };
            let rules = rules(|s| {
                s.encoding = encoding.into();
                s.long_lines = if drop { LongLines::Drop } else { LongLines::Split };
                if chosen {
                    s.include = vec!["7.$".into()];
                }
                if entries {
                    s.multiline.start = "^#".into();
                    s.multiline.max_bytes = logferry_node::config::ByteSize(48);
                }
            }, LIMITS);
            let file = file_of(&bytes);
            let mut shipped = Vec::new();
            let mut buffer = vec![0; rules.cutting.buffer_bytes()];
            let (mut cutter, mut there, mut steps) = (Cutter::new(0), 0, steps.iter().cycle());
            loop {
                let (step, wanted) = *steps.next().expect("endless");
                there = (there + step).min(bytes.len());
                loop {
                    let window = cutter.window(&rules.cutting, wanted, false);
                    let left = there.saturating_sub(window.offset as usize);
                    let end = window.end.min(window.start + left);
                    read_all(&file, window.offset, &mut buffer[window.start..end]).expect("read");
                    let before = cutter;
                    let piece = match cutter.look(&buffer, window, end, &rules.cutting, false) {
                        Look::Cut(piece) => Some(piece),
                        Look::Partial if cutter == before && there == bytes.len() => cutter.flush(),
                        Look::Partial if cutter == before => break,
                        Look::Partial | Look::Again => None,
                    };
                    if let Some(mut piece) = piece {
                        read_all(&file, piece.offset, &mut buffer[..piece.unread]).expect("read");
                        cutter.end_with_a_character(&mut piece, &buffer, &rules.cutting, false);
                        let lead = rules.lead(&file, piece.offset).expect("read");
                        let lead = Lead { unended: piece.unended, ..lead };
                        shipped.extend_from_slice(&rules.body.body(&buffer[..piece.span], lead).bytes);
                    }
                    if cutter.at() == bytes.len() as u64 {
                        break;
                    }
                }
                if cutter.at() == bytes.len() as u64 {
                    break;
                }
            }
            let (again, _) = body(&rules, &file, 0, bytes.len() as u64);
            prop_assert_eq!(again.escape_ascii().to_string(), shipped.escape_ascii().to_string());
        }
    }
}
