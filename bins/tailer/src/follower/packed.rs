//! Compressed files: unpacked beside, then followed like any other, and known from then on.

use super::Follower;
use super::copies::is_named_after;
use super::listings::is_without_descriptors;
use super::packed_room::Failed;
use super::source::Source;
use crate::cutter::Cutter;
use crate::files::{self, Facts};
use crate::identity::{FileKey, Head};
use crate::ledger::looks::FileLook;
use crate::ledger::past::PastFile;
use crate::ledger::record::Met;
use crate::legacy;
use crate::tracker::{FileNumber, Place};
use crate::unpack::{
    FIRST_BYTES, FirstBytes, Shipped, UnpackJob, Unpacked, is_archive_name, is_foreign, is_packed_name,
    packing,
};
use logferry_pack::{Hour, StreamId};
use metrics::counter;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tracing::{info, warn};

/// Most files that were read before of which a compressed one may be a copy; the latest of them.
const MAY_BE_MAX: usize = 1_024;

/// What became of a compressed file.
pub(super) enum Packed {
    /// It waits in `to_unpack`; with the hour that it is of, if a name tells it.
    Waiting { source: usize, hour: Option<Hour> },
    /// It is being unpacked.
    Unpacking { source: usize, hour: Option<Hour> },
    /// It was read, or there is nothing new in it, as it looked then.
    Known(FileLook),
    /// It could not be unpacked as it looked then.
    Failed(Failed),
}

/// What a file holds.
pub(super) enum Content {
    /// It is compressed, or in an archive.
    Packed,
    /// It is neither, as far as it could be opened.
    Plain(io::Result<File>),
}

/// Whether a file that could not be opened may be a compressed one, and is only out of reach for now: others wait for what it has, so one that
/// may never be read does not count.
fn may_be_opened_later(path: &Path, error: &io::Error) -> bool {
    is_without_descriptors(error) && is_packed_name(path) && !is_archive_name(path)
}

impl Follower {
    /// Whether a file is a compressed one. One that is not known yet is unpacked.
    pub(super) fn is_packed(&mut self, source: usize, path: &Path, key: FileKey, look: FileLook) -> bool {
        matches!(self.unpack_if(source, path, key, look, None), Content::Packed)
    }

    /// With a stream also one that is known, and at once: what was not acknowledged of the stream may be there, and others wait for that.
    pub(super) fn unpack_if(
        &mut self,
        source: usize,
        path: &Path,
        key: FileKey,
        look: FileLook,
        missing: Option<&Met>,
    ) -> Content {
        if self.is_followed_unpacked(key) {
            // What it holds by now, if that is another content, is unpacked when it is let go.
            return Content::Packed;
        }
        let again = missing.is_some();
        let stream = missing.map(|met| met.stream).or_else(|| self.lost_in(key));
        let mut failed_before = 0;
        match self.packed.get(&key) {
            Some(Packed::Unpacking { .. }) => return Content::Packed,
            Some(Packed::Waiting { .. }) if !again => return Content::Packed,
            Some(Packed::Known(known)) if stream.is_none() && *known == look => return Content::Packed,
            Some(Packed::Failed(failed)) if failed.job.look == look => {
                if Instant::now() < failed.retry_at {
                    return Content::Packed;
                }
                failed_before = failed.job.failures;
            }
            _ => {}
        }
        let mut first_bytes = [0; FIRST_BYTES];
        let roots = self.sources[source].settings.roots.clone();
        let opened = files::open_below(path, &roots);
        if let (Some(met), Err(error)) = (missing, &opened)
            && may_be_opened_later(path, error)
        {
            self.asked.remove(met.stream, key);
            return Content::Packed;
        }
        let file = opened.as_ref().ok();
        let read = file.and_then(|file| files::read_at(file, 0, &mut first_bytes).ok());
        let first_bytes = &first_bytes[..read.unwrap_or(0)];
        let begins = FirstBytes::of(first_bytes);
        if read.is_some() {
            self.note_overwritten(key, begins, first_bytes);
        }
        let Some(packing) = packing(path, first_bytes) else {
            let is_foreign = is_foreign(path, first_bytes);
            if is_foreign && self.packed.insert(key, Packed::Known(look)).is_none() {
                counter!("logferry_tailer_foreign_files_total").increment(1);
                warn!(
                    path = %path.display(),
                    "the file is an archive, or compressed in a way that is not read: left alone. Compress log files one by one with gzip, zstd or \
                     bzip2, or give the source a path that does not lead to such files"
                );
            }
            return if is_foreign { Content::Packed } else { Content::Plain(opened) };
        };
        if let Some(number) = self.tracker.find(key) {
            // It was empty when it was opened, and turns out to be compressed now.
            self.queue(number);
            return Content::Packed;
        }
        let name = self.sources[source].name.as_str();
        let is_known = self.ledger.past_files().has(name, key);
        let is_unread = self.ledger.past_files().is_unread(name, key);
        let looks_alike = || self.ledger.known_look(key).is_none_or(|known| known == look);
        if is_known && stream.is_none() && (is_unread || looks_alike()) {
            self.ledger.content_known(key, look);
            self.packed.insert(key, Packed::Known(look));
            return Content::Packed;
        }
        self.need_line_record(source, path, key);
        let Some(skip_lines) = self.lines_before_start(source, path, key) else {
            self.know_unread(source, path, key);
            self.ledger.content_known(key, look);
            self.packed.insert(key, Packed::Known(look));
            return Content::Packed;
        };
        let paths = &self.sources[source].paths;
        let time = paths.time_of(path).or_else(|| paths.time_of(&missing?.home()));
        let hour = time.filter(|_| paths.has_hours()).map(|time| time.hour);
        if let Some(Packed::Failed(failed)) = self.packed.get_mut(&key) {
            // It was opened anew.
            failed.job.held = None;
        }
        let holds = self.may_hold_next(again);
        let job = UnpackJob {
            source,
            path: path.to_owned(),
            roots,
            key,
            look,
            begins,
            held: opened.ok().filter(|_| holds),
            is_moved: false,
            gone_since: None,
            replaced: None,
            packing,
            skip_lines,
            may_be: Vec::new(),
            failures: failed_before,
        };
        let packed =
            if again { Packed::Unpacking { source, hour } } else { Packed::Waiting { source, hour } };
        self.packed.insert(key, packed);
        self.to_unpack.add(job, again);
        self.unpack_next();
        Content::Packed
    }

