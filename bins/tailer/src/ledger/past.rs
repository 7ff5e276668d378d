//! What is remembered of files that were read to their ends: so that a copy of one is known, and no stream id is used twice.

use super::Ledger;
use super::counted::Counted;
use super::record::{Record, Tail};
use crate::identity::{FileKey, Head};
use logferry_pack::StreamId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Files that are remembered for each source.
pub const PAST_FILES_MAX: usize = 8_192;

/// A file that was read, or is a copy of one.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PastFile {
    /// The stream that it was.
    pub stream: StreamId,
    /// Its identities: the file's own, and that of what was copied to it.
    pub keys: Vec<FileKey>,
    /// Bytes of its path.
    pub path: Vec<u8>,
    /// Its first line.
    pub head: Head,
    /// Number of its bytes that need not be shipped.
    pub length: u64,
    /// The last pack of them.
    pub tail: Option<Tail>,
}

/// All files that are remembered, by source, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct PastFiles {
    sources: BTreeMap<String, VecDeque<PastFile>>,
    /// Their streams by their identities, once for each time that one is remembered.
    #[serde(skip)]
    by_key: HashMap<FileKey, Vec<StreamId>>,
    /// Hashes of their first lines, and by source the lengths of those.
    #[serde(skip)]
    heads: Counted<u128>,
    #[serde(skip)]
    head_lengths: BTreeMap<String, Counted<u16>>,
}

impl PastFiles {
    pub(super) fn push(&mut self, source: &str, file: PastFile) {
        let files = self.sources.entry(source.to_owned()).or_default();
        let is_same = |known: &PastFile| known.keys == file.keys && known.head == file.head;
        let same = files.iter().position(is_same).and_then(|index| files.remove(index));
        let surplus = if files.len() >= PAST_FILES_MAX { files.pop_front() } else { None };
        files.push_back(file.clone());
        same.iter().chain(&surplus).for_each(|forgotten| self.unlist(source, forgotten));
        self.list(source, &file);
    }

    /// After reading them back.
    pub(super) fn index(&mut self) {
        *self = PastFiles { sources: std::mem::take(&mut self.sources), ..PastFiles::default() };
        let sources = std::mem::take(&mut self.sources);
        for (source, file) in
            sources.iter().flat_map(|(source, files)| files.iter().map(move |file| (source, file)))
        {
            self.list(source, file);
        }
        self.sources = sources;
    }

    fn list(&mut self, source: &str, file: &PastFile) {
        self.heads.add(file.head.hash);
        self.head_lengths.entry(source.to_owned()).or_default().add(file.head.length);
        for key in &file.keys {
            self.by_key.entry(*key).or_default().push(file.stream);
        }
    }

