//! What the promise tests share: streams of random lines, cut into packs, and what the output must look like.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part; test code

pub mod bad_disk;
pub mod hooked_disk;
pub mod outputter;
pub mod running;

use bytes::Bytes;
use logferry_durable::Disk;
use logferry_durable::faulty::Random;
use logferry_outputter::file::headers::{self, Line};
use logferry_outputter::file::order::Parcel;
use logferry_outputter::file::replace::{is_aside, staged_path};
use logferry_outputter::file::store::Folders;
use logferry_outputter::file::template::{Fields, Template};
use logferry_pack::{Codec, Compressor, Header, Name, Ours, Pack, PackIdentity, StreamId, crc32c};
use std::collections::BTreeMap;
use std::path::Path;

pub const TEMPLATE: &str = "{source}/{host}_{hour}";

/// What somebody else wrote into a log file.
pub const FOREIGN: &[u8] = b"somebody else's line\n";

/// What the bodies of a stream's packs are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bodies {
    /// The bytes of their ranges.
    Verbatim,
    /// Of every third pack something else, of which the header has the sum.
    Proved,
    /// The same, and of some of them the header does not have the sum.
    Unproved,
}

/// A stream and the packs it is cut into.
pub struct Stream {
    pub id: StreamId,
    pub bytes: Vec<u8>,
    pub packs: Vec<Pack>,
}

/// A stream of `count` packs of random lines. Streams of an even and the next odd number share their files.
pub fn stream(number: u128, count: usize, bodies: Bodies, random: &mut Random) -> Stream {
    let mut bytes = Vec::new();
    let mut packs = Vec::new();
    for index in 0..count {
        let offset = bytes.len();
        for line in 0..=random.below(4) {
            let len = if random.one_in(6) { random.below(3_000) } else { random.below(40) };
            bytes.extend_from_slice(format!("{number} {index} {line} ").as_bytes());
            bytes.extend((0..len).map(|_| b'a' + (random.below(26)) as u8));
            bytes.push(b'\n');
        }
        let codec = if random.one_in(2) { Codec::None } else { Codec::Zlib };
        let host = format!("host-{}", number / 2);
        let hour = 2026112100 + (index / 5) as u32 % 24;
        let mut pack = pack(StreamId(number), &host, hour, offset as u64, &bytes[offset..], codec);
        match bodies {
            Bodies::Unproved if random.one_in(6) => filter(&mut pack, &bytes[offset..]),
            Bodies::Unproved | Bodies::Proved if random.one_in(3) => refine(&mut pack, &bytes[offset..]),
            _ => {}
        }
        packs.push(pack);
    }
    Stream { id: StreamId(number), bytes, packs }
}

/// Leaves all but the first line out of a pack, without a sum of it. It stands for the same stream bytes.
fn filter(pack: &mut Pack, raw: &[u8]) {
    let first_line = raw.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    pack.body = Bytes::copy_from_slice(first_line);
    let ours = pack.header.ours.as_mut().unwrap();
    (ours.raw, ours.codec, ours.crc) = (first_line.len() as u64, Codec::None, crc32c(first_line));
}

/// Puts another text into a pack, shorter, as long, or longer than its range, with its sum.
fn refine(pack: &mut Pack, raw: &[u8]) {
    let wide = |byte: &u8| if byte.is_ascii_alphabetic() { vec![0xc3, *byte ^ 0xc0] } else { vec![*byte] };
    let text: Vec<u8> = match raw.len() % 3 {
        0 => raw.iter().filter(|byte| !byte.is_ascii_digit()).copied().collect(),
        1 => raw.to_ascii_uppercase(),
        _ => raw.iter().flat_map(wide).collect(),
    };
    let ours = pack.header.ours.as_mut().unwrap();
    pack.body = Compressor::new(ours.codec, 1).unwrap().compress(&text);
    (ours.raw, ours.raw_sum, ours.crc) = (text.len() as u64, Some(crc32c(&text)), crc32c(&pack.body));
}

