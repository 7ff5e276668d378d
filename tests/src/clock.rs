//! A clock that a test can step: libfaketime in front of a program, which reads the offset anew at each look at the clock.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where distributions put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Where the tailer's faster time begins, 2026-01-01T00:00:00Z, and after how many of its seconds it begins again.
const FASTER_ORIGIN_SECS: i64 = 1_767_225_600;
const FASTER_CYCLE_NS: i128 = 31_557_600_000 * 1_000_000_000;

/// The wall clock of one program. Monotonic clocks and times of files are not touched.
#[derive(Debug)]
pub struct SteppedClock {
    library: Option<&'static str>,
    file: PathBuf,
    offset: SignedDuration,
    /// When each offset began to hold, at the earliest, and ended, at the latest, by the real clock.
    spells: Vec<(Timestamp, Timestamp, SignedDuration)>,
}

impl SteppedClock {
    /// A clock that shows the real time as yet. `file` will hold its offset.
    pub fn new(file: &Path) -> SteppedClock {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let mut clock = SteppedClock {
            library,
            file: file.to_owned(),
            offset: SignedDuration::ZERO,
            spells: vec![(Timestamp::now(), Timestamp::MAX, SignedDuration::ZERO)],
        };
        clock.put();
        clock
    }

    /// Whether it can be stepped on this machine.
    pub fn can_step(&self) -> bool {
        self.library.is_some()
    }

    /// Words before a program's own ([`crate::Program::wrapper`]).
    pub fn wrapper(&self) -> Vec<String> {
        let Some(library) = self.library else { return Vec::new() };
        vec![
            "env".into(),
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".into(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
            "NO_FAKE_STAT=1".into(),
        ]
    }

    /// Removes what a process with such a wrapper has left, once it has ended.
    pub(crate) fn clean_up(wrapper: &[String], pid: u32) {
        if wrapper.iter().any(|word| LIBRARIES.iter().any(|library| word.ends_with(library))) {
            shared_memory(pid).iter().for_each(|path| _ = std::fs::remove_file(path));
        }
    }

    /// Steps it.
    pub fn step(&mut self, by: SignedDuration) {
        if !self.can_step() {
            return;
        }
        let before = Timestamp::now();
        self.offset += by;
        self.put();
        if let Some(last) = self.spells.last_mut() {
            last.1 = Timestamp::now();
        }
        self.spells.push((before, Timestamp::MAX, self.offset));
    }

    /// Steps it so far ahead that it is later than it ever was, by `beyond`.
    pub fn step_beyond_all(&mut self, beyond: Duration) {
        let latest = self.spells.iter().map(|(_, _, offset)| *offset).max().unwrap_or_default();
        self.step(latest - self.offset + SignedDuration::try_from(beyond).unwrap_or_default());
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().checked_add(self.offset).unwrap_or(Timestamp::MAX)
    }

    /// Whether it showed the hour `label` at some moment since `since` (by the real clock), hours being of `length`.
    pub fn showed(&self, label: &str, since: Timestamp, length: Duration) -> bool {
        let now = Timestamp::now();
        let spells = self.spells.iter().filter(|(_, end, _)| *end >= since);
        spells.into_iter().any(|(begin, end, offset)| {
            let shown = |at: Timestamp| hour(at.checked_add(*offset).unwrap_or(Timestamp::MAX), length);
            let (from, to) = (shown((*begin).max(since)), shown((*end).min(now)));
            (from.as_str()..=to.as_str()).contains(&label)
        })
    }

    /// The file is replaced as a whole: a program reads the old or the new offset.
    fn put(&mut self) {
        let aside = self.file.with_extension("new");
        let seconds = self.offset.as_secs_f64();
        std::fs::write(&aside, format!("{seconds:+.6}\n")).expect("offset of the clock");
        std::fs::rename(&aside, &self.file).expect("offset of the clock");
    }
}

/// Shared memory of the library, which a process removes at its end, but not one that is killed.
pub fn shared_memory(pid: u32) -> [PathBuf; 2] {
    ["faketime_shm_", "sem.faketime_sem_"].map(|name| Path::new("/dev/shm").join(format!("{name}{pid}")))
}

/// The hour of a moment (UTC) where `[hours] length` is `length`, computed apart from the tailer.
pub fn hour(at: Timestamp, length: Duration) -> String {
    let mut wall = at;
    if length < Duration::from_secs(3600) {
        let origin = i128::from(FASTER_ORIGIN_SECS) * 1_000_000_000;
        let faster = (at.as_nanosecond() - origin) * 3_600_000_000_000 / length.as_nanos() as i128;
        wall = Timestamp::from_nanosecond(faster.rem_euclid(FASTER_CYCLE_NS) + origin).expect("a time");
    }
    wall.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_five_seconds_is_a_seven_hundred_and_twentieth() {
        let at = |seconds| Timestamp::from_second(FASTER_ORIGIN_SECS + seconds).expect("a time");
        let five = Duration::from_secs(5);
        assert_eq!([hour(at(4), five), hour(at(5), five)], ["2026010100", "2026010101"]);
        assert_eq!(hour(at(3600), Duration::from_secs(3600)), "2026010101");
    }

    #[test]
    fn a_stepped_clock_remembers_what_it_showed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut clock = SteppedClock::new(&folder.path().join("clock"));
        let (begin, length) = (Timestamp::now(), Duration::from_secs(3600));
        let tomorrow = hour(begin.checked_add(SignedDuration::from_hours(24)).expect("a time"), length);
        assert!(clock.showed(&hour(begin, length), begin, length) && !clock.showed(&tomorrow, begin, length));
        clock.step(SignedDuration::from_hours(24));
        assert_eq!(clock.showed(&tomorrow, begin, length), clock.can_step());
    }
}
