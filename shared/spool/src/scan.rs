//! What a segment without a good footer holds: its records, found one by one, and what is to be thought of the bytes between and behind them.
//!
//! Bytes that do not check out are the trace of a crash only where nothing says that they were on the disk: behind what the books, a
//! later record or the head of the next segment calls synced. They are cut. All others are damage, which is set aside and reported.

use crate::format::{self, DamagedRange, Found, SegmentHead};
use crate::segment::Segment;
use crate::window::Window;

/// Shortest record: bounds how many sequences can be missing before an offset.
const RECORD_BYTES_MIN: u64 = 44;

/// What is known of a segment without reading it. All zero and `None` when nothing is.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Known {
    /// Sequence of its first record.
    pub(crate) first: Option<u64>,
    /// Length up to which it was on the disk.
    pub(crate) synced_bytes: u64,
    /// Records below this sequence were on the disk.
    pub(crate) synced_end: u64,
    /// Records from this sequence on were given up: they may have come back, but their numbers are used again.
    pub(crate) given_up: Option<u64>,
}

impl Known {
    /// What the books and the head of the next segment tell.
    pub(crate) fn new(books: Option<&Segment>, next: Option<SegmentHead>) -> Known {
        let before = next.map_or(0, |next| next.before);
        Known {
            first: books.map(|segment| segment.sequences.start),
            synced_bytes: books.map_or(0, |segment| segment.records_bytes),
            synced_end: books.map_or(0, |segment| segment.sequences.end).max(before),
            given_up: next
                .map(|next| next.before)
                .or(books.filter(|segment| segment.sealed).map(|segment| segment.sequences.end)),
        }
    }
}

/// What a segment file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Found>,
    pub(crate) damaged: Vec<DamagedRange>,
    /// Bytes behind the last record that nothing calls synced: of records that were not, or of a footer that is no good.
    pub(crate) torn_bytes: u64,
    /// Length up to which the file is kept.
    pub(crate) good_bytes: u64,
    /// Length up to which it is known to be on the disk, and not in memory only.
    pub(crate) synced_bytes: u64,
    /// Records below this sequence were on the disk, as the records themselves and the books say.
    pub(crate) synced_end: u64,
    /// Of its head, or else of its records: see [`SegmentHead`].
    pub(crate) salt: Option<Option<u32>>,
}

/// Reads a whole segment, passing over what does not check out.
pub(crate) fn scan(window: &mut Window<'_>, segment: u64, head: Option<SegmentHead>, known: &Known) -> Scan {
    let mut finder = Finder {
        segment,
        first: head.map(|head| head.first).or(known.first),
        salt: head.map(|head| head.salt),
        given_up: known.given_up,
    };
    let mut scan = Scan { synced_end: known.synced_end, ..Scan::default() };
    let (start, end) = (head.map_or(0, |head| head.bytes()), window.end());
    let (mut at, mut bad_from) = (start, start);
    while at < end {
        let Some((found, synced)) = finder.record_at(window, at, scan.records.last()) else {
            at = window.next_record_magic(at + 1);
            continue;
        };
        if bad_from < at {
            scan.damaged.push(DamagedRange { at: bad_from, bytes: at - bad_from });
        }
        scan.records.push(found);
        scan.synced_end = scan.synced_end.max(synced);
        at = found.end();
        bad_from = at;
    }
    let first = head.map_or(known.first, |head| Some(head.first));
    if !scan.cut_at_unsynced_hole(end, first, known) {
        scan.judge_end(start, end, first, known);
    }
    scan.synced_bytes = scan.synced_length(known);
    scan.salt = finder.salt;
    scan
}

struct Finder {
    segment: u64,
    first: Option<u64>,
    /// Of the records to be found; not known while the head is damaged and none was found.
    salt: Option<Option<u32>>,
    given_up: Option<u64>,
}

impl Finder {
    /// The good record at `at`, and what it says was synced.
    fn record_at(&mut self, window: &mut Window<'_>, at: u64, last: Option<&Found>) -> Option<(Found, u64)> {
        let head = format::parse_record_head(window.get(at, format::RECORD_HEAD_BYTES), self.segment)?;
        let found = Found {
            at,
            head_bytes: head.bytes() as u32,
            length: head.length as u32,
            sequence: head.sequence,
            key: head.key,
        };
        // Before the checksum, which takes time: a payload may hold much that looks like a record.
        let plausible = self.salt.is_none_or(|salt| salt == head.salt) && self.may_be_next(&found, last);
        if !plausible || found.end() > window.end() {
            return None;
        }
        let crc = window.crc(head.crc_start(), at + head.bytes(), found.end());
        if !head.ends_with(crc) {
            return None;
        }
        self.salt = Some(head.salt);
        self.first.get_or_insert(found.sequence);
        Some((found, head.synced))
    }

