//! How a device is recognised after a restart: by what lasts, never by its name.
//!
//! An identity is a line of printable ASCII, `KIND:VALUE`, then `;KEY=VALUE`; last, `;on=` and the identity of what it lies
//! on:
//!
//! | kind | what it names |
//! |---|---|
//! | `dm`, `md`, `wwid`, `serial`, `cid` | a disk, by what device-mapper, md or the hardware call it |
//! | `part` | a partition, by its PARTUUID or by number and first sector, on a disk |
//! | `loop` | a loop device, by offset and size limit, on a file |
//! | `inode` | a regular file, by inode and birth, on a file system |
//! | `uuid`, `fsid` | a file system |
//! | `boot` | a disk or a mount that nothing else is known of: good until the machine or the device goes |
//!
//! Block devices tell their size too, so that one that was resized is not the same. Two that are equal in all of this are
//! taken for one; where a thing lasting is missing (an unset serial, a file system whose inodes change their numbers) the
//! next best is used, never a name.
//!
//! sysfs is read in `disk`, which knows nothing of open files; the rest asks the descriptor itself.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use super::device::{Device, Target};
use super::settled::Settled;
use super::sys::LoopInfo;
use super::sysfs::disk_of;
use super::topology;
use crate::os::mounts::Mounts;

mod disk;
mod sys;

use disk::Node;

/// Loop devices over files on loop devices: deeper than this is nobody's disk.
const MAX_DEPTH: u32 = 4;

/// File systems whose inodes keep their numbers for life, and whether their file system id is made of their UUID rather
/// than of the number of the device they are mounted from. Magic numbers of linux/magic.h, and of ZFS and bcachefs.
const LASTING_INODES: &[(i64, bool)] = &[
    (0xef53, true),       // ext2, ext3, ext4
    (0x9123_683e, true),  // btrfs
    (0x2fc1_2fc1, true),  // zfs
    (0x0102_1994, true),  // tmpfs: its UUID is new with each mount, as its content is
    (0x5846_5342, false), // xfs
    (0xf2f5_2010, false), // f2fs
    (0xca45_1a4e, false), // bcachefs
];

/// What a device can be recognised by after a restart, of the daemon or of the machine. `None` where nothing is known.
///
/// It asks no file system that may never answer for a loop device's file: a loop device over such a file is known until it is
/// detached. A file that is given itself is asked.
///
/// # Examples
/// ```
/// use kcopyfs::blkdev::{identity, open_source};
///
/// let folder = tempfile::tempdir()?;
/// let (before, after) = (folder.path().join("disk.img"), folder.path().join("renamed.img"));
/// std::fs::write(&before, [0; 4096])?;
/// let known = identity(&*open_source(&before, 4096)?);
/// std::fs::rename(&before, &after)?;
/// assert_eq!(identity(&*open_source(&after, 4096)?), known);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn identity(device: &Device) -> Option<String> {
    match device.target() {
        Target::Memory { .. } => None,
        Target::Block { .. } | Target::File { .. } => of(device.file(), 0),
    }
}

/// The name of the bytes of a whole disk, by its number: see [`super::lasting()`].
pub(super) fn medium_of_disk(dev: u64) -> Option<String> {
    disk::medium(&Node::of(Path::new("/sys"), dev), boot_id()?)
}

/// The name of the bytes of an open regular file.
pub(super) fn medium_of_file(file: &File) -> Option<String> {
    of_regular(file)
}

/// The name of the bytes of the regular file below a loop device, as `info` says.
pub(super) fn medium_below_loop(info: &LoopInfo, dev: u64, mounts: &Mounts) -> Option<String> {
    below_loop(info, dev, mounts, 0)
}

/// The identity of an open block device or regular file.
fn of(file: &File, depth: u32) -> Option<String> {
    let meta = file.metadata().ok().filter(|_| depth < MAX_DEPTH)?;
    if meta.file_type().is_block_device() {
        let over = |node: &Node| of_loop(file, disk_of(meta.rdev()), node, depth);
        return disk::identity(&Node::of(Path::new("/sys"), meta.rdev()), over, boot_id());
    }
    if meta.is_file() { of_regular(file) } else { None }
}

/// A loop device, by what it is over, where nobody who may never answer has to be asked for that. `file` is the device, or a
/// partition of it.
fn of_loop(file: &File, dev: u64, node: &Node, depth: u32) -> Option<String> {
    let mounts = Mounts::read().ok()?;
    let info = topology::loop_info(Some(file), dev, &mounts)?;
    let below = below_loop(&info, dev, &mounts, depth)?;
    Some(format!("loop:{}+{}{};on={below}", info.offset, info.sizelimit, node.sectors()))
}

/// What a loop device is over, as `info` says. As long as it is attached no other file has that inode.
fn below_loop(info: &LoopInfo, dev: u64, mounts: &Mounts, depth: u32) -> Option<String> {
    static FILES: Settled<(u64, u64), Option<String>> = Settled::new();
    FILES.get(&(info.device, info.inode), || {
        let found = topology::backing_file(info, dev, mounts).and_then(|file| of(&file, depth + 1));
        if found.is_some() { Ok(found) } else { Err(None) }
    })
}

/// A regular file, by its inode. Inodes are used again, so that the number says nothing without the birth. Clocks are coarse:
/// where there is a generation, it tells two apart that were born in the same moment.
fn of_regular(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.map(|time| format!(";born={}.{:09}", time.as_secs(), time.subsec_nanos()));
    let generation = sys::generation(file).ok().map(|number| format!(";generation={number:08x}"));
    if born.is_none() && generation.is_none() {
        return None;
    }
    let birth = born.into_iter().chain(generation).collect::<String>();
    let on = file_system(file, meta.dev()).or_else(|| {
        let mount = sys::mount_id(file)?;
        Some(format!("boot:{};mount={mount}", boot_id()?))
    })?;
    Some(format!("inode:{}{birth};on={on}", meta.ino()))
}

/// The file system that a file is on, where its inodes last as long as itself.
fn file_system(file: &File, dev: u64) -> Option<String> {
    let (magic, fsid) = sys::file_system(file).ok()?;
    let (_, fsid_lasts) = LASTING_INODES.iter().find(|(known, _)| *known == magic)?;
    if let Ok(uuid) = sys::file_system_uuid(file) {
        return Some(format!("uuid:{}", hex(&uuid)));
    }
    if *fsid_lasts && fsid != 0 {
        return Some(format!("fsid:{fsid:016x}"));
    }
    disk::identity(&Node::of(Path::new("/sys"), dev), |_| None, None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The kernel's name for the time since the machine started.
pub(super) fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    };
    ID.get_or_init(read).as_deref()
}
