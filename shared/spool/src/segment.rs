//! One segment file as the spool knows it.

use crate::format::Found;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A segment: figures only. The index of its records is read when it is replayed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// `None` in version 1, and while no good record of a segment with a damaged head was found.
    pub(crate) salt: Option<u32>,
    /// Length of the file that is kept, in bytes.
    pub(crate) bytes: u64,
    /// Length up to which there are records.
    pub(crate) records_bytes: u64,
    /// Sequence of its first record, and behind its last.
    pub(crate) sequences: Range<u64>,
    /// Records that have arrived or are lost.
    pub(crate) settled: Settled,
    /// Nothing is appended any more.
    pub(crate) sealed: bool,
    /// Some of it could not be read: the file is kept when it is done.
    pub(crate) unreadable: bool,
}

impl Segment {
    /// Records that have neither arrived nor are lost.
    pub(crate) fn waiting(&self) -> u64 {
        (self.sequences.end - self.sequences.start).saturating_sub(self.settled.count)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.waiting() == 0
    }

    pub(crate) fn is_settled(&self, sequence: u64) -> bool {
        self.settled.contains(sequence.wrapping_sub(self.sequences.start))
    }

    /// Marks a record; false when it was marked already, or is none of this segment.
    pub(crate) fn settle(&mut self, sequence: u64) -> bool {
        self.sequences.contains(&sequence) && self.settled.insert(sequence - self.sequences.start)
    }

    /// First record from `sequence` on that waits.
    pub(crate) fn next_waiting(&self, sequence: u64) -> Option<u64> {
        let from = sequence.max(self.sequences.start);
        (from..self.sequences.end).find(|sequence| !self.is_settled(*sequence))
    }

    /// Marks the records that are not in `found`; gives back how many were not marked before.
    pub(crate) fn settle_missing(&mut self, found: &[Found]) -> u64 {
        let mut there = found.iter().map(|record| record.sequence).peekable();
        let mut lost = 0;
        for sequence in self.sequences.clone() {
            while there.next_if(|found| *found < sequence).is_some() {}
            if there.next_if_eq(&sequence).is_none() && self.settle(sequence) {
                lost += 1;
            }
        }
        lost
    }
}

/// A set of offsets from a segment's first sequence: a bit each, so that its size is bounded whatever the order of acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    words: Vec<u64>,
    count: u64,
}

impl Settled {
    /// Adds an offset; false when it was there.
    pub(crate) fn insert(&mut self, offset: u64) -> bool {
        let (word, bit) = ((offset / 64) as usize, 1 << (offset % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(new);
        new
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        let word = usize::try_from(offset / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    /// Its offsets as ranges of first and length.
    pub(crate) fn ranges(&self) -> Vec<(u32, u32)> {
        let offsets = (0..self.words.len() as u64 * 64).filter(|offset| self.contains(*offset));
        merge(offsets.map(|offset| offset as u32))
    }
}

/// Ascending numbers as ranges of first and length.
pub(crate) fn merge(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => ranges.push((number, 1)),
        }
    }
    ranges
}

/// Name of a segment file.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// Path of a segment file.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

/// Number of a segment file; `None` for foreign names.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequences: Range<u64>) -> Segment {
        Segment { sequences, ..Segment::default() }
    }

    #[test]
    fn a_segment_is_done_when_each_of_its_records_is_settled_once() {
        let mut segment = segment(100..300);
        for sequence in (100..300).rev() {
            assert!(!segment.is_done());
            assert!(segment.settle(sequence));
            assert!(!segment.settle(sequence), "{sequence} twice");
        }
        assert!(segment.is_done());
        assert!(!segment.settle(99) && !segment.settle(300), "of another segment");
        assert_eq!(segment.settled.ranges(), [(0, 200)]);
    }

    #[test]
    fn what_waits_is_found_over_gaps() {
        let mut segment = segment(10..20);
        for sequence in [10, 11, 13, 19] {
            segment.settle(sequence);
        }
        assert_eq!(segment.settled.ranges(), [(0, 2), (3, 1), (9, 1)]);
        assert_eq!(
            (segment.next_waiting(0), segment.next_waiting(13), segment.next_waiting(19)),
            (Some(12), Some(14), None)
        );
        assert_eq!(segment.waiting(), 6);
    }

    #[test]
    fn missing_records_are_settled_and_counted_once() {
        let found = |sequence| Found { at: 0, head_bytes: 0, length: 0, sequence, key: 0 };
        let mut segment = segment(10..16);
        segment.settle(11);
        let there = [found(10), found(14)];
        assert_eq!(segment.settle_missing(&there), 3);
        assert_eq!(segment.settle_missing(&there), 0);
        assert_eq!(segment.waiting(), 2);
    }
}
