//! The end of a file's life: its last line, its successors, its closing.

use super::work::Worked;
use super::{Followed, Follower};
use crate::cutter::{Cutter, Piece};
use crate::files;
use crate::tracker::{Age, Aging, FileNumber, Place, age};
use logferry_pack::StreamId;
use metrics::counter;
use std::io;
use std::time::Instant;
use tracing::{error, info, warn};

impl Follower {
    pub(super) fn age_of(&self, file: &Followed) -> Age {
        if file.packed {
            return Age::Over;
        }
        // Who compresses a file takes it for finished, though it stays where it was met or has another name.
        let is_finished = file.compressed_at == Some(file.size) && !file.place.is_gone();
        let aging = Aging {
            place: if is_finished { Place::Moved { replaced: true } } else { file.place },
            hour_over: file.hour_over,
            unlinked: file.unlinked,
            quiet_since: file.quiet_since,
            rotate_wait: self.sources[file.source].settings.rotate_wait.0,
        };
        age(&aging, Instant::now())
    }

    /// Everything was looked through: is this the end of the file's life?
    pub(super) fn at_end(&mut self, number: FileNumber, id: StreamId) -> io::Result<Worked> {
        self.caught_up(number);
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        if let Some(successor) = file.successor {
            self.queue(successor);
        }
        self.offer_release(number, id);
        self.queue_successors(number);
        let Some(file) = self.files.get(&number) else { return Ok(Worked::Rest) };
        let entry_due = self.entry_due(file);
        if entry_due.is_some_and(|due| due <= Instant::now()) {
            return self.ship_rest(number, id, Cutter::close_entry);
        }
        let stays = file.place == Place::Here && file.compressed_at != Some(file.size);
        if stays && !file.hour_over && !file.packed {
            return Ok(entry_due.map_or(Worked::Rest, Worked::At));
        }
        let judged = self.age_of(file);
        match judged {
            Age::Living => Ok(entry_due.map_or(Worked::Rest, Worked::At)),
            Age::Until(due) => Ok(Worked::At(entry_due.map_or(due, |entry_due| entry_due.min(due)))),
            Age::Rotated | Age::Over if file.cutter.partial_bytes() > file.cutter.entry_bytes() => {
                counter!("logferry_tailer_unfinished_lines_total").increment(1);
                warn!(
                    path = %file.path.display(),
                    bytes = file.cutter.partial_bytes() - file.cutter.entry_bytes(),
                    "the last line of a file that is finished has no end: it is shipped, and gets one"
                );
                self.ship_rest(number, id, Cutter::flush)
            }
            Age::Rotated | Age::Over if entry_due.is_some() => self.ship_rest(number, id, Cutter::flush),
            Age::Rotated => {
                self.settle_at_name(number);
                Ok(Worked::Rest)
            }
            Age::Over => {
                if self.ledger.stream(id).is_none_or(|stream| stream.entries.is_empty()) {
                    self.close(number);
                }
                Ok(Worked::Rest)
            }
        }
    }

    /// When the file's last entry counts as whole, if there is one.
    fn entry_due(&self, file: &Followed) -> Option<Instant> {
        let entries = self.sources[file.source].cutting.entries()?;
        (file.cutter.entry_bytes() > 0).then(|| file.quiet_since + entries.timeout)
    }

    /// The last entry is whole, or the last line of a file that was rotated away has no end, and none will come.
    fn ship_rest(
        &mut self,
        number: FileNumber,
        id: StreamId,
        take: fn(&mut Cutter) -> Option<Piece>,
    ) -> io::Result<Worked> {
        let may_send = self.ledger.stream(id).is_some_and(|stream| stream.may_send());
        if !may_send {
            return Ok(Worked::Rest);
        }
        let Some(buffer) = self.buffers.pop() else { return Ok(Worked::Again) };
        match self.files.get_mut(&number).and_then(|file| take(&mut file.cutter)) {
            Some(piece) => self.cut(number, id, piece, buffer),
            None => {
                self.buffers.push(buffer);
                Ok(Worked::Rest)
            }
        }
    }

