//! What was written: every content that a file had from its beginning to its end, and how much of it must arrive.

use super::shape::Choice;
use crate::store::StoredPack;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// All bytes of one life of one file. A file that is cut or replaced begins another content.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many of the first of them other contents may have, too. With no more than these it is nothing of its own: it may pass for another.
    pub shared: usize,
    /// It has a line.
    pub is_begun: bool,
    /// The rest of a line of which only the beginning was written yet.
    pub pending: Vec<u8>,
    /// How many of the first bytes must arrive, if not all: the rest was taken away before anybody can have read it.
    pub certain: Option<usize>,
    /// The hour that its file is named after.
    pub hour: Option<String>,
    /// When (by the real clock) the bytes from each place on were written.
    pub written_at: Vec<(usize, Timestamp)>,
}

impl Content {
    /// Bytes that must arrive.
    pub fn certain(&self) -> usize {
        let all = if self.bytes.len() > self.shared { self.bytes.len() } else { 0 };
        self.certain.unwrap_or(all).min(all)
    }

    /// Whether a file that had it was so long at some time.
    pub fn was_long(&self, length: usize) -> bool {
        length == self.bytes.len() || self.written_at.iter().any(|(from, _)| *from == length)
    }

    /// When the byte at `offset` was written.
    pub fn written_at(&self, offset: u64) -> Timestamp {
        let before = self.written_at.iter().rev().find(|(from, _)| *from as u64 <= offset);
        before.map_or(Timestamp::MIN, |(_, at)| *at)
    }

    fn holds(&self, pack: &StoredPack, choice: Choice) -> bool {
        let (from, to) = (pack.offset as usize, (pack.offset + pack.span) as usize);
        let holds = |bytes: &[u8]| {
            crc32c::crc32c(bytes) == pack.sum && is_body(choice.of(&self.bytes, from..to), &pack.body)
        };
        self.bytes.get(from..to).is_some_and(holds)
    }
}

/// A last line without an end is stored with one.
fn is_body(mut wanted: Vec<u8>, body: &[u8]) -> bool {
    if wanted.len() + 1 == body.len() && !wanted.ends_with(b"\n") {
        wanted.push(b'\n');
    }
    wanted == body
}

/// Which content each stream is of, and what has arrived of each content.
#[derive(Debug, Default)]
pub struct Arrived {
    /// For each content, the ranges that arrived, in order.
    pub ranges: Vec<Vec<(u64, u64)>>,
    /// The same of streams that can be of no other content.
    sure_ranges: Vec<Vec<(u64, u64)>>,
    /// The content of each stream.
    pub content_of: BTreeMap<String, usize>,
}

impl Arrived {
    /// Finds for each stream the content that has all its packs.
    ///
    /// # Errors
    /// A stream whose bytes were never written together in one file, or in another order.
    pub fn new(contents: &[Content], packs: &[StoredPack]) -> Result<Arrived, String> {
        Arrived::chosen(contents, packs, Choice::default())
    }

    /// The same where not all lines are shipped.
    ///
    /// # Errors
    /// As [`Arrived::new`]; and lines that should not have been shipped, or were left out.
    pub fn chosen(contents: &[Content], packs: &[StoredPack], choice: Choice) -> Result<Arrived, String> {
        let mut streams: BTreeMap<&str, Vec<&StoredPack>> = BTreeMap::new();
        for pack in packs.iter().filter(|pack| pack.span > 0) {
            streams.entry(&pack.stream).or_default().push(pack);
        }
        let none = vec![Vec::new(); contents.len()];
        let mut arrived = Arrived { ranges: none.clone(), sure_ranges: none, ..Arrived::default() };
        let holds = |index: &usize, packs: &[&StoredPack]| {
            packs.iter().all(|pack| contents[*index].holds(pack, choice))
        };
        let mut streams: Vec<(&str, Vec<&StoredPack>, Vec<usize>)> = streams
            .into_iter()
            .map(|(stream, packs)| {
                let fitting = (0..contents.len()).filter(|index| holds(index, &packs)).collect();
                (stream, packs, fitting)
            })
            .collect();
        // The longest of what can be told first: a beginning may be that of several contents.
        streams.sort_by_key(|(_, packs, fitting)| {
            let span: u64 = packs.iter().map(|pack| pack.span).sum();
            (fitting.len() > 1, std::cmp::Reverse(span))
        });
        for (stream, packs, mut fitting) in streams {
            let is_sure = fitting.len() == 1;
            fitting.sort_by_key(|index| {
                let lacks = arrived.in_a_row(*index) < contents[*index].certain();
                (arrived.overlaps(*index, &packs), !lacks)
            });
            let Some(index) = fitting.first().copied() else {
                return Err(format!("stream {stream} has bytes that no file had: {}", places(&packs)));
            };
            if let Some(pair) =
                packs.windows(2).find(|pair| pair[0].hour == pair[1].hour && pair[0].offset > pair[1].offset)
            {
                return Err(format!(
                    "stream {stream} is out of order in hour {}: {}",
                    pair[0].hour,
                    places(&packs)
                ));
            }
            arrived.content_of.insert(stream.to_owned(), index);
            let all = [Some(&mut arrived.ranges), is_sure.then_some(&mut arrived.sure_ranges)];
            for ranges in all.into_iter().flatten() {
                ranges[index].extend(packs.iter().map(|pack| (pack.offset, pack.offset + pack.span)));
                ranges[index].sort_unstable();
            }
        }
        Ok(arrived)
    }

