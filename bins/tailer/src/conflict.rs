//! What is still to be shipped after the next tier answered `conflict`. Pure.

use logferry_footprint::Remembered;
use std::ops::Range;

/// The byte ranges that the next tier has: everything below its frontier, and packs beyond a gap. In order,
/// disjoint, not touching.
pub fn coverage(remembered: &Remembered) -> Vec<Range<u64>> {
    let below = std::iter::once(0..remembered.frontier);
    let packs = remembered.packs.iter().map(|pack| pack.0..pack.0.saturating_add(pack.1));
    let mut ranges: Vec<Range<u64>> = below.chain(packs).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether the remembered packs say anything about the bytes just below the frontier: without that, agreement is
/// no evidence.
pub fn has_evidence(remembered: &Remembered) -> bool {
    remembered.packs.iter().any(|pack| pack.1 > 0 && pack.0.checked_add(pack.1) == Some(remembered.frontier))
}

/// A part of a range: covered, or still to be shipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Bytes.
    pub range: Range<u64>,
    /// The next tier has them.
    pub covered: bool,
}

/// Divides `range` at the borders of `covered` (as [`coverage`] gives it).
pub fn divide(range: Range<u64>, covered: &[Range<u64>]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = range.start;
    for cover in covered {
        let cut = cover.start.clamp(at, range.end)..cover.end.clamp(at, range.end);
        if cut.is_empty() {
            continue;
        }
        if at < cut.start {
            parts.push(Part { range: at..cut.start, covered: false });
        }
        at = cut.end;
        parts.push(Part { range: cut, covered: true });
    }
    if at < range.end {
        parts.push(Part { range: at..range.end, covered: false });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use logferry_footprint::SeenPack;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn parts_are_the_range_and_each_byte_is_on_its_side(
            frontier in 0u64..60, packs in prop::collection::vec((0u64..100, 0u64..20), 0..6),
            start in 0u64..100, span in 1u64..60,
        ) {
            let packs: Vec<SeenPack> = packs.iter().map(|(offset, span)| SeenPack(*offset, *span, 0)).collect();
            let remembered = Remembered { frontier, packs: packs.clone() };
            let covered = coverage(&remembered);
            let parts = divide(start..start + span, &covered);
            let mut at = start;
            for part in &parts {
                prop_assert_eq!(part.range.start, at);
                prop_assert!(!part.range.is_empty());
                at = part.range.end;
                for byte in part.range.clone() {
                    let has = byte < frontier || packs.iter().any(|p| (p.0..p.0 + p.1).contains(&byte));
                    prop_assert_eq!(part.covered, has);
                }
            }
            prop_assert_eq!(at, start + span);
        }
    }

    #[test]
    fn evidence_is_a_pack_that_ends_at_the_frontier() {
        let packs = vec![SeenPack(0, 10, 1), SeenPack(10, 5, 2)];
        assert!(has_evidence(&Remembered { frontier: 15, packs: packs.clone() }));
        assert!(!has_evidence(&Remembered { frontier: 20, packs }));
        assert!(!has_evidence(&Remembered { frontier: 0, packs: vec![] }));
    }

    #[test]
    fn numbers_that_overflow_do_no_harm() {
        let remembered = Remembered { frontier: 5, packs: vec![SeenPack(u64::MAX, u64::MAX, 0)] };
        let covered = coverage(&remembered);
        assert_eq!((covered.len(), covered[0].clone()), (1, 0..5));
    }
}
