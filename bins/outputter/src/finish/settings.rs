//! `[finish]` and `[retention]`.

use super::pasts::Pasts;
use crate::file::archive::Form;
use crate::file::mounted::Ground;
use logferry_node::config::{ByteSize, Interval, rules};
use std::io;
use std::path::{Path, PathBuf};

/// Permission bits that an owner needs who writes to a file.
const OWNER_READS_AND_WRITES: u32 = 0o600;
/// Folder by which that of finished files is known.
const SIGN: &str = ".logferry";

logferry_node::settings! {
    /// `[finish]`: what becomes of a log file when all its hours are complete.
    pub struct FinishSettings {
        /// How long nothing of a complete file may have come before it is finished.
        pub wait: Interval = Interval::secs(600),
        /// Compress it: "none", "gzip" (.gz) or "zstd" (.zst).
        pub compress: String = "none".to_owned() => rules::one_of(&["none", "gzip", "zstd"]),
        /// Level of compression: gzip 1 to 9, zstd 1 to 19; 0: 6 for gzip, 3 for zstd.
        pub level: u64 = 0 => rules::between(0, 19),
        /// Folder that it is moved to, with the same path below it. "": it stays where it is.
        pub dir: PathBuf = PathBuf::new(),
        /// Permissions of the finished file, octal: "0640". "": as the program creates files.
        pub mode: String = String::new() => |text| octal(text).map(drop),
        /// Owner of the finished file, "user:group", "user" or ":group", by name or by number (needs the right to). "": the program's own.
        pub owner: String = String::new() => |text| owner(text).map(drop),
    }
}

logferry_node::settings! {
    /// `[retention]`: when complete log files are removed. One that is not complete is never removed.
    pub struct RetentionSettings {
        /// How long after its last pack a complete file is kept, at least hours.keep. "0s": for ever.
        pub age: Interval = Interval::secs(0),
        /// Bytes of all log files, finished ones as they are; above, the oldest complete files go. "0B": any.
        pub bytes: ByteSize = ByteSize(0),
        /// Free bytes of the file system of the log files; below, the oldest complete files that are on it go. "0B": none.
        pub free: ByteSize = ByteSize(0),
    }
}

impl RetentionSettings {
    /// Whether anything is ever removed.
    pub fn is_on(&self) -> bool {
        !self.age.0.is_zero() || self.bytes.0 > 0 || self.free.0 > 0
    }
}

/// How a finished file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// Members of gzip.
    Gzip(u32),
    /// Frames of zstd.
    Zstd(i32),
}

impl Codec {
    /// What names of files so compressed end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Codec::None => "",
            Codec::Gzip(_) => ".gz",
            Codec::Zstd(_) => ".zst",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the file is compressed.
    pub codec: Codec,
    /// Permission bits.
    pub mode: Option<u32>,
    /// User and group, by number.
    pub owner: (Option<u32>, Option<u32>),
    /// Folder of log files.
    pub(super) log_data: PathBuf,
    /// What they hold.
    pub form: Form,
    /// Folder of finished ones.
    dir: PathBuf,
}

impl Plan {
    /// Of the settings, for log files in `log_data`.
    ///
    /// # Errors
    /// The owner is not known, or the settings contradict each other; the text names the key.
    pub fn new(settings: &FinishSettings, log_data: &Path, form: Form) -> Result<Plan, String> {
        if form != Form::Lines && settings.compress != "none" {
            return Err(format!(
                "finish.compress is {:?}, but file.archive = {:?} compresses log files already: leave one of them out",
                settings.compress,
                form.name()
            ));
        }
        let level = |default: u64| if settings.level == 0 { default } else { settings.level };
        let codec = match settings.compress.as_str() {
            "gzip" if settings.level > 9 => {
                return Err(format!("finish.level is {}: gzip has levels 1 to 9", settings.level));
            }
            "gzip" => Codec::Gzip(u32::try_from(level(6)).unwrap_or(6)),
            "zstd" => Codec::Zstd(i32::try_from(level(3)).unwrap_or(3)),
            _ => Codec::None,
        };
        let mode = octal(&settings.mode)?;
        let owner = owner(&settings.owner).map_err(|error| format!("finish.owner: {error}"))?;
        let dir =
            if settings.dir.as_os_str().is_empty() { log_data.to_owned() } else { settings.dir.clone() };
        let plan = Plan { codec, mode, owner, log_data: log_data.to_owned(), form, dir };
        if plan.stays_in_place()
            && mode.is_some_and(|mode| mode & OWNER_READS_AND_WRITES != OWNER_READS_AND_WRITES)
        {
            return Err("finish.mode takes from the owner of the log file the right to read and write it, which late lines need: \
                set finish.compress or finish.dir, too, or a mode such as 0640".into());
        }
        Ok(plan)
    }

