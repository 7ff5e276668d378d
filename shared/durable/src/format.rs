//! Bytes of a log slot, version 2. All integers little-endian.
//!
//! | part | field | bytes | meaning |
//! |---|---|---|---|
//! | head | magic | 8 | `LFLOG`, 0, 0, version 2 |
//! |      | generation | 8 | grows by one with each snapshot; the newest good slot wins |
//! |      | salt | 4 | differs between files, so that stale bytes of another one never check out |
//! |      | crc | 4 | crc32c of the 20 bytes before it |
//! | record | length | 4 | of the payload, at most [`RECORD_BYTES_MAX`] |
//! |        | kind | 1 | 1 start, 2 snapshot, 3 record |
//! |        | sequence | 8 | 0 for the first record of a slot, then 1, 2, 3 … |
//! |        | synced | 8 | records below this sequence were known to be on the disk when this one was written |
//! |        | crc | 4 | crc32c of salt, length, kind, sequence, synced and payload |
//! |        | payload | length | the owner's |
//!
//! The first record of a slot is a start or a snapshot, the others are records. A bad record is damage if a later one
//! says that it was synced; otherwise it is the trace of a crash, and the log ends before it.
//!
//! Version 1 is the same, but its salt is the crc32c of the generation. It is read and appended to; new slots are of version 2.

/// Largest payload of a record, in bytes.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
pub(crate) const HEAD_BYTES: usize = 24;
pub(crate) const RECORD_HEAD_BYTES: usize = 25;
const MAGIC: [u8; 8] = *b"LFLOG\0\0\x02";
const MAGIC_1: [u8; 8] = *b"LFLOG\0\0\x01";
/// Records further ahead than this are no continuation of the log.
const SEQUENCE_JUMP_MAX: u64 = 1 << 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Start = 1,
    Snapshot = 2,
    Record = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Start, Kind::Snapshot, Kind::Record].into_iter().find(|kind| *kind as u8 == byte)
    }
}

pub(crate) fn head(generation: u64, salt: u32) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    bytes[16..20].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Generation and salt, if the head is good.
fn parse_head(bytes: &[u8]) -> Option<(u64, u32)> {
    let bytes: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
    let (generation, salt) = (integer(&bytes[8..16]), integer(&bytes[16..20]) as u32);
    let known = match &bytes[..8] {
        magic if magic == MAGIC => true,
        magic if magic == MAGIC_1 => salt == crc32c::crc32c(&generation.to_le_bytes()),
        _ => false,
    };
    (known && integer(&bytes[20..]) == u64::from(crc32c::crc32c(&bytes[..20]))).then_some((generation, salt))
}

fn record_crc(salt: u32, head: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, head), payload)
}

pub(crate) fn record_head(
    salt: u32,
    kind: Kind,
    sequence: u64,
    synced: u64,
    payload: &[u8],
) -> [u8; RECORD_HEAD_BYTES] {
    let mut bytes = [0; RECORD_HEAD_BYTES];
    bytes[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[4] = kind as u8;
    bytes[5..13].copy_from_slice(&sequence.to_le_bytes());
    bytes[13..21].copy_from_slice(&synced.to_le_bytes());
    let crc = record_crc(salt, &bytes[..21], payload);
    bytes[21..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Little-endian integer of up to 8 bytes.
fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// What a slot file holds.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) salt: u32,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) sequence_next: u64,
    /// Length up to the end of the last good record.
    pub(crate) good_bytes: u64,
    /// Length up to the end of the last record that a later one says was synced.
    pub(crate) synced_bytes: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) damaged_records: u64,
}

struct Record<'a> {
    kind: Kind,
    sequence: u64,
    synced: u64,
    payload: &'a [u8],
}

/// The record at the start of `bytes`, if there is a whole good one whose sequence is not below `sequence_min`.
fn record_at(bytes: &[u8], salt: u32, sequence_min: u64) -> Option<Record<'_>> {
    let head = bytes.get(..RECORD_HEAD_BYTES)?;
    let length = usize::try_from(integer(&head[..4])).ok().filter(|length| *length <= RECORD_BYTES_MAX)?;
    let kind = Kind::from_byte(head[4])?;
    let sequence = integer(&head[5..13]);
    if sequence < sequence_min || sequence - sequence_min > SEQUENCE_JUMP_MAX {
        return None;
    }
    let payload = bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length)?;
    (u64::from(record_crc(salt, &head[..21], payload)) == integer(&head[21..])).then_some(Record {
        kind,
        sequence,
        synced: integer(&head[13..21]),
        payload,
    })
}

