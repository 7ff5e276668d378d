//! Marks: empty files whose names say that an hour or a day is complete.
//!
//! | name under `received/` | says |
//! |---|---|
//! | `{source}/{host}_{hour}_{lines}` | the hour is whole in the output, with so many lines |
//! | `{source}/{host}_{day}` | all hours of the day are |
//! | `{ip}_{hour}_{lines}`, `{ip}_{day}` | the same for packs of legacy nodes |
//!
//! A file without content appears whole or not at all, and one name becomes another in one step, so no mark is ever half there.

use super::books::MarkWork;
use super::fact::HourKey;
use crate::file::guard::{Guard, check_beside};
use crate::file::if_there;
use logferry_durable::Disk;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folder beside that of the marks, on the same disk.
pub const LOG_DATA: &str = "log_data";
/// Longest beginning of a mark's name, so that a number of any size fits behind it.
const STEM_BYTES_MAX: usize = 225;
/// What a longer one ends with: `~` and 32 hex digits of its XXH3-128.
const HASH_BYTES: usize = 33;

/// Marks of hours that are there.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// The lines that they tell, lowest first. An hour has one, unless somebody put others there.
    pub lines: BTreeMap<&'a HourKey, Vec<u64>>,
    /// Names that were read to find them.
    pub names: usize,
}

/// Writes marks.
pub struct Marks {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    guard: Option<Guard>,
}

