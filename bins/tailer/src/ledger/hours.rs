//! Numbers of packs: 1, 2, 3 … in each hour of each source, continued over restarts.

use logferry_pack::Hour;
use std::collections::{BTreeMap, BTreeSet};

/// Hours that are remembered for each source.
pub const HOURS_KEPT_MAX: usize = 72;

/// Numbers given in one hour.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Numbers {
    last: u64,
    spare: BTreeSet<u64>,
}

/// All hours of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HourBook {
    sources: BTreeMap<String, BTreeMap<Hour, Numbers>>,
}

impl HourBook {
    /// The next number. It counts as given only when [`HourBook::given`] is told.
    pub fn next(&self, source: &str, hour: Hour) -> u64 {
        let numbers = self.sources.get(source).and_then(|hours| hours.get(&hour));
        numbers.map_or(1, |numbers| numbers.spare.first().copied().unwrap_or(numbers.last + 1))
    }

    /// A pack has this number.
    pub fn given(&mut self, source: &str, hour: Hour, id: u64) {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), BTreeMap::new());
        }
        let Some(hours) = self.sources.get_mut(source) else { return };
        let numbers = hours.entry(hour).or_default();
        numbers.spare.remove(&id);
        numbers.last = numbers.last.max(id);
        while hours.len() > HOURS_KEPT_MAX {
            hours.pop_first();
        }
    }

    /// A pack that was never delivered gives its number back, so that the hour has no hole.
    pub fn give_back(&mut self, source: &str, hour: Hour, id: u64) {
        let numbers = self.sources.get_mut(source).and_then(|hours| hours.get_mut(&hour));
        if let Some(numbers) = numbers.filter(|numbers| id <= numbers.last) {
            numbers.spare.insert(id);
        }
    }
}