    /// Whether a finished file is its log file.
    pub fn stays_in_place(&self) -> bool {
        self.codec == Codec::None && self.dir == self.log_data
    }

    /// Folder of finished files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells whether the disk of the folder is there; none where that is the folder of log files.
    pub fn ground(&self, var_dir: &Path) -> Option<Ground> {
        (self.dir != self.log_data).then(|| Ground::new("finish.dir", &self.dir, SIGN, var_dir))
    }

    /// The finished file of the log file at `path` below the folder; `None`: it is the log file.
    pub fn target(&self, path: &str) -> Option<PathBuf> {
        (!self.stays_in_place())
            .then(|| self.dir.join(format!("{path}{}{}", self.form.suffix(), self.codec.suffix())))
    }

    /// Files that have the lines of these log files now; `pasts` for who asks again.
    ///
    /// # Errors
    /// Those of the disk; `NotConnected` while that of the finished files is away.
    pub fn files_now(&self, paths: &[String], pasts: &mut Pasts) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for path in paths {
            files.extend(self.files_of(path, pasts)?);
        }
        Ok(files)
    }

    /// Files that have the lines of a log file now, oldest lines first, below the folder of log files where they are there.
    fn files_of(&self, path: &str, pasts: &mut Pasts) -> io::Result<Vec<String>> {
        let finished = self.finished_files(path, pasts)?;
        let log_file = format!("{path}{}", self.form.suffix());
        let is_there = finished.is_empty() || self.log_data.join(&log_file).exists();
        let name = |file: PathBuf| file.strip_prefix(&self.log_data).unwrap_or(&file).display().to_string();
        Ok(finished.into_iter().map(name).chain(is_there.then_some(log_file)).collect())
    }

    /// The finished files of a log file that are there, oldest lines first: where its header file says them to be, whatever the plan was then,
    /// else where the plan puts them.
    fn finished_files(&self, path: &str, pasts: &mut Pasts) -> io::Result<Vec<PathBuf>> {
        let said = match pasts.files(&self.log_data.with_file_name("headers"), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            said => said?,
        };
        let mut files = Vec::new();
        for file in said {
            match file.try_exists()? {
                true => files.push(file),
                false => self.check_dir(&file)?,
            }
        }
        if files.is_empty() {
            files.extend(self.target(path).filter(|file| file.exists()));
        }
        Ok(files)
    }

    /// Fails while the disk of the folder of finished files is away: `file`, which is not found, may be on it.
    pub(super) fn check_dir(&self, file: &Path) -> io::Result<()> {
        if self.dir == self.log_data || self.dir.join(SIGN).try_exists()? {
            return Ok(());
        }
        let (dir, file) = (self.dir.display(), file.display());
        let text = format!("{file} is not there, and finish.dir {dir} has no {SIGN}: is its disk mounted?");
        Err(io::Error::new(io::ErrorKind::NotConnected, text))
    }
}

fn octal(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.map(Some).ok_or_else(|| format!("{text:?} is no file mode: write it in octal, such as \"0640\""))
}

fn owner(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let by_name = |name: &str| uzers::get_user_by_name(name).map(|user| user.uid());
    let user = id(user, by_name).ok_or_else(|| format!("user {user:?} is not known on this machine"))?;
    let by_name = |name: &str| uzers::get_group_by_name(name).map(|group| group.gid());
    let group = id(group, by_name).ok_or_else(|| format!("group {group:?} is not known on this machine"))?;
    Ok((user, group))
}

