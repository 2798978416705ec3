//! What the jobs that are remembered lose to a new writer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::lasting::Region;
use super::{Had, JobId, Overwritten};
use crate::sector::SECTOR_SIZE;

/// Losses by job and region.
#[derive(Debug, Default)]
pub(super) struct Losses {
    ranges: BTreeMap<(JobId, Region), Vec<Range<u64>>>,
    /// Regions that are lost from end to end.
    regions: BTreeSet<(JobId, Region)>,
    /// Extents that are lost from end to end, by number.
    extents: HashSet<u64>,
}

impl Losses {
    /// `bytes` are written, and `had` of a job of `sectors` sectors has `theirs` of the same medium.
    pub(super) fn add(&mut self, had: &Had, sectors: u64, (theirs, number): (Range<u64>, u64), bytes: &Range<u64>) {
        let key = (had.owner, had.region.into());
        let lost = match had.at() {
            // Which bytes of the region these are is not known.
            None => {
                self.regions.insert(key);
                0..sectors
            }
            Some(at) => {
                let of_region = |position: u64| (position - theirs.start).saturating_add(at);
                let (start, end) = (theirs.start.max(bytes.start), theirs.end.min(bytes.end));
                if start == theirs.start && end == theirs.end {
                    self.extents.insert(number);
                }
                of_region(start) / SECTOR_SIZE..of_region(end).div_ceil(SECTOR_SIZE).min(sectors)
            }
        };
        self.ranges.entry(key).or_default().push(lost);
    }

    /// Whoever has lost something.
    pub(super) fn losers(&self) -> BTreeSet<JobId> {
        self.ranges.keys().map(|(id, _)| *id).collect()
    }

    /// Whether nothing is left of an extent.
    pub(super) fn is_lost(&self, id: JobId, region: Region, number: u64) -> bool {
        self.extents.contains(&number) || self.regions.contains(&(id, region))
    }

    /// By job, region and sector; ranges that touch are one.
    pub(super) fn told(self) -> Vec<Overwritten> {
        let mut told: Vec<Overwritten> = Vec::new();
        for ((id, region), mut ranges) in self.ranges {
            ranges.sort_unstable_by_key(|range| range.start);
            for sectors in ranges.into_iter().filter(|range| !range.is_empty()) {
                match told.last_mut() {
                    Some(last) if (last.id, last.region) == (id, region) && sectors.start <= last.sectors.end => {
                        last.sectors.end = last.sectors.end.max(sectors.end);
                    }
                    _ => told.push(Overwritten { id, region, sectors }),
                }
            }
        }
        told
    }
}
