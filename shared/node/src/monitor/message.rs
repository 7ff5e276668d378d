//! Messages between nodes and the monitor: 4 bytes of length (LEB128, least significant group first, zero-padded), then a JSON
//! object with string values.
//!
//! | message | keys | answer |
//! |---|---|---|
//! | register, unregister | `req ip port hostname role`; ours also `name version instance` | yes |
//! | heartbeat (ours) | the same, and `status`: a [`NodeStatus`](super::status::NodeStatus) as JSON | yes |
//! | report (ours) | `req` = `report`, `time unix_ms type msg ip port instance name role` | yes: it is stored |
//! | hours (ours, outputters) | `hours`: a list of [`HourNews`](super::hours::HourNews) as JSON | yes: they are stored |
//! | log | a report without `req` | no |
//!
//! Each has a `token` where the monitor wants one.
//!
//! An answer is `{"err":"0","msg":"success"}`, with `err` `1` (failed) or `-1` (unknown request).

use std::collections::BTreeMap;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Bytes of the length.
const LENGTH_BYTES: usize = 4;

/// A message as it is: keys and texts.
pub type Fields = BTreeMap<String, String>;

/// What a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// `0`: done, and not forgotten.
    Done,
    /// `1`: not now; it may be asked again.
    Failed,
    /// `-1`: there is no such request.
    Unknown,
}

impl Outcome {
    /// As the answer's `err`.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Done => "0",
            Outcome::Failed => "1",
            Outcome::Unknown => "-1",
        }
    }
}

/// An answer with its text.
pub fn answer(outcome: Outcome, text: &str) -> Fields {
    fields([("err", outcome.code()), ("msg", text)])
}

/// What an answer says; anything but the known codes is a failure.
pub fn outcome(answer: &Fields) -> Outcome {
    match answer.get("err").map(String::as_str) {
        Some("0") => Outcome::Done,
        Some("-1") => Outcome::Unknown,
        _ => Outcome::Failed,
    }
}

/// Keys and texts as a message.
pub fn fields<const N: usize>(pairs: [(&str, &str); N]) -> Fields {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A message as bytes.
///
/// # Errors
/// `InvalidInput`: larger than [`MESSAGE_BYTES_MAX`].
pub fn encode(message: &Fields) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, too_large(body.len())));
    }
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + body.len());
    bytes.extend_from_slice(&length_bytes(body.len()));
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Writes a message in one piece: legacy nodes and monitors do not put pieces together.
pub async fn write(writer: &mut (impl AsyncWrite + Unpin), message: &Fields) -> io::Result<()> {
    writer.write_all(&encode(message)?).await?;
    writer.flush().await
}

/// Reads a message; `None` when the peer closed between two messages.
///
/// # Errors
/// `InvalidData`: no length, a length over the limit, or no JSON object of plain values. What the socket says.
pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Fields>> {
    let Some(length) = read_length(reader).await? else { return Ok(None) };
    read_body(reader, length).await.map(Some)
}

/// Reads how long a message is, in bytes; `None` when the peer closed between two messages.
///
/// # Errors
/// As of [`read`].
pub async fn read_length(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<usize>> {
    let mut length = [0; LENGTH_BYTES];
    if reader.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[1..]).await?;
    let length = parse_length(length).ok_or_else(|| bad("the length is no varint of 4 bytes".to_owned()))?;
    if length > MESSAGE_BYTES_MAX {
        return Err(bad(too_large(length)));
    }
    Ok(Some(length))
}

/// Reads a message of a [`length`](read_length).
///
/// # Errors
/// As of [`read`].
pub async fn read_body(reader: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Fields> {
    let mut body = Vec::new();
    // as it comes: an announced length alone takes no memory
    (&mut *reader).take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse_fields(&body)
}

/// Values that are plain but no text are taken as their text.
fn parse_fields(body: &[u8]) -> io::Result<Fields> {
    let object: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| bad(format!("no JSON object: {error}")))?;
    object.into_iter().map(|(key, value)| Ok((key, plain_text(value)?))).collect()
}

fn plain_text(value: serde_json::Value) -> io::Result<String> {
    match value {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Null => Ok(String::new()),
        serde_json::Value::Bool(value) => Ok(value.to_string()),
        serde_json::Value::Number(value) => Ok(value.to_string()),
        _ => Err(bad("a value is a list or an object".to_owned())),
    }
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn too_large(length: usize) -> String {
    format!("a message of {length} bytes: the limit is {MESSAGE_BYTES_MAX}")
}

fn length_bytes(mut length: usize) -> [u8; LENGTH_BYTES] {
    let mut bytes = [0; LENGTH_BYTES];
    for byte in &mut bytes {
        let group = (length & 0x7f) as u8;
        length >>= 7;
        *byte = if length > 0 { group | 0x80 } else { group };
        if length == 0 {
            break;
        }
    }
    bytes
}

fn parse_length(bytes: [u8; LENGTH_BYTES]) -> Option<usize> {
    let mut length = 0;
    for (at, byte) in bytes.into_iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..].iter().all(|rest| *rest == 0).then_some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_legacy_nodes_write_them() {
        assert_eq!(length_bytes(0x52), [0x52, 0, 0, 0]);
        assert_eq!(length_bytes(141), [0x8d, 0x01, 0, 0]);
        for length in [0, 1, 127, 128, 16_383, 16_384, MESSAGE_BYTES_MAX, (1 << 28) - 1] {
            assert_eq!(parse_length(length_bytes(length)), Some(length));
        }
        assert_eq!(parse_length([0xff; 4]), None);
        assert_eq!(parse_length([1, 1, 0, 0]), None);
    }

    #[tokio::test]
    async fn messages_are_read_one_after_another_however_they_are_cut() {
        let messages =
            [fields([("req", "register"), ("ip", "10.0.0.7")]), fields([("msg", "a\"<b>\u{202e}")])];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).expect("small")).collect();
        for piece in [1, 3, bytes.len()] {
            let (mut writer, mut reader) = tokio::io::duplex(piece);
            let bytes = bytes.clone();
            tokio::spawn(async move { writer.write_all(&bytes).await });
            for message in &messages {
                assert_eq!(read(&mut reader).await.expect("read").as_ref(), Some(message));
            }
            assert_eq!(read(&mut reader).await.expect("the end"), None);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_and_takes_no_memory() {
        let long = length_bytes(MESSAGE_BYTES_MAX + 1);
        for bytes in [&[0xff; 8][..], &long[..], b"\x02\0\0\0[]", b"\x01\0\0\0{", b"\x09\0\0\0{\"a\":[1]}"] {
            let error = read(&mut &bytes[..]).await.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}: {error}");
        }
        let error = read(&mut &b"\x09\0\0\0{}"[..]).await.expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn numbers_and_nothing_are_taken_as_texts() {
        let message = read(&mut &b"\x19\0\0\0{\"a\":1,\"b\":null,\"c\":true}"[..]).await;
        let message = message.expect("read").expect("a message");
        assert_eq!(message, fields([("a", "1"), ("b", ""), ("c", "true")]));
    }
}
