//! The bytes that a region reaches, by names that last: for jobs whose devices are not open now.
//!
//! Where an [`Extent`] has a [`Place`], good while devices are open, this has the name of a *medium*: a disk by its wwid,
//! serial, dm or md uuid; a file by inode, birth and file system; both as in [`super::identity()`], but without the size, so that
//! a disk which is resized stays the same medium. What has no such name has one that is good until the machine restarts: the
//! boot id with the disk's sequence number, or with device number and inode or path.
//!
//! A loop device is not a medium: what it lies on is. A partition is a range of its disk.
//!
//! Nothing here waits for a backing file's server: see [`super::topology`]. A file that is open itself is asked.

use std::fmt::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::device::{Device, Target};
use super::extent::{Extent, Place};
use super::identity;
use super::resolve::read_mounts;
use super::sysfs::disk_of;
use super::topology;
use crate::error::Result;

/// A range of bytes of a medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastingExtent {
    /// The name of the medium: printable ASCII without blanks.
    pub medium: Arc<str>,
    /// As [`Extent::bytes`].
    pub bytes: Range<u64>,
    /// As [`Extent::exact`].
    pub exact: bool,
    /// As [`Extent::at`].
    pub at: Option<u64>,
}

/// Names that last for what [`resolve`](super::resolve()) has found of a region of `device`, level by level.
///
/// # Errors
/// Where mountinfo cannot be read.
pub fn lasting(device: &Device, extents: &[Extent]) -> Result<Vec<LastingExtent>> {
    let mut found: Vec<LastingExtent> = Vec::with_capacity(extents.len());
    for extent in extents {
        let Some(medium) = medium(device, extents, extent)? else { continue };
        let Extent { bytes, exact, at, .. } = extent.clone();
        let lasting = LastingExtent { medium: medium.into(), bytes, exact, at };
        // Two paths to one disk have one name.
        if !found.contains(&lasting) {
            found.push(lasting);
        }
    }
    found.shrink_to_fit();
    Ok(found)
}

fn medium(device: &Device, all: &[Extent], extent: &Extent) -> Result<Option<String>> {
    Ok(match &extent.place {
        Place::Disk { dev } if topology::is_attached_loop(*dev) => None,
        Place::Disk { dev } => identity::medium_of_disk(*dev).or_else(|| until_restart(*dev, &[])),
        Place::File { dev, ino } => {
            let own = matches!(device.target(), Target::File { .. }).then(|| identity::medium_of_file(device.file()));
            let name = match own {
                Some(name) => name,
                None => medium_of_backing(device, all, &extent.place)?,
            };
            name.or_else(|| until_restart(*dev, &[("inode", ino.to_string())]))
        }
        Place::Named { dev, path } => until_restart(*dev, &[("path", escape(path))]),
        Place::Memory { serial } => Some(format!("memory:{serial}")),
    })
}

/// A name by the number of a device or a mount, which may be another's after the machine has restarted.
fn until_restart(dev: u64, more: &[(&str, String)]) -> Option<String> {
    let mut name = format!("boot:{};dev={}:{}", identity::boot_id()?, libc::major(dev), libc::minor(dev));
    for (key, value) in more {
        let _ = write!(name, ";{key}={value}");
    }
    Some(name)
}

/// The name of the file `place` that a loop device among `all` lies on; `None` where asking could wait or it is not to be found.
/// `device` is open itself.
fn medium_of_backing(device: &Device, all: &[Extent], place: &Place) -> Result<Option<String>> {
    let mounts = read_mounts()?;
    let own = match device.target() {
        Target::Block { rdev } => Some(disk_of(rdev)),
        Target::File { .. } | Target::Memory { .. } => None,
    };
    let name = |dev: u64| {
        let info = topology::loop_info(Some(device.file()).filter(|_| own == Some(dev)), dev, &mounts)?;
        let is_it = *place == Place::File { dev: info.device, ino: info.inode };
        is_it.then(|| identity::medium_below_loop(&info, dev, &mounts)).flatten()
    };
    Ok(all.iter().find_map(|extent| match extent.place {
        Place::Disk { dev } => name(dev),
        _ => None,
    }))
}

/// A path as one word.
fn escape(path: &Path) -> String {
    let byte = |byte: &u8| match byte {
        b';' | b'=' | b'%' => format!("%{byte:02x}"),
        byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
        byte => format!("%{byte:02x}"),
    };
    path.as_os_str().as_bytes().iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blkdev::{open_source, resolve};
    use crate::sector::Sector;

    fn of(path: &Path, sector: u64) -> Vec<LastingExtent> {
        let device = open_source(path, 512).unwrap();
        let sector = Sector::new(sector).unwrap();
        lasting(&device, &resolve(&device, sector, Sector::new(2).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_file_is_the_same_under_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, renamed] = ["a", "b", "c"].map(|name| folder.path().join(name));
        std::fs::write(&file, [0; 4096]).unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        let known = of(&file, 3);
        assert_eq!((known.len(), known[0].bytes.clone()), (1, 1536..2560));
        assert_eq!((known[0].exact, known[0].at), (true, Some(0)));
        assert!(known[0].medium.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(of(&link, 3), known);
        std::fs::rename(&file, &renamed).unwrap();
        assert_eq!(of(&renamed, 3), known);
        std::fs::write(&file, [0; 4096]).unwrap();
        assert_ne!(of(&file, 3)[0].medium, known[0].medium);
    }

    #[test]
    fn a_disk_in_memory_is_known_by_its_number() {
        let one = || {
            let device = Device::in_memory(Sector::new(8).unwrap(), 512).unwrap();
            lasting(&device, &resolve(&device, Sector::ZERO, device.size()).unwrap()).unwrap().remove(0)
        };
        assert_ne!(one().medium, one().medium);
    }

    #[test]
    fn a_path_becomes_one_word() {
        assert_eq!(escape(Path::new("/a b;c=%/\u{e4}")), "/a%20b%3bc%3d%25/%c3%a4");
    }
}
