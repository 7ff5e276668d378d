//! Bytes of a segment file, version 2. All integers little-endian.
//!
//! | part | field | bytes | meaning |
//! |---|---|---|---|
//! | head | magic | 8 | `LFSPOOL`, version 2 |
//! |      | segment | 8 | number of the segment, as in its file name |
//! |      | first | 8 | sequence of its first record |
//! |      | before | 8 | records of earlier segments below this sequence are on the disk, those from it on were given up |
//! |      | salt | 4 | differs between files, so that stale bytes of another one never check out |
//! |      | crc | 4 | crc32c of the 36 bytes before it |
//! | record | magic | 4 | `LFR2` |
//! |        | length | 4 | of the payload, at most [`PAYLOAD_BYTES_MAX`] |
//! |        | sequence | 8 | ascending by one in a segment, ascending over all segments |
//! |        | key | 16 | the owner's: the stream |
//! |        | synced | 8 | records below this sequence were known to be on the disk when this one was written |
//! |        | salt | 4 | of the segment |
//! |        | crc | 4 | crc32c of segment number, length, sequence, key, synced, salt and payload |
//! |        | payload | length | the owner's |
//! | footer | | | of a sealed segment, behind its last record: see [`footer`](crate::footer) |
//!
//! The salt stands in each record, so that a segment can be read whose head is damaged.
//!
//! Version 1 has no salts (its head is 28 bytes long, the head of a record `LFR1` 44) and no footers. It is read, but not written.

use logferry_durable::DiskFile;

/// Largest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Most records in a segment: it bounds the memory that their index takes.
pub(crate) const SEGMENT_RECORDS_MAX: usize = 16_384;
pub(crate) const HEAD_BYTES: usize = 40;
pub(crate) const RECORD_HEAD_BYTES: usize = 48;
/// What all records of all versions begin with.
pub(crate) const RECORD_MAGIC_PREFIX: &[u8] = b"LFR";

const MAGIC: &[u8; 7] = b"LFSPOOL";
const VERSION: u8 = 2;
const RECORD_MAGIC: [u8; 4] = *b"LFR2";
const HEAD_BYTES_1: usize = 28;
const RECORD_HEAD_BYTES_1: usize = 44;
const RECORD_MAGIC_1: [u8; 4] = *b"LFR1";

/// What stands at the start of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    Good(SegmentHead),
    /// Written by a newer program, of this version.
    Newer(u8),
    Bad,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHead {
    /// Sequence of the first record.
    pub(crate) first: u64,
    /// Sequence up to which records of earlier segments are on the disk.
    pub(crate) before: u64,
    /// `None` in version 1.
    pub(crate) salt: Option<u32>,
}

impl SegmentHead {
    /// Length of the head in the file.
    pub(crate) fn bytes(&self) -> u64 {
        if self.salt.is_some() { HEAD_BYTES as u64 } else { HEAD_BYTES_1 as u64 }
    }
}

