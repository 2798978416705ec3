//! What a job reads and writes, by the names of its devices: where they are not open, and cannot be asked what bytes they
//! share. Two names of one device may be missed; an identity is the same under all of them.

use std::ops::Range;
use std::path::Path;

use crate::spec::{Action, Place, RegionSpec, Spec};

/// What a job has, or is about to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) spec: &'a Spec,
    pub(super) sectors: u64,
    /// Of the source, where there is one, and of the destinations.
    pub(super) identities: &'a [Option<String>],
    /// Whether it is known by its paths, too.
    pub(super) by_path: bool,
}

/// A region, by the names of its device.
#[derive(Clone, Debug)]
pub(super) struct Named<'a> {
    pub(super) place: Place,
    pub(super) path: &'a Path,
    by_path: bool,
    identity: Option<&'a str>,
    sectors: Range<u64>,
    writes: bool,
}

impl<'a> Wish<'a> {
    /// Its regions, the source first.
    pub(super) fn regions(self) -> impl Iterator<Item = Named<'a>> {
        let writes = self.spec.action != Action::Verify;
        let from = self.spec.from.iter().map(|from| (Place::From, from, false));
        let to = self.spec.to.iter().enumerate().map(move |(index, to)| (Place::To(index), to, writes));
        from.chain(to).enumerate().map(move |(number, (place, region, writes))| {
            let RegionSpec { path, sector, .. } = region;
            Named {
                place,
                path: Path::new(path),
                by_path: self.by_path,
                identity: self.identities.get(number).and_then(Option::as_deref),
                sectors: sector.get()..sector.get() + self.sectors,
                writes,
            }
        })
    }

    /// What of its destinations `other` writes, too: which, and what of it.
    pub(super) fn overwritten_by(self, other: Wish<'_>) -> Vec<(usize, Range<u64>)> {
        let mut found = Vec::new();
        for (mine, theirs) in self.regions().flat_map(|mine| other.regions().map(move |theirs| (mine.clone(), theirs)))
        {
            if let (Place::To(index), true) = (mine.place, theirs.writes && mine.meets(&theirs)) {
                let end = mine.sectors.end.min(theirs.sectors.end) - mine.sectors.start;
                found.push((index, theirs.sectors.start.saturating_sub(mine.sectors.start)..end));
            }
        }
        found
    }
}

impl Named<'_> {
    /// Whether they share sectors that one of them writes.
    pub(super) fn meets(&self, other: &Named<'_>) -> bool {
        let same = self.by_path && other.by_path && self.path == other.path
            || self.identity.is_some() && self.identity == other.identity;
        let overlaps = self.sectors.start < other.sectors.end && other.sectors.start < self.sectors.end;
        same && overlaps && (self.writes || other.writes)
    }
}
