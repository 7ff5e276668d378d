//! Bytes of a segment file, version 1. All integers little-endian.
//!
//! | part | field | bytes | meaning |
//! |---|---|---|---|
//! | head | magic | 8 | `LFSPOOL`, version 1 |
//! |      | segment | 8 | number of the segment, as in its file name |
//! |      | first | 8 | sequence of its first record |
//! |      | crc | 4 | crc32c of the 24 bytes before it |
//! | record | magic | 4 | `LFR1` |
//! |        | length | 4 | of the payload, at most [`PAYLOAD_BYTES_MAX`] |
//! |        | sequence | 8 | ascending by one over all segments |
//! |        | key | 16 | the owner's: the stream |
//! |        | synced | 8 | records below this sequence were known to be on the disk when this one was written |
//! |        | crc | 4 | crc32c of segment number, length, sequence, key, synced and payload |
//! |        | payload | length | the owner's |
//!
//! The segment number in the checksum keeps stale bytes of another segment from checking out.

/// Largest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
pub(crate) const HEAD_BYTES: usize = 28;
pub(crate) const RECORD_HEAD_BYTES: usize = 44;
const MAGIC: [u8; 8] = *b"LFSPOOL\x01";
const RECORD_MAGIC: [u8; 4] = *b"LFR1";

/// What stands before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHead {
    pub(crate) length: usize,
    pub(crate) sequence: u64,
    pub(crate) key: u128,
    pub(crate) synced: u64,
    crc: u32,
}

pub(crate) fn head(segment: u64, first: u64) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Sequence of the first record, if the head is good and of this segment.
pub(crate) fn parse_head(bytes: &[u8], segment: u64) -> Option<u64> {
    let first = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
    (bytes.get(..HEAD_BYTES)? == head(segment, first)).then_some(first)
}

fn crc(segment: u64, middle: &[u8], parts: &[&[u8]]) -> u32 {
    let start = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), middle);
    parts.iter().fold(start, |crc, part| crc32c::crc32c_append(crc, part))
}

pub(crate) fn record_head(
    segment: u64,
    sequence: u64,
    key: u128,
    synced: u64,
    parts: &[&[u8]],
) -> [u8; RECORD_HEAD_BYTES] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = [0; RECORD_HEAD_BYTES];
    bytes[..4].copy_from_slice(&RECORD_MAGIC);
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes[16..32].copy_from_slice(&key.to_le_bytes());
    bytes[32..40].copy_from_slice(&synced.to_le_bytes());
    let crc = crc(segment, &bytes[4..40], parts);
    bytes[40..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The head of a record, unchecked but for its magic and length.
pub(crate) fn parse_record_head(bytes: &[u8]) -> Option<RecordHead> {
    let bytes: &[u8; RECORD_HEAD_BYTES] = bytes.get(..RECORD_HEAD_BYTES)?.try_into().ok()?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    let length = (number(4) & 0xffff_ffff) as usize;
    let good = bytes[..4] == RECORD_MAGIC && length <= PAYLOAD_BYTES_MAX;
    good.then(|| RecordHead {
        length,
        sequence: number(8),
        key: u128::from(number(16)) | u128::from(number(24)) << 64,
        synced: number(32),
        crc: u32::from_le_bytes(std::array::from_fn(|byte| bytes[40 + byte])),
    })
}

impl RecordHead {
    /// Whether head and payload are those that were written.
    pub(crate) fn checks(&self, segment: u64, head: &[u8], payload: &[u8]) -> bool {
        payload.len() == self.length && crc(segment, &head[4..40], &[payload]) == self.crc
    }
}

/// A good record in a segment's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) at: u64,
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) key: u128,
}

/// A range of a segment in which nothing could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// Offset of its first byte in the segment file.
    pub at: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What a segment file holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) head_first: Option<u64>,
    pub(crate) records: Vec<Found>,
    pub(crate) damaged: Vec<DamagedRange>,
    /// Bytes behind the last good record, or of records that were never synced and have holes before them.
    pub(crate) torn_bytes: u64,
    /// Length up to which the segment is kept.
    pub(crate) good_bytes: u64,
}

