//! What lies below a block device, as sysfs tells it: the thin edge below [`super::extent`].
//!
//! Nothing here may block on a sick device. sysfs does not. Two things can, and are avoided: walking to a backing file
//! through FUSE or a network, and `LOOP_GET_STATUS64`, which asks the backing file's file system (over a dead FUSE file
//! it hangs for ever, unkillable). A dm device's table is asked for by number, with no flush. A loop's backing is therefore found in this order:
//! 1. its path, from sysfs. The kernel makes it anew at each reading, so it is right after a rename;
//! 2. on a file system that may never answer: the path itself is its identity, [`Place::Named`];
//! 3. of a device that we have open: `LOOP_GET_STATUS64`, right also when the file was deleted or its path belongs to
//!    another mount namespace;
//! 4. of another: stat of the path, and where that finds nothing, the device is opened read-only and asked as in 3.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::device::{Device, Target};
use super::dm::{self, On, Piece};
use super::extent::{Backing, Below, Place, Topology};
use super::sys;
use super::sysfs::{self, device_path, disk_of, node, number, numbers_in, partition};
use crate::os::mounts::Mounts;

/// What the kernel puts after the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// The system's topology, now.
pub(super) struct Sysfs<'a> {
    mounts: &'a Mounts,
    /// A device that is open, and the whole disk's number.
    own: Option<(&'a File, u64)>,
}

impl<'a> Sysfs<'a> {
    /// As seen without any open device.
    pub(super) fn new(mounts: &'a Mounts) -> Self {
        Self { mounts, own: None }
    }

    /// As seen with `device` open, which is asked itself.
    pub(super) fn of(device: &'a Device, mounts: &'a Mounts) -> Self {
        let own = match device.target() {
            Target::Block { rdev } => Some((device.file(), disk_of(rdev))),
            _ => None,
        };
        Self { mounts, own }
    }

    /// The name of an open regular file, where its file system may never answer those who ask by inode.
    pub(super) fn named(&self, device: &Device) -> Option<Place> {
        let path = fs::read_link(format!("/proc/self/fd/{}", device.file().as_raw_fd())).ok()?;
        named(&path, self.mounts)
    }

    fn loop_device(&self, dev: u64) -> Option<Below> {
        let group = node(dev).join("loop");
        let ask = |file: &File| sys::loop_info(file).ok().filter(|info| info.inode != 0);
        let below = |backing, offset, limit| {
            let limit = if limit == 0 { u64::MAX } else { limit };
            Some(Below::Loop { backing, offset, limit })
        };
        let known = settled_path(dev)?;
        if named(&known, self.mounts).is_none()
            && let Some(info) = self.own.filter(|(_, disk)| *disk == dev).and_then(|(file, _)| ask(file))
        {
            return below(backing_of(&info), info.offset, info.sizelimit);
        }
        let path = loop_path(dev)?;
        let backing = if let Some(place) = named(&path, self.mounts) {
            Backing::File(place)
        } else {
            let known = look(&path, self.mounts);
            let known = known.or_else(|| open_node(dev).as_ref().and_then(ask).as_ref().map(backing_of));
            known.unwrap_or(Backing::File(Place::Named { dev: 0, path: path.into() }))
        };
        let number = |name| number(&group.join(name)).unwrap_or(0);
        below(backing, number("offset"), number("sizelimit"))
    }
}

impl Topology for Sysfs<'_> {
    fn below(&self, dev: u64) -> Below {
        if let Some((disk, start, size)) = partition(dev) {
            return Below::Partition { disk, start, size };
        }
        if let Some(below) = self.loop_device(dev) {
            return below;
        }
        let slaves = numbers_in(&node(dev).join("slaves"));
        if let Some(pieces) = map(dev, &slaves) {
            return Below::Map(pieces);
        }
        if slaves.is_empty() { Below::Nothing } else { Below::Slaves(slaves) }
    }
}

