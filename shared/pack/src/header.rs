//! What the header says, as types; and `Route[0]` to and from them (wire.md, "Legacy pack" and "Our keys").

use crate::{
    BadPack, Codec, Hour, Limits, Name, PackIdentity, StreamId, crc32c_append, identity::hex_digits,
};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What only packs of ours carry in `Route[0]` (wire.md, "Our keys").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ours {
    /// Node name.
    pub host: Name,
    /// Source name.
    pub source: Name,
    /// Range and checksum.
    pub identity: PackIdentity,
    /// Stream offset at which shipping of the stream began.
    pub first: u64,
    /// Length of the body once decompressed. More than `identity.span` only with a `raw_sum`, and then at most
    /// [`RAW_PER_SPAN_MAX`] times as much.
    pub raw: u64,
    /// crc32c of the body once decompressed, where that is not the bytes of the range as they are: lines were left out, or it is
    /// in another encoding. Where it is absent and `raw` is `identity.span`, `identity.sum` is the body's as well.
    pub raw_sum: Option<u32>,
    /// Codec of the body.
    pub codec: Codec,
    /// crc32c of the body as sent.
    pub crc: u32,
}

/// Header of a pack: what `Route[0]` says, and the hops after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Address of the host. Checked as a [`Name`] when parsed, because files of legacy packs are named by it.
    pub ip: String,
    /// Hour of the pack.
    pub hour: Hour,
    /// Number of the pack in its hour, from 1.
    pub id: u64,
    /// Number of lines.
    pub lines: u64,
    /// Last pack of its hour.
    pub done: bool,
    /// A back-filled pack, never dropped as seen before on the way.
    pub repull: bool,
    /// Identity and checks; absent in packs of legacy nodes.
    pub ours: Option<Ours>,
    /// Everything else of `Route[0]` (stage, st, ed, elapse, keys we do not know), and the hops: kept as they came.
    pub origin_rest: Map<String, Value>,
    /// `Route[1..]`.
    pub hops: Vec<Map<String, Value>>,
}

/// What a node appends to the route: wire.md "A receiver appends".
#[derive(Clone, Debug)]
pub struct Hop {
    /// Address of the node.
    pub ip: String,
    /// `tcp recv` for receivers.
    pub stage: &'static str,
    /// Start, `YYYY-MM-DD hh:mm:ss.mmm`, local time.
    pub st: String,
    /// End, the same.
    pub ed: String,
    /// Duration as text, `1.234ms`.
    pub elapse: String,
}

impl From<&Hop> for Map<String, Value> {
    fn from(hop: &Hop) -> Map<String, Value> {
        [
            ("ip", hop.ip.as_str()),
            ("stage", hop.stage),
            ("st", &hop.st),
            ("ed", &hop.ed),
            ("elapse", &hop.elapse),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect()
    }
}

/// Most bytes of a body for each byte of its range: the longest that one byte of any encoding of the Encoding Standard becomes in
/// UTF-8.
pub const RAW_PER_SPAN_MAX: u64 = 3;

/// The value of `v` in packs of ours.
const VERSION: &str = "2";

/// The keys that decide where a pack goes and what becomes of it, sorted. Their checksum stands under [`CHECK_KEY`].
const CHECKED_KEYS: [&str; 21] = [
    "codec",
    "crc",
    "done",
    "first",
    "host",
    "hour",
    "id",
    "ip",
    "lines",
    "of_first",
    "of_offset",
    "of_stream",
    "offset",
    "raw",
    "rawsum",
    "repull",
    "source",
    "span",
    "stream",
    "sum",
    "v",
];
/// Key of [`Ours::raw_sum`].
const RAW_SUM_KEY: &str = "rawsum";
/// crc32c of `KEY=VALUE\n` for each of [`CHECKED_KEYS`] that is there, 8 hex digits. TCP lets about one in 65,536 damaged
/// segments pass, and an offset with another digit would be a good pack of other bytes. Packs without it are taken as they are.
const CHECK_KEY: &str = "check";

impl Header {
    /// Codec of the body; packs of legacy nodes are always zlib.
    pub fn codec(&self) -> Codec {
        self.ours.as_ref().map_or(Codec::Zlib, |ours| ours.codec)
    }