/// Reads a whole segment, passing over what does not check out. `newest`: a bad end may be the trace of a crash.
pub(crate) fn scan(bytes: &[u8], segment: u64, newest: bool) -> Scan {
    let mut scan = Scan { head_first: parse_head(bytes, segment), ..Scan::default() };
    let mut at = if scan.head_first.is_some() { HEAD_BYTES } else { 0 };
    let (mut bad_from, mut synced) = (at, 0);
    while at < bytes.len() {
        let Some((head, end)) = record_at(&bytes[at..], segment)
            .filter(|(head, _)| scan.records.last().is_none_or(|last| head.sequence > last.sequence))
        else {
            at += 1;
            continue;
        };
        if bad_from < at {
            scan.damaged.push(DamagedRange { at: bad_from as u64, bytes: (at - bad_from) as u64 });
        }
        scan.records.push(Found {
            at: at as u64,
            length: head.length as u32,
            sequence: head.sequence,
            key: head.key,
        });
        synced = synced.max(head.synced);
        at += end;
        bad_from = at;
    }
    scan.good_bytes = bad_from as u64;
    scan.torn_bytes = bytes.len() as u64 - scan.good_bytes;
    if scan.torn_bytes > 0 && !newest {
        scan.damaged.push(DamagedRange { at: scan.good_bytes, bytes: scan.torn_bytes });
        scan.torn_bytes = 0;
        scan.good_bytes = bytes.len() as u64;
    }
    if newest {
        cut_at_unsynced_hole(&mut scan, bytes.len() as u64, synced);
    }
    scan
}

/// A hole that no later record calls synced is the trace of a crash, not damage: what is behind it was never promised and goes.
fn cut_at_unsynced_hole(scan: &mut Scan, length: u64, synced: u64) {
    let hole = scan.damaged.iter().position(|range| {
        let before = scan.records.iter().rev().find(|record| record.at < range.at);
        let missing = before
            .map(|record| record.sequence + 1)
            .or(scan.head_first)
            .or(scan.records.first().map(|record| record.sequence));
        missing.is_some_and(|missing| synced <= missing)
    });
    let Some(hole) = hole else { return };
    let at = scan.damaged[hole].at;
    scan.damaged.truncate(hole);
    scan.records.retain(|record| record.at < at);
    scan.good_bytes = at;
    scan.torn_bytes = length - at;
}

/// The good record at the start of `bytes`, and its length with its head.
fn record_at(bytes: &[u8], segment: u64) -> Option<(RecordHead, usize)> {
    let head = parse_record_head(bytes)?;
    let end = RECORD_HEAD_BYTES + head.length;
    let payload = bytes.get(RECORD_HEAD_BYTES..end)?;
    head.checks(segment, &bytes[..RECORD_HEAD_BYTES], payload).then_some((head, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_bytes_are_pinned() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&head(3, 17)), "4c4653504f4f4c010300000000000000110000000000000074433383");
        assert_eq!(
            hex(&record_head(3, 17, 5, 16, &[b"pay", b"load"])),
            "4c465231070000001100000000000000050000000000000000000000000000001000000000000000386799f8"
        );
    }

    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (head(1, 0).to_vec(), Vec::new());
        for sequence in 0..4 {
            let payload = vec![sequence as u8; 20 + sequence as usize];
            starts.push(bytes.len());
            bytes.extend(record_head(1, sequence, 9, sequence, &[&payload]));
            bytes.extend(payload);
        }
        (bytes, starts)
    }

    #[test]
    fn a_flipped_byte_costs_the_record_that_it_is_in() {
        let (good, starts) = segment();
        for byte in HEAD_BYTES..good.len() {
            let mut bytes = good.clone();
            bytes[byte] ^= 0x20;
            let hit = starts.iter().rposition(|start| *start <= byte).expect("a record") as u64;
            let scan = scan(&bytes, 1, false);
            let left: Vec<u64> = scan.records.iter().map(|record| record.sequence).collect();
            assert_eq!(left, (0..4).filter(|sequence| *sequence != hit).collect::<Vec<_>>(), "byte {byte}");
            assert_eq!(scan.damaged.len(), 1);
        }
    }

    #[test]
    fn a_cut_at_any_byte_is_a_torn_tail() {
        let (good, starts) = segment();
        for cut in HEAD_BYTES..good.len() {
            let scan = scan(&good[..cut], 1, true);
            let whole = starts.iter().skip(1).filter(|start| **start <= cut).count();
            assert_eq!((scan.records.len(), scan.damaged.len()), (whole, 0), "cut at {cut}");
            assert_eq!(scan.good_bytes + scan.torn_bytes, cut as u64);
        }
    }
}
