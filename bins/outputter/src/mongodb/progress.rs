//! How far the documents of a pack are.

use super::MongodbOptions;
use super::dead_letter::Letter;
use crate::outputs::away::Stored;
use crate::outputs::backlog::Ticket;
use bytes::Bytes;
use logferry_pack::Ours;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use tokio::sync::mpsc::UnboundedSender;

/// Shared by all documents of a pack: whoever is the last to arrive says so.
pub(super) struct Progress {
    ticket: Ticket,
    left: AtomicUsize,
    stored: UnboundedSender<Stored>,
    /// The pack's lines.
    pub(super) body: Bytes,
    /// Where they go.
    pub(super) database: String,
    blank: Letter,
    offset: u64,
}

impl Progress {
    pub(super) fn new(
        ticket: Ticket,
        ours: &Ours,
        hour: &str,
        body: Bytes,
        options: &MongodbOptions,
        stored: UnboundedSender<Stored>,
    ) -> Progress {
        let database = options.database(hour);
        let blank = Letter {
            time: String::new(),
            reason: String::new(),
            database: database.clone(),
            collection: options.collection.clone(),
            host: ours.host.as_str().to_owned(),
            source: ours.source.as_str().to_owned(),
            hour: hour.to_owned(),
            stream: ours.identity.stream.to_string(),
            offset: 0,
            line: String::new(),
            line_hex: None,
        };
        let offset = ours.identity.offset;
        Progress { ticket, left: AtomicUsize::new(1), stored, body, database, blank, offset }
    }

    /// So many more [`Progress::arrived`] than the first.
    pub(super) fn expect(&self, more: usize) {
        self.left.fetch_add(more, AcqRel);
    }

    /// One of the documents is stored, or all lines without one are in the dead-letter file.
    pub(super) fn arrived(&self) {
        if self.left.fetch_sub(1, AcqRel) == 1 {
            // Nobody listens only while the program stops.
            let _ = self.stored.send(Stored::Whole(self.ticket));
        }
    }

    pub(super) fn letter(&self, reason: String, line: Range<usize>) -> Letter {
        let time = jiff::Timestamp::now().to_string();
        let mut letter =
            Letter { time, reason, offset: self.offset + line.start as u64, ..self.blank.clone() };
        letter.set_line(self.body.get(line).unwrap_or_default());
        letter
    }
}
