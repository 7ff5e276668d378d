//! Which bytes of which stream a pack stands for.

use crate::BadPack;
use std::{fmt, str::FromStr};

/// 128-bit id of one incarnation of one file. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct StreamId(pub u128);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StreamId {
    type Err = BadPack;
    fn from_str(text: &str) -> Result<StreamId, BadPack> {
        hex_digits("stream", text, 32).map(StreamId)
    }
}

/// What tells one pack from another: the stream range it stands for and the crc32c of those bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct PackIdentity {
    /// Stream.
    pub stream: StreamId,
    /// Offset in the stream of the first byte, in bytes.
    pub offset: u64,
    /// Number of stream bytes the pack stands for.
    pub span: u64,
    /// crc32c of those bytes.
    pub sum: u32,
}

impl PackIdentity {
    /// Offset of the byte behind the range. A parsed pack never reaches the saturation.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.span)
    }
}

/// Reads exactly `digits` hex digits, of either case and without a sign.
pub(crate) fn hex_digits(key: &'static str, text: &str, digits: usize) -> Result<u128, BadPack> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(BadPack::BadHex { key });
    }
    u128::from_str_radix(text, 16).map_err(|_| BadPack::BadHex { key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_32_hex_digits() {
        let id = StreamId(0x00ff_0000_0000_0000_0000_0000_0000_0abc);
        assert_eq!(id.to_string(), "00ff0000000000000000000000000abc");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "abc", "+0ff0000000000000000000000000abc", "00ff0000000000000000000000000abg"] {
            assert_eq!(text.parse::<StreamId>(), Err(BadPack::BadHex { key: "stream" }), "{text}");
        }
    }
}
