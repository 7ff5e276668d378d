//! Frames of protocol v2 (wire.md, "Session v2"): kinds, limits, and the payloads of all of them. All integers little-endian.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | kind | 1 | 1 HELLO, 2 PACK, 3 ACK, 4 PING, 5 PONG, 6 BYE; others with the high bit set are skipped |
//! | length | 4 | of the payload |
//! | payload | length | HELLO and BYE: JSON; PACK: sequence u64, pack; ACK: sequence u64, status u8, JSON or nothing; PING and PONG: u64 |

use crate::answer::Answer;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use logferry_footprint::Remembered;

/// First bytes of a client: the first four are no complete varint, so no header length of protocol v1.
pub const PREFACE: [u8; 8] = [0xff, 0xff, 0xff, 0xff, b'L', b'F', b'2', b'\n'];
/// Kind and length.
pub const HEAD_BYTES: usize = 5;
/// Sequence before the pack in a PACK frame.
pub const SEQUENCE_BYTES: usize = 8;
/// Largest HELLO payload, in bytes.
pub const HELLO_BYTES_MAX: usize = 8 << 10;
/// Largest ACK payload, in bytes: a conflict with 1,024 remembered packs takes at most 57 KiB.
pub const ACK_BYTES_MAX: usize = 64 << 10;
/// Largest BYE payload, in bytes.
pub const BYE_BYTES_MAX: usize = 4 << 10;
/// Longest reason in an answer or a BYE, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
const NUMBER_BYTES: usize = 8;

/// HELLO.
pub const KIND_HELLO: u8 = 1;
/// PACK.
pub const KIND_PACK: u8 = 2;
/// ACK.
pub const KIND_ACK: u8 = 3;
/// PING.
pub const KIND_PING: u8 = 4;
/// PONG.
pub const KIND_PONG: u8 = 5;
/// BYE.
pub const KIND_BYE: u8 = 6;

/// What both sides say of themselves first.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// `tailer`, `collector` or `outputter`.
    pub role: String,
    /// Node name.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Codecs it reads.
    pub codecs: Vec<String>,
    /// Largest header it takes, in bytes.
    pub max_header: u64,
    /// Largest pack it takes, in bytes.
    pub max_pack: u64,
    /// Bytes that may be in flight to it.
    pub window: u64,
    /// Shared token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Server: the codec it prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
}

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// HELLO.
    Hello(Hello),
    /// PACK: the sequence and the bytes of the pack.
    Pack(u64, Bytes),
    /// ACK of the pack with this sequence.
    Ack(u64, Answer),
    /// PING.
    Ping(u64),
    /// PONG.
    Pong(u64),
    /// BYE with its reason.
    Bye(String),
}

impl Frame {
    /// The kind's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Hello(_) => "HELLO",
            Frame::Pack(..) => "PACK",
            Frame::Ack(..) => "ACK",
            Frame::Ping(_) => "PING",
            Frame::Pong(_) => "PONG",
            Frame::Bye(_) => "BYE",
        }
    }
}

/// Why a frame is no good: the connection is beyond repair.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFrame {
    /// Kind without the high bit that is not known.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Too long for its kind.
    #[error("frame of kind {kind} with {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Kind.
        kind: u8,
        /// Length announced, in bytes.
        length: u64,
        /// Limit.
        max: u64,
    },
    /// The payload is not what its kind asks for.
    #[error("frame of kind {kind}: {problem}")]
    BadPayload {
        /// Kind.
        kind: u8,
        /// What is wrong.
        problem: String,
    },
}

impl BadFrame {
    /// Label for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            BadFrame::UnknownKind(_) => "unknown_frame",
            BadFrame::TooLong { .. } => "frame_too_long",
            BadFrame::BadPayload { .. } => "bad_frame",
        }
    }
}

/// The head of a frame.
pub fn head(kind: u8, length: usize) -> [u8; HEAD_BYTES] {
    let length = (length as u32).to_le_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}

/// Head and sequence of a PACK frame; the `pack_bytes` bytes of the pack follow.
pub fn pack_front(sequence: u64, pack_bytes: usize) -> [u8; HEAD_BYTES + SEQUENCE_BYTES] {
    let mut front = [0; HEAD_BYTES + SEQUENCE_BYTES];
    front[..HEAD_BYTES].copy_from_slice(&head(KIND_PACK, SEQUENCE_BYTES + pack_bytes));
    front[HEAD_BYTES..].copy_from_slice(&sequence.to_le_bytes());
    front
}

/// Kind and payload length of a head; refuses what is too long or unknown before anything is allocated.
pub fn parse_head(head: [u8; HEAD_BYTES], pack_bytes_max: usize) -> Result<(u8, usize), BadFrame> {
    let kind = head[0];
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let max = match kind {
        KIND_HELLO => HELLO_BYTES_MAX,
        KIND_ACK => ACK_BYTES_MAX,
        KIND_PING | KIND_PONG => NUMBER_BYTES,
        KIND_BYE => BYE_BYTES_MAX,
        // What is skipped is never allocated, but holds the connection for as long as it takes to arrive.
        KIND_PACK | 0x80.. => SEQUENCE_BYTES + pack_bytes_max,
        _ => return Err(BadFrame::UnknownKind(kind)),
    };
    if length > max {
        return Err(BadFrame::TooLong { kind, length: length as u64, max: max as u64 });
    }
    if kind == KIND_PACK && length < SEQUENCE_BYTES {
        return Err(bad(kind, "no room for the sequence"));
    }
    Ok((kind, length))
}