    /// Reads the objects of a route, whose values are all strings.
    pub(crate) fn from_route(
        origin: Map<String, Value>,
        hops: Vec<Map<String, Value>>,
    ) -> Result<Header, BadPack> {
        let mut rest = Keys(origin);
        let is_whole = rest.check()?;
        let header = Header {
            ip: Name::for_key("ip", rest.need("ip")?)?.into_string(),
            hour: rest.need("hour")?.parse()?,
            id: rest.number("id")?,
            lines: rest.number("lines")?,
            done: rest.flag("done")?,
            repull: rest.flag("repull")?,
            ours: Ours::take(&mut rest)?,
            origin_rest: rest.0,
            hops,
        };
        if header.id == 0 {
            return Err(BadPack::IdZero);
        }
        if is_whole { Ok(header) } else { Err(BadPack::BadCheck) }
    }

    /// `Route[0]`, in the order of the keys, as legacy nodes write it.
    pub(crate) fn origin(&self) -> BTreeMap<&str, Cow<'_, str>> {
        let mut origin = texts(&self.origin_rest);
        origin.insert("ip", self.ip.as_str().into());
        origin.insert("hour", self.hour.to_string().into());
        origin.insert("id", self.id.to_string().into());
        origin.insert("lines", self.lines.to_string().into());
        if self.done {
            origin.insert("done", "1".into());
        }
        if self.repull {
            origin.insert("repull", "1".into());
        }
        if let Some(ours) = &self.ours {
            ours.put(&mut origin);
            let check = checksum(|key| origin.get(key).map(Cow::as_ref));
            origin.insert(CHECK_KEY, format!("{check:08x}").into());
        }
        origin
    }

    /// Compares what the header claims with the length of its body and with the limits.
    pub(crate) fn check_lengths(&self, body_len: u64, limits: &Limits) -> Result<(), BadPack> {
        if body_len == 0 && self.codec() != Codec::None {
            return Err(BadPack::BodyEmpty);
        }
        let Some(ours) = &self.ours else { return Ok(()) };
        if ours.raw > limits.raw_bytes_max as u64 {
            return Err(BadPack::RawTooLarge { max: limits.raw_bytes_max });
        }
        let possible = ours.codec.raw_bytes_possible(body_len);
        if ours.raw > possible || (ours.codec == Codec::None && ours.raw != body_len) {
            return Err(BadPack::RawImpossible { raw: ours.raw, body_len });
        }
        Ok(())
    }
}

impl Ours {
    /// Takes our keys out of `Route[0]`; none are there in a legacy pack.
    fn take(keys: &mut Keys) -> Result<Option<Ours>, BadPack> {
        if !keys.are_ours() {
            return Ok(None);
        }
        if keys.need("v")? != VERSION {
            return Err(BadPack::UnknownVersion);
        }
        let ours = Ours {
            host: Name::for_key("host", keys.need("host")?)?,
            source: Name::for_key("source", keys.need("source")?)?,
            identity: PackIdentity {
                stream: keys.need("stream")?.parse::<StreamId>()?,
                offset: keys.number("offset")?,
                span: keys.number("span")?,
                sum: keys.sum("sum")?,
            },
            first: keys.number("first")?,
            raw: keys.number("raw")?,
            raw_sum: keys.0.contains_key(RAW_SUM_KEY).then(|| keys.sum(RAW_SUM_KEY)).transpose()?,
            codec: keys.take("codec").map_or(Ok(Codec::Zlib), |text| text.parse())?,
            crc: keys.sum("crc")?,
        };
        ours.check_range()?;
        Ok(Some(ours))
    }

    fn check_range(&self) -> Result<(), BadPack> {
        let PackIdentity { offset, span, .. } = self.identity;
        if offset.checked_add(span).is_none() {
            return Err(BadPack::RangeOverflow);
        }
        if offset < self.first {
            return Err(BadPack::OffsetBeforeFirst);
        }
        // A body as it is in the stream is never longer than its range, and one in another encoding not without bound.
        let most = if self.raw_sum.is_some() { span.saturating_mul(RAW_PER_SPAN_MAX) } else { span };
        if self.raw > most {
            return Err(BadPack::RawAboveSpan);
        }
        Ok(())
    }