    fn unlist(&mut self, source: &str, file: &PastFile) {
        self.heads.remove(file.head.hash);
        self.head_lengths.get_mut(source).into_iter().for_each(|lengths| lengths.remove(file.head.length));
        for key in &file.keys {
            let Some(streams) = self.by_key.get_mut(key) else { continue };
            if let Some(index) = streams.iter().position(|stream| *stream == file.stream) {
                streams.swap_remove(index);
            }
            if streams.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// Files of a source that began with this line, newest first.
    pub fn with_head(&self, source: &str, head: Head) -> impl Iterator<Item = &PastFile> {
        let files =
            self.sources.get(source).filter(|_| self.heads.has(head.hash)).into_iter().flatten().rev();
        files.filter(move |file| file.head == head)
    }

    /// A file that began with this line, of any source: its name may have led it from one to another.
    pub fn of_file(&self, key: FileKey, head: Head) -> impl Iterator<Item = &PastFile> {
        let is_known = self.by_key.contains_key(&key);
        let files = self.sources.values().filter(move |_| is_known).flatten();
        files.filter(move |file| file.keys.first() == Some(&key) && file.head == head)
    }

    /// Files of a source, oldest first.
    pub fn of(&self, source: &str) -> impl Iterator<Item = &PastFile> {
        self.sources.get(source).into_iter().flatten()
    }

    /// Whether a file is among them.
    pub fn has(&self, source: &str, key: FileKey) -> bool {
        let mut files = self.sources.get(source).into_iter().flatten();
        files.any(|file| file.keys.first() == Some(&key))
    }

    /// Whether a file is among them that was there at the first start, and of which nothing is shipped.
    pub fn is_unread(&self, source: &str, key: FileKey) -> bool {
        let mut files = self.sources.get(source).into_iter().flatten();
        files.any(|file| file.keys.first() == Some(&key) && file.head.length == 0)
    }

    /// Whether a file is among those of any source, or was copied to one that is.
    pub fn has_anywhere(&self, key: FileKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// The streams that a file was read to its end under, or is known to be a copy of.
    pub fn streams_of(&self, key: FileKey) -> impl Iterator<Item = StreamId> {
        self.by_key.get(&key).into_iter().flatten().copied()
    }

    /// What a file is known as, with the names of the sources: what was read of it, and what it is a copy of.
    pub fn with_key(&self, key: FileKey) -> impl Iterator<Item = (&str, &PastFile)> {
        let sources = self.sources.iter().filter(move |_| self.has_anywhere(key));
        let files = sources.flat_map(|(source, files)| files.iter().map(|file| (source.as_str(), file)));
        files.filter(move |(_, file)| file.keys.contains(&key))
    }
}

impl Ledger {
    /// Files that were read to their ends.
    pub fn past_files(&self) -> &PastFiles {
        &self.past_files
    }

    /// Streams of a source, not finished, whose files begin with this line.
    pub fn with_head(&self, source: &str, head: Head) -> impl Iterator<Item = StreamId> {
        let streams = self.by_head.get(&head.hash).into_iter().flatten().rev();
        streams.copied().filter(move |stream| {
            self.streams
                .get(stream)
                .is_some_and(|stream| stream.met.source == source && stream.met.head == head)
        })
    }

    /// The head of a file that starts with `bytes`, and shorter ones of files of a source that ended, when they were met, before their first
    /// line did.
    pub fn beginnings(&self, source: &str, bytes: &[u8]) -> Vec<Head> {
        let Some(head) = Head::finished(bytes) else { return Vec::new() };
        let lengths = [self.head_lengths.get(source), self.past_files.head_lengths.get(source)];
        let lengths: BTreeSet<u16> =
            lengths.into_iter().flatten().flat_map(|lengths| lengths.below(head.length)).collect();
        let begun = lengths.into_iter().rev().filter_map(|length| Head::begun(&bytes[..usize::from(length)]));
        std::iter::once(head).chain(begun).collect()
    }

    /// The bytes of a stream are in another file from now on.
    pub fn rehome(&mut self, stream: StreamId, key: FileKey, path: &[u8]) {
        self.write(Record::Rehomed { stream, key, path: path.to_vec() });
    }

    /// The first `length` bytes of a file are a copy of what was read of a stream.
    pub fn copy_known(&mut self, stream: StreamId, key: FileKey, length: u64) {
        let Some(known) = self.streams.get(&stream) else { return };
        let (source, head, path) = (known.met.source.clone(), known.met.head, known.met.path.clone());
        let file = PastFile { stream, keys: vec![key], path, head, length, tail: None };
        self.write(Record::CopyKnown { source, file });
    }

    /// A file is a copy of one that is remembered.
    pub fn past_copy_known(&mut self, source: &str, file: PastFile) {
        self.write(Record::CopyKnown { source: source.to_owned(), file });
    }

    pub(super) fn apply_past(&mut self, record: Record) {
        match record {
            Record::Rehomed { stream: id, key, path } => {
                let Some(stream) = self.streams.get_mut(&id) else { return };
                let before = std::mem::replace(&mut stream.met.key, key);
                self.by_name.unlist(&stream.met);
                stream.met.path = path;
                self.by_name.list(&stream.met);
                stream.was.push(before);
                if key != FileKey::NOWHERE {
                    // What is known of the length of another file says nothing of this one.
                    (stream.left, stream.seen) = (0, None);
                }
                if self.current.get(&before) == Some(&id) {
                    self.current.remove(&before);
                }
                self.owed.remove(&key);
                self.current.insert(key, id);
                self.by_key.entry(key).or_default().insert(id);
            }
            Record::CopyKnown { source, file } => self.past_files.push(&source, file),
            _ => {}
        }
    }
}