/// Outer `None`: not known.
fn id(text: &str, by_name: impl FnOnce(&str) -> Option<u32>) -> Option<Option<u32>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().or_else(|| by_name(text)).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut FinishSettings)) -> Result<Plan, String> {
        let mut settings = FinishSettings::default();
        change(&mut settings);
        Plan::new(&settings, Path::new("/data/log_data"), Form::Lines)
    }

    #[test]
    fn a_finished_file_is_the_log_file_unless_it_is_compressed_or_moved() {
        assert_eq!(plan(|_| ()).unwrap().target("a/b"), None);
        let gzip = plan(|s| s.compress = "gzip".into()).unwrap();
        assert_eq!(gzip.target("a/b").unwrap(), Path::new("/data/log_data/a/b.gz"));
        let moved = plan(|s| (s.compress, s.dir) = ("zstd".into(), "/done".into())).unwrap();
        assert_eq!(moved.target("a/b").unwrap(), Path::new("/done/a/b.zst"));
        assert_eq!(plan(|s| s.dir = "/done".into()).unwrap().target("a/b").unwrap(), Path::new("/done/a/b"));
    }

    #[test]
    fn lines_are_where_the_header_file_says_whatever_the_settings_are_now() {
        use crate::file::headers::{Finished, Place, finished_line};
        let dir = tempfile::tempdir().unwrap();
        let (log_data, headers) = (dir.path().join("log_data"), dir.path().join("headers"));
        std::fs::create_dir_all(&log_data).unwrap();
        std::fs::create_dir_all(&headers).unwrap();
        let settings = FinishSettings { compress: "zstd".into(), ..FinishSettings::default() };
        let plan = Plan::new(&settings, &log_data, Form::Lines).unwrap();
        let mut pasts = Pasts::default();
        let mut files = || plan.files_now(&["h".to_owned()], &mut pasts).unwrap();
        assert_eq!(files(), ["h"]);
        let place = Place::File(log_data.join("h.gz").display().to_string());
        let line = finished_line(&Finished { place, data: 1, bytes: 1, crc: None });
        std::fs::write(headers.join("h"), line).unwrap();
        std::fs::write(log_data.join("h.gz"), "").unwrap();
        assert_eq!(files(), ["h.gz"]);
        std::fs::write(log_data.join("h"), "late").unwrap();
        assert_eq!(files(), ["h.gz", "h"]);
        std::fs::rename(log_data.join("h.gz"), log_data.join("h.zst")).unwrap();
        assert_eq!(files(), ["h.zst", "h"], "a store that was moved");
    }

    #[test]
    fn lines_in_a_folder_whose_disk_is_away_are_not_left_out() {
        use crate::file::headers::{Finished, Place, finished_line};
        let dir = tempfile::tempdir().unwrap();
        let [log_data, headers, archive] =
            ["log_data", "headers", "archive"].map(|name| dir.path().join(name));
        [&log_data, &headers, &archive].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        let settings = FinishSettings { dir: archive.clone(), ..FinishSettings::default() };
        let plan = Plan::new(&settings, &log_data, Form::Lines).unwrap();
        let files = || plan.files_now(&["h".to_owned()], &mut Pasts::default());
        std::fs::write(log_data.join("h"), "late").unwrap();
        assert_eq!(files().unwrap(), ["h"], "nothing was finished yet");
        let finished = archive.join("h").display().to_string();
        let line =
            finished_line(&Finished { place: Place::File(finished.clone()), data: 1, bytes: 1, crc: None });
        std::fs::write(headers.join("h"), line).unwrap();
        assert_eq!(files().unwrap_err().kind(), io::ErrorKind::NotConnected);
        std::fs::create_dir(archive.join(SIGN)).unwrap();
        assert_eq!(files().unwrap(), ["h"], "somebody took it away");
        std::fs::write(&finished, "x").unwrap();
        assert_eq!(files().unwrap(), [&finished, "h"]);
    }

    #[test]
    fn owners_are_known_by_name_and_by_number() {
        let ids = |text: &str| plan(|s| s.owner = text.into()).map(|plan| plan.owner);
        assert_eq!(ids(""), Ok((None, None)));
        assert_eq!(ids("root:0"), Ok((Some(0), Some(0))));
        assert_eq!(ids(":root"), Ok((None, Some(0))));
        assert_eq!(ids("12345"), Ok((Some(12345), None)));
        assert!(ids("no-such-user").unwrap_err().contains("finish.owner: user \"no-such-user\""));
    }

    #[test]
    fn a_log_file_that_stays_can_be_written_by_its_owner() {
        assert!(plan(|s| s.mode = "0440".into()).unwrap_err().contains("finish.mode"));
        assert_eq!(plan(|s| s.mode = "0640".into()).unwrap().mode, Some(0o640));
        plan(|s| (s.mode, s.compress) = ("0440".into(), "gzip".into())).unwrap();
        assert!(plan(|s| s.mode = "0999".into()).unwrap_err().contains("octal"));
        assert!(plan(|s| (s.compress, s.level) = ("gzip".into(), 12)).unwrap_err().contains("finish.level"));
    }
}