    pub(super) fn queue_successors(&mut self, number: FileNumber) {
        for successor in self.successors.get(&number).cloned().unwrap_or_default() {
            let Some(file) = self.files.get(&successor) else { continue };
            let stream = file.stream.and_then(|id| self.ledger.stream(id));
            // What was cut before a restart may wait to be sent, though there is no more to read.
            if file.size > file.cutter.seen_to()
                || stream.is_some_and(|stream| stream.next_unsent().is_some())
            {
                self.queue(successor);
            }
        }
    }

    /// `successor` waits until the other file was read to its end.
    pub(super) fn goes_before(&mut self, number: FileNumber, successor: FileNumber) {
        let other = self.files.get_mut(&successor).filter(|_| successor != number);
        let Some(file) = other else { return };
        file.predecessor = Some(number);
        self.successors.entry(number).or_default().push(successor);
    }

    /// Deleted files of a source that were held open for long enough. Does not wait for buffers or the window: it is a full
    /// window that makes it necessary.
    pub(super) fn give_up_deleted(&mut self, index: usize) {
        let now = Instant::now();
        let hold = self.sources[index].settings.hold_deleted.0;
        for number in self.displaced.iter().copied().collect::<Vec<_>>() {
            let Some(file) = self.files.get_mut(&number).filter(|file| file.source == index && !file.packed)
            else {
                continue;
            };
            let Some(Ok(facts)) = file.handle.as_ref().map(files::facts_of) else { continue };
            if facts.links > 0 {
                file.unlinked_since = None;
                continue;
            }
            let since = *file.unlinked_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= hold {
                self.give_up(number, facts.size);
            }
        }
    }

    /// Lets go of a deleted file; what was not read of it is lost.
    fn give_up(&mut self, number: FileNumber, size: u64) {
        let reason = "held_too_long";
        let Some(file) = self.files.get(&number) else { return };
        let (unread, path) = (size.saturating_sub(file.cutter.at()), file.path.clone());
        let uncut = file
            .stream
            .is_none_or(|id| self.ledger.stream(id).is_none_or(|stream| stream.next_unsent().is_none()));
        if unread == 0 && uncut {
            return;
        }
        let stream = file.stream;
        error!(path = %path.display(), bytes = unread, reason, "a deleted file is given up: bytes that were not read are lost");
        match stream {
            Some(id) => {
                self.know_held_copies(id);
                self.ledger.left_at(id, size);
                self.bytes_gone(id, &path, reason);
            }
            None => self.figures.lost(unread, reason),
        }
        self.let_go(number);
        if let Some(id) = stream {
            self.finish_orphan(id);
        }
    }

    /// The file is done with.
    pub(super) fn close(&mut self, number: FileNumber) {
        self.caught_up(number);
        if let Some(stream) = self.files.get(&number).and_then(|file| file.stream) {
            self.know_held_copies(stream);
        }
        let Some(file) = self.let_go(number) else { return };
        info!(path = %file.path.display(), "the file was read to its end");
        if let Some(stream) = file.stream {
            self.ledger.finish(stream);
        } else if let Some(orphan) = self.ledger.current(file.key)
            && self.ledger.stream(orphan).is_some_and(|stream| stream.orphan && stream.entries.is_empty())
        {
            self.ledger.finish(orphan);
        }
        if file.packed {
            self.packed_settled(file.source, &file.path, file.key);
            self.search_who_waited(&file);
        }
    }

    /// Follows a file no more.
    pub(super) fn let_go(&mut self, number: FileNumber) -> Option<Followed> {
        let file = self.files.remove(&number)?;
        self.tracker.closed(number);
        self.displaced.remove(&number);
        self.successors.remove(&number);
        self.tally.remove(&file);
        self.linked.remove(&number);
        self.unpacked.remove(&number);
        self.unmet.unlist(&file.path, number);
        if file.handle.is_some() {
            self.one_open_less();
        }
        for path in std::iter::once(&file.path).chain(&file.target).chain(&file.names) {
            if self.by_path.get(path) == Some(&number) {
                self.by_path.remove(path);
            }
        }
        if let Some(stream) = file.stream {
            self.by_stream.remove(&stream);
        }
        if file.packed {
            self.unpack_next();
        }
        Some(file)
    }
}
