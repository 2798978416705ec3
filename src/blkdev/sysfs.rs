//! Block devices as sysfs shows them: numbers, sizes, what is made of what. Reading it asks no device.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::settled::Settled;
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

/// An attribute that stays as it is until the kernel tells of an event: what a device is called, and of what it is a part. `None`
/// where there is none. The devices of many jobs are asked for it again and again.
pub(super) fn settled(path: &Path) -> Option<Arc<[u8]>> {
    static ATTRIBUTES: Settled<PathBuf, Option<Arc<[u8]>>> = Settled::new();
    ATTRIBUTES.get(path, || attribute(path).map(|bytes| bytes.map(Arc::from)).map_err(|_| None))
}

/// An attribute, as it is now; `None` where there is none.
///
/// # Errors
/// It may be there when there are descriptors and memory again.
pub(super) fn attribute(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_page(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The same, if it can be read.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    read_page(path).ok()
}

/// None is longer than a page, and a read has all of it.
fn read_page(path: &Path) -> io::Result<Vec<u8>> {
    let mut page = [0; 4096];
    let length = File::open(path)?.read(&mut page)?;
    Ok(page[..length].to_vec())
}

/// The same, as text.
fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(read(path)?).ok()
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
    libc::major(dev) == LOOP_MAJOR && settled(&node(dev).join("partition")).is_none()
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
    parse_dev(&read_text(path)?)
}

/// An attribute that is a number.
pub(super) fn number(path: &Path) -> Option<u64> {
    read_text(path)?.trim().parse().ok()
}

/// The whole disk of a device.
pub(super) fn disk_of(dev: u64) -> u64 {
    disk_of_partition(&node(dev)).unwrap_or(dev)
}

/// The disk of the partition that has this directory.
fn disk_of_partition(node: &Path) -> Option<u64> {
    settled(&node.join("partition"))?;
    parse_dev(&settled_text(&node.join("../dev"))?)
}

/// As [`settled`], as text.
pub(super) fn settled_text(path: &Path) -> Option<String> {
    std::str::from_utf8(&settled(path)?).ok().map(|text| text.trim().to_owned())
}

/// Disk, first byte and bytes of a partition.
pub(super) fn partition(dev: u64) -> Option<(u64, u64, u64)> {
    let node = node(dev);
    let disk = disk_of_partition(&node)?;
    let start = number(&node.join("start"))?.checked_mul(SECTOR_SIZE)?;
    let size = number(&node.join("size"))?.checked_mul(SECTOR_SIZE)?;
    Some((disk, start, size))
}
