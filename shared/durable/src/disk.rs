//! The [`Disk`] trait and the machine's file system behind it.

use std::fs::{File, FileType, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file opened for appending and reading.
#[allow(clippy::len_without_is_empty)] // a length in bytes, not a collection
pub trait DiskFile: Send + Sync {
    /// Writes all of `parts` at the end. On an error nothing is known of what was written: see [`DiskFile::set_len`].
    fn append(&self, parts: &[&[u8]]) -> io::Result<()>;
    /// Reads exactly `buf.len()` bytes at `offset`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Sets blocks aside for the next `bytes` behind the end; length and content stay. A disk that runs full says so here, before
    /// anything was written or promised. Does nothing where the file system cannot do it.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Cuts back (or grows with zeros) to `len` bytes, and gives up what was reserved beyond.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// fdatasync: bytes and length are on the disk when it returns `Ok`. After an error the descriptor is not to be
    /// trusted again: Linux has marked the pages clean, so a later success means nothing.
    fn sync(&self) -> io::Result<()>;
}

/// What the durable parts ask of a file system. Two implementations: [`RealDisk`] and
/// [`FaultyDisk`](crate::faulty::FaultyDisk).
pub trait Disk: Send + Sync {
    /// Creates a new file; fails with `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Whole file, or `NotFound`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames within one file system, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and its parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// fsync of a folder: its names are on the disk when it returns `Ok`.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Writes the bytes from `from` up to `to` of a file again, as they are, and fsyncs. For bytes that an earlier process
    /// wrote: had its fsync failed, they would be readable and clean and yet not on the disk, and another fsync would
    /// not bring them there.
    fn rewrite(&self, path: &Path, from: u64, to: u64) -> io::Result<()>;
    /// Names of the files in a folder, sorted; empty when there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives the names of the files in a folder one by one, in no order; none when there is no such folder. For folders that may have more
    /// names than there is memory for.
    fn each_name(&self, dir: &Path, take: &mut dyn FnMut(&str)) -> io::Result<()> {
        self.list(dir)?.iter().for_each(|name| take(name));
        Ok(())
    }
    /// Names of the folders in a folder, sorted; empty when there is no such folder. Symbolic links are not followed.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Bytes that files in `dir` may still take.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// When a file was written last, in milliseconds since 1970; `None` where that is not known.
    fn modified_ms(&self, _path: &Path) -> Option<i64> {
        None
    }
    /// A number that no file of this disk has got before (by chance one time in four thousand million). Part of the checksums in a
    /// file, it keeps stale bytes of another one, in blocks that are used again, from checking out.
    fn salt(&self) -> u32;
}

/// Bytes that [`Disk::rewrite`] holds at a time.
const REWRITE_CHUNK_BYTES: usize = 256 << 10;

/// The machine's file system. Its errors name the operation and the path.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// Opens a file for reading only, so that the right to write is not needed; appending to it fails.
    pub fn open_for_reading(self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealFile::open("open", OpenOptions::new().read(true), path)
    }
}

/// Whether an error goes away when somebody makes room: the disk is full, or so is what its quota allows.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Adds operation and path to an error, keeping its kind.
pub(crate) fn context(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{operation} {}: {error}", path.display()))
}

struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealFile {
    fn open(operation: &'static str, options: &OpenOptions, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = options.open(path).map_err(context(operation, path))?;
        Ok(Box::new(RealFile { file, path: path.to_owned() }))
    }
}

/// Writes all of `parts`, in few system calls.
fn write_all_vectored(mut file: &File, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl DiskFile for RealFile {
    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        write_all_vectored(&self.file, parts).map_err(context("append to", &self.path))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset).map_err(context("read", &self.path))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|meta| meta.len()).map_err(context("look at", &self.path))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        let end = self.len()?;
        loop {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, end, bytes) {
                Err(Errno::INTR) => {}
                // Not every file system can: space is then taken when bytes are written, as without this.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(error) => return Err(context("reserve room in", &self.path)(error.into())),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(context("cut", &self.path))
    }

    fn sync(&self) -> io::Result<()> {
        synced(&self.file).map_err(context("sync", &self.path))
    }
}

