//! Files that have something to do: in turn, and at their time.

use super::Follower;
use super::work::Worked;
use crate::tracker::{FileNumber, Place};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Follower {
    /// Whether there is a buffer, room in the window of some source, and a state log that takes records.
    pub(super) fn can_cut(&self) -> bool {
        !self.buffers.is_empty()
            && !self.shared.journal_down.load(Ordering::Acquire)
            && self.shared.held_bytes.load(Ordering::Relaxed) < self.window + self.spool_window
    }

    pub(super) fn queue(&mut self, number: FileNumber) {
        self.tally.touch(number);
        let Some(file) = self.files.get_mut(&number) else { return };
        if !std::mem::replace(&mut file.stirred, true) {
            self.stirred.push(number);
        }
        if std::mem::replace(&mut file.queued, true) {
            return;
        }
        // What was rotated away goes before what took its place.
        if file.place == Place::Here {
            self.ready.push_back(number);
        } else {
            self.ready.push_front(number);
        }
    }

    /// A file that has more to read waits behind all others that have, however much it is.
    pub(super) fn queue_again(&mut self, number: FileNumber) {
        if let Some(file) = self.files.get_mut(&number).filter(|file| !file.queued) {
            file.queued = true;
            self.ready.push_back(number);
        }
    }

    pub(super) fn wake_due_files(&mut self) {
        let now = Instant::now();
        while let Some((due, number)) = self.timers.first().copied() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            if let Some(file) = self.files.get_mut(&number) {
                file.looked_at = None;
            }
            self.queue(number);
        }
    }

    /// Has a file looked at when this time has come, or before: one that waits is asked each time when it is to be looked at again.
    fn look_at(&mut self, number: FileNumber, due: Instant) {
        let Some(file) = self.files.get_mut(&number) else { return };
        if file.looked_at.is_some_and(|earlier| earlier <= due) {
            return;
        }
        if let Some(later) = file.looked_at.replace(due) {
            self.timers.remove(&(later, number));
        }
        self.timers.insert((due, number));
    }

    pub(super) fn work_on_ready(&mut self) {
        // One round: what is queued now. Events get their turn before the next.
        for _ in 0..self.ready.len() {
            if !self.can_cut() || self.throttle.due(Instant::now()).is_some() {
                break;
            }
            let Some(number) = self.ready.pop_front() else { break };
            if self.hold_back(number) {
                continue;
            }
            if let Some(file) = self.files.get_mut(&number) {
                file.queued = false;
            }
            let worked = self.work(number);
            self.tally.touch(number);
            match worked {
                Worked::Again => self.queue_again(number),
                Worked::At(due) => self.look_at(number, due),
                Worked::Rest => {}
            }
        }
        self.throttle.measure(Instant::now());
    }
}
