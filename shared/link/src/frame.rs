//! Frames of protocol v2 (wire.md, "Session v2"). All integers little-endian.
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
/// Largest payload of any frame but PACK, in bytes: 1,024 remembered packs fit well.
pub const SMALL_PAYLOAD_MAX: usize = 256 << 10;

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

/// A frame other than PACK, whose payload the shells read by themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// HELLO.
    Hello(Hello),
    /// ACK of the pack with this sequence.
    Ack(u64, Answer),
    /// PING.
    Ping(u64),
    /// PONG.
    Pong(u64),
    /// BYE.
    Bye(String),
    /// Of a kind this version does not know and may skip.
    Skipped,
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

/// Kind and payload length of a head; refuses what is too long or unknown before anything is allocated.
pub fn parse_head(head: [u8; HEAD_BYTES], pack_bytes_max: usize) -> Result<(u8, usize), BadFrame> {
    let kind = head[0];
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let max = match kind {
        KIND_PACK => SEQUENCE_BYTES + pack_bytes_max,
        KIND_HELLO..=KIND_BYE | 0x80.. => SMALL_PAYLOAD_MAX,
        _ => return Err(BadFrame::UnknownKind(kind)),
    };
    if length > max {
        return Err(BadFrame::TooLong { kind, length: length as u64, max: max as u64 });
    }
    Ok((kind, length))
}

/// A whole frame but PACK.
pub fn encode(frame: &Frame) -> Bytes {
    let (kind, payload) = match frame {
        Frame::Hello(hello) => (KIND_HELLO, to_json(hello)),
        Frame::Ack(sequence, answer) => (KIND_ACK, encode_ack(*sequence, answer)),
        Frame::Ping(number) => (KIND_PING, number.to_le_bytes().to_vec()),
        Frame::Pong(number) => (KIND_PONG, number.to_le_bytes().to_vec()),
        Frame::Bye(reason) => (KIND_BYE, to_json(&ByeBody { reason: reason.clone() })),
        Frame::Skipped => (0x80, Vec::new()),
    };
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    bytes.put_slice(&head(kind, payload.len()));
    bytes.put_slice(&payload);
    bytes.freeze()
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs of strings and numbers always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
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
        Answer::Rejected { reason } => (3, to_json(&RejectedBody { reason: reason.clone() })),
        Answer::Conflict(remembered) => (4, to_json(remembered)),
    };
    let mut payload = Vec::with_capacity(9 + body.len());
    payload.extend_from_slice(&sequence.to_le_bytes());
    payload.push(status);
    payload.extend_from_slice(&body);
    payload
}

/// The frame with this payload. PACK is not decoded here.
pub fn decode(kind: u8, mut payload: &[u8]) -> Result<Frame, BadFrame> {
    let bad = |problem: &str| BadFrame::BadPayload { kind, problem: problem.to_owned() };
    let frame = match kind {
        KIND_HELLO => Frame::Hello(from_json(kind, payload)?),
        KIND_ACK if payload.len() > SEQUENCE_BYTES => {
            let sequence = payload.get_u64_le();
            let status = payload.get_u8();
            Frame::Ack(sequence, decode_answer(status, payload)?)
        }
        KIND_PING if payload.len() == 8 => Frame::Ping(payload.get_u64_le()),
        KIND_PONG if payload.len() == 8 => Frame::Pong(payload.get_u64_le()),
        KIND_BYE => Frame::Bye(from_json::<ByeBody>(kind, payload)?.reason),
        KIND_ACK | KIND_PING | KIND_PONG => return Err(bad("wrong length")),
        0x80.. => Frame::Skipped,
        _ => return Err(BadFrame::UnknownKind(kind)),
    };
    Ok(frame)
}

fn decode_answer(status: u8, body: &[u8]) -> Result<Answer, BadFrame> {
    Ok(match status {
        0 => Answer::Ok,
        1 => Answer::Duplicate,
        2 => Answer::Busy { retry_ms: from_json::<BusyBody>(KIND_ACK, body)?.retry_ms },
        3 => Answer::Rejected { reason: from_json::<RejectedBody>(KIND_ACK, body)?.reason },
        4 => Answer::Conflict(from_json::<Remembered>(KIND_ACK, body)?),
        _ => return Err(BadFrame::BadPayload { kind: KIND_ACK, problem: format!("status {status}") }),
    })
}

fn from_json<T: serde::de::DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(payload).map_err(|error| BadFrame::BadPayload { kind, problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_footprint::SeenPack;
    use proptest::prelude::*;

    fn round_trip(frame: Frame) {
        let bytes = encode(&frame);
        let (kind, length) = parse_head(bytes[..HEAD_BYTES].try_into().unwrap(), 0).unwrap();
        assert_eq!(bytes.len(), HEAD_BYTES + length);
        assert_eq!(decode(kind, &bytes[HEAD_BYTES..]), Ok(frame));
    }

    #[test]
    fn every_frame_comes_back() {
        let remembered = Remembered { frontier: 9, packs: vec![SeenPack(0, 9, 77)] };
        round_trip(Frame::Hello(Hello { node: "web-1".to_owned(), window: 5, ..Hello::default() }));
        round_trip(Frame::Ack(1, Answer::Ok));
        round_trip(Frame::Ack(2, Answer::Duplicate));
        round_trip(Frame::Ack(3, Answer::Busy { retry_ms: 1_000 }));
        round_trip(Frame::Ack(4, Answer::Rejected { reason: "bad_name".to_owned() }));
        round_trip(Frame::Ack(u64::MAX, Answer::Conflict(remembered)));
        round_trip(Frame::Ping(6));
        round_trip(Frame::Pong(6));
        round_trip(Frame::Bye("stop".to_owned()));
    }

    #[test]
    fn bytes_are_pinned() {
        assert_eq!(&encode(&Frame::Ack(258, Answer::Ok))[..], [3, 9, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&encode(&Frame::Ping(1))[..], [4, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let busy = encode(&Frame::Ack(1, Answer::Busy { retry_ms: 7 }));
        assert_eq!(&busy[HEAD_BYTES + SEQUENCE_BYTES..], b"\x02{\"retry_ms\":7}");
        let conflict = encode(&Frame::Ack(
            1,
            Answer::Conflict(Remembered { frontier: 5, packs: vec![SeenPack(1, 4, 9)] }),
        ));
        assert_eq!(&conflict[HEAD_BYTES + SEQUENCE_BYTES..], b"\x04{\"frontier\":5,\"packs\":[[1,4,9]]}");
    }

    #[test]
    fn long_and_unknown_frames_are_refused_before_they_are_read() {
        assert_eq!(parse_head(head(KIND_PACK, 1_009), 1_000).unwrap_err().reason(), "frame_too_long");
        assert_eq!(parse_head(head(KIND_HELLO, usize::MAX), 1_000).unwrap_err().reason(), "frame_too_long");
        assert_eq!(parse_head(head(0x70, 0), 1_000).unwrap_err().reason(), "unknown_frame");
        assert_eq!(decode(0x81, b"from the future"), Ok(Frame::Skipped));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn foreign_bytes_never_panic(kind in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(kind, &payload);
        }
    }
}
