//! What packs of replacements and done packs say beside the keys of all packs comes back as it was said, and nonsense is none.

#![allow(clippy::unwrap_used)] // the lint sees only the test functions themselves as tests

mod support;

use logferry_pack::*;
use support::*;

const LINES: &[u8] = b"GET / 200\nGET /robots.txt 404\n";
const PLACE: Place = Place { stream: StreamId(0xabc), offset: 700, first: 500 };

fn replacing() -> Pack {
    let mut pack = pack(LINES, Codec::Zlib, 0);
    pack.header.set_place(PLACE);
    pack
}

#[test]
fn a_pack_of_a_replacement_tells_its_true_place_and_becomes_a_pack_of_it() {
    let good = pack(LINES, Codec::Zlib, 0);
    assert_eq!(good.header.place(), Ok(None));
    let parsed = Pack::parse(replacing().encode(), &Limits::default()).unwrap();
    assert_eq!(parsed.header.place(), Ok(Some(PLACE)));
    let in_place = parsed.header.in_place(PLACE);
    let ours = in_place.ours.as_ref().unwrap();
    assert_eq!((ours.identity.stream, ours.identity.offset, ours.first), (PLACE.stream, 700, 500));
    assert_eq!(in_place.place(), Ok(None));
    assert_eq!(in_place.origin_rest, good.header.origin_rest);
}

#[test]
fn a_place_that_was_damaged_on_the_way_is_found_by_the_check() {
    let bytes = replacing().encode();
    let at = bytes.windows(5).position(|window| window == b"\"700\"").unwrap();
    let mut damaged = bytes.to_vec();
    damaged[at + 1] = b'6';
    assert_eq!(Pack::parse(damaged.into(), &Limits::default()), Err(BadPack::BadCheck));
}

#[test]
fn a_place_that_contradicts_itself_is_an_error() {
    let changed = |key: &str, value: &str| {
        let mut header = replacing().header;
        header.origin_rest[key] = value.into();
        header.place()
    };
    assert_eq!(changed("of_first", "701"), Err(BadPack::OffsetBeforeFirst));
    assert_eq!(changed("of_offset", "18446744073709551615"), Err(BadPack::RangeOverflow));
    assert_eq!(changed("of_offset", "0700"), Err(BadPack::BadNumber { key: "of_offset" }));
    assert!(matches!(changed("of_stream", "abc"), Err(BadPack::BadHex { .. })));
    let mut header = replacing().header;
    header.origin_rest.remove("of_first");
    assert_eq!(header.place(), Err(BadPack::MissingKey { key: "of_first" }));
}

#[test]
fn the_ranges_of_an_hour_are_those_of_a_done_pack_and_bounded() {
    let range = |from| HourRange { stream: StreamId(7), from, to: from + 5 };
    let told = |ranges: &[HourRange]| {
        let mut pack = pack(b"", Codec::Zlib, 0);
        pack.header.done = true;
        pack.header.set_hour_ranges(ranges);
        let parsed = Pack::parse(pack.encode(), &Limits::default()).unwrap();
        parsed.header.hour_ranges()
    };
    let most: Vec<HourRange> =
        (0..HOUR_RANGES_MAX as u64).map(|number| range(number * (u64::MAX / 300))).collect();
    assert_eq!(told(&most), Some(most.clone()), "the header stays within its limit");
    assert_eq!(told(&[&most[..], &[range(3)]].concat()), None);
    assert_eq!(told(&[]), None);
    let mut header = pack(b"", Codec::Zlib, 0).header;
    header.set_hour_ranges(&[range(0)]);
    assert_eq!(header.hour_ranges(), None, "only done packs tell of their hours");
    header.done = true;
    let stream = StreamId(7);
    for bad in [
        String::new(),
        format!("{stream}:5-5"),
        format!("{stream}:1-2,"),
        "7:1-2".into(),
        format!("{stream}:1"),
    ] {
        header.origin_rest["hour_ranges"] = bad.clone().into();
        assert_eq!(header.hour_ranges(), None, "{bad}");
    }
}
