//! What the log of the books holds: a snapshot of all of them, and one record for each fact that no header file says.
//!
//! | bytes | field |
//! |---|---|
//! | u8 | version, 6; 5, which does not say whose bytes were forgotten, 4, without the numbers of packs with bytes, 3, with the packs alone of what hooks were told, and 2, without what done packs tell of an hour's bytes, are still read |
//! | rest | postcard of [`Books`] (in a snapshot) or [`Change`] (in a record) |

use super::book::{HourBook, Part, STREAM_RANGES_MAX, STREAMS_MAX, StreamPart, Told};
use super::books::Books;
use super::fact::HourKey;
use super::hooks::{Extent, HookKind};
use logferry_footprint::Ranges;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Version of the bytes.
pub const STATE_VERSION: u8 = 6;
/// The version before.
const VERSION_5: u8 = 5;
/// The ones before that.
const VERSION_4: u8 = 4;
const VERSION_3: u8 = 3;
const VERSION_2: u8 = 2;

/// What no header file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A hook was told of a complete hour.
    Hooked {
        /// The hour.
        key: HourKey,
        /// Which hook.
        kind: HookKind,
        /// What it had.
        extent: Extent,
    },
    /// A repull was asked for.
    Asked {
        /// The hour.
        key: HourKey,
        /// The how-manieth time it was.
        times: u32,
        /// When, in milliseconds since 1970.
        at_ms: i64,
    },
    /// The snapshot before it was made then. Programs that do not know it pass it over.
    Saved {
        /// In milliseconds since 1970.
        at_ms: i64,
    },
    /// Hours that began up to then were forgotten because the books had outgrown their memory. Programs that do not know it pass it over.
    Squeezed {
        /// In milliseconds since 1970.
        to_ms: i64,
    },
}

/// From what the log has; whether it is whole. What is lost is read again from the header files.
pub fn read(found: &logferry_durable::Recovered) -> (Books, bool) {
    let snapshot: Option<Books> = found.snapshot.as_deref().and_then(books_from_bytes);
    let is_sound = snapshot.is_some() && !found.report.is_suspect();
    let mut books = snapshot.unwrap_or_default();
    for record in &found.records {
        if let Some(change) = change_from_bytes(record, &books) {
            books.apply(&change);
        }
    }
    (books.reopened(), is_sound)
}

/// Bytes of a snapshot or of a record.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: postcard has no way to fail here.
    postcard::to_extend(value, vec![STATE_VERSION]).unwrap_or_default()
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes.get(1..)?).ok()
}

fn change_from_bytes(bytes: &[u8], books: &Books) -> Option<Change> {
    match *bytes.first()? {
        STATE_VERSION | VERSION_5 | VERSION_4 => from_bytes(bytes),
        VERSION_3 | VERSION_2 => from_bytes::<OldChange>(bytes).map(|old| old.with_lines_of(books)),
        _ => None,
    }
}

fn books_from_bytes(bytes: &[u8]) -> Option<Books> {
    match *bytes.first()? {
        STATE_VERSION => from_bytes(bytes),
        VERSION_5 => from_bytes::<OldBooks<HourBook5>>(bytes).map(Books::from),
        VERSION_4 => from_bytes::<OldBooks<HourBook4>>(bytes).map(Books::from),
        VERSION_3 => from_bytes::<OldBooks<HourBook3>>(bytes).map(Books::from),
        VERSION_2 => from_bytes::<OldBooks<HourBook2>>(bytes).map(Books::from),
        _ => None,
    }
}

/// A [`Change`] before version 4.
#[derive(Serialize, Deserialize)]
enum OldChange {
    Hooked { key: HourKey, kind: HookKind, total: u64 },
    Asked { key: HourKey, times: u32, at_ms: i64 },
}

impl OldChange {
    /// Hooks were told of as many lines as the books know by then; if that is wrong, they are told once more.
    fn with_lines_of(self, books: &Books) -> Change {
        match self {
            OldChange::Hooked { key, kind, total } => {
                let lines = books.hour(&key).map_or(0, |book| book.sum().lines);
                Change::Hooked { key, kind, extent: Extent { packs: total, lines } }
            }
            OldChange::Asked { key, times, at_ms } => Change::Asked { key, times, at_ms },
        }
    }
}

/// Books before version 6.
#[derive(Serialize, Deserialize)]
struct OldBooks<B> {
    files: BTreeMap<String, u64>,
    hours: BTreeMap<HourKey, B>,
}

/// A [`Part`] before version 5.
#[derive(Serialize, Deserialize)]
struct OldPart {
    ids: Ranges,
    total: u64,
    lines: u64,
    bytes: u64,
    first_ms: i64,
    last_ms: i64,
    streams: BTreeMap<u128, StreamPart>,
    is_refilled: bool,
    is_scattered: bool,
    has_more_ranges: bool,
}

