//! Sets of sectors, as ascending ranges. Pure.
//!
//! # Invariants
//! Ranges ascend, are not empty, and neither overlap nor touch.

use std::ops::Range;

use crate::sector::SECTOR_SIZE;

/// A set of sectors of a job, counted from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, mut new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        // Those that overlap or touch it become part of it.
        let first = self.0.partition_point(|old| old.end < new.start);
        let last = self.0.partition_point(|old| old.start <= new.end);
        if let (Some(low), Some(high)) = (self.0.get(first..last).and_then(<[_]>::first), last.checked_sub(1)) {
            new = new.start.min(low.start)..new.end.max(self.0[high].end);
        }
        self.0.splice(first..last, [new]);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// Takes no more memory than it must.
    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// How many sectors, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum::<u64>() * SECTOR_SIZE
    }

    /// Whether all of a range is in it.
    pub(crate) fn contains(&self, range: &Range<u64>) -> bool {
        let place = self.0.partition_point(|old| old.end < range.end);
        range.is_empty() || self.0.get(place).is_some_and(|old| old.start <= range.start)
    }

    /// What of a range is not in it.
    pub(crate) fn gaps(&self, within: Range<u64>) -> Self {
        let mut at = within.start;
        let mut gaps = Vec::new();
        let first = self.0.partition_point(|old| old.end <= within.start);
        for range in &self.0[first..] {
            if range.start >= within.end {
                break;
            }
            if at < range.start {
                gaps.push(at..range.start);
            }
            at = range.end;
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        Self(gaps)
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut both, mut a, mut b) = (Vec::new(), self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let common = x.start.max(y.start)..x.end.min(y.end);
            if !common.is_empty() {
                both.push(common);
            }
            if x.end < y.end {
                a.next()
            } else {
                b.next()
            };
        }
        Self(both)
    }

    /// What is in either.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        other.iter().for_each(|range| all.insert(range));
        all
    }

    /// What is in it and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self(self.iter().flat_map(|range| other.gaps(range).0).collect())
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0_u64..60, 0_u64..12), 0..12)
    }

    fn both(ranges: &[(u64, u64)]) -> (RangeSet, BTreeSet<u64>) {
        let spans = ranges.iter().map(|(start, count)| *start..start + count);
        (spans.clone().collect(), spans.flatten().collect())
    }

    fn same(set: &RangeSet, model: &BTreeSet<u64>) -> bool {
        let ordered =
            set.0.windows(2).all(|pair| pair[0].end < pair[1].start) && set.0.iter().all(|range| !range.is_empty());
        ordered && set.iter().flatten().eq(model.iter().copied()) && set.bytes() == model.len() as u64 * 512
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_sectors(a in ranges(), b in ranges(), from in 0_u64..70, count in 0_u64..20) {
            let ((a, model_a), (b, model_b)) = (both(&a), both(&b));
            prop_assert!(same(&a, &model_a));
            prop_assert!(same(&a.union(&b), &(&model_a | &model_b)));
            prop_assert!(same(&a.intersection(&b), &(&model_a & &model_b)));
            prop_assert!(same(&a.without(&b), &(&model_a - &model_b)));
            let within: BTreeSet<u64> = (from..from + count).collect();
            prop_assert!(same(&a.gaps(from..from + count), &(&within - &model_a)));
            prop_assert_eq!(a.contains(&(from..from + count)), within.is_subset(&model_a));
        }
    }
}
