//! Compressed files that have yet to be unpacked, one at a time: those that streams ask for first, and no more than can soon be read. Each that
//! is unpacked takes room on the disk, and there may be an archive of years.

use super::packed::Packed;
use super::{Followed, Follower};
use crate::files;
use crate::identity::FileKey;
use crate::tracker::FileNumber;
use crate::unpack::UnpackJob;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;

/// Most unpacked files that wait to be read.
const UNPACKED_MAX: usize = 4;
/// The same with those that they wait for; and most of those that a stream asks for.
const UNPACKED_AWAITED_MAX: usize = 2 * UNPACKED_MAX;
/// Most unpacked files of a source that are read, or wait for an answer to what was read: each takes a descriptor.
const UNPACKED_READ_MAX: usize = 64;
/// Most files that are held open while they wait to be unpacked; and one in this many of `open_files`.
const HELD_MAX: usize = 64;
const HELD_SHARE: usize = 16;

/// Files that are to be unpacked, or are being.
#[derive(Default)]
pub(super) struct ToUnpack {
    /// In their order.
    waiting: BTreeMap<u64, UnpackJob>,
    by_key: HashMap<FileKey, u64>,
    last: u64,
    /// Those that streams whose files are gone ask for.
    asked: VecDeque<UnpackJob>,
    /// How many were sent to be unpacked, and are not yet.
    underway: usize,
    /// How many of those that are asked for or underway are held open.
    held: usize,
}

impl ToUnpack {
    /// One that a stream asks for waits no more among the others.
    pub(super) fn add(&mut self, job: UnpackJob, is_asked: bool) {
        self.take(job.key);
        if is_asked {
            self.held += usize::from(job.held.is_some());
            self.asked.push_back(job);
            return;
        }
        self.last += 1;
        self.by_key.insert(job.key, self.last);
        self.waiting.insert(self.last, job);
    }

    fn take(&mut self, key: FileKey) -> Option<UnpackJob> {
        self.waiting.remove(&self.by_key.remove(&key)?)
    }

    /// Those that wait and that no stream asks for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &UnpackJob> {
        self.waiting.values()
    }

    /// Whether one is being unpacked, or is next because a stream asks for it.
    pub(super) fn is_busy(&self) -> bool {
        self.underway > 0 || !self.asked.is_empty()
    }

    /// One that was sent to be unpacked has come back.
    pub(super) fn is_back(&mut self, job: &UnpackJob) {
        self.underway = self.underway.saturating_sub(1);
        self.held = self.held.saturating_sub(usize::from(job.held.is_some()));
    }
}

impl Follower {
    /// Whether a file is being unpacked.
    pub(super) fn unpacks(&self) -> bool {
        self.to_unpack.is_busy()
    }

    /// Has a file unpacked.
    pub(super) fn send_to_unpack(&mut self, job: UnpackJob) {
        self.to_unpack.underway += 1;
        self.to_unpack.held += usize::from(job.held.is_some());
        let _ = self.unpack.send(job);
    }

    /// Goes on with what streams ask for when there is room for that: what was unpacked was looked at, or read.
    pub(super) fn unpack_asked(&mut self) {
        if !self.to_unpack.asked.is_empty() {
            self.unpack_next();
        }
    }

    /// Unpacks what waits for that, as long as there is not too much that was unpacked and not read.
    pub(super) fn unpack_next(&mut self) {
        if self.to_unpack.underway > 0 {
            return;
        }
        if let Some(mut job) = self.next_asked() {
            job.may_be = self.may_be(&job);
            self.to_unpack.held -= usize::from(job.held.is_some());
            self.send_to_unpack(job);
        }
        if self.unpacks() || self.to_unpack.waiting.is_empty() {
            return;
        }
        let next = match self.unpacked.len() {
            ..UNPACKED_MAX => self.to_unpack.waiting().next(),
            // They may all wait for one that has not had its turn.
            UNPACKED_MAX..UNPACKED_AWAITED_MAX => {
                self.to_unpack.waiting().find(|job| self.is_next_in_succession(job.key))
            }
            UNPACKED_AWAITED_MAX.. => None,
        };
        let Some(mut job) = next.map(|job| job.key).and_then(|key| self.to_unpack.take(key)) else { return };
        self.hold_next();
        if let Some(Packed::Waiting { source, hour }) = self.packed.get(&job.key) {
            let underway = Packed::Unpacking { source: *source, hour: *hour };
            self.packed.insert(job.key, underway);
            job.may_be = self.may_be(&job);
            self.send_to_unpack(job);
        }
    }

