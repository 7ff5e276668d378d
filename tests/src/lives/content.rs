//! What was written: every content that a file had from its beginning to its end, and how much of it must arrive.

use crate::store::StoredPack;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// All bytes of one life of one file. A file that is cut or replaced begins another content.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The bytes.
    pub bytes: Vec<u8>,
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
        self.certain.unwrap_or(self.bytes.len()).min(self.bytes.len())
    }

    /// When the byte at `offset` was written.
    pub fn written_at(&self, offset: u64) -> Timestamp {
        let before = self.written_at.iter().rev().find(|(from, _)| *from as u64 <= offset);
        before.map_or(Timestamp::MIN, |(_, at)| *at)
    }

    fn holds(&self, pack: &StoredPack) -> bool {
        let (from, to) = (pack.offset as usize, (pack.offset + pack.span) as usize);
        self.bytes.get(from..to) == Some(&pack.body[..])
    }
}

/// Which content each stream is of, and what has arrived of each content.
#[derive(Debug, Default)]
pub struct Arrived {
    /// For each content, the ranges that arrived, in order.
    pub ranges: Vec<Vec<(u64, u64)>>,
    /// The content of each stream.
    pub content_of: BTreeMap<String, usize>,
}

impl Arrived {
    /// Finds for each stream the content that has all its packs.
    ///
    /// # Errors
    /// A stream whose bytes were never written together in one file, or in another order.
    pub fn new(contents: &[Content], packs: &[StoredPack]) -> Result<Arrived, String> {
        let mut streams: BTreeMap<&str, Vec<&StoredPack>> = BTreeMap::new();
        for pack in packs.iter().filter(|pack| pack.span > 0) {
            streams.entry(&pack.stream).or_default().push(pack);
        }
        let mut arrived = Arrived { ranges: vec![Vec::new(); contents.len()], ..Arrived::default() };
        // The longest first: a short beginning of a line may be that of several contents.
        let mut streams: Vec<(&str, Vec<&StoredPack>)> = streams.into_iter().collect();
        streams.sort_by_key(|(_, packs)| std::cmp::Reverse(packs.iter().map(|pack| pack.span).sum::<u64>()));
        for (stream, packs) in streams {
            let mut fitting = (0..contents.len())
                .filter(|index| packs.iter().all(|pack| contents[*index].holds(pack)))
                .collect::<Vec<_>>();
            fitting.sort_by_key(|index| arrived.overlaps(*index, &packs));
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
            arrived.ranges[index].extend(packs.iter().map(|pack| (pack.offset, pack.offset + pack.span)));
            arrived.ranges[index].sort_unstable();
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
        self.ranges[index].iter().fold(0, |end, (from, to)| if *from <= end { end.max(*to) } else { end })
            as usize
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
