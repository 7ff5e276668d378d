//! Files that have to wait, for room, for their rate or for others, are looked at all the same: one that is cut twice meanwhile would have
//! had lines that nobody knew of.

use super::work::Worked;
use super::{Followed, Follower};
use crate::tracker::FileNumber;
use metrics::counter;
use std::io;
use std::time::Instant;
use tracing::warn;

/// Most looks at a file that is cut again and again.
const LOOKS_MAX: usize = 3;
/// Files that are looked at before what happened meanwhile has its turn.
const JUDGED_AT_ONCE: usize = 64;

impl Follower {
    /// Looks at files that something happened to and that cannot be worked on for now. Needs no buffer, and no room in the window.
    pub(super) fn judge_waiting(&mut self) {
        if self.stirred.is_empty() {
            return;
        }
        let is_stopped = !self.can_cut() || self.throttle.due(Instant::now()).is_some();
        let mut stirred = std::mem::take(&mut self.stirred);
        let mut judged = 0;
        stirred.retain(|number| {
            // What happens meanwhile may end the wait.
            if judged >= JUDGED_AT_ONCE && !self.events.is_empty() {
                return true;
            }
            let Some(file) = self.files.get_mut(number) else { return false };
            let waits = file.queued;
            let is_held = is_stopped || !self.sources[file.source].held.is_empty();
            file.stirred = waits && !is_held;
            if waits && is_held {
                judged += 1;
                self.judge(*number);
            }
            waits && !is_held
        });
        stirred.append(&mut self.stirred);
        self.stirred = stirred;
    }

    fn judge(&mut self, number: FileNumber) {
        for _ in 0..LOOKS_MAX {
            match self.try_judge(number) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // It stays in the queue: when its turn comes it is tried again.
                    counter!("logferry_tailer_read_failures_total").increment(1);
                    let path = self.files.get(&number).map(|file| file.path.display().to_string());
                    if self.may_tell_trouble() {
                        warn!(path, %error, "the file cannot be read while it waits");
                    }
                    return;
                }
            }
        }
    }

    /// Whether the file begins again, so that there is more to see.
    fn try_judge(&mut self, number: FileNumber) -> io::Result<bool> {
        if self.is_closed_and_same(number) || !self.reach(number)? {
            return Ok(false);
        }
        let worked = match self.refresh(number)? {
            true => self.look_while_it_waits(number)?,
            false => self.truncated(number)?,
        };
        self.tally.touch(number);
        Ok(worked == Worked::Again)
    }

    /// A file that waits is a stream as soon as it has its first line, so that its lines are looked for if it is cut before its turn has come.
    pub(super) fn look_while_it_waits(&mut self, number: FileNumber) -> io::Result<Worked> {
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let Some(id) = file.stream else {
            if self.searched_lost && !self.waits_in_backlog(number) && !self.waits_for_first_look(file) {
                self.find_cut_between(number, None)?;
                self.meet_before_its_turn(number, false);
            }
            return Ok(Worked::Rest);
        };
        let is_settled = self.ledger.stream(id).is_some_and(|stream| stream.conflict.is_none());
        if file.packed || !is_settled || self.sources[file.source].shelf.is_some() {
            return Ok(Worked::Rest);
        }
        // Nothing was read by which it could be told, and it is shorter than it was.
        let became_shorter = file.cutter.at() == 0 && file.size < file.size_trusted;
        if became_shorter || !self.has_its_head(number, id)? || !self.has_its_end(number)? {
            return Ok(self.replaced(number));
        }
        let has_tail = self.ledger.stream(id).is_some_and(|stream| stream.tail.is_some());
        // After a restart it may be another with the same first line: its last pack tells, when its turn comes.
        let is_known = |file: &Followed| file.verified || file.end_mark.is_some() || !has_tail;
        if let Some(file) = self.files.get_mut(&number).filter(|file| is_known(file)) {
            file.size_trusted = file.size;
        }
        Ok(Worked::Rest)
    }
}
