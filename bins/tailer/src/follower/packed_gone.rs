//! Compressed files that another one takes the place of, or that go, before they are read or after that.

use super::Follower;
use super::listings::Listing;
use super::packed::Packed;
use super::packed_room::is_want_of_room;
use super::source::Source;
use crate::files;
use crate::identity::FileKey;
use crate::ledger::looks::FileLook;
use crate::tracker::FileNumber;
use crate::unpack::UnpackJob;
use logferry_pack::StreamId;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tracing::error;

/// Compressed files that are remembered whether or not they are there any more.
pub(super) const PACKED_KEPT_MIN: usize = 64;

impl Follower {
    /// A file that was to be unpacked is not under its path any more.
    pub(super) fn unpacking_gone(&mut self, job: UnpackJob) {
        match self.renamed_beside(&job) {
            Ok(Some(path)) => return self.send_to_unpack(UnpackJob { path, ..job }),
            Err(error) if is_want_of_room(&error) => return self.unpacking_failed(job, &error),
            Ok(None) | Err(_) => {}
        }
        let is_named = self.is_named_elsewhere(job.source, job.key);
        if !is_named && job.held.is_some() {
            self.send_to_unpack(UnpackJob { is_moved: true, ..job });
            return;
        }
        if !is_named {
            self.packed_lost(job.source, &job.path, job.key, job.look, "deleted");
        }
        self.forget_renamed(&job);
    }

    /// What a compressed file that no path of its source leads to is named by now: nobody else finds it.
    fn renamed_beside(&self, job: &UnpackJob) -> io::Result<Option<PathBuf>> {
        let paths = &self.sources[job.source].paths;
        if paths.covers(&job.path) {
            return Ok(None);
        }
        let is_new = |path: &Path| path != job.path && !paths.covers(path);
        self.find_in_as(&files::folder_of(&job.path), job.key, is_new)
    }

    /// Whether a path of the file's source leads to it, or may: not all could be seen.
    pub(super) fn is_named_elsewhere(&self, source: usize, key: FileKey) -> bool {
        let Source { paths, folders, .. } = &self.sources[source];
        folders.iter().any(|folder| match self.find_in_as(folder, key, |path| paths.covers(path)) {
            Ok(found) => found.is_some(),
            Err(error) => !files::is_absent(&error),
        })
    }

    /// A compressed file was gone before it was read. What a stream is known to lack because of that is counted with the stream.
    pub(super) fn packed_lost(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        look: FileLook,
        reason: &'static str,
    ) {
        let name = self.sources[source].settings.name.as_str();
        let lacks = |id: StreamId| {
            let stream = self.ledger.stream(id).filter(|_| self.is_lost(id));
            stream.is_some_and(|stream| stream.unread(0) > 0 || !stream.is_settled_to(stream.frontier))
        };
        let is_for_stream = self.asked.by(key).any(lacks);
        // It may have had another content before, and only that is known.
        let is_same = self.ledger.known_look(key).is_none_or(|known| known == look);
        if is_for_stream || is_same && self.ledger.past_files().has(name, key) {
            return;
        }
        self.figures.packed_file_lost(reason);
        error!(
            path = %path.display(), source = name, packed_bytes = look.size, reason,
            "a compressed file was gone before it was read: if its lines were not shipped before it was compressed, they are lost"
        );
    }

    /// Forgets compressed files that are not there any more, once there are twice as many as after the last time. Those that wait, or
    /// could not be unpacked for want of room, are seen to elsewhere.
    pub(super) fn forget_gone_packed(&mut self) {
        if self.packed.len() < self.packed_forgotten_at {
            return;
        }
        let folders: BTreeSet<&PathBuf> = self.sources.iter().flat_map(|source| &source.folders).collect();
        let mut listed = Vec::new();
        for folder in folders {
            match self.listings.borrow_mut().of(folder) {
                Ok(listing) => listed.push((folder, listing)),
                Err(error) if files::is_absent(&error) => {}
                Err(_) => {
                    // They may all be there.
                    self.packed_forgotten_at = 2 * self.packed.len();
                    return;
                }
            }
        }
        let may_be_there = |key: FileKey| {
            let is_in = |(folder, listing): &(&PathBuf, Arc<Listing>)| {
                listing.find(folder, key, |_| true).map_or(true, |found| found.is_some())
            };
            self.tracker.find(key).is_some() || listed.iter().any(is_in)
        };
        let is_done = |packed: &Packed| match packed {
            Packed::Known(_) => true,
            Packed::Failed(failed) => !failed.lacks_room,
            Packed::Waiting { .. } | Packed::Unpacking { .. } => false,
        };
        let done = self.packed.iter().filter(|(_, packed)| is_done(packed)).map(|(key, _)| *key);
        let gone: HashSet<FileKey> = done.filter(|key| !may_be_there(*key)).collect();
        self.packed.retain(|key, _| !gone.contains(key));
        self.asked.retain(|id, key| !gone.contains(&key) && self.ledger.stream(id).is_some());
        self.packed_forgotten_at = PACKED_KEPT_MIN.max(2 * self.packed.len());
    }

    /// A compressed file was read to its end. While it was followed nobody asked whether it was written to.
    pub(super) fn packed_settled(&mut self, source: usize, path: &Path, key: FileKey) {
        let Some(Packed::Known(look)) = self.packed.get(&key) else { return };
        let look = *look;
        self.ledger.content_known(key, look);
        self.look_again_if_changed(source, path, key, look);
    }

    /// Has a source looked at if a compressed file of it looks otherwise than when it was unpacked.
    pub(super) fn look_again_if_changed(&mut self, source: usize, path: &Path, key: FileKey, look: FileLook) {
        if files::facts_at(path).is_ok_and(|facts| facts.key == key && facts.look() != look) {
            self.sources[source].look_soon(Instant::now());
        }
    }

    /// Whether a compressed file that is followed looks as it did when its content was known.
    pub(super) fn looks_as_known(&self, number: FileNumber) -> bool {
        let Some(key) = self.files.get(&number).map(|file| file.key) else { return false };
        let known = self.ledger.known_look(key);
        matches!(self.packed.get(&key), Some(Packed::Known(look)) if known.is_none_or(|known| known == *look))
    }
}