    fn overlaps(&self, index: usize, packs: &[&StoredPack]) -> usize {
        let hits = |pack: &&&StoredPack| {
            self.ranges[index].iter().any(|(from, to)| *from < pack.offset + pack.span && pack.offset < *to)
        };
        packs.iter().filter(hits).count()
    }

    /// Bytes from the start of a content that arrived without a gap.
    pub fn in_a_row(&self, index: usize) -> usize {
        in_a_row(&self.ranges[index])
    }

    /// The same of those that can be of no other content.
    pub fn surely_in_a_row(&self, index: usize) -> usize {
        in_a_row(&self.sure_ranges[index])
    }

    /// What is doubled, or cannot be right whatever else comes.
    pub fn doubled(&self) -> Option<String> {
        let doubled = |ranges: &Vec<(u64, u64)>| ranges.windows(2).any(|pair| pair[0].1 > pair[1].0);
        let index = self.ranges.iter().position(doubled)?;
        Some(format!("bytes of content {index} arrived twice: {:?}", self.ranges[index]))
    }

    /// What has not arrived yet.
    pub fn missing(&self, contents: &[Content]) -> Option<String> {
        let index = (0..contents.len()).find(|index| self.in_a_row(*index) < contents[*index].certain())?;
        let content = &contents[index];
        Some(format!(
            "content {index} of {} bytes, of which {} must come, has {} in a row: {:?}; it begins {:?}",
            content.bytes.len(),
            content.certain(),
            self.in_a_row(index),
            self.ranges[index],
            String::from_utf8_lossy(&content.bytes[..content.bytes.len().min(40)])
        ))
    }
}

fn in_a_row(ranges: &[(u64, u64)]) -> usize {
    ranges.iter().fold(0, |end, (from, to)| if *from <= end { end.max(*to) } else { end }) as usize
}

fn places(packs: &[&StoredPack]) -> String {
    packs.iter().map(|pack| pack.place()).collect::<Vec<_>>().join(", ")
}

/// Numbers that two packs with lines have in one hour.
pub fn numbers_used_twice(packs: &[StoredPack]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = packs.iter().filter(|pack| pack.span > 0).find(|pack| !seen.insert((&pack.hour, pack.id)))?;
    Some(format!("number {} of hour {} was given to two packs", twice.id, twice.hour))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(stream: &str, id: u64, offset: u64, body: &str) -> StoredPack {
        StoredPack {
            hour: "2026112101".into(),
            id,
            done: false,
            lines: 1,
            stream: stream.into(),
            offset,
            span: body.len() as u64,
            sum: crc32c::crc32c(body.as_bytes()),
            body: body.into(),
        }
    }
    fn contents() -> Vec<Content> {
        ["one\ntwo\n", "six\n"].map(|text| Content { bytes: text.into(), ..Content::default() }).into()
    }

    #[test]
    fn streams_of_one_content_fit_together_without_holes() {
        let packs = [pack("a", 1, 0, "one\n"), pack("b", 2, 4, "two\n"), pack("c", 3, 0, "six\n")];
        let arrived = Arrived::new(&contents(), &packs).expect("good");
        assert_eq!((arrived.doubled(), arrived.missing(&contents())), (None, None));
        assert_eq!(numbers_used_twice(&packs), None);
    }

    #[test]
    fn a_beginning_that_several_contents_have_goes_to_the_one_that_lacks_it() {
        let shared = |text: &str| Content { bytes: text.into(), shared: 2, ..Content::default() };
        let mut contents = vec![shared("#\none\n"), shared("#\ntwo\n"), shared("#\n")];
        contents[0].certain = Some(0);
        let packs = [pack("a", 1, 0, "#\n"), pack("b", 2, 2, "two\n")];
        let arrived = Arrived::new(&contents, &packs).expect("good");
        assert_eq!((arrived.doubled(), arrived.missing(&contents)), (None, None));
        assert_eq!((arrived.in_a_row(1), arrived.surely_in_a_row(1)), (6, 0));
    }

    #[test]
    fn what_is_left_out_is_checked_line_by_line() {
        let choice = Choice { exclude: true, ..Choice::default() };
        let contents = [Content { bytes: "one\nskip\n".into(), ..Content::default() }];
        let all = pack("a", 1, 0, "one\nskip\n");
        let right = StoredPack { body: "one\n".into(), ..all.clone() };
        assert!(Arrived::chosen(&contents, &[right], choice).is_ok_and(|arrived| arrived.in_a_row(0) == 9));
        assert!(
            Arrived::chosen(&contents, &[StoredPack { body: Vec::new(), ..all.clone() }], choice).is_err()
        );
        assert!(Arrived::chosen(&contents, &[all], choice).is_err());
    }

    #[test]
    fn what_is_lost_doubled_foreign_or_out_of_order_is_told() {
        let lost = Arrived::new(&contents(), &[pack("a", 1, 4, "two\n")]).expect("good");
        assert!(lost.missing(&contents()).is_some());
        let twice = [pack("a", 1, 0, "one\n"), pack("b", 1, 0, "one\n")];
        assert!(Arrived::new(&contents(), &twice).expect("good").doubled().is_some());
        assert!(numbers_used_twice(&twice).is_some());
        assert!(Arrived::new(&contents(), &[pack("a", 1, 0, "two\n")]).is_err());
        assert!(Arrived::new(&contents(), &[pack("a", 1, 4, "two\n"), pack("a", 2, 0, "one\n")]).is_err());
    }
}
