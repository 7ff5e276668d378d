//! Packs as a legacy receiver takes them: it knows zlib alone, gives no answer to a pack without a body, and drops a pack whose body it
//! has seen.

use bytes::Bytes;
use logferry_pack::{
    BadPack, Codec, Compressor, Decoded, Decompressor, Limits, Ours, Pack, crc32c, decode_header,
};

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
    // What a legacy node has made it is to know again.
    let is_theirs = parsed.ours.as_ref().is_none_or(Ours::is_legacy);
    if is_theirs && !body.is_empty() {
        return Ok((header.clone(), body.clone()));
    }
    let mut pack = Pack { header: parsed, body: body.clone() };
    if pack.header.codec() != Codec::Zlib || body.is_empty() {
        pack.body = to_zlib(&pack, limits)?;
    }
    if let Some(ours) = &mut pack.header.ours {
        // Packs without lines are marked as not to be dropped.
        if ours.raw > 0 {
            pack.body = ours.identity.marked_zlib(&pack.body).into();
        }
        (ours.codec, ours.crc) = (Codec::Zlib, crc32c(&pack.body));
    }
    Ok((pack.encode_header(), pack.body))
}

fn to_zlib(pack: &Pack, limits: &Limits) -> Result<Bytes, BadPack> {
    let mut raw = Vec::new();
    if !pack.body.is_empty() {
        Decompressor::new().decompress(pack, limits, &mut raw)?;
    }
    Ok(Compressor::new(Codec::Zlib, LEVEL)?.compress(&raw))
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
            }
        }
    }

    #[test]
    fn equal_lines_at_two_places_have_two_bodies_and_a_pack_of_a_legacy_node_keeps_its_own() {
        let limits = Limits::default();
        let body_of =
            |pack: &Pack| for_legacy(&pack.encode_header(), &pack.body, &limits).expect("readable").1;
        let first = pack(Codec::Zlib, b"one\ntwo\n");
        let mut second = first.clone();
        second.header.ours.as_mut().expect("of ours").identity.offset = 8;
        assert_ne!(body_of(&first), body_of(&second));
        assert_eq!(body_of(&first), body_of(&first));
        let mut theirs = first.clone();
        theirs.header.ours = None;
        theirs.adopt(&limits).expect("a good body");
        assert_eq!(body_of(&theirs), theirs.body);
    }
}
