//! What differs from life to life beside the path: how files begin, how many are written to at a time, which of their lines are shipped.

use rand::Rng;
use rand::rngs::StdRng;
use std::ops::Range;

/// `[pack] max_line` of the tailers.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// The first line of all files of a life that has one: nothing tells them apart by it.
const HEADER: &str = "# time level message\n";
/// Names of files that are written to at the same time.
const NAMES: [&str; 3] = ["app.log", "web.log", "job.log"];

/// The settings of one life.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Begins every file; empty in most lives.
    pub header: &'static str,
    /// Files of a pattern that are written to at the same time.
    pub names: &'static [&'static str],
    /// Some lines are longer than [`LINE_BYTES_MAX`].
    pub has_long_lines: bool,
    /// `spool` of the source.
    pub spool: bool,
    /// Which lines are shipped.
    pub choice: Choice,
}

impl Shape {
    /// One of the many. `has_pattern`: several files may be of the source at the same time.
    pub fn random(random: &mut StdRng, has_pattern: bool) -> Shape {
        let names = if has_pattern { [1, 1, 2, 3][random.random_range(0..4)] } else { 1 };
        Shape {
            header: if random.random_ratio(1, 3) { HEADER } else { "" },
            names: &NAMES[..names],
            has_long_lines: random.random_ratio(1, 6),
            spool: random.random_ratio(1, 5),
            choice: Choice::random(random),
        }
    }

    /// Lines for `[[source]]`.
    pub fn settings(&self) -> String {
        format!("{}{}", if self.spool { "spool = true\n" } else { "" }, self.choice.settings())
    }
}

/// Which lines of a source are shipped, worked out apart from the tailer. Lines have the word `keep`, `skip`, both or neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// `include`: only with `keep`.
    pub include: bool,
    /// `exclude`: none with `skip`.
    pub exclude: bool,
    /// Lines that begin with a space belong to the line before them.
    pub entries: bool,
}

impl Choice {
    fn random(random: &mut StdRng) -> Choice {
        let [include, exclude] = [(); 2].map(|()| random.random_ratio(1, 5));
        Choice { include, exclude, entries: random.random_ratio(1, 4) }
    }

    fn settings(self) -> String {
        let lines = [
            (self.include, "include = ['keep']\n"),
            (self.exclude, "exclude = ['skip', 'no line has this']\n"),
            (self.entries, "multiline.start = '^[^ ]'\nmultiline.timeout = \"300ms\"\n"),
        ];
        lines.into_iter().filter(|(is_set, _)| *is_set).map(|(_, line)| line).collect()
    }

    /// Whether a line begins an entry.
    pub fn begins(self, line: &[u8]) -> bool {
        !self.entries || !line.starts_with(b" ")
    }

    /// What is shipped of the bytes of a pack, by the content that it is of. Its first line begins an entry, whatever it is.
    pub fn of(self, content: &[u8], pack: Range<usize>) -> Vec<u8> {
        let mut entries: Vec<Vec<u8>> = Vec::new();
        for line in content[pack.clone()].split_inclusive(|byte| *byte == b'\n') {
            match entries.last_mut().filter(|_| !self.begins(line)) {
                Some(entry) => entry.extend_from_slice(line),
                None => entries.push(line.to_owned()),
            }
        }
        let before = content[..pack.start].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut split = (before < pack.start).then(|| &content[before..pack.start]);
        entries.retain(|entry| {
            // A long line is judged by its first part, wherever that is.
            let first_line = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let judged =
                split.take().unwrap_or(if first_line.len() < LINE_BYTES_MAX { entry } else { first_line });
            let is_long = judged.len() >= LINE_BYTES_MAX && judged != entry.as_slice();
            self.takes(if is_long { &judged[..LINE_BYTES_MAX] } else { judged })
        });
        entries.concat()
    }

    fn takes(self, entry: &[u8]) -> bool {
        let has = |word: &[u8]| entry.windows(word.len()).any(|window| window == word);
        (!self.include || has(b"keep")) && !(self.exclude && has(b"skip"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_chosen_as_a_whole() {
        let choice = Choice { include: true, exclude: true, entries: true };
        let bytes = b" keep rest\none\n keep\ntwo keep\n skip\nthree\n";
        let all = 0..bytes.len();
        assert_eq!(choice.of(bytes, all.clone()), b" keep rest\none\n keep\n");
        assert_eq!(
            Choice { entries: false, ..choice }.of(bytes, all.clone()),
            b" keep rest\n keep\ntwo keep\n"
        );
        assert_eq!(Choice::default().of(bytes, all), bytes);
    }

    #[test]
    fn a_long_line_is_judged_by_its_first_part() {
        let choice = Choice { include: true, ..Choice::default() };
        for (first, taken) in [("keep", true), ("", false)] {
            let text = format!("{first}{}keep\nkeep\n", "y".repeat(2 * LINE_BYTES_MAX));
            for from in [0, LINE_BYTES_MAX, 2 * LINE_BYTES_MAX] {
                let expected = if taken { &text[from..] } else { "keep\n" };
                assert_eq!(choice.of(text.as_bytes(), from..text.len()), expected.as_bytes());
            }
        }
    }
}
