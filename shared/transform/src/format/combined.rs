//! Access logs of Apache and nginx in the common and the combined format.

use super::time;
use crate::line::text;
use bytes::Bytes;
use memchr::memmem;
use std::str::FromStr;
use vrl::value::{ObjectMap, Value};

/// All fields, with those that say where the line is from.
pub(super) const FIELDS: &[&str] = &[
    "remote_addr",
    "identity",
    "remote_user",
    "time",
    "method",
    "path",
    "protocol",
    "request",
    "status",
    "bytes",
    "referer",
    "user_agent",
    "extra",
    "host",
    "source",
    "raw",
];

/// `address identity user [time] "request" status bytes "referer" "agent" extra`; all after `bytes` may be absent.
pub(super) fn document(line: &Bytes) -> Result<ObjectMap, String> {
    let mut rest = Cursor { line, at: 0 };
    let mut document = ObjectMap::new();
    put(&mut document, "remote_addr", rest.word().ok_or("no address at the line's begin")?);
    put(&mut document, "identity", rest.word().ok_or("no identity after the address")?);
    // A user name may have blanks.
    put(&mut document, "remote_user", rest.until(b" [").ok_or("no [time]")?);
    let written = rest.until(b"] \"").ok_or("no ] and quoted request after the time")?;
    let time = time::common_log(&written)
        .ok_or_else(|| format!("{:?} is no time", String::from_utf8_lossy(&written)))?;
    document.insert("time".into(), Value::Timestamp(time.to_utc()));
    put_request(&mut document, rest.quoted().ok_or("no \" at the end of the request")?);
    rest.blank();
    let status = rest.word().and_then(|word| number::<u16>(&word)).ok_or("no status after the request")?;
    document.insert("status".into(), Value::Integer(i64::from(status)));
    let bytes = rest.word().ok_or("no number of bytes after the status")?;
    let bytes = if &bytes[..] == b"-" { Some(0) } else { number::<i64>(&bytes) };
    document.insert(
        "bytes".into(),
        Value::Integer(bytes.ok_or("what follows the status is no number of bytes")?),
    );
    for key in ["referer", "user_agent"] {
        if rest.take(b'"') {
            put(&mut document, key, rest.quoted().ok_or_else(|| format!("no \" at the end of the {key}"))?);
            rest.blank();
        }
    }
    put(&mut document, "extra", rest.all());
    Ok(document)
}

/// Splits `GET /path HTTP/1.1`; keeps it whole where it is something else.
pub(super) fn put_request(document: &mut ObjectMap, request: Bytes) {
    let ends = (memchr::memchr(b' ', &request), memchr::memrchr(b' ', &request));
    if let (Some(first), Some(last)) = ends
        && first < last
        && request[last + 1..].starts_with(b"HTTP/")
    {
        put(document, "method", request.slice(..first));
        put(document, "path", request.slice(first + 1..last));
        put(document, "protocol", request.slice(last + 1..));
    } else {
        put(document, "request", request);
    }
}

/// Adds a field unless it is empty or `-`.
fn put(document: &mut ObjectMap, key: &str, field: Bytes) {
    if !field.is_empty() && &field[..] != b"-" {
        document.insert(key.into(), text(field));
    }
}

pub(super) fn number<N: FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What is left of a line.
pub(super) struct Cursor<'a> {
    pub(super) line: &'a Bytes,
    pub(super) at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        &self.line[self.at..]
    }

    /// Takes what is before the next blank, and the blank; at least one byte.
    pub(super) fn word(&mut self) -> Option<Bytes> {
        let end = memchr::memchr(b' ', self.rest()).unwrap_or(self.rest().len());
        let word = self.line.slice(self.at..self.at + end);
        self.at = (self.at + end + 1).min(self.line.len());
        (!word.is_empty()).then_some(word)
    }

    /// Takes what is before `mark`, and the mark. An empty field before a mark that begins with a blank may lack the blank.
    pub(super) fn until(&mut self, mark: &[u8]) -> Option<Bytes> {
        let end = memmem::find(self.rest(), mark)?;
        let field = self.line.slice(self.at..self.at + end);
        self.at += end + mark.len();
        Some(field)
    }

    /// Takes what is before the closing quote, and the quote. A backslash takes its meaning from the quote behind it.
    pub(super) fn quoted(&mut self) -> Option<Bytes> {
        let from = self.at;
        let mut at = from;
        loop {
            at += memchr::memchr2(b'"', b'\\', self.line.get(at..)?)?;
            if self.line[at] == b'"' {
                self.at = at + 1;
                return Some(self.line.slice(from..at));
            }
            at += 2;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.rest().first() == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub(super) fn blank(&mut self) {
        self.take(b' ');
    }

    fn all(&mut self) -> Bytes {
        let all = self.line.slice(self.at..);
        self.at = self.line.len();
        all
    }
}