    /// The next one that a stream asks for, as long as it is not unknown of too many what they have, and those of its source are read.
    fn next_asked(&mut self) -> Option<UnpackJob> {
        if self.to_unpack.asked.is_empty() {
            return None;
        }
        let is_asked = |file: &&Followed| self.asked.by(file.key).next().is_some();
        let unknown: Vec<&Followed> = self.unpacked_unmet().filter(is_asked).collect();
        // At a start these may wait for a log that waits until what it had before is found; but not before they were looked at.
        let waiting = unknown.iter().filter(|file| file.queued || self.homes_before.is_empty()).count();
        if waiting >= UNPACKED_AWAITED_MAX {
            return None;
        }
        let full: Vec<bool> =
            (0..self.sources.len()).map(|source| self.has_enough_unpacked(source)).collect();
        let asked = &mut self.to_unpack.asked;
        let next = asked.iter().position(|job| !full[job.source]).filter(|_| full.contains(&false));
        next.and_then(|next| asked.remove(next))
    }

    /// Whether as many unpacked files of a source as may be are read, or wait for answers.
    fn has_enough_unpacked(&self, source: usize) -> bool {
        let is_read = |number: &&FileNumber| {
            let is_of_stream = |file: &Followed| file.source == source && file.stream.is_some();
            self.files.get(number).is_some_and(is_of_stream) && !self.waits_for_others(**number)
        };
        let read: Vec<&FileNumber> = self.unpacked.iter().filter(is_read).collect();
        read.len() >= UNPACKED_READ_MAX
            || read.into_iter().filter(|number| self.is_unfinished(**number)).count() >= UNPACKED_AWAITED_MAX
    }

    /// How many of the files that wait to be unpacked are held open.
    fn packed_held_max(&self) -> usize {
        HELD_MAX.min(self.open_files.limit() / HELD_SHARE)
    }

    /// Whether one more may be held open, beside those that wait, those that were sent to be unpacked, and those that there is no room for.
    fn may_hold_packed(&self) -> bool {
        let held_max = self.packed_held_max();
        // Only those that come next are held.
        let waiting = self.to_unpack.waiting().take(held_max).filter(|job| job.held.is_some()).count();
        waiting + self.to_unpack.held + self.held_without_room() < held_max
    }

    /// Whether the next one that is met may be held open. For one that is asked for another gives up its descriptor.
    pub(super) fn may_hold_next(&mut self, is_asked: bool) -> bool {
        if is_asked && !self.may_hold_packed() {
            let held_max = self.packed_held_max();
            let near = self.to_unpack.waiting.values_mut().take(held_max);
            if let Some(last) = near.filter(|job| job.held.is_some()).last() {
                last.held = None;
            }
        }
        (is_asked || self.to_unpack.waiting.len() < self.packed_held_max()) && self.may_hold_packed()
    }

    /// One that waits comes so near its turn that it is held open from now on.
    fn hold_next(&mut self) {
        if !self.may_hold_packed() {
            return;
        }
        let held_max = self.packed_held_max();
        let near = self.to_unpack.waiting.values_mut().take(held_max);
        let Some(job) = near.filter(|job| job.held.is_none()).last() else { return };
        let file = files::open_below(&job.path, &job.roots);
        let is_it = |file: &File| files::facts_of(file).is_ok_and(|facts| facts.key == job.key);
        job.held = file.ok().filter(is_it);
    }
}
