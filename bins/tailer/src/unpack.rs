//! Compressed copies of log files: known by name and first bytes, unpacked into a file without a name, then read as any other.

use crate::event::Event;
use crate::files;
use crate::identity::FileKey;
use bzip2::read::MultiBzDecoder;
use crossbeam_channel::{Receiver, Sender};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

/// Largest file once unpacked, in bytes: more is taken for an attack on the disk.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;
/// Bytes unpacked at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// A way of compression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
    /// `.bz2`
    Bzip2,
}

/// Whether a file has the name of a compressed one.
pub fn is_packed_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["gz", "zst", "bz2"].iter().any(|packed| ending == *packed))
}

/// The path that a file had before it was compressed; its own, if it has not the name of a compressed one.
pub fn plain_path(path: &Path) -> PathBuf {
    if is_packed_name(path) { path.with_extension("") } else { path.to_owned() }
}

/// The path that a rotated file had before it was compressed, in whatever way.
pub fn uncompressed_path(path: &Path) -> PathBuf {
    let is_foreign = path
        .extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| ["xz", "lz4", "lzma", "lzo", "Z", "7z", "zip"].contains(&ending));
    if is_foreign { path.with_extension("") } else { plain_path(path) }
}

/// How a file is compressed, told by its name and its first bytes; `None` for a plain file.
pub fn packing(path: &Path, first_bytes: &[u8]) -> Option<Packing> {
    let (packing, magic): (Packing, &[u8]) = match path.extension()?.to_str()? {
        "gz" => (Packing::Gzip, &[0x1f, 0x8b]),
        "zst" => (Packing::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
        "bz2" => (Packing::Bzip2, b"BZh"),
        _ => return None,
    };
    first_bytes.starts_with(magic).then_some(packing)
}

/// Whether a file is compressed in a way that is not read, told by its name and its first bytes: it has no lines.
pub fn is_foreign(path: &Path, first_bytes: &[u8]) -> bool {
    let magic: &[u8] = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => &[0xfd, b'7', b'z', b'X', b'Z', 0],
        Some("lz4") => &[0x04, 0x22, 0x4d, 0x18],
        Some("lzma") => &[0x5d, 0, 0],
        Some("lzo") => &[0x89, b'L', b'Z', b'O'],
        Some("Z") => &[0x1f, 0x9d],
        Some("7z") => &[b'7', b'z', 0xbc, 0xaf],
        Some("zip") => b"PK",
        _ => return false,
    };
    first_bytes.starts_with(magic)
}

/// A file to unpack.
#[derive(Debug)]
pub struct UnpackJob {
    /// Number of its source.
    pub source: usize,
    /// Path.
    pub path: PathBuf,
    /// Folders below which it must lie, if any.
    pub roots: Vec<String>,
    /// Identity.
    pub key: FileKey,
    /// Length as it is.
    pub size: u64,
    /// Way of compression.
    pub packing: Packing,
    /// Number of its first lines that were shipped by a legacy system.
    pub skip_lines: u64,
}

/// Unpacks one file after another until nobody asks for more. `folder` has room for the largest.
pub fn run(folder: &Path, jobs: &Receiver<UnpackJob>, follower: &Sender<Event>) {
    while let Ok(job) = jobs.recv() {
        let file = unpack(&job, folder);
        if follower.send(Event::Unpacked { job, file }).is_err() {
            return;
        }
    }
}

/// What compressed bytes hold: all members or frames, one behind the other.
///
/// # Errors
/// No memory for the decoder.
pub fn reader(packing: Packing, packed: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    Ok(match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
    })
}

/// The content of a file that is compressed, in a file without a name.
pub(crate) fn unpack(job: &UnpackJob, folder: &Path) -> io::Result<File> {
    let packed = io::BufReader::with_capacity(CHUNK_BYTES, files::open_below(&job.path, &job.roots)?);
    let mut unpacked = tempfile::tempfile_in(folder)?;
    let mut reader = reader(job.packing, packed)?.take(UNPACKED_BYTES_MAX + 1);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(unpacked),
            Ok(count) => {
                total += count as u64;
                if total > UNPACKED_BYTES_MAX {
                    return Err(io::Error::other("it is too large once unpacked"));
                }
                unpacked.write_all(&chunk[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_file_is_known_by_name_and_first_bytes() {
        let of = |name: &str, bytes: &[u8]| packing(Path::new(name), bytes);
        assert_eq!(of("a.log.1.gz", &[0x1f, 0x8b, 8]), Some(Packing::Gzip));
        assert_eq!(of("a.zst", &[0x28, 0xb5, 0x2f, 0xfd, 0]), Some(Packing::Zstd));
        assert_eq!(of("a.bz2", b"BZh9"), Some(Packing::Bzip2));
        assert_eq!(of("a.log", &[0x1f, 0x8b, 8]), None);
        assert_eq!(of("a.gz", b"plain text\n"), None);
        let foreign = |name: &str, bytes: &[u8]| is_foreign(Path::new(name), bytes);
        assert!(foreign("a.log.1.xz", b"\xfd7zXZ\0\0\x04") && foreign("a.lz4", b"\x04\x22\x4d\x18\x60"));
        assert!(
            !foreign("a.xz", b"plain text\n") && !foreign("a.xz", b"") && !foreign("a.log", b"\xfd7zXZ\0")
        );
    }

    #[test]
    fn a_file_that_is_still_being_written_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&b"line\n".repeat(10_000)).expect("in memory");
        let whole = encoder.finish().expect("in memory");
        let job = |size| UnpackJob {
            source: 0,
            path: path.clone(),
            roots: Vec::new(),
            key: FileKey { device: 0, inode: 0, born_ns: 0 },
            size,
            packing: Packing::Gzip,
            skip_lines: 0,
        };
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        assert!(unpack(&job(1), folder.path()).is_err());
        std::fs::write(&path, &whole).expect("written");
        let file = unpack(&job(2), folder.path()).expect("whole");
        assert_eq!(file.metadata().expect("facts").len(), 50_000);
    }
}
