//! Compressed files: unpacked beside, then followed like any other, and known from then on.

use super::Follower;
use super::copies::is_named_after;
use crate::files::{self, Facts};
use crate::identity::FileKey;
use crate::ledger::record::Met;
use crate::tracker::{FileNumber, Place};
use crate::unpack::{UnpackJob, packing};
use logferry_pack::StreamId;
use metrics::counter;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A compressed file that could not be unpacked is tried again when it has changed, or after this time.
const UNPACK_RETRY: Duration = Duration::from_secs(60);

/// What became of a compressed file.
pub(super) enum Packed {
    /// It is being unpacked.
    Unpacking,
    /// It was read, or there is nothing new in it.
    Known,
    /// It could not be unpacked at this length.
    Failed { size: u64, at: Instant },
}

impl Follower {
    /// Whether a file is a compressed one. One that is not known yet is unpacked.
    pub(super) fn is_packed(&mut self, source: usize, path: &Path, key: FileKey, size: u64) -> bool {
        self.unpack_if(source, path, key, size, false)
    }

    /// With `again` also one that is known: a stream that was not wholly acknowledged may need it once more.
    fn unpack_if(&mut self, source: usize, path: &Path, key: FileKey, size: u64, again: bool) -> bool {
        match self.packed.get(&key) {
            Some(Packed::Unpacking) => return true,
            Some(Packed::Known) if !again => return true,
            Some(Packed::Failed { size: before, at }) if *before == size && at.elapsed() < UNPACK_RETRY => {
                return true;
            }
            _ => {}
        }
        let mut first_bytes = [0; 8];
        let roots = self.sources[source].settings.roots.clone();
        let read =
            files::open_below(path, &roots).and_then(|file| files::read_at(&file, 0, &mut first_bytes));
        let Some(packing) = read.ok().and_then(|count| packing(path, &first_bytes[..count])) else {
            return false;
        };
        let is_known = self.ledger.past_files().has(self.sources[source].name.as_str(), key);
        if is_known && !again {
            self.packed.insert(key, Packed::Known);
        } else {
            self.packed.insert(key, Packed::Unpacking);
            let path = path.to_owned();
            let _ = self.unpack.send(UnpackJob { source, path, roots, key, size, packing });
        }
        true
    }

    /// A file that was empty when it was opened turns out to be a compressed one: it is opened again as such.
    pub(super) fn turned_out_packed(&mut self, number: FileNumber, first_bytes: &[u8]) -> bool {
        let Some(file) = self.files.get(&number).filter(|file| !file.packed) else { return false };
        if packing(&file.path, first_bytes).is_none() {
            return false;
        }
        let source = file.source;
        self.caught_up(number);
        self.let_go(number);
        self.sources[source].next_look = Instant::now();
        true
    }

    pub(super) fn unpacked(&mut self, job: &UnpackJob, file: io::Result<File>) {
        let followed = file.and_then(|file| self.follow_unpacked(job, file));
        let became = match followed {
            Ok(()) => Packed::Known,
            Err(error) => {
                counter!("logferry_tailer_unpack_failures_total").increment(1);
                warn!(path = %job.path.display(), %error, "the compressed file cannot be read: trying again when it has changed");
                Packed::Failed { size: job.size, at: Instant::now() }
            }
        };
        self.packed.insert(job.key, became);
        if !self.packed.values().any(|packed| matches!(packed, Packed::Unpacking)) {
            // What was waited for did not come.
            self.search_lost();
        }
    }

    fn follow_unpacked(&mut self, job: &UnpackJob, handle: File) -> io::Result<()> {
        if self.tracker.find(job.key).is_some() {
            return Ok(());
        }
        let facts = Facts { key: job.key, ..files::facts_of(&handle)? };
        info!(path = %job.path.display(), bytes = facts.size, "a compressed file was unpacked");
        let number = self.follow(job.source, &job.path, handle, &facts, Place::Here)?;
        if let Some(file) = self.files.get_mut(&number) {
            file.packed = true;
        }
        self.queue(number);
        Ok(())
    }

    /// The bytes of a stream are not in its file any more. They may be in a compressed copy: then the stream waits for it, and
    /// the file begins another.
    pub(super) fn waits_for_packed_copy(&mut self, id: StreamId) -> bool {
        let Some(met) = self.ledger.stream(id).map(|stream| stream.met.clone()) else { return false };
        let source = self.sources.iter().position(|source| source.settings.name == met.source);
        let waits = source.is_some_and(|source| self.awaits_unpacking(source, &met));
        if waits {
            self.ledger.rehome(id, FileKey::NOWHERE, &met.path);
        }
        waits
    }

    /// A stream whose file is gone may go on in a compressed copy: whether one is being unpacked.
    pub(super) fn awaits_unpacking(&mut self, source: usize, met: &Met) -> bool {
        let of_source =
            |file: &super::Followed| file.packed && file.source == source && file.stream.is_none();
        if self.files.values().any(|file| of_source(file) && is_named_after(&file.path, &met.path)) {
            return true;
        }
        let folders = self.sources[source].folders.clone();
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let paths: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
        let mut awaits = false;
        for path in paths.iter().filter(|path| is_named_after(path, &met.path)) {
            let Some(facts) = files::facts_at(path).ok().filter(|facts| facts.is_file) else { continue };
            if self.unpacked_for.insert((met.stream, facts.key)) {
                self.unpack_if(source, path, facts.key, facts.size, true);
            }
            awaits |= matches!(self.packed.get(&facts.key), Some(Packed::Unpacking));
        }
        awaits
    }
}
