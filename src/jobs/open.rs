//! From a spec to open regions: every check that can be made before a byte is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clients::{Clients, DEFAULT};
use crate::blkdev::{Devices, OpenDest, open_source};
use crate::dm_io::IoRegion;
use crate::error::{Error, ErrorKind, Result};
use crate::kcopyd::Client;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{Action, Place, RegionSpec, Spec};

/// A job's regions, open. All have the same count.
#[derive(Debug)]
pub(super) struct Opened {
    /// Whose pages it uses.
    pub(super) client: Arc<Client>,
    pub(super) from: Option<IoRegion>,
    pub(super) dests: Vec<IoRegion>,
    /// Files that `create` made: they go again if the job is refused.
    made: Vec<PathBuf>,
}

impl Opened {
    /// The job's length.
    pub(super) fn count(&self) -> Sector {
        self.dests.first().map_or(Sector::ZERO, |dest| dest.count)
    }

    /// The job is refused after all: nothing of it stays behind.
    pub(super) fn undo(self) {
        for path in &self.made {
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("{}: made for a job that was refused, and cannot be removed: {error}", path.display());
            }
        }
    }
}

/// Opens what a spec names.
pub(super) fn open(spec: &Spec, clients: &Clients, devices: &Devices) -> std::result::Result<Opened, (Place, Error)> {
    let client = clients.get(spec.client.as_deref().unwrap_or(DEFAULT)).map_err(|error| (Place::Line, error))?;
    let from = spec.from.as_ref().map(source).transpose().map_err(|error| (Place::From, error))?;
    let count = match (&from, spec.to.first().and_then(|to| to.count)) {
        (Some(from), _) => from.count,
        (None, Some(count)) if spec.action == Action::Zero => count,
        (None, _) => {
            let what = "a job without a source needs a COUNT in its destination";
            return Err((Place::Line, Error::new(ErrorKind::Syntax, what)));
        }
    };
    let mut opened = Opened { client, from, dests: Vec::with_capacity(spec.to.len()), made: Vec::new() };
    for (index, to) in spec.to.iter().enumerate() {
        if let Err(error) = add_dest(&mut opened, to, count, spec.create, devices) {
            opened.undo();
            return Err((Place::To(index), error));
        }
    }
    Ok(opened)
}

/// The largest power of two that divides both.
fn alignment(sector: Sector, count: Sector) -> u64 {
    let both = sector.bytes() | count.bytes();
    if both == 0 { 1 << 62 } else { 1 << both.trailing_zeros() }
}

fn source(spec: &RegionSpec) -> Result<IoRegion> {
    let path = Path::new(&spec.path);
    let device = open_source(path, alignment(spec.sector, spec.count.unwrap_or(Sector::ZERO)))?;
    let count = match spec.count {
        Some(count) => count,
        None => rest_of(path, &device, spec.sector)?,
    };
    device.check_region(spec.sector, count, false)?;
    Ok(IoRegion::new(&device, spec.sector, count))
}

/// The sectors from `sector` to the end.
fn rest_of(path: &Path, device: &crate::blkdev::Device, sector: Sector) -> Result<Sector> {
    let shown = path.display();
    let odd = if device.can_grow() {
        let bytes = device.file().metadata().map_err(|error| Error::os(format!("the size of {shown}"), error))?.len();
        bytes % SECTOR_SIZE
    } else {
        0
    };
    if odd > 0 {
        let what = format!(
            "{shown}: its last {odd} bytes are no whole sector of {SECTOR_SIZE}, and would be left behind: \
             make it longer (truncate -s %512) or give a COUNT"
        );
        return Err(Error::new(ErrorKind::Unaligned, what));
    }
    device.size().checked_sub(sector).ok_or_else(|| {
        let what = format!("{shown}: sector {sector} is beyond its end, it has {} sectors", device.size());
        Error::new(ErrorKind::BeyondEnd, what)
    })
}

fn add_dest(opened: &mut Opened, to: &RegionSpec, count: Sector, create: bool, devices: &Devices) -> Result<()> {
    let path = Path::new(&to.path);
    let missing = create && std::fs::symlink_metadata(path).is_err();
    let device = devices.open_dest(path, OpenDest { create, aligned_to: alignment(to.sector, count) });
    if missing && path.exists() {
        opened.made.push(path.to_owned());
    }
    let device = device?;
    device.check_region(to.sector, count, true)?;
    let dest = IoRegion::new(&device, to.sector, count);
    if let Some(other) = opened.dests.iter().position(|other| other.overlaps(&dest)) {
        let what = format!("{}: overlaps destination {other}", path.display());
        return Err(Error::new(ErrorKind::Overlap, what));
    }
    if opened.from.as_ref().is_some_and(|from| from.overlaps(&dest)) {
        let what = format!("{}: overlaps the source", path.display());
        return Err(Error::new(ErrorKind::Overlap, what));
    }
    opened.dests.push(dest);
    Ok(())
}