/// The table of a dm device. What it is made of besides (a log, an origin) is somewhere below all of it.
fn map(dev: u64, slaves: &[u64]) -> Option<Vec<Piece>> {
    if !node(dev).join("dm").exists() {
        return None;
    }
    let mut pieces = sys::dm_table(dev).ok().and_then(|table| dm::pieces(&table.0))?;
    let is_named = |slave: &&u64| pieces.iter().flat_map(|piece| &piece.on).any(|on| on.dev() == **slave);
    let rest: Vec<_> = slaves.iter().filter(|slave| !is_named(slave)).map(|dev| On::Somewhere { dev: *dev }).collect();
    if !rest.is_empty() {
        pieces.push(Piece { bytes: 0..u64::MAX, on: rest });
    }
    Some(pieces)
}

/// Whether it is a loop device with a backing file.
pub(super) fn is_attached_loop(dev: u64) -> bool {
    settled_path(dev).is_some()
}

/// The path of a loop's backing file, while one is attached.
fn loop_path(dev: u64) -> Option<PathBuf> {
    path_in(sysfs::read(&backing_file_of(dev))?)
}

/// The same, as it was a moment ago: of the same file, which may have another name by now.
fn settled_path(dev: u64) -> Option<PathBuf> {
    path_in(sysfs::settled(&backing_file_of(dev))?.to_vec())
}

fn backing_file_of(dev: u64) -> PathBuf {
    node(dev).join("loop/backing_file")
}

fn path_in(mut text: Vec<u8>) -> Option<PathBuf> {
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    (!text.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(text)))
}

/// The file by its name, where its file system may never answer.
fn named(path: &Path, mounts: &Mounts) -> Option<Place> {
    let mount = mounts.holding(path).filter(|mount| mount.is_remote())?;
    Some(Place::Named { dev: mount.dev, path: mount.inside(path).into() })
}

/// The file by a look at its path, where no file system on the way may block.
fn look(path: &Path, mounts: &Mounts) -> Option<Backing> {
    if path.as_os_str().as_bytes().ends_with(DELETED) {
        return None;
    }
    find(path, mounts)
}

/// What a path leads to, unless looking could block.
pub(super) fn find(path: &Path, mounts: &Mounts) -> Option<Backing> {
    if !path.is_absolute() || mounts.may_block(path) {
        return None;
    }
    let meta = fs::metadata(path).ok()?;
    if meta.file_type().is_block_device() {
        return Some(Backing::Block(meta.rdev()));
    }
    meta.is_file().then(|| Backing::File(Place::File { dev: meta.dev(), ino: meta.ino() }))
}

fn backing_of(info: &sys::LoopInfo) -> Backing {
    match info.rdevice {
        0 => Backing::File(Place::File { dev: info.device, ino: info.inode }),
        dev => Backing::Block(dev),
    }
}

/// How a loop device lies on its file; `None` where asking for that could wait. `device` is the loop device, or a partition of it,
/// where that is open.
pub(super) fn loop_info(device: Option<&File>, dev: u64, mounts: &Mounts) -> Option<sys::LoopInfo> {
    if mounts.may_block(&settled_path(dev)?) {
        return None;
    }
    match device {
        Some(device) => sys::loop_info(device).ok(),
        None => sys::loop_info(&open_node(dev)?).ok(),
    }
}

/// The regular file on which a loop device lies as `info` says, open for being asked; `None` where that could wait, or the file is not
/// to be found by its path.
pub(super) fn backing_file(info: &sys::LoopInfo, dev: u64, mounts: &Mounts) -> Option<File> {
    let path = loop_path(dev).filter(|path| !mounts.may_block(path))?;
    open_file(&path, info)
}

/// The file that a loop device says it lies on, if the path leads there: that may have been deleted and taken by another file, or be of
/// another mount namespace.
fn open_file(path: &Path, info: &sys::LoopInfo) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    ((meta.dev(), meta.ino()) == (info.device, info.inode)).then_some(file)
}

/// A device by its number, read-only: to be asked, not read.
fn open_node(dev: u64) -> Option<File> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(device_path(dev)).ok()?;
    let meta = file.metadata().ok()?;
    (meta.file_type().is_block_device() && meta.rdev() == dev).then_some(file)
}
