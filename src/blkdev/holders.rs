//! Why a destination must be refused although `O_EXCL` let it pass.
//!
//! The kernel's exclusive open sees a holder of the same device, of its disk and of its partitions: mounts, swap, dm,
//! md. It does not see the same bytes in use under another number. What it misses, and what is found here:
//! - a loop device over the destination, over its disk or one of its partitions: attached is enough, for whoever
//!   attached it means to use it;
//! - a mount, swap, dm or md above *another* loop device over the same bytes;
//! - a regular file, which cannot be opened exclusively: one that backs a loop device, or is swap.
//!
//! This is a look, done once when a job is made; `O_EXCL` is the hold. Seen are the mounts of this mount namespace;
//! those of others are seen by `O_EXCL` only.

use std::fs;
use std::path::Path;

use super::device::{Device, Target};
use super::extent::{Backing, Extent, Place, Topology, View, Walk};
use super::resolve::{read_mounts, resolve_bytes};
use super::sysfs;
use super::topology::{self, Sysfs};
use crate::error::{Error, ErrorKind, Result};
use crate::os::mounts::{Mounts, unescape};

/// All of a device.
const WHOLE: std::ops::Range<u64> = 0..u64::MAX;

/// How a destination is in use. `force=mounted` lifts all of these, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HolderKind {
    /// A file system is mounted from it.
    Mounted,
    /// The system pages to it.
    Swap,
    /// A dm, md or bcache device is made of it.
    Part,
    /// A loop device lies over it.
    Loop,
}

/// Who uses a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// How.
    pub kind: HolderKind,
    /// `/dev/sda1 is mounted at /mnt`.
    pub what: String,
    /// Names the destination, the holder and the remedy.
    pub message: String,
}

impl From<Holder> for Error {
    fn from(holder: Holder) -> Self {
        Self::new(ErrorKind::Busy, holder.message)
    }
}

/// Who uses `device`, if anybody: [`Holders::read`] and [`Holders::of`] at once.
pub fn in_use(device: &Device) -> Result<Option<Holder>> {
    Holders::read()?.of(device)
}

/// Everything on this system that is in use, at one moment: for judging the destinations of a job.
#[derive(Debug)]
pub struct Holders {
    mounts: Mounts,
    uses: Vec<Use>,
}

impl Holders {
    /// Looks at mounts, swap, holders and loop devices.
    ///
    /// # Errors
    /// Where /proc cannot be read: then nothing may be written.
    pub fn read() -> Result<Self> {
        let mounts = read_mounts()?;
        let sysfs = Sysfs::new(&mounts);
        let mut uses = Vec::new();
        mounted(&mut uses, &sysfs, &mounts)?;
        swaps(&mut uses, &sysfs, &mounts)?;
        for dev in sysfs::all_devices() {
            let is_attached = topology::is_attached_loop(dev);
            if !is_attached && sysfs::is_loop(dev) {
                // Nothing is below it, so nothing can be above it. There may be hundreds.
                continue;
            }
            parts(&mut uses, &sysfs, dev)?;
            if is_attached {
                uses.extend(over_loop(&sysfs, dev)?);
            }
        }
        Ok(Self { mounts, uses })
    }

    /// Who uses `device`, or a part of it.
    pub fn of(&self, device: &Device) -> Result<Option<Holder>> {
        let extents = resolve_bytes(device, WHOLE, &self.mounts)?;
        let is_file = matches!(device.target(), Target::File { .. });
        let top = if is_file { extents.len() } else { extents.len().min(1) };
        let found = self.uses.iter().find(|held| held.concerns(&extents, top));
        Ok(found.map(|held| held.holder(device.path())))
    }
}

/// One use of something.
#[derive(Debug)]
struct Use {
    kind: HolderKind,
    /// `/dev/sda1 is mounted at /mnt`
    what: String,
    /// `unmount /mnt`
    remedy: String,
    /// What is in use; for a loop device only what lies below it, for itself may be written by whoever holds it.
    extents: Vec<Extent>,
}

impl Use {
    /// Whether it stands in the way of writing to `extents`, of which the first `top` are the destination itself and
    /// the others lie below it.
    fn concerns(&self, extents: &[Extent], top: usize) -> bool {
        let meets = |extents: &[Extent], rule: &dyn Fn(&Extent, &Extent) -> bool| {
            extents.iter().any(|a| self.extents.iter().any(|b| rule(a, b)))
        };
        match self.kind {
            HolderKind::Mounted | HolderKind::Swap => meets(extents, &|a, b| a.overlaps(b)),
            // A volume does not stand in its own way by holding its disks.
            HolderKind::Part => meets(extents, &|a, b| !a.mapped && a.exact && b.exact && a.overlaps(b)),
            // Two loop devices over one file are not over each other: claims tell their jobs apart.
            HolderKind::Loop => meets(&extents[..top], &|a, b| a.overlaps(b)),
        }
    }

