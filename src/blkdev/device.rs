//! A device that is open: what it is, how large, how fine.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statfs::{self, FsType};

use super::discards::Discards;
use super::disk_lock::DiskLock;
use super::open::real_name;
use super::sys::{self, Lock};
use super::zones::Written;
use crate::error::{Error, ErrorKind, Result};
use crate::sector::{SECTOR_SIZE, Sector};

/// The errno of a file that was deleted while it was written.
pub const DELETED: i32 = libc::ENOENT;
/// The errno of a file or a device that was cut shorter while it was in use.
pub const CUT: i32 = libc::ENXIO;
/// The errno of a device that was removed while it was in use.
pub const GONE: i32 = libc::ENODEV;

/// The errno of a zone that holds other data than what is to be written, and takes no write there.
pub const HELD: i32 = libc::ENOTEMPTY;

/// `EXFAT_SUPER_MAGIC` of linux/magic.h.
const EXFAT: FsType = FsType(0x2011_bab0);

/// What a descriptor leads to, by fstat: two descriptors with equal targets reach the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Of a destination: its disk. Declared first, so that the disk is free when the file is closed, which tells udev.
    pub(super) disk_lock: Option<Arc<DiskLock>>,
    pub(super) file: File,
    pub(super) path: Arc<Path>,
    pub(super) target: Target,
    pub(super) size: Sector,
    /// A regular file has had so many bytes: of fewer some were cut off.
    pub(super) had_bytes: AtomicU64,
    pub(super) logical_block: u32,
    pub(super) memory_align: u32,
    pub(super) direct: bool,
    /// What its zones hold, where it is zoned.
    pub(super) zones: Option<Written>,
    /// How it takes discards, where it answers them with zeros.
    pub(super) discards: Option<Discards>,
    pub(super) made: bool,
}

impl Device {
    /// A device of `size` sectors in memory, that needs no root: for tests, of this crate and of its users.
    ///
    /// # Panics
    /// If `logical_block` is not a power of two from 512.
    pub fn in_memory(size: Sector, logical_block: u32) -> Result<Arc<Self>> {
        Self::memory(size, logical_block, None, None)
    }

    /// As [`Device::in_memory`], and said to be zoned: the engine writes it in ascending order. [`Sim`](crate::io::Sim) can hold it
    /// to that.
    ///
    /// # Panics
    /// If `logical_block` is not a power of two from 512.
    pub fn zoned_in_memory(size: Sector, logical_block: u32) -> Result<Arc<Self>> {
        Self::memory(size, logical_block, Some(Written::default()), None)
    }

