//! What lines cost on their way from the file to the store does not depend on how many they are.

use bytes::Bytes;
use logferry_pack::{
    Codec, Compressor, Decompressor, Header, Limits, Name, Ours, Pack, PackIdentity, StreamId, crc32c,
};
use logferry_tailer::body::{BodyRules, Lead};
use logferry_tailer::config::SourceSettings;
use logferry_tailer::cutter::{CutLimits, Cutter, Cutting, Look};

const BYTES: usize = 1 << 20;

/// Cuts a pack out of a full buffer, chooses its lines, compresses them, writes the pack and reads it back.
fn way_of_a_pack(buffer: &[u8], rules: &BodyRules, compressor: &mut Compressor, raw: &mut Vec<u8>) -> u64 {
    let cutting = Cutting::of_lines(CutLimits { pack_bytes: BYTES, line_bytes: BYTES, lines: 0 });
    let mut cutter = Cutter::new(0);
    let window = cutter.window(&cutting, BYTES, false);
    let Look::Cut(piece) = cutter.look(buffer, window, BYTES, &cutting, false) else { panic!("whole lines") };
    let lines = rules.body(&buffer[..piece.span], Lead::default());
    let body: Bytes = compressor.compress(&lines.bytes);
    let span = piece.span as u64;
    let ours = Ours {
        host: Name::new("web-1").expect("name"),
        source: Name::new("app").expect("name"),
        identity: PackIdentity { stream: StreamId(1), offset: 0, span, sum: crc32c(&buffer[..piece.span]) },
        first: 0,
        raw: lines.bytes.len() as u64,
        raw_sum: lines.sum,
        codec: Codec::Zlib,
        crc: crc32c(&body),
    };
    let header = Header {
        ip: "192.0.2.1".into(),
        hour: "2026112101".parse().expect("hour"),
        id: 1,
        lines: piece.lines,
        done: false,
        repull: false,
        ours: Some(ours),
        origin_rest: serde_json::Map::new(),
        hops: Vec::new(),
    };
    let pack = Pack::parse(Pack { header, body }.encode(), &Limits::default()).expect("a good pack");
    raw.clear();
    Decompressor::new().decompress(&pack, &Limits::default(), raw).expect("a good body");
    assert_eq!(raw.len(), lines.bytes.len());
    piece.lines
}

/// Number of allocations for a MiB of lines of this length.
fn allocations(line_bytes: usize, rules: &BodyRules) -> u64 {
    let line: Vec<u8> =
        (0..line_bytes).map(|at| if at + 1 == line_bytes { b'\n' } else { b'a' + (at % 7) as u8 }).collect();
    let buffer = line.repeat(BYTES / line_bytes);
    let mut compressor = Compressor::new(Codec::Zlib, 1).expect("a codec");
    let mut raw = Vec::with_capacity(BYTES);
    let mut lines = 0;
    way_of_a_pack(&buffer, rules, &mut compressor, &mut raw); // what is kept from pack to pack is there by now
    let info =
        allocation_counter::measure(|| lines = way_of_a_pack(&buffer, rules, &mut compressor, &mut raw));
    assert_eq!(lines as usize, BYTES / line_bytes);
    info.count_total
}

#[test]
fn a_pack_of_many_lines_takes_as_many_allocations_as_one_of_few() {
    let all = SourceSettings { name: "app".into(), ..Default::default() };
    let some = SourceSettings { include: vec!["^a".into()], exclude: vec!["zzz".into()], ..all.clone() };
    for settings in [all, some] {
        let rules = BodyRules::new(&settings, BYTES).expect("good settings");
        let (few, many) = (allocations(1 << 16, &rules), allocations(1 << 5, &rules));
        println!("{few} allocations for 16 lines, {many} for 32,768");
        assert!(many <= few + 8, "{few} allocations for 16 lines, {many} for 32,768");
    }
}