    /// Whether the body is the bytes of the range as they are, so that parts of it are bytes of parts of the range.
    pub fn is_verbatim(&self) -> bool {
        self.raw_sum.is_none() && self.raw == self.identity.span
    }

    /// crc32c that the decompressed body must have; `None` where nothing tells: lines were left out by a node that does not say what
    /// is left.
    pub fn body_sum(&self) -> Option<u32> {
        self.raw_sum.or_else(|| self.is_verbatim().then_some(self.identity.sum))
    }

    fn put<'a>(&'a self, origin: &mut BTreeMap<&'a str, Cow<'a, str>>) {
        let identity = &self.identity;
        origin.insert("v", VERSION.into());
        origin.insert("host", self.host.as_str().into());
        origin.insert("source", self.source.as_str().into());
        origin.insert("stream", identity.stream.to_string().into());
        origin.insert("first", self.first.to_string().into());
        origin.insert("offset", identity.offset.to_string().into());
        origin.insert("span", identity.span.to_string().into());
        origin.insert("sum", format!("{:08x}", identity.sum).into());
        origin.insert("raw", self.raw.to_string().into());
        if let Some(sum) = self.raw_sum {
            origin.insert(RAW_SUM_KEY, format!("{sum:08x}").into());
        }
        origin.insert("codec", self.codec.as_str().into());
        origin.insert("crc", format!("{:08x}", self.crc).into());
    }
}

/// The keys of `Route[0]` that have not been read yet.
struct Keys(Map<String, Value>);

impl Keys {
    fn take(&mut self, key: &str) -> Option<String> {
        match self.0.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn need(&mut self, key: &'static str) -> Result<String, BadPack> {
        self.take(key).ok_or(BadPack::MissingKey { key })
    }

    fn number(&mut self, key: &'static str) -> Result<u64, BadPack> {
        decimal(key, &self.need(key)?)
    }

    fn sum(&mut self, key: &'static str) -> Result<u32, BadPack> {
        let sum = hex_digits(key, &self.need(key)?, 8)?;
        u32::try_from(sum).map_err(|_| BadPack::BadHex { key })
    }

    /// Whether these are the keys of a pack of ours. One that lost its version or its stream is refused later, not mistaken
    /// for a legacy pack, whose body alone would identify it.
    fn are_ours(&self) -> bool {
        self.0.contains_key("v") || self.0.contains_key("stream")
    }

    /// Takes the checksum of the other keys, if there is one; whether it is theirs.
    fn check(&mut self) -> Result<bool, BadPack> {
        if !self.are_ours() || !self.0.contains_key(CHECK_KEY) {
            return Ok(true);
        }
        let expected = self.sum(CHECK_KEY)?;
        Ok(expected == checksum(|key| self.0.get(key).and_then(Value::as_str)))
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, BadPack> {
        match self.take(key).as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(BadPack::BadFlag { key }),
        }
    }
}

fn checksum<'a>(value: impl Fn(&str) -> Option<&'a str>) -> u32 {
    CHECKED_KEYS.iter().filter_map(|key| Some((key, value(key)?))).fold(0, |sum, (key, value)| {
        [key, "=", value, "\n"].iter().fold(sum, |sum, text| crc32c_append(sum, text.as_bytes()))
    })
}

/// Reads a decimal number in its one shortest form.
pub(crate) fn decimal(key: &'static str, text: &str) -> Result<u64, BadPack> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    if !canonical {
        return Err(BadPack::BadNumber { key });
    }
    if digits.len() != text.len() {
        return Err(BadPack::NegativeNumber { key });
    }
    text.parse().map_err(|_| BadPack::NumberTooLarge { key })
}

/// The strings of a route object in the order of their keys. Whatever was put in beside strings is written as the
/// JSON text that it is, because the format has no other type.
pub(crate) fn texts(object: &Map<String, Value>) -> BTreeMap<&str, Cow<'_, str>> {
    let text = |value: &'_ Value| value.to_string();
    object
        .iter()
        .map(|(key, value)| {
            let value = value.as_str().map_or_else(|| Cow::Owned(text(value)), Cow::Borrowed);
            (key.as_str(), value)
        })
        .collect()
}
