//! The footer of a sealed segment: the index of its records, so that opening a spool reads a few kilobytes a segment. All
//! integers little-endian.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | keys | 16 each | the different keys of the records |
//! | records | 8 each | number of its key in the list (4), length of its payload (4); the sequences ascend by one from the first |
//! | magic | 8 | `LFSFOOT`, version 1 |
//! | first | 8 | sequence of the first record |
//! | record count | 4 | at most [`SEGMENT_RECORDS_MAX`] |
//! | key count | 4 | at most the record count |
//! | salt | 4 | of the segment |
//! | crc | 4 | crc32c of segment number and all of the footer before it |
//!
//! It ends the file. It is written when all records are on the disk, and without an fsync of its own: one that is missing, torn or damaged
//! costs the time to read the segment, nothing else. A record is checked by its own checksum when it is read.

use crate::format::{Found, HEAD_BYTES, RECORD_HEAD_BYTES, SEGMENT_RECORDS_MAX, SegmentHead, integer};
use logferry_durable::DiskFile;
use std::collections::HashMap;
use std::io;

const MAGIC: [u8; 8] = *b"LFSFOOT\x01";
const END_BYTES: usize = 32;
const KEY_BYTES: usize = 16;
const RECORD_BYTES: usize = 8;

/// Most bytes that the footer of so many records can have.
pub(crate) fn bytes_max(records: usize) -> u64 {
    (END_BYTES + records * (KEY_BYTES + RECORD_BYTES)) as u64
}

/// The footer of a segment that holds `records`, without a gap from `head.first` on.
pub(crate) fn encode(segment: u64, first: u64, salt: u32, records: &[Found]) -> Vec<u8> {
    let mut numbers: HashMap<u128, u32> = HashMap::new();
    let (mut keys, mut entries) = (Vec::new(), Vec::new());
    for record in records {
        let next = numbers.len() as u32;
        let number = *numbers.entry(record.key).or_insert(next);
        if number == next {
            keys.extend(record.key.to_le_bytes());
        }
        entries.extend(number.to_le_bytes());
        entries.extend(record.length.to_le_bytes());
    }
    let mut bytes = keys;
    bytes.extend(entries);
    bytes.extend(MAGIC);
    bytes.extend(first.to_le_bytes());
    bytes.extend((records.len() as u32).to_le_bytes());
    bytes.extend((numbers.len() as u32).to_le_bytes());
    bytes.extend(salt.to_le_bytes());
    bytes.extend(crc(segment, &bytes).to_le_bytes());
    bytes
}

fn crc(segment: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), bytes)
}

/// The records of a segment file of `file_bytes` bytes as its footer tells them; `None` when there is no good footer.
pub(crate) fn read(
    file: &dyn DiskFile,
    file_bytes: u64,
    segment: u64,
    head: SegmentHead,
) -> io::Result<Option<Vec<Found>>> {
    let Some(end_at) = file_bytes.checked_sub(END_BYTES as u64) else { return Ok(None) };
    let mut end = [0; END_BYTES];
    file.read_exact_at(&mut end, end_at)?;
    let counts = (integer(&end[16..20]) as usize, integer(&end[20..24]) as usize);
    if end[..8] != MAGIC || counts.0 > SEGMENT_RECORDS_MAX || counts.1 > counts.0 {
        return Ok(None);
    }
    let body_bytes = counts.0 * RECORD_BYTES + counts.1 * KEY_BYTES;
    let Some(body_at) = end_at.checked_sub(body_bytes as u64) else { return Ok(None) };
    let mut bytes = vec![0; body_bytes + END_BYTES];
    file.read_exact_at(&mut bytes, body_at)?;
    Ok(decode(&bytes, counts, segment, head).filter(|records| ends_at(records, head) == body_at))
}

fn ends_at(records: &[Found], head: SegmentHead) -> u64 {
    records.last().map_or(head.bytes(), Found::end)
}

fn decode(
    bytes: &[u8],
    (record_count, key_count): (usize, usize),
    segment: u64,
    head: SegmentHead,
) -> Option<Vec<Found>> {
    let (covered, crc_bytes) = bytes.split_at_checked(bytes.len() - 4)?;
    let end = &covered[covered.len() + 4 - END_BYTES..];
    let good = integer(crc_bytes) == u64::from(crc(segment, covered))
        && integer(&end[8..16]) == head.first
        && head.salt == Some(integer(&end[24..28]) as u32);
    if !good {
        return None;
    }
    let (keys, entries) = covered.split_at(key_count * KEY_BYTES);
    let mut at = HEAD_BYTES as u64;
    let mut records = Vec::with_capacity(record_count);
    for (number, entry) in entries.chunks_exact(RECORD_BYTES).take(record_count).enumerate() {
        let key = keys.chunks_exact(KEY_BYTES).nth(integer(&entry[..4]) as usize)?;
        let found = Found {
            at,
            head_bytes: RECORD_HEAD_BYTES as u32,
            length: integer(&entry[4..]) as u32,
            sequence: head.first.checked_add(number as u64)?,
            key: u128::from(integer(&key[..8])) | u128::from(integer(&key[8..])) << 64,
        };
        at = found.end();
        records.push(found);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::Disk;
    use logferry_durable::faulty::FaultyDisk;
    use std::path::Path;

    fn records() -> Vec<Found> {
        let mut at = HEAD_BYTES as u64;
        let record = |(sequence, (key, length)): (u64, (u128, u32))| {
            let found = Found { at, head_bytes: RECORD_HEAD_BYTES as u32, length, sequence, key };
            at = found.end();
            found
        };
        (17..).zip([(5, 7), (6, 0), (5, 9)]).map(record).collect()
    }

    fn read_back(bytes: &[u8]) -> Option<Vec<Found>> {
        let (disk, path) = (FaultyDisk::new(1), Path::new("/segment"));
        let file = disk.create(path).expect("a file");
        file.append(&[bytes]).expect("written");
        let head = SegmentHead { first: 17, before: 17, salt: Some(9) };
        read(&*file, bytes.len() as u64, 3, head).expect("a readable file")
    }

    fn file_bytes() -> (Vec<u8>, usize) {
        let records = records();
        let mut bytes = vec![0; records.last().expect("records").end() as usize];
        let footer_at = bytes.len();
        bytes.extend(encode(3, 17, 9, &records));
        (bytes, footer_at)
    }

    #[test]
    fn version_1_bytes_are_pinned() {
        let (bytes, footer_at) = file_bytes();
        let hex: String = bytes[footer_at..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "05000000000000000000000000000000060000000000000000000000000000000000000007000000010000000000000000000000090000004c4653464f4f5401110000000000000003000000020000000900000063c32706"
        );
    }

    #[test]
    fn what_was_written_is_read_back_and_a_flipped_byte_makes_it_no_footer() {
        let (bytes, footer_at) = file_bytes();
        assert_eq!(read_back(&bytes), Some(records()));
        for byte in footer_at..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[byte] ^= 1 << bit;
                assert_eq!(read_back(&bytes), None, "byte {byte}, bit {bit}");
            }
        }
        for cut in 0..bytes.len() {
            assert_eq!(read_back(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_footer_of_another_segment_is_none() {
        let (bytes, _) = file_bytes();
        let longer = [&bytes[..10], &bytes[..]].concat();
        assert_eq!(read_back(&longer), None, "its records do not end where it begins");
    }
}
