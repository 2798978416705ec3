//! Inode numbers: which row of the table, and which of its copies, in 64 bits.
//!
//! The lowest 8 bits are the row's number plus one (so that the root, row 0, is FUSE's inode 1), the next 8 the part of
//! a name that counts within its directory (`dest.K`, a state), the upper 48 the number of the job, or of the client. Small
//! job numbers thus give inode numbers below 2^32, which 32-bit programs can stat.
//!
//! # Invariants
//! `Key::from_ino(key.ino()) == Some(key)` for every key with `id <= Key::ID_MAX`. A number is never used for two things:
//! job numbers are not reused.

use super::table;

/// One node of the tree: a row of the table, and which of its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Row of the table.
    pub(super) row: u8,
    /// Which one within its directory: K of `dest.K`, or which state.
    pub(super) sub: u8,
    /// The number of the job or client, or which inode of a file that has one for each lookup, or 0.
    pub(super) id: u64,
}

impl Key {
    /// The directory at the mount point.
    pub(super) const ROOT: Self = Self { row: 0, sub: 0, id: 0 };
    /// The largest number of a job that fits.
    pub(super) const ID_MAX: u64 = (1 << 48) - 1;

    /// The inode number.
    pub(super) const fn ino(self) -> u64 {
        (self.id << 16) | ((self.sub as u64) << 8) | (self.row as u64 + 1)
    }

    /// The node of an inode number, or `None` where no row has it.
    pub(super) fn from_ino(ino: u64) -> Option<Self> {
        let [low, sub, ..] = ino.to_le_bytes();
        let row = low.checked_sub(1)?;
        (usize::from(row) < table::nodes().len()).then_some(Self { row, sub, id: ino >> 16 })
    }

    /// The row itself.
    pub(super) fn node(self) -> &'static table::Node {
        &table::nodes()[usize::from(self.row)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for row in 0..u8::try_from(table::nodes().len()).unwrap() {
            for (sub, id) in [(0, 0), (63, 1), (255, Key::ID_MAX)] {
                let key = Key { row, sub, id };
                assert_eq!(Key::from_ino(key.ino()), Some(key));
            }
        }
        assert_eq!(Key::ROOT.ino(), 1);
        assert_eq!(Key::from_ino(0), None);
        assert_eq!(Key::from_ino(0xff), None);
    }
}
