//! Which files a glob leads to, and in which folders a change of names may lead it to others. Lists folders, asks for no file:
//! with many files that is the difference between milliseconds and a good part of a core.

use crate::files::{fixed_folder, is_glob};
use glob::{MatchOptions, Pattern};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

/// Folders below each other that `**` goes down at most; only a loop over several links is deeper.
const DEPTH_MAX: usize = 64;

/// A name that a glob leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Path.
    pub path: PathBuf,
    /// Inode number that its folder says; `None` where another file may be behind it (a symbolic link), or it was not listed.
    pub inode: Option<u64>,
}

/// What a walk found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Walk {
    /// Names, in the order of the folders.
    pub found: Vec<Found>,
    /// Folders whose names matter.
    pub folders: BTreeSet<PathBuf>,
    /// Folders that could not be listed.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Walks a glob or a plain path.
pub fn walk(path: &str) -> Walk {
    let mut walk = Walk::default();
    if !is_glob(path) {
        walk.folders.insert(fixed_folder(path));
        walk.found.push(Found { path: PathBuf::from(path), inode: None });
        return walk;
    }
    let fixed = fixed_folder(path);
    let rest = if fixed == Path::new(".") && !path.starts_with("./") {
        path
    } else {
        path.strip_prefix(fixed.to_string_lossy().as_ref()).unwrap_or(path)
    };
    let steps: Vec<&str> = rest.split('/').filter(|step| !step.is_empty()).collect();
    walk.step(&fixed, &steps);
    walk
}

impl Walk {
    fn step(&mut self, folder: &Path, steps: &[&str]) {
        match steps {
            [] => {}
            ["**", rest @ ..] => self.below(folder, rest, 0),
            [name] if is_glob(name) => self.files(folder, name),
            [name] => {
                self.folders.insert(folder.to_owned());
                let path = join(folder, name.as_ref());
                self.found.push(Found { path, inode: None });
            }
            [name, rest @ ..] if is_glob(name) => {
                for below in self.folders_in(folder, Some(name)) {
                    self.step(&below, rest);
                }
            }
            [name, rest @ ..] => {
                let below = join(folder, name.as_ref());
                if below.is_dir() {
                    self.step(&below, rest);
                } else {
                    // Its coming is seen from above.
                    self.folders.insert(folder.to_owned());
                }
            }
        }
    }

    /// `**`: the folder itself and all below it. `**` at the end stands for folders only: it leads to no file.
    fn below(&mut self, folder: &Path, rest: &[&str], depth: usize) {
        if rest.is_empty() || depth > DEPTH_MAX {
            return;
        }
        self.step(folder, rest);
        for below in self.folders_in(folder, None) {
            if !below.is_symlink() || !leads_up(folder, &below) {
                self.below(&below, rest, depth + 1);
            }
        }
    }

    fn files(&mut self, folder: &Path, name: &str) {
        let Ok(pattern) = Pattern::new(name) else { return };
        for entry in self.list(folder) {
            let file_name = entry.file_name();
            if !matches(&pattern, &file_name) {
                continue;
            }
            let inode = match entry.file_type() {
                Ok(kind) if kind.is_dir() => continue,
                Ok(kind) if kind.is_file() => Some(entry.ino()),
                _ => None,
            };
            self.found.push(Found { path: join(folder, &file_name), inode });
        }
    }

    fn folders_in(&mut self, folder: &Path, name: Option<&str>) -> Vec<PathBuf> {
        let pattern = name.and_then(|name| Pattern::new(name).ok());
        let mut folders: Vec<PathBuf> = self
            .list(folder)
            .into_iter()
            .filter(|entry| pattern.as_ref().is_none_or(|pattern| matches(pattern, &entry.file_name())))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink()))
            .map(|entry| join(folder, &entry.file_name()))
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        folders
    }

    fn list(&mut self, folder: &Path) -> Vec<std::fs::DirEntry> {
        self.folders.insert(folder.to_owned());
        let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        listed.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                self.unreadable.push((folder.to_owned(), error.to_string()));
            }
            Vec::new()
        })
    }
}

