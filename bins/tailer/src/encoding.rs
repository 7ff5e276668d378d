//! Encodings of log files: where their lines end, and their text in UTF-8.
//!
//! Only encodings that can be read from any line on are known: one with a state that goes on over newlines would need all of the
//! file before a pack to read the pack.

use encoding_rs::{DecoderResult, Encoding, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};
use memchr::{memchr, memchr_iter, memrchr_iter};
use std::borrow::Cow;

/// Bytes that are decoded at a time where only errors are looked for.
const PROBE_BYTES: usize = 4 << 10;
/// The longest run of bytes that is one character in any encoding.
const CHARACTER_BYTES_MAX: usize = 4;

/// What `encoding` of a source says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextEncoding {
    /// Bytes are shipped as they are.
    Verbatim,
    /// They are transcoded.
    From(&'static Encoding),
    /// They are UTF-16, and the byte order mark at the start of the file says which; little-endian without one.
    Utf16ByMark,
}

/// What ends a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Newline {
    /// The byte 0A.
    #[default]
    Byte,
    /// The code unit 000A at an even offset of the file.
    Wide {
        /// Byte order.
        big_endian: bool,
    },
}

impl TextEncoding {
    /// The encoding that a label of the Encoding Standard, or one of ours ("utf-16" looks for a byte order mark), names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_label(label: &str) -> Result<TextEncoding, String> {
        if label.eq_ignore_ascii_case("utf-16") {
            return Ok(TextEncoding::Utf16ByMark);
        }
        match Encoding::for_label(label.as_bytes()) {
            Some(encoding) if encoding == UTF_8 => Ok(TextEncoding::Verbatim),
            Some(encoding) if encoding == ISO_2022_JP || encoding == REPLACEMENT => Err(format!(
                "\"{label}\" cannot be read from the middle of a file: what its bytes mean depends on all before them"
            )),
            Some(encoding) => Ok(TextEncoding::From(encoding)),
            None => Err(format!(
                "\"{label}\" is not known, expected a label of the Encoding Standard such as \"utf-8\", \"utf-16\", \"utf-16le\", \
                 \"latin1\", \"windows-1252\" or \"gbk\""
            )),
        }
    }

    /// Whether a file's byte order mark decides.
    pub fn is_by_mark(self) -> bool {
        self == TextEncoding::Utf16ByMark
    }

    /// What ends a line of a file that is big-endian by its mark, or not.
    pub fn newline(self, big_endian_by_mark: bool) -> Newline {
        match self.resolved(big_endian_by_mark) {
            Some(encoding) if encoding == UTF_16LE => Newline::Wide { big_endian: false },
            Some(encoding) if encoding == UTF_16BE => Newline::Wide { big_endian: true },
            _ => Newline::Byte,
        }
    }

    fn resolved(self, big_endian_by_mark: bool) -> Option<&'static Encoding> {
        match self {
            TextEncoding::Verbatim => None,
            TextEncoding::From(encoding) => Some(encoding),
            TextEncoding::Utf16ByMark if big_endian_by_mark => Some(UTF_16BE),
            TextEncoding::Utf16ByMark => Some(UTF_16LE),
        }
    }

    /// The text of a piece of whole characters that begins at `offset` of its file, without the byte order mark, and how
    /// many invalid sequences became U+FFFD.
    pub fn text(self, bytes: &[u8], offset: u64, big_endian_by_mark: bool) -> (Cow<'_, [u8]>, u64) {
        let Some(encoding) = self.resolved(big_endian_by_mark) else { return (bytes.into(), 0) };
        if encoding.is_ascii_compatible() && Encoding::ascii_valid_up_to(bytes) == bytes.len() {
            return (bytes.into(), 0);
        }
        let mut text = Vec::with_capacity(bytes.len() + bytes.len() / 2);
        let replaced = append_text(encoding, without_mark(encoding, bytes, offset), &mut text);
        (text.into(), replaced)
    }

    /// Length of the longest beginning of `bytes` that does not end within a character; all of them where that would be nothing.
    pub fn whole_characters(self, bytes: &[u8], big_endian_by_mark: bool) -> usize {
        let Some(encoding) = self.resolved(big_endian_by_mark) else { return bytes.len() };
        if encoding.is_single_byte() {
            return bytes.len();
        }
        let shortest = bytes.len().saturating_sub(CHARACTER_BYTES_MAX);
        let mut lengths = (shortest + 1..=bytes.len()).rev();
        lengths.find(|length| !ends_within(encoding, &bytes[..*length])).unwrap_or(bytes.len())
    }
}

