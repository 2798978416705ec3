//! Block devices as sysfs shows them: numbers, sizes, what is made of what. Reading it asks no device.

use std::fs;
use std::path::{Path, PathBuf};

use crate::os::mounts::parse_dev;
use crate::sector::SECTOR_SIZE;

/// The directory of a block device in sysfs.
pub(super) fn node(dev: u64) -> PathBuf {
    node_in(Path::new("/sys"), dev)
}

/// The same below `/sys` or, in tests, a tree like it.
pub(super) fn node_in(root: &Path, dev: u64) -> PathBuf {
    root.join(format!("dev/block/{}:{}", libc::major(dev), libc::minor(dev)))
}

/// The path of a device by its number, as the kernel calls it: `/dev/sda1`.
pub(super) fn device_path(dev: u64) -> PathBuf {
    let link = fs::read_link(node(dev)).unwrap_or_default();
    match link.file_name() {
        Some(name) => Path::new("/dev").join(name.to_string_lossy().replace('!', "/")),
        None => PathBuf::from(format!("block device {}:{}", libc::major(dev), libc::minor(dev))),
    }
}

/// Every block device of the system, disks and partitions, by the names of a directory alone: there may be hundreds.
pub(super) fn all_devices() -> Vec<u64> {
    let Ok(entries) = fs::read_dir("/sys/dev/block") else { return Vec::new() };
    let mut numbers: Vec<_> = entries.flatten().filter_map(|entry| parse_dev(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

/// The major number of loop devices, and where the kernel numbers them so, of their partitions.
const LOOP_MAJOR: u32 = 7;

/// Whether it is a whole loop device.
pub(super) fn is_loop(dev: u64) -> bool {
    libc::major(dev) == LOOP_MAJOR && !node(dev).join("partition").exists()
}

/// The names of what holds a device as a part of itself: dm, md, bcache.
pub(super) fn holders_of(dev: u64) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node(dev).join("holders")) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The devices of all mounted btrfs: mountinfo names one of each at most, and none by its number.
pub(super) fn btrfs_devices() -> Vec<u64> {
    let Ok(entries) = fs::read_dir("/sys/fs/btrfs") else { return Vec::new() };
    entries.flatten().flat_map(|entry| numbers_in(&entry.path().join("devices"))).collect()
}

/// The numbers of the devices whose directories `path` lists.
pub(super) fn numbers_in(path: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut numbers: Vec<_> = entries.flatten().filter_map(|entry| read_dev(&entry.path().join("dev"))).collect();
    numbers.sort_unstable();
    numbers
}

fn read_dev(path: &Path) -> Option<u64> {
    parse_dev(&fs::read_to_string(path).ok()?)
}

/// An attribute that is a number.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The whole disk of a device.
pub(super) fn disk_of(dev: u64) -> u64 {
    partition(dev).map_or(dev, |(disk, ..)| disk)
}

/// Disk, first byte and bytes of a partition.
pub(super) fn partition(dev: u64) -> Option<(u64, u64, u64)> {
    let node = node(dev);
    number(&node.join("partition"))?;
    let disk = read_dev(&node.join("../dev"))?;
    let start = number(&node.join("start"))?.checked_mul(SECTOR_SIZE)?;
    let size = number(&node.join("size"))?.checked_mul(SECTOR_SIZE)?;
    Some((disk, start, size))
}