    /// The file is not under its path any more: it may have another name, and is found under that.
    pub(super) fn forget_renamed(&mut self, job: &UnpackJob) {
        self.packed.remove(&job.key);
        self.asked.forget(job.key);
        self.sources[job.source].failed.remove(&job.path);
        self.sources[job.source].look_soon(Instant::now());
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
        self.sources[source].look_soon(Instant::now());
        true
    }

    /// The stream that goes on in a compressed file, if nobody reads on in it: earlier processes had unpacked it.
    pub(super) fn lost_in(&self, key: FileKey) -> Option<StreamId> {
        self.ledger.current(key).filter(|id| self.is_lost(*id))
    }

    pub(super) fn is_lost(&self, id: StreamId) -> bool {
        !self.by_stream.contains_key(&id) && self.ledger.stream(id).is_some_and(|stream| !stream.orphan)
    }

    /// What was shipped of a stream, if that is all that was cut.
    fn shipped_as(&self, id: StreamId) -> Option<Shipped> {
        let stream = self.ledger.stream(id).filter(|stream| stream.is_settled_to(stream.frontier))?;
        Some(Shipped { stream: id, head: stream.met.head, length: stream.frontier, tail: stream.tail? })
    }

    /// What a compressed file may be a copy of: of the streams that ask for it, or else of any.
    pub(super) fn may_be(&self, job: &UnpackJob) -> Vec<Shipped> {
        let UnpackJob { source, ref path, key, skip_lines, .. } = *job;
        let lost = self.asked.by(key).filter(|id| self.is_lost(*id)).chain(self.lost_in(key));
        let lost: BTreeSet<StreamId> = lost.collect();
        if !lost.is_empty() {
            return lost.into_iter().filter_map(|id| self.shipped_as(id)).collect();
        }
        if skip_lines > 0 { Vec::new() } else { self.shipped_before(source, path, key) }
    }

    /// The same of all that was shipped to its end.
    fn shipped_before(&self, source: usize, path: &Path, key: FileKey) -> Vec<Shipped> {
        let Source { paths, settings, .. } = &self.sources[source];
        let is_of = |other: &Path| {
            is_named_after(path, other.as_os_str().as_bytes()) && !paths.differ_in_time(path, other)
        };
        let living = self.ledger.with_name(&settings.name, path).into_iter().filter_map(|id| {
            let (shipped, stream) = (self.shipped_as(id)?, self.ledger.stream(id)?);
            let number = self.by_stream.get(&id);
            let is_copied = match number.and_then(|number| self.files.get(number)) {
                Some(file) => is_of(&file.path) && file.cutter.at() == shipped.length,
                None => is_of(&stream.met.home()),
            };
            is_copied.then_some(shipped)
        });
        let past: Vec<&PastFile> = self.ledger.past_files().of(&settings.name).collect();
        let past = past.into_iter().rev().take(MAY_BE_MAX);
        // It may have been written to since it was read, and hold the same.
        let is_past = |past: &&PastFile| {
            past.keys.first() == Some(&key) || is_of(Path::new(OsStr::from_bytes(&past.path)))
        };
        let past = past.filter(is_past).filter_map(|past| {
            let PastFile { stream, head, length, tail, .. } = *past;
            Some(Shipped { stream, head, length, tail: tail? })
        });
        living.chain(past).collect()
    }