/// A whole frame. PACK frames are written by [`pack_front`] where copying the body matters.
pub fn encode(frame: &Frame) -> Bytes {
    let (kind, payload) = match frame {
        Frame::Hello(hello) => (KIND_HELLO, to_json(hello)),
        Frame::Pack(sequence, pack) => {
            return [&pack_front(*sequence, pack.len())[..], pack].concat().into();
        }
        Frame::Ack(sequence, answer) => (KIND_ACK, encode_ack(*sequence, answer)),
        Frame::Ping(number) => (KIND_PING, number.to_le_bytes().to_vec()),
        Frame::Pong(number) => (KIND_PONG, number.to_le_bytes().to_vec()),
        Frame::Bye(reason) => (KIND_BYE, to_json(&ByeBody { reason: short(reason) })),
    };
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    bytes.put_slice(&head(kind, payload.len()));
    bytes.put_slice(&payload);
    bytes.freeze()
}

fn bad(kind: u8, problem: impl Into<String>) -> BadFrame {
    BadFrame::BadPayload { kind, problem: problem.into() }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

fn short(reason: &str) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason[..end.unwrap_or(0)].to_owned()
}

#[derive(serde::Serialize, serde::Deserialize)]
struct ByeBody {
    reason: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct BusyBody {
    retry_ms: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct RejectedBody {
    reason: String,
}

fn encode_ack(sequence: u64, answer: &Answer) -> Vec<u8> {
    let (status, body) = match answer {
        Answer::Ok => (0, Vec::new()),
        Answer::Duplicate => (1, Vec::new()),
        Answer::Busy { retry_ms } => (2, to_json(&BusyBody { retry_ms: *retry_ms })),
        Answer::Rejected { reason } => (3, to_json(&RejectedBody { reason: short(reason) })),
        Answer::Conflict(remembered) => (4, encode_conflict(remembered)),
    };
    let mut payload = Vec::with_capacity(SEQUENCE_BYTES + 1 + body.len());
    payload.extend_from_slice(&sequence.to_le_bytes());
    payload.push(status);
    payload.extend_from_slice(&body);
    payload
}

/// The newest packs win where not all fit.
fn encode_conflict(remembered: &Remembered) -> Vec<u8> {
    let mut body = to_json(remembered);
    let mut kept = remembered.packs.len();
    while body.len() > ACK_BYTES_MAX - SEQUENCE_BYTES - 1 {
        kept /= 2;
        let packs = remembered.packs[remembered.packs.len() - kept..].to_vec();
        body = to_json(&Remembered { frontier: remembered.frontier, packs });
    }
    body
}

/// The frame with this payload, of a kind that [`parse_head`] let pass and that is neither PACK nor to be skipped.
pub fn decode(kind: u8, mut payload: &[u8]) -> Result<Frame, BadFrame> {
    Ok(match kind {
        KIND_HELLO => Frame::Hello(from_json(kind, payload)?),
        KIND_ACK if payload.len() > SEQUENCE_BYTES => {
            let sequence = payload.get_u64_le();
            let status = payload.get_u8();
            Frame::Ack(sequence, decode_answer(status, payload)?)
        }
        KIND_PING if payload.len() == NUMBER_BYTES => Frame::Ping(payload.get_u64_le()),
        KIND_PONG if payload.len() == NUMBER_BYTES => Frame::Pong(payload.get_u64_le()),
        KIND_BYE => Frame::Bye(from_json::<ByeBody>(kind, payload)?.reason),
        KIND_ACK | KIND_PING | KIND_PONG => return Err(bad(kind, "wrong length")),
        _ => return Err(BadFrame::UnknownKind(kind)),
    })
}

fn decode_answer(status: u8, body: &[u8]) -> Result<Answer, BadFrame> {
    Ok(match status {
        0 => Answer::Ok,
        1 => Answer::Duplicate,
        2 => Answer::Busy { retry_ms: from_json::<BusyBody>(KIND_ACK, body)?.retry_ms },
        3 => Answer::Rejected { reason: from_json::<RejectedBody>(KIND_ACK, body)?.reason },
        4 => Answer::Conflict(from_json::<Remembered>(KIND_ACK, body)?),
        _ => return Err(bad(KIND_ACK, format!("status {status}"))),
    })
}

fn from_json<T: serde::de::DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(payload).map_err(|error| bad(kind, error.to_string()))
}

/// Whether the first bytes of a connection are those of protocol v2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sniffed {
    /// They are so far, but the preface is not whole.
    More,
    /// Protocol v2; frames follow after [`PREFACE`].
    V2,
    /// Something else.
    Foreign,
}

/// Tells protocols apart by the first bytes of a connection. The place of protocol v1, whose first bytes are a header length.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let seen = bytes.len().min(PREFACE.len());
    match bytes[..seen] == PREFACE[..seen] {
        false => Sniffed::Foreign,
        true if seen < PREFACE.len() => Sniffed::More,
        true => Sniffed::V2,
    }
}

#[cfg(test)]
mod tests;
