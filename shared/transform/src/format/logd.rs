//! The documents of the legacy MongoDB collector, logd's `mgocollector`.
//!
//! Lines begin `host ip … [02/Jan/2006:15:04:05 -0700] "GET /path?query HTTP/1.1"`. A document is made of the query's parameters, only
//! when `transaction_id` is one of them; every other key gets the host's first label and `_` in front (`www_tn`), and four more are
//! added: `www_ipinlong`, `www_time` (seconds since 1970), `www_day` (20260102) and `www_hour`, the last two in the line's own zone.

use super::combined::Cursor;
use super::time;
use crate::line::text;
use crate::transform::Outcome;
use bytes::Bytes;
use chrono::{DateTime, Datelike, FixedOffset, Timelike};
use percent_encoding::percent_decode;
use std::net::Ipv4Addr;
use vrl::value::{ObjectMap, Value};

const KEY: &str = "transaction_id";

pub(super) fn document(line: &Bytes) -> Outcome {
    match parts(line) {
        Err(reason) => Outcome::Failed(reason.to_owned()),
        Ok(parts) => match of_parts(&parts) {
            Ok(Some(document)) => Outcome::Document(document),
            Ok(None) => Outcome::Dropped,
            Err(reason) => Outcome::Failed(reason),
        },
    }
}

struct Parts {
    host: Bytes,
    ip: Bytes,
    time: Bytes,
    request: Bytes,
}

fn parts(line: &Bytes) -> Result<Parts, &'static str> {
    let mut rest = Cursor { line, at: 0 };
    let host = rest.word().ok_or("no host at the line's begin")?;
    let ip = rest.word().ok_or("no address after the host")?;
    rest.until(b"[").ok_or("no [time]")?;
    let time = rest.until(b"] \"").ok_or("no ] and quoted request after the time")?;
    let request = rest.quoted().ok_or("no \" at the end of the request")?;
    Ok(Parts { host, ip, time, request })
}

fn of_parts(parts: &Parts) -> Result<Option<ObjectMap>, String> {
    let Some(url) = parts.request.split(|byte| *byte == b' ').nth(1) else { return Ok(None) };
    let url = url.split(|byte| *byte == b'#').next().unwrap_or_default();
    let Some(question) = memchr::memchr(b'?', url) else { return Ok(None) };
    let parameters =
        || url[question + 1..].split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(split);
    if !parameters().any(|(key, _)| key == KEY.as_bytes()) {
        return Ok(None);
    }
    let time = time::common_log(&parts.time)
        .ok_or_else(|| format!("{:?} is no time", String::from_utf8_lossy(&parts.time)))?;
    let label = parts.host.split(|byte| *byte == b'.').next().unwrap_or_default();
    let label = String::from_utf8_lossy(label).into_owned();
    let mut document = ObjectMap::new();
    for (key, value) in parameters() {
        let key = String::from_utf8_lossy(&key).into_owned();
        let key = if key == KEY { key } else { format!("{label}_{key}") };
        document.insert(key.into(), text(value.into()));
    }
    let mut add =
        |key: &str, value: i64| document.insert(format!("{label}_{key}").into(), Value::Integer(value));
    let ip = std::str::from_utf8(&parts.ip).ok().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    if let Some(ip) = ip {
        add("ipinlong", i64::from(u32::from(ip)));
    }
    add("time", time.timestamp());
    add("day", day(&time));
    add("hour", i64::from(time.hour()));
    Ok(Some(document))
}

fn day(time: &DateTime<FixedOffset>) -> i64 {
    i64::from(time.year()) * 10_000 + i64::from(time.month()) * 100 + i64::from(time.day())
}

/// Key and value of a pair of a query, decoded.
fn split(pair: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    };
    (decode(key), decode(value))
}

fn decode(written: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = written.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&blanks).collect()
}
