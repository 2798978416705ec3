//! Sets of sectors, as ascending ranges. Pure.
//!
//! # Invariants
//! Ranges ascend, are not empty, and neither overlap nor touch. Most sets have one range, or none, and keep it in place; those that
//! have more keep them in `chunks`.

mod chunks;

use std::ops::Range;

use crate::sector::SECTOR_SIZE;
use chunks::Chunks;

/// A set of sectors of a job, counted from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct RangeSet(Kept);

#[derive(Clone, Debug)]
enum Kept {
    /// One range, or none, which is an empty one.
    One(Range<u64>),
    /// More than one.
    Many(Box<Chunks>),
}

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self(Kept::One(0..0))
    }

    /// Changes it as one in chunks.
    fn change(&mut self, change: impl FnOnce(&mut Chunks)) {
        let mut chunks = match std::mem::replace(&mut self.0, Kept::One(0..0)) {
            Kept::One(only) => {
                let mut chunks = Box::new(Chunks::default());
                chunks.push(only);
                chunks
            }
            Kept::Many(chunks) => chunks,
        };
        change(&mut chunks);
        self.0 = match chunks.only() {
            Some(only) => Kept::One(only),
            None => Kept::Many(chunks),
        };
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        match &mut self.0 {
            Kept::One(only) if only.is_empty() => *only = new,
            Kept::One(only) if only.start <= new.end && new.start <= only.end => {
                *only = only.start.min(new.start)..only.end.max(new.end);
            }
            Kept::One(_) | Kept::Many(_) => self.change(|chunks| chunks.insert(new)),
        }
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, gone: &Range<u64>) {
        if !gone.is_empty() && !self.is_empty() {
            self.change(|chunks| chunks.remove(gone));
        }
    }

    /// Adds a range that does not begin before the last one.
    fn push(&mut self, new: Range<u64>) {
        match &mut self.0 {
            Kept::Many(chunks) => chunks.push(new),
            Kept::One(_) => self.insert(new),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.iter_from(0)
    }

    /// The ranges that end behind a sector.
    fn iter_from(&self, sector: u64) -> impl Iterator<Item = Range<u64>> {
        let (only, many) = match &self.0 {
            Kept::One(only) => (Some(only.clone()).filter(|only| only.end > sector), None),
            Kept::Many(chunks) => (None, Some(chunks.iter_from(sector))),
        };
        only.into_iter().chain(many.into_iter().flatten())
    }

    /// The first range that ends behind a sector.
    pub(crate) fn first_from(&self, sector: u64) -> Option<Range<u64>> {
        self.iter_from(sector).next()
    }

    /// Where the range ends that has that sector, if one has it.
    pub(crate) fn end_at(&self, sector: u64) -> Option<u64> {
        self.first_from(sector).filter(|range| range.start <= sector).map(|range| range.end)
    }

    /// What of a range is in it.
    pub(crate) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let Range { start, end } = *range;
        let parts = self.iter_from(start).take_while(move |part| part.start < end);
        parts.map(move |part| part.start.max(start)..part.end.min(end))
    }

    /// Takes no more memory than it must.
    pub(crate) fn shrink(&mut self) {
        if let Kept::Many(chunks) = &mut self.0 {
            chunks.shrink();
        }
    }

    /// How many sectors, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let sectors = match &self.0 {
            Kept::One(only) => only.end - only.start,
            Kept::Many(chunks) => chunks.sectors(),
        };
        sectors * SECTOR_SIZE
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.0, Kept::One(only) if only.is_empty())
    }

    /// How many ranges.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kept::One(only) => usize::from(!only.is_empty()),
            Kept::Many(chunks) => chunks.len(),
        }
    }

    /// Whether all of a range is in it.
    pub(crate) fn contains(&self, range: &Range<u64>) -> bool {
        let here = range.end.checked_sub(1).and_then(|last| self.first_from(last));
        range.is_empty() || here.is_some_and(|old| old.start <= range.start && old.end >= range.end)
    }

    /// What of a range is not in it.
    pub(crate) fn gaps(&self, within: Range<u64>) -> Self {
        let mut gaps = Self::new();
        gaps.push_without(within, self);
        gaps
    }

    fn push_without(&mut self, range: Range<u64>, other: &Self) {
        let mut at = range.start;
        for part in other.within(&range) {
            self.push(at..part.start);
            at = part.end;
        }
        self.push(at..range.end);
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut both, mut a, mut b) = (Self::new(), self.iter().peekable(), other.iter().peekable());
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let common = x.start.max(y.start)..x.end.min(y.end);
            both.push(common);
            if x.end < y.end {
                a.next()
            } else {
                b.next()
            };
        }
        both
    }

    /// What is in either.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let (mut all, mut a, mut b) = (Self::new(), self.iter().peekable(), other.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if y.start < x.start => b.next(),
                (Some(_), _) => a.next(),
                (None, _) => b.next(),
            };
            match next {
                Some(range) => all.push(range),
                None => return all,
            }
        }
    }

    /// What is in it and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = Self::new();
        self.iter().for_each(|range| left.push_without(range, other));
        left
    }
}

