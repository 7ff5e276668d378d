//! What the footprint's log of an output that can be away holds.
//!
//! | bytes | field |
//! |---|---|
//! | u8 | version, 1 |
//! | u8 | in a record: 0 for a pack that was kept in the spool, 1 for one that is stored |
//! | rest | in a record: `PackSeen`; in a snapshot: postcard of the bytes of the footprints of what is taken and what is stored |
//!
//! Checksums are the log's own (`logferry_durable::Log`).

use logferry_durable::Recovered;
use logferry_footprint::{Footprint, PackSeen};

const VERSION: u8 = 1;
const KEPT: u8 = 0;
const STORED: u8 = 1;

/// What the log says.
#[derive(Debug, Default)]
pub struct Seen {
    /// Packs that are stored or in the spool.
    pub taken: Footprint,
    /// Packs that are stored.
    pub stored: Footprint,
    /// Records and snapshots that could not be read.
    pub undecodable: u64,
}

impl Seen {
    /// From what `Log::open` found.
    pub fn recover(recovered: &Recovered) -> Seen {
        let mut seen = Seen::default();
        match recovered.snapshot.as_deref().map(from_snapshot) {
            None => {}
            Some(Some((taken, stored))) => (seen.taken, seen.stored) = (taken, stored),
            Some(None) => seen.undecodable += 1,
        }
        for record in &recovered.records {
            seen.apply(record);
        }
        seen
    }

    fn apply(&mut self, record: &[u8]) {
        let (what, pack) = match record {
            [VERSION, what, rest @ ..] => (Some(*what), PackSeen::from_bytes(rest)),
            _ => (None, None),
        };
        match (what, pack) {
            (Some(KEPT), Some(pack)) => self.taken.apply(&pack),
            (Some(STORED), Some(pack)) => {
                self.taken.apply(&pack);
                self.stored.apply(&pack);
            }
            _ => self.undecodable += 1,
        }
    }
}

/// The record of a pack that is in the spool.
pub fn kept_record(pack: &PackSeen) -> Vec<u8> {
    record(KEPT, pack)
}

/// The record of a pack that is in the output.
pub fn stored_record(pack: &PackSeen) -> Vec<u8> {
    record(STORED, pack)
}

fn record(what: u8, pack: &PackSeen) -> Vec<u8> {
    let mut bytes = vec![VERSION, what];
    bytes.extend(pack.to_bytes());
    bytes
}

/// The bytes of a snapshot.
pub fn snapshot_bytes(taken: &Footprint, stored: &Footprint) -> Vec<u8> {
    // Plain data into memory: postcard has no way to fail here.
    postcard::to_extend(&(taken.to_bytes(), stored.to_bytes()), vec![VERSION]).unwrap_or_default()
}

fn from_snapshot(bytes: &[u8]) -> Option<(Footprint, Footprint)> {
    let [VERSION, rest @ ..] = bytes else { return None };
    let (taken, stored): (Vec<u8>, Vec<u8>) = postcard::from_bytes(rest).ok()?;
    Some((Footprint::from_bytes(&taken)?, Footprint::from_bytes(&stored)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_pack::{PackIdentity, StreamId};

    fn pack(offset: u64) -> PackSeen {
        let identity = PackIdentity { stream: StreamId(5), offset, span: 10, sum: 8 };
        PackSeen { identity, first: 0, unix: 9 }
    }

    #[test]
    fn the_bytes_of_records_are_pinned() {
        assert_eq!(kept_record(&pack(7)), [1, 0, 5, 7, 10, 8, 0, 9]);
        assert_eq!(stored_record(&pack(7)), [1, 1, 5, 7, 10, 8, 0, 9]);
    }

    #[test]
    fn what_is_stored_is_taken_and_what_is_kept_is_not_stored() {
        let records = vec![kept_record(&pack(0)), stored_record(&pack(20)), vec![2, 1, 5], vec![]];
        let seen = Seen::recover(&Recovered { records, ..Recovered::default() });
        assert_eq!(seen.undecodable, 2);
        let snapshot = Some(snapshot_bytes(&seen.taken, &seen.stored));
        for seen in [&seen, &Seen::recover(&Recovered { snapshot, ..Recovered::default() })] {
            let has = |footprint: &Footprint, offset| footprint.has_seen(StreamId(5), offset, 10);
            assert_eq!([has(&seen.taken, 0), has(&seen.taken, 20)], [true, true]);
            assert_eq!([has(&seen.stored, 0), has(&seen.stored, 20)], [false, true]);
        }
    }
}
