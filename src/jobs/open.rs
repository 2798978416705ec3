//! From a spec to open regions: every check that can be made before a byte is written.
//!
//! In order: the client; the source; each destination, exclusively; whether a device is in use under another name; what
//! bytes the regions really reach, and whether the job is in its own way. Whether it is in the way of other jobs is asked
//! last, when its number is known: see [`Opened::claim`].

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clients::{Clients, DEFAULT};
use super::view::JobId;
use crate::blkdev::{self, Claim, Claims, Conflict, Device, Devices, Extent, Holders, OpenDest, open_source};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind, Result};
use crate::kcopyd::Client;
use crate::salvage::Geometry;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{Action, Place, RegionSpec, Spec};

/// A job's regions, open. All have the same count.
#[derive(Debug)]
pub(super) struct Opened {
    /// Whose pages it uses.
    pub(super) client: Arc<Client>,
    pub(super) from: Option<IoRegion>,
    pub(super) dests: Vec<IoRegion>,
    /// What it reaches, until that is claimed.
    reach: Option<Box<Reach>>,
    /// Files that `create` made: they go again if the job is refused.
    made: Vec<PathBuf>,
    /// What it may read and write, undisturbed by other jobs. Goes last: after the devices are closed.
    claim: Option<Claim>,
}

/// The bytes that a job reads, and those that it writes, by destination.
#[derive(Debug)]
struct Reach {
    reads: Vec<Extent>,
    writes: Vec<Vec<Extent>>,
}

impl Reach {
    /// The region for which a claim is refused.
    fn place_of(&self, claims: &Claims, owner: JobId) -> Place {
        let dest = self.writes.iter().position(|dest| claims.conflicts_with(owner, &[], dest).is_some());
        match dest {
            Some(index) => Place::To(index),
            // A comparison reads its destinations too.
            None if self.writes.is_empty() => Place::Line,
            None => Place::From,
        }
    }
}

/// What opening takes.
pub(super) struct Opener<'a> {
    clients: &'a Clients,
    devices: &'a Devices,
    claims: &'a Claims,
    /// Where the jobs are kept.
    state: Option<&'a Path>,
    /// Who uses what, as seen by the first that asked: the specs of one write share a look at the whole system.
    holders: OnceCell<Holders>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(clients: &'a Clients, devices: &'a Devices, claims: &'a Claims, state: Option<&'a Path>) -> Self {
        Self { clients, devices, claims, state, holders: OnceCell::new() }
    }

    fn holders(&self) -> Result<&Holders> {
        match self.holders.get() {
            Some(holders) => Ok(holders),
            None => Holders::read().map(|holders| self.holders.get_or_init(|| holders)),
        }
    }
}

impl Opened {
    /// The job's length.
    pub(super) fn count(&self) -> Sector {
        self.dests.first().map_or(Sector::ZERO, |dest| dest.count)
    }

    /// What salvage must know of its devices.
    pub(super) fn block(&self) -> Geometry {
        let block = |region: &IoRegion| u64::from(region.device.logical_block()) / SECTOR_SIZE;
        Geometry {
            source_block: self.from.as_ref().map_or(1, block),
            dest_block: self.dests.iter().map(block).max().unwrap_or(1),
            sequential: self.dests.iter().any(|dest| dest.device.is_sequential()),
        }
    }

    /// What its devices are recognised by: the source's first, where there is one.
    pub(super) fn identities(&self) -> Vec<Option<String>> {
        let identity = |region: &IoRegion| {
            let mut identity = blkdev::identity(&region.device)?;
            // It is kept for long.
            identity.shrink_to_fit();
            Some(identity)
        };
        self.from.iter().chain(&self.dests).map(identity).collect()
    }

    /// Whether it has its claim.
    pub(super) fn is_claimed(&self) -> bool {
        self.reach.is_none()
    }

