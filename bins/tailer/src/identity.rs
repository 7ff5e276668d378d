//! What tells one file from another, and the id of the stream that a file is.

use logferry_pack::StreamId;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Most bytes of a first line that count towards identity.
pub const HEAD_BYTES_MAX: usize = 1 << 10;

/// A file as the system knows it. An inode number that is used again comes with another birth time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileKey {
    /// Device.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970; 0 where the file system keeps none.
    pub born_ns: i64,
}

impl FileKey {
    /// The key of no file.
    pub const NOWHERE: FileKey = FileKey { device: 0, inode: 0, born_ns: 0 };
    /// The first one in their order.
    pub(crate) const FIRST: FileKey = FileKey { device: 0, inode: 0, born_ns: i64::MIN };
}

/// The first line of a file: how much of it counts, and its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Bytes from the start of the file, with the newline if it is among them; 1 to [`HEAD_BYTES_MAX`].
    pub length: u16,
    /// xxh3-128 of them.
    pub hash: u128,
}

impl Head {
    /// The head of a file that starts with `bytes`; `None` while its first line is not complete and shorter
    /// than [`HEAD_BYTES_MAX`].
    pub fn complete(bytes: &[u8]) -> Option<Head> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        match memchr::memchr(b'\n', window) {
            Some(newline) => Some(Head::hashed(&window[..=newline])),
            None if window.len() == HEAD_BYTES_MAX => Some(Head::hashed(window)),
            None => None,
        }
    }

    /// The head of a file that will not grow any more; `None` when it is empty.
    pub fn finished(bytes: &[u8]) -> Option<Head> {
        let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        if window.is_empty() { None } else { Head::complete(window).or(Some(Head::hashed(window))) }
    }

    /// What of the first line of a file that starts with `bytes` is there; `None` when nothing is, or all of it.
    pub fn begun(bytes: &[u8]) -> Option<Head> {
        if Head::complete(bytes).is_some() { None } else { Head::finished(bytes) }
    }

    /// Whether a file that starts with `bytes` has this head.
    pub fn agrees(&self, bytes: &[u8]) -> bool {
        let length = usize::from(self.length);
        bytes.len() >= length && xxh3_128(&bytes[..length]) == self.hash
    }

    fn hashed(bytes: &[u8]) -> Head {
        Head { length: bytes.len() as u16, hash: xxh3_128(bytes) }
    }
}

/// The bytes before an offset: tells later whether a file that grew is still the same up to there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndMark {
    /// Offset of the first of them.
    pub offset: u64,
    /// How many; at most [`END_MARK_BYTES_MAX`].
    pub length: usize,
    /// xxh3-128 of them.
    pub hash: u128,
}

/// Most bytes of an [`EndMark`].
pub const END_MARK_BYTES_MAX: usize = 128;

impl EndMark {
    /// Of a run of bytes at `offset`, its last ones.
    pub fn of(offset: u64, bytes: &[u8]) -> EndMark {
        let length = bytes.len().min(END_MARK_BYTES_MAX);
        let skipped = bytes.len() - length;
        EndMark { offset: offset + skipped as u64, length, hash: xxh3_128(&bytes[skipped..]) }
    }

    /// Whether these are the bytes.
    pub fn agrees(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length && xxh3_128(bytes) == self.hash
    }
}

/// The id of the stream that a file is in one of its generations. All integers go in little-endian, the host with
/// its length before it, so that no two inputs look alike.
pub fn stream_id(host: &str, key: FileKey, generation: u32, head: &Head) -> StreamId {
    let mut hasher = Xxh3::new();
    hasher.update(&(host.len() as u64).to_le_bytes());
    hasher.update(host.as_bytes());
    hasher.update(&key.device.to_le_bytes());
    hasher.update(&key.inode.to_le_bytes());
    hasher.update(&key.born_ns.to_le_bytes());
    hasher.update(&generation.to_le_bytes());
    hasher.update(&head.length.to_le_bytes());
    hasher.update(&head.hash.to_le_bytes());
    StreamId(hasher.digest128())
}

/// The id of the stream that stands for the hours of a source in which no file had a line.
pub fn hours_stream_id(host: &str, source: &str) -> StreamId {
    let mut hasher = Xxh3::new();
    for name in ["hours", host, source] {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    StreamId(hasher.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FileKey = FileKey { device: 1, inode: 2, born_ns: 3 };

    #[test]
    fn a_head_waits_for_the_newline_or_a_kibibyte() {
        assert_eq!(Head::complete(b""), None);
        assert_eq!(Head::complete(b"half a li"), None);
        assert_eq!(Head::complete(b"line\nrest").map(|head| head.length), Some(5));
        assert_eq!(Head::complete(&[b'x'; 3000]).map(|head| head.length), Some(1024));
        assert_eq!(Head::finished(b"half").map(|head| head.length), Some(4));
        assert_eq!(Head::finished(b""), None);
        assert_eq!(Head::begun(b"half").map(|head| head.length), Some(4));
        assert_eq!(
            (Head::begun(b""), Head::begun(b"line\n"), Head::begun(&[b'x'; 3000])),
            (None, None, None)
        );
    }

    #[test]
    fn a_head_agrees_with_what_grew_from_it_only() {
        let head = Head::complete(b"first\n").expect("complete");
        assert!(head.agrees(b"first\nsecond\n"));
        assert!(!head.agrees(b"First\nsecond\n"));
        assert!(!head.agrees(b"firs"));
    }

    #[test]
    fn every_part_of_the_identity_changes_the_stream() {
        let head = Head::complete(b"first\n").expect("complete");
        let base = stream_id("web-1", KEY, 0, &head);
        let other = Head::complete(b"other\n").expect("complete");
        let different = [
            stream_id("web-2", KEY, 0, &head),
            stream_id("web-1", FileKey { device: 9, ..KEY }, 0, &head),
            stream_id("web-1", FileKey { inode: 9, ..KEY }, 0, &head),
            stream_id("web-1", FileKey { born_ns: 9, ..KEY }, 0, &head),
            stream_id("web-1", KEY, 1, &head),
            stream_id("web-1", KEY, 0, &other),
        ];
        assert!(different.iter().all(|id| *id != base));
        assert_eq!(base, stream_id("web-1", KEY, 0, &head));
    }

    #[test]
    fn the_stream_id_of_a_release_stays_the_same() {
        let head = Head::complete(b"first\n").expect("complete");
        let id = stream_id("web-1", KEY, 0, &head).to_string();
        assert_eq!(id, PINNED, "a changed formula ships every file again after an upgrade");
    }
    const PINNED: &str = "453858ef786c37a16684d9f282f2a3c0";
}
