//! Streams by their first lines and the names of their files: a copy is looked for among what it may be a copy of, however many others begin
//! with the same line.

use super::Ledger;
use super::record::Met;
use crate::identity::Head;
use crate::rotated_names::{originals_of, plain_name, root_of, roots_of_copy};
use logferry_pack::StreamId;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Most files of one root and one first line that a copy is asked to be of, beside those that it has the very name of.
const ALIKE_BY_ROOT_MAX: usize = 256;

/// Streams by hashes of first line and name, of first line and root, and of root.
#[derive(Debug, Default)]
pub(super) struct StreamNames {
    listed: BTreeSet<(u64, StreamId)>,
}

fn hash(what: u8, head: Option<Head>, name: &str) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[what]);
    hasher.update(&head.map_or(0, |head| head.hash).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.digest()
}

fn by_name(head: Head, name: &str) -> u64 {
    hash(0, Some(head), name)
}

fn by_root(head: Head, root: &str) -> u64 {
    hash(1, Some(head), root)
}

fn by_root_alone(root: &str) -> u64 {
    hash(2, None, root)
}

fn listings(met: &Met) -> Option<[u64; 3]> {
    let name = plain_name(Path::new(OsStr::from_bytes(&met.path)))?;
    let root = root_of(&name);
    Some([by_name(met.head, &name), by_root(met.head, root), by_root_alone(root)])
}

impl StreamNames {
    pub(super) fn list(&mut self, met: &Met) {
        self.listed.extend(listings(met).into_iter().flatten().map(|listing| (listing, met.stream)));
    }

    pub(super) fn unlist(&mut self, met: &Met) {
        for listing in listings(met).into_iter().flatten() {
            self.listed.remove(&(listing, met.stream));
        }
    }

    fn under(&self, listing: u64) -> impl Iterator<Item = StreamId> {
        let range = (listing, StreamId(u128::MIN))..=(listing, StreamId(u128::MAX));
        self.listed.range(range).map(|(_, stream)| *stream)
    }
}

impl Ledger {
    /// Streams of a source, not finished, whose files begin with this line and have names that a copy with this path may be named after: those
    /// of which nothing but a number or time tells it apart first. A few times as many as are such at most.
    pub fn with_head_and_name(&self, source: &str, head: Head, copy: &Path) -> Vec<StreamId> {
        let Some(name) = plain_name(copy) else { return Vec::new() };
        let mut found = Vec::new();
        let named = originals_of(&name).flat_map(|own| self.by_name.under(by_name(head, &own)));
        let rooted = roots_of_copy(&name).flat_map(|root| self.by_name.under(by_root(head, root)));
        let mut seen = BTreeSet::new();
        for id in named.chain(rooted.take(ALIKE_BY_ROOT_MAX)) {
            let is_of = |met: &Met| met.source == source && met.head == head;
            if self.streams.get(&id).is_some_and(|stream| is_of(&stream.met)) && seen.insert(id) {
                found.push(id);
            }
        }
        found
    }

    /// Streams of a source, not finished, whose files have names that a copy with this path may be named after.
    pub fn with_name(&self, source: &str, copy: &Path) -> Vec<StreamId> {
        let Some(name) = plain_name(copy) else { return Vec::new() };
        let rooted = roots_of_copy(&name).flat_map(|root| self.by_name.under(by_root_alone(root)));
        let is_of = |id: &StreamId| self.streams.get(id).is_some_and(|stream| stream.met.source == source);
        rooted.filter(is_of).collect()
    }
}
