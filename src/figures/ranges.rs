//! Sets of sectors, as ascending ranges. Pure.
//!
//! # Invariants
//! Ranges ascend, are not empty, and neither overlap nor touch. They lie in chunks of at most [`CHUNK`], none of them
//! empty, so that a range in the middle of a million others moves only its chunk. The numbers of sectors and of ranges are kept.

use std::ops::Range;

use crate::sector::SECTOR_SIZE;

/// Ranges in a chunk: an insertion moves at most so many, and a million ranges are some ten thousand chunks.
const CHUNK: usize = 128;

/// A set of sectors of a job, counted from its beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet {
    chunks: Vec<Vec<Range<u64>>>,
    ranges: usize,
    sectors: u64,
}

impl RangeSet {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), ranges: 0, sectors: 0 }
    }

    /// Where the first range is for which `before` is false; it is true for all ranges ahead of that.
    fn place(&self, before: impl Fn(&Range<u64>) -> bool) -> (usize, usize) {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&before));
        (chunk, self.chunks.get(chunk).map_or(0, |ranges| ranges.partition_point(&before)))
    }

    /// Takes out the ranges from a place on that begin at or before `last`. Returns the range from the first to the last of
    /// them. The chunk of the place may be empty then.
    fn take_out(&mut self, (chunk, index): (usize, usize), last: u64) -> Option<Range<u64>> {
        let mut hull: Option<Range<u64>> = None;
        let (mut at, mut first) = (chunk, index);
        while let Some(ranges) = self.chunks.get_mut(at) {
            let end = ranges.partition_point(|old| old.start <= last).max(first);
            let is_all = end == ranges.len();
            for old in ranges.drain(first..end) {
                self.sectors -= old.end - old.start;
                self.ranges -= 1;
                hull = Some(hull.map_or(old.start, |hull| hull.start)..old.end);
            }
            if !is_all {
                break;
            }
            (at, first) = (at + 1, 0);
        }
        let behind = chunk + 1..at.min(self.chunks.len());
        if !behind.is_empty() {
            self.chunks.drain(behind);
        }
        hull
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, mut new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        // Those that overlap or touch it become part of it.
        let (mut chunk, mut index) = self.place(|old| old.end < new.start);
        if let Some(hull) = self.take_out((chunk, index), new.end) {
            new = new.start.min(hull.start)..new.end.max(hull.end);
        }
        self.sectors += new.end - new.start;
        self.ranges += 1;
        if chunk == self.chunks.len() {
            match chunk.checked_sub(1) {
                Some(last) => (chunk, index) = (last, self.chunks[last].len()),
                None => self.chunks.push(Vec::new()),
            }
        }
        let is_last = chunk + 1 == self.chunks.len();
        let ranges = &mut self.chunks[chunk];
        ranges.insert(index, new);
        if ranges.len() > CHUNK {
            // Sets mostly grow at their end: there chunks stay full.
            let half = if is_last && index == CHUNK { CHUNK } else { CHUNK / 2 };
            let rest = ranges.split_off(half);
            self.chunks.insert(chunk + 1, rest);
        }
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, gone: &Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let place = self.place(|old| old.end <= gone.start);
        let hull = self.take_out(place, gone.end - 1);
        if self.chunks.get(place.0).is_some_and(Vec::is_empty) {
            self.chunks.remove(place.0);
        }
        if let Some(hull) = hull {
            self.insert(hull.start..gone.start);
            self.insert(gone.end..hull.end);
        }
    }

    /// Adds a range that does not begin before the last one.
    fn push(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        if let Some(last) = self.chunks.last_mut().and_then(|ranges| ranges.last_mut())
            && new.start <= last.end
        {
            let end = new.end.max(last.end);
            self.sectors += end - last.end;
            last.end = end;
            return;
        }
        self.sectors += new.end - new.start;
        self.ranges += 1;
        match self.chunks.last_mut().filter(|ranges| ranges.len() < CHUNK) {
            Some(ranges) => ranges.push(new),
            None => self.chunks.push(vec![new]),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.chunks.iter().flatten().cloned()
    }

    /// The ranges that end behind a sector.
    fn iter_from(&self, sector: u64) -> impl Iterator<Item = Range<u64>> {
        let (chunk, index) = self.place(|old| old.end <= sector);
        let (first, rest) = match self.chunks.get(chunk) {
            Some(ranges) => (&ranges[index..], &self.chunks[chunk + 1..]),
            None => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flatten()).cloned()
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
        self.chunks.iter_mut().for_each(Vec::shrink_to_fit);
        self.chunks.shrink_to_fit();
    }

    /// How many sectors, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.sectors * SECTOR_SIZE
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// How many ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges
    }

    /// Whether all of a range is in it.
    pub(crate) fn contains(&self, range: &Range<u64>) -> bool {
        let (chunk, index) = self.place(|old| old.end < range.end);
        let here = self.chunks.get(chunk).and_then(|ranges| ranges.get(index));
        range.is_empty() || here.is_some_and(|old| old.start <= range.start)
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

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.sectors == other.sectors && self.iter().eq(other.iter())
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

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0_u64..60, 0_u64..12), 0..12)
    }

    fn both(ranges: &[(u64, u64)]) -> (RangeSet, BTreeSet<u64>) {
        let spans = ranges.iter().map(|(start, count)| *start..start + count);
        (spans.clone().collect(), spans.flatten().collect())
    }

    fn same(set: &RangeSet, model: &BTreeSet<u64>) -> bool {
        let ranges: Vec<_> = set.iter().collect();
        let ordered =
            ranges.windows(2).all(|pair| pair[0].end < pair[1].start) && ranges.iter().all(|range| !range.is_empty());
        let chunked = set.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK);
        ordered
            && chunked
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
        assert!(set.chunks.len() > 4 && same(&set, &model));
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
        assert!(set.len() > 1_000_000 && set.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        assert!(set.chunks.len() < 3 * set.len() / CHUNK);
        assert_eq!(set.union(&set).bytes(), set.bytes());
    }
}