    /// Keeps other jobs from writing what it reads, and from what it writes. `who` names another job.
    ///
    /// # Errors
    /// `Busy`, and which region it is about: naming the other job, or for a file that another program has locked, as a late
    /// write of a daemon that is gone does.
    pub(super) fn claim(
        &mut self,
        claims: &Claims,
        owner: JobId,
        who: impl Fn(JobId) -> String,
    ) -> std::result::Result<(), (Place, Error)> {
        if let Some(reach) = &self.reach {
            let writes = reach.writes.iter().flatten().cloned().collect();
            let claim = claims.claim(owner, reach.reads.clone(), writes);
            let refused = |conflict: Conflict| (reach.place_of(claims, owner), conflict.error(&who(conflict.owner)));
            let claim = claim.map_err(refused)?;
            if !reach.writes.is_empty() {
                for (index, dest) in self.dests.iter().enumerate() {
                    dest.device.fence(dest.sector, dest.count).map_err(|error| (Place::To(index), error))?;
                }
            }
            self.claim = Some(claim);
            self.reach = None;
        }
        Ok(())
    }

    /// Destinations of those that are files and are gone, and why.
    pub(super) fn lost(&self, dests: ErrorBits) -> impl Iterator<Item = (usize, i32)> {
        dests.iter().filter_map(|index| Some((index, self.dests[index].device.loss()?)))
    }

    /// The job is refused after all: nothing of it stays behind.
    pub(super) fn undo(self) {
        for path in &self.made {
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("{}: made for a job that was refused, and cannot be removed: {error}", path.display());
            }
        }
    }

    /// A sparse copy leaves parts of a file unwritten; it is made as long as it will be, so that they read as zeros.
    pub(super) fn stretch(&self) -> Result<()> {
        for dest in self.dests.iter().filter(|dest| dest.device.can_grow()) {
            dest.device.stretch(dest.sector, dest.count)?;
        }
        Ok(())
    }
}

/// Opens what a spec names.
pub(super) fn open(spec: &Spec, with: &Opener<'_>) -> std::result::Result<Opened, (Place, Error)> {
    let client =
        with.clients.get(spec.client.as_deref().unwrap_or(DEFAULT)).map_err(|error| (Place::Word("client"), error))?;
    let from = spec.from.as_ref().map(source).transpose().map_err(|error| (Place::From, error))?;
    let count = match (&from, spec.to.first().and_then(|to| to.count)) {
        (Some(from), _) => from.count,
        (None, Some(count)) if spec.action == Action::Zero => count,
        (None, _) => {
            let what = "a job without a source needs a COUNT in its destination";
            return Err((Place::Line, Error::new(ErrorKind::Syntax, what)));
        }
    };
    let dests = Vec::with_capacity(spec.to.len());
    let mut opened = Opened { client, from, dests, reach: None, made: Vec::new(), claim: None };
    match add_dests(&mut opened, spec, count, with).and_then(|()| reach(&mut opened, spec)) {
        Ok(()) => Ok(opened),
        Err(why) => {
            opened.undo();
            Err(why)
        }
    }
}

