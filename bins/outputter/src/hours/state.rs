//! What the log of the books holds: a snapshot of all of them, and one record for each fact that no header file says.
//!
//! | bytes | field |
//! |---|---|
//! | u8 | version, 3; 2, without what done packs tell of an hour's bytes, is still read |
//! | rest | postcard of [`Books`] (in a snapshot) or [`Change`] (in a record) |

use super::book::{HourBook, Part};
use super::books::Books;
use super::fact::HourKey;
use super::hooks::HookKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Version of the bytes.
pub const STATE_VERSION: u8 = 3;
/// The version before.
const OLD_VERSION: u8 = 2;

/// What no header file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A hook was told of a complete hour of `total` packs.
    Hooked {
        /// The hour.
        key: HourKey,
        /// Which hook.
        kind: HookKind,
        /// Packs that it had.
        total: u64,
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
}

/// From what the log has; whether it is whole. What is lost is read again from the header files.
pub fn read(found: &logferry_durable::Recovered) -> (Books, bool) {
    let snapshot: Option<Books> = found.snapshot.as_deref().and_then(books_from_bytes);
    let is_sound = snapshot.is_some() && !found.report.is_suspect();
    let mut books = snapshot.unwrap_or_default();
    found.records.iter().filter_map(|record| from_bytes(record)).for_each(|change| books.apply(&change));
    (books.reopened(), is_sound)
}

/// Bytes of a snapshot or of a record.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: postcard has no way to fail here.
    postcard::to_extend(value, vec![STATE_VERSION]).unwrap_or_default()
}

/// Records have not changed between the versions.
fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    [STATE_VERSION, OLD_VERSION].contains(version).then(|| postcard::from_bytes(rest).ok())?
}

fn books_from_bytes(bytes: &[u8]) -> Option<Books> {
    match bytes.first() {
        Some(&OLD_VERSION) => from_bytes::<OldBooks>(bytes).map(Books::from),
        _ => from_bytes(bytes),
    }
}

/// Books of [`OLD_VERSION`].
#[derive(Serialize, Deserialize)]
struct OldBooks {
    files: BTreeMap<String, u64>,
    hours: BTreeMap<HourKey, OldHourBook>,
}

#[derive(Serialize, Deserialize)]
struct OldHourBook {
    parts: BTreeMap<String, Part>,
    marked: Option<u64>,
    hooked: [u64; HookKind::ALL.len()],
    asked: u32,
    asked_ms: i64,
}

impl From<OldBooks> for Books {
    fn from(old: OldBooks) -> Books {
        let hour = |old: OldHourBook| {
            let OldHourBook { parts, marked, hooked, asked, asked_ms } = old;
            HourBook { parts, marked, hooked, asked, asked_ms, told: None }
        };
        Books::of(old.files, old.hours.into_iter().map(|(key, book)| (key, hour(book))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_of_the_version_before_are_read() {
        let key = HourKey { source: "a".into(), host: "h".into(), hour: 2026112100.try_into().unwrap() };
        let hour = OldHourBook {
            parts: BTreeMap::from([("f".into(), Part { total: 4, lines: 9, ..Part::default() })]),
            marked: Some(9),
            hooked: [4; HookKind::ALL.len()],
            asked: 1,
            asked_ms: 5,
        };
        let files = BTreeMap::from([("f".to_owned(), 70)]);
        let old = OldBooks { files, hours: BTreeMap::from([(key.clone(), hour)]) };
        let bytes = postcard::to_extend(&old, vec![OLD_VERSION]).unwrap();
        let books = books_from_bytes(&bytes).expect("read");
        let book = books.hour(&key).expect("there");
        assert_eq!((books.counted("f"), book.sum().lines, book.marked), (Some(70), 9, Some(9)));
        let again = books_from_bytes(&to_bytes(&books)).expect("read");
        assert_eq!(again.hour(&key), Some(book));
    }
}