pub fn pack(stream: StreamId, host: &str, hour: u32, offset: u64, raw: &[u8], codec: Codec) -> Pack {
    let body = Compressor::new(codec, 1).unwrap().compress(raw);
    let span = raw.len() as u64;
    let header = Header {
        ip: "10.0.0.7".into(),
        hour: hour.try_into().unwrap(),
        id: offset + 1,
        lines: raw.iter().filter(|byte| **byte == b'\n').count() as u64,
        done: false,
        repull: false,
        ours: Some(Ours {
            host: Name::new(host).unwrap(),
            source: Name::new("access").unwrap(),
            identity: PackIdentity { stream, offset, span, sum: crc32c(raw) },
            first: 0,
            raw: span,
            raw_sum: None,
            codec,
            crc: crc32c(&body),
        }),
        origin_rest: Default::default(),
        hops: Vec::new(),
    };
    Pack { header, body }
}

pub fn identity(pack: &Pack) -> PackIdentity {
    pack.header.ours.as_ref().unwrap().identity
}

pub fn parcel(pack: &Pack) -> Parcel {
    let ours = pack.header.ours.as_ref().unwrap();
    let fields = Fields {
        source: Some(ours.source.as_str()),
        host: Some(ours.host.as_str()),
        ip: &pack.header.ip,
        hour: pack.header.hour.into(),
        stream: Some(ours.identity.stream),
    };
    let path = Template::parse(TEMPLATE).unwrap().expand(&fields).unwrap();
    let (path, replaces) = match pack.header.place() {
        Ok(Some(_)) => (staged_path(&path, ours.identity.stream), Some(path)),
        _ => (path, None),
    };
    Parcel {
        identity: ours.identity,
        first: ours.first,
        path,
        pack: pack.clone(),
        trimmed_to: Vec::new(),
        replaces,
    }
}

/// The packs found in the output, in the order in which they stand in their files: `(file, identity)`. Panics when header
/// files and log files do not agree byte for byte.
pub fn read_output(disk: &dyn Disk, folders: &Folders) -> Vec<(String, PackIdentity)> {
    let mut packs = Vec::new();
    for path in logferry_outputter::file::walk::files_below(disk, &folders.headers, "").unwrap().files {
        if is_aside(&path) {
            continue;
        }
        let headers = disk.read(&folders.headers.join(&path)).unwrap();
        let data = disk.read(&folders.data.join(&path)).unwrap_or_default();
        // The mark that tells of them is due, perhaps begun.
        if headers.iter().all(|byte| *byte == b'\n') && data == FOREIGN {
            continue;
        }
        let mut at = 0;
        for line in headers.split(|byte| *byte == b'\n') {
            match headers::parse_line(line) {
                Some(Line::Empty | Line::Replaced(_)) => {}
                Some(Line::DataAt(data_at)) => at = data_at as usize,
                Some(other @ (Line::Finished(_) | Line::Stored(_))) => panic!("{path}: {other:?}"),
                Some(Line::Pack(header)) => {
                    let ours = header.ours.unwrap();
                    let body = data.get(at..at + ours.raw as usize).expect("the log file has the whole body");
                    let expected = ours.body_sum().unwrap_or(ours.crc); // without one the codec is none
                    assert_eq!(crc32c(body), expected, "{path} at {at}");
                    at += body.len();
                    packs.push((path.clone(), ours.identity));
                }
                None => panic!("{path}: a line that is none: {:?}", String::from_utf8_lossy(line)),
            }
        }
        assert_eq!(at, data.len(), "{path}: bytes behind the last pack");
    }
    packs
}

/// Panics unless the output is exactly the streams: each pack once, in stream order within each file, nothing else.
pub fn assert_exactly(disk: &dyn Disk, folders: &Folders, streams: &[Stream], in_order: bool) {
    let mut found: BTreeMap<u128, Vec<PackIdentity>> = BTreeMap::new();
    let mut last_in_file: BTreeMap<(String, u128), u64> = BTreeMap::new();
    for (path, identity) in read_output(disk, folders) {
        let last = last_in_file.insert((path.clone(), identity.stream.0), identity.offset);
        assert!(
            !in_order || last < Some(identity.offset),
            "{path}: {identity:?} stands behind offset {last:?}"
        );
        found.entry(identity.stream.0).or_default().push(identity);
    }
    for stream in streams {
        let mut found = found.remove(&stream.id.0).unwrap_or_default();
        found.sort_by_key(|identity| identity.offset);
        let expected: Vec<_> = stream.packs.iter().map(identity).collect();
        assert_eq!(found, expected, "stream {}", stream.id);
    }
    assert!(found.is_empty(), "packs of nobody: {found:?}");
}

pub fn folders() -> Folders {
    Folders::new(Path::new("/out"))
}
