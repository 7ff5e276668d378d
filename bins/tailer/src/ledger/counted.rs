//! What is there how often: so that what is not there at all is told at once.

use std::collections::BTreeMap;

/// Things and how often each is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Counted<K> {
    counts: BTreeMap<K, u32>,
}

impl<K> Default for Counted<K> {
    fn default() -> Counted<K> {
        Counted { counts: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Counted<K> {
    pub(super) fn add(&mut self, what: K) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn remove(&mut self, what: K) {
        let Some(count) = self.counts.get_mut(&what) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&what);
        }
    }

    pub(super) fn has(&self, what: K) -> bool {
        self.counts.contains_key(&what)
    }

    pub(super) fn below(&self, limit: K) -> impl Iterator<Item = K> {
        self.counts.range(..limit).map(|(what, _)| *what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_twice_is_there_until_it_is_removed_twice() {
        let mut counted = Counted::default();
        [3, 5, 5, 9].into_iter().for_each(|what| counted.add(what));
        [3, 5, 7].into_iter().for_each(|what| counted.remove(what));
        assert_eq!(counted.below(9).collect::<Vec<_>>(), [5]);
        assert!(!counted.has(3) && counted.has(5) && counted.has(9));
        counted.remove(5);
        assert!(!counted.has(5));
    }
}
