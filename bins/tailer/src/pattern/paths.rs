//! The paths of one source: those of its `path`, and that of the file that is being written and gets such a name later.

use super::{FileTime, PathPattern, PatternError};
use crate::files::fixed_folder;
use crate::unpack::{is_packed_name, plain_path};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is wrong with the paths of a source.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathsError {
    /// `path` is none.
    #[error("path: {0}")]
    Path(PatternError),
    /// `current` is none, or can have no effect.
    #[error("current: {0}")]
    Current(String),
}

/// `path` and `current` of a source.
///
/// ```
/// use logferry_tailer::pattern::SourcePaths;
/// let paths = SourcePaths::new("/log/server.log.<%Y-%m-%d-%H>", "server.log").expect("good paths");
/// assert!(paths.is_current("/log/server.log".as_ref()));
/// assert!(paths.covers("/log/server.log.2016-12-19-16".as_ref()));
/// assert!(paths.covers("/log/server.log.2016-12-19-16.gz".as_ref()));
/// ```
///
/// A name that tells a time tells it with the ending of a compressed file behind it, too.
#[derive(Clone, Debug)]
pub struct SourcePaths {
    named: PathPattern,
    /// What finds the files of `named`, compressed ones too, and others.
    search: String,
    current: Option<PathPattern>,
}

impl SourcePaths {
    /// Reads both as they are configured; `current` is empty, a path or glob, or a name in the folder of `path`.
    ///
    /// # Errors
    /// [`PathsError`] says which of them is wrong, and how.
    pub fn new(path: &str, current: &str) -> Result<SourcePaths, PathsError> {
        let named = PathPattern::parse(path).map_err(PathsError::Path)?;
        let mut search = named.glob().to_owned();
        if named.has_times() && !search.ends_with('*') {
            search.push('*');
        }
        if current.is_empty() {
            return Ok(SourcePaths { named, search, current: None });
        }
        let wrong = |what: &str| Err(PathsError::Current(what.to_owned()));
        if !named.has_times() {
            return wrong(
                "it has no effect, because path names no times: write them, as in \"server.log.<%Y-%m-%d-%H>\", or leave current out",
            );
        }
        let full = match (current.starts_with('/'), path.rfind('/')) {
            (true, _) | (false, None) => current.to_owned(),
            (false, Some(slash)) if path[..slash].contains(['<', '*', '?', '[']) => {
                return wrong("the folder of path is not always the same: give the whole path");
            }
            (false, Some(slash)) => format!("{}/{current}", &path[..slash]),
        };
        let current = PathPattern::parse(&full).map_err(|error| PathsError::Current(error.to_string()))?;
        if current.has_times() {
            return wrong(
                "it names a time: it is the name that a file has before it gets one, such as \"server.log\"",
            );
        }
        Ok(SourcePaths { named, search, current: Some(current) })
    }

    /// Whether there are files that get their names later.
    pub fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Whether this is the path of a file that is being written, and gets its name later.
    pub fn is_current(&self, path: &Path) -> bool {
        let is_covered = self.current.as_ref().is_some_and(|current| current.covers(path));
        is_covered && self.time_of(path).is_none()
    }

    /// Whether a look at the source finds a path.
    pub fn covers(&self, path: &Path) -> bool {
        let covers = |path: &Path| self.named.covers(path);
        covers(path)
            || self.without_packing(path).is_some_and(|plain| covers(&plain))
            || self.is_current(path)
    }

    /// Whether a path that one of the globs found is of the source.
    pub fn admits(&self, path: &Path) -> bool {
        let admits = |path: &Path| self.named.admits(path);
        admits(path)
            || self.without_packing(path).is_some_and(|plain| admits(&plain))
            || self.is_current(path)
    }

    /// The hour and minute that a path names, compressed or not: see [`PathPattern::time_of`].
    pub fn time_of(&self, path: &Path) -> Option<FileTime> {
        let time_of = |path: &Path| self.named.time_of(path);
        time_of(path).or_else(|| time_of(&self.without_packing(path)?))
    }

    /// Whether two paths name different times: what is in one is then no copy of what is in the other.
    pub fn differ_in_time(&self, one: &Path, other: &Path) -> bool {
        match (self.time_of(one), self.time_of(other)) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        }
    }

    /// Whether a path is of the source only if what is there is compressed.
    pub fn wants_packed(&self, path: &Path) -> bool {
        self.has_times() && is_packed_name(path) && !self.named.admits(path) && !self.is_current(path)
    }

    /// The path that a file with a time in its name had before it was compressed.
    fn without_packing(&self, path: &Path) -> Option<PathBuf> {
        (self.has_times() && is_packed_name(path)).then(|| plain_path(path))
    }

    /// See [`PathPattern::has_hours`].
    pub fn has_hours(&self) -> bool {
        self.named.has_hours()
    }

    /// See [`PathPattern::has_times`].
    pub fn has_times(&self) -> bool {
        self.named.has_times()
    }

    /// What `path` says.
    pub fn named(&self) -> &PathPattern {
        &self.named
    }

    /// Globs, or plain paths, that find all files, and perhaps others: ask [`SourcePaths::admits`].
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.search.as_str()).chain(self.current.as_ref().map(PathPattern::glob))
    }

    /// Folders that have to be there, of the globs before their first wildcards.
    pub fn fixed_folders(&self) -> BTreeSet<PathBuf> {
        self.globs().map(fixed_folder).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_written_is_beside_those_that_were() {
        let paths = SourcePaths::new("/log/server.log.<%Y-%m-%d-%H>", "server.log").expect("good");
        let is = |path: &str| (paths.covers(Path::new(path)), paths.is_current(Path::new(path)));
        assert_eq!(is("/log/server.log"), (true, true));
        assert_eq!(is("/log/server.log.2016-12-19-16"), (true, false));
        assert_eq!(is("/log/server.log.1"), (false, false));
        assert_eq!(is("/other/server.log"), (false, false));
        assert_eq!(paths.fixed_folders().len(), 1);
        assert_eq!(is("/log/server.log.2016-12-19-16.zst"), (true, false));
        assert_eq!(is("/log/server.log.2016-12-19-16.bak"), (false, false));
        assert_eq!(is("/log/server.log.2016-12-39-16.gz"), (false, false));
        assert_eq!(is("/log/server.log.gz"), (false, false), "it is not written any more, and names no time");
    }

    #[test]
    fn the_glob_of_files_that_are_written_may_cover_those_that_were() {
        let paths = SourcePaths::new("/log/*.<%Y-%m-%d>.log", "/log/*.log").expect("good");
        let is = |path: &str| (paths.covers(Path::new(path)), paths.is_current(Path::new(path)));
        assert_eq!(is("/log/app.log"), (true, true));
        assert_eq!(is("/log/app.2016-12-19.log"), (true, false));
        assert_eq!(is("/log/app.2016-12-39.log"), (true, true), "it names no time");
    }

    #[test]
    fn a_current_path_without_an_effect_is_refused() {
        let refused = |path: &str, current: &str| {
            SourcePaths::new(path, current).expect_err("must be refused").to_string()
        };
        assert!(refused("/log/app.log", "app.log").contains("names no times"));
        assert!(refused("/log/<%Y%m%d>/app.log", "app.log").contains("whole path"));
        assert!(refused("/log/a.<%Y%m%d>", "b.<%Y%m%d>").contains("names a time"));
        assert!(refused("/log/a.<%Y%m%d>", "a[").starts_with("current"));
        assert!(refused("/log/a.<%Y>", "").starts_with("path"));
    }
}
