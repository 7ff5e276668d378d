//! A segment file, seen through a window of bounded size: whatever a segment's size, little of it is in memory.

use crate::format::RECORD_MAGIC_PREFIX;
use logferry_durable::DiskFile;

/// Bytes read at a time.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Grain at which bytes that cannot be read are passed over: a page.
const SECTOR_BYTES: usize = 4 << 10;

const MAGIC_BYTES: usize = RECORD_MAGIC_PREFIX.len();

/// The window. Bytes that the disk cannot read are zeros in it, and counted.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    /// Length of the file, or what of it is looked at.
    end: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Whether a part of what was looked at could not be read.
    pub(crate) unreadable: bool,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, end: u64) -> Window<'a> {
        Window { file, end, start: 0, bytes: Vec::new(), unreadable: false }
    }

    /// Length of what is looked at.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes from `at` on: `wanted` of them, fewer only at the end. `wanted` is at most [`CHUNK_BYTES`].
    pub(crate) fn get(&mut self, at: u64, wanted: usize) -> &[u8] {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let inside = at >= self.start && at + wanted as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.fill(at, left.min(CHUNK_BYTES));
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        &self.bytes[from..(from + wanted).min(self.bytes.len())]
    }

    fn fill(&mut self, at: u64, length: usize) {
        self.start = at;
        self.bytes.clear();
        self.bytes.resize(length, 0);
        if self.file.read_exact_at(&mut self.bytes, at).is_ok() {
            return;
        }
        // What a failed read has left in the buffer is unknown.
        self.bytes.fill(0);
        for (number, sector) in self.bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            if self.file.read_exact_at(sector, at + (number * SECTOR_BYTES) as u64).is_err() {
                sector.fill(0);
                self.unreadable = true;
            }
        }
    }

    /// Offset of the next bytes from `at` on that a record may begin with; the end when there are none.
    pub(crate) fn next_record_magic(&mut self, mut at: u64) -> u64 {
        let finder = memchr::memmem::Finder::new(RECORD_MAGIC_PREFIX);
        while at < self.end {
            let in_window = (self.start + self.bytes.len() as u64).saturating_sub(at);
            // What is in the window already is looked through first: there may be a candidate every few bytes.
            let wanted = if at >= self.start && in_window >= MAGIC_BYTES as u64 {
                in_window as usize
            } else {
                CHUNK_BYTES
            };
            let bytes = self.get(at, wanted);
            if let Some(place) = finder.find(bytes) {
                return at + place as u64;
            }
            if bytes.len() < MAGIC_BYTES {
                break;
            }
            // The last bytes may be the first of one.
            at += (bytes.len() + 1 - MAGIC_BYTES) as u64;
        }
        self.end
    }

    /// crc32c of a range, going on from `crc`.
    pub(crate) fn crc(&mut self, mut crc: u32, mut at: u64, to: u64) -> u32 {
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let piece = self.get(at, wanted);
            if piece.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, piece);
            at += piece.len() as u64;
        }
        crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::Disk;
    use logferry_durable::faulty::FaultyDisk;
    use std::path::Path;

    #[test]
    fn a_magic_is_found_wherever_it_lies_between_two_chunks() {
        let (disk, path) = (FaultyDisk::new(1), Path::new("/file"));
        for place in CHUNK_BYTES - 4..CHUNK_BYTES + 4 {
            let mut bytes = vec![b'L'; CHUNK_BYTES + 100];
            bytes[place..place + 4].copy_from_slice(b"LFR2");
            let file = disk.create(path).expect("a file");
            file.append(&[&bytes]).expect("written");
            let mut window = Window::new(&*file, bytes.len() as u64);
            assert_eq!(window.next_record_magic(0), place as u64);
            assert_eq!(window.next_record_magic(place as u64 + 1), bytes.len() as u64);
            disk.unlink(path).expect("removed");
        }
    }

    #[test]
    fn sectors_that_cannot_be_read_are_zeros_and_the_others_are_there() {
        let (disk, path) = (FaultyDisk::new(1), Path::new("/file"));
        let file = disk.create(path).expect("a file");
        file.append(&[&[7; 20_000]]).expect("written");
        disk.make_range_unreadable(path, 5_000..5_001);
        let mut window = Window::new(&*file, 20_000);
        let bytes = window.get(0, 20_000);
        let zeros: Vec<usize> = (0..20_000).filter(|at| bytes[*at] == 0).collect();
        assert_eq!((zeros[0], zeros.len()), (SECTOR_BYTES, SECTOR_BYTES));
        assert!(window.unreadable);
    }
}
