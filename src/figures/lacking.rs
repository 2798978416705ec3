//! What destinations still lack.

use std::ops::Range;

use super::dest::Dest;
use super::progress::Progress;
use super::ranges::RangeSet;
use crate::dm_io::ErrorBits;

impl Progress {
    /// Which of those destinations have a sector in neither of two sets of theirs, and up to where that is so of the sectors
    /// behind it.
    pub(crate) fn lack_at(
        &self,
        dests: ErrorBits,
        sector: u64,
        sets: impl Fn(&Dest) -> [&RangeSet; 2],
    ) -> (ErrorBits, u64) {
        let (mut lack, mut end) = (ErrorBits::NONE, u64::MAX);
        for index in dests.iter() {
            let sets = sets(&self.dests[index]);
            let until = sets.iter().filter_map(|set| set.end_at(sector)).max().unwrap_or_else(|| {
                lack.set(index);
                sets.iter().filter_map(|set| start_from(set, sector)).min().unwrap_or(u64::MAX)
            });
            end = end.min(until);
        }
        (lack, end)
    }

    /// The first range in another that some of the present destinations have neither taken nor lost, and all that have not. What
    /// is `apart` is left out, and so are a `few` other ranges. The range may end behind the other one.
    pub(crate) fn first_lacking<'a>(
        &self,
        within: Range<u64>,
        apart: &[&RangeSet],
        few: impl Iterator<Item = &'a Range<u64>> + Clone,
    ) -> Option<(Range<u64>, ErrorBits)> {
        let mut at = within.start;
        while at < within.end {
            let around = few.clone().filter(|range| range.contains(&at)).map(|range| range.end);
            if let Some(end) = apart.iter().filter_map(|set| set.end_at(at)).chain(around).max() {
                at = end;
                continue;
            }
            let (lack, until) = self.lack_at(self.present(), at, |dest| [&dest.taken, dest.lost()]);
            if lack.is_empty() {
                at = until;
                continue;
            }
            let behind = few.map(|range| range.start).filter(|start| *start > at);
            let next = apart.iter().filter_map(|set| start_from(set, at)).chain(behind).min();
            return Some((at..self.total.min(until).min(next.unwrap_or(u64::MAX)), lack));
        }
        None
    }
}

/// Where the first range that begins at a sector or behind it begins.
fn start_from(set: &RangeSet, sector: u64) -> Option<u64> {
    set.first_from(sector).map(|range| range.start)
}