impl Default for RangeSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes() && self.iter().eq(other.iter())
    }
}

impl Eq for RangeSet {}

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

    use super::chunks::CHUNK;
    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0_u64..60, 0_u64..12), 0..12)
    }

    fn both(ranges: &[(u64, u64)]) -> (RangeSet, BTreeSet<u64>) {
        let spans = ranges.iter().map(|(start, count)| *start..start + count);
        (spans.clone().collect(), spans.flatten().collect())
    }

    fn chunks(set: &RangeSet) -> &[Vec<Range<u64>>] {
        match &set.0 {
            Kept::One(_) => &[],
            Kept::Many(chunks) => chunks.each(),
        }
    }

    fn same(set: &RangeSet, model: &BTreeSet<u64>) -> bool {
        let ranges: Vec<_> = set.iter().collect();
        let ordered =
            ranges.windows(2).all(|pair| pair[0].end < pair[1].start) && ranges.iter().all(|range| !range.is_empty());
        let chunked = chunks(set).iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK);
        let in_place = matches!(set.0, Kept::One(_)) == (ranges.len() < 2);
        ordered
            && chunked
            && in_place
            && set.iter().flatten().eq(model.iter().copied())
            && set.bytes() == model.len() as u64 * 512
            && set.len() == ranges.len()
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
            prop_assert!(a.within(&(from..from + count)).flatten().eq((&within & &model_a).into_iter()));
            prop_assert_eq!(a.contains(&(from..from + count)), within.is_subset(&model_a));
            let mut less = a.clone();
            less.remove(&(from..from + count));
            prop_assert!(same(&less, &(&model_a - &within)));
        }
    }

    /// Numbers that look random.
    fn scatter(seed: u64) -> impl Iterator<Item = u64> {
        (seed..).map(|number| {
            let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
        })
    }

    #[test]
    fn many_ranges_are_a_set_too() {
        let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
        for (turn, number) in (0..6000).zip(scatter(7)) {
            let (start, count) = (number % 20_000, 1 + number / 20_000 % if turn % 100 == 0 { 3000 } else { 3 });
            if turn % 3 == 2 {
                set.remove(&(start..start + count));
                (start..start + count).for_each(|sector| _ = model.remove(&sector));
            } else {
                set.insert(start..start + count);
                model.extend(start..start + count);
            }
            assert!(turn % 50 > 0 || same(&set, &model), "{turn}");
        }
        assert!(chunks(&set).len() > 4 && same(&set, &model));
        let odd: RangeSet = (0..10_000).map(|start| start * 2 + 1..start * 2 + 2).collect();
        let other: BTreeSet<u64> = odd.iter().flatten().collect();
        assert!(same(&set.union(&odd), &(&model | &other)) && same(&set.without(&odd), &(&model - &other)));
    }

    #[test]
    fn a_million_scattered_ranges_move_only_their_chunks() {
        let mut set = RangeSet::new();
        // from both ends, and into the middle
        for index in 0..500_000_u64 {
            set.insert(index * 4..index * 4 + 1);
            set.insert(4_000_000 - index * 4..4_000_000 - index * 4 + 1);
        }
        scatter(1).take(1000).for_each(|number| set.insert(number % 1_000_000 * 4 + 2..number % 1_000_000 * 4 + 3));
        assert!(set.len() > 1_000_000 && chunks(&set).iter().all(|chunk| chunk.len() <= CHUNK));
        assert!(chunks(&set).len() < 3 * set.len() / CHUNK);
        assert_eq!(set.union(&set).bytes(), set.bytes());
    }
}
