//! Which job reads and writes which bytes, so that no two live jobs destroy each other's work.
//!
//! A job claims the [`Extent`]s of its regions, at every level at once, and holds a [`Claim`] as long as it lives. All
//! or nothing: a refused claim leaves no trace. One table, one lock, held for the time of a few searches; nobody waits
//! in it.
//!
//! # Invariants
//! No write in the table overlaps a read or a write of another owner.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::extent::{Extent, Place};
use super::intervals::Intervals;
use crate::error::{Error, ErrorKind};

/// The table of claims, shared by all jobs. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    table: Arc<Mutex<Table>>,
}

/// A job's hold on its bytes; dropping it releases them.
#[must_use = "dropping a claim releases it at once"]
#[derive(Debug)]
pub struct Claim {
    table: Arc<Mutex<Table>>,
    entries: Vec<Entry>,
}

/// Why a claim was refused.
#[derive(Debug)]
pub struct Conflict {
    /// The job that is in the way. `queue` waits for its end, and claims again.
    pub owner: u64,
    /// What is said before and after its name.
    around: [String; 2],
}

/// What is done to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Who has an extent, and by which name.
#[derive(Debug)]
struct Held {
    owner: u64,
    path: Arc<Path>,
}

/// The extents of one place, by access and exactness.
#[derive(Debug, Default)]
struct Ranges([Intervals<Held>; 4]);

#[derive(Debug, Default)]
struct Table {
    places: HashMap<Place, Ranges>,
    /// Numbers given to extents so far.
    numbers: u64,
}

/// Where an extent of a claim is in the table.
#[derive(Debug)]
struct Entry {
    place: Place,
    list: usize,
    start: u64,
    number: u64,
}

impl Claims {
    /// Claims `reads` and `writes` for the job `owner`. A job is never in its own way: see [`overlap_within`].
    ///
    /// # Errors
    /// Where another job writes what is to be read or written, or reads what is to be written.
    pub fn claim(&self, owner: u64, reads: Vec<Extent>, writes: Vec<Extent>) -> Result<Claim, Conflict> {
        let mut table = self.table.lock();
        if let Some(conflict) = table.conflict(owner, &reads, &writes) {
            return Err(conflict);
        }
        let reads = reads.into_iter().map(|extent| (extent, Access::Read));
        let writes = writes.into_iter().map(|extent| (extent, Access::Write));
        let wanted = reads.chain(writes).filter(|(extent, _)| !extent.bytes.is_empty());
        let entries = wanted.map(|(extent, access)| table.enter(owner, extent, access)).collect();
        Ok(Claim { table: Arc::clone(&self.table), entries })
    }

    /// The conflict that [`claim`](Self::claim) would meet now.
    pub fn conflicts_with(&self, owner: u64, reads: &[Extent], writes: &[Extent]) -> Option<Conflict> {
        self.table.lock().conflict(owner, reads, writes)
    }

    /// A job that writes any of those bytes.
    pub fn writer_of(&self, extents: &[Extent]) -> Option<u64> {
        let table = self.table.lock();
        extents.iter().find_map(|extent| {
            let ranges = table.places.get(&extent.place)?;
            let exact = |exact| ranges.0[list(Access::Write, exact)].find(&extent.bytes, &|_| true);
            exact(true).or_else(|| exact(false)).map(|held| held.owner)
        })
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.table.lock().places.is_empty()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        for entry in self.entries.drain(..) {
            table.leave(&entry);
        }
    }
}

impl Table {
    fn conflict(&self, owner: u64, reads: &[Extent], writes: &[Extent]) -> Option<Conflict> {
        let writes = writes.iter().map(|extent| (extent, Access::Write));
        let reads = reads.iter().map(|extent| (extent, Access::Read));
        writes.chain(reads).find_map(|(extent, access)| self.conflict_of(owner, extent, access))
    }

    fn conflict_of(&self, owner: u64, extent: &Extent, access: Access) -> Option<Conflict> {
        if extent.bytes.is_empty() {
            return None;
        }
        let ranges = self.places.get(&extent.place)?;
        let other = |held: &Held| held.owner != owner;
        let look = |theirs| {
            // Two inexact extents do not meet: see `Extent::exact`.
            let exactness = if extent.exact { &[true, false][..] } else { &[true] };
            exactness.iter().find_map(|&exact| ranges.0[list(theirs, exact)].find(&extent.bytes, &other))
        };
        let found = |theirs| look(theirs).map(|held| Conflict::new(extent, held, theirs));
        found(Access::Write).or_else(|| if access == Access::Write { found(Access::Read) } else { None })
    }

    fn enter(&mut self, owner: u64, extent: Extent, access: Access) -> Entry {
        let Extent { place, bytes, exact, path, .. } = extent;
        let entry = Entry { place, list: list(access, exact), start: bytes.start, number: self.numbers };
        self.numbers += 1;
        let ranges = self.places.entry(entry.place.clone()).or_default();
        ranges.0[entry.list].insert(bytes, entry.number, Held { owner, path });
        entry
    }

    fn leave(&mut self, entry: &Entry) {
        let ranges = self.places.get_mut(&entry.place).expect("a claimed place is in the table");
        assert!(ranges.0[entry.list].remove(entry.start, entry.number), "a claimed extent is in the table");
        if ranges.0.iter().all(Intervals::is_empty) {
            self.places.remove(&entry.place);
        }
    }
}

const fn list(access: Access, exact: bool) -> usize {
    access as usize * 2 + exact as usize
}

impl Conflict {
    fn new(extent: &Extent, held: &Held, theirs: Access) -> Self {
        let Held { owner, path } = held;
        let done = match theirs {
            Access::Read => "read",
            Access::Write => "written",
        };
        let name = if *path == extent.path { String::new() } else { format!(", by the name {}", path.display()) };
        Self { owner: *owner, around: [format!("{} is being {done} by ", extent.path.display()), name] }
    }

    /// [`ErrorKind::Busy`], with a sentence that names the path and the owner, which is called `who`.
    pub fn error(&self, who: &str) -> Error {
        let [before, after] = &self.around;
        Error::new(ErrorKind::Busy, format!("{before}{who}{after}"))
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error(&format!("job {}", self.owner)).fmt(f)
    }
}

impl std::error::Error for Conflict {}

/// Whether a job is in its own way: the first destination that overlaps the source (`None`) or an earlier destination.
/// Destinations are few (64), so each is compared with each.
pub fn overlap_within(source: &[Extent], dests: &[Vec<Extent>]) -> Option<(usize, Option<usize>)> {
    let meet = |a: &[Extent], b: &[Extent]| a.iter().any(|a| b.iter().any(|b| a.overlaps(b)));
    dests.iter().enumerate().find_map(|(index, dest)| {
        if meet(source, dest) {
            return Some((index, None));
        }
        dests[..index].iter().position(|other| meet(other, dest)).map(|other| (index, Some(other)))
    })
}

#[cfg(test)]
mod tests;
