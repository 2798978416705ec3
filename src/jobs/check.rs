//! What would become of a spec: everything that `submit` finds out before it makes a job, and what lies on the devices now.
//!
//! It goes the way of `submit`, on the same kind of thread, with an opener that only looks: the same reasons refuse it. Nothing
//! is opened for writing, made, locked or claimed, and no number is used up.

use std::ffi::OsString;
use std::sync::Arc;

use super::api::Jobs;
use super::open::{Opened, Opener};
use super::submit::Ready;
use super::view::Refusal;
use super::waiting::Found;
use crate::blkdev::{DeviceCard, HolderKind};
use crate::dm_io::IoRegion;
use crate::sector::Sector;
use crate::signatures::{Found as Signature, probe};
use crate::spec::{Place, Spec};

/// Places of a device that are told to be unreadable, at most: a sick one may have no others.
const UNREADABLE_MAX: usize = 8;

/// What would become of one spec.
#[derive(Clone, Debug)]
pub struct Checked {
    /// In canonical form.
    pub spec: Spec,
    /// The job's length.
    pub count: Sector,
    /// The source's, where there is one, and the destinations'. Empty for a job that would wait for busy devices.
    pub regions: Vec<CheckedRegion>,
    /// Why it would wait.
    pub waits: Option<String>,
}

/// A region of it, and what is on its device.
#[derive(Clone, Debug)]
pub struct CheckedRegion {
    /// Which destination it is; `None`: the source.
    pub dest: Option<usize>,
    /// The path as the spec says it.
    pub path: OsString,
    /// Its first sector.
    pub sector: Sector,
    /// Sectors of the device.
    pub size: Sector,
    /// Bytes of its logical block.
    pub block: u32,
    /// Whether it is a file that `create` would make.
    pub is_missing: bool,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// What people call the device.
    pub card: Arc<DeviceCard>,
    /// What lies on the whole device.
    pub found: Vec<Signature>,
    /// Where it could not be read: byte and errno.
    pub unreadable: Vec<(u64, i32)>,
    /// What is mounted from it: `/dev/sda1 is mounted at /mnt`.
    pub mounted: Option<String>,
}

impl Jobs {
    /// Says what would become of those specs, without a trace. May take as long as a sick device likes.
    ///
    /// # Errors
    /// As [`Jobs::submit`] would refuse them, but for a state directory that is full.
    pub fn check(&self, specs: Vec<Spec>) -> std::result::Result<Vec<Checked>, Refusal> {
        self.looker(|with| {
            let ready = self.all_ready(specs, with)?;
            let ready = self.would_make(ready)?;
            check_fences(&ready)?;
            Ok(ready.into_iter().map(|one| look(one, with)).collect())
        })
    }
}

/// Refuses what another program has locked.
fn check_fences(ready: &[Ready]) -> std::result::Result<(), Refusal> {
    let opened = |one: &Ready| one.claims_now().and(one.devices.as_ref().ok()).is_some();
    for (index, one) in ready.iter().enumerate().filter(|(_, one)| opened(one)) {
        let dests = one.devices.iter().filter_map(Found::opened).flat_map(|opened| &opened.dests).enumerate();
        for (dest, region) in dests {
            let checked = region.device.check_fence(region.sector, region.count);
            checked.map_err(|error| Refusal { index, place: Place::To(dest), error })?;
        }
    }
    Ok(())
}

fn look(ready: Ready, with: &Opener<'_>) -> Checked {
    let Ready { spec, count, devices, .. } = ready;
    let (opened, waits) = match devices {
        Ok(opened) => (Some(opened), None),
        Err(why) => (None, Some(why)),
    };
    let opened = opened.as_ref().and_then(Found::opened);
    let regions = opened.map(|opened| regions(&spec, opened, with)).unwrap_or_default();
    Checked { spec, count, regions, waits }
}

fn regions(spec: &Spec, opened: &Opened, with: &Opener<'_>) -> Vec<CheckedRegion> {
    let paths = spec.from.iter().chain(&spec.to).map(|region| &region.path);
    let source = opened.from.iter().map(|region| (None, region));
    let dests = opened.dests.iter().enumerate().map(|(index, region)| (Some(index), region));
    let regions = source.chain(dests).zip(paths).zip(&opened.cards);
    regions.map(|(((dest, region), path), card)| look_at(dest, region, path.clone(), Arc::clone(card), with)).collect()
}

fn look_at(
    dest: Option<usize>,
    region: &IoRegion,
    path: OsString,
    card: Arc<DeviceCard>,
    with: &Opener<'_>,
) -> CheckedRegion {
    let device = &region.device;
    let mut unreadable = Vec::new();
    let mut read = |offset: u64, count: usize| match device.read_bytes(offset, count) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            if unreadable.len() < UNREADABLE_MAX {
                unreadable.push((offset, error.raw_os_error().unwrap_or(libc::EIO)));
            }
            None
        }
    };
    let found = probe(device.size().bytes(), &mut read);
    let is_mounted = |kind| matches!(kind, HolderKind::Mounted | HolderKind::Swap);
    let holder = with.holders().ok().and_then(|holders| holders.of(device).ok().flatten());
    CheckedRegion {
        dest,
        path,
        sector: region.sector,
        size: device.size(),
        block: device.logical_block(),
        is_missing: device.was_made(),
        is_file: device.can_grow(),
        card,
        found,
        unreadable,
        mounted: holder.filter(|holder| is_mounted(holder.kind)).map(|holder| holder.what),
    }
}
