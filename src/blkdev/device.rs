//! A device that is open: what it is, how large, how fine.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sys;
use crate::error::{Error, ErrorKind, Result};
use crate::sector::{SECTOR_SIZE, Sector};

/// The errno of a file that was deleted while it was written.
pub const DELETED: i32 = libc::ENOENT;
/// The errno of a file that was cut shorter while it was written.
pub const CUT: i32 = libc::ENXIO;

/// What a descriptor leads to, by fstat: two descriptors with equal targets reach the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A block device, by its number.
    Block {
        /// `st_rdev`.
        rdev: u64,
    },
    /// A regular file, by file system and inode.
    File {
        /// `st_dev`.
        dev: u64,
        /// `st_ino`.
        ino: u64,
    },
    /// A file in memory, made by [`Device::in_memory`].
    Memory {
        /// Counts up.
        serial: u64,
    },
}

/// An open block device or regular file (the `struct block_device` of the seeds). Dropping it closes it, which may wait for the
/// device or the file system, for ever if that does not answer.
///
/// # Invariants
/// `logical_block` is a power of two from 512; with direct I/O every transfer's position and length are multiples of it.
#[derive(Debug)]
pub struct Device {
    pub(super) file: File,
    pub(super) path: Arc<Path>,
    pub(super) target: Target,
    pub(super) size: Sector,
    pub(super) logical_block: u32,
    pub(super) memory_align: u32,
    pub(super) direct: bool,
    pub(super) sequential: bool,
}

impl Device {
    /// A device of `size` sectors in memory, that needs no root: for tests, of this crate and of its users.
    ///
    /// # Panics
    /// If `logical_block` is not a power of two from 512.
    pub fn in_memory(size: Sector, logical_block: u32) -> Result<Arc<Self>> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        assert!(logical_block.is_power_of_two() && u64::from(logical_block) >= SECTOR_SIZE);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let file = sys::memory_file(size.bytes()).map_err(|error| Error::os("a file in memory", error))?;
        Ok(Arc::new(Self {
            file,
            path: Path::new(&format!("memory:{serial}")).into(),
            target: Target::Memory { serial },
            size,
            logical_block,
            memory_align: 1,
            direct: false,
            sequential: false,
        }))
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the descriptor leads to.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Its size when it was opened. A regular destination file grows beyond it.
    pub fn size(&self) -> Sector {
        self.size
    }

    /// The smallest unit it addresses, in bytes.
    pub fn logical_block(&self) -> u32 {
        self.logical_block
    }

    /// What memory must be aligned to, in bytes.
    pub fn memory_align(&self) -> u32 {
        self.memory_align
    }

    /// Whether transfers pass the page cache by (`O_DIRECT`).
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether it is zoned: each zone takes writes in ascending order only.
    pub fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Whether a region may reach beyond its present end: a regular file grows, a device does not.
    pub fn can_grow(&self) -> bool {
        matches!(self.target, Target::File { .. })
    }

    /// The open file itself, for reading it outside the engine.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes a regular file at least long enough for a region that will be written whole, holes and all. Its last bytes are
    /// written as zeros; nothing is cut off, whoever else writes to it. It waits for the file system, which may never answer.
    pub fn stretch(&self, sector: Sector, count: Sector) -> Result<()> {
        let failed = |error| Error::os(format!("stretch {}", self.path.display()), error);
        let end = sector.bytes() + count.bytes();
        if count.is_zero() || self.file.metadata().map_err(failed)?.len() >= end {
            return Ok(());
        }
        // Through a descriptor of its own: direct I/O would ask for aligned memory.
        let through = format!("/proc/self/fd/{}", self.raw_fd());
        let plain = std::fs::OpenOptions::new().write(true).open(through).map_err(failed)?;
        plain.write_all_at(&[0], end - 1).map_err(failed)
    }

    /// Why what was written to a regular file is gone, by an errno: it has no name any more, or is shorter than it was when it
    /// was opened. Does not wait.
    pub fn loss(&self) -> Option<i32> {
        let Target::File { .. } = self.target else { return None };
        match sys::names_and_bytes(&self.file)? {
            (0, _) => Some(DELETED),
            (_, bytes) if bytes < self.size.bytes() => Some(CUT),
            _ => None,
        }
    }

    /// Keeps others from writing a region of a regular file, as the exclusive open of a block device does: a lock on its
    /// bytes, which also a write in flight of a process that was killed still holds. Other programs see it if they lock,
    /// too. Where a file system has no locks there is no fence. It waits for the file system, which may never answer.
    ///
    /// # Errors
    /// `Busy` where another open file has a part of it locked.
    pub fn fence(&self, sector: Sector, count: Sector) -> Result<()> {
        if count.is_zero() || !matches!(self.target, Target::File { .. }) {
            return Ok(());
        }
        match sys::lock_range(&self.file, sector.bytes(), count.bytes()) {
            Ok(false) => {
                let what = format!("{} is in use: another program has locked a part of it", self.path.display());
                Err(Error::new(ErrorKind::Busy, what))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Judges a region of this device: alignment, and its end where the device has one.
    pub fn check_region(&self, sector: Sector, count: Sector, writes: bool) -> Result<()> {
        let path = self.path.display();
        for (name, number) in [("SECTOR", sector), ("COUNT", count)] {
            if !number.is_aligned(self.logical_block) {
                let unit = u64::from(self.logical_block) / SECTOR_SIZE;
                let what = format!("{path}: {name} {number} is not a multiple of the device's block, {unit} sectors");
                return Err(Error::new(ErrorKind::Unaligned, what));
            }
        }
        let end = sector.checked_add(count);
        let fits = match end {
            Some(end) => end <= self.size || (writes && self.can_grow()),
            None => false,
        };
        if fits {
            return Ok(());
        }
        let size = self.size;
        let what = format!("{path}: {count} sectors from {sector} reach beyond its end, it has {size} sectors");
        Err(Error::new(ErrorKind::BeyondEnd, what))
    }
}
