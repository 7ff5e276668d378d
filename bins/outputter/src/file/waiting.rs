//! Puts inflated packs back into the order of acceptance, and cuts it into groups.

use super::inflate::{Body, Inflated};
use std::collections::{BTreeMap, BTreeSet};

/// Inflated packs whose turn has not come.
#[derive(Default)]
pub struct Waiting {
    by_seq: BTreeMap<u64, Inflated>,
    next_seq: u64,
}

impl Waiting {
    /// Takes a pack in.
    pub fn put(&mut self, pack: Inflated) {
        self.by_seq.insert(pack.accepted.seq, pack);
    }

    /// The packs to commit next: at least one, if its turn has come, and no more bytes and files than given.
    pub fn take(&mut self, bytes_max: usize, files_max: usize) -> Vec<Inflated> {
        let mut packs = Vec::new();
        let (mut bytes, mut files) = (0, BTreeSet::new());
        while let Some(pack) = self.by_seq.get(&self.next_seq) {
            bytes += pack.body.as_ref().map_or(0, Body::bytes_held);
            files.insert(pack.path.clone());
            if !packs.is_empty() && (bytes > bytes_max || files.len() > files_max) {
                break;
            }
            packs.extend(self.by_seq.remove(&self.next_seq));
            self.next_seq += 1;
        }
        packs
    }
}
