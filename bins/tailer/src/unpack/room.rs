//! Room for what is unpacked, where `var_dir` is.

use super::{FIRST_BYTES, Packing, UnpackJob};
use crate::files;
use std::fs::File;
use std::io;
use std::path::Path;

/// Room that unpacking leaves free on the file system of `var_dir`, in bytes, or this part of a smaller one: for the state, and for the
/// host's applications.
const FREE_BYTES_MIN: u64 = 1 << 30;
const FREE_SHARE: u64 = 10;
/// Bytes written between two looks at the free room.
pub(super) const LOOKED_AT_BYTES: u64 = 16 << 20;

/// Room that must stay free where `folder` is, in bytes.
pub(super) fn free_min(folder: &Path) -> io::Result<u64> {
    Ok(FREE_BYTES_MIN.min(disk_bytes(folder)? / FREE_SHARE))
}

/// # Errors
/// There is less.
pub(super) fn leave_free(folder: &Path, free_min: u64) -> io::Result<()> {
    let facts = rustix::fs::statvfs(folder)?;
    if facts.f_bavail.saturating_mul(facts.f_frsize) >= free_min.saturating_add(LOOKED_AT_BYTES) {
        return Ok(());
    }
    let what =
        format!("unpacked it would leave less than {} MiB free in {}", free_min >> 20, folder.display());
    Err(io::Error::new(io::ErrorKind::StorageFull, what))
}

/// Why there is no room for a file: if it says itself that it is larger than the disk, trying again is in vain.
pub(super) fn explained(
    error: io::Error,
    job: &UnpackJob,
    file: &File,
    folder: &Path,
    free_min: u64,
) -> io::Error {
    let (Ok(disk), Some(said)) = (disk_bytes(folder), said_bytes(job.packing, file)) else { return error };
    if said <= disk.saturating_sub(free_min) {
        return error;
    }
    let what = format!(
        "unpacked it has at least {} MiB, and the disk of {} has {} MiB, of which {} stay free: it will never fit. Give the tailer a larger \
         `var_dir`, or unpack the file to `logferry-tailer --stdin`",
        said >> 20,
        folder.display(),
        disk >> 20,
        free_min >> 20
    );
    io::Error::new(io::ErrorKind::StorageFull, what)
}

fn disk_bytes(folder: &Path) -> io::Result<u64> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(facts.f_blocks.saturating_mul(facts.f_frsize))
}

/// How many bytes a file says that it has, at least, once it is unpacked; of bzip2 no file does.
fn said_bytes(packing: Packing, file: &File) -> Option<u64> {
    match packing {
        Packing::Gzip => {
            // RFC 1952, ISIZE: the length of the last member, modulo 2^32.
            let mut last = [0; 4];
            let at = files::facts_of(file).ok()?.size.checked_sub(last.len() as u64)?;
            let filled = files::read_at(file, at, &mut last).ok()?;
            (filled == last.len()).then_some(u32::from_le_bytes(last).into())
        }
        Packing::Zstd => {
            let mut first = [0; FIRST_BYTES];
            let filled = files::read_at(file, 0, &mut first).ok()?;
            zstd::zstd_safe::get_frame_content_size(&first[..filled]).ok()?
        }
        Packing::Bzip2 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gzip, job};
    use super::*;

    #[test]
    fn small_file_systems_keep_a_part_free() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(free_min(folder.path()).expect("a file system") <= FREE_BYTES_MIN);
    }

    #[test]
    fn a_file_that_says_that_it_is_larger_than_the_disk_is_said_to_fit_never() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.gz");
        let lines = b"line\n".repeat(1_000);
        let says = |packing, bytes: &[u8], free_min| {
            std::fs::write(&path, bytes).expect("written");
            let job = UnpackJob { packing, ..job(&path) };
            let file = File::open(&path).expect("opened");
            let error = io::Error::from(io::ErrorKind::StorageFull);
            explained(error, &job, &file, folder.path(), free_min).to_string().contains("never fit")
        };
        let disk = disk_bytes(folder.path()).expect("a file system");
        let zstd = zstd::bulk::compress(&lines, 1).expect("in memory");
        for (packing, bytes) in [(Packing::Gzip, gzip(&lines)), (Packing::Zstd, zstd)] {
            assert!(says(packing, &bytes, disk - 4_999) && !says(packing, &bytes, disk - 5_000));
        }
        assert!(!says(Packing::Bzip2, b"BZh9 and no length", disk));
    }
}
