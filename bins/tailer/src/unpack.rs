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

mod shipped;

pub use shipped::Shipped;

/// Largest file once unpacked, in bytes: more is taken for an attack on the disk.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;
/// Room that unpacking leaves free on the file system of `var_dir`, in bytes, or this part of a smaller one: for the state, and for the
/// host's applications.
const FREE_BYTES_MIN: u64 = 1 << 30;
const FREE_SHARE: u64 = 10;
/// Bytes written between two looks at the free room.
const FREE_LOOKED_AT_BYTES: u64 = 16 << 20;
/// First bytes of a file that tell what it is: the header of an archive is the longest of them.
pub const FIRST_BYTES: usize = TAR_HEADER_BYTES;
/// A header of tar, and where in it its checksum is: the sum of its bytes, those of the sum taken for spaces, in octal digits.
const TAR_HEADER_BYTES: usize = 512;
const TAR_SUM: std::ops::Range<usize> = 148..156;
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
    (first_bytes.starts_with(magic) && !is_archive_name(path)).then_some(packing)
}

/// Whether a file has the name of an archive: it holds files, not lines.
fn is_archive_name(path: &Path) -> bool {
    let plain = plain_path(path);
    let ending = plain.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ["tar", "tgz", "tbz", "tbz2", "txz", "tzst"].contains(&ending))
}

