//! What is in folders: listed once for all who ask, as long as nothing changes there. When thousands of files are rotated or deleted at once,
//! each is looked for.

use super::Follower;
use super::copies::is_named_after_any;
use crate::files;
use crate::identity::FileKey;
use crate::rotated_names::{plain_name, root_of};
use metrics::counter;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Listings are given up when nobody has asked for so long.
const KEPT: Duration = Duration::from_secs(10);
const SECOND_NS: i64 = 1_000_000_000;

/// Names in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of their bytes, with the inodes that they lead to.
    names: Vec<(OsString, u64)>,
    by_inode: HashMap<u64, Vec<usize>>,
}

impl Listing {
    fn read(folder: &Path) -> io::Result<Listing> {
        counter!("logferry_tailer_folders_listed_total").increment(1);
        let mut entries = std::fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| (entry.file_name(), entry.ino())))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable();
        let mut listing = Listing::default();
        for (name, inode) in entries {
            listing.by_inode.entry(inode).or_default().push(listing.names.len());
            listing.names.push((name, inode));
        }
        Ok(listing)
    }

    /// Where a file is in this folder, under a name that will do.
    ///
    /// # Errors
    /// What may be the file cannot be asked.
    pub(super) fn find(
        &self,
        folder: &Path,
        key: FileKey,
        will_do: impl Fn(&Path) -> bool,
    ) -> io::Result<Option<PathBuf>> {
        let mut hidden = None;
        for path in self.with_inode(key.inode).map(|name| folder.join(name)).filter(|path| will_do(path)) {
            match files::facts_at(&path) {
                Ok(facts) if facts.key == key => return Ok(Some(path)),
                Err(error) if !files::is_absent(&error) => hidden = Some(error),
                Ok(_) | Err(_) => {}
            }
        }
        hidden.map_or(Ok(None), Err)
    }

    fn with_inode(&self, inode: u64) -> impl Iterator<Item = &OsStr> {
        self.by_inode.get(&inode).into_iter().flatten().map(|index| self.names[*index].0.as_os_str())
    }

    /// Where bytes of the names that were asked for are no text, nothing is known of what follows them: whoever asks looks closer.
    pub(super) fn beginning_with(&self, root: &str) -> impl Iterator<Item = &OsStr> {
        self.entries_beginning_with(root).map(|(name, _)| name)
    }

    fn entries_beginning_with(&self, root: &str) -> impl Iterator<Item = (&OsStr, u64)> {
        let root = root.split(char::REPLACEMENT_CHARACTER).next().unwrap_or_default();
        let from = self.names.partition_point(|(name, _)| name.as_bytes() < root.as_bytes());
        let names = self.names[from..].iter().map(|(name, inode)| (name.as_os_str(), *inode));
        names.take_while(move |(name, _)| name.as_bytes().starts_with(root.as_bytes()))
    }
}

/// Names in folders, each with the inode that it had when its folder was listed.
pub(super) struct Entries {
    pub(super) found: Vec<(PathBuf, u64)>,
    /// Some could not be listed because too many descriptors are open.
    pub(super) is_without_descriptors: bool,
}

/// What changes when a name in a folder does: the folder, and its times.
type Stamp = (FileKey, i64, i64);

/// Listings by folder.
#[derive(Debug, Default)]
pub(super) struct Listings {
    known: HashMap<PathBuf, (Stamp, Arc<Listing>)>,
    asked: Option<Instant>,
    /// A descriptor that is given up where there is none to list a folder by.
    spare: Option<File>,
}

impl Listings {
    /// What is in a folder now.
    pub(super) fn of(&mut self, folder: &Path) -> io::Result<Arc<Listing>> {
        self.asked = Some(Instant::now());
        // "." so that a link to a folder is that folder.
        let stamp = || {
            files::facts_at(&folder.join(".")).map(|facts| (facts.key, facts.changed_ns, facts.touched_ns))
        };
        let before = stamp()?;
        if let Some((_, listing)) = self.known.get(folder).filter(|(known, _)| *known == before) {
            return Ok(listing.clone());
        }
        let is_settled = is_settled(before) && !files::is_remote(folder);
        let listing = Arc::new(self.read(folder)?);
        if is_settled && stamp()? == before {
            self.known.insert(folder.to_owned(), (before, listing.clone()));
        }
        Ok(listing)
    }

    fn read(&mut self, folder: &Path) -> io::Result<Listing> {
        if self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
        match Listing::read(folder) {
            Err(error) if is_without_descriptors(&error) && self.spare.take().is_some() => {
                Listing::read(folder)
            }
            listing => listing,
        }
    }

    /// Gives up what was not asked for lately.
    pub(super) fn tidy(&mut self) {
        if self.asked.is_some_and(|asked| asked.elapsed() >= KEPT) {
            *self = Listings { spare: self.spare.take(), ..Listings::default() };
        }
    }
}

/// Whether a change from now on is one of another time: the system stamps folders by a clock that ticks, in the worst case every two seconds.
fn is_settled((_, changed_ns, touched_ns): Stamp) -> bool {
    is_past(changed_ns) && is_past(touched_ns)
}

