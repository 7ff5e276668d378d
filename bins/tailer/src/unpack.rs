//! Compressed copies of log files: known by name and first bytes, unpacked into a file without a name, then read as any other.

use crate::event::Event;
use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::ledger::looks::FileLook;
use bzip2::read::MultiBzDecoder;
use crossbeam_channel::{Receiver, Sender};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

mod room;
mod shipped;

pub use shipped::Shipped;

/// Largest file once unpacked, in bytes: more is taken for an attack on the disk.
const UNPACKED_BYTES_MAX: u64 = 64 << 30;
/// First bytes of a file that tell what it is: the header of an archive is the longest of them.
pub const FIRST_BYTES: usize = TAR_HEADER_BYTES;
/// A header of tar, and where in it its checksum is: the sum of its bytes, those of the sum taken for spaces, in octal digits.
const TAR_HEADER_BYTES: usize = 512;
const TAR_SUM: std::ops::Range<usize> = 148..156;
/// The clock that stamps files ticks no more seldom: a file that was changed longer ago has another stamp when it is changed again.
const STAMP_TICK: Duration = Duration::from_millis(20);
/// One that is changed all the time is read after so many ticks all the same.
const STAMPS_WAITED_FOR: usize = 3;
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
pub(crate) fn is_archive_name(path: &Path) -> bool {
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
    /// How it looks.
    pub look: FileLook,
    /// Its first bytes when it was met.
    pub begins: FirstBytes,
    /// It, held open in case its path is given to another before its turn comes.
    pub held: Option<File>,
    /// No path that the source leads to has it any more: it is read from where it is held.
    pub is_moved: bool,
    /// When it was noticed that no path leads to it any more.
    pub gone_since: Option<Instant>,
    /// How it looked when it was met, if it had another content then.
    pub replaced: Option<FileLook>,
    /// Way of compression.
    pub packing: Packing,
    /// Number of its first lines that were shipped by a legacy system.
    pub skip_lines: u64,
    /// What it may be a copy of: then it is not unpacked.
    pub may_be: Vec<Shipped>,
    /// How often it could not be unpacked before.
    pub failures: u32,
}

/// The first bytes of a file, at most [`FIRST_BYTES`]: whoever goes on writing it leaves them as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FirstBytes {
    length: usize,
    sum: u32,
}

impl FirstBytes {
    /// Of a file that begins with these.
    pub fn of(bytes: &[u8]) -> FirstBytes {
        let bytes = &bytes[..bytes.len().min(FIRST_BYTES)];
        FirstBytes { length: bytes.len(), sum: crc32c::crc32c(bytes) }
    }

    /// Whether a file that begins with `bytes` may be the same.
    pub fn agrees(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.length).is_some_and(|bytes| crc32c::crc32c(bytes) == self.sum)
    }
}

impl UnpackJob {
    /// All of a file.
    pub fn new(path: &Path, roots: Vec<String>, facts: &Facts, packing: Packing) -> UnpackJob {
        UnpackJob {
            source: 0,
            path: path.to_owned(),
            roots,
            key: facts.key,
            look: facts.look(),
            begins: FirstBytes::default(),
            held: None,
            is_moved: false,
            gone_since: None,
            replaced: None,
            packing,
            skip_lines: 0,
            may_be: Vec::new(),
            failures: 0,
        }
    }

    /// The file. Under its path may be another one by now: if it is held and has no name any more, it is read all the same.
    fn open(&self) -> io::Result<File> {
        let at_path = files::open_below(&self.path, &self.roots)
            .and_then(|file| Ok(files::facts_of(&file)?.key == self.key).map(|is_it| is_it.then_some(file)));
        if let Ok(Some(file)) = at_path {
            return Ok(file);
        }
        if let Some(held) = &self.held
            && (self.is_moved || files::facts_of(held)?.links == 0)
        {
            let mut held = held.try_clone()?;
            held.rewind()?;
            return Ok(held);
        }
        Err(at_path
            .err()
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "another file has its name by now")))
    }

    /// Takes note of how the file looks before it is read, once it is sure that a change from now on will be seen.
    fn begin(&mut self) -> io::Result<()> {
        let file = self.open()?;
        let mut facts = files::facts_of(&file)?;
        for _ in 0..STAMPS_WAITED_FOR {
            let Some(age) = age_of(facts.changed_ns).filter(|age| *age < STAMP_TICK) else { break };
            std::thread::sleep(STAMP_TICK - age);
            facts = files::facts_of(&file)?;
        }
        let mut first_bytes = [0; FIRST_BYTES];
        let filled = files::read_at(&file, 0, &mut first_bytes)?;
        if !self.begins.agrees(&first_bytes[..filled]) {
            self.replaced = self.replaced.or(Some(self.look));
        }
        (self.look, self.begins) = (facts.look(), FirstBytes::of(&first_bytes[..filled]));
        Ok(())
    }

    /// What was read of the file is of one content if it looks as it did before.
    fn check(&self, file: &File) -> io::Result<()> {
        if files::facts_of(file)?.look() == self.look {
            return Ok(());
        }
        Err(io::Error::other("it was written to while it was read"))
    }

    /// Whether the file is not under its path any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.open().is_err_and(|error| files::is_absent(&error))
    }
}

