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

/// Most files of one name, or of one root, and one first line that a copy is asked to be of, beside those that are in its folder: there may
/// be one in each of thousands.
const ALIKE_ELSEWHERE_MAX: usize = 256;

/// Streams by what is known of them at once; each by the hashes of all of these.
#[derive(Debug, Default)]
pub(super) struct StreamNames {
    listed: BTreeSet<(u64, StreamId)>,
}

/// What streams are listed by.
#[derive(Clone, Copy)]
enum Listing<'a> {
    /// First line, folder and root of the name.
    Place(Head, &'a [u8], &'a str),
    /// First line and name.
    Name(Head, &'a str),
    /// First line and root of the name.
    Root(Head, &'a str),
    /// Root of the name alone.
    RootAlone(&'a str),
}

impl Listing<'_> {
    fn hash(self) -> u64 {
        let (what, head, folder, name) = match self {
            Listing::Place(head, folder, root) => (0, head.hash, folder, root),
            Listing::Name(head, name) => (1, head.hash, &b""[..], name),
            Listing::Root(head, root) => (2, head.hash, &b""[..], root),
            Listing::RootAlone(root) => (3, 0, &b""[..], root),
        };
        let mut hasher = Xxh3::new();
        hasher.update(&[what]);
        hasher.update(&head.to_le_bytes());
        hasher.update(folder);
        hasher.update(b"/");
        hasher.update(name.as_bytes());
        hasher.digest()
    }
}

fn folder_of(path: &Path) -> &[u8] {
    path.parent().map_or(&b""[..], |folder| folder.as_os_str().as_bytes())
}

fn listings(met: &Met) -> Option<[u64; 4]> {
    let path = Path::new(OsStr::from_bytes(&met.path));
    let name = plain_name(path)?;
    let root = root_of(&name);
    let all = [
        Listing::Place(met.head, folder_of(path), root),
        Listing::Name(met.head, &name),
        Listing::Root(met.head, root),
        Listing::RootAlone(root),
    ];
    Some(all.map(Listing::hash))
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

    fn under(&self, listing: Listing<'_>) -> impl Iterator<Item = StreamId> {
        let listing = listing.hash();
        let range = (listing, StreamId(u128::MIN))..=(listing, StreamId(u128::MAX));
        self.listed.range(range).map(|(_, stream)| *stream)
    }
}

impl Ledger {
    /// Streams of a source, not finished, whose files begin with this line and have names that a copy with this path may be named after: those
    /// of its folder first, then those of which nothing but a number or time tells it apart. A few times as many as are such at most.
    pub fn with_head_and_name(&self, source: &str, head: Head, copy: &Path) -> Vec<StreamId> {
        let Some(name) = plain_name(copy) else { return Vec::new() };
        let roots = || roots_of_copy(&name);
        let beside = roots().flat_map(|root| self.by_name.under(Listing::Place(head, folder_of(copy), root)));
        let named = originals_of(&name)
            .flat_map(|own| self.by_name.under(Listing::Name(head, &own)).collect::<Vec<_>>())
            .take(ALIKE_ELSEWHERE_MAX);
        let rooted = roots().flat_map(|root| self.by_name.under(Listing::Root(head, root)));
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for id in beside.chain(named).chain(rooted.take(ALIKE_ELSEWHERE_MAX)) {
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
        let rooted = roots_of_copy(&name).flat_map(|root| self.by_name.under(Listing::RootAlone(root)));
        let is_of = |id: &StreamId| self.streams.get(id).is_some_and(|stream| stream.met.source == source);
        rooted.filter(is_of).collect()
    }
}
