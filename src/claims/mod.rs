//! Whose bytes: which job reads and writes what, which job goes first, and who has lost what to whom.
//!
//! ```text
//!            claim ──────> live      by place: device numbers and inodes, good while the devices are open
//! Footprint ───┤
//!            (asks) ─────> kept      by lasting name: of jobs on their way back, held, or waiting their turn
//!              └─ (tells)> memory    by lasting name: of jobs that ended, which may be retried
//! ```
//! Bytes are compared at every level that a region reaches down to, so that a partition, an offset loop, a second loop over
//! one file, a symlink or another name is seen. Live claims are compared by [`Place`](crate::blkdev::Place). What must
//! outlast a restart, of the daemon or of the machine, is compared by names that last: see [`LastingExtent`].
//!
//! Pure: no lock, no I/O, no clock; one thread owns it. A claim costs a few searches a level and extent, each by the
//! logarithm of how many there are; beside that only what is found is looked at.
//!
//! # Invariants
//! No live write overlaps a live read or write of another job. A job is in `live` or in `kept`, never in both, and never in
//! `live` and in `memory`. A refused claim changes nothing.

mod conflict;
mod index;
mod intervals;
mod lasting;
mod losses;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) use conflict::{Conflict, Overwritten};
use index::{Access, Entry, Index, Kind};
use lasting::RegionCode;
pub(crate) use lasting::{Lasting, Region, parse as parse_region, print as print_region};
use losses::Losses;

use crate::blkdev::{self, Extent, LastingExtent};
use crate::dm_io::ErrorBits;

/// A job's number: [`journal::JobId`](crate::journal), which is above this room.
type JobId = u64;

/// What a job reads and writes, down to the lowest level, now and by names that last.
#[derive(Clone, Debug)]
pub(crate) struct Footprint {
    source: Vec<Extent>,
    dests: Vec<Vec<Extent>>,
    lasting: Lasting,
}

impl Footprint {
    /// `source` is empty where there is none; `lasting` says whether the destinations are written.
    ///
    /// # Panics
    /// If `dests` and `lasting` are not of the same job.
    pub(crate) fn new(source: Vec<Extent>, dests: Vec<Vec<Extent>>, lasting: Lasting) -> Self {
        assert_eq!(dests.len(), lasting.dests.len(), "a footprint is of one job");
        Self { source, dests, lasting }
    }

    pub(crate) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// It does not reach a destination any more.
    pub(crate) fn leave_out(&mut self, index: usize) {
        self.dests[index].clear();
        self.lasting.dests[index].clear();
    }

    /// Whether the job is in its own way: the first destination that overlaps the source (`None`) or an earlier destination.
    pub(crate) fn overlap_within(&self) -> Option<(usize, Option<usize>)> {
        overlap_within(&self.source, &self.dests)
    }

    /// Its regions, those that it writes first.
    fn regions(&self) -> impl Iterator<Item = (Region, Access, &[Extent])> {
        let dests = self.dests.iter().enumerate();
        let dests = dests.map(|(index, dest)| (Region::Dest(index), self.lasting.access(), &dest[..]));
        dests.chain([(Region::Source, Access::Read, &self.source[..])])
    }

    fn path(&self, region: Region) -> Arc<Path> {
        let extents = match region {
            Region::Source => &self.source,
            Region::Dest(index) => &self.dests[index],
        };
        extents.first().map_or_else(|| Path::new("?").into(), |extent| Arc::clone(&extent.path))
    }
}

/// The first destination that overlaps the source (`None`) or an earlier destination. Destinations are few (64), so each is
/// compared with each.
pub(crate) fn overlap_within(source: &[Extent], dests: &[Vec<Extent>]) -> Option<(usize, Option<usize>)> {
    let meet = |a: &[Extent], b: &[Extent]| a.iter().any(|a| b.iter().any(|b| a.overlaps(b)));
    dests.iter().enumerate().find_map(|(index, dest)| {
        if meet(source, dest) {
            return Some((index, None));
        }
        dests[..index].iter().position(|other| meet(other, dest)).map(|other| (index, Some(other)))
    })
}

/// When a job that comes from a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// It had begun: before all others. Those that had begun were never in each other's way.
    Begun,
    /// It waits its turn: before those of higher numbers that wait, too.
    Waiting,
}

