//! Which files are removed. Pure.

/// A file that may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Path of the log file below the folder.
    pub path: String,
    /// When its last pack was received, in milliseconds since 1970.
    pub last_ms: i64,
    /// Bytes of the log file and of its finished file.
    pub bytes: u64,
    /// Those of them that are on the file system whose free bytes are counted.
    pub bytes_there: u64,
}

/// When files are removed; `None`: not for this reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Files of which nothing came since, in milliseconds since 1970.
    pub old_before_ms: Option<i64>,
    /// Bytes of all files.
    pub bytes_max: Option<u64>,
    /// Bytes that are to be free on the file system of the log files.
    pub free_min: Option<u64>,
}

/// Goes through the files, oldest first, and says of each whether it has to go; what became of it is told.
#[derive(Clone)]
pub struct Round {
    limits: Limits,
    bytes: u64,
    free: u64,
    /// Files that had to go and could not.
    pub kept: u64,
}

impl Round {
    /// Over `candidates`, which are sorted by this, with so many bytes free on the file system of the log files.
    pub fn new(limits: Limits, candidates: &mut [Candidate], free: u64) -> Round {
        candidates.sort_unstable_by(|a, b| (a.last_ms, &a.path).cmp(&(b.last_ms, &b.path)));
        Round { limits, bytes: candidates.iter().map(|file| file.bytes).sum(), free, kept: 0 }
    }

    /// Whether the file has to go.
    pub fn has_to_go(&self, file: &Candidate) -> bool {
        let Limits { old_before_ms, bytes_max, free_min } = self.limits;
        // Removing what has no bytes makes no room.
        let makes_room = file.bytes > 0;
        old_before_ms.is_some_and(|before_ms| file.last_ms < before_ms)
            || (makes_room && bytes_max.is_some_and(|max| self.bytes > max))
            || (file.bytes_there > 0 && free_min.is_some_and(|min| self.free < min))
    }

    /// Takes the next files that have to go from the `rest`: as many as do if all of them can, and `at_least` so many, if there are. So marks are
    /// looked for once for many, and little is read in vain. `is_taken` says whether there is room for one more.
    pub fn next_of<'a>(
        &self,
        rest: &mut &'a [Candidate],
        at_least: usize,
        mut is_taken: impl FnMut(&Candidate) -> bool,
    ) -> Vec<&'a Candidate> {
        let (mut planned, mut next) = (self.clone(), Vec::new());
        while let Some((file, others)) = rest.split_first() {
            if self.has_to_go(file) {
                if (next.len() >= at_least && !planned.has_to_go(file)) || !is_taken(file) {
                    break;
                }
                planned.went(file);
                next.push(file);
            }
            *rest = others;
        }
        next
    }

    /// It went.
    pub fn went(&mut self, file: &Candidate) {
        self.bytes = self.bytes.saturating_sub(file.bytes);
        self.free = self.free.saturating_add(file.bytes_there);
    }

    /// It could not go, because it is not complete.
    pub fn stayed(&mut self) {
        self.kept += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, last_ms: i64, bytes: u64) -> Candidate {
        Candidate { path: path.into(), last_ms, bytes, bytes_there: bytes }
    }

    fn gone(limits: Limits, free: u64, incomplete: &[&str]) -> (Vec<String>, u64) {
        let files = [file("c", 30, 10), file("a", 10, 10), file("empty", 15, 0), file("b", 20, 10)];
        gone_of(files, limits, free, incomplete)
    }

    fn gone_of(
        mut files: [Candidate; 4],
        limits: Limits,
        free: u64,
        incomplete: &[&str],
    ) -> (Vec<String>, u64) {
        let mut round = Round::new(limits, &mut files, free);
        let mut gone = Vec::new();
        for file in &files {
            match round.has_to_go(file) {
                true if incomplete.contains(&file.path.as_str()) => round.stayed(),
                true => {
                    round.went(file);
                    gone.push(file.path.clone());
                }
                false => {}
            }
        }
        (gone, round.kept)
    }

    #[test]
    fn old_files_go_and_of_the_others_the_oldest_until_there_is_room() {
        let none = Limits::default();
        assert_eq!(gone(none, 0, &[]).0, Vec::<String>::new());
        let age = Limits { old_before_ms: Some(20), ..none };
        assert_eq!(gone(age, 0, &[]).0, ["a", "empty"]);
        let bytes = Limits { bytes_max: Some(15), ..none };
        assert_eq!(gone(bytes, 0, &[]).0, ["a", "b"]);
        let free = Limits { free_min: Some(101), ..none };
        assert_eq!(gone(free, 100, &[]).0, ["a"]);
    }

    #[test]
    fn what_is_on_another_disk_does_not_go_for_room_on_this_one() {
        let archived = |path, last_ms| Candidate { bytes_there: 0, ..file(path, last_ms, 10) };
        let files = || {
            let half_archived = Candidate { bytes_there: 4, ..file("c", 25, 10) };
            [archived("a", 10), archived("b", 20), half_archived, file("d", 30, 10)]
        };
        let limits = |free| Limits { free_min: Some(free), ..Limits::default() };
        assert_eq!(gone_of(files(), limits(104), 100, &[]).0, ["c"]);
        assert_eq!(gone_of(files(), limits(105), 100, &[]).0, ["c", "d"]);
        assert_eq!(gone_of(files(), limits(u64::MAX), 100, &[]).0, ["c", "d"]);
        let bytes = Limits { bytes_max: Some(30), ..Limits::default() };
        assert_eq!(gone_of(files(), bytes, 100, &[]).0, ["a"], "wherever it is, it is counted");
    }

    #[test]
    fn as_many_files_are_looked_at_as_have_to_go_and_twice_as_many_when_they_stay() {
        let mut files: Vec<Candidate> = (0..9)
            .map(|number| file(&number.to_string(), number, if number == 1 { 0 } else { 10 }))
            .collect();
        let limits = Limits { bytes_max: Some(60), ..Limits::default() };
        let round = Round::new(limits, &mut files, 0);
        let mut rest = files.as_slice();
        let names = |files: Vec<&Candidate>| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        assert_eq!(names(round.next_of(&mut rest, 1, |_| true)), ["0", "2"], "one has no bytes");
        assert_eq!(names(round.next_of(&mut rest, 4, |_| true)), ["3", "4", "5", "6"]);
        assert_eq!(names(round.next_of(&mut rest, 8, |file| file.path == "7")), ["7"]);
        assert_eq!(names(round.next_of(&mut rest, 8, |_| true)), ["8"]);
        assert_eq!(round.next_of(&mut rest, 16, |_| true), Vec::<&Candidate>::new());
    }

    #[test]
    fn what_is_not_complete_stays_and_the_next_goes() {
        let bytes = Limits { bytes_max: Some(20), ..Limits::default() };
        assert_eq!(gone(bytes, 0, &["a"]), (vec!["b".to_owned()], 1));
        let age = Limits { old_before_ms: Some(31), ..Limits::default() };
        assert_eq!(gone(age, 0, &["a", "b"]).1, 2);
    }
}