/// fdatasync, and the question whether the file system is still alive. An ext4 that was shut down (its journal has failed, or its
/// device is gone) between writing the data and entering where they are says yes to the fsync all the same; a write of no bytes it refuses.
fn synced(mut file: &File) -> io::Result<()> {
    file.sync_data()?;
    file.write(&[]).map(drop)
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealFile::open("create", OpenOptions::new().read(true).append(true).create_new(true), path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealFile::open("open", OpenOptions::new().read(true).append(true), path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path).map_err(context("read", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(context("rename", from))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).map_err(context("unlink", path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new("."));
        self.create_dir_all(parent)?;
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) => Err(context("create folder", dir)(error)),
            Ok(()) => self.sync_dir(parent),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(context("sync folder", dir))
    }

    fn rewrite(&self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        // Not opened for appending: Linux would append whatever the offset says.
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(context("open", path))?;
        let mut chunk = vec![0; REWRITE_CHUNK_BYTES];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(REWRITE_CHUNK_BYTES);
            file.read_exact_at(&mut chunk[..length], at).map_err(context("read", path))?;
            file.write_all_at(&chunk[..length], at).map_err(context("rewrite", path))?;
            at += length as u64;
        }
        synced(&file).map_err(context("sync", path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        list_kind(dir, |kind| kind.is_file())
    }

    fn each_name(&self, dir: &Path, take: &mut dyn FnMut(&str)) -> io::Result<()> {
        each_of_kind(dir, |kind| kind.is_file(), take)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        list_kind(dir, |kind| kind.is_dir())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found =
            rustix::fs::statvfs(dir).map_err(|error| context("ask for the room in", dir)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn modified_ms(&self, path: &Path) -> Option<i64> {
        let modified = std::fs::metadata(path).ok()?.modified().ok()?;
        let since_1970 = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since_1970.as_millis()).ok()
    }

    fn salt(&self) -> u32 {
        // The standard library seeds each hasher from the system's random numbers.
        RandomState::new().build_hasher().finish() as u32
    }
}

fn list_kind(dir: &Path, wanted: fn(FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    each_of_kind(dir, wanted, &mut |name| names.push(name.to_owned()))?;
    names.sort();
    Ok(names)
}

fn each_of_kind(dir: &Path, wanted: fn(FileType) -> bool, take: &mut dyn FnMut(&str)) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(context("list", dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(context("list", dir))?;
        if entry.file_type().is_ok_and(wanted) {
            entry.file_name().to_str().into_iter().for_each(&mut *take);
        }
    }
    Ok(())
}

/// Folder of a path; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces `path` by `bytes`: temporary file in the same folder, fsync, rename, fsync of the folder. After a crash
/// the file is the old or the new one, whole.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(disk, path, &[bytes]).map(drop)
}

/// [`replace`] by several parts; gives the new file, open.
pub(crate) fn replace_with(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> io::Result<Box<dyn DiskFile>> {
    replace_by(disk, path, |file| file.append(parts))
}

/// [`replace`] by what `write` appends, for content that is too large to be held in memory; gives the new file, open.
pub fn replace_by(
    disk: &dyn Disk,
    path: &Path,
    write: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Box<dyn DiskFile>> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match disk.unlink(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary)?;
    let renamed = write(&*file).and_then(|()| file.sync()).and_then(|()| disk.rename(&temporary, path));
    if let Err(error) = renamed {
        // Its bytes would keep a full disk full. If this fails too, the next replacement removes it.
        let _ = disk.unlink(&temporary);
        return Err(error);
    }
    disk.sync_dir(parent(path))?;
    Ok(file)
}