/// Whether a file is an archive, or compressed in a way that is not read, told by its name and its first bytes: it has no lines.
pub fn is_foreign(path: &Path, first_bytes: &[u8]) -> bool {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
    let magic: &[u8] = match path.extension().and_then(|ending| ending.to_str()) {
        Some("tgz") => GZIP,
        Some("gz") if is_archive_name(path) => GZIP,
        Some("tzst") => ZSTD,
        Some("zst") if is_archive_name(path) => ZSTD,
        Some("tbz" | "tbz2") => b"BZh",
        Some("bz2") if is_archive_name(path) => b"BZh",
        Some("tar") => return is_tar(first_bytes),
        Some("xz" | "txz") => XZ,
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

fn is_tar(first_bytes: &[u8]) -> bool {
    let Some(header) = first_bytes.get(..TAR_HEADER_BYTES) else { return false };
    let counted = |(at, byte): (usize, &u8)| u64::from(if TAR_SUM.contains(&at) { b' ' } else { *byte });
    let sum: u64 = header.iter().enumerate().map(counted).sum();
    let said = header[TAR_SUM].split(|byte| matches!(byte, b' ' | 0)).find(|digits| !digits.is_empty());
    // One without a file in it is nothing but zeros.
    let Some(said) = said else { return header.iter().all(|byte| *byte == 0) };
    std::str::from_utf8(said).ok().and_then(|said| u64::from_str_radix(said, 8).ok()) == Some(sum)
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
    /// What it may be a copy of: then it is not unpacked.
    pub may_be: Vec<Shipped>,
    /// How often it could not be unpacked before.
    pub failures: u32,
}

impl UnpackJob {
    /// Its bytes as they are. Under its path may be another file by now: then there is none.
    fn open(&self) -> io::Result<io::BufReader<File>> {
        let file = files::open_below(&self.path, &self.roots)?;
        if files::facts_of(&file)?.key != self.key {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name by now"));
        }
        Ok(io::BufReader::with_capacity(CHUNK_BYTES, file))
    }

    /// Whether the file is not under its path any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.open().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }
}

/// What a compressed file holds.
#[derive(Debug)]
pub enum Unpacked {
    /// Its content, in a file without a name.
    Content(File),
    /// Nothing that was not shipped.
    Shipped(Shipped),
}

/// Unpacks one file after another until nobody asks for more. `folder` has room for the largest.
pub fn run(folder: &Path, jobs: &Receiver<UnpackJob>, follower: &Sender<Event>) {
    while let Ok(job) = jobs.recv() {
        let unpacked = shipped::shipped_as(&job).and_then(|shipped| match shipped {
            Some(shipped) => Ok(Unpacked::Shipped(shipped)),
            None => unpack(&job, folder).map(Unpacked::Content),
        });
        if follower.send(Event::Unpacked { job, unpacked }).is_err() {
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
    unpack_leaving(job, folder, free_min(folder)?)
}

fn unpack_leaving(job: &UnpackJob, folder: &Path, free_min: u64) -> io::Result<File> {
    let packed = job.open()?;
    let mut unpacked = tempfile::tempfile_in(folder)?;
    let mut reader = reader(job.packing, packed)?.take(UNPACKED_BYTES_MAX + 1);
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut total, mut looked_at) = (0, 0);
    loop {
        if total >= looked_at {
            looked_at = total + FREE_LOOKED_AT_BYTES;
            leave_free(folder, free_min)?;
        }
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

/// Room that must stay free where `folder` is, in bytes.
fn free_min(folder: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(FREE_BYTES_MIN.min(facts.f_blocks.saturating_mul(facts.f_frsize) / FREE_SHARE))
}

fn leave_free(folder: &Path, free_min: u64) -> io::Result<()> {
    let facts = rustix::fs::statvfs(folder)?;
    if facts.f_bavail.saturating_mul(facts.f_frsize) >= free_min.saturating_add(FREE_LOOKED_AT_BYTES) {
        return Ok(());
    }
    let what =
        format!("unpacked it would leave less than {} MiB free in {}", free_min >> 20, folder.display());
    Err(io::Error::new(io::ErrorKind::StorageFull, what))
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
        assert_eq!(of("a.tar.gz", &[0x1f, 0x8b, 8]), None, "an archive has no lines");
        assert!(foreign("a.tar.gz", &[0x1f, 0x8b, 8]) && foreign("a.tgz", &[0x1f, 0x8b, 8]));
        assert!(foreign("a.tar.zst", &[0x28, 0xb5, 0x2f, 0xfd]) && foreign("a.tbz2", b"BZh9"));
        assert!(!foreign("a.tgz", b"plain text\n") && !foreign("a.tar", b"plain text\n"));
        assert!(
            !foreign("a.xz", b"plain text\n") && !foreign("a.xz", b"") && !foreign("a.log", b"\xfd7zXZ\0")
        );
    }

    /// What `tar` writes before a file: name, mode, owners, length, time, checksum.
    fn tar_header() -> Vec<u8> {
        let mut header = vec![0; TAR_HEADER_BYTES];
        for (at, text) in [
            (0, "app.log"),
            (100, "0000644\0"),
            (124, "00000000012\0"),
            (136, "15152367011\0"),
            (257, "ustar"),
        ] {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        header[TAR_SUM].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[TAR_SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    #[test]
    fn an_archive_is_known_by_the_checksum_of_its_header() {
        let is = |bytes: &[u8]| is_foreign(Path::new("a.tar"), bytes);
        assert!(is(&tar_header()) && is(&[0; TAR_HEADER_BYTES]));
        let text = b"a line of text that is none of a header\n".repeat(20);
        assert!(!is(&text) && !is(&tar_header()[..500]) && !is(b""));
        let mut damaged = tar_header();
        damaged[3] ^= 1;
        assert!(!is(&damaged));
    }

    #[test]
    fn a_file_that_is_still_being_written_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        let whole = gzip(&b"line\n".repeat(10_000));
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        assert!(unpack_leaving(&job(&path), folder.path(), 0).is_err());
        std::fs::write(&path, &whole).expect("written");
        let file = unpack_leaving(&job(&path), folder.path(), 0).expect("whole");
        assert_eq!(file.metadata().expect("facts").len(), 50_000);
    }

    #[test]
    fn another_file_under_its_name_is_not_unpacked_in_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(b"first\n")).expect("written");
        let job = job(&path);
        std::fs::rename(&path, folder.path().join("b.gz")).expect("renamed");
        std::fs::write(&path, gzip(b"second\n")).expect("written");
        let error = unpack_leaving(&job, folder.path(), 0).expect_err("another");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_is_unpacked_into_room_that_must_stay_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(b"line\n")).expect("written");
        let error = unpack_leaving(&job(&path), folder.path(), u64::MAX >> 1).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let least = free_min(folder.path()).expect("a file system");
        assert!(least <= FREE_BYTES_MIN, "small file systems keep a part free");
    }

    pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    pub(super) fn job(path: &Path) -> UnpackJob {
        UnpackJob {
            source: 0,
            path: path.to_owned(),
            roots: Vec::new(),
            key: files::facts_at(path).expect("it is there").key,
            size: 1,
            packing: Packing::Gzip,
            skip_lines: 0,
            may_be: Vec::new(),
            failures: 0,
        }
    }
}