impl From<OldPart> for Part {
    fn from(old: OldPart) -> Part {
        let OldPart { ids, total, lines, bytes, first_ms, last_ms, streams, .. } = old;
        let OldPart { is_refilled, is_scattered, has_more_ranges, .. } = old;
        let is_slim = has_more_ranges && is_forgotten(&streams);
        let part = Part { ids, total, lines, bytes, first_ms, last_ms, streams, ..Part::default() };
        Part { is_refilled, is_scattered, has_more_ranges, is_slim, ..part }
    }
}

/// Whether a part that does not know all its streams has forgotten them to save memory: there was room for more. At worst a file is read again.
fn is_forgotten(streams: &BTreeMap<u128, StreamPart>) -> bool {
    let is_full = |stream: &StreamPart| stream.ranges.list().len() >= STREAM_RANGES_MAX;
    streams.len() < STREAMS_MAX && !streams.values().any(is_full)
}

/// A [`Part`] of version 5.
#[derive(Serialize, Deserialize)]
struct Part5 {
    ids: Ranges,
    ids_with_bytes: Ranges,
    ids_of_done: Ranges,
    has_twice: bool,
    total: u64,
    lines: u64,
    bytes: u64,
    first_ms: i64,
    last_ms: i64,
    streams: BTreeMap<u128, StreamPart>,
    is_refilled: bool,
    is_scattered: bool,
    has_more_ranges: bool,
}

impl From<Part5> for Part {
    fn from(old: Part5) -> Part {
        let Part5 { ids, ids_with_bytes, ids_of_done, has_twice, .. } = old;
        let Part5 { total, lines, bytes, first_ms, last_ms, streams, .. } = old;
        let Part5 { is_refilled, is_scattered, has_more_ranges, .. } = old;
        let before = OldPart {
            ids,
            total,
            lines,
            bytes,
            first_ms,
            last_ms,
            streams,
            is_refilled,
            is_scattered,
            has_more_ranges,
        };
        Part { ids_with_bytes, ids_of_done, has_twice, ..Part::from(before) }
    }
}

#[derive(Serialize, Deserialize)]
struct HourBook5 {
    parts: BTreeMap<String, Part5>,
    marked: Option<u64>,
    marked_packs: u64,
    hooked: [Extent; HookKind::ALL.len()],
    asked: u32,
    asked_ms: i64,
    told: Vec<Told>,
}

impl From<HourBook5> for HourBook {
    fn from(old: HourBook5) -> HourBook {
        let HourBook5 { parts, marked, marked_packs, hooked, asked, asked_ms, told } = old;
        HourBook { parts: new_parts(parts), marked, marked_packs, hooked, asked, asked_ms, told }
    }
}

fn new_parts<P: Into<Part>>(parts: BTreeMap<String, P>) -> BTreeMap<String, Part> {
    parts.into_iter().map(|(path, part)| (path, part.into())).collect()
}

#[derive(Serialize, Deserialize)]
struct HourBook4 {
    parts: BTreeMap<String, OldPart>,
    marked: Option<u64>,
    marked_packs: u64,
    hooked: [Extent; HookKind::ALL.len()],
    asked: u32,
    asked_ms: i64,
    told: Option<Told>,
}

impl From<HourBook4> for HourBook {
    fn from(old: HourBook4) -> HourBook {
        let HourBook4 { parts, marked, marked_packs, hooked, asked, asked_ms, told } = old;
        let (parts, told) = (new_parts(parts), told.into_iter().collect());
        HourBook { parts, marked, marked_packs, hooked, asked, asked_ms, told }
    }
}

