//! Sectors: the unit of every position and length, whatever the device.
//!
//! A [`Sector`] counts units of 512 bytes, as the kernel's `sector_t` does. It has checked arithmetic only: a sum that
//! leaves the addressable range is `None`, never a small number that points at the wrong place.
//!
//! # Invariants
//! Every `Sector` is at most [`Sector::MAX`], so its byte position always fits the kernel's signed 64-bit offsets.

use std::fmt;

/// Bytes in a sector, whatever the device's logical block.
pub const SECTOR_SIZE: u64 = 512;

/// A position or a length in units of 512 bytes (the kernel's `sector_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(u64);

impl Sector {
    /// Sector 0, and the empty length.
    pub const ZERO: Self = Self(0);
    /// The last sector whose byte position is a valid file offset.
    pub const MAX: Self = Self(i64::MAX as u64 / SECTOR_SIZE);

    /// The sector of that number, or `None` beyond [`Sector::MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// As many sectors as `bytes` make, or `None` where that is not a whole number or too large.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes.is_multiple_of(SECTOR_SIZE) { Self::new(bytes / SECTOR_SIZE) } else { None }
    }

    /// As many whole sectors as lie in `bytes`; the rest is cut off.
    pub const fn whole_in(bytes: u64) -> Self {
        let number = bytes / SECTOR_SIZE;
        if number <= Self::MAX.0 { Self(number) } else { Self::MAX }
    }

    /// The number itself, in sectors.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same in bytes. Cannot overflow: see the invariant.
    pub const fn bytes(self) -> u64 {
        self.0 * SECTOR_SIZE
    }

    /// `self + other`, or `None` beyond [`Sector::MAX`].
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        Self::new(self.0 + other.0)
    }

    /// `self - other`, or `None` below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Whether this is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether a device of `logical_block` bytes can address it. `logical_block` is a multiple of 512.
    pub const fn is_aligned(self, logical_block: u32) -> bool {
        self.bytes().is_multiple_of(logical_block as u64)
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_checked_at_both_ends() {
        let one = Sector::new(1).unwrap();
        assert_eq!(Sector::MAX.checked_add(one), None);
        assert_eq!(Sector::ZERO.checked_sub(one), None);
        assert_eq!(Sector::new(Sector::MAX.get() + 1), None);
        assert!(i64::try_from(Sector::MAX.bytes()).is_ok());
    }

    #[test]
    fn bytes_must_be_whole_sectors() {
        assert_eq!(Sector::from_bytes(1024).map(Sector::get), Some(2));
        assert_eq!(Sector::from_bytes(1000), None);
        assert_eq!(Sector::whole_in(1000).get(), 1);
    }

    #[test]
    fn alignment_is_the_devices() {
        assert!(Sector::new(8).unwrap().is_aligned(4096));
        assert!(!Sector::new(9).unwrap().is_aligned(4096));
    }
}
