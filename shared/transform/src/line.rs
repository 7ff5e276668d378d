//! A line and where it came from.

use bytes::Bytes;
use vrl::value::{ObjectMap, Value};

/// Where lines came from: the same for all lines of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `host`, `source`, `hour`, `stream`, as a program sees them behind `%`.
    metadata: ObjectMap,
}

impl Origin {
    /// `hour` is `YYYYMMDDHH`, `stream` the id in hexadecimal digits.
    pub fn new(host: &str, source: &str, hour: &str, stream: &str) -> Origin {
        let entry = |key: &str, value: &str| (key.into(), Value::from(value));
        let metadata =
            [entry("host", host), entry("source", source), entry("hour", hour), entry("stream", stream)];
        Origin { metadata: metadata.into_iter().collect() }
    }

    /// Everything a program sees behind `%`, for a line that begins at `offset` of its stream.
    pub(crate) fn metadata(&self, offset: u64) -> ObjectMap {
        let mut metadata = self.metadata.clone();
        metadata.insert("offset".into(), Value::Integer(i64::try_from(offset).unwrap_or(i64::MAX)));
        metadata
    }

    /// Adds `host` and `source`, unless the line has such keys itself.
    pub fn add_to(&self, document: &mut ObjectMap) {
        for key in ["host", "source"] {
            if !document.contains_key(key)
                && let Some(value) = self.metadata.get(key)
            {
                document.insert(key.into(), value.clone());
            }
        }
    }
}

/// Bytes as text: without a copy if they are UTF-8, else with U+FFFD for what is not.
pub fn text(bytes: Bytes) -> Value {
    match std::str::from_utf8(&bytes) {
        Ok(_) => Value::Bytes(bytes),
        Err(_) => Value::from(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The line itself, without its newline (and a carriage return before it).
pub(crate) fn without_newline(line: &Bytes) -> Bytes {
    let end = line.strip_suffix(b"\n").unwrap_or(line);
    let end = end.strip_suffix(b"\r").unwrap_or(end);
    line.slice(..end.len())
}
