//! Compressed files: unpacked beside, then followed like any other, and known from then on.

use super::Follower;
use super::copies::{is_named_after_any, names_of};
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{FileKey, Head};
use crate::ledger::record::Met;
use crate::legacy;
use crate::tracker::{FileNumber, Place};
use crate::unpack::{UnpackJob, is_foreign, packing};
use logferry_pack::{Hour, StreamId};
use metrics::counter;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A compressed file that could not be unpacked is tried again when it has changed, or after this time.
const UNPACK_RETRY: Duration = Duration::from_secs(60);

/// Most unpacked files that wait to be read: each takes room on the disk, and there may be an archive of years.
const UNPACKED_MAX: usize = 4;

/// What became of a compressed file.
pub(super) enum Packed {
    /// It is one of `unpack_waiting`; with the hour that it is of, if a name tells it.
    Waiting { source: usize, hour: Option<Hour> },
    /// It is being unpacked.
    Unpacking { source: usize, hour: Option<Hour> },
    /// It was read, or there is nothing new in it.
    Known,
    /// It could not be unpacked at this length.
    Failed { size: u64, at: Instant },
}

impl Follower {
    /// Whether a file is a compressed one. One that is not known yet is unpacked.
    pub(super) fn is_packed(&mut self, source: usize, path: &Path, key: FileKey, size: u64) -> bool {
        self.unpack_if(source, path, key, size, None)
    }

    /// With a stream also one that is known, and at once: what was not acknowledged of the stream may be there, and others wait for that.
    fn unpack_if(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        size: u64,
        missing: Option<&Met>,
    ) -> bool {
        let again = missing.is_some();
        match self.packed.get(&key) {
            Some(Packed::Unpacking { .. }) => return true,
            Some(Packed::Known | Packed::Waiting { .. }) if !again => return true,
            Some(Packed::Failed { size: before, at }) if *before == size && at.elapsed() < UNPACK_RETRY => {
                return true;
            }
            _ => {}
        }
        let mut first_bytes = [0; 8];
        let roots = self.sources[source].settings.roots.clone();
        let read =
            files::open_below(path, &roots).and_then(|file| files::read_at(&file, 0, &mut first_bytes));
        let first_bytes = &first_bytes[..read.unwrap_or(0)];
        let Some(packing) = packing(path, first_bytes) else {
            let is_foreign = is_foreign(path, first_bytes);
            if is_foreign && self.packed.insert(key, Packed::Known).is_none() {
                counter!("logferry_tailer_foreign_files_total").increment(1);
                warn!(
                    path = %path.display(),
                    "the file is compressed in a way that is not read: left alone. Compress with gzip, zstd or bzip2, or give the source a path \
                     that does not lead to such files"
                );
            }
            return is_foreign;
        };
        let is_known = self.ledger.past_files().has(self.sources[source].name.as_str(), key);
        if is_known && !again {
            self.packed.insert(key, Packed::Known);
            return true;
        }
        let Some(skip_lines) = self.lines_before_start(source, path, key) else {
            self.know_unread(source, path, key);
            self.packed.insert(key, Packed::Known);
            return true;
        };
        let paths = &self.sources[source].paths;
        let time = paths.time_of(path).or_else(|| paths.time_of(&missing?.home()));
        let hour = time.filter(|_| paths.has_hours()).map(|time| time.hour);
        let job = UnpackJob { source, path: path.to_owned(), roots, key, size, packing, skip_lines };
        if again {
            self.unpack_waiting.retain(|waiting| waiting.key != key);
            self.packed.insert(key, Packed::Unpacking { source, hour });
            let _ = self.unpack.send(job);
        } else {
            self.packed.insert(key, Packed::Waiting { source, hour });
            self.unpack_waiting.push_back(job);
            self.need_line_record(source, path, key);
            self.unpack_next();
        }
        true
    }

