//! Which files are followed, and what became of them: decided from one look at a source's paths after another.
//! Pure; the follower opens and closes.

use crate::identity::FileKey;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Number of a followed file, unique within the process.
pub type FileNumber = u64;

/// How many times `rotate_wait` a file must be silent when it was deleted and nothing took its place: its writer may
/// still have it open.
pub const DELETED_WAIT_FACTOR: u32 = 12;
/// The same for a file that was moved away and nothing took its place: its writer surely still has it open.
pub const MOVED_WAIT_FACTOR: u32 = 720;

/// One file as a look at a source's paths found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Path.
    pub path: PathBuf,
    /// Identity.
    pub key: FileKey,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change that the system noted, in nanoseconds since 1970; of known files it may be missing (0).
    pub touched_ns: i64,
    /// Time of the last change of its content, in nanoseconds since 1970; of known files it may be missing (0).
    pub changed_ns: i64,
}

/// Where a followed file is, seen from the path at which it was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Where it was.
    Here,
    /// Under another path of its source; `replaced` when its old path is another file.
    Moved {
        /// Its old path is another file.
        replaced: bool,
    },
    /// Under no path of its source.
    Gone {
        /// Its old path is another file.
        replaced: bool,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Here => "at its path",
            Place::Moved { replaced: false } => "under another name of its source",
            Place::Moved { replaced: true } => {
                "under another name of its source, and its path has another file"
            }
            Place::Gone { replaced: false } => "under no name of its source",
            Place::Gone { replaced: true } => "under no name of its source, and its path has another file",
        })
    }
}

impl Place {
    /// Another file has taken the path.
    pub fn is_replaced(self) -> bool {
        matches!(self, Place::Moved { replaced: true } | Place::Gone { replaced: true })
    }
    /// No path of the source leads to it.
    pub fn is_gone(self) -> bool {
        matches!(self, Place::Gone { .. })
    }
}

/// What the follower has to do after a look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Open a file that was not known, and call [`Tracker::opened`].
    Open(Sighting),
    /// A known file's length.
    Size(FileNumber, u64),
    /// A known file is at another place than before.
    Placed(FileNumber, Place),
}

#[derive(Debug)]
struct Tracked {
    source: usize,
    key: FileKey,
    path: PathBuf,
    place: Place,
}

/// All followed files.
#[derive(Default, Debug)]
pub struct Tracker {
    files: BTreeMap<FileNumber, Tracked>,
    by_key: HashMap<FileKey, FileNumber>,
    /// By the path at which they were met, oldest first.
    by_path: HashMap<PathBuf, Vec<FileNumber>>,
    by_source: HashMap<usize, BTreeSet<FileNumber>>,
    next: FileNumber,
}

impl Tracker {
    /// A file was opened at `path`.
    pub fn opened(&mut self, source: usize, path: PathBuf, key: FileKey, place: Place) -> FileNumber {
        self.next += 1;
        self.by_key.insert(key, self.next);
        self.by_path.entry(path.clone()).or_default().push(self.next);
        self.by_source.entry(source).or_default().insert(self.next);
        self.files.insert(self.next, Tracked { source, key, path, place });
        self.next
    }

    /// A file is not followed any more.
    pub fn closed(&mut self, file: FileNumber) {
        let Some(tracked) = self.files.remove(&file) else { return };
        self.by_key.remove(&tracked.key);
        if let Some(of_source) = self.by_source.get_mut(&tracked.source) {
            of_source.remove(&file);
        }
        self.leave(&tracked.path, file);
    }

    /// A file that was moved is at home where it is now.
    pub fn settled(&mut self, file: FileNumber, path: PathBuf) {
        let Some(tracked) = self.files.get_mut(&file) else { return };
        let before = std::mem::replace(&mut tracked.path, path.clone());
        tracked.place = Place::Here;
        self.leave(&before, file);
        self.by_path.entry(path).or_default().push(file);
    }

    fn leave(&mut self, path: &Path, file: FileNumber) {
        if let Some(at_path) = self.by_path.get_mut(path) {
            at_path.retain(|other| *other != file);
            if at_path.is_empty() {
                self.by_path.remove(path);
            }
        }
    }

    /// The file with this identity.
    pub fn find(&self, key: FileKey) -> Option<FileNumber> {
        self.by_key.get(&key).copied()
    }

    /// The path at which a file was met.
    pub fn home(&self, file: FileNumber) -> Option<&Path> {
        self.files.get(&file).map(|tracked| tracked.path.as_path())
    }

    /// The file that had `path` before another one took it, and is still followed.
    pub fn predecessor(&self, source: usize, path: &Path, key: FileKey) -> Option<FileNumber> {
        let is_before = |tracked: &Tracked| {
            tracked.source == source && tracked.key != key && tracked.place != Place::Here
        };
        let at_path = self.by_path.get(path).into_iter().flatten().rev();
        at_path.copied().find(|number| self.files.get(number).is_some_and(is_before))
    }

