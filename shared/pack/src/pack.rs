//! The bytes of a pack (wire.md, "Legacy pack (protocol v1), also the layout of ours").
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length N of the header: LEB128, least significant group first, shortest form, padded with zeros |
//! | N | header: JSON, `{"Route":[{…},…],"PackLen":M}`, keys of an object in any order, written sorted |
//! | M | body |

use crate::{BadPack, Header, Hop, Limits, crc32c, json};
use bytes::Bytes;

/// Bytes of the length in front of the header.
const LENGTH_BYTES: usize = 4;
/// Longest header that the length can tell: four groups of seven bits.
const HEADER_LENGTH_MAX: usize = (1 << 28) - 1;

/// A header and the body it announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pack {
    /// Header.
    pub header: Header,
    /// Compressed body.
    pub body: Bytes,
}

/// Outcome of looking at the first bytes of a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// At least this many bytes in all are needed before the answer can change.
    More {
        /// Total bytes wanted from the start of the pack.
        at_least: usize,
    },
    /// A whole header; the pack ends at `pack_len` bytes from its start.
    Header {
        /// The header.
        header: Header,
        /// Offset of the body.
        body_at: usize,
        /// Length of header and body together.
        pack_len: usize,
    },
}

/// Looks for a pack at the start of `bytes`. Takes no memory for a header before its length is known to be within
/// the limits, and none for the body at all.
///
/// # Errors
/// [`BadPack`] once it is certain that no bytes behind these could make a pack of them.
pub fn decode_header(bytes: &[u8], limits: &Limits) -> Result<Decoded, BadPack> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Decoded::More { at_least: LENGTH_BYTES });
    };
    let header_len = decode_length(*length)?;
    if header_len == 0 {
        return Err(BadPack::HeaderEmpty);
    }
    if header_len > limits.header_bytes_max {
        return Err(BadPack::HeaderTooLarge { len: header_len, max: limits.header_bytes_max });
    }
    let body_at = LENGTH_BYTES + header_len;
    let Some(json) = bytes.get(LENGTH_BYTES..body_at) else {
        return Ok(Decoded::More { at_least: body_at });
    };
    let read = json::HeaderJson::parse(json)?;
    let body_len = read.body_len;
    let pack_len = usize::try_from(body_len)
        .ok()
        .and_then(|body_len| body_len.checked_add(body_at))
        .filter(|pack_len| *pack_len <= limits.pack_bytes_max)
        .ok_or(BadPack::PackTooLarge { body_len, max: limits.pack_bytes_max })?;
    let header = Header::from_route(read.origin, read.hops)?;
    header.check_lengths(body_len, limits)?;
    Ok(Decoded::Header { header, body_at, pack_len })
}

impl Pack {
    /// Parses exactly one pack (header and body, nothing behind it). Checks limits, names, numbers and, for packs
    /// of ours, the body's crc. The body shares the memory of `bytes`.
    ///
    /// # Errors
    /// [`BadPack`] with the first fault found.
    pub fn parse(bytes: Bytes, limits: &Limits) -> Result<Pack, BadPack> {
        let Decoded::Header { header, body_at, pack_len } = decode_header(&bytes, limits)? else {
            return Err(BadPack::Truncated);
        };
        if bytes.len() < pack_len {
            return Err(BadPack::Truncated);
        }
        if bytes.len() > pack_len {
            return Err(BadPack::TrailingBytes);
        }
        let pack = Pack { header, body: bytes.slice(body_at..) };
        match &pack.header.ours {
            Some(ours) if ours.crc != crc32c(&pack.body) => Err(BadPack::BadCrc),
            _ => Ok(pack),
        }
    }

    /// The 4-byte length and the header JSON; the body follows as it is.
    ///
    /// # Panics
    /// If the header has more than 2^28 - 1 bytes, which is 4,000 times the default limit of those that read it.
    pub fn encode_header(&self) -> Bytes {
        self.encode_with_room(0).into()
    }

    /// Header and body in one buffer.
    ///
    /// # Panics
    /// As [`Pack::encode_header`].
    pub fn encode(&self) -> Bytes {
        let mut bytes = self.encode_with_room(self.body.len());
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }

    /// Appends a hop to the route.
    pub fn push_hop(&mut self, hop: &Hop) {
        self.header.hops.push(hop.into());
    }

    fn encode_with_room(&self, room: usize) -> Vec<u8> {
        let json = json::write(&self.header, self.body.len());
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + json.len() + room);
        bytes.extend_from_slice(&encode_length(json.len()));
        bytes.extend_from_slice(&json);
        bytes
    }
}

fn encode_length(length: usize) -> [u8; LENGTH_BYTES] {
    assert!(length <= HEADER_LENGTH_MAX, "a header of {length} bytes");
    let mut bytes = [0; LENGTH_BYTES];
    let mut rest = length;
    for byte in &mut bytes {
        *byte = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            break;
        }
        *byte |= 0x80;
    }
    bytes
}

fn decode_length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, BadPack> {
    let last = bytes.iter().position(|byte| byte & 0x80 == 0).ok_or(BadPack::LengthUnterminated)?;
    if bytes[last + 1..].iter().any(|byte| *byte != 0) {
        return Err(BadPack::LengthPadding);
    }
    if last > 0 && bytes[last] == 0 {
        return Err(BadPack::LengthOverlong);
    }
    Ok(bytes[..=last].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_back_from_its_four_bytes() {
        for (length, bytes) in [
            (0, [0, 0, 0, 0]),
            (127, [0x7f, 0, 0, 0]),
            (128, [0x80, 1, 0, 0]),
            (311, [0xb7, 2, 0, 0]),
            (16_384, [0x80, 0x80, 1, 0]),
            (HEADER_LENGTH_MAX, [0xff, 0xff, 0xff, 0x7f]),
        ] {
            assert_eq!(encode_length(length), bytes);
            assert_eq!(decode_length(bytes), Ok(length));
        }
    }

    #[test]
    fn a_length_has_one_form_only() {
        assert_eq!(decode_length([0xff; 4]), Err(BadPack::LengthUnterminated));
        assert_eq!(decode_length([0x80, 0x80, 0x80, 0x80]), Err(BadPack::LengthUnterminated));
        assert_eq!(decode_length([0x81, 0, 0, 0]), Err(BadPack::LengthOverlong));
        assert_eq!(decode_length([0x81, 0x80, 0x80, 0]), Err(BadPack::LengthOverlong));
        assert_eq!(decode_length([0x7f, 0, 0, 1]), Err(BadPack::LengthPadding));
    }
}
