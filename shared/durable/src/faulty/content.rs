//! What files and folders have, what of it is durable, and what a power loss lets through of the rest.

use super::random::Random;
use crate::disk::parent;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Grain at which written data reaches the disk.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) data: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

impl Node {
    pub(super) fn change(&mut self, change: Change) {
        apply(&mut self.data, &change);
        self.pending.push(change);
    }

    /// Power loss.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let mut data = std::mem::take(&mut self.durable);
        survive(random, &mut data, &std::mem::take(&mut self.pending));
        self.durable = data.clone();
        self.data = data;
    }
}

pub(super) fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            if data.len() < offset + bytes.len() {
                data.resize(offset + bytes.len(), 0);
            }
            data[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Change::SetLen(length) => data.resize(*length, 0),
    }
}

#[derive(Clone, Debug)]
pub(super) enum Naming {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Naming {
    pub(super) fn folder(&self) -> &Path {
        match self {
            Naming::Link(path, _) | Naming::Unlink(path) | Naming::Rename(_, path) => parent(path),
        }
    }
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Naming::Link(path, node) => drop(names.insert(path.clone(), *node)),
            Naming::Unlink(path) => drop(names.remove(path)),
            Naming::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// Applies to `data` what of the pending changes a power loss lets through.
fn survive(random: &mut Random, data: &mut Vec<u8>, pending: &[Change]) {
    if pending.is_empty() || random.one_in(3) {
        return;
    }
    let count = random.below(pending.len() as u64 + 1) as usize;
    for change in &pending[..count] {
        match change {
            Change::SetLen(_) => apply(data, change),
            Change::Write { offset, bytes } => {
                // The length may be there without the data: each sector is written or stays as it was (zeros beyond the end).
                let torn = if random.one_in(3) {
                    random.below(bytes.len() as u64 + 1) as usize
                } else {
                    bytes.len()
                };
                let all = random.one_in(2);
                if data.len() < offset + torn {
                    data.resize(offset + torn, 0);
                }
                let mut at = 0;
                while at < torn {
                    let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(torn);
                    if all || random.one_in(2) {
                        data[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}
