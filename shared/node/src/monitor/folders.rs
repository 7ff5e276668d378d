//! What a node's folders tell of trouble to come: room on their disks, and what lies in the quarantine and the dead-letter folder.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files that are counted; more are as bad.
const FILES_MAX: usize = 10_000;
/// Folders in `var_dir` that should be empty, and the figures that tell how many files they hold.
const SHOULD_BE_EMPTY: [(&str, &str); 2] =
    [(crate::quarantine::FOLDER, "quarantine_files"), ("dead_letter", "dead_letter_files")];

/// The folders; asking may wait for a disk.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    watched: Mutex<Vec<PathBuf>>,
}

impl Folders {
    /// The disk of this folder is watched, too.
    pub(crate) fn watch(&self, folder: &Path) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
    }

    /// Names and values: of the disk with the least room `disk_free_bytes` and `disk_size_bytes`, and counts of files.
    pub(crate) fn figures(&self, var_dir: &Path) -> Vec<(&'static str, u64)> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let disks = std::iter::once(var_dir).chain(watched.iter().map(PathBuf::as_path)).filter_map(disk);
        let fullest = disks.min_by(|one, other| free_share(one).total_cmp(&free_share(other)));
        let mut figures = Vec::new();
        if let Some((free, size)) = fullest {
            figures.extend([("disk_free_bytes", free), ("disk_size_bytes", size)]);
        }
        figures.extend(SHOULD_BE_EMPTY.map(|(folder, name)| (name, files_in(&var_dir.join(folder)))));
        figures
    }
}

/// Bytes that programs may still write, and all.
fn disk(folder: &Path) -> Option<(u64, u64)> {
    let told = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    (told.f_blocks > 0).then(|| (bytes(told.f_bavail), bytes(told.f_blocks)))
}

fn free_share((free, size): &(u64, u64)) -> f64 {
    *free as f64 / *size as f64
}

fn files_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_file = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    entries.filter(is_file).take(FILES_MAX).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_with_the_least_room_and_what_was_set_aside_are_told() {
        let (var, folders) = (tempfile::tempdir().expect("a folder"), Folders::default());
        folders.watch(Path::new("/no/such/folder"));
        let figure = |name| folders.figures(var.path()).into_iter().find(|(told, _)| *told == name);
        assert!(
            figure("disk_free_bytes") <= figure("disk_size_bytes").map(|(_, size)| ("disk_free_bytes", size))
        );
        assert_eq!(figure("quarantine_files"), Some(("quarantine_files", 0)));
        std::fs::create_dir(var.path().join("quarantine")).expect("made");
        std::fs::write(var.path().join("quarantine/1-bad.pack"), b"x").expect("written");
        assert_eq!(figure("quarantine_files"), Some(("quarantine_files", 1)));
    }
}
