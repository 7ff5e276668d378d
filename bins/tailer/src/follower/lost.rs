//! Finding again what a restart left: files that were renamed, copied, compressed or deleted while no tailer held them.

use super::Follower;
use crate::files;
use crate::ledger::record::Met;
use crate::tracker::Place;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

impl Follower {
    /// Streams whose files no source's path leads to any more: they were renamed or deleted while no tailer held them.
    pub(super) fn search_lost(&mut self) {
        let lost: Vec<Met> = self
            .ledger
            .streams()
            .filter(|stream| !self.by_stream.contains_key(&stream.met.stream))
            .map(|stream| stream.met.clone())
            .collect();
        for met in lost {
            let Some(source) = self.sources.iter().position(|source| source.settings.name == met.source)
            else {
                warn!(source = met.source, stream = %met.stream, "the source is no longer configured: its file waits");
                continue;
            };
            self.search(source, &met);
        }
    }

    pub(super) fn search(&mut self, source: usize, met: &Met) {
        let path = PathBuf::from(OsStr::from_bytes(&met.path));
        if self.ledger.stream(met.stream).is_some_and(|stream| stream.orphan) {
            self.bytes_gone(met.stream, &path, "replaced");
            self.finish_orphan(met.stream);
            return;
        }
        let mut folders = self.sources[source].folders.clone();
        folders.insert(files::folder_of(&path));
        let mut all_readable = true;
        for folder in folders {
            match files::find_in(&folder, met.key) {
                Ok(Some(found)) => return self.found(source, met, &path, &found),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => all_readable = false,
            }
        }
        if self.continue_in_copy(met.stream, None) || self.awaits_unpacking(source, met) {
            return;
        }
        if all_readable {
            self.bytes_gone(met.stream, &path, "deleted");
            self.ledger.finish(met.stream);
        }
    }

    fn found(&mut self, source: usize, met: &Met, home: &Path, found: &Path) {
        let size = files::facts_at(found).map_or(0, |facts| facts.size);
        if self.is_packed(source, found, met.key, size) {
            return;
        }
        // A stream that had moved into a copy is at home there, outside of the source's paths: nobody writes to it.
        let is_copy = found == home;
        let replaced = is_copy || files::facts_at(home).is_ok_and(|facts| facts.key != met.key);
        info!(from = %home.display(), to = %found.display(), "a file that was renamed meanwhile is read to its end");
        match self.try_open(source, found, Place::Gone { replaced }) {
            Ok(number) => {
                let successor = self.by_path.get(home).copied().filter(|successor| *successor != number);
                if let Some(successor) = successor {
                    self.goes_before(number, successor);
                }
                self.queue(number);
            }
            Err(error) => warn!(path = %found.display(), %error, "the file cannot be opened"),
        }
    }
}
