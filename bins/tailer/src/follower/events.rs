//! What events change.

use super::Follower;
use crate::event::{Changes, Event, ToShipper};
use crate::ledger::{Effect, Verdict};
use crate::repull::known::{Known, Question};
use crate::tracker::FileNumber;
use logferry_link::Outgoing;
use metrics::counter;
use std::collections::BTreeSet;
use std::time::Instant;
use tracing::warn;

impl Follower {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Changes(changes) => self.files_changed(&changes),
            Event::Written(path) => {
                if let Some(file) = self.by_path.get(&path).copied() {
                    self.queue(file);
                }
            }
            Event::Settled { ticket, verdict, pack } => self.settled(ticket, verdict, pack),
            Event::Asked(question) => self.answer(&question),
            Event::Buffer(buffer) => self.give_back(buffer),
            Event::Unpacked { job, unpacked } => self.unpacked(job, unpacked),
            Event::SnapshotWanted => {
                self.pass_on_records();
                let _ = self.shipper.send(ToShipper::Snapshot(self.ledger.snapshot()));
            }
            Event::WatchEnded => {
                self.watch = None;
                self.sources.iter_mut().for_each(|source| source.next_look = Instant::now());
            }
            Event::Resume => {}
            Event::Stop(wait) => {
                self.stopping.get_or_insert(Instant::now() + wait);
            }
        }
    }

    fn answer(&self, question: &Question) {
        let path_of = |stream| Some(self.files.get(self.by_stream.get(&stream)?)?.path.clone());
        let known = Known::of(&self.ledger, &question.source, question.hour, path_of);
        let _ = question.answer.send(known);
    }

    fn files_changed(&mut self, changes: &Changes) {
        let now = Instant::now();
        // A file that is no longer where it was is written to under a name that nobody knows.
        let mut is_unknown = false;
        for (folder, name) in &changes.written {
            let Some(folder) = self.folders.get(folder) else { continue };
            let path = folder.path.join(name);
            if let Some(file) = self.by_path.get(&path).copied() {
                self.queue(file);
                continue;
            }
            is_unknown = true;
            for index in &folder.sources {
                // One that is not followed yet: it could not be opened, or unpacked.
                let source = &mut self.sources[*index];
                if source.paths.covers(&path) {
                    source.look_soon(now);
                }
            }
        }
        if is_unknown || !changes.listings.is_empty() || changes.overflow {
            self.queue_displaced(None);
        }
        for (descriptor, name) in &changes.names {
            let Some(folder) = self.folders.get(descriptor) else { continue };
            for index in &folder.sources {
                self.sources[*index].dirty.insert(name.clone());
            }
        }
        let mut listed: BTreeSet<usize> = BTreeSet::new();
        for descriptor in &changes.listings {
            listed.extend(self.folders.get(descriptor).into_iter().flat_map(|folder| &folder.sources));
        }
        for descriptor in &changes.unwatched {
            self.folders.remove(descriptor);
        }
        if changes.overflow {
            counter!("logferry_tailer_watch_overflows_total").increment(1);
            warn!(
                "events of inotify were lost: every file is looked at; if that is so often, raise fs.inotify.max_queued_events"
            );
        }
        for (index, source) in self.sources.iter_mut().enumerate() {
            if changes.overflow {
                source.rescan_at = now;
            }
            if changes.overflow || listed.contains(&index) {
                source.look_soon(now);
            }
        }
    }

    /// Files, of a source or of all, that are no longer under the path that inotify would name.
    pub(super) fn queue_displaced(&mut self, source: Option<usize>) {
        let is_of = |number: &FileNumber| {
            source.is_none_or(|source| self.files.get(number).is_some_and(|file| file.source == source))
        };
        let displaced: Vec<FileNumber> = self.displaced.iter().copied().filter(is_of).collect();
        for number in displaced {
            self.queue(number);
        }
    }

    fn settled(&mut self, ticket: u64, verdict: Verdict, pack: Option<Outgoing>) {
        if let (Verdict::Conflict(_), Some(pack)) = (&verdict, pack)
            && self.ledger.stream(pack.stream).is_some_and(|stream| stream.orphan)
        {
            // Nothing is left to compare with, and nothing to cut anew from.
            let reason = "conflict".to_owned();
            let _ = self.shipper.send(ToShipper::Quarantine { pack, reason });
            return;
        }
        match self.ledger.settle(ticket, verdict) {
            Effect::Stale | Effect::MarkSettled => {}
            Effect::Settled(stream) | Effect::Conflict(stream) => match self.by_stream.get(&stream) {
                Some(file) => self.queue(*file),
                None => self.finish_orphan(stream),
            },
        }
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        let usual = self.buffer_bytes;
        if buffer.len() != usual {
            buffer = vec![0; usual];
        }
        self.buffers.push(buffer);
    }
}
