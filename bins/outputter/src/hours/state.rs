//! What the log of the books holds: a snapshot of all of them, and one record for each fact that no header file says.
//!
//! | bytes | field |
//! |---|---|
//! | u8 | version, 1 |
//! | rest | postcard of [`Books`] (in a snapshot) or [`Change`] (in a record) |

use super::books::Books;
use super::fact::HourKey;
use super::hooks::HookKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of the bytes.
pub const STATE_VERSION: u8 = 2;

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
    let snapshot: Option<Books> = found.snapshot.as_deref().and_then(from_bytes);
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

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    (*version == STATE_VERSION).then(|| postcard::from_bytes(rest).ok())?
}
