//! What is told about packs that were seen: to the owner's log, and to tailers.

use logferry_pack::PackIdentity;

/// A remembered pack of a stream, as on the wire: `[offset, span, sum]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SeenPack(pub u64, pub u64, pub u32);

impl From<&PackIdentity> for SeenPack {
    fn from(identity: &PackIdentity) -> SeenPack {
        SeenPack(identity.offset, identity.span, identity.sum)
    }
}

/// What an answer `conflict` carries.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// End of the range that holds `first`: everything below has been seen.
    pub frontier: u64,
    /// Last packs, oldest first.
    pub packs: Vec<SeenPack>,
}

/// The record that an owner appends to its log for a pack: postcard of the fields in
/// order, about 40 bytes and never more than 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PackSeen {
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Stream offset at which shipping of the stream began.
    pub first: u64,
    /// When it was seen, in seconds since 1970, for expiry only.
    pub unix: u64,
}

impl PackSeen {
    /// As bytes for a log.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a record of numbers is always written to memory")
    }

    /// Back from [`PackSeen::to_bytes`]; `None` when the bytes are no such record, or more than one.
    pub fn from_bytes(bytes: &[u8]) -> Option<PackSeen> {
        match postcard::take_from_bytes(bytes) {
            Ok((seen, [])) => Some(seen),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_pack::StreamId;

    const SEEN: PackSeen = PackSeen {
        identity: PackIdentity { stream: StreamId(0x0102), offset: 300, span: 5, sum: 0xffff_ffff },
        first: 1,
        unix: 1_795_000_000,
    };

    #[test]
    fn the_bytes_of_a_record_do_not_change() {
        let bytes = SEEN.to_bytes();
        let expected = [0x82, 2, 0xac, 2, 5, 0xff, 0xff, 0xff, 0xff, 0xf, 1, 0xc0, 0x8d, 0xf6, 0xd7, 6];
        assert_eq!(bytes, expected);
        assert_eq!(PackSeen::from_bytes(&bytes), Some(SEEN));
    }

    #[test]
    fn a_record_that_is_cut_or_has_a_tail_is_none() {
        let mut bytes = SEEN.to_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(PackSeen::from_bytes(&bytes[..cut]), None);
        }
        bytes.push(0);
        assert_eq!(PackSeen::from_bytes(&bytes), None);
    }
}