    /// Takes in one look at all paths of a source. A file that another source follows stays with it.
    pub fn look(&mut self, source: usize, sightings: &[Sighting]) -> Vec<Decision> {
        self.look_without(source, sightings, &[])
    }

    /// The same where some folders could not be listed: what they hold is not known to be gone.
    pub fn look_without(
        &mut self,
        source: usize,
        sightings: &[Sighting],
        unlisted: &[PathBuf],
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut fresh = Vec::new();
        let mut seen: HashMap<FileNumber, bool> = HashMap::new();
        let mut fresh_keys: HashSet<FileKey> = HashSet::new();
        for sighting in sightings {
            match self.find(sighting.key) {
                Some(number) => self.sighted(source, number, sighting, &mut seen, &mut decisions),
                None if fresh_keys.insert(sighting.key) => fresh.push(Decision::Open(sighting.clone())),
                None => {}
            }
        }
        self.place(source, sightings, unlisted, &seen, &mut decisions);
        decisions.extend(fresh);
        decisions
    }

    fn sighted(
        &self,
        source: usize,
        number: FileNumber,
        sighting: &Sighting,
        seen: &mut HashMap<FileNumber, bool>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(tracked) = self.files.get(&number).filter(|tracked| tracked.source == source) else {
            return;
        };
        let at_home = tracked.path == sighting.path;
        let before = seen.insert(number, at_home);
        match before {
            None => decisions.push(Decision::Size(number, sighting.size)),
            Some(was_at_home) => {
                seen.insert(number, at_home || was_at_home);
            }
        }
    }

    fn place(
        &mut self,
        source: usize,
        sightings: &[Sighting],
        unlisted: &[PathBuf],
        seen: &HashMap<FileNumber, bool>,
        decisions: &mut Vec<Decision>,
    ) {
        let mut homes: Option<HashMap<&Path, FileKey>> = None;
        for number in self.by_source.get(&source).into_iter().flatten() {
            let Some(tracked) = self.files.get_mut(number) else { continue };
            let is_hidden = || unlisted.iter().any(|folder| tracked.path.starts_with(folder));
            if !seen.contains_key(number) && is_hidden() {
                continue;
            }
            let place = if seen.get(number) == Some(&true) {
                Place::Here
            } else {
                let homes = homes.get_or_insert_with(|| by_path(sightings));
                let replaced = homes.get(tracked.path.as_path()).is_some_and(|key| *key != tracked.key);
                if seen.contains_key(number) { Place::Moved { replaced } } else { Place::Gone { replaced } }
            };
            if place != tracked.place {
                tracked.place = place;
                decisions.push(Decision::Placed(*number, place));
            }
        }
    }
}

fn by_path(sightings: &[Sighting]) -> HashMap<&Path, FileKey> {
    sightings.iter().map(|sighting| (sighting.path.as_path(), sighting.key)).collect()
}

/// What is known of a file when its end of life is judged.
#[derive(Clone, Copy, Debug)]
pub struct Aging {
    /// Where it is.
    pub place: Place,
    /// The hour that it is named after is over.
    pub hour_over: bool,
    /// No name leads to it any more (link count 0).
    pub unlinked: bool,
    /// When it last grew, or moved.
    pub quiet_since: Instant,
    /// `rotate_wait` of its source.
    pub rotate_wait: Duration,
}

/// Whether a file that was read to its end has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// It lives.
    Living,
    /// Not before this time.
    Until(Instant),
    /// Its unfinished last line will not be finished any more, but the file may stay.
    Rotated,
    /// It will not grow any more.
    Over,
}

