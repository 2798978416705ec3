//! From an open device to the bytes that it really reaches: [`super::extent`] walks, [`super::topology`] says what lies below.

use std::ops::Range;
use std::sync::Arc;

use super::device::{Device, Target};
use super::extent::{Extent, Place, View, Walk};
use super::topology::Sysfs;
use crate::error::{Error, Result};
use crate::os::mounts::Mounts;
use crate::sector::Sector;

/// The extents of `count` sectors from `sector` of an open device, at every level from the device down.
///
/// Reads sysfs and mountinfo, and asks a loop device for its backing file unless that could block.
///
/// # Errors
/// Where mountinfo cannot be read, or devices are stacked deeper than any real stack.
pub fn resolve(device: &Device, sector: Sector, count: Sector) -> Result<Vec<Extent>> {
    let start = sector.bytes();
    resolve_bytes(device, start..start + count.bytes(), &read_mounts()?)
}

pub(super) fn read_mounts() -> Result<Mounts> {
    Mounts::read().map_err(|error| Error::os("read /proc/self/mountinfo", error))
}

pub(super) fn resolve_bytes(device: &Device, bytes: Range<u64>, mounts: &Mounts) -> Result<Vec<Extent>> {
    let sysfs = Sysfs::of(device, mounts);
    let mut walk = Walk::new(&sysfs, Arc::clone(&device.path));
    match device.target() {
        Target::Block { rdev } => walk.block(rdev, bytes)?,
        Target::File { dev, ino } => {
            let named = sysfs.named(device);
            walk.enter(Place::File { dev, ino }, bytes.clone(), View::TOP);
            if let Some(place) = named {
                walk.enter(place, bytes, View::TOP);
            }
        }
        Target::Memory { serial } => {
            walk.enter(Place::Memory { serial }, bytes, View::TOP);
        }
    }
    // It is kept for as long as the job waits.
    walk.found.shrink_to_fit();
    Ok(walk.found)
}
