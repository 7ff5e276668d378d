//! Lines that are JSON objects.

use super::combined::put_request;
use super::time;
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use vrl::value::{ObjectMap, Value};

/// Names under which a time is looked for in nginx's logs, the first that is there.
const TIME_KEYS: [&str; 6] = ["time", "time_local", "time_iso8601", "@timestamp", "timestamp", "msec"];
/// nginx's variables (and common names for them) that are whole numbers.
const INTEGER_KEYS: [&str; 13] = [
    "status",
    "response",
    "bytes",
    "bytes_sent",
    "body_bytes_sent",
    "request_length",
    "connection",
    "connection_requests",
    "server_port",
    "remote_port",
    "upstream_status",
    "upstream_response_length",
    "pid",
];
/// And those that are seconds with a fraction.
const FLOAT_KEYS: [&str; 5] =
    ["request_time", "upstream_response_time", "upstream_connect_time", "upstream_header_time", "gzip_ratio"];

/// The object as it is.
pub(super) fn document(line: &[u8]) -> Result<ObjectMap, String> {
    let text = String::from_utf8_lossy(line);
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("no JSON: {error}"))?;
    match Value::from(value) {
        Value::Object(document) => Ok(document),
        other => Err(format!("the line is no JSON object but {}", other.kind_str())),
    }
}

/// The object with nginx's text made into times and numbers.
pub(super) fn nginx_document(line: &[u8]) -> Result<ObjectMap, String> {
    let mut document = document(&without_hex_escapes(line))?;
    document.retain(|_, value| !matches!(value, Value::Bytes(text) if text.is_empty() || &text[..] == b"-"));
    if let Some(key) = TIME_KEYS.into_iter().find(|key| document.contains_key(*key))
        && let Some(time) = document.get(key).and_then(nginx_time)
    {
        document.remove(key);
        document.insert("time".into(), Value::Timestamp(time));
    }
    for key in INTEGER_KEYS {
        make_number(&mut document, key, |text| text.parse().ok().map(Value::Integer));
    }
    for key in FLOAT_KEYS {
        make_number(&mut document, key, |text| text.parse::<f64>().ok().map(Value::from_f64_or_zero));
    }
    if let Some(Value::Bytes(request)) = document.remove("request") {
        put_request(&mut document, request);
    }
    Ok(document)
}

fn make_number(document: &mut ObjectMap, key: &str, parse: impl Fn(&str) -> Option<Value>) {
    if let Some(value) = document.get_mut(key)
        && let Value::Bytes(text) = value
        && let Some(number) = std::str::from_utf8(text).ok().and_then(parse)
    {
        *value = number;
    }
}

/// `$time_local`, `$time_iso8601` or `$msec`.
fn nginx_time(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Bytes(written) => {
            let text = std::str::from_utf8(written).ok()?;
            time::common_log(written)
                .or_else(|| DateTime::parse_from_rfc3339(text).ok())
                .map(|time| time.to_utc())
                .or_else(|| of_seconds(text.parse().ok()?))
        }
        Value::Float(seconds) => of_seconds(seconds.into_inner()),
        Value::Integer(seconds) => DateTime::from_timestamp(*seconds, 0),
        _ => None,
    }
}

fn of_seconds(seconds: f64) -> Option<DateTime<Utc>> {
    let is_sane = seconds.is_finite() && seconds.abs() < 1e12;
    is_sane.then(|| DateTime::from_timestamp_millis((seconds * 1000.0).round() as i64)).flatten()
}

/// Without `escape=json` nginx writes `\xHH`, which is no JSON: `\u00HH` says the same.
fn without_hex_escapes(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(line, b"\\x").is_none() {
        return Cow::Borrowed(line);
    }
    let (mut mended, mut at) = (Vec::with_capacity(line.len() + 16), 0);
    while at < line.len() {
        let is_escape = line[at] == b'\\';
        match line.get(at + 1) {
            Some(b'x') if is_escape => mended.extend_from_slice(b"\\u00"),
            Some(next) if is_escape => mended.extend_from_slice(&[b'\\', *next]),
            _ => {
                mended.push(line[at]);
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    Cow::Owned(mended)
}
