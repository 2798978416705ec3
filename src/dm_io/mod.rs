//! Synchronous and asynchronous I/O to one or many regions: the kernel's dm-io in user space.
//!
//! | dm-io.txt | here | what differs, and why |
//! |---|---|---|
//! | `struct io_region` | [`IoRegion`] | the device is reference counted, so it cannot close under an I/O |
//! | `dm_io_get(pages)`, `dm_io_put(pages)` | [`DmIo::get`], [`DmIo::put`] | on a client, whose pages come from the shared pool |
//! | `dm_io_sync`, `dm_io_async` | [`DmIo::sync`], [`DmIo::start`] | the page list is lent or handed over, and comes back |
//! | `dm_io_sync_bvec`, `dm_io_async_bvec` | the same with [`Memory::Bvec`] | one pair of calls takes the three kinds of memory |
//! | `dm_io_sync_vm`, `dm_io_async_vm` | the same with [`Memory::Vm`] | |
//! | `io_notify_fn(error, context)` | a closure of [`ErrorBits`], the memory and the context | memory in flight belongs to the engine |
//! | `error_bits` | [`ErrorBits`] | 64 bits on every machine |
//!
//! # What it promises
//! * A read takes one region, a write 1 to 64. A failed region sets its bit and no other. A region of count 0 is passed
//!   over. Reading several regions is `EIO`.
//! * A failed read leaves zeros where no data came.
//! * A short transfer is finished, or is an error where the device ends inside it.
//! * All callbacks of a client come from its one thread, one after the other.

mod client;
mod core;
mod memory;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use client::{DmIo, Done, Rw};
pub(crate) use core::{Core, Finished};
pub use memory::{BioVec, Memory};

use crate::blkdev::Device;
use crate::sector::Sector;

/// Regions of one write at most: the bits of an [`ErrorBits`].
pub const MAX_REGIONS: usize = 64;

/// A device, the first sector and the count of sectors (`struct io_region` of dm-io.txt).
#[derive(Clone, Debug)]
pub struct IoRegion {
    /// The device (`bdev`).
    pub device: Arc<Device>,
    /// First sector.
    pub sector: Sector,
    /// How many.
    pub count: Sector,
}

impl IoRegion {
    /// A region of that device.
    pub fn new(device: &Arc<Device>, sector: Sector, count: Sector) -> Self {
        Self { device: Arc::clone(device), sector, count }
    }

    /// Whether both are of one device, by [`Device::target`], and share sectors.
    pub fn overlaps(&self, other: &Self) -> bool {
        let end = |region: &Self| region.sector.get() + region.count.get();
        self.device.target() == other.device.target()
            && self.sector.get() < end(other)
            && other.sector.get() < end(self)
    }
}

/// Success or failure of each region (`error_bits` of dm-io.txt): bit i is set if region i failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorBits(u64);

impl ErrorBits {
    /// No region failed.
    pub const NONE: Self = Self(0);

    /// As a number.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From a number.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits 0 to `count` - 1.
    pub const fn first(count: usize) -> Self {
        Self(if count >= MAX_REGIONS { u64::MAX } else { (1 << count) - 1 })
    }

    /// The bit of region `index` alone.
    ///
    /// # Panics
    /// If there is no such bit.
    pub const fn only(index: usize) -> Self {
        let mut bits = Self::NONE;
        bits.set(index);
        bits
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether region `index` failed.
    pub const fn contains(self, index: usize) -> bool {
        index < MAX_REGIONS && self.0 & (1 << index) != 0
    }

    /// Sets the bit of region `index`.
    ///
    /// # Panics
    /// If there is no such bit.
    pub const fn set(&mut self, index: usize) {
        assert!(index < MAX_REGIONS);
        self.0 |= 1 << index;
    }

    /// The bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The numbers of the bits that are set, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_REGIONS).filter(move |index| self.contains(*index))
    }

    /// How many bits are set.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Display for ErrorBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