    fn holder(&self, path: &Path) -> Holder {
        let Self { kind, what, remedy, .. } = self;
        let message = format!("{} is in use: {what}; {remedy} first, or say force=mounted", path.display());
        Holder { kind: *kind, what: what.clone(), message }
    }
}

/// File systems that lie on block devices.
fn mounted(uses: &mut Vec<Use>, sysfs: &Sysfs, mounts: &Mounts) -> Result<()> {
    let known = sysfs::all_devices();
    let mut btrfs = sysfs::btrfs_devices();
    let mut seen: Vec<u64> = Vec::new();
    for mount in mounts.iter() {
        // The number is not the device's on btrfs, the source may be any text elsewhere: either will do.
        let source = match topology::find(&mount.source, mounts) {
            Some(Backing::Block(dev)) => Some(dev),
            _ => None,
        };
        let number = Some(mount.dev).filter(|dev| known.binary_search(dev).is_ok());
        for dev in [number, source].into_iter().flatten() {
            if seen.contains(&dev) {
                continue;
            }
            seen.push(dev);
            let point = mount.point.display();
            let what = format!("{} is mounted at {point}", sysfs::device_path(dev).display());
            uses.push(of_device(HolderKind::Mounted, what, format!("unmount {point}"), sysfs, dev)?);
        }
    }
    btrfs.retain(|dev| !seen.contains(dev));
    for dev in btrfs {
        let what = format!("{} is part of a mounted btrfs", sysfs::device_path(dev).display());
        uses.push(of_device(HolderKind::Mounted, what, "unmount it".to_owned(), sysfs, dev)?);
    }
    Ok(())
}

/// Swap devices and files.
fn swaps(uses: &mut Vec<Use>, sysfs: &Sysfs, mounts: &Mounts) -> Result<()> {
    let text = match fs::read("/proc/swaps") {
        Ok(text) => text,
        // A kernel without swap.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::os("read /proc/swaps", error)),
    };
    for line in text.split(|&byte| byte == b'\n').skip(1) {
        let name = line.split(|&byte| byte == b' ' || byte == b'\t').next().unwrap_or_default();
        let path = unescape(name);
        let (what, remedy) = (format!("{} is swap", path.display()), format!("swapoff {}", path.display()));
        match topology::find(&path, mounts) {
            Some(Backing::Block(dev)) => uses.push(of_device(HolderKind::Swap, what, remedy, sysfs, dev)?),
            Some(Backing::File(place)) => {
                let extents = file_extents(sysfs, place, &path);
                uses.push(Use { kind: HolderKind::Swap, what, remedy, extents });
            }
            None => {}
        }
    }
    Ok(())
}

/// A device of which dm, md or bcache devices are made.
fn parts(uses: &mut Vec<Use>, sysfs: &Sysfs, dev: u64) -> Result<()> {
    let names = sysfs::holders_of(dev);
    if let Some(name) = names.first() {
        let what = format!("{} is held by {}", sysfs::device_path(dev).display(), names.join(", "));
        uses.push(of_device(HolderKind::Part, what, format!("stop {name}"), sysfs, dev)?);
    }
    Ok(())
}

/// What lies below an attached loop device.
fn over_loop(topology: &impl Topology, dev: u64) -> Result<Option<Use>> {
    let path = sysfs::device_path(dev);
    let what = format!("{} is attached to it", path.display());
    let mut held = of_device(HolderKind::Loop, what, format!("losetup -d {}", path.display()), topology, dev)?;
    held.extents.retain(|extent| extent.place != Place::Disk { dev });
    Ok((!held.extents.is_empty()).then_some(held))
}

fn of_device(kind: HolderKind, what: String, remedy: String, topology: &impl Topology, dev: u64) -> Result<Use> {
    let mut walk = Walk::new(topology, sysfs::device_path(dev));
    walk.block(dev, WHOLE)?;
    Ok(Use { kind, what, remedy, extents: walk.found })
}

