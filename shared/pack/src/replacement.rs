//! Packs of a replacement: an hour that is shipped whole once more, to be put in the place of what a store has of it.
//!
//! They are of a stream of their own, which begins at 0 and has all bytes of the hour in the order in which they are to stand in the store.
//! So every tier keeps them in order and drops what it has seen as it does with any other stream, and mistakes none for a pack of the
//! first delivery. Which bytes they are is said by three more keys of `Route[0]`, a [`Place`]. The last pack has no bytes: it is the done pack of
//! the hour, and ends the replacement.
//!
//! | key | meaning |
//! |---|---|
//! | `of_stream` | the stream that the bytes are of, 32 hex digits |
//! | `of_offset` | offset of the first byte in that stream |
//! | `of_first` | where shipping of that stream began |
//!
//! The keys are among those of the header's `check`, so a node that does not know them refuses the pack.

use crate::header::decimal;
use crate::{BadPack, Header, StreamId};
use serde_json::Value;

const STREAM_KEY: &str = "of_stream";
const OFFSET_KEY: &str = "of_offset";
const FIRST_KEY: &str = "of_first";

/// Where the bytes of a pack of a replacement are in truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Stream.
    pub stream: StreamId,
    /// Offset of the first byte.
    pub offset: u64,
    /// Offset at which shipping of the stream began.
    pub first: u64,
}

impl Header {
    /// Where the bytes of a pack of a replacement are in truth; `None` for every other pack.
    ///
    /// # Errors
    /// The keys contradict themselves or are not all there.
    pub fn place(&self) -> Result<Option<Place>, BadPack> {
        if !self.origin_rest.contains_key(STREAM_KEY) {
            return Ok(None);
        }
        let text = |key| self.origin_rest.get(key).and_then(Value::as_str).ok_or(BadPack::MissingKey { key });
        let number = |key| decimal(key, text(key)?);
        let place = Place {
            stream: text(STREAM_KEY)?.parse()?,
            offset: number(OFFSET_KEY)?,
            first: number(FIRST_KEY)?,
        };
        let span = self.ours.as_ref().map_or(0, |ours| ours.identity.span);
        if place.offset.checked_add(span).is_none() {
            return Err(BadPack::RangeOverflow);
        }
        if place.offset < place.first {
            return Err(BadPack::OffsetBeforeFirst);
        }
        Ok(Some(place))
    }

    /// Makes it the header of a pack of a replacement.
    pub fn set_place(&mut self, place: Place) {
        let Place { stream, offset, first } = place;
        let keys = [
            (STREAM_KEY, stream.to_string()),
            (OFFSET_KEY, offset.to_string()),
            (FIRST_KEY, first.to_string()),
        ];
        self.origin_rest.extend(keys.map(|(key, text)| (key.to_owned(), text.into())));
    }

    /// The header as a pack of the true stream would have it.
    pub fn in_place(&self, place: Place) -> Header {
        let mut header = self.clone();
        if let Some(ours) = &mut header.ours {
            (ours.identity.stream, ours.identity.offset, ours.first) =
                (place.stream, place.offset, place.first);
        }
        [STREAM_KEY, OFFSET_KEY, FIRST_KEY].iter().for_each(|key| drop(header.origin_rest.remove(*key)));
        header
    }
}