fn add_dests(
    opened: &mut Opened,
    spec: &Spec,
    count: Sector,
    with: &Opener<'_>,
) -> std::result::Result<(), (Place, Error)> {
    let writes = spec.action != Action::Verify;
    let asks = writes && !spec.force_mounted;
    let holders = asks.then(|| with.holders()).transpose().map_err(|error| (Place::Line, error))?;
    for (index, to) in spec.to.iter().enumerate() {
        let place = |error| (Place::To(index), error);
        let device = open_dest(opened, spec, to, count, with).map_err(place)?;
        device.check_region(to.sector, count, writes).map_err(place)?;
        if let Some(holder) = holders.map(|holders| holders.of(&device)).transpose().map_err(place)?.flatten() {
            return Err(place(holder.into()));
        }
        opened.dests.push(IoRegion::new(&device, to.sector, count));
    }
    Ok(())
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
fn rest_of(path: &Path, device: &Device, sector: Sector) -> Result<Sector> {
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

fn open_dest(
    opened: &mut Opened,
    spec: &Spec,
    to: &RegionSpec,
    count: Sector,
    with: &Opener<'_>,
) -> Result<Arc<Device>> {
    let path = Path::new(&to.path);
    let aligned_to = alignment(to.sector, count);
    if spec.action == Action::Verify {
        return open_source(path, aligned_to);
    }
    let missing = spec.create && std::fs::symlink_metadata(path).is_err();
    let device = with.devices.open_dest(path, OpenDest { create: spec.create, force: spec.force_mounted, aligned_to });
    if missing && path.exists() {
        opened.made.push(path.to_owned());
    }
    let device = device.map_err(|error| name_holder(path, error, with))?;
    if with.state.is_some_and(|state| is_within(&device, state)) {
        let what = format!("{} is in the state directory, where the jobs are kept", path.display());
        return Err(Error::new(ErrorKind::Busy, what));
    }
    Ok(device)
}

/// Whether a file is below a directory, by the name that the system has for it.
fn is_within(device: &Device, directory: &Path) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", device.raw_fd()));
    let directory = std::fs::canonicalize(directory);
    matches!((name, directory), (Ok(name), Ok(directory)) if device.can_grow() && name.starts_with(&directory))
}

/// Who holds a device that could not be opened exclusively, where that can be told.
fn name_holder(path: &Path, error: Error, with: &Opener<'_>) -> Error {
    if error.kind() != ErrorKind::Busy {
        return error;
    }
    if let Some(device) = with.devices.in_the_way(path) {
        let extents = blkdev::resolve(&device, Sector::ZERO, device.size()).unwrap_or_default();
        let who = with
            .claims
            .writer_of(&extents)
            .map_or("a job that waits for its turn".to_owned(), |job| format!("job {job}"));
        let what = format!("{} is in use: {who} writes to {}", path.display(), device.path().display());
        return Error::new(ErrorKind::Busy, what);
    }
    let holder = open_source(path, 1).and_then(|device| blkdev::in_use(&device));
    match holder {
        Ok(Some(holder)) => holder.into(),
        _ => error,
    }
}

/// The first destination that is the source, or an earlier destination, or a part of it: nothing to compare with. By other
/// names than a device's own they may well be compared: reading harms nobody.
fn same_bytes(opened: &Opened) -> Option<(usize, Option<usize>)> {
    let Opened { from, dests, .. } = opened;
    dests.iter().enumerate().find_map(|(index, dest)| {
        if from.as_ref().is_some_and(|from| from.overlaps(dest)) {
            return Some((index, None));
        }
        dests[..index].iter().position(|other| other.overlaps(dest)).map(|other| (index, Some(other)))
    })
}

/// What bytes it really reaches, by whatever names, and whether it is in its own way.
fn reach(opened: &mut Opened, spec: &Spec) -> std::result::Result<(), (Place, Error)> {
    let extents = |region: &IoRegion| blkdev::resolve(&region.device, region.sector, region.count);
    let mut reads = match &opened.from {
        Some(from) => extents(from).map_err(|error| (Place::From, error))?,
        None => Vec::new(),
    };
    let mut writes = Vec::with_capacity(opened.dests.len());
    for (index, dest) in opened.dests.iter().enumerate() {
        writes.push(extents(dest).map_err(|error| (Place::To(index), error))?);
    }
    let overlap = if spec.action == Action::Verify {
        reads.extend(writes.drain(..).flatten());
        same_bytes(opened)
    } else {
        blkdev::overlap_within(&reads, &writes)
    };
    opened.reach = Some(Box::new(Reach { reads, writes }));
    let Some((index, other)) = overlap else { return Ok(()) };
    let with = other.map_or("the source".to_owned(), |other| format!("destination {other}"));
    let path = Path::new(&spec.to[index].path).display();
    let what = format!("{path}: destination {index} overlaps {with}: they reach the same sectors");
    Err((Place::To(index), Error::new(ErrorKind::Overlap, what)))
}
