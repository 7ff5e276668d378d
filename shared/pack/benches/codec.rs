//! Speed and ratio of the codecs in packs of 1 MiB, one thread: `cargo bench -p logferry-pack`.
//!
//! `LOGFERRY_BENCH_FILE=FILE` takes a real log; without it, lines like a web server's are made up, which compress a
//! little better than real ones. The file is repeated to 64 MiB. `flate2 (zlib-rs)` stands beside the codecs in use to
//! show what the choice of libdeflate is worth. Times are by the wall clock, so the machine should have nothing else to do.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use logferry_pack::*;
use std::hint::black_box;
use std::io::Write;

const PACK_BYTES: usize = 1 << 20;
const CORPUS_BYTES: usize = 64 << 20;
const CODECS: [(Codec, i32); 5] =
    [(Codec::Zlib, 1), (Codec::Zlib, 3), (Codec::Zstd, 1), (Codec::Zstd, 3), (Codec::None, 0)];

fn corpus() -> Vec<u8> {
    let lines = match std::env::var("LOGFERRY_BENCH_FILE") {
        Ok(path) => std::fs::read(path).unwrap(),
        Err(_) => made_up_lines(),
    };
    assert!(!lines.is_empty());
    lines.iter().copied().cycle().take(CORPUS_BYTES).collect()
}

fn made_up_lines() -> Vec<u8> {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(1);
    let mut lines = Vec::new();
    for second in 0..20_000 {
        let address = [random.random_range(1..255u8), random.random(), random.random(), random.random()];
        let page = random.random_range(0..400u32).pow(2) / 400;
        let length: u32 = random.random_range(200..90_000);
        let agent = random.random_range(80..130u32);
        let (minute, second) = (second / 60 % 60, second % 60);
        writeln!(
            lines,
            "{}.{}.{}.{} - - [21/Nov/2026:01:{minute:02}:{second:02} +0000] \"GET /blog/entry-{page}.html HTTP/1.1\" 200 {length} \
             \"https://www.example.org/search?q={page}\" \"Mozilla/5.0 (X11; Linux x86_64) Chrome/{agent}.0 Safari/537.36\"",
            address[0], address[1], address[2], address[3],
        )
        .unwrap();
    }
    lines
}

fn pack(raw: &[u8], codec: Codec, body: Bytes) -> Pack {
    let span = raw.len() as u64;
    let ours = Ours {
        host: Name::new("bench").unwrap(),
        source: Name::new("access").unwrap(),
        identity: PackIdentity { stream: StreamId(1), offset: 0, span, sum: crc32c(raw) },
        first: 0,
        raw: span,
        raw_sum: None,
        codec,
        crc: crc32c(&body),
    };
    let header = Header {
        ip: "127.0.0.1".into(),
        hour: "2026112101".parse().unwrap(),
        id: 1,
        lines: 1,
        done: false,
        repull: false,
        ours: Some(ours),
        origin_rest: Default::default(),
        hops: Vec::new(),
    };
    Pack { header, body }
}

fn codecs(criterion: &mut Criterion) {
    let corpus = corpus();
    let raws: Vec<&[u8]> = corpus.chunks(PACK_BYTES).collect();
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::BytesDecimal(corpus.len() as u64)).sample_size(10);
    for (codec, level) in CODECS {
        let name = format!("{codec} {level}");
        let mut compressor = Compressor::new(codec, level).unwrap();
        let packs: Vec<Pack> = raws.iter().map(|raw| pack(raw, codec, compressor.compress(raw))).collect();
        let body_bytes: usize = packs.iter().map(|pack| pack.body.len()).sum();
        println!("{name}: ratio {:.2}", corpus.len() as f64 / body_bytes as f64);
        group.bench_function(BenchmarkId::new("compress", &name), |bencher| {
            bencher.iter(|| raws.iter().for_each(|raw| drop(black_box(compressor.compress(raw)))));
        });
        let mut decompressor = Decompressor::new();
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("decompress and check", &name), |bencher| {
            bencher.iter(|| {
                packs.iter().for_each(|pack| decompressor.decompress(pack, &limits, &mut out).unwrap())
            });
        });
    }
    group.finish();
}

fn alternative(criterion: &mut Criterion) {
    let corpus = corpus();
    let raws: Vec<&[u8]> = corpus.chunks(PACK_BYTES).collect();
    let mut room = vec![0; 2 * PACK_BYTES];
    let mut compress = |raw: &[u8], zlib: &mut Compress| {
        zlib.reset();
        zlib.compress(raw, &mut room, FlushCompress::Finish).unwrap();
        Bytes::copy_from_slice(&room[..zlib.total_out() as usize])
    };
    let mut zlib = Compress::new(Compression::new(1), true);
    let bodies: Vec<Bytes> = raws.iter().map(|raw| compress(raw, &mut zlib)).collect();
    let body_bytes: usize = bodies.iter().map(Bytes::len).sum();
    println!("flate2 (zlib-rs) 1: ratio {:.2}", corpus.len() as f64 / body_bytes as f64);
    let mut group = criterion.benchmark_group("flate2 (zlib-rs)");
    group.throughput(Throughput::BytesDecimal(corpus.len() as u64)).sample_size(10);
    group.bench_function("compress/1", |bencher| {
        bencher.iter(|| raws.iter().for_each(|raw| drop(black_box(compress(raw, &mut zlib)))));
    });
    let mut inflate = Decompress::new(true);
    let mut out = vec![0; PACK_BYTES];
    group.bench_function("decompress/1", |bencher| {
        bencher.iter(|| {
            for body in &bodies {
                inflate.reset(true);
                inflate.decompress(body, &mut out, FlushDecompress::Finish).unwrap();
            }
        });
    });
    group.finish();
}

/// What a node pays for a header and for a checksum.
fn headers(criterion: &mut Criterion) {
    let pack = pack(b"one\n", Codec::None, Bytes::from_static(b"one\n"));
    let bytes = pack.encode();
    let limits = Limits::default();
    criterion.bench_function("header/parse", |bencher| {
        bencher.iter(|| Pack::parse(bytes.clone(), &limits).unwrap())
    });
    criterion.bench_function("header/encode", |bencher| bencher.iter(|| pack.encode_header()));
    let block = vec![0x5a; PACK_BYTES];
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::BytesDecimal(PACK_BYTES as u64));
    group.bench_function("crc32c", |bencher| bencher.iter(|| crc32c(black_box(&block))));
    group.finish();
}

criterion_group!(benches, codecs, alternative, headers);
criterion_main!(benches);