    /// Sequences ascend by one: as many are missing at most as fit into the bytes before.
    fn may_be_next(&self, found: &Found, last: Option<&Found>) -> bool {
        if self.given_up.is_some_and(|given_up| found.sequence >= given_up) {
            return false;
        }
        let (next, from) = match (last, self.first) {
            (Some(last), _) => (last.sequence + 1, last.end()),
            (None, Some(first)) => (first, 0),
            (None, None) => return true,
        };
        found
            .sequence
            .checked_sub(next)
            .is_some_and(|missing| missing <= (found.at - from) / RECORD_BYTES_MIN)
    }
}

impl Scan {
    /// A hole that nothing calls synced is the trace of a crash, not damage: what is behind it was never promised and goes. False when
    /// there is none.
    fn cut_at_unsynced_hole(&mut self, file_bytes: u64, first: Option<u64>, known: &Known) -> bool {
        let hole = self.damaged.iter().position(|range| {
            let before = self.records.iter().rev().find(|record| record.at < range.at);
            let missing = before.map(|record| record.sequence + 1).or(first);
            let missing = missing.or(self.records.first().map(|record| record.sequence));
            range.at >= known.synced_bytes && missing.is_some_and(|missing| self.synced_end <= missing)
        });
        let Some(hole) = hole else { return false };
        let at = self.damaged[hole].at;
        self.damaged.truncate(hole);
        self.records.retain(|record| record.at < at);
        (self.good_bytes, self.torn_bytes) = (at, file_bytes - at);
        true
    }

    /// What is behind the last good record: torn, a footer that is no good, or damage.
    fn judge_end(&mut self, start: u64, file_bytes: u64, first: Option<u64>, known: &Known) {
        let (end_at, end) = match self.records.last() {
            Some(last) => (last.end(), last.sequence + 1),
            None => (start, first.unwrap_or(0)),
        };
        let all_synced_are_there = end >= self.synced_end && end_at >= known.synced_bytes;
        if all_synced_are_there || end_at == file_bytes {
            self.torn_bytes = file_bytes - end_at;
            self.good_bytes = end_at;
        } else {
            self.damaged.push(DamagedRange { at: end_at, bytes: file_bytes - end_at });
            self.good_bytes = file_bytes;
        }
    }

