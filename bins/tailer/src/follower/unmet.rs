//! Which files are read as which streams, and those that are none yet, by their names: what may be a copy is looked for among these by the name
//! that it was copied from. After a rotation there may be as many as logs.

use super::copies::is_named_after_any;
use super::{Followed, Follower};
use crate::rotated_names::{plain_name, root_of};
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files without a stream.
#[derive(Default)]
pub(super) struct UnmetFiles {
    by_name: BTreeSet<(OsString, FileNumber)>,
}

impl UnmetFiles {
    pub(super) fn list(&mut self, path: &Path, number: FileNumber) {
        self.by_name.extend(path.file_name().map(|name| (name.to_owned(), number)));
    }

    pub(super) fn unlist(&mut self, path: &Path, number: FileNumber) {
        if let Some(name) = path.file_name() {
            self.by_name.remove(&(name.to_owned(), number));
        }
    }

    /// Those whose names begin so. Where bytes of the name that is asked for are no text, nothing is known of what follows them.
    fn beginning_with<'a>(&'a self, root: &'a str) -> impl Iterator<Item = FileNumber> + 'a {
        let root = root.split(char::REPLACEMENT_CHARACTER).next().unwrap_or_default();
        let from = (OsStr::new(root).to_owned(), FileNumber::MIN);
        let names = self.by_name.range(from..);
        names
            .take_while(move |(name, _)| name.as_bytes().starts_with(root.as_bytes()))
            .map(|(_, number)| *number)
    }

    fn named(&self, name: &OsStr) -> impl Iterator<Item = FileNumber> {
        let range = (name.to_owned(), FileNumber::MIN)..=(name.to_owned(), FileNumber::MAX);
        self.by_name.range(range).map(|(_, number)| *number)
    }

    fn all(&self) -> impl Iterator<Item = FileNumber> {
        self.by_name.iter().map(|(_, number)| *number)
    }
}

impl Follower {
    /// A file is read as this stream from now on.
    pub(super) fn is_read_as(&mut self, number: FileNumber, id: StreamId) {
        let Some(file) = self.files.get_mut(&number) else { return };
        file.stream = Some(id);
        self.unmet.unlist(&file.path, number);
        self.by_stream.insert(id, number);
        self.release_home_of(id);
    }

    /// A file is no stream any more; which it was.
    pub(super) fn is_read_as_none(&mut self, number: FileNumber) -> Option<StreamId> {
        let file = self.files.get_mut(&number)?;
        let stream = file.stream.take();
        self.unmet.list(&file.path, number);
        if let Some(id) = stream {
            self.by_stream.remove(&id);
        }
        stream
    }

    /// A file has another name by now, where it is looked for.
    pub(super) fn is_named(&mut self, number: FileNumber, path: PathBuf) {
        let Some(file) = self.files.get_mut(&number) else { return };
        let before = std::mem::replace(&mut file.path, path.clone());
        if file.stream.is_none() {
            self.unmet.unlist(&before, number);
            self.unmet.list(&path, number);
        }
        file.names.push(before);
        self.by_path.insert(path, number);
    }

    /// Files of a source that are no streams yet and are named after one of these.
    pub(super) fn unmet_named_after<'a>(
        &'a self,
        source: usize,
        names: &'a [PathBuf],
    ) -> impl Iterator<Item = &'a Followed> {
        let mut numbers = BTreeSet::new();
        for plain in names.iter().filter_map(|name| plain_name(name)) {
            numbers.extend(self.unmet.beginning_with(root_of(&plain)));
        }
        let files = numbers.into_iter().filter_map(|number| self.files.get(&number));
        files.filter(move |file| file.source == source && is_named_after_any(&file.path, names))
    }

    /// Files at a path that are no streams yet.
    pub(super) fn unmet_at(&self, path: &Path) -> Vec<FileNumber> {
        let is_there = |number: &FileNumber| self.files.get(number).is_some_and(|file| file.path == path);
        let named = path.file_name().into_iter().flat_map(|name| self.unmet.named(name));
        named.filter(is_there).collect()
    }

    /// Files that were unpacked and are no streams yet.
    pub(super) fn unpacked_unmet(&self) -> impl Iterator<Item = &Followed> {
        let files = self.unpacked.iter().filter_map(|number| self.files.get(number));
        files.filter(|file| file.stream.is_none())
    }

    /// Whether a stream asks for what was unpacked, and may go on there.
    pub(super) fn is_asked_and_unknown(&self, file: &Followed) -> bool {
        file.packed && file.stream.is_none() && self.asked.by(file.key).next().is_some()
    }

    /// Files that are no streams yet, in the order in which they were found.
    pub(super) fn unmet_where(&self, is_one: impl Fn(&Followed) -> bool) -> Vec<FileNumber> {
        let is_one = |number: &FileNumber| self.files.get(number).is_some_and(&is_one);
        let mut numbers: Vec<FileNumber> = self.unmet.all().filter(is_one).collect();
        numbers.sort_unstable();
        numbers
    }
}