/// How long ago a file was changed; nothing if that is to come.
fn age_of(changed_ns: i64) -> Option<Duration> {
    let changed =
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(changed_ns).ok()?))?;
    SystemTime::now().duration_since(changed).ok()
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
    while let Ok(mut job) = jobs.recv() {
        let shipped = job.begin().and_then(|()| shipped::shipped_as(&job));
        let unpacked = shipped.and_then(|shipped| match shipped {
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
    unpack_leaving(job, folder, room::free_min(folder)?)
}

fn unpack_leaving(job: &UnpackJob, folder: &Path, free_min: u64) -> io::Result<File> {
    let packed = job.open()?;
    let mut unpacked = tempfile::tempfile_in(folder)?;
    let buffered = io::BufReader::with_capacity(CHUNK_BYTES, packed.try_clone()?);
    let mut reader = reader(job.packing, buffered)?.take(UNPACKED_BYTES_MAX + 1);
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut total, mut looked_at) = (0, 0);
    loop {
        if total >= looked_at {
            looked_at = total + room::LOOKED_AT_BYTES;
            room::leave_free(folder, free_min)
                .map_err(|error| room::explained(error, job, &packed, folder, free_min))?;
        }
        match reader.read(&mut chunk) {
            Ok(0) => return job.check(&packed).map(|()| unpacked),
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
    fn a_file_without_a_name_is_unpacked_if_it_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(b"line\n")).expect("written");
        let mut job = UnpackJob { held: File::open(&path).ok(), ..job(&path) };
        std::fs::rename(&path, folder.path().join("b.gz")).expect("renamed");
        assert!(job.is_gone(), "its name tells what it is");
        std::fs::remove_file(folder.path().join("b.gz")).expect("removed");
        for _ in 0..2 {
            job.begin().expect("it is held");
            let file = unpack_leaving(&job, folder.path(), 0).expect("it is held");
            assert_eq!(file.metadata().expect("facts").len(), 5);
        }
        assert!(job.replaced.is_none() && !job.is_gone());
    }

    #[test]
    fn a_file_that_was_written_to_while_it_was_read_is_an_error_and_another_beginning_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(b"one\n")).expect("written");
        let mut job = UnpackJob { begins: FirstBytes::of(&gzip(b"one\n")), ..job(&path) };
        let met = job.look;
        job.begin().expect("it is there");
        std::fs::write(&path, gzip(b"two\n")).expect("written");
        assert!(unpack_leaving(&job, folder.path(), 0).is_err() && job.replaced.is_none());
        job.begin().expect("it is there");
        assert!(unpack_leaving(&job, folder.path(), 0).is_ok() && job.replaced == Some(met));
        job.replaced = None;
        std::fs::write(&path, [gzip(b"two\n"), gzip(b"three\n")].concat()).expect("written");
        job.begin().expect("it is there");
        assert!(unpack_leaving(&job, folder.path(), 0).is_ok() && job.replaced.is_none(), "it was added to");
    }

    #[test]
    fn nothing_is_unpacked_into_room_that_must_stay_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        std::fs::write(&path, gzip(b"line\n")).expect("written");
        let error = unpack_leaving(&job(&path), folder.path(), u64::MAX >> 1).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("in memory");
        encoder.finish().expect("in memory")
    }

    pub(super) fn job(path: &Path) -> UnpackJob {
        let facts = files::facts_at(path).expect("it is there");
        UnpackJob::new(path, Vec::new(), &facts, Packing::Gzip)
    }
}
