//! The footprint against a naive model: the set of all bytes that were seen of a stream, and a list of packs.

use logferry_footprint::{Footprint, PackSeen, REMEMBERED_PACKS_MAX, Remembered, SeenPack, Verdict};
use logferry_pack::{PackIdentity, StreamId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a stream in the model. Small, so that ranges meet in every way.
const STREAM_BYTES: u64 = 48;

#[derive(Clone, Default)]
struct Model {
    streams: BTreeMap<StreamId, ModelStream>,
}

#[derive(Clone, Default)]
struct ModelStream {
    bytes: BTreeSet<u64>,
    packs: Vec<SeenPack>,
    first: u64,
    last_unix: u64,
}

impl ModelStream {
    fn frontier(&self, first: u64) -> u64 {
        let mut offset = first;
        while self.bytes.contains(&offset) {
            offset += 1;
        }
        offset
    }

    fn remembered(&self, first: u64) -> Remembered {
        let oldest = self.packs.len().saturating_sub(REMEMBERED_PACKS_MAX);
        Remembered { frontier: self.frontier(first), packs: self.packs[oldest..].to_vec() }
    }
}

impl Model {
    fn judge(&self, pack: &PackIdentity, first: u64) -> Verdict {
        let unknown = ModelStream::default();
        let stream = self.streams.get(&pack.stream).unwrap_or(&unknown);
        if stream.bytes.range(pack.offset..pack.end()).next().is_some() {
            let remembered = stream.remembered(first);
            return match remembered.packs.contains(&SeenPack::from(pack)) {
                true => Verdict::Duplicate,
                false => Verdict::Conflict(remembered),
            };
        }
        match stream.frontier(first) {
            frontier if pack.offset <= frontier => Verdict::Next,
            frontier => Verdict::Gap { frontier },
        }
    }

    fn insert(&mut self, pack: &PackIdentity, first: u64, unix: u64) {
        let stream = self.streams.entry(pack.stream).or_default();
        stream.first = first;
        stream.last_unix = stream.last_unix.max(unix);
        stream.bytes.extend(pack.offset..pack.end());
        if pack.span > 0 && !stream.packs.contains(&SeenPack::from(pack)) {
            stream.packs.push(pack.into());
        }
    }

    fn expire(&mut self, now: u64, keep: u64) -> usize {
        let before = self.streams.len();
        self.streams.retain(|_, stream| stream.last_unix + keep >= now);
        before - self.streams.len()
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Judge, and insert whatever the verdict is.
    Insert {
        pack: PackIdentity,
        first: u64,
        unix: u64,
    },
    /// Insert only what a node would take.
    Take {
        pack: PackIdentity,
        first: u64,
        unix: u64,
    },
    /// The same pack again, as after a lost acknowledgement.
    Again(usize),
    Expire {
        now: u64,
        keep: u64,
    },
    Reopen,
}

fn pack() -> impl Strategy<Value = (PackIdentity, u64)> {
    (0u128..3, 0..STREAM_BYTES, 0..12u64, 0..2u32, 0..STREAM_BYTES).prop_map(
        |(stream, offset, span, sum, first)| {
            // Mostly streams that begin at 0, as in life.
            let first = if first > 8 { 0 } else { first.min(offset) };
            (PackIdentity { stream: StreamId(stream), offset, span, sum }, first)
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (pack(), 0..100u64).prop_map(|((pack, first), unix)| Action::Insert { pack, first, unix }),
        6 => (pack(), 0..100u64).prop_map(|((pack, first), unix)| Action::Take { pack, first, unix }),
        2 => any::<usize>().prop_map(Action::Again),
        1 => (0..150u64, 0..100u64).prop_map(|(now, keep)| Action::Expire { now, keep }),
        1 => Just(Action::Reopen),
    ]
}

struct Run {
    footprint: Footprint,
    model: Model,
    log: Vec<PackSeen>,
    snapshot: Vec<u8>,
}

impl Run {
    fn insert(&mut self, pack: &PackIdentity, first: u64, unix: u64) {
        let seen = PackSeen { identity: *pack, first, unix };
        self.log.push(seen);
        self.footprint.apply(&seen);
        self.model.insert(pack, first, unix);
    }

    fn step(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::Insert { pack, first, unix } => {
                prop_assert_eq!(self.footprint.judge(pack, *first), self.model.judge(pack, *first));
                self.insert(pack, *first, *unix);
            }
            Action::Take { pack, first, unix } => {
                let verdict = self.footprint.judge(pack, *first);
                prop_assert_eq!(&verdict, &self.model.judge(pack, *first));
                if matches!(verdict, Verdict::Next | Verdict::Gap { .. }) {
                    self.insert(pack, *first, *unix);
                }
            }
            Action::Again(index) if !self.log.is_empty() => {
                let PackSeen { identity, first, .. } = self.log[index % self.log.len()];
                prop_assert_eq!(self.footprint.judge(&identity, first), self.model.judge(&identity, first));
            }
            Action::Again(_) => {}
            Action::Expire { now, keep } => {
                prop_assert_eq!(self.footprint.expire(*now, *keep), self.model.expire(*now, *keep));
                self.checkpoint();
            }
            Action::Reopen => self.reopen()?,
        }
        self.compare()
    }

    fn checkpoint(&mut self) {
        self.snapshot = self.footprint.to_bytes();
        self.log.clear();
    }

    /// As an owner does at start: the snapshot, then the log behind it; once more, for a snapshot that was written
    /// while its log was still there.
    fn reopen(&mut self) -> Result<(), TestCaseError> {
        let Some(mut reopened) = Footprint::from_bytes(&self.snapshot) else {
            return Err(TestCaseError::fail("the snapshot is not read back"));
        };
        for seen in &self.log {
            let seen = PackSeen::from_bytes(&seen.to_bytes());
            seen.iter().for_each(|seen| reopened.apply(seen));
        }
        prop_assert_eq!(&reopened, &self.footprint);
        for seen in &self.log {
            reopened.apply(seen);
        }
        // `first` follows the last record applied, which is the same one.
        prop_assert_eq!(&reopened, &self.footprint);
        self.footprint = reopened;
        self.checkpoint();
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.footprint.streams(), self.model.streams.len());
        for (id, stream) in &self.model.streams {
            prop_assert_eq!(self.footprint.remembered(*id), Some(stream.remembered(stream.first)));
            for offset in 0..STREAM_BYTES {
                prop_assert_eq!(self.footprint.has_seen(*id, offset, 1), stream.bytes.contains(&offset));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn footprint_agrees_with_a_set_of_bytes(actions in prop::collection::vec(action(), 1..40)) {
        let footprint = Footprint::default();
        let snapshot = footprint.to_bytes();
        let mut run = Run { footprint, model: Model::default(), log: Vec::new(), snapshot };
        for action in &actions {
            run.step(action)?;
        }
    }

    #[test]
    fn damaged_snapshots_are_refused_or_read_and_never_panic(
        packs in prop::collection::vec(pack(), 0..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut footprint = Footprint::default();
        packs.iter().for_each(|(pack, first)| footprint.insert(pack, *first, 7));
        let mut bytes = footprint.to_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(read) = Footprint::from_bytes(&bytes) {
            prop_assert_eq!(Footprint::from_bytes(&read.to_bytes()), Some(read));
        }
    }
}
