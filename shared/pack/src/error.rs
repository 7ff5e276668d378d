//! Why bytes are no good pack.

/// What is wrong with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameFault {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// `.` or `..`.
    #[error("is a relative path component")]
    Dots,
    /// Over 255 bytes.
    #[error("is longer than 255 bytes")]
    TooLong,
    /// A `/`.
    #[error("holds a slash")]
    Slash,
    /// A NUL.
    #[error("holds a NUL")]
    Nul,
    /// A character that cannot be seen or that hides others.
    #[error("holds a control character")]
    Control,
}

/// Why bytes are no good pack. `reason()` is a short stable label for counters.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPack {
    /// All four bytes of the length have the continuation bit, as those of the v2 preface.
    #[error("the header length does not end within its 4 bytes")]
    LengthUnterminated,
    /// The length could be written with fewer groups.
    #[error("the header length has needless zero groups")]
    LengthOverlong,
    /// Bytes behind the last group of the length are not zero.
    #[error("the header length is not padded with zeros")]
    LengthPadding,
    /// A header of no bytes.
    #[error("the header is empty")]
    HeaderEmpty,
    /// A header over the limit.
    #[error("a header of {len} bytes is over the limit of {max}")]
    HeaderTooLarge {
        /// Announced bytes.
        len: usize,
        /// Limit in bytes.
        max: usize,
    },
    /// A pack over the limit.
    #[error("a pack with a body of {body_len} bytes is over the limit of {max}")]
    PackTooLarge {
        /// Announced bytes of body.
        body_len: u64,
        /// Limit in bytes of the whole pack.
        max: usize,
    },
    /// The header is no JSON, or not UTF-8.
    #[error("the header is no JSON: {0}")]
    NotJson(String),
    /// A value of another JSON type than the format has.
    #[error("{key} has the wrong type in the header")]
    WrongType {
        /// Key, cut to a printable length.
        key: String,
    },
    /// A key that has to be there.
    #[error("{key} is missing in the header")]
    MissingKey {
        /// Key.
        key: &'static str,
    },
    /// The same key twice in one object: two readers could take different ones.
    #[error("{key} is there twice in the header")]
    DuplicateKey {
        /// Key, cut to a printable length.
        key: String,
    },
    /// More hops than any route has.
    #[error("the route has more than {} objects", crate::ROUTE_OBJECTS_MAX)]
    RouteTooLong,
    /// A negative number.
    #[error("{key} is negative")]
    NegativeNumber {
        /// Key.
        key: &'static str,
    },
    /// A number over 64 bits.
    #[error("{key} does not fit 64 bits")]
    NumberTooLarge {
        /// Key.
        key: &'static str,
    },
    /// Something else than decimal digits without leading zeros.
    #[error("{key} is no decimal number")]
    BadNumber {
        /// Key.
        key: &'static str,
    },
    /// Something else than the right number of hex digits.
    #[error("{key} is not the right number of hex digits")]
    BadHex {
        /// Key.
        key: &'static str,
    },
    /// Something else than `1` or `0`.
    #[error("{key} is neither 1 nor 0")]
    BadFlag {
        /// Key.
        key: &'static str,
    },
    /// A name that cannot be a file's.
    #[error("{key} {fault}")]
    BadName {
        /// Key.
        key: &'static str,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// No `YYYYMMDDHH` of the calendar.
    #[error("the hour is no real YYYYMMDDHH")]
    BadHour,
    /// Packs of an hour count from 1.
    #[error("the pack's number in its hour is 0")]
    IdZero,
    /// A `v` that is not ours.
    #[error("the pack is of a version that is not known here")]
    UnknownVersion,
    /// A codec that is not known here.
    #[error("the codec is none of zlib, zstd, none")]
    UnknownCodec,
    /// A level that the codec does not have.
    #[error("codec {codec} has no level {level}")]
    BadLevel {
        /// Codec.
        codec: crate::Codec,
        /// Level asked for.
        level: i32,
    },
    /// `offset` + `span` is over 64 bits.
    #[error("the range ends beyond 64 bits")]
    RangeOverflow,
    /// The range begins before shipping of the stream began.
    #[error("the range begins before the stream's first offset")]
    OffsetBeforeFirst,
    /// The body claims to hold more than the stream range has, or than it could become in another encoding.
    #[error("the body claims more bytes than the range it stands for")]
    RawAboveSpan,
    /// The body claims more than the limit.
    #[error("a body that decompresses to more than {max} bytes")]
    RawTooLarge {
        /// Limit in bytes.
        max: usize,
    },
    /// No body of this length decompresses to so much.
    #[error("no body of {body_len} bytes can decompress to {raw}")]
    RawImpossible {
        /// Claimed bytes.
        raw: u64,
        /// Bytes of the body.
        body_len: u64,
    },
    /// A compressed body has at least a few bytes.
    #[error("the body is empty")]
    BodyEmpty,
    /// Fewer bytes than the header announced.
    #[error("the pack ends early")]
    Truncated,
    /// More bytes than the header announced.
    #[error("bytes follow the pack")]
    TrailingBytes,
    /// The header is not what was sent.
    #[error("the header does not match its checksum")]
    BadCheck,
    /// The body is not what was sent.
    #[error("the body does not match its checksum")]
    BadCrc,
    /// The body is no stream of its codec.
    #[error("the body is no whole stream of its codec")]
    BodyCorrupt,
    /// Bytes follow the compressed stream.
    #[error("bytes follow the compressed stream in the body")]
    BodyTrailingBytes,
    /// The body decompressed to another length than its header says.
    #[error("the body does not decompress to the announced length")]
    RawMismatch,
    /// The lines are not those that the header stands for.
    #[error("the decompressed body does not match its checksum")]
    BadSum,
}

