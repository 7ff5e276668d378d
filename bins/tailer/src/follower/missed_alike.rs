//! Whether a file that was missed is a copy of one that was read: nothing is shipped twice on a guess, and nothing is left out that is surely
//! another.

use super::Follower;
use super::handles::open_known;
use super::missed::MAY_BE_COPY;
use super::origin::is_same;
use crate::files::{self, Facts};
use crate::identity::{FileKey, HEAD_BYTES_MAX, Head};
use crate::ledger::past::PastFile;
use crate::ledger::record::Tail;
use crate::ledger::stream::Stream;
use crate::tracker::FileNumber;
use crate::unpack::{packing, reader};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files that were read with the same first line that a missed one is compared with.
const ALIKE_MAX: usize = 256;
/// Bytes at the beginnings of two files that are compared where their ends tell nothing.
const BEGINNING_BYTES: usize = 64 << 10;

/// A file that was missed, with its content.
pub(super) struct Candidate<'a> {
    /// The place of its source.
    pub(super) source: usize,
    pub(super) head: Head,
    pub(super) path: &'a Path,
    pub(super) key: FileKey,
    /// What it holds, unpacked.
    pub(super) file: &'a File,
    pub(super) size: u64,
}

/// A file that was read, or is followed, by what is known of it.
struct Known<'a> {
    keys: &'a [FileKey],
    home: &'a Path,
    tail: Option<Tail>,
}

impl Follower {
    /// Whether a compressed file that was missed is a copy after all, as far as its content tells.
    pub(super) fn is_missed_copy(&mut self, number: FileNumber, head: Head) -> io::Result<bool> {
        let Some(file) = self.files.get(&number) else { return Ok(true) };
        let (source, path, key, size) = (file.source, file.path.clone(), file.key, file.size);
        let candidate = Candidate { source, head, path: &path, key, file: file.handle()?, size };
        let is_copy = self.may_be_copy(&candidate)?;
        if is_copy {
            let facts = files::facts_at(&path).unwrap_or(Facts { size, ..files::facts_of(file.handle()?)? });
            self.not_shipped(source, &path, &Facts { key, ..facts }, MAY_BE_COPY);
        }
        Ok(is_copy)
    }

    /// Whether a file begins as one that was read and does not differ from it where that can be told.
    pub(super) fn may_be_copy(&self, candidate: &Candidate<'_>) -> io::Result<bool> {
        let (name, head) = (&self.sources[candidate.source].settings.name, candidate.head);
        for (nth, id) in self.ledger.with_head(name, head).enumerate() {
            let Some(stream) = self.ledger.stream(id) else { continue };
            let number = self.by_stream.get(&id);
            let other = number.and_then(|number| self.files.get(number)?.handle.as_ref());
            let differs = match other {
                Some(other) => {
                    let common = candidate.size.min(files::facts_of(other)?.size);
                    common > u64::from(head.length) && !is_same(candidate.file, other, common)?
                }
                None => {
                    let (keys, home) = ([stream.met.key], stream.met.home());
                    let known = Known { keys: &keys, home: &home, tail: stream.evidence() };
                    self.differs(candidate, &known)?
                }
            };
            if !differs || nth == ALIKE_MAX {
                return Ok(true);
            }
        }
        // A copy that is known tells nothing of its content; the stream that it is a copy of does.
        let tail_of = |past: &PastFile| {
            let of_stream = || self.ledger.stream(past.stream).and_then(Stream::evidence);
            let mut others = self.ledger.past_files().with_head(name, head);
            let mut of_other =
                || others.find(|other| other.stream == past.stream && other.tail.is_some())?.tail;
            past.tail.or_else(of_stream).or_else(&mut of_other)
        };
        for (nth, past) in self.ledger.past_files().with_head(name, head).enumerate() {
            let home = Path::new(OsStr::from_bytes(&past.path));
            let known = Known { keys: &past.keys, home, tail: tail_of(past) };
            if !self.differs(candidate, &known)? || nth == ALIKE_MAX {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a file is surely not a copy of a known one that is not open.
    fn differs(&self, candidate: &Candidate<'_>, known: &Known<'_>) -> io::Result<bool> {
        match known.tail.filter(|tail| tail.end() <= candidate.size) {
            Some(tail) if !files::has(candidate.file, &tail)? => Ok(true),
            Some(tail) if tail.is_beyond(candidate.head) => Ok(false),
            // It is shorter than what is known, or has the first line, as many files do. Mostly the other one is still there.
            _ => self.begins_otherwise(candidate, known),
        }
    }

    fn begins_otherwise(&self, candidate: &Candidate<'_>, known: &Known<'_>) -> io::Result<bool> {
        let roots = &self.sources[candidate.source].settings.roots;
        // The first line does not tell whether it was cut since.
        let tail = known.tail.filter(|tail| tail.is_beyond(candidate.head));
        let folders: BTreeSet<PathBuf> = [candidate.path, known.home].map(files::folder_of).into();
        let others = known.keys.iter().filter(|key| **key != FileKey::NOWHERE && **key != candidate.key);
        for (key, folder) in others.flat_map(|key| folders.iter().map(move |folder| (*key, folder))) {
            // What cannot be listed is none.
            let Some(path) = self.find_in(folder, key).ok().flatten() else { continue };
            let Some(file) = open_known(&path, key, roots)? else { continue };
            let Some(other) = self.beginning_of(&path, key, file, tail)? else { continue };
            let mut own = vec![0; other.len()];
            let filled = files::read_at(candidate.file, 0, &mut own)?;
            return Ok(filled > usize::from(candidate.head.length) && own[..filled] != other[..filled]);
        }
        Ok(false)
    }

    /// The beginning of a file that was read, if it still holds what it held then.
    fn beginning_of(
        &self,
        path: &Path,
        key: FileKey,
        file: File,
        tail: Option<Tail>,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut first_bytes = [0; HEAD_BYTES_MAX];
        let filled = files::read_head(&file, &mut first_bytes)?;
        let packing = packing(path, &first_bytes[..filled]);
        let is_still = match (packing, tail) {
            (Some(_), _) => self.ledger.known_look(key) == Some(files::facts_of(&file)?.look()),
            (None, Some(tail)) => files::has(&file, &tail)?,
            (None, None) => false,
        };
        if !is_still {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let file = io::BufReader::new(file);
        let taken = match packing {
            // It was unpacked before; should it be damaged by now, it tells nothing.
            Some(packing) => reader(packing, file)
                .and_then(|reader| reader.take(BEGINNING_BYTES as u64).read_to_end(&mut bytes)),
            None => file.take(BEGINNING_BYTES as u64).read_to_end(&mut bytes),
        };
        Ok(taken.ok().map(|_| bytes))
    }
}
