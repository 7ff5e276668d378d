//! What the follower knows of the streams of one source.

use crate::event::Event;
use crate::identity::{FileKey, Head};
use crate::ledger::Ledger;
use crate::ledger::hours::Position;
use crate::ledger::record::Tail;
use logferry_pack::{Hour, HourRange, StreamId};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long the follower may take to say what it knows.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A question to the follower.
#[derive(Clone, Debug)]
pub struct Question {
    /// Source.
    pub source: String,
    /// Only the ranges of this hour.
    pub hour: Option<Hour>,
    /// Where the answer goes.
    pub answer: crossbeam_channel::Sender<Known>,
}

/// The answer.
#[derive(Clone, Default, Debug)]
pub struct Known {
    /// Streams that are followed, and those that were read to their ends.
    pub streams: Vec<KnownStream>,
    /// What was shipped in which hour.
    pub spans: Vec<Span>,
    /// Hours of which only some spans are known.
    pub partly_known: BTreeSet<Hour>,
    /// Of this hour and those before it spans were forgotten.
    pub forgotten: Option<Hour>,
    /// How the hour that was asked for was closed, if it is.
    pub closed: Option<Closed>,
}

/// An hour that is over, and all of whose packs were acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closed {
    /// The hour.
    pub hour: Hour,
    /// Number of its packs, the done pack included.
    pub total: u64,
    /// Where its last pack with lines ended.
    pub at: Position,
    /// All bytes that it has; empty when they are not all known.
    pub ranges: Vec<HourRange>,
}

/// A stream and its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownStream {
    /// Id.
    pub id: StreamId,
    /// Identities that its file has, or had.
    pub keys: Vec<FileKey>,
    /// Where the file was seen last.
    pub path: PathBuf,
    /// Its first line.
    pub head: Head,
    /// Offset at which shipping began.
    pub first: u64,
    /// Everything below is acknowledged.
    pub end: u64,
    /// The last pack below `end`.
    pub tail: Option<Tail>,
}

/// Bytes of a stream that were shipped in an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Stream.
    pub stream: StreamId,
    /// Hour.
    pub hour: Hour,
    /// First byte.
    pub from: u64,
    /// Byte after the last.
    pub to: u64,
}

/// Asks the follower. Blocks.
pub(crate) fn ask(
    follower: &crossbeam_channel::Sender<Event>,
    source: &str,
    hour: Option<Hour>,
) -> anyhow::Result<Known> {
    let (answer, answered) = crossbeam_channel::bounded(1);
    follower.send(Event::Asked(Question { source: source.to_owned(), hour, answer }))?;
    answered.recv_timeout(ANSWER_MAX).map_err(|_| anyhow::anyhow!("the tailer is busy or stops: ask again"))
}

impl Known {
    /// What a ledger says. `path_of` gives the path under which a stream is open now.
    pub fn of(
        ledger: &Ledger,
        source: &str,
        hour: Option<Hour>,
        path_of: impl Fn(StreamId) -> Option<PathBuf>,
    ) -> Known {
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let followed = ledger.streams().filter(|stream| stream.met.source == source).map(|stream| {
            let (id, met) = (stream.met.stream, &stream.met);
            KnownStream {
                id,
                keys: std::iter::once(met.key).chain(stream.was.iter().copied()).collect(),
                path: path_of(id).unwrap_or_else(|| path(&met.path)),
                head: met.head,
                first: met.first,
                end: stream.frontier,
                tail: stream.tail,
            }
        });
        let finished = ledger.past_files().of(source).map(|file| KnownStream {
            id: file.stream,
            keys: file.keys.clone(),
            path: path(&file.path),
            head: file.head,
            first: 0,
            end: file.length,
            tail: file.tail,
        });
        let closed = hour.and_then(|hour| {
            let (total, at) = ledger.hours().closed(source, hour)?;
            Some(Closed { hour, total, at, ranges: ledger.ranges().all_of(source, hour) })
        });
        let mut known = Known {
            streams: followed.chain(finished).collect(),
            spans: Vec::new(),
            partly_known: ledger.ranges().partly_known(source).collect(),
            forgotten: ledger.ranges().forgotten(source),
            closed,
        };
        let hours: Vec<Hour> = match hour {
            Some(hour) => vec![hour],
            None => ledger.ranges().hours(source).collect(),
        };
        for hour in hours {
            for (stream, ranges) in ledger.ranges().of(source, hour) {
                known.spans.extend(ranges.iter().map(|(from, to)| Span {
                    stream,
                    hour,
                    from: *from,
                    to: *to,
                }));
            }
        }
        known
    }

    /// Whether the spans of an hour are all that was shipped in it.
    pub fn knows_all_of(&self, hour: Hour) -> bool {
        !self.partly_known.contains(&hour) && self.forgotten.is_none_or(|forgotten| hour > forgotten)
    }

    /// All that is known of a stream: a file that was copied is known more than once.
    pub fn stream(&self, id: StreamId) -> impl Iterator<Item = &KnownStream> {
        self.streams.iter().filter(move |stream| stream.id == id)
    }
}