    fn synced_length(&self, known: &Known) -> u64 {
        let told = self.records.iter().rev().find(|record| record.sequence < self.synced_end);
        told.map_or(0, Found::end).max(known.synced_bytes).min(self.good_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{HEAD_BYTES, Head, head, parse_head, record_head};
    use logferry_durable::Disk;
    use logferry_durable::faulty::FaultyDisk;
    use std::path::Path;

    const SALT: u32 = 77;

    /// Scans bytes as segment 1.
    fn scan_bytes(bytes: &[u8], known: &Known) -> Scan {
        let (disk, path) = (FaultyDisk::new(1), Path::new("/segment"));
        let file = disk.create(path).expect("a file");
        file.append(&[bytes]).expect("written");
        let head = match parse_head(bytes, 1) {
            Head::Good(head) => Some(head),
            _ => None,
        };
        scan(&mut Window::new(&*file, bytes.len() as u64), 1, head, known)
    }

    /// A segment of four records, each synced before the next was written, and the offsets of the records.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (head(1, 0, 0, SALT).to_vec(), Vec::new());
        for sequence in 0..4 {
            let payload = vec![sequence as u8; 20 + sequence as usize];
            starts.push(bytes.len());
            bytes.extend(record_head(1, SALT, sequence, 9, sequence, &[&payload]));
            bytes.extend(payload);
        }
        (bytes, starts)
    }

    fn sequences(scan: &Scan) -> Vec<u64> {
        scan.records.iter().map(|record| record.sequence).collect()
    }

    #[test]
    fn a_flipped_byte_costs_the_record_that_it_is_in() {
        let (good, starts) = segment();
        let sealed = Known { synced_end: 4, ..Known::default() };
        for byte in HEAD_BYTES..good.len() {
            let mut bytes = good.clone();
            bytes[byte] ^= 0x20;
            let hit = starts.iter().rposition(|start| *start <= byte).expect("a record") as u64;
            let scan = scan_bytes(&bytes, &sealed);
            assert_eq!(
                sequences(&scan),
                (0..4).filter(|sequence| *sequence != hit).collect::<Vec<_>>(),
                "byte {byte}"
            );
            assert_eq!(scan.damaged.len(), 1);
        }
    }

    #[test]
    fn a_damaged_head_costs_no_record() {
        let (mut bytes, _) = segment();
        bytes[..HEAD_BYTES].fill(0);
        let scan = scan_bytes(&bytes, &Known::default());
        assert_eq!((sequences(&scan), scan.damaged.len()), (vec![0, 1, 2, 3], 1));
    }

    #[test]
    fn a_cut_at_any_byte_is_a_torn_tail_of_the_newest_segment_and_damage_of_others() {
        let (good, starts) = segment();
        for cut in HEAD_BYTES..good.len() {
            let scan = scan_bytes(&good[..cut], &Known::default());
            let whole = starts.iter().skip(1).filter(|start| **start <= cut).count();
            assert_eq!((scan.records.len(), scan.damaged.len()), (whole, 0), "cut at {cut}");
            assert_eq!(scan.good_bytes + scan.torn_bytes, cut as u64);

            let older = scan_bytes(&good[..cut], &Known { synced_end: 4, ..Known::default() });
            assert_eq!((older.records.len(), older.torn_bytes), (whole, 0), "cut at {cut}");
            assert_eq!(older.damaged.len(), usize::from(!starts.contains(&cut)), "cut at {cut}");
        }
    }

    #[test]
    fn a_bad_last_record_that_the_books_call_synced_is_damage() {
        let (mut bytes, starts) = segment();
        let end = bytes.len();
        bytes[end - 1] ^= 1;
        let torn = scan_bytes(&bytes, &Known::default());
        assert_eq!((torn.torn_bytes, torn.damaged.len()), ((end - starts[3]) as u64, 0));
        let known = Known { synced_bytes: end as u64, synced_end: 4, ..Known::default() };
        let rot = scan_bytes(&bytes, &known);
        assert_eq!((rot.torn_bytes, rot.damaged.len(), rot.good_bytes), (0, 1, end as u64));
    }

    #[test]
    fn junk_behind_a_complete_segment_is_no_damage() {
        let (good, _) = segment();
        let bytes = [&good[..], &[0; 500]].concat();
        let scan = scan_bytes(&bytes, &Known { synced_end: 4, ..Known::default() });
        assert_eq!((scan.damaged.len(), scan.good_bytes), (0, good.len() as u64));
    }

    #[test]
    fn records_of_another_file_of_the_same_number_do_not_check_out() {
        let (mut bytes, starts) = segment();
        let stale = record_head(1, SALT + 1, 3, 9, 3, &[&[3; 23]]);
        bytes.truncate(starts[3]);
        bytes.extend(stale);
        bytes.extend([3; 23]);
        assert_eq!(sequences(&scan_bytes(&bytes, &Known::default())), [0, 1, 2]);
        // Nor by the first record, once the head is lost.
        bytes[..HEAD_BYTES].fill(0);
        assert_eq!(sequences(&scan_bytes(&bytes, &Known::default())), [0, 1, 2]);
    }

    #[test]
    fn a_sequence_further_ahead_than_records_fit_in_is_none() {
        let (mut bytes, starts) = segment();
        bytes.truncate(starts[3]);
        bytes.extend(record_head(1, SALT, 6, 9, 0, &[b"far"]));
        bytes.extend(b"far");
        assert_eq!(sequences(&scan_bytes(&bytes, &Known::default())), [0, 1, 2]);
    }

    #[test]
    fn a_segment_of_version_1_is_read() {
        let hex = include_str!("../tests/data/version_1.hex").trim_end();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let scan = scan_bytes(&bytes, &Known::default());
        assert_eq!((sequences(&scan), scan.damaged.len(), scan.torn_bytes), (vec![7, 8], 0, 0));
        assert_eq!(
            scan.records.iter().map(|record| (record.key, record.length)).collect::<Vec<_>>(),
            [(5, 3), (6, 3)]
        );
    }
}