impl Marks {
    /// Below `root`. `guard`, for the real file system, keeps links in the folder from leading elsewhere.
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, guard: Option<Guard>) -> Marks {
        Marks { disk, root, guard }
    }

    /// Makes the mark of an hour what it should be, durably. With it goes the mark of its day, first: after a kill it is known by the other only.
    pub fn settle(&self, work: &MarkWork) -> io::Result<()> {
        let folder = folder_of(&work.key);
        let path_of = |lines: u64| folder.join(hour_name(&work.key, lines));
        match (work.before, work.lines) {
            (Some(before), Some(lines)) => match self.rename(&path_of(before), &path_of(lines)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&path_of(lines)),
                renamed => renamed,
            },
            (None, Some(lines)) => self.create(&path_of(lines)),
            (Some(before), None) => {
                self.remove_day(&work.key)?;
                self.remove_hour(&work.key, before)
            }
            (None, None) => Ok(()),
        }
    }

    /// The mark of the day that the hour is in. Returns whether it is new.
    pub fn create_day(&self, key: &HourKey) -> io::Result<bool> {
        let path = folder_of(key).join(day_name(key));
        let is_new = self.disk.open(&self.root.join(&path)).is_err();
        self.create(&path)?;
        Ok(is_new)
    }

    /// There is no mark of the day that the hour is in.
    pub fn remove_day(&self, key: &HourKey) -> io::Result<()> {
        self.remove(&folder_of(key).join(day_name(key)))
    }

    /// There is no mark of the hour that tells so many lines.
    pub fn remove_hour(&self, key: &HourKey, lines: u64) -> io::Result<()> {
        self.remove(&hour_path(key, lines))
    }

    /// The lines that the marks of these hours tell, looked up by going through each folder once.
    pub fn find<'a>(
        &self,
        keys: impl Iterator<Item = &'a HourKey>,
    ) -> io::Result<BTreeMap<&'a HourKey, Vec<u64>>> {
        self.look(keys).map(|found| found.lines)
    }

    /// The same, with what it took.
    pub fn look<'a>(&self, keys: impl Iterator<Item = &'a HourKey>) -> io::Result<Found<'a>> {
        let mut by_folder: BTreeMap<PathBuf, BTreeMap<String, &HourKey>> = BTreeMap::new();
        for key in keys {
            by_folder.entry(folder_of(key)).or_default().insert(hour_stem(key), key);
        }
        let mut found = Found::default();
        for (folder, stems) in by_folder {
            let before = found.names;
            // There is a name for each hour that ever was.
            self.disk.each_name(&self.root.join(&folder), &mut |name| {
                found.names += 1;
                let Some((stem, digits)) = name.rsplit_once('_') else { return };
                if let (Some(key), Ok(lines)) = (stems.get(stem), digits.parse()) {
                    found.lines.entry(key).or_default().push(lines);
                }
            })?;
            if found.names == before {
                self.check_is_there()?;
            }
        }
        found.lines.values_mut().for_each(|lines| lines.sort_unstable());
        Ok(found)
    }

    /// Removes the marks of these hours, and those of their days: these first, because after a kill they are known by the others only.
    pub fn remove_all(&self, keys: &[HourKey]) -> io::Result<()> {
        for (key, lines) in self.find(keys.iter())? {
            self.remove_day(key)?;
            for lines in lines {
                self.remove_hour(key, lines)?;
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        let full_path = self.root.join(path);
        let folder = full_path.parent().unwrap_or(&self.root);
        self.disk.create_dir_all(folder)?;
        match self.disk.create(&full_path) {
            // Perhaps just before a crash: its name may not be durable.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => drop(created?),
        }
        self.disk.sync_dir(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(to)?;
        let to = self.root.join(to);
        self.disk.rename(&self.root.join(from), &to)?;
        self.disk.sync_dir(to.parent().unwrap_or(&self.root))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let full_path = self.root.join(path);
        match if_there::unlink(&*self.disk, &full_path)? {
            true => self.disk.sync_dir(full_path.parent().unwrap_or(&self.root)),
            false => self.check_is_there(),
        }
    }

    /// Fails while the disk of the marks is away: what is not found then may be there.
    fn check_is_there(&self) -> io::Result<()> {
        self.guard.as_ref().map_or(Ok(()), |_| check_beside(&self.root, LOG_DATA))
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let Some(guard) = &self.guard else { return Ok(()) };
        self.check_is_there()?;
        guard.check(path)
    }
}

/// Path of an hour's mark below `received/`.
pub fn hour_path(key: &HourKey, lines: u64) -> PathBuf {
    folder_of(key).join(hour_name(key, lines))
}

fn folder_of(key: &HourKey) -> PathBuf {
    // A name of ours was checked when its pack was parsed, and so was the address of a legacy node.
    PathBuf::from(&key.source)
}

fn hour_name(key: &HourKey, lines: u64) -> String {
    format!("{}_{lines}", hour_stem(key))
}

fn hour_stem(key: &HourKey) -> String {
    shortened(format!("{}_{}", key.host, key.hour))
}

fn day_name(key: &HourKey) -> String {
    shortened(format!("{}_{:08}", key.host, u32::from(key.hour) / 100))
}

fn shortened(mut stem: String) -> String {
    if stem.len() > STEM_BYTES_MAX {
        let hash = xxhash_rust::xxh3::xxh3_128(stem.as_bytes());
        let keep = (0..=STEM_BYTES_MAX - HASH_BYTES).rev().find(|at| stem.is_char_boundary(*at));
        stem.truncate(keep.unwrap_or(0));
        stem.push_str(&format!("~{hash:032x}"));
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_durable::RealDisk;

    fn key(source: &str, host: &str) -> HourKey {
        HourKey { source: source.into(), host: host.into(), hour: 2026112013.try_into().unwrap() }
    }

    #[test]
    fn marks_have_the_legacy_names_with_the_source_as_their_folder() {
        assert_eq!(hour_path(&key("access", "web-1"), 17), Path::new("access/web-1_2026112013_17"));
        assert_eq!(hour_path(&key("", "10.0.0.7"), 0), Path::new("10.0.0.7_2026112013_0"));
        assert_eq!(day_name(&key("access", "web-1")), "web-1_20261120");
        let long = hour_name(&key("access", &"h".repeat(255)), u64::MAX);
        assert!(long.len() <= 255 && long.ends_with("_18446744073709551615"), "{long}");
    }

    #[test]
    fn a_mark_is_created_renamed_and_removed_and_doing_it_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(Arc::new(RealDisk), dir.path().to_owned(), None);
        let work = |before, lines| MarkWork { key: key("access", "web-1"), lines, before };
        let names = || RealDisk.list(&dir.path().join("access")).unwrap();
        for _ in 0..2 {
            marks.settle(&work(None, Some(5))).unwrap();
            assert_eq!(names(), ["web-1_2026112013_5"]);
        }
        for _ in 0..2 {
            marks.settle(&work(Some(5), Some(7))).unwrap();
            assert_eq!(names(), ["web-1_2026112013_7"]);
        }
        let known = key("access", "web-1");
        assert_eq!(marks.find([&known].into_iter()).unwrap(), BTreeMap::from([(&known, vec![7])]));
        for _ in 0..2 {
            marks.settle(&work(Some(7), None)).unwrap();
            assert!(names().is_empty());
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_source_is_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("access")).unwrap();
        let guard = Guard::new(dir.path()).unwrap();
        let marks = Marks::new(Arc::new(RealDisk), dir.path().to_owned(), Some(guard));
        marks.settle(&MarkWork { key: key("access", "web-1"), lines: Some(5), before: None }).unwrap_err();
        assert!(RealDisk.list(elsewhere.path()).unwrap().is_empty());
    }

    #[test]
    fn marks_of_a_disk_that_is_away_are_neither_gone_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, away) = (dir.path().join("received"), dir.path().join("away"));
        std::fs::create_dir(&root).unwrap();
        let marks = Marks::new(Arc::new(RealDisk), root.clone(), Some(Guard::new(&root).unwrap()));
        let known = key("access", "web-1");
        marks.settle(&MarkWork { key: known.clone(), lines: Some(5), before: None }).unwrap();
        std::fs::rename(&root, &away).unwrap();
        marks.find([&known].into_iter()).unwrap_err();
        marks.remove_hour(&known, 5).unwrap_err();
        marks.remove_all(std::slice::from_ref(&known)).unwrap_err();
        std::fs::rename(&away, &root).unwrap();
        assert_eq!(marks.find([&known].into_iter()).unwrap()[&known], [5]);
    }
}