/// Judges the age of a file.
pub fn age(aging: &Aging, now: Instant) -> Age {
    let wait = match aging.place {
        Place::Here | Place::Moved { replaced: false } if aging.hour_over => aging.rotate_wait,
        Place::Here | Place::Moved { replaced: false } => return Age::Living,
        Place::Moved { replaced: true } | Place::Gone { replaced: true } => aging.rotate_wait,
        Place::Gone { replaced: false } if aging.unlinked => aging.rotate_wait * DELETED_WAIT_FACTOR,
        Place::Gone { replaced: false } => aging.rotate_wait * MOVED_WAIT_FACTOR,
    };
    let due = aging.quiet_since + wait;
    if now < due {
        Age::Until(due)
    } else if aging.place.is_gone() {
        Age::Over
    } else {
        Age::Rotated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64) -> FileKey {
        FileKey { device: 1, inode, born_ns: 0 }
    }
    fn at(path: &str, inode: u64, size: u64) -> Sighting {
        Sighting { path: path.into(), key: key(inode), size, touched_ns: 0, changed_ns: 0 }
    }
    fn following(tracker: &mut Tracker, path: &str, inode: u64) -> FileNumber {
        assert_eq!(tracker.look(0, &[at(path, inode, 5)]), [Decision::Open(at(path, inode, 5))]);
        tracker.opened(0, path.into(), key(inode), Place::Here)
    }

    fn following_beside(tracker: &mut Tracker, path: &str, inode: u64) -> FileNumber {
        tracker.opened(0, path.into(), key(inode), Place::Here)
    }

    #[test]
    fn a_known_file_is_not_opened_again() {
        let mut tracker = Tracker::default();
        let file = following(&mut tracker, "/a", 1);
        assert_eq!(tracker.look(0, &[at("/a", 1, 9)]), [Decision::Size(file, 9)]);
    }

    #[test]
    fn a_rename_and_a_new_file_are_told_apart_by_identity() {
        let mut tracker = Tracker::default();
        let file = following(&mut tracker, "/a", 1);
        let decisions = tracker.look(0, &[at("/a", 2, 3)]);
        let gone = Decision::Placed(file, Place::Gone { replaced: true });
        assert_eq!(decisions, [gone, Decision::Open(at("/a", 2, 3))]);
        assert_eq!(tracker.predecessor(0, Path::new("/a"), key(2)), Some(file));
    }

    #[test]
    fn a_rename_within_a_glob_moves_the_file() {
        let mut tracker = Tracker::default();
        let file = following(&mut tracker, "/a", 1);
        let decisions = tracker.look(0, &[at("/a", 2, 3), at("/a.1", 1, 5)]);
        assert!(decisions.contains(&Decision::Placed(file, Place::Moved { replaced: true })));
        assert!(decisions.contains(&Decision::Size(file, 5)));
        assert_eq!(decisions.len(), 3);
    }

    #[test]
    fn a_deleted_file_is_gone_and_may_come_back() {
        let mut tracker = Tracker::default();
        let file = following(&mut tracker, "/a", 1);
        assert_eq!(tracker.look(0, &[]), [Decision::Placed(file, Place::Gone { replaced: false })]);
        assert_eq!(tracker.look(0, &[]), []);
        let back = tracker.look(0, &[at("/a", 1, 6)]);
        assert_eq!(back, [Decision::Size(file, 6), Decision::Placed(file, Place::Here)]);
    }

    #[test]
    fn a_file_in_a_folder_that_could_not_be_listed_is_where_it_was() {
        let mut tracker = Tracker::default();
        let (here, there) =
            (following(&mut tracker, "/log/a", 1), following_beside(&mut tracker, "/other/b", 2));
        let decisions = tracker.look_without(0, &[], &["/log".into()]);
        assert_eq!(decisions, [Decision::Placed(there, Place::Gone { replaced: false })]);
        assert_eq!(tracker.look(0, &[]), [Decision::Placed(here, Place::Gone { replaced: false })]);
    }

    #[test]
    fn a_file_that_matches_two_sources_belongs_to_the_first() {
        let mut tracker = Tracker::default();
        following(&mut tracker, "/a", 1);
        assert_eq!(tracker.look(1, &[at("/a", 1, 9)]), []);
    }

    #[test]
    fn two_names_of_one_file_are_one_file() {
        let mut tracker = Tracker::default();
        let decisions = tracker.look(0, &[at("/a", 1, 9), at("/b", 1, 9)]);
        assert_eq!(decisions, [Decision::Open(at("/a", 1, 9))]);
    }

    #[test]
    fn only_what_left_its_path_ages() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let judged = |place, unlinked, seconds| {
            let aging = Aging { place, hour_over: false, unlinked, quiet_since: start, rotate_wait: second };
            age(&aging, start + second * seconds)
        };
        assert_eq!(judged(Place::Here, false, 9_999), Age::Living);
        let over = Aging {
            place: Place::Here,
            hour_over: true,
            unlinked: false,
            quiet_since: start,
            rotate_wait: second,
        };
        assert_eq!(
            (age(&over, start), age(&over, start + second)),
            (Age::Until(start + second), Age::Rotated)
        );
        assert_eq!(judged(Place::Moved { replaced: true }, false, 1), Age::Rotated);
        assert_eq!(judged(Place::Gone { replaced: true }, false, 0), Age::Until(start + second));
        assert_eq!(judged(Place::Gone { replaced: true }, false, 1), Age::Over);
        assert_eq!(judged(Place::Gone { replaced: false }, true, 11), Age::Until(start + second * 12));
        assert_eq!(judged(Place::Gone { replaced: false }, true, 12), Age::Over);
        assert_eq!(judged(Place::Gone { replaced: false }, false, 12), Age::Until(start + second * 720));
    }
}