/// Whether the file that begins so is UTF-16, big-endian.
pub fn has_big_endian_mark(head: &[u8]) -> bool {
    head.starts_with(&[0xFE, 0xFF])
}

fn without_mark<'a>(encoding: &'static Encoding, bytes: &'a [u8], offset: u64) -> &'a [u8] {
    let mark: &[u8] = match encoding {
        _ if offset > 0 => return bytes,
        encoding if encoding == UTF_16LE => &[0xFF, 0xFE],
        encoding if encoding == UTF_16BE => &[0xFE, 0xFF],
        _ => return bytes,
    };
    bytes.strip_prefix(mark).unwrap_or(bytes)
}

fn append_text(encoding: &'static Encoding, mut bytes: &[u8], text: &mut Vec<u8>) -> u64 {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut replaced = 0;
    loop {
        let at = text.len();
        let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len());
        text.resize(at + room.max(PROBE_BYTES), 0);
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(bytes, &mut text[at..], true);
        text.truncate(at + written);
        bytes = &bytes[read..];
        match result {
            DecoderResult::InputEmpty => return replaced,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                replaced += 1;
                text.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
}

fn ends_within(encoding: &'static Encoding, mut bytes: &[u8]) -> bool {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut scratch = [0; PROBE_BYTES];
    loop {
        let (result, read, _) = decoder.decode_to_utf8_without_replacement(bytes, &mut scratch, false);
        bytes = &bytes[read..];
        if result == DecoderResult::InputEmpty {
            break;
        }
    }
    let (result, ..) = decoder.decode_to_utf8_without_replacement(b"", &mut scratch, true);
    matches!(result, DecoderResult::Malformed(..))
}

impl Newline {
    /// Index behind the first newline of `bytes`, which stand at `offset` of their file.
    pub fn first(self, bytes: &[u8], offset: u64) -> Option<usize> {
        match self {
            Newline::Byte => memchr(b'\n', bytes).map(|at| at + 1),
            Newline::Wide { .. } => memchr_iter(b'\n', bytes).find_map(|at| self.end_of(bytes, offset, at)),
        }
    }

    /// Index behind the last one.
    pub fn last(self, bytes: &[u8], offset: u64) -> Option<usize> {
        match self {
            Newline::Byte => memchr::memrchr(b'\n', bytes).map(|at| at + 1),
            Newline::Wide { .. } => memrchr_iter(b'\n', bytes).find_map(|at| self.end_of(bytes, offset, at)),
        }
    }

    /// Number of newlines.
    pub fn count(self, bytes: &[u8], offset: u64) -> u64 {
        match self {
            Newline::Byte => bytecount::count(bytes, b'\n') as u64,
            Newline::Wide { .. } => memchr_iter(b'\n', bytes)
                .filter(|at| self.end_of(bytes, offset, *at).is_some())
                .count() as u64,
        }
    }

    /// Index behind the newline with this number, from 0.
    pub fn nth(self, bytes: &[u8], offset: u64, number: usize) -> Option<usize> {
        memchr_iter(b'\n', bytes).filter_map(|at| self.end_of(bytes, offset, at)).nth(number)
    }

    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Newline::Byte => 1,
            Newline::Wide { .. } => 2,
        }
    }

    /// The largest offset up to this one at which a newline may begin.
    pub fn unit_start(self, offset: u64) -> u64 {
        match self {
            Newline::Byte => offset,
            Newline::Wide { .. } => offset & !1,
        }
    }

    /// Index behind the newline of which the byte 0A stands at index `at`.
    fn end_of(self, bytes: &[u8], offset: u64, at: usize) -> Option<usize> {
        let is_even = (offset + at as u64).is_multiple_of(2);
        match self {
            Newline::Byte => Some(at + 1),
            Newline::Wide { big_endian: false } => {
                (is_even && bytes.get(at + 1) == Some(&0)).then_some(at + 2)
            }
            Newline::Wide { big_endian: true } => {
                (!is_even && at > 0 && bytes[at - 1] == 0).then_some(at + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LABELS: [&str; 11] = [
        "utf-16le",
        "utf-16be",
        "latin1",
        "gbk",
        "gb18030",
        "big5",
        "shift_jis",
        "euc-jp",
        "euc-kr",
        "koi8-r",
        "x-user-defined",
    ];

    fn text_of(encoding: TextEncoding, bytes: &[u8], offset: u64) -> (Vec<u8>, u64) {
        let (text, replaced) = encoding.text(bytes, offset, false);
        (text.into_owned(), replaced)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Any bytes: most of them are invalid.
        #[test]
        fn the_text_of_the_lines_is_the_text_of_the_whole_and_at_most_three_times_as_long(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&[0, 10, 32, 0x81, 0xD8][..])], 0..200),
            label in prop::sample::select(&LABELS[..]),
        ) {
            let encoding = TextEncoding::of_label(label).expect("known");
            let newline = encoding.newline(false);
            let whole = text_of(encoding, &bytes, 2);
            let (mut pieces, mut replaced, mut at) = (Vec::new(), 0, 0);
            while at < bytes.len() {
                let offset = 2 + at as u64;
                let line = newline.first(&bytes[at..], offset).unwrap_or(bytes.len() - at);
                let (text, errors) = text_of(encoding, &bytes[at..at + line], offset);
                pieces.extend(text);
                replaced += errors;
                at += line;
            }
            prop_assert_eq!(&(pieces, replaced), &whole);
            prop_assert!(whole.0.len() <= bytes.len() * 3);
            prop_assert!(std::str::from_utf8(&whole.0).is_ok());
            prop_assert_eq!(newline.count(&bytes, 2), bytecount::count(&whole.0, b'\n') as u64);
        }

        #[test]
        fn text_can_be_cut_after_whole_characters_anywhere(
            text in "[a-zé€漢字𝄞\n]{1,60}", cut in 1usize..100, label in prop::sample::select(&["utf-16le", "utf-16be", "gb18030"][..]),
        ) {
            let encoding = TextEncoding::of_label(label).expect("known");
            let bytes: Vec<u8> = match label {
                "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                "utf-16be" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                _ => encoding_rs::GB18030.encode(&text).0.into_owned(),
            };
            let cut = encoding.whole_characters(&bytes[..cut.min(bytes.len())], false);
            let (mut pieces, replaced) = text_of(encoding, &bytes[..cut], 2);
            if replaced == 0 {
                pieces.extend(text_of(encoding, &bytes[cut..], 2 + cut as u64).0);
                prop_assert_eq!(String::from_utf8(pieces).expect("text"), text);
            } else {
                prop_assert!(cut < CHARACTER_BYTES_MAX, "a beginning of whole characters was there");
            }
        }
    }

    #[test]
    fn marks_are_no_text_and_decide_where_they_are_asked() {
        let label = |label| TextEncoding::of_label(label).expect("known");
        assert_eq!(text_of(label("utf-16le"), b"\xff\xfea\0", 0).0, b"a");
        assert_eq!(text_of(label("utf-16le"), b"\xff\xfea\0", 2).0, "\u{feff}a".as_bytes());
        assert_eq!(label("utf-16").text(b"\xfe\xff\0a", 0, has_big_endian_mark(b"\xfe\xff")).0, &b"a"[..]);
        assert_eq!(label("utf-16").newline(has_big_endian_mark(b"a\0")), Newline::Wide { big_endian: false });
        assert_eq!(label("utf-8"), TextEncoding::Verbatim);
    }

    #[test]
    fn only_a_whole_unit_at_an_even_offset_ends_a_line() {
        let little = Newline::Wide { big_endian: false };
        // U+0A05, U+010A, newline
        assert_eq!(little.first(&[0x05, 0x0A, 0x0A, 0x01, 0x0A, 0x00], 4), Some(6));
        assert_eq!(little.first(&[0x0A], 4), None);
        let big = Newline::Wide { big_endian: true };
        assert_eq!(big.last(&[0x00, 0x0A, 0x0A, 0x00, 0x0A], 4), Some(2));
    }

    #[test]
    fn labels_that_cannot_be_read_from_the_middle_or_are_not_known_are_refused() {
        for label in ["iso-2022-jp", "hz-gb-2312", "iso-2022-kr"] {
            assert!(TextEncoding::of_label(label).expect_err(label).contains("all before them"), "{label}");
        }
        assert!(TextEncoding::of_label("utf-7").expect_err("unknown").contains("Encoding Standard"));
    }
}