/// Whether a link leads to a folder that it is below of.
fn leads_up(folder: &Path, link: &Path) -> bool {
    let real = std::fs::canonicalize(folder).and_then(|folder| Ok((folder, std::fs::canonicalize(link)?)));
    real.is_ok_and(|(folder, target)| folder.starts_with(target))
}

/// A name in a folder; "." adds nothing to it.
fn join(folder: &Path, name: &std::ffi::OsStr) -> PathBuf {
    if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) }
}

fn matches(pattern: &Pattern, name: &std::ffi::OsStr) -> bool {
    // A name need not be UTF-8: each byte that is none counts as a character.
    pattern.matches_with(&name.to_string_lossy(), MatchOptions::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with files and folders of many shapes.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for folder in ["a/x/deep", "b/x", ".hidden", "log[1]"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("folder");
        }
        let files =
            ["a/1.log", "a/x/2.log", "a/x/deep/3.log", "b/4.log", "b/x/5.txt", "6.log", ".hidden/7.log"];
        for file in files.iter().chain(&[".8.log", "log[1]/9.log"]) {
            std::fs::write(root.path().join(file), file).expect("file");
        }
        std::os::unix::fs::symlink(root.path().join("a/1.log"), root.path().join("link.log")).expect("link");
        std::os::unix::fs::symlink(root.path().join("b"), root.path().join("c")).expect("link");
        root
    }

    #[test]
    fn a_walk_finds_what_the_glob_crate_finds() {
        let root = tree();
        let at = |text: &str| format!("{}/{text}", root.path().display());
        for pattern in [
            "*.log",
            "*/*.log",
            "a/*.log",
            "**/*.log",
            "**/x/*",
            "a/**/*.log",
            "?/x/*",
            "*/x/[0-9].log",
            "*/1.log",
            "[ab]/*.txt",
            "none/*.log",
            "log[[]1]/*.log",
            "*",
            "a*/x/deep/*",
        ] {
            let pattern = at(pattern);
            let files = |paths: Vec<PathBuf>| -> BTreeSet<PathBuf> {
                paths.into_iter().filter(|path| path.is_file()).collect()
            };
            let expected = files(glob::glob(&pattern).expect("a good pattern").flatten().collect());
            let found = files(walk(&pattern).found.into_iter().map(|found| found.path).collect());
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn a_link_to_a_folder_above_is_not_gone_down_again() {
        let root = tree();
        std::os::unix::fs::symlink(root.path(), root.path().join("a/x/up")).expect("link");
        let walked = walk(&format!("{}/**/*.log", root.path().display()));
        assert!(walked.found.iter().all(|found| !found.path.to_string_lossy().contains("/up/")));
    }

    #[test]
    fn every_folder_in_which_a_new_name_would_matter_is_told() {
        let root = tree();
        let at = |text: &str| root.path().join(text);
        let walked = walk(at("*/x/*.log").to_str().expect("plain"));
        for folder in ["", "a", "b", "a/x", "b/x", ".hidden"] {
            let folder = if folder.is_empty() { root.path().to_owned() } else { at(folder) };
            let above = folder.ends_with("a") || folder.ends_with("b");
            assert!(above || walked.folders.contains(&folder), "{}", folder.display());
        }
    }

    #[test]
    fn inodes_are_told_for_files_and_not_for_links() {
        use std::os::unix::fs::MetadataExt;
        let root = tree();
        let walked = walk(root.path().join("*.log").to_str().expect("plain"));
        let inode_of = |name: &str| {
            walked.found.iter().find(|found| found.path.ends_with(name)).map(|found| found.inode)
        };
        let six = std::fs::metadata(root.path().join("6.log")).expect("facts").ino();
        assert_eq!((inode_of("6.log"), inode_of("link.log")), (Some(Some(six)), Some(None)));
    }
}
