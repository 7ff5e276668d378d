//! Packs of legacy nodes, adopted: given keys of ours by the first node of ours that they meet, so that everything behind it can treat them
//! as any other pack.
//!
//! A legacy pack says neither which stream it is of nor which part. It is known by `(ip, hour, id, MD5 of its body)`, so each becomes a
//! stream of its own, whose bytes are its lines: `offset` 0, `span` and `raw` their length, `sum` their crc32c. `host` is the address,
//! `source` is [`LEGACY_SOURCE`]. The stream's id tells whoever meets it that it is none of a file:
//!
//! | bytes | what |
//! |---|---|
//! | 6 | `legacy` in ASCII |
//! | 10 | the first bytes of the MD5 of `IP_HOUR_ID` and the 16 bytes of the body's MD5 |

use crate::{BadPack, Codec, Limits, Name, Ours, Pack, PackIdentity, StreamId, crc32c, crc32c_append};
use flate2::{Decompress, FlushDecompress, Status};
use md5::{Digest, Md5};

/// Source name of adopted packs. Files and marks of theirs are named by the address alone, as legacy outputters name them.
pub const LEGACY_SOURCE: &str = "legacy";
/// What is remembered of an adopted pack is remembered so long, in seconds; legacy receivers do the same.
pub const LEGACY_KEEP_SECS: u64 = 24 * 3600;

/// The bits of a stream id that mark it, and what they are then.
const TAG_BITS: u32 = 48;
const TAG: u128 = u128::from_be_bytes(*b"\0\0\0\0\0\0\0\0\0\0legacy");
/// Bytes in front of the blocks of a zlib stream.
const ZLIB_HEAD_BYTES: usize = 2;
/// Empty blocks that tell a pack's body from others: 65 bits.
const MARK_BLOCKS: usize = 13;
/// What follows the first byte of a stored block without bytes: its length, and the complement.
const EMPTY_BLOCK_REST: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes inflated at a time.
const CHUNK_BYTES: usize = 64 << 10;

impl StreamId {
    /// Of a legacy pack: `name` is `IP_HOUR_ID`, `body_md5` the MD5 of its body as sent.
    pub fn of_legacy(name: &str, body_md5: [u8; 16]) -> StreamId {
        let digest = Md5::new().chain_update(name).chain_update(body_md5).finalize();
        let digest = digest.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        StreamId(TAG << (u128::BITS - TAG_BITS) | digest >> TAG_BITS)
    }

    /// Whether it is of an adopted pack.
    pub fn is_legacy(self) -> bool {
        self.0 >> (u128::BITS - TAG_BITS) == TAG
    }
}

impl Ours {
    /// Whether the pack is of a legacy node, and was adopted.
    pub fn is_legacy(&self) -> bool {
        self.identity.stream.is_legacy()
    }
}

impl Pack {
    /// Gives a legacy pack keys of ours; one that has them is left as it is. Inflates the body once, without keeping it.
    ///
    /// # Errors
    /// The body is no zlib stream, or has more bytes than the limits allow.
    pub fn adopt(&mut self, limits: &Limits) -> Result<(), BadPack> {
        if self.header.ours.is_some() {
            return Ok(());
        }
        let (raw, sum) = survey(&self.body, limits)?;
        let header = &mut self.header;
        let name = format!("{}_{}_{}", header.ip, header.hour, header.id);
        let stream = StreamId::of_legacy(&name, Md5::digest(&self.body).into());
        header.ours = Some(Ours {
            host: Name::for_key("ip", header.ip.clone())?,
            source: Name::new(LEGACY_SOURCE)?,
            identity: PackIdentity { stream, offset: 0, span: raw, sum },
            first: 0,
            raw,
            raw_sum: None,
            codec: Codec::Zlib,
            crc: crc32c(&self.body),
        });
        Ok(())
    }
}

impl PackIdentity {
    /// A zlib stream of the same lines that no other pack has: legacy receivers drop a pack whose body they have seen in another pack, so
    /// that of a log that repeats a block they would store it once. The same pack always has the same body, so that one that is sent again
    /// is still known.
    ///
    /// In front of the stream's blocks stand [`MARK_BLOCKS`] stored blocks of no bytes. Each has 5 bits that fill its first byte and are
    /// ignored (RFC 1951, 3.2.4); together they are a part of the MD5 of the identity.
    pub fn marked_zlib(&self, zlib: &[u8]) -> Vec<u8> {
        let PackIdentity { stream, offset, span, sum } = self;
        let digest = Md5::new()
            .chain_update(stream.0.to_be_bytes())
            .chain_update(offset.to_be_bytes())
            .chain_update(span.to_be_bytes())
            .chain_update(sum.to_be_bytes())
            .finalize();
        let mark = digest.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let (head, blocks) = zlib.split_at(ZLIB_HEAD_BYTES.min(zlib.len()));
        let mut marked = Vec::with_capacity(zlib.len() + MARK_BLOCKS * EMPTY_BLOCK_REST.len() + MARK_BLOCKS);
        marked.extend_from_slice(head);
        for block in 0..MARK_BLOCKS {
            // Not the last block, type "stored": three zero bits, and 5 of the mark.
            marked.push(((mark >> (5 * block)) as u8) << 3);
            marked.extend_from_slice(&EMPTY_BLOCK_REST);
        }
        marked.extend_from_slice(blocks);
        marked
    }
}

