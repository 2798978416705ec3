//! What a burn-in test knows of its destinations: what could not be written there is bad, and is not told once more for being
//! different.

use std::ops::Range;

use super::{Progress, RangeSet};
use crate::dm_io::ErrorBits;
use crate::figures::{BadKind, BadRange};
use crate::spec::RegionSpec;

impl Progress {
    /// What none of the destinations that are compared could take; nothing where the job is no test.
    pub(crate) fn lost_everywhere(&self) -> RangeSet {
        let compared = self.compared();
        let mut sets = compared.iter().filter(|_| self.tests).map(|index| self.dests[index].lost());
        let first = sets.next().cloned().unwrap_or_default();
        sets.fold(first, |all, set| all.intersection(set))
    }

    /// Those of some destinations that are different which could take all, or a part, of a range.
    pub(crate) fn without_lost(&self, different: ErrorBits, range: &Range<u64>) -> ErrorBits {
        let mut left = ErrorBits::NONE;
        different.iter().filter(|index| !self.not_lost(*index, range).is_empty()).for_each(|index| left.set(index));
        left
    }

    /// The parts of a range that a destination could take: of a test; else all of it.
    pub(super) fn not_lost(&self, index: usize, range: &Range<u64>) -> RangeSet {
        if self.tests { self.dests[index].lost().gaps(range.clone()) } else { std::iter::once(range.clone()).collect() }
    }

    /// What a record's bad ranges say of the destinations of a test. After them, it writes there no more.
    pub(crate) fn restore_lost(&mut self, to: &[RegionSpec]) {
        if !self.tests {
            return;
        }
        for (index, region) in to.iter().enumerate() {
            let failed = self.bad_of(index, region, |range| range.kind == BadKind::Failed);
            failed.iter().for_each(|range| self.dests[index].lose(&range));
        }
    }

    /// What is bad of a destination of a test, in sectors of the job.
    pub(crate) fn bad_of(&self, index: usize, region: &RegionSpec, picked: impl Fn(&BadRange) -> bool) -> RangeSet {
        let of_it = self.bad.iter().filter(|range| range.dest == Some(index) && picked(range));
        let place = |range: &BadRange| {
            let start = range.sector.get().saturating_sub(region.sector.get());
            start..start + range.count.get()
        };
        of_it.map(place).collect()
    }
}