/// A live claim's extent.
#[derive(Debug)]
struct Held {
    owner: JobId,
    /// The name by which it is open, for messages.
    path: Arc<Path>,
}

/// An extent in `kept` or in `memory`. There may be tens of thousands, so it is small.
#[derive(Debug)]
struct Had {
    owner: JobId,
    /// As [`LastingExtent::at`]; the last number stands for `None`.
    at: u64,
    region: RegionCode,
}

impl Had {
    fn new(owner: JobId, region: Region, extent: &LastingExtent) -> Self {
        Self { owner, at: extent.at.unwrap_or(u64::MAX), region: region.into() }
    }

    fn at(&self) -> Option<u64> {
        Some(self.at).filter(|at| *at != u64::MAX)
    }
}

/// A job in `kept`.
#[derive(Debug)]
struct Reservation {
    rank: Rank,
    entries: Box<[Entry<Arc<str>>]>,
}

/// A job in `memory`.
#[derive(Debug)]
struct Memory {
    sectors: u64,
    /// Those that nobody has written since.
    entries: Vec<(RegionCode, Entry<Arc<str>>)>,
}

/// The one table of who has which bytes.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Index<blkdev::Place, Held>,
    live: HashMap<JobId, Vec<(RegionCode, Entry<blkdev::Place>)>>,
    /// What jobs that have ended still have: a write of theirs is under way there.
    late: HashMap<JobId, Vec<(RegionCode, Entry<blkdev::Place>)>>,
    /// An extent's rank is 0 for a job that had begun, else the job's number.
    reserved: Index<Arc<str>, Had>,
    kept: HashMap<JobId, Reservation>,
    remembered: Index<Arc<str>, Had>,
    memory: HashMap<JobId, Memory>,
}

impl Claims {
    /// Gives a job its bytes, after those jobs from records that go before it. It is not kept or remembered any more: what it
    /// has now, nobody else can write. Returns what ended or waiting jobs have lost by it; that is told once, so the caller
    /// takes it over even if the job then does not start.
    ///
    /// # Errors
    /// Who is in the way. Nothing has changed.
    ///
    /// # Panics
    /// If the job has a claim.
    pub(crate) fn claim(&mut self, id: JobId, footprint: &Footprint) -> Result<Vec<Overwritten>, Conflict> {
        self.conflict(id, footprint).map_or(Ok(()), Err)?;
        Ok(self.give(id, footprint))
    }