impl BadPack {
    /// Label for counters and rejects, such as `header_too_large`. Never changes for a fault, and never holds
    /// anything from the pack.
    pub fn reason(&self) -> &'static str {
        match self {
            BadPack::LengthUnterminated => "length_unterminated",
            BadPack::LengthOverlong => "length_overlong",
            BadPack::LengthPadding => "length_padding",
            BadPack::HeaderEmpty => "header_empty",
            BadPack::HeaderTooLarge { .. } => "header_too_large",
            BadPack::PackTooLarge { .. } => "pack_too_large",
            BadPack::NotJson(_) => "not_json",
            BadPack::WrongType { .. } => "wrong_type",
            BadPack::MissingKey { .. } => "missing_key",
            BadPack::DuplicateKey { .. } => "duplicate_key",
            BadPack::RouteTooLong => "route_too_long",
            BadPack::NegativeNumber { .. } => "negative_number",
            BadPack::NumberTooLarge { .. } => "number_too_large",
            BadPack::BadNumber { .. } => "bad_number",
            BadPack::BadHex { .. } => "bad_hex",
            BadPack::BadFlag { .. } => "bad_flag",
            BadPack::BadName { fault, .. } => match fault {
                NameFault::Empty => "name_empty",
                NameFault::Dots => "name_dots",
                NameFault::TooLong => "name_too_long",
                NameFault::Slash => "name_slash",
                NameFault::Nul => "name_nul",
                NameFault::Control => "name_control",
            },
            BadPack::BadHour => "bad_hour",
            BadPack::IdZero => "id_zero",
            BadPack::UnknownVersion => "unknown_version",
            BadPack::UnknownCodec => "unknown_codec",
            BadPack::BadLevel { .. } => "bad_level",
            BadPack::RangeOverflow => "range_overflow",
            BadPack::OffsetBeforeFirst => "offset_before_first",
            BadPack::RawAboveSpan => "raw_above_span",
            BadPack::RawTooLarge { .. } => "raw_too_large",
            BadPack::RawImpossible { .. } => "raw_impossible",
            BadPack::BodyEmpty => "body_empty",
            BadPack::Truncated => "truncated",
            BadPack::TrailingBytes => "trailing_bytes",
            BadPack::BadCheck => "bad_check",
            BadPack::BadCrc => "bad_crc",
            BadPack::BodyCorrupt => "body_corrupt",
            BadPack::BodyTrailingBytes => "body_trailing_bytes",
            BadPack::RawMismatch => "raw_mismatch",
            BadPack::BadSum => "bad_sum",
        }
    }
}
