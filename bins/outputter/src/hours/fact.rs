//! What the books need to know of a pack that is in the output.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use logferry_pack::{Header, Hour, HourRange, Ours, PackIdentity};
use serde::{Deserialize, Serialize};

/// Names an hour of a source of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HourKey {
    /// Source; empty in packs of legacy nodes, which have none (no name of ours is empty).
    pub source: String,
    /// Host; its address in packs of legacy nodes.
    pub host: String,
    /// The hour.
    pub hour: Hour,
}

impl HourKey {
    /// Of a pack.
    pub fn of(header: &Header) -> HourKey {
        let (source, host) = match named(header) {
            Some(ours) => (ours.source.as_str(), ours.host.as_str()),
            None => ("", header.ip.as_str()),
        };
        HourKey { source: source.to_owned(), host: host.to_owned(), hour: header.hour }
    }

    /// Whether it is of a legacy node.
    pub fn is_legacy(&self) -> bool {
        self.source.is_empty()
    }
}

impl std::fmt::Display for HourKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HourKey { source, host, hour } = self;
        if self.is_legacy() { write!(f, "{host}_{hour}") } else { write!(f, "{source}/{host}_{hour}") }
    }
}

/// A pack that is in the output: one line of a header file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its hour.
    pub key: HourKey,
    /// Its number in the hour.
    pub id: u64,
    /// Its number is one of the hour's. A pack that a repull cut anew is numbered by itself, and only its bytes tell what it fills.
    pub is_numbered: bool,
    /// It closes the hour: `id` is the number of packs.
    pub done: bool,
    /// Lines.
    pub lines: u64,
    /// Bytes in the log file.
    pub bytes: u64,
    /// Stream bytes that it stands for, and where shipping of the stream began; `None` for packs of legacy nodes, which are
    /// streams of their own.
    pub range: Option<(PackIdentity, u64)>,
    /// Of a done pack: all stream bytes of the hour, where it says so.
    pub hour_ranges: Option<Vec<HourRange>>,
    /// When it was received, in milliseconds since 1970.
    pub at_ms: i64,
}

impl Fact {
    /// Ten lines of 100 bytes, of no stream.
    #[cfg(test)]
    pub fn of_a_test(key: HourKey, id: u64, done: bool) -> Fact {
        Fact {
            key,
            id,
            is_numbered: true,
            done,
            lines: 10,
            bytes: 100,
            range: None,
            hour_ranges: None,
            at_ms: 0,
        }
    }

    /// Of a pack that was received at `at_ms`.
    pub fn new(header: &Header, at_ms: i64) -> Fact {
        let ours = named(header);
        // Packs without lines are marked as repulled, too, so that nobody drops them. A legacy node cuts them as it did before.
        let is_cut_anew = header.repull && ours.is_some_and(|ours| ours.identity.span > 0);
        Fact {
            is_numbered: !is_cut_anew,
            key: HourKey::of(header),
            id: header.id,
            done: header.done,
            lines: header.lines,
            bytes: header.ours.as_ref().map_or(0, |ours| ours.raw),
            range: ours.map(|ours| (ours.identity, ours.first)),
            hour_ranges: header.hour_ranges(),
            at_ms,
        }
    }

    /// Of a pack in a header file: its last hop says when it was received, in the time of this node.
    pub fn from_file(header: &Header, zone: &TimeZone, now_ms: i64) -> Fact {
        let text = header.hops.last().and_then(|hop| hop.get("ed")?.as_str());
        let at = text.and_then(|text| text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok());
        Fact::new(header, at.map_or(now_ms, |at| at.timestamp().as_millisecond()))
    }
}

/// The keys of a pack that has a source and a host; packs of legacy nodes have an address.
fn named(header: &Header) -> Option<&Ours> {
    header.ours.as_ref().filter(|ours| !ours.is_legacy())
}
