//! The codecs by name, and how far each can blow a body up.

use crate::BadPack;
use std::{fmt, str::FromStr};

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// RFC 1950, the default and the only one legacy peers read.
    Zlib,
    /// RFC 8878.
    Zstd,
    /// As it is.
    None,
}

impl Codec {
    /// All codecs, the preferred one for an unknown peer first.
    pub const ALL: [Codec; 3] = [Codec::Zlib, Codec::Zstd, Codec::None];

    /// The name in headers and configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Codec::Zlib => "zlib",
            Codec::Zstd => "zstd",
            Codec::None => "none",
        }
    }

    /// The most bytes that a body of `body_len` bytes can decompress to.
    ///
    /// Deflate (RFC 1951): the longest match, 258 bytes, needs at least two bits, one for its length and one for
    /// its distance, which is 1032 bytes out for one in. Zstandard (RFC 8878, 3.1.1.2): a block gives at most
    /// 128 KiB, and takes 3 bytes of header and at least one more.
    pub(crate) const fn raw_bytes_possible(self, body_len: u64) -> u64 {
        match self {
            Codec::Zlib => body_len.saturating_mul(1032),
            Codec::Zstd => body_len.saturating_mul(128 * 1024 / 4),
            Codec::None => body_len,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Codec {
    type Err = BadPack;
    fn from_str(text: &str) -> Result<Codec, BadPack> {
        Codec::ALL.into_iter().find(|codec| codec.as_str() == text).ok_or(BadPack::UnknownCodec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_names_are_read_back_and_nothing_else_is() {
        for codec in Codec::ALL {
            assert_eq!(codec.to_string().parse(), Ok(codec));
        }
        for text in ["", "ZLIB", "gzip", "zlib "] {
            assert_eq!(text.parse::<Codec>(), Err(BadPack::UnknownCodec));
        }
    }
}