    /// The same for a new job that does not wait its turn: of the jobs from records only those that had begun go first.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub(crate) fn claim_at_once(&mut self, id: JobId, footprint: &Footprint) -> Result<Vec<Overwritten>, Conflict> {
        self.conflict_at_once(id, footprint).map_or(Ok(()), Err)?;
        Ok(self.give(id, footprint))
    }

    /// The conflict that [`claim`](Self::claim) would meet now.
    pub(crate) fn conflict(&self, id: JobId, footprint: &Footprint) -> Option<Conflict> {
        self.conflict_with_live(id, footprint)
            .or_else(|| self.conflict_with_kept(id, &footprint.lasting, id, footprint))
    }

    /// The conflict that [`claim_at_once`](Self::claim_at_once) would meet now.
    pub(crate) fn conflict_at_once(&self, id: JobId, footprint: &Footprint) -> Option<Conflict> {
        self.conflict_with_live(id, footprint).or_else(|| self.conflict_with_kept(id, &footprint.lasting, 1, footprint))
    }

    /// Keeps its bytes for a job that comes from a record and had begun, paused ones too, or that waits its turn: by lasting
    /// names, until it claims or is released. A new reservation takes the place of an old one.
    ///
    /// # Panics
    /// If the job has a claim, which keeps more.
    pub(crate) fn reserve(&mut self, id: JobId, lasting: &Lasting, rank: Rank) {
        assert!(!self.live.contains_key(&id), "job {id} has a claim: nothing is to be kept for it");
        self.unreserve(id);
        let number = match rank {
            Rank::Begun => 0,
            Rank::Waiting => id,
        };
        let mut entries = Vec::new();
        for (region, access, extent) in lasting.extents() {
            let kind = Kind { access, exact: extent.exact };
            let had = Had::new(id, region, extent);
            entries.push(self.reserved.enter(&extent.medium, extent.bytes.clone(), kind, number, had));
        }
        self.kept.insert(id, Reservation { rank, entries: entries.into() });
    }

    /// A job that waits its turn has asked for its claim, or is held: it gives up its place among those that wait. Nothing for
    /// one that had begun: its bytes are kept for it all the same.
    pub(crate) fn has_asked(&mut self, id: JobId) {
        if self.kept.get(&id).is_some_and(|kept| kept.rank == Rank::Waiting) {
            self.unreserve(id);
        }
    }

    /// Takes back a job's claim or reservation, if it has one.
    pub(crate) fn release(&mut self, id: JobId) {
        self.unreserve(id);
        for (_, entry) in self.live.remove(&id).into_iter().flatten() {
            self.held.leave(&entry);
        }
    }

    /// The same, but for destinations where a write of the job is still under way: nobody else has them before
    /// [`release_late`](Self::release_late).
    pub(crate) fn release_but(&mut self, id: JobId, dests: ErrorBits) {
        let Some(entries) = self.live.get_mut(&id).filter(|_| !dests.is_empty()) else { return self.release(id) };
        let is_late = |region: RegionCode| dests.iter().any(|index| region == RegionCode::from(Region::Dest(index)));
        let late = entries.extract_if(.., |(region, _)| is_late(*region)).collect();
        self.late.insert(id, late);
        self.release(id);
    }

    /// The last write that was under way at a destination when the job ended has come to its end.
    pub(crate) fn release_late(&mut self, id: JobId, index: usize) {
        let Some(entries) = self.late.get_mut(&id) else { return };
        for (_, entry) in entries.extract_if(.., |(region, _)| *region == RegionCode::from(Region::Dest(index))) {
            self.held.leave(&entry);
        }
        if entries.is_empty() {
            self.late.remove(&id);
        }
    }

    /// Whether a write of a job that has ended is still under way somewhere.
    #[cfg(test)]
    pub(crate) fn has_late(&self, id: JobId) -> bool {
        self.late.contains_key(&id)
    }

    /// Takes back what a job with a claim has of a destination.
    pub(crate) fn release_dest(&mut self, id: JobId, index: usize) {
        let Some(entries) = self.live.get_mut(&id) else { return };
        for (_, entry) in entries.extract_if(.., |(region, _)| *region == RegionCode::from(Region::Dest(index))) {
            self.held.leave(&entry);
        }
    }

    /// What is reserved for a job is that from now on, where something is.
    pub(crate) fn keep_only(&mut self, id: JobId, lasting: &Lasting) {
        if let Some(rank) = self.kept.get(&id).map(|kept| kept.rank) {
            self.reserve(id, lasting, rank);
        }
    }

    /// Remembers what a job that has ended, or waits and has data, had copied from and written to: it is told when somebody
    /// else writes there. What was remembered of it before is forgotten.
    ///
    /// # Panics
    /// If the job has a claim: nobody else can write there.
    pub(crate) fn remember(&mut self, id: JobId, lasting: &Lasting) {
        assert!(!self.live.contains_key(&id), "job {id} has a claim: nothing is to be remembered of it");
        self.forget(id);
        let mut entries = Vec::new();
        for (region, _, extent) in lasting.extents() {
            let kind = Kind { access: Access::Write, exact: extent.exact };
            let had = Had::new(id, region, extent);
            entries.push((region.into(), self.remembered.enter(&extent.medium, extent.bytes.clone(), kind, 0, had)));
        }
        entries.shrink_to_fit();
        if !entries.is_empty() {
            self.memory.insert(id, Memory { sectors: lasting.sectors, entries });
        }
    }

    /// Whatever is written where that job had been, it need not know.
    pub(crate) fn forget(&mut self, id: JobId) {
        for (_, entry) in self.memory.remove(&id).into_iter().flat_map(|memory| memory.entries) {
            self.remembered.leave(&entry);
        }
    }

    /// A job with a claim that writes any of those bytes.
    pub(crate) fn writer_of(&self, extents: &[Extent]) -> Option<JobId> {
        extents.iter().find_map(|extent| {
            let bytes = (&extent.place, &extent.bytes, true);
            self.held.find(bytes, Access::Write, u64::MAX, &|_| true).map(|held| held.owner)
        })
    }

    /// Whether the job has a claim.
    #[cfg(test)]
    pub(crate) fn has_claim(&self, id: JobId) -> bool {
        self.live.contains_key(&id)
    }

    /// Whether nothing is claimed, kept or remembered.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.reserved.is_empty() && self.remembered.is_empty()
    }

    fn conflict_with_live(&self, id: JobId, footprint: &Footprint) -> Option<Conflict> {
        footprint.regions().find_map(|(region, access, extents)| {
            extents.iter().find_map(|extent| {
                let bytes = (&extent.place, &extent.bytes, extent.exact);
                let others = |held: &Held| held.owner != id;
                let find = |theirs| Some((self.held.find(bytes, theirs, u64::MAX, &others)?, theirs));
                let (held, theirs) = in_the_way(access).iter().find_map(|theirs| find(*theirs))?;
                Some(Conflict::live(held.owner, region, &extent.path, theirs, &held.path))
            })
        })
    }

    /// With those that are kept and whose rank is below `below`.
    fn conflict_with_kept(&self, id: JobId, lasting: &Lasting, below: u64, footprint: &Footprint) -> Option<Conflict> {
        if self.kept.get(&id).is_some_and(|kept| kept.rank == Rank::Begun) {
            return None;
        }
        lasting.extents().find_map(|(region, access, extent)| {
            let bytes = (&*extent.medium, &extent.bytes, extent.exact);
            let find = |theirs| self.reserved.find(bytes, theirs, below, &|had| had.owner != id);
            let had = in_the_way(access).iter().find_map(|theirs| find(*theirs))?;
            Some(Conflict::kept(had.owner, self.kept[&had.owner].rank, region, &footprint.path(region)))
        })
    }

    fn give(&mut self, id: JobId, footprint: &Footprint) -> Vec<Overwritten> {
        assert!(!self.live.contains_key(&id), "job {id} has a claim already");
        self.unreserve(id);
        self.forget(id);
        let mut entries = Vec::new();
        for (region, access, extents) in footprint.regions() {
            for extent in extents.iter().filter(|extent| !extent.bytes.is_empty()) {
                let kind = Kind { access, exact: extent.exact };
                let held = Held { owner: id, path: Arc::clone(&extent.path) };
                entries.push((region.into(), self.held.enter(&extent.place, extent.bytes.clone(), kind, 0, held)));
            }
        }
        entries.shrink_to_fit();
        self.live.insert(id, entries);
        self.lose(&footprint.lasting)
    }

    fn unreserve(&mut self, id: JobId) {
        for entry in self.kept.remove(&id).into_iter().flat_map(|kept| kept.entries) {
            self.reserved.leave(&entry);
        }
    }

    /// What is remembered and will be overwritten. What is lost whole is forgotten.
    fn lose(&mut self, writer: &Lasting) -> Vec<Overwritten> {
        let mut losses = Losses::default();
        for (_, access, extent) in writer.extents() {
            if access == Access::Write {
                self.find_losses(extent, &mut losses);
            }
        }
        for id in losses.losers() {
            let Some(memory) = self.memory.get_mut(&id) else { continue };
            let is_lost =
                |(region, entry): &mut (RegionCode, Entry<_>)| losses.is_lost(id, (*region).into(), entry.number());
            let lost: Vec<_> = memory.entries.extract_if(.., is_lost).collect();
            if memory.entries.is_empty() {
                self.memory.remove(&id);
            }
            for (_, entry) in lost {
                self.remembered.leave(&entry);
            }
        }
        losses.told()
    }

    fn find_losses(&self, extent: &LastingExtent, losses: &mut Losses) {
        let bytes = (&*extent.medium, &extent.bytes, extent.exact);
        self.remembered.each(bytes, Access::Write, |theirs, number, had| {
            let sectors = self.memory[&had.owner].sectors;
            losses.add(had, sectors, (theirs, number), &extent.bytes);
        });
    }
}

/// What may not be done by another where `access` is wanted.
fn in_the_way(access: Access) -> &'static [Access] {
    match access {
        Access::Read => &[Access::Write],
        Access::Write => &[Access::Write, Access::Read],
    }
}

#[cfg(test)]
mod tests;