/// Reads a slot; `None` when its head or first record is no good, so that nothing in it can be used.
pub(crate) fn parse(bytes: &[u8]) -> Option<Slot> {
    let (generation, salt) = parse_head(bytes)?;
    let first = record_at(&bytes[HEAD_BYTES..], salt, 0).filter(|first| first.sequence == 0)?;
    let snapshot = match first.kind {
        Kind::Start => None,
        Kind::Snapshot => Some(first.payload.to_vec()),
        Kind::Record => return None,
    };
    let mut at = HEAD_BYTES + RECORD_HEAD_BYTES + first.payload.len();
    let mut slot = Slot {
        generation,
        salt,
        snapshot,
        records: Vec::new(),
        sequence_next: 1,
        good_bytes: at as u64,
        synced_bytes: at as u64,
        torn_bytes: 0,
        damaged_records: 0,
    };
    let mut found: Vec<(usize, Record<'_>)> = Vec::new();
    while at < bytes.len() {
        let sequence_min = found.last().map_or(1, |(_, record)| record.sequence + 1);
        match record_at(&bytes[at..], salt, sequence_min).filter(|record| record.kind == Kind::Record) {
            Some(record) => {
                at += RECORD_HEAD_BYTES + record.payload.len();
                found.push((at, record));
            }
            // Perhaps a bad record with good ones behind it: look for the next that checks out.
            None => at += 1,
        }
    }
    let synced = found.iter().map(|(_, record)| record.synced).max().unwrap_or(0);
    for (end, record) in found {
        if record.sequence > slot.sequence_next && synced <= slot.sequence_next {
            break;
        }
        slot.damaged_records += record.sequence - slot.sequence_next;
        slot.sequence_next = record.sequence + 1;
        slot.records.push(record.payload.to_vec());
        slot.good_bytes = end as u64;
        if record.sequence < synced {
            slot.synced_bytes = slot.good_bytes;
        }
    }
    slot.torn_bytes = bytes.len() as u64 - slot.good_bytes;
    Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_bytes_are_pinned() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&head(7, 0x0a0b_0c0d)), "4c464c4f4700000207000000000000000d0c0b0aa2ae6b67");
        let record = record_head(0x0a0b_0c0d, Kind::Record, 5, 4, b"payload");
        assert_eq!(hex(&record), "07000000030500000000000000040000000000000070d00583");
    }

    #[test]
    fn a_slot_of_version_1_is_read() {
        let hex = concat!(
            "4c464c4f4700000107000000000000008eb771766c15f2f7", // head, generation 7
            "0300000002000000000000000000000000000000009ce81d38616c6c",
            "030000000301000000000000000100000000000000f78703976f6e65",
            "030000000302000000000000000200000000000000d74b909d74776f",
        );
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let slot = parse(&bytes).expect("a usable slot");
        assert_eq!((slot.generation, slot.sequence_next), (7, 3));
        assert_eq!(slot.snapshot.as_deref(), Some(&b"all"[..]));
        assert_eq!(slot.records, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!((slot.torn_bytes, slot.damaged_records), (0, 0));
        // The second record says that the first was synced, and nothing speaks for the second.
        assert_eq!(slot.synced_bytes, bytes.len() as u64 - 28);
    }

    #[test]
    fn records_of_another_file_of_the_same_generation_do_not_check_out() {
        let slot_bytes = |salt: u32| {
            let mut bytes = head(1, salt).to_vec();
            for (sequence, kind) in [Kind::Start, Kind::Record, Kind::Record].into_iter().enumerate() {
                bytes.extend(record_head(salt, kind, sequence as u64, 0, b"same"));
                bytes.extend(b"same");
            }
            bytes
        };
        let record_bytes = RECORD_HEAD_BYTES + 4;
        let (mut bytes, stale) = (slot_bytes(5), slot_bytes(6));
        let last = bytes.len() - record_bytes;
        bytes[last..].copy_from_slice(&stale[last..]);
        let slot = parse(&bytes).expect("a usable slot");
        assert_eq!((slot.records.len(), slot.torn_bytes), (1, record_bytes as u64));
    }

    #[test]
    fn a_damaged_record_is_passed_over_and_counted() {
        let mut bytes = head(1, 9).to_vec();
        let mut starts = Vec::new();
        for (sequence, payload) in [&b""[..], b"one", b"two", b"three"].into_iter().enumerate() {
            starts.push(bytes.len());
            let kind = if sequence == 0 { Kind::Start } else { Kind::Record };
            bytes.extend(record_head(9, kind, sequence as u64, sequence as u64, payload));
            bytes.extend(payload);
        }
        for byte in starts[2]..starts[3] {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            let slot = parse(&damaged).expect("a usable slot");
            assert_eq!(slot.records, [b"one".to_vec(), b"three".to_vec()]);
            assert_eq!((slot.damaged_records, slot.torn_bytes), (1, 0));
        }
        for cut in starts[3] + 1..bytes.len() {
            let slot = parse(&bytes[..cut]).expect("a usable slot");
            assert_eq!(slot.records, [b"one".to_vec(), b"two".to_vec()]);
            assert_eq!((slot.damaged_records, slot.torn_bytes), (0, (cut - starts[3]) as u64));
        }
    }
}
