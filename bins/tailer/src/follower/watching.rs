//! Which folders of a source are watched, and whether that is enough: if not, its files are asked one by one, as often as `poll_interval` says.

use super::Follower;
use crate::files;
use jiff::Timestamp;
use metrics::counter;
use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Instant;
use tracing::{info, warn};

/// Folders whose watches are renewed at a time, when nothing seems to have changed.
const RENEWED_AT_ONCE: usize = 256;

/// A watched folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Sources that have files in it.
    pub(super) sources: BTreeSet<usize>,
    /// Other hosts may write there, which nobody tells us.
    is_remote: bool,
}

impl Follower {
    /// Watches the folders of a source, and finds out whether each is still the one that was watched.
    pub(super) fn watch_folders(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if let Ok(hour) = self.clock.hour_at(Timestamp::now()) {
            let next = self.clock.after(hour);
            [Some(hour), next].into_iter().flatten().for_each(|hour| source.add_folders_of(hour));
        }
        let mut problem = None;
        match self.watch {
            Some(_) => {
                for folder in self.folders_to_renew(index) {
                    if let Err(error) = self.watch_folder(index, &folder) {
                        problem = Some(format!("{}: {error}", folder.display()));
                    }
                }
            }
            None => problem = Some("inotify is not available".to_owned()),
        }
        self.watched_or_not(index, problem);
    }

    /// All folders when something has changed or is not well, else the next few.
    fn folders_to_renew(&mut self, index: usize) -> Vec<PathBuf> {
        let source = &mut self.sources[index];
        let is_quiet = source.is_watched && !source.names_changed;
        if !is_quiet || source.folders.len() <= RENEWED_AT_ONCE {
            return source.folders.iter().cloned().collect();
        }
        let from = source.renewed_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        let folders: Vec<PathBuf> =
            source.folders.range((from, Bound::Unbounded)).take(RENEWED_AT_ONCE).cloned().collect();
        // After the last one it begins again.
        source.renewed_to = folders.last().filter(|_| folders.len() == RENEWED_AT_ONCE).cloned();
        folders
    }

    /// Adding a folder again costs one call.
    fn watch_folder(&mut self, index: usize, path: &PathBuf) -> io::Result<()> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let source = &mut self.sources[index];
        let descriptor = match watch.add(path) {
            Ok(descriptor) => descriptor,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It comes back with its first file, or when the clock says so; the fixed one must be asked for.
                if source.paths.fixed_folders().contains(path) {
                    source.fixed_is_missing = true;
                } else {
                    source.folders.remove(path);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if source.paths.fixed_folders().contains(path) {
            source.fixed_is_missing = false;
        }
        let folder = self.folders.entry(descriptor).or_insert_with(|| Folder {
            path: path.clone(),
            sources: BTreeSet::new(),
            is_remote: files::is_remote(path),
        });
        if folder.sources.insert(index) {
            // What happened in it before was told to nobody.
            (source.names_changed, source.rescan_at) = (true, Instant::now());
            source.has_remote |= folder.is_remote;
        }
        Ok(())
    }

    fn watched_or_not(&mut self, index: usize, problem: Option<String>) {
        let source = &mut self.sources[index];
        source.is_watched = problem.is_none() && !source.fixed_is_missing && !source.has_remote;
        if problem.is_some() != source.watch_problem.is_some() {
            let name = source.settings.name.as_str();
            match &problem {
                Some(problem) => {
                    counter!("logferry_tailer_watch_failures_total").increment(1);
                    warn!(
                        source = name, problem, every = ?source.settings.poll_interval.0,
                        "not all folders can be watched: the files are asked one by one (see fs.inotify.max_user_watches)"
                    );
                }
                None => info!(source = name, "all folders are watched again"),
            }
        }
        source.watch_problem = problem;
    }
}
