//! Whether a compressed file holds nothing but what was shipped, told while it is unpacked to nowhere.

use super::{CHUNK_BYTES, UnpackJob, reader};
use crate::identity::{HEAD_BYTES_MAX, Head};
use crate::ledger::record::Tail;
use logferry_pack::StreamId;
use std::io::{self, Read};

/// What was shipped of a stream, all that there was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shipped {
    /// Stream.
    pub stream: StreamId,
    /// Its first line.
    pub head: Head,
    /// How long it was.
    pub length: u64,
    /// The pack at its end.
    pub tail: Tail,
}

/// One that a file may be, and the checksum of what was seen so far of the place where the last pack would be.
struct Candidate {
    shipped: Shipped,
    sum: u32,
}

impl Candidate {
    fn take(&mut self, offset: u64, chunk: &[u8]) {
        let Tail { offset: from, span, .. } = self.shipped.tail;
        let within = |at: u64| at.clamp(offset, offset + chunk.len() as u64) - offset;
        let part = &chunk[within(from) as usize..within(from + span) as usize];
        self.sum = crc32c::crc32c_append(self.sum, part);
    }
}

/// Which of those that a file may be it is, to the last byte. Reads no further than the longest of them.
///
/// # Errors
/// The file cannot be read.
pub(super) fn shipped_as(job: &UnpackJob) -> io::Result<Option<Shipped>> {
    if job.may_be.is_empty() {
        return Ok(None);
    }
    let packed = job.open()?;
    let buffered = io::BufReader::with_capacity(CHUNK_BYTES, packed.try_clone()?);
    let mut content = reader(job.packing, buffered)?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    content.by_ref().take(HEAD_BYTES_MAX as u64).read_to_end(&mut chunk)?;
    let alike = job.may_be.iter().filter(|shipped| shipped.head.agrees(&chunk));
    let mut candidates: Vec<Candidate> =
        alike.map(|shipped| Candidate { shipped: *shipped, sum: 0 }).collect();
    let longest = candidates.iter().map(|candidate| candidate.shipped.length).max().unwrap_or(0);
    let mut offset = 0;
    while !chunk.is_empty() {
        candidates.iter_mut().for_each(|candidate| candidate.take(offset, &chunk));
        offset += chunk.len() as u64;
        if offset > longest {
            return Ok(None);
        }
        chunk.clear();
        content.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    }
    let is_it = |candidate: &&Candidate| {
        candidate.shipped.length == offset && candidate.sum == candidate.shipped.tail.sum
    };
    let shipped = candidates.iter().find(is_it).map(|candidate| candidate.shipped);
    job.check(&packed).map(|()| shipped)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gzip, job};
    use super::*;

    #[test]
    fn only_a_file_that_ends_where_shipping_ended_was_shipped() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = |count: usize| -> Vec<u8> {
            (0..count).flat_map(|number| format!("line {number} of a log\n").into_bytes()).collect()
        };
        let whole = lines(50_000);
        let head = Head::complete(&whole).expect("a line");
        let shipped = |length: usize, span: usize| {
            let tail = &whole[length - span..length];
            let tail = Tail { offset: (length - span) as u64, span: span as u64, sum: crc32c::crc32c(tail) };
            Shipped { stream: StreamId(length as u128), head, length: length as u64, tail }
        };
        // A last pack that is larger than what is unpacked at a time, and one that is smaller.
        let may_be = [shipped(whole.len(), 300_000), shipped(lines(40_000).len(), 1_000)];
        let other_head = Shipped { head: Head::complete(b"x\n").expect("a line"), ..may_be[0] };
        let asked = |content: &[u8], may_be: &[Shipped]| {
            let path = folder.path().join("a.gz");
            std::fs::write(&path, gzip(content)).expect("written");
            shipped_as(&UnpackJob { may_be: may_be.to_vec(), ..job(&path) }).expect("readable")
        };
        assert_eq!(asked(&whole, &may_be), Some(may_be[0]));
        assert_eq!(asked(&lines(40_000), &may_be), Some(may_be[1]));
        assert_eq!(asked(&lines(40_001), &may_be), None, "a line more");
        assert_eq!(asked(&lines(39_999), &may_be), None, "a line less");
        assert_eq!(asked(&whole, &[other_head]), None);
        let mut changed = whole.clone();
        let at = changed.len() - 100;
        changed[at] ^= 1;
        assert_eq!(asked(&changed, &may_be), None, "other bytes at the end");
        assert_eq!(asked(b"", &may_be), None);
    }
}