#[derive(Serialize, Deserialize)]
struct HourBook2 {
    parts: BTreeMap<String, OldPart>,
    marked: Option<u64>,
    hooked: [u64; HookKind::ALL.len()],
    asked: u32,
    asked_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct HourBook3 {
    before: HourBook2,
    told: Option<Told>,
}

impl From<HourBook2> for HourBook {
    fn from(old: HourBook2) -> HourBook {
        let HourBook2 { parts, marked, hooked, asked, asked_ms } = old;
        let parts = new_parts(parts);
        let mut book = HourBook { parts, marked, asked, asked_ms, ..HourBook::default() };
        let lines = book.sum().lines;
        book.hooked = hooked.map(|packs| if packs > 0 { Extent { packs, lines } } else { Extent::default() });
        book
    }
}

impl From<HourBook3> for HourBook {
    fn from(old: HourBook3) -> HourBook {
        HourBook { told: old.told.into_iter().collect(), ..HourBook::from(old.before) }
    }
}

impl<B: Into<HourBook>> From<OldBooks<B>> for Books {
    fn from(old: OldBooks<B>) -> Books {
        Books::of(old.files, old.hours.into_iter().map(|(key, book)| (key, book.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_of_the_versions_before_are_read() {
        let key = HourKey { source: "a".into(), host: "h".into(), hour: 2026112100.try_into().unwrap() };
        let part = || OldPart {
            ids: Ranges::default(),
            total: 4,
            lines: 9,
            bytes: 90,
            first_ms: 1,
            last_ms: 2,
            streams: BTreeMap::new(),
            is_refilled: true,
            is_scattered: false,
            has_more_ranges: false,
        };
        let hour = || HourBook2 {
            parts: BTreeMap::from([("f".into(), part())]),
            marked: Some(9),
            hooked: [4, 4, 0],
            asked: 1,
            asked_ms: 5,
        };
        let files = BTreeMap::from([("f".to_owned(), 70)]);
        let old = OldBooks { files: files.clone(), hours: BTreeMap::from([(key.clone(), hour())]) };
        let of_2 = postcard::to_extend(&old, vec![VERSION_2]).unwrap();
        let told = Some(Told { total: 4, ranges: vec![(1, 2, 3)] });
        let hour_3 = HourBook3 { before: hour(), told: told.clone() };
        let old = OldBooks { files: files.clone(), hours: BTreeMap::from([(key.clone(), hour_3)]) };
        let of_3 = postcard::to_extend(&old, vec![VERSION_3]).unwrap();
        let hooks = |packs| if packs > 0 { Extent { packs, lines: 9 } } else { Extent::default() };
        let hour_4 = HourBook4 {
            parts: hour().parts,
            marked: Some(9),
            marked_packs: 4,
            hooked: [4, 4, 0].map(hooks),
            asked: 1,
            asked_ms: 5,
            told: told.clone(),
        };
        let old = OldBooks { files, hours: BTreeMap::from([(key.clone(), hour_4)]) };
        let of_4 = postcard::to_extend(&old, vec![VERSION_4]).unwrap();
        for (bytes, told) in [(of_2, None), (of_3, told.clone()), (of_4, told)] {
            let books = books_from_bytes(&bytes).expect("read");
            let book = books.hour(&key).expect("there");
            assert_eq!((books.counted("f"), book.sum().lines, book.marked), (Some(70), 9, Some(9)));
            assert_eq!((book.hooked[1], book.hooked[2]), (Extent { packs: 4, lines: 9 }, Extent::default()));
            assert_eq!(book.told, Vec::from_iter(told));
            let part = &book.parts["f"];
            assert_eq!((part.last_ms, part.is_refilled, part.has_twice), (2, true, false));
            let again = books_from_bytes(&to_bytes(&books)).expect("read");
            assert_eq!(again.hour(&key), Some(book));
            let hooked = OldChange::Hooked { key: key.clone(), kind: HookKind::Etl, total: 4 };
            let bytes = postcard::to_extend(&hooked, vec![VERSION_3]).unwrap();
            let extent = Extent { packs: 4, lines: 9 };
            let change = Change::Hooked { key: key.clone(), kind: HookKind::Etl, extent };
            assert_eq!(change_from_bytes(&bytes, &books), Some(change));
        }
    }

    #[test]
    fn what_version_5_had_forgotten_to_save_memory_is_known_to_be_forgotten() {
        let key = HourKey { source: "a".into(), host: "h".into(), hour: 2026112100.try_into().unwrap() };
        let part = |has_more_ranges, streams: u128| Part5 {
            ids: Ranges::default(),
            ids_with_bytes: Ranges::default(),
            ids_of_done: Ranges::default(),
            has_twice: true,
            total: 4,
            lines: 9,
            bytes: 90,
            first_ms: 1,
            last_ms: 2,
            streams: (0..streams).map(|stream| (stream, StreamPart::default())).collect(),
            is_refilled: false,
            is_scattered: false,
            has_more_ranges,
        };
        let names = ["all", "slim", "full"].map(str::to_owned);
        let parts = [part(false, 3), part(true, 0), part(true, STREAMS_MAX as u128)];
        let told = vec![Told { total: 4, ranges: vec![(1, 2, 3)] }];
        let hour = HourBook5 {
            parts: names.clone().into_iter().zip(parts).collect(),
            marked: Some(9),
            marked_packs: 4,
            hooked: [Extent { packs: 4, lines: 9 }; 3],
            asked: 1,
            asked_ms: 5,
            told: told.clone(),
        };
        let files = names.iter().map(|name| (name.clone(), 7)).collect();
        let old = OldBooks { files, hours: BTreeMap::from([(key.clone(), hour)]) };
        let books = books_from_bytes(&postcard::to_extend(&old, vec![VERSION_5]).unwrap()).expect("read");
        let book = books.hour(&key).expect("there");
        assert_eq!(names.map(|name| book.parts[&name].is_slim), [false, true, false]);
        assert!(book.parts["all"].has_twice && book.marked_packs == 4 && book.told == told);
        assert_eq!(books_from_bytes(&to_bytes(&books)).expect("read").hour(&key), Some(book));
    }
}
