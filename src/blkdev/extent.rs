//! Which bytes a region really reaches, whatever the name by which it is reached.
//!
//! A region of a device is followed downward: a partition to its disk, a loop device to its backing file or device, a
//! dm device by its table, an md device to its slaves. Each level it passes is an [`Extent`]; two regions that share bytes share them at
//! some level, so they are found by comparing extents of one [`Place`]. The walk is pure; what lies below a device
//! comes from a [`Topology`]; [`super::resolve()`] puts both together.
//!
//! A file does not claim the device below its file system: which of its blocks are the file's is known to the file
//! system alone. Nothing is lost by that: that device is mounted, and so refused as a destination unless it is forced.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::dm::Piece;
use crate::error::{Error, ErrorKind, Result};

/// Levels of devices over devices that are followed. The kernel's own stacks end long before; it bounds a loop in
/// what sysfs shows while devices change.
const MAX_DEPTH: u32 = 32;

/// Something that has bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A whole block device, never a partition, by its number.
    Disk {
        /// `st_rdev`.
        dev: u64,
    },
    /// A regular file, by file system and inode: hard links and bind mounts of it are one place.
    File {
        /// `st_dev`.
        dev: u64,
        /// `st_ino`.
        ino: u64,
    },
    /// A file of a file system that may never answer (FUSE, network), by its path there. Hard links are not seen.
    Named {
        /// Number of the file system, as in mountinfo.
        dev: u64,
        /// From the root of the file system.
        path: Box<Path>,
    },
    /// A [`Device::in_memory`](super::Device::in_memory).
    Memory {
        /// Its number.
        serial: u64,
    },
}

/// A range of bytes of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What it is a part of.
    pub place: Place,
    /// Which bytes; an end of `u64::MAX` is the end of the place.
    pub bytes: Range<u64>,
    /// False where it is only known that the bytes lie *somewhere in* the range: the slaves of an md device, the pool of a thin volume. Two
    /// such extents do not overlap: logical volumes of one group share their disks, and dm keeps them apart.
    pub exact: bool,
    /// Which byte of the region its first byte is; those after it follow. `None` where that is not known, or is not so: then
    /// any byte of the region may be any of these.
    pub at: Option<u64>,
    /// Whether it was reached through a device that is made of others: dm, md, bcache.
    pub mapped: bool,
    /// The path by which the region was opened, for messages.
    pub path: Arc<Path>,
}

impl Extent {
    /// Whether a write to one may change what the other holds.
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.exact || other.exact)
            && self.place == other.place
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

/// What lies below a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// Nothing that is known: it is the lowest.
    Nothing,
    /// A range of a disk; in bytes.
    Partition { disk: u64, start: u64, size: u64 },
    /// A loop device's backing, from `offset`, at most `limit` bytes.
    Loop { backing: Backing, offset: u64, limit: u64 },
    /// Other devices, in a way only the driver knows: md, bcache.
    Slaves(Vec<u64>),
    /// Other devices, as a table of device-mapper says.
    Map(Vec<Piece>),
}

/// What a loop device lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// A block device, by number.
    Block(u64),
    /// A file.
    File(Place),
}

/// What lies below what: the system's sysfs, or a test's own.
pub(super) trait Topology {
    fn below(&self, dev: u64) -> Below;
}

/// What is known of the bytes on the way down: see [`Extent::exact`] and [`Extent::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) exact: bool,
    pub(super) at: Option<u64>,
    pub(super) mapped: bool,
}

impl View {
    /// The region itself.
    pub(super) const TOP: Self = Self { exact: true, at: Some(0), mapped: false };
    /// Somewhere in a range of what a device is made of.
    const SOMEWHERE: Self = Self { exact: false, at: None, mapped: true };

    /// A part of it, `skipped` bytes from its beginning, in the order in which it was or not, in what a device is made of.
    fn part(self, skipped: u64, in_order: bool) -> Self {
        let at = self.at.filter(|_| in_order).map(|at| at.saturating_add(skipped));
        Self { exact: self.exact, at, mapped: true }
    }
}

/// One walk down from a device.
pub(super) struct Walk<'a, T> {
    topology: &'a T,
    path: Arc<Path>,
    pub(super) found: Vec<Extent>,
}

impl<'a, T: Topology> Walk<'a, T> {
    pub(super) fn new(topology: &'a T, path: impl Into<Arc<Path>>) -> Self {
        Self { topology, path: path.into(), found: Vec::new() }
    }

    /// Follows a range of a block device down to the lowest.
    pub(super) fn block(&mut self, dev: u64, bytes: Range<u64>) -> Result<()> {
        self.descend(dev, bytes, View::TOP, 0)
    }

    fn descend(&mut self, dev: u64, bytes: Range<u64>, view: View, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            let what = format!("{}: devices are stacked more than {MAX_DEPTH} deep", self.path.display());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let below = self.topology.below(dev);
        if let Below::Partition { disk, start, size } = below {
            return self.descend(disk, shift(&bytes, start, size), view, depth + 1);
        }
        if !self.enter(Place::Disk { dev }, bytes.clone(), view) {
            return Ok(());
        }
        match below {
            Below::Nothing | Below::Partition { .. } => Ok(()),
            Below::Loop { backing, offset, limit } => self.backing(backing, shift(&bytes, offset, limit), view, depth),
            Below::Map(pieces) => pieces.iter().try_for_each(|piece| self.piece(piece, &bytes, view, depth)),
            Below::Slaves(slaves) => {
                slaves.into_iter().try_for_each(|slave| self.descend(slave, 0..u64::MAX, View::SOMEWHERE, depth + 1))
            }
        }
    }

    /// What of `bytes` lies in a piece of a map.
    fn piece(&mut self, piece: &Piece, bytes: &Range<u64>, view: View, depth: u32) -> Result<()> {
        let (start, end) = (piece.bytes.start.max(bytes.start), piece.bytes.end.min(bytes.end));
        if start >= end {
            return Ok(());
        }
        let inside = start - piece.bytes.start..end - piece.bytes.start;
        piece.on.iter().try_for_each(|on| match on.below(&inside) {
            Some((below, in_order)) => {
                self.descend(on.dev(), below, view.part(start - bytes.start, in_order), depth + 1)
            }
            None => self.descend(on.dev(), 0..u64::MAX, View::SOMEWHERE, depth + 1),
        })
    }

    fn backing(&mut self, backing: Backing, bytes: Range<u64>, view: View, depth: u32) -> Result<()> {
        match backing {
            Backing::Block(dev) => self.descend(dev, bytes, view, depth + 1),
            Backing::File(place) => {
                self.enter(place, bytes, view);
                Ok(())
            }
        }
    }

    /// Takes an extent, unless it is empty or was seen.
    pub(super) fn enter(&mut self, place: Place, bytes: Range<u64>, View { exact, at, mapped }: View) -> bool {
        let extent = Extent { place, bytes, exact, at, mapped, path: Arc::clone(&self.path) };
        let new = !extent.bytes.is_empty() && !self.found.contains(&extent);
        if new {
            self.found.push(extent);
        }
        new
    }
}

/// A range of what lies at `offset` below, of which at most `limit` bytes are reached.
fn shift(bytes: &Range<u64>, offset: u64, limit: u64) -> Range<u64> {
    let at = |position: u64| position.min(limit).saturating_add(offset);
    at(bytes.start)..at(bytes.end)
}

#[cfg(test)]
pub(super) mod tests;
