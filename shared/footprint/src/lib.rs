//! Footprints: what has been seen, and the judgement of a pack against it.
//!
//! Does no I/O and knows no clock. An owner keeps its footprint in a log of one small [`PackSeen`] record per pack
//! and a snapshot ([`Footprint::to_bytes`]) now and then, and calls [`Footprint::apply`] only for packs that are
//! durable: there is no way back, because none is needed.
//!
//! The nouns: a [`Footprint`] holds for each stream the byte ranges that were seen and its last
//! [`REMEMBERED_PACKS_MAX`] packs; it gives a [`Verdict`] on a pack; [`Remembered`] is what it tells a tailer whose
//! pack contradicts it. [`Ranges`] is the set that it keeps them in. Its memory has a limit ([`Footprint::limited`]).
//!
//! ```
//! use logferry_footprint::{Footprint, PackSeen, Verdict};
//! use logferry_pack::{PackIdentity, StreamId};
//!
//! let mut footprint = Footprint::default();
//! let pack = PackIdentity { stream: StreamId(7), offset: 0, span: 100, sum: 0xfeed };
//! assert_eq!(footprint.judge(&pack, 0), Verdict::Next);
//!
//! footprint.apply(&PackSeen { identity: pack, first: 0, unix: 1_795_000_000 });
//! assert_eq!(footprint.judge(&pack, 0), Verdict::Duplicate);
//!
//! let other_bytes = PackIdentity { sum: 0xbad, ..pack };
//! assert!(matches!(footprint.judge(&other_bytes, 0), Verdict::Conflict(_)));
//!
//! let later = PackIdentity { offset: 150, ..pack };
//! assert_eq!(footprint.judge(&later, 0), Verdict::Gap { frontier: 100 });
//! ```

mod footprint;
mod memory;
mod ranges;
mod recent;
mod seen;
mod slot;
mod snapshot;

pub use footprint::{Footprint, Verdict};
pub use memory::{Forgotten, WhenFull};
pub use ranges::Ranges;
pub use recent::REMEMBERED_PACKS_MAX;
pub use seen::{PackSeen, Remembered, SeenPack};
pub use slot::QUIET_PACKS;