    /// Has the place of a regular file that is not made yet, for a look at what would be done with it. `name` is the file's, by a
    /// path without links.
    pub(super) fn to_be_made(path: &Path, name: &Path) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let file = sys::memory_file(0).map_err(|error| Error::os("a file in memory", error))?;
        Ok(Self {
            disk_lock: None,
            file,
            path: path.into(),
            // One name is one file. Those in memory count up from 1.
            target: Target::Memory { serial: 1 << 63 | hasher.finish() },
            size: Sector::ZERO,
            had_bytes: AtomicU64::new(0),
            logical_block: 512,
            memory_align: 1,
            direct: false,
            zones: None,
            discards: None,
            made: true,
        })
    }

    /// A regular file as a device, read and written through the page cache.
    #[cfg(test)]
    pub(crate) fn buffered(path: &Path) -> Result<Arc<Self>> {
        let failed = |error| Error::os(path.display().to_string(), error);
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        Ok(Arc::new(Self {
            disk_lock: None,
            file,
            path: path.into(),
            target: Target::File { dev: meta.dev(), ino: meta.ino() },
            size: Sector::new(meta.len() / SECTOR_SIZE).expect("a small file"),
            had_bytes: AtomicU64::new(meta.len()),
            logical_block: 512,
            memory_align: 1,
            direct: false,
            zones: None,
            discards: None,
            made: false,
        }))
    }

    /// As [`Device::in_memory`], and said to answer discards of so many sectors, or a multiple, with zeros. [`Sim`](crate::io::Sim)
    /// can do so, or not.
    ///
    /// # Panics
    /// If `logical_block` is not a power of two from 512, or `granule` is no multiple of it.
    pub fn discarding_in_memory(size: Sector, logical_block: u32, granule: Sector) -> Result<Arc<Self>> {
        assert!(granule.is_aligned(logical_block) && !granule.is_zero());
        Self::memory(size, logical_block, None, Some(Discards::new(granule.bytes(), 0, false)))
    }

    /// The same, and a granule that is written in part may become something else in the rest.
    #[cfg(test)]
    pub(crate) fn zeroed_late_in_memory(size: Sector, granule: Sector) -> Result<Arc<Self>> {
        Self::memory(size, 512, None, Some(Discards::new(granule.bytes(), 0, true)))
    }

    fn memory(
        size: Sector,
        logical_block: u32,
        zones: Option<Written>,
        discards: Option<Discards>,
    ) -> Result<Arc<Self>> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        assert!(logical_block.is_power_of_two() && u64::from(logical_block) >= SECTOR_SIZE);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let file = sys::memory_file(size.bytes()).map_err(|error| Error::os("a file in memory", error))?;
        Ok(Arc::new(Self {
            disk_lock: None,
            file,
            path: Path::new(&format!("memory:{serial}")).into(),
            target: Target::Memory { serial },
            size,
            had_bytes: AtomicU64::new(size.bytes()),
            logical_block,
            memory_align: 1,
            direct: false,
            zones,
            discards,
            made: false,
        }))
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that the system has for it now; of a file that is not made yet, the one that it would have.
    ///
    /// # Errors
    /// Where /proc does not tell.
    pub fn name(&self) -> io::Result<PathBuf> {
        match self.target {
            Target::Memory { .. } if self.made => Ok(real_name(&self.path)),
            _ => std::fs::read_link(format!("/proc/self/fd/{}", self.raw_fd())),
        }
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
        self.zones.is_some()
    }

    /// Whether opening it made the file: it is the opener's to remove if nothing comes of it, see
    /// [`remove_made`](Self::remove_made).
    pub fn was_made(&self) -> bool {
        self.made
    }

    /// Removes a file that was made when it was opened, unless its name leads to another by now. Whoever else may have opened
    /// it since is the caller's to know.
    ///
    /// # Errors
    /// Where it is still there.
    pub fn remove_made(&self) -> Result<()> {
        self.made_file().map_or(Ok(()), |made| made.remove())
    }

    /// The file that opening it made, for who closes it and may have to remove it all the same.
    pub(crate) fn made_file(&self) -> Option<MadeFile> {
        let Target::File { dev, ino } = self.target else { return None };
        self.made.then(|| MadeFile { path: Arc::clone(&self.path), dev, ino })
    }

    /// Whether a region may reach beyond its present end: a regular file grows, a device does not.
    pub fn can_grow(&self) -> bool {
        self.made || matches!(self.target, Target::File { .. })
    }

    /// The open file itself, for reading it outside the engine.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes a regular file at least long enough for a region that will be written, holes and all: then what stays unwritten
    /// reads as zeros, and [`Device::loss`] sees whatever is cut off. Its last byte is written as a zero; nothing is cut off,
    /// whoever else writes to it. It waits for the file system, which may never answer.
    pub fn stretch(&self, sector: Sector, count: Sector) -> Result<()> {
        let failed = |error| Error::os(format!("stretch {}", self.path.display()), error);
        let end = sector.bytes() + count.bytes();
        if count.is_zero() {
            return Ok(());
        }
        if self.file.metadata().map_err(failed)?.len() < end {
            // Through a descriptor of its own: direct I/O would ask for aligned memory.
            let through = format!("/proc/self/fd/{}", self.raw_fd());
            let plain = std::fs::OpenOptions::new().write(true).open(through).map_err(failed)?;
            plain.write_all_at(&[0], end - 1).map_err(failed)?;
        }
        self.had_bytes.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a file that is stretched costs nothing: what is not written is a hole. FAT and exFAT have none and write zeros,
    /// which may take as long as a copy.
    pub(crate) fn has_holes(&self) -> bool {
        let kind = statfs::fstatfs(&self.file).map(|stat| stat.filesystem_type());
        kind.is_ok_and(|kind| ![statfs::MSDOS_SUPER_MAGIC, EXFAT].contains(&kind))
    }

    /// Why what was written to a regular file is gone, by an errno: it has no name any more, or is shorter than it was when it
    /// was opened or stretched. Does not wait.
    pub fn loss(&self) -> Option<i32> {
        let Target::File { .. } = self.target else { return None };
        match sys::names_and_bytes(&self.file)? {
            (0, _) => Some(DELETED),
            (_, bytes) if bytes < self.had_bytes.load(Ordering::Relaxed) => Some(CUT),
            _ => None,
        }
    }

    /// The errno of a transfer that failed with `errno` and ends at byte `end`. A block device that was removed has no size any
    /// more, and answers a write with ENOSPC and a read with nothing, as one that was cut does beyond its end: that is told as
    /// [`GONE`] and [`CUT`]. Does not wait.
    pub(crate) fn explain(&self, errno: i32, end: u64) -> i32 {
        let Target::Block { .. } = self.target else { return errno };
        match sys::block_size_bytes(&self.file) {
            Ok(0) => GONE,
            Ok(size) if size < end => CUT,
            _ => errno,
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
        match sys::lock_range(&self.file, Lock::Write, sector.bytes(), count.bytes()) {
            Ok(false) => Err(self.fenced()),
            _ => Ok(()),
        }
    }

    /// What [`fence`](Self::fence) would say. Takes no lock.
    ///
    /// # Errors
    /// As `fence`.
    pub fn check_fence(&self, sector: Sector, count: Sector) -> Result<()> {
        let is_file = matches!(self.target, Target::File { .. });
        if is_file
            && !count.is_zero()
            && sys::is_range_locked(&self.file, sector.bytes(), count.bytes()).unwrap_or(false)
        {
            return Err(self.fenced());
        }
        Ok(())
    }

    fn fenced(&self) -> Error {
        let what = format!("{} is in use: another program has locked a part of it", self.path.display());
        Error::new(ErrorKind::Busy, what)
    }

    /// Reads so many bytes, outside the engine: whole blocks where it is direct I/O. May wait for the device.
    ///
    /// # Errors
    /// The system's, and where the device is shorter.
    pub fn read_bytes(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let block = if self.direct { u64::from(self.logical_block) } else { 1 };
        let (first, end) = (offset / block * block, (offset + count as u64).next_multiple_of(block));
        let whole = usize::try_from(end - first).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let align = usize::try_from(self.memory_align).unwrap_or(1).max(1);
        let mut memory = vec![0_u8; whole + align];
        // Direct I/O asks for memory that begins at a multiple of this.
        let pad = memory.as_ptr().align_offset(align).min(align);
        let bytes = &mut memory[pad..pad + whole];
        self.file.read_exact_at(bytes, first)?;
        let skip = usize::try_from(offset - first).unwrap_or(0);
        Ok(bytes[skip..skip + count].to_vec())
    }

    /// Takes a fence back.
    fn unfence(&self, sector: Sector, count: Sector) {
        if !count.is_zero() && matches!(self.target, Target::File { .. }) {
            // Where it fails there was no lock.
            let _ = sys::lock_range(&self.file, Lock::None, sector.bytes(), count.bytes());
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

/// A file that was made when it was opened.
#[derive(Debug)]
pub(crate) struct MadeFile {
    path: Arc<Path>,
    dev: u64,
    ino: u64,
}

impl MadeFile {
    /// As [`Device::remove_made`].
    pub(crate) fn remove(&self) -> Result<()> {
        let is_it = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (self.dev, self.ino);
        if !std::fs::symlink_metadata(&self.path).is_ok_and(is_it) {
            return Ok(());
        }
        std::fs::remove_file(&self.path).map_err(|error| Error::os(format!("remove {}", self.path.display()), error))
    }
}

/// [`Device::fence`] for each of several regions, or for none: a job that cannot have all keeps no other from any.
///
/// # Errors
/// Which region it was, counted from 0, and why.
pub fn fence_all(regions: &[(&Device, Sector, Sector)]) -> std::result::Result<(), (usize, Error)> {
    for (index, (device, sector, count)) in regions.iter().enumerate() {
        if let Err(error) = device.fence(*sector, *count) {
            for (device, sector, count) in &regions[..index] {
                device.unfence(*sector, *count);
            }
            return Err((index, error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::blkdev::{OpenDest, fence_all, open_dest};
    use crate::{ErrorKind, Sector};

    #[test]
    fn a_fence_that_fails_leaves_none_behind() {
        let folder = tempfile::tempdir().unwrap();
        let [free, taken] = ["free", "taken"].map(|name| folder.path().join(name));
        let how = OpenDest { create: true, aligned_to: 4096, ..OpenDest::default() };
        let open = |path| open_dest(path, how).unwrap();
        let [one, two, other] = [open(&free), open(&taken), open(&taken)];
        let (begin, count) = (Sector::ZERO, Sector::new(8).unwrap());
        fence_all(&[(&other, begin, count)]).unwrap();
        let (index, error) = fence_all(&[(&one, begin, count), (&two, begin, count)]).unwrap_err();
        assert_eq!((index, error.kind()), (1, ErrorKind::Busy));
        fence_all(&[(&open(&free), begin, count)]).unwrap();
    }

    #[test]
    fn who_made_a_file_knows_and_removes_only_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let how = OpenDest { create: true, aligned_to: 4096, ..OpenDest::default() };
        let [maker, second] = [open_dest(&path, how).unwrap(), open_dest(&path, how).unwrap()];
        assert!(maker.was_made() && !second.was_made());
        second.remove_made().unwrap();
        assert!(path.exists());
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::write(&path, "another's").unwrap();
        maker.remove_made().unwrap();
        assert!(path.exists());
        std::fs::rename(folder.path().join("old"), &path).unwrap();
        maker.remove_made().unwrap();
        maker.remove_made().unwrap();
        assert!(!path.exists());
    }
}