    /// Unpacks what waits for that, as long as there is not too much that was unpacked and not read.
    pub(super) fn unpack_next(&mut self) {
        if self.unpack_waiting.is_empty() || self.unpacks() {
            return;
        }
        if self.files.values().filter(|file| file.packed).count() >= UNPACKED_MAX {
            return;
        }
        let Some(job) = self.unpack_waiting.pop_front() else { return };
        if let Some(Packed::Waiting { source, hour }) = self.packed.get(&job.key) {
            let underway = Packed::Unpacking { source: *source, hour: *hour };
            self.packed.insert(job.key, underway);
            let _ = self.unpack.send(job);
        }
    }

    /// Whether a file is being unpacked.
    pub(super) fn unpacks(&self) -> bool {
        self.packed.values().any(|packed| matches!(packed, Packed::Unpacking { .. }))
    }

    /// The hours of a source's compressed files that have yet to be unpacked.
    pub(super) fn hours_to_unpack(&self, index: usize) -> impl Iterator<Item = Hour> {
        self.packed.values().filter_map(move |packed| match packed {
            Packed::Waiting { source, hour } | Packed::Unpacking { source, hour } if *source == index => {
                *hour
            }
            _ => None,
        })
    }

    /// A file that was empty when it was opened turns out to be a compressed one: it is opened again as such.
    pub(super) fn turned_out_packed(&mut self, number: FileNumber, first_bytes: &[u8]) -> bool {
        let Some(file) = self.files.get(&number).filter(|file| !file.packed) else { return false };
        if packing(&file.path, first_bytes).is_none() && !is_foreign(&file.path, first_bytes) {
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
            Ok(()) => {
                self.sources[job.source].failed.remove(&job.path);
                Packed::Known
            }
            Err(error) => {
                counter!("logferry_tailer_unpack_failures_total").increment(1);
                self.sources[job.source].unpacking_failed(&job.path, &error);
                Packed::Failed { size: job.size, at: Instant::now() }
            }
        };
        self.packed.insert(job.key, became);
        self.unpack_next();
        if !self.unpacks() {
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
        if job.skip_lines > 0 {
            self.skip_lines(number, job.skip_lines)?;
        }
        self.queue(number);
        Ok(())
    }

    /// The first lines of a file were shipped by a legacy system.
    fn skip_lines(&mut self, number: FileNumber, lines: u64) -> io::Result<()> {
        let (bytes, filled) = self.head_bytes(number)?;
        let Some(file) = self.files.get(&number).filter(|file| file.stream.is_none()) else { return Ok(()) };
        let offset = legacy::offset_after_lines(file.handle()?, lines)?;
        let (Some(first), Some(head)) = (offset, Head::finished(&bytes[..filled])) else {
            warn!(path = %file.path.display(), lines, "the file has fewer lines than line.rec says: it is read from its start");
            return Ok(());
        };
        let (source, path, key) = (file.source, file.path.clone(), file.key);
        let stream = self.meet(source, &path, key, head, first);
        if let (Some(stream), Some(file)) = (stream, self.files.get_mut(&number)) {
            file.stream = Some(stream);
            file.cutter = Cutter::new(first);
            self.by_stream.insert(stream, number);
        }
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
        let names = names_of(&met.home());
        if self.files.values().any(|file| of_source(file) && is_named_after_any(&file.path, &names)) {
            return true;
        }
        let mut folders = self.sources[source].folders.clone();
        folders.extend(names.iter().map(|name| files::folder_of(name)));
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let paths: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
        let mut awaits = false;
        let may_be = |path: &&PathBuf| {
            is_named_after_any(path, &names)
                && !self.sources[source].paths.differ_in_time(path.as_path(), &met.home())
        };
        let paths: Vec<PathBuf> = paths.iter().filter(may_be).cloned().collect();
        for path in &paths {
            let Some(facts) = files::facts_at(path).ok().filter(|facts| facts.is_file) else { continue };
            if self.unpacked_for.insert((met.stream, facts.key)) {
                self.unpack_if(source, path, facts.key, facts.size, Some(met));
            }
            awaits |= matches!(self.packed.get(&facts.key), Some(Packed::Unpacking { .. }));
        }
        awaits
    }
}