pub(crate) fn head(segment: u64, first: u64, before: u64, salt: u32) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..7].copy_from_slice(MAGIC);
    bytes[7] = VERSION;
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    bytes[24..32].copy_from_slice(&before.to_le_bytes());
    bytes[32..36].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..36]);
    bytes[36..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Little-endian integer of up to 8 bytes.
pub(crate) fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Reads the head from the first bytes of a file.
pub(crate) fn parse_head(bytes: &[u8], segment: u64) -> Head {
    let version = match bytes.get(..8) {
        Some(magic) if magic.starts_with(MAGIC) => magic[7],
        _ => return Head::Bad,
    };
    let length = match version {
        1 => HEAD_BYTES_1,
        VERSION => HEAD_BYTES,
        newer if newer > VERSION => return Head::Newer(newer),
        _ => return Head::Bad,
    };
    let Some(bytes) = bytes.get(..length) else { return Head::Bad };
    let (front, crc) = bytes.split_at(length - 4);
    if integer(crc) != u64::from(crc32c::crc32c(front)) || integer(&front[8..16]) != segment {
        return Head::Bad;
    }
    let first = integer(&front[16..24]);
    Head::Good(match version {
        1 => SegmentHead { first, before: first, salt: None },
        _ => SegmentHead { first, before: integer(&front[24..32]), salt: Some(integer(&front[32..]) as u32) },
    })
}

/// Reads the head of a segment file of `length` bytes, and no more of it.
pub(crate) fn read_head(file: &dyn DiskFile, length: u64, segment: u64) -> Head {
    let mut bytes = [0; HEAD_BYTES];
    let there = usize::try_from(length).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
    match file.read_exact_at(&mut bytes[..there], 0) {
        Ok(()) => parse_head(&bytes[..there], segment),
        Err(_) => Head::Bad,
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHead {
    pub(crate) length: usize,
    pub(crate) sequence: u64,
    pub(crate) key: u128,
    pub(crate) synced: u64,
    /// `None` in version 1.
    pub(crate) salt: Option<u32>,
    /// What the checksum should be, and what it is of all but the payload.
    crc: u32,
    crc_of_head: u32,
}

/// Head of a record whose payload is `parts`, one after another.
pub(crate) fn record_head(
    segment: u64,
    salt: u32,
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
    bytes[40..44].copy_from_slice(&salt.to_le_bytes());
    let crc = crc_of_head(segment, &bytes[4..44]);
    let crc = parts.iter().fold(crc, |crc, part| crc32c::crc32c_append(crc, part));
    bytes[44..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn crc_of_head(segment: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), covered)
}

/// The head of a record at the start of `bytes`, unchecked but for its magic and length.
pub(crate) fn parse_record_head(bytes: &[u8], segment: u64) -> Option<RecordHead> {
    let head_bytes = match bytes.get(..4)? {
        magic if magic == RECORD_MAGIC => RECORD_HEAD_BYTES,
        magic if magic == RECORD_MAGIC_1 => RECORD_HEAD_BYTES_1,
        _ => return None,
    };
    let bytes = bytes.get(..head_bytes)?;
    let length = integer(&bytes[4..8]) as usize;
    (length <= PAYLOAD_BYTES_MAX).then(|| RecordHead {
        length,
        sequence: integer(&bytes[8..16]),
        key: u128::from(integer(&bytes[16..24])) | u128::from(integer(&bytes[24..32])) << 64,
        synced: integer(&bytes[32..40]),
        salt: (head_bytes == RECORD_HEAD_BYTES).then(|| integer(&bytes[40..44]) as u32),
        crc: integer(&bytes[head_bytes - 4..]) as u32,
        crc_of_head: crc_of_head(segment, &bytes[4..head_bytes - 4]),
    })
}

impl RecordHead {
    /// Length of the head in the file.
    pub(crate) fn bytes(&self) -> u64 {
        if self.salt.is_some() { RECORD_HEAD_BYTES as u64 } else { RECORD_HEAD_BYTES_1 as u64 }
    }

    /// Whether head and payload (given in pieces) are those that were written.
    pub(crate) fn checks<'a>(&self, payload: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let crc = |crc, piece: &[u8]| crc32c::crc32c_append(crc, piece);
        payload.into_iter().fold(self.crc_of_head, crc) == self.crc
    }

    /// The checksum so far, for a payload that is read piece by piece: see [`RecordHead::ends_with`].
    pub(crate) fn crc_start(&self) -> u32 {
        self.crc_of_head
    }

    /// Whether this is the checksum of the whole record.
    pub(crate) fn ends_with(&self, crc: u32) -> bool {
        self.crc == crc
    }
}

/// A good record in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Offset of its head in the file.
    pub(crate) at: u64,
    /// Length of its head.
    pub(crate) head_bytes: u32,
    /// Length of its payload.
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) key: u128,
}

impl Found {
    /// Offset behind its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.bytes()
    }

    /// Bytes of head and payload.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.length)
    }
}

/// A range of a segment in which nothing could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// Offset of its first byte in the segment file.
    pub at: u64,
    /// Length in bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn version_2_bytes_are_pinned() {
        assert_eq!(
            hex(&head(3, 17, 15, 0x0a0b_0c0d)),
            "4c4653504f4f4c02030000000000000011000000000000000f000000000000000d0c0b0a1e0e432b"
        );
        assert_eq!(
            hex(&record_head(3, 0x0a0b_0c0d, 17, 5, 16, &[b"pay", b"load"])),
            "4c4652320700000011000000000000000500000000000000000000000000000010000000000000000d0c0b0a7f973d60"
        );
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = head(3, 17, 17, 1);
        bytes[7] = 9;
        assert_eq!(parse_head(&bytes, 3), Head::Newer(9));
        bytes[7] = 0;
        assert_eq!(parse_head(&bytes, 3), Head::Bad);
        assert_eq!(parse_head(&head(3, 17, 17, 1), 4), Head::Bad, "the file of another number");
        assert_eq!(parse_head(&head(3, 17, 17, 1)[..39], 3), Head::Bad);
    }
}