/// The time that files are stamped with now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(SECOND_NS).saturating_add(now.tv_nsec)
}

/// Whether what is stamped from now on has another time than this, in nanoseconds since 1970, for as long as anybody compares the two.
pub(super) fn is_past(at_ns: i64) -> bool {
    let now_ns = now_ns();
    let tick_ns = if at_ns % SECOND_NS == 0 { 2 * SECOND_NS } else { 0 };
    // A clock that was set back takes long to get there.
    at_ns + tick_ns < now_ns || at_ns > now_ns.saturating_add(2 * SECOND_NS)
}

/// Whether something failed because too many descriptors are open.
pub(super) fn is_without_descriptors(error: &io::Error) -> bool {
    let without = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    error.raw_os_error().is_some_and(|error| without.iter().any(|errno| errno.raw_os_error() == error))
}

impl Follower {
    /// Looks for a file in a folder under any name.
    pub(super) fn find_in(&self, folder: &Path, key: FileKey) -> io::Result<Option<PathBuf>> {
        self.find_in_as(folder, key, |_| true)
    }

    /// Looks for a file in a folder under a name that will do.
    ///
    /// # Errors
    /// The folder cannot be listed, or what may be the file cannot be asked.
    pub(super) fn find_in_as(
        &self,
        folder: &Path,
        key: FileKey,
        will_do: impl Fn(&Path) -> bool,
    ) -> io::Result<Option<PathBuf>> {
        let listing = self.listings.borrow_mut().of(folder)?;
        listing.find(folder, key, will_do)
    }

    /// Files in these folders that are named after one of these, or are it. What cannot be listed has none.
    pub(super) fn named_after<'a>(
        &self,
        folders: impl Iterator<Item = &'a PathBuf>,
        names: &[PathBuf],
    ) -> Vec<PathBuf> {
        self.entries_named_after(folders, names).found.into_iter().map(|(path, _)| path).collect()
    }

    /// The same with their inodes.
    pub(super) fn entries_named_after<'a>(
        &self,
        folders: impl Iterator<Item = &'a PathBuf>,
        names: &[PathBuf],
    ) -> Entries {
        let names: Vec<(PathBuf, String)> =
            names.iter().filter_map(|name| Some((name.clone(), plain_name(name)?))).collect();
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut is_without = false;
        for folder in folders {
            let listing = self.listings.borrow_mut().of(folder);
            is_without |= listing.as_ref().is_err_and(is_without_descriptors);
            let Ok(listing) = listing else { continue };
            for (name, plain) in &names {
                let beginning = listing.entries_beginning_with(root_of(plain));
                let named = beginning
                    .map(|(beside, inode)| (folder.join(beside), inode))
                    .filter(|(path, _)| path == name || is_named_after_any(path, std::slice::from_ref(name)));
                found.extend(named.filter(|(path, _)| seen.insert(path.clone())));
            }
        }
        Entries { found, is_without_descriptors: is_without }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: &Listing) -> Vec<&OsStr> {
        listing.names.iter().map(|(name, _)| name.as_os_str()).collect()
    }

    #[test]
    fn a_listing_is_read_again_only_when_something_has_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let mut listings = Listings::default();
        for round in 0..50 {
            std::fs::write(path.join(format!("{round:02}")), "").expect("written");
            // At once, when no time has passed for the folder's clock; and when it has.
            assert_eq!(names(&listings.of(path).expect("listed")).len(), round + 1);
            std::fs::rename(path.join(format!("{round:02}")), path.join(format!("{round:02}.1")))
                .expect("renamed");
            assert_eq!(
                names(&listings.of(path).expect("listed")).last(),
                Some(&OsStr::new(&format!("{round:02}.1")))
            );
        }
        let begin = Instant::now();
        let mut is_read_once = || {
            let (one, other) = (listings.of(path).expect("listed"), listings.of(path).expect("listed"));
            Arc::ptr_eq(&one, &other)
        };
        while !is_read_once() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the clock of folders ticks");
        }
        std::fs::remove_file(path.join("00.1")).expect("removed");
        assert_eq!(names(&listings.of(path).expect("listed")).len(), 49);
    }

    #[test]
    fn names_that_begin_alike_and_numbers_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.log", "app.log", "app.log.1", "app-2.log", "b.log"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let listing = Listing::read(folder.path()).expect("listed");
        assert_eq!(listing.beginning_with("app").collect::<Vec<_>>(), ["app-2.log", "app.log", "app.log.1"]);
        let key = files::facts_at(&folder.path().join("app.log.1")).expect("facts").key;
        assert_eq!(listing.with_inode(key.inode).collect::<Vec<_>>(), ["app.log.1"]);
    }

    #[test]
    fn copies_are_found_by_names_that_are_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = OsStr::from_bytes(b"caf\xe9.log.1");
        for name in [copy, OsStr::new("b.log")] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let listing = Listing::read(folder.path()).expect("listed");
        let plain = plain_name(Path::new(OsStr::from_bytes(b"caf\xe9.log"))).expect("a name");
        assert_eq!(listing.beginning_with(root_of(&plain)).collect::<Vec<_>>(), [copy]);
    }
}