/// Length and crc32c of what a zlib stream holds.
fn survey(body: &[u8], limits: &Limits) -> Result<(u64, u32), BadPack> {
    let mut zlib = Decompress::new(true);
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut sum, mut rest) = (0, body);
    loop {
        let (read, written) = (zlib.total_in(), zlib.total_out());
        let status =
            zlib.decompress(rest, &mut chunk, FlushDecompress::None).map_err(|_| BadPack::BodyCorrupt)?;
        let made = usize::try_from(zlib.total_out() - written).unwrap_or(CHUNK_BYTES);
        let used = usize::try_from(zlib.total_in() - read).unwrap_or(rest.len());
        sum = crc32c_append(sum, chunk.get(..made).unwrap_or_default());
        rest = rest.get(used..).unwrap_or_default();
        if zlib.total_out() > limits.raw_bytes_max as u64 {
            return Err(BadPack::RawTooLarge { max: limits.raw_bytes_max });
        }
        match status {
            Status::StreamEnd if rest.is_empty() => return Ok((zlib.total_out(), sum)),
            Status::StreamEnd => return Err(BadPack::BodyTrailingBytes),
            // There was room, and nothing more came: the stream is cut short.
            _ if made == 0 && used == 0 => return Err(BadPack::BodyCorrupt),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compressor, Decompressor, Header};

    fn pack(lines: &[u8]) -> Pack {
        let header = Header {
            ip: "10.0.0.7".into(),
            hour: "2026112101".parse().unwrap(),
            id: 3,
            lines: 2,
            done: false,
            repull: false,
            ours: None,
            origin_rest: Default::default(),
            hops: Vec::new(),
        };
        Pack { header, body: Compressor::new(Codec::Zlib, 1).unwrap().compress(lines) }
    }

    #[test]
    fn an_adopted_pack_is_a_stream_of_its_own_that_says_what_it_holds() {
        let limits = Limits::default();
        for lines in [&b""[..], b"one\ntwo\n", &b"a line that fills more than a chunk\n".repeat(10_000)] {
            let mut adopted = pack(lines);
            adopted.adopt(&limits).unwrap();
            let ours = adopted.header.ours.clone().unwrap();
            assert!(ours.is_legacy());
            assert_eq!(
                (ours.raw, ours.identity.span, ours.first),
                (lines.len() as u64, lines.len() as u64, 0)
            );
            let mut out = Vec::new();
            let back = Pack::parse(adopted.encode(), &limits).unwrap();
            Decompressor::new().decompress(&back, &limits, &mut out).unwrap();
            assert_eq!((back, &out[..]), (adopted.clone(), lines));
            adopted.adopt(&limits).unwrap();
            assert_eq!(adopted.header.ours, Some(ours), "once is enough");
        }
    }

    #[test]
    fn address_hour_number_and_body_tell_packs_apart_and_nothing_else_does() {
        let stream = |change: fn(&mut Pack)| {
            let mut pack = pack(b"one\ntwo\n");
            change(&mut pack);
            pack.adopt(&Limits::default()).unwrap();
            pack.header.ours.unwrap().identity.stream
        };
        let as_it_is = stream(|_| ());
        for change in [
            (|pack| pack.header.ip = "10.0.0.8".into()) as fn(&mut Pack),
            |pack| pack.header.hour = "2026112102".parse().unwrap(),
            |pack| pack.header.id = 4,
            |pack| pack.body = Compressor::new(Codec::Zlib, 1).unwrap().compress(b"one\ntw0\n"),
        ] {
            assert_ne!(stream(change), as_it_is);
        }
        assert_eq!(stream(|pack| pack.header.repull = true), as_it_is);
        assert!(!StreamId(7).is_legacy() && !StreamId(u128::MAX).is_legacy());
        let pinned = StreamId::of_legacy("10.0.0.7_2026112101_3", [7; 16]);
        assert_eq!(pinned.to_string(), "6c6567616379f50d4a2d0364ef248885");
    }

    #[test]
    fn bodies_that_are_none_are_refused_by_name() {
        let refused = |body: &[u8], raw_bytes_max| {
            let limits = Limits { raw_bytes_max, ..Limits::default() };
            let mut pack = Pack { body: body.to_vec().into(), ..pack(b"") };
            let refused = pack.adopt(&limits).unwrap_err();
            assert_eq!(pack.header.ours, None);
            refused
        };
        let body = pack(&b"line\n".repeat(50_000)).body;
        assert_eq!(refused(&body, 249_999), BadPack::RawTooLarge { max: 249_999 });
        assert_eq!(refused(&body[..body.len() - 1], 1 << 20), BadPack::BodyCorrupt);
        assert_eq!(refused(&[&body[..], b"x"].concat(), 1 << 20), BadPack::BodyTrailingBytes);
        assert_eq!(refused(b"no zlib stream", 1 << 20), BadPack::BodyCorrupt);
        assert_eq!(refused(b"", 1 << 20), BadPack::BodyCorrupt);
    }

    #[test]
    fn equal_lines_of_two_packs_have_two_bodies_and_every_inflater_reads_them() {
        let lines = b"the same line again\n".repeat(100);
        let zlib = pack(&lines).body;
        let identity =
            |offset| PackIdentity { stream: StreamId(7), offset, span: 2_000, sum: crc32c(&lines) };
        let bodies: std::collections::BTreeSet<_> =
            (0..1_000).map(|number| identity(number * 2_000).marked_zlib(&zlib)).collect();
        assert_eq!(bodies.len(), 1_000);
        assert_eq!(identity(0).marked_zlib(&zlib), identity(0).marked_zlib(&zlib));
        for body in &bodies {
            assert_eq!(survey(body, &Limits::default()), Ok((2_000, crc32c(&lines))));
        }
        let mut adopted = Pack { body: bodies.first().cloned().unwrap().into(), ..pack(b"") };
        adopted.adopt(&Limits::default()).unwrap();
        let mut out = Vec::new();
        Decompressor::new().decompress(&adopted, &Limits::default(), &mut out).unwrap();
        assert_eq!(out, lines);
    }
}
