//! A file that is followed, and what is known of it.

use super::backlog::Rank;
use super::cut_between::CopiesKnown;
use super::tally::Counted;
use crate::cutter::Cutter;
use crate::identity::{END_MARK_BYTES_MAX, EndMark, FileKey, Head};
use crate::ledger::record::Tail;
use crate::pattern::FileTime;
use crate::recut::SplitAt;
use crate::tracker::{FileNumber, Place};
use logferry_pack::StreamId;
use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Packs of a file that are remembered to know a copy of it by.
const RECENT_PACKS: usize = 16;

/// Packs of a file of which some bytes are remembered, to know by that it was not filled with others.
const MARKED_PACKS: usize = 4;

/// What comes after a file that cannot be read waits for so long: mostly descriptors are short for a moment.
const FAILING_AWAITED_MAX: Duration = Duration::from_secs(10);

/// A file.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(super) source: usize,
    pub(super) path: PathBuf,
    /// The time in its name, of a day the first hour; or, presumed, the one that it will be named by.
    pub(super) time: Option<FileTime>,
    pub(super) is_presumed: bool,
    /// Its place among the files that are behind.
    pub(super) rank: Option<Rank>,
    /// That hour, or day, is over.
    pub(super) hour_over: bool,
    /// The path that a symbolic link leads to, if it is one.
    pub(super) target: Option<PathBuf>,
    /// Other paths under which it was seen.
    pub(super) names: Vec<PathBuf>,
    /// `None` while it is closed.
    pub(super) handle: Option<File>,
    /// Something was done with it since it was last thought of closing it.
    pub(super) active: bool,
    pub(super) key: FileKey,
    /// Length when last seen, and whether names lead to it.
    pub(super) size: u64,
    pub(super) unlinked: bool,
    /// Length when last seen with its own first line.
    pub(super) size_trusted: u64,
    /// When it last grew or moved.
    pub(super) quiet_since: Instant,
    pub(super) place: Place,
    /// The file that had the path before; it goes first.
    pub(super) predecessor: Option<FileNumber>,
    /// The file that this one is the copy of from before it was cut; it goes on when this one is read.
    pub(super) successor: Option<FileNumber>,
    /// `None` until its first line is there.
    pub(super) stream: Option<StreamId>,
    /// What of the first line was there without an end.
    pub(super) begun: Option<Head>,
    pub(super) cutter: Cutter,
    /// The line that was split last, if it was.
    pub(super) split: Option<SplitAt>,
    /// The last bytes that were cut; `None` until something was.
    pub(super) end_mark: Option<EndMark>,
    /// Bytes in the middle of the packs that were cut last: a file that was cut and filled again has others there, even where it begins and
    /// ends as before.
    pub(super) marks: VecDeque<EndMark>,
    /// The file is known to have the bytes below its stream's frontier.
    pub(super) verified: bool,
    /// It was changed and is no longer than before: it may be another by now.
    pub(super) suspicious: bool,
    /// Packs that were cut last.
    pub(super) recent: VecDeque<Tail>,
    /// Length at which a compressed copy of it ends: at that length its last line will get no end.
    pub(super) compressed_at: Option<u64>,
    /// Length when it was first taken for a copy of a file that may yet be cut, and since when.
    pub(super) suspect: Option<(u64, Instant)>,
    /// When it was noticed that no name leads to it any more.
    pub(super) unlinked_since: Option<Instant>,
    /// When the bytes that were not looked at yet were noticed.
    pub(super) waiting_since: Option<Instant>,
    /// Usual length of a line.
    pub(super) line_bytes: u64,
    /// The handle is the unpacked content of a compressed file: it will not grow.
    pub(super) packed: bool,
    /// In the queue of files to work on.
    pub(super) queued: bool,
    /// Its time among `timers`.
    pub(super) looked_at: Option<Instant>,
    /// One of `stirred`.
    pub(super) stirred: bool,
    /// Since when it cannot be read, if it could not be the last time.
    pub(super) failing_since: Option<Instant>,
    /// Up to when all copies of it are known.
    pub(super) copies_known: CopiesKnown,
    /// What the figures have of it.
    pub(super) counted: Counted,
}

impl Followed {
    /// Whether it could not be read for so long that those that come after it go on.
    pub(super) fn is_unreadable(&self) -> bool {
        self.failing_since.is_some_and(|since| since.elapsed() >= FAILING_AWAITED_MAX)
    }

    /// These bytes were cut from it at an offset.
    pub(super) fn mark(&mut self, offset: u64, bytes: &[u8]) {
        if self.end_mark.is_none() {
            self.marks.clear();
        }
        if self.marks.len() == MARKED_PACKS {
            self.marks.pop_front();
        }
        let middle = bytes.len().min(bytes.len() / 2 + END_MARK_BYTES_MAX / 2);
        self.marks.push_back(EndMark::of(offset, &bytes[..middle]));
        self.end_mark = Some(EndMark::of(offset, bytes));
    }

    /// A pack was cut.
    pub(super) fn remember(&mut self, pack: Tail) {
        self.recent.push_back(pack);
        if self.recent.len() > RECENT_PACKS {
            self.recent.pop_front();
        }
    }
}
