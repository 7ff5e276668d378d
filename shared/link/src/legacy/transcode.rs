//! Packs as a legacy receiver reads them: it knows zlib alone, and gives no answer to a pack without a body.

use bytes::Bytes;
use logferry_pack::{BadPack, Codec, Compressor, Decoded, Decompressor, Limits, Pack, crc32c, decode_header};

/// Level of bodies that are compressed anew.
const LEVEL: i32 = 1;

/// Header and body to be sent; the same if they will do.
///
/// # Errors
/// What is wrong with the pack: nobody could read it.
pub(super) fn for_legacy(header: &Bytes, body: &Bytes, limits: &Limits) -> Result<(Bytes, Bytes), BadPack> {
    let Decoded::Header { header: parsed, .. } = decode_header(header, limits)? else {
        return Ok((header.clone(), body.clone()));
    };
    if parsed.codec() == Codec::Zlib && !body.is_empty() {
        return Ok((header.clone(), body.clone()));
    }
    let mut pack = Pack { header: parsed, body: body.clone() };
    let mut raw = Vec::new();
    if !body.is_empty() {
        Decompressor::new().decompress(&pack, limits, &mut raw)?;
    }
    pack.body = Compressor::new(Codec::Zlib, LEVEL)?.compress(&raw);
    if let Some(ours) = &mut pack.header.ours {
        (ours.codec, ours.crc) = (Codec::Zlib, crc32c(&pack.body));
    }
    Ok((pack.encode_header(), pack.body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_pack::{Header, Name, Ours, PackIdentity, StreamId};

    fn pack(codec: Codec, lines: &[u8]) -> Pack {
        let body = Compressor::new(codec, 1).expect("a codec").compress(lines);
        let identity =
            PackIdentity { stream: StreamId(7), offset: 0, span: lines.len() as u64, sum: crc32c(lines) };
        let ours = Ours {
            host: Name::new("web-1").expect("a name"),
            source: Name::new("access").expect("a name"),
            identity,
            first: 0,
            raw: lines.len() as u64,
            raw_sum: None,
            codec,
            crc: crc32c(&body),
        };
        let header = Header {
            ip: "10.0.0.7".into(),
            hour: "2026112101".parse().expect("an hour"),
            id: 1,
            lines: 2,
            done: false,
            repull: false,
            ours: Some(ours),
            origin_rest: Default::default(),
            hops: Vec::new(),
        };
        Pack { header, body }
    }

    #[test]
    fn every_codec_arrives_as_zlib_with_the_same_lines_and_identity() {
        let limits = Limits::default();
        for codec in [Codec::Zlib, Codec::Zstd, Codec::None] {
            for lines in [&b"one\ntwo\n"[..], b""] {
                let before = pack(codec, lines);
                let (header, body) =
                    for_legacy(&before.encode_header(), &before.body, &limits).expect("readable");
                assert!(!body.is_empty(), "{codec}");
                let bytes = Bytes::from([&header[..], &body[..]].concat());
                let after = Pack::parse(bytes, &limits).expect("a good pack");
                assert_eq!(after.header.codec(), Codec::Zlib);
                let (ours, theirs) = (before.header.ours.as_ref(), after.header.ours.as_ref());
                assert_eq!(ours.map(|ours| ours.identity), theirs.map(|ours| ours.identity));
                let mut raw = Vec::new();
                Decompressor::new().decompress(&after, &limits, &mut raw).expect("a good body");
                assert_eq!(raw, lines);
                assert_eq!(codec == Codec::Zlib, after.body == before.body, "zlib bodies are not touched");
            }
        }
    }
}
