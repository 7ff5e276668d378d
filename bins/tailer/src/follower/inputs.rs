//! Files of inputs: how far they may be read, and when they have done their duty.

use super::source::Source;
use super::{Followed, Follower};
use crate::event::ToShipper;
use crate::input::shelf::Shelf;
use crate::tracker::FileNumber;
use logferry_pack::StreamId;
use std::path::Path;

impl Source {
    /// Bytes of a file that may be read: of an input's, those that are on the disk.
    pub(super) fn readable(&self, path: &Path) -> u64 {
        self.shelf.as_ref().map_or(u64::MAX, |shelf| shelf.readable(path))
    }
}

impl Follower {
    /// The file that an input wrote before this one, if it is still there: lines stay in their order.
    pub(super) fn input_file_before(&self, source: usize, path: &Path) -> Option<FileNumber> {
        self.sources[source].shelf.as_ref()?;
        let own = Shelf::number_of(path)?;
        let number = |file: &Followed| Shelf::number_of(&file.path).filter(|number| *number < own);
        let of_source = self.files.iter().filter(|(_, file)| file.source == source);
        let before = of_source.filter_map(|(file, followed)| Some((number(followed)?, *file)));
        before.max().map(|(_, file)| file)
    }

    /// Whether the file behind one with this stream may be shipped. That of an input waits for all answers: the packs of two streams
    /// may overtake one another.
    pub(super) fn may_follow(&self, id: StreamId) -> bool {
        let Some(stream) = self.ledger.stream(id) else { return true };
        let is_input = self
            .sources
            .iter()
            .any(|source| source.shelf.is_some() && source.settings.name == stream.met.source);
        !is_input || stream.entries.is_empty()
    }

    /// A file of an input that will not grow and is wholly acknowledged may be deleted, once the state log knows that it is.
    pub(super) fn offer_release(&mut self, number: FileNumber, id: StreamId) {
        let Some(file) = self.files.get(&number) else { return };
        let Some(shelf) = &self.sources[file.source].shelf else { return };
        let settled = self.ledger.stream(id).is_some_and(|stream| stream.entries.is_empty());
        let Some(of_input) = Shelf::number_of(&file.path).filter(|_| settled) else { return };
        let shelf = shelf.clone();
        let whole = file.cutter.at();
        for successor in self.successors.get(&number).cloned().unwrap_or_default() {
            self.queue(successor);
        }
        if shelf.may_release(of_input, whole) {
            self.pass_on_records();
            let _ = self.shipper.send(ToShipper::Release(shelf, of_input));
        }
    }
}
