//! The least a relay can cost: compresses, decompresses and writes the packs of a log in one thread. `scripts/bench`
//! runs it and takes its CPU time from the outside.
//!
//! `codec_bound zlib|zstd|none LOG OUTPUT`

use logferry_pack::{
    Codec, Compressor, Decompressor, Header, Limits, Name, Ours, Pack, PackIdentity, StreamId, crc32c,
};
use std::fs::File;
use std::io::{Read, Write};

const PACK_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [codec, log, output] = &arguments[..] else {
        return Err("usage: codec_bound zlib|zstd|none LOG OUTPUT".into());
    };
    let codec: Codec = codec.parse()?;
    let (mut log, mut output) = (File::open(log)?, File::create(output)?);
    let (mut compressor, mut decompressor) = (Compressor::new(codec, 1)?, Decompressor::new());
    let (mut lines, mut raw, mut offset) = (vec![0; PACK_BYTES], Vec::new(), 0);
    loop {
        let count = log.read(&mut lines)?;
        if count == 0 {
            break;
        }
        let body = compressor.compress(&lines[..count]);
        let pack = Pack { header: header(codec, &lines[..count], offset, &body)?, body };
        decompressor.decompress(&pack, &Limits::default(), &mut raw)?;
        output.write_all(&raw)?;
        offset += count as u64;
    }
    Ok(output.sync_data()?)
}

fn header(
    codec: Codec,
    lines: &[u8],
    offset: u64,
    body: &[u8],
) -> Result<Header, Box<dyn std::error::Error>> {
    let span = lines.len() as u64;
    Ok(Header {
        ip: "127.0.0.1".to_owned(),
        hour: "2026112101".parse()?,
        id: 1,
        lines: 1,
        done: false,
        repull: false,
        ours: Some(Ours {
            host: Name::new("bench")?,
            source: Name::new("access")?,
            identity: PackIdentity { stream: StreamId(1), offset, span, sum: crc32c(lines) },
            first: 0,
            raw: span,
            raw_sum: None,
            codec,
            crc: crc32c(body),
        }),
        origin_rest: Default::default(),
        hops: Vec::new(),
    })
}