fn file_extents(topology: &impl Topology, place: Place, path: &Path) -> Vec<Extent> {
    let mut walk = Walk::new(topology, path);
    walk.enter(place, WHOLE, View::TOP);
    walk.found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blkdev::dm::{On, Piece};
    use crate::blkdev::extent::Below;
    use crate::blkdev::extent::tests::{Fake, file, loop_over, walk};

    const SDA: u64 = 80;
    const SDA1: u64 = 81;
    const LOOP0: u64 = 70;
    const LOOP1: u64 = 71;
    const LOOP2: u64 = 72;
    const DM0: u64 = 90;
    const DM1: u64 = 91;
    const DM2: u64 = 92;
    const DM3: u64 = 93;

    /// Two loops over one file, one over the first of them; a disk whose partition makes two volumes.
    fn system() -> Fake {
        Fake::default()
            .with(LOOP0, loop_over(Backing::File(file(7)), 0))
            .with(LOOP1, loop_over(Backing::File(file(7)), 512))
            .with(LOOP2, loop_over(Backing::Block(LOOP0), 0))
            .with(SDA1, Below::Partition { disk: SDA, start: 1000, size: 500 })
            .with(DM0, Below::Slaves(vec![SDA1]))
            .with(DM1, Below::Slaves(vec![SDA1]))
    }

    fn used(kind: HolderKind, dev: u64) -> Use {
        let system = system();
        match kind {
            HolderKind::Loop => over_loop(&system, dev).unwrap().unwrap(),
            _ => of_device(kind, String::new(), String::new(), &system, dev).unwrap(),
        }
    }

    fn refused(held: &Use, dev: u64) -> bool {
        held.concerns(&walk(&system(), dev, WHOLE), 1)
    }

    #[test]
    fn a_mount_is_seen_through_every_loop_over_its_bytes() {
        let mount = used(HolderKind::Mounted, LOOP2);
        assert!(refused(&mount, LOOP0) && refused(&mount, LOOP1) && refused(&mount, LOOP2));
        assert!(mount.concerns(&file_extents(&system(), file(7), Path::new("/f")), 1));
        assert!(!refused(&mount, SDA));
    }

    #[test]
    fn a_loop_refuses_what_it_lies_on_and_not_its_sibling() {
        let first = used(HolderKind::Loop, LOOP0);
        assert!(first.concerns(&file_extents(&system(), file(7), Path::new("/f")), 1));
        assert!(!refused(&first, LOOP0) && !refused(&first, LOOP1) && !refused(&first, LOOP2));
        assert!(refused(&used(HolderKind::Loop, LOOP2), LOOP0));
        assert!(!refused(&used(HolderKind::Loop, LOOP2), LOOP1));
    }

    #[test]
    fn a_volume_may_be_written_and_its_disk_may_not() {
        let held = used(HolderKind::Part, SDA1);
        assert!(refused(&held, SDA) && refused(&held, SDA1));
        assert!(!refused(&held, DM0));
        let mount = used(HolderKind::Mounted, DM0);
        assert!(refused(&mount, DM0) && refused(&mount, SDA1));
        assert!(!refused(&mount, DM1));
    }

    #[test]
    fn maps_over_the_same_sectors_meet_and_others_do_not() {
        let piece = |start: u64, length: u64, dev, at| Piece {
            bytes: start..start + length,
            on: vec![On::Linear { dev, start: at }],
        };
        let system = Fake::default()
            .with(DM0, Below::Map(vec![piece(0, 500, SDA, 0), piece(500, 500, SDA, 5000)]))
            .with(DM1, Below::Map(vec![piece(0, 100, SDA, 5400)]))
            .with(DM2, Below::Map(vec![piece(0, 100, DM1, 0)]))
            .with(DM3, Below::Map(vec![piece(0, 100, SDA, 5500)]));
        let used = |kind, dev| of_device(kind, String::new(), String::new(), &system, dev).unwrap();
        let refused = |held: &Use, dev| held.concerns(&walk(&system, dev, WHOLE), 1);
        let mounted = used(HolderKind::Mounted, DM2);
        assert!([DM0, DM1, DM2, SDA].iter().all(|dev| refused(&mounted, *dev)));
        assert!(!refused(&mounted, DM3));
        let mounted = used(HolderKind::Mounted, DM0);
        assert!(refused(&mounted, DM2) && !refused(&mounted, DM3));
        let held = used(HolderKind::Part, SDA);
        assert!(refused(&held, SDA));
        assert!(![DM0, DM1, DM2, DM3].iter().any(|dev| refused(&held, *dev)), "not by what they are made of");
    }

    #[test]
    fn the_message_names_all_three() {
        let held = Use {
            kind: HolderKind::Mounted,
            what: "/dev/sdb1 is mounted at /mnt/x".to_owned(),
            remedy: "unmount /mnt/x".to_owned(),
            extents: Vec::new(),
        };
        let text = "/dev/sdb is in use: /dev/sdb1 is mounted at /mnt/x; unmount /mnt/x first, or say force=mounted";
        assert_eq!(held.holder(Path::new("/dev/sdb")).message, text);
    }
}
