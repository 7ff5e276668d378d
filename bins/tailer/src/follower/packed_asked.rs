//! Compressed files that are asked for by streams whose files are gone: they may go on there.

use super::copies::{Before, InCopy, is_named_after_any, names_of};
use super::packed::Packed;
use super::sought::Sought;
use super::{Followed, Follower};
use crate::files::{self, Facts};
use crate::identity::{FileKey, HEAD_BYTES_MAX};
use crate::ledger::record::Met;
use crate::tracker::FileNumber;
use crate::unpack::{is_packed_name, packing};
use logferry_pack::StreamId;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What of compressed files is waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Awaited {
    Nothing,
    /// What is unpacked, now or when there is room.
    Unpacked,
    /// Some could not be opened.
    Unclear,
}

/// Which streams have asked for which compressed files: each is unpacked once for each of them.
#[derive(Default)]
pub(super) struct Asked {
    by_stream: BTreeSet<(StreamId, FileKey)>,
    by_file: BTreeSet<(FileKey, StreamId)>,
}

impl Asked {
    /// Whether that is new.
    pub(super) fn insert(&mut self, id: StreamId, key: FileKey) -> bool {
        self.by_file.insert((key, id));
        self.by_stream.insert((id, key))
    }

    pub(super) fn remove(&mut self, id: StreamId, key: FileKey) {
        self.by_stream.remove(&(id, key));
        self.by_file.remove(&(key, id));
    }

    pub(super) fn has(&self, id: StreamId, key: FileKey) -> bool {
        self.by_stream.contains(&(id, key))
    }

    /// The files that a stream has asked for.
    pub(super) fn of(&self, id: StreamId) -> impl Iterator<Item = FileKey> {
        let files = self.by_stream.range((id, FileKey::FIRST)..).take_while(move |(other, _)| *other == id);
        files.map(|(_, key)| *key)
    }

    /// The streams that have asked for a file.
    pub(super) fn by(&self, key: FileKey) -> impl Iterator<Item = StreamId> {
        let streams =
            self.by_file.range((key, StreamId(u128::MIN))..).take_while(move |(other, _)| *other == key);
        streams.map(|(_, id)| *id)
    }

    /// A file has to be asked for again.
    pub(super) fn forget(&mut self, key: FileKey) {
        let streams: Vec<StreamId> = self.by(key).collect();
        streams.into_iter().for_each(|id| self.remove(id, key));
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(StreamId, FileKey) -> bool) {
        self.by_stream.retain(|(id, key)| is_kept(*id, *key));
        self.by_file.retain(|(key, id)| is_kept(*id, *key));
    }
}

impl Follower {
    /// The bytes of a stream are not in its file any more. They may be in a compressed copy: then the stream waits for it, and
    /// the file begins another. `successor` goes on when it was read.
    pub(super) fn goes_on_elsewhere(
        &mut self,
        id: StreamId,
        before: Option<Before>,
        successor: Option<FileNumber>,
    ) -> bool {
        let Some(met) = self.ledger.stream(id).map(|stream| stream.met.clone()) else { return false };
        let mut sought = Sought::new(met.home(), before, successor);
        let source = self.sources.iter().position(|source| source.settings.name == met.source);
        match self.continue_in_copy(id, &mut sought) {
            InCopy::Found => return true,
            InCopy::Unclear => self.seek(id, sought),
            InCopy::Nowhere => {
                match source.map_or(Awaited::Nothing, |source| self.awaits_unpacking(source, &met)) {
                    Awaited::Nothing => return false,
                    Awaited::Unpacked => {}
                    Awaited::Unclear => self.seek(id, sought),
                }
            }
        }
        self.ledger.rehome(id, FileKey::NOWHERE, &met.path);
        true
    }

    /// A stream whose file is gone may go on in a compressed copy: whether one is being unpacked.
    pub(super) fn awaits_unpacking(&mut self, source: usize, met: &Met) -> Awaited {
        let names = names_of(&met.home());
        let may_be = |file: &Followed| file.source == source && is_named_after_any(&file.path, &names);
        if self.unpacked_unmet().any(may_be) {
            return Awaited::Unpacked;
        }
        let mut folders = self.sources[source].folders.clone();
        folders.extend(names.iter().map(|name| files::folder_of(name)));
        let paths = self.named_after(folders.iter(), &names);
        let mut awaits = Awaited::Nothing;
        let may_be = |path: &&PathBuf| {
            is_named_after_any(path, &names)
                && !self.sources[source].paths.differ_in_time(path.as_path(), &met.home())
        };
        let own: BTreeSet<PathBuf> = names.iter().map(|name| files::folder_of(name)).collect();
        let is_beside = |path: &PathBuf| own.contains(&files::folder_of(path));
        let (beside, elsewhere): (Vec<PathBuf>, Vec<PathBuf>) =
            paths.iter().filter(may_be).cloned().partition(is_beside);
        // Mostly it is in its folder. There may be one of the same name in each of thousands.
        for paths in [beside, elsewhere] {
            if awaits == Awaited::Nothing {
                awaits = paths.iter().map(|path| self.awaits_file(source, path, met)).max().unwrap_or(awaits);
            }
        }
        let holds = awaits == Awaited::Nothing && self.awaits_held(source, met, &names);
        if holds { Awaited::Unpacked } else { awaits }
    }

    /// Whether a stream may go on in one compressed file, which is unpacked for it once.
    fn awaits_file(&mut self, source: usize, path: &Path, met: &Met) -> Awaited {
        let unpacked_if = |is_awaited: bool| if is_awaited { Awaited::Unpacked } else { Awaited::Nothing };
        let Some(facts) = files::facts_at(path).ok().filter(|facts| facts.is_file) else {
            return Awaited::Nothing;
        };
        if self.tracker.find(facts.key).is_some() {
            return unpacked_if(self.holds_another(source, path, &facts));
        }
        let is_whole = self.is_whole_copy(met.stream, facts.key);
        if !is_whole && self.asked.insert(met.stream, facts.key) {
            self.unpack_if(source, path, facts.key, facts.look(), Some(met));
            // It could not be opened.
            if !self.asked.has(met.stream, facts.key) {
                return Awaited::Unclear;
            }
        }
        unpacked_if(match self.packed.get(&facts.key) {
            Some(Packed::Failed(failed)) => failed.lacks_room,
            packed => matches!(packed, Some(Packed::Unpacking { .. })),
        })
    }

    /// Whether a file that is followed holds something by now that is unpacked only when it is let go: what was unpacked of it was
    /// overwritten, or it was empty.
    fn holds_another(&mut self, source: usize, path: &Path, facts: &Facts) -> bool {
        if self.is_followed_unpacked(facts.key) {
            return !matches!(self.packed.get(&facts.key), Some(Packed::Known(known)) if *known == facts.look());
        }
        if !is_packed_name(path) {
            return false;
        }
        let mut bytes = [0; HEAD_BYTES_MAX];
        let opened = files::open_below(path, &self.sources[source].settings.roots);
        let filled = opened.and_then(|file| files::read_head(&file, &mut bytes)).unwrap_or(0);
        let is_packed = packing(path, &bytes[..filled]).is_some();
        if let Some(number) = self.tracker.find(facts.key).filter(|_| is_packed) {
            self.queue(number);
        }
        is_packed
    }

    /// Whether what was unpacked of a file is followed.
    pub(super) fn is_followed_unpacked(&self, key: FileKey) -> bool {
        let number = self.tracker.find(key);
        number.and_then(|number| self.files.get(&number)).is_some_and(|file| file.packed)
    }
}