    /// Whether another stream whose file is gone may go on in a compressed file, which holds what was shipped of this one.
    fn may_be_of_lost(&self, job: &UnpackJob, shipped: &Shipped) -> bool {
        let Source { paths, settings, .. } = &self.sources[job.source];
        let may_be_there = |id: &StreamId| {
            let met = self.ledger.stream(*id).map(|stream| &stream.met);
            met.is_some_and(|met| {
                is_named_after(&job.path, &met.path) && !paths.differ_in_time(&job.path, &met.home())
            })
        };
        let alike = self.ledger.with_head(&settings.name, shipped.head).filter(may_be_there);
        let mut lost = alike.chain(self.lost_in(job.key)).filter(|id| self.is_lost(*id));
        lost.any(|id| id != shipped.stream)
    }

    /// A compressed file holds what was shipped: it is known from now on. Unless that was forgotten, or more was shipped of it meanwhile, or
    /// what another stream with the same bytes lacks may be there.
    fn know_shipped(&mut self, job: &UnpackJob, shipped: &Shipped) -> bool {
        if self.may_be_of_lost(job, shipped) {
            return false;
        }
        let name = self.sources[job.source].settings.name.clone();
        let Shipped { stream: id, head, length, .. } = *shipped;
        if let Some(stream) = self.ledger.stream(id) {
            let is_same = stream.is_settled_to(length);
            if is_same {
                self.ledger.copy_known(id, job.key, length);
            }
            if is_same && self.lost_in(job.key) == Some(id) {
                self.ledger.finish(id);
                self.release_home_of(id);
            }
            return is_same;
        }
        let is_it = |past: &&PastFile| past.stream == id && past.length == length;
        let past = self.ledger.past_files().with_head(&name, head).find(is_it).cloned();
        let Some(past) = past else { return false };
        if past.keys.first() != Some(&job.key) {
            self.ledger.past_copy_known(&name, PastFile { keys: vec![job.key], tail: None, ..past });
        }
        true
    }

    /// Whether a file is known to hold what was shipped of a stream, which is all that was cut of it.
    pub(super) fn is_whole_copy(&self, id: StreamId, key: FileKey) -> bool {
        let Some(shipped) = self.shipped_as(id) else { return false };
        let mut of_file = self.ledger.past_files().of_file(key, shipped.head);
        of_file.any(|past| past.stream == id && past.length == shipped.length)
    }

    pub(super) fn unpacked(&mut self, mut job: UnpackJob, unpacked: io::Result<Unpacked>) {
        self.to_unpack.is_back(&job);
        if let Some(look) = job.replaced.take() {
            self.packed_lost(job.source, &job.path, job.key, look, "replaced");
        }
        let mut is_settled = false;
        let followed = match unpacked {
            Ok(Unpacked::Content(file)) => self.follow_unpacked(&job, file),
            Ok(Unpacked::Shipped(shipped)) if self.know_shipped(&job, &shipped) => {
                info!(path = %job.path.display(), stream = %shipped.stream, "a compressed file holds what was shipped");
                is_settled = true;
                Ok(())
            }
            Ok(Unpacked::Shipped(_)) => {
                self.send_to_unpack(UnpackJob { may_be: Vec::new(), ..job });
                return;
            }
            Err(error) => Err(error),
        };
        match followed {
            Ok(()) => {
                self.sources[job.source].failed.remove(&job.path);
                self.packed.insert(job.key, Packed::Known(job.look));
                match is_settled {
                    true => self.packed_settled(job.source, &job.path, job.key),
                    false => self.look_again_if_changed(job.source, &job.path, job.key, job.look),
                }
            }
            Err(_) if job.is_gone() => self.unpacking_gone(job),
            Err(error) => self.unpacking_failed(job, &error),
        }
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
        let facts = Facts { key: job.key, changed_ns: job.look.changed_ns, ..files::facts_of(&handle)? };
        info!(path = %job.path.display(), bytes = facts.size, "a compressed file was unpacked");
        self.figures.files_unpacked.fetch_add(1, Ordering::Relaxed);
        let number = self.follow(job.source, &job.path, handle, &facts, Place::Here)?;
        if let Some(file) = self.files.get_mut(&number) {
            file.packed = true;
            self.unpacked.insert(number);
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
            file.cutter = Cutter::new(first);
            self.is_read_as(number, stream);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_file_that_cannot_be_opened_is_not_given_up() {
        let later = |path: &str, error: io::Error| may_be_opened_later(Path::new(path), &error);
        let without_descriptors = || io::Error::from(rustix::io::Errno::MFILE);
        assert!(later("/log/app.log.1.gz", without_descriptors()));
        for never in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied] {
            assert!(!later("/log/app.log.1.gz", never.into()));
        }
        assert!(!later("/log/app.log", without_descriptors()));
        assert!(!later("/log/app.log.tar.gz", without_descriptors()));
    }
}
