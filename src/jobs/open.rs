//! From a spec to open regions: every check that can be made before a byte is written.
//!
//! The last descriptors of the process are not for devices: records are written with them. The system gives the lowest
//! number that is free, so a device with a higher one is closed again.
//!
//! In order: the client; the source; each destination, exclusively; whether a device is in use under another name; what
//! bytes the regions really reach, and whether the job is in its own way. Whether it is in the way of other jobs the owner
//! is asked last. It may take as long as a sick device likes, so the owner never does it itself.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clients::{Clients, DEFAULT};
use super::closings::Closings;
use super::view::JobId;
use crate::blkdev::{self, Device, DeviceCard, Devices, Extent, Holders, OpenDest, look_at, open_source};
use crate::claims::{Footprint, Lasting};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind, Result};
use crate::kcopyd::Client;
use crate::os::process;
use crate::salvage::{Geometry, objection};
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{Action, Place, RegionSpec, Spec};

/// Descriptors that are left for records. The store has 64 files open at once, and a few directories.
const FOR_RECORDS: u64 = 72;

/// A job's regions, open. All have the same count.
#[derive(Debug)]
pub(super) struct Opened {
    /// Whose pages it uses.
    pub(super) client: Arc<Client>,
    pub(super) from: Option<IoRegion>,
    pub(super) dests: Vec<IoRegion>,
    /// What its devices are recognised by: the source's first, where there is one.
    pub(super) identities: Vec<Option<Arc<str>>>,
    /// What people call them, in the same order.
    pub(super) cards: Vec<Arc<DeviceCard>>,
    /// What it reaches, until that is claimed.
    pub(super) footprint: Option<Footprint>,
    /// The paths that the system has for its regions, where those of the spec are others: they lead there still when a link is changed.
    pub(super) real_paths: Option<Arc<[PathBuf]>>,
    /// Destinations that were not opened, or were let go: something in memory, which nobody reads or writes, has their place.
    pub(super) without: ErrorBits,
}

/// Why a job's devices were not opened, and which region it is about.
#[derive(Debug)]
pub(super) enum OpenError {
    /// A device is held by somebody who is not known: another program, or a late write of a daemon that is gone. Or other jobs
    /// have all descriptors.
    Busy(Place, Error),
    /// A device is used for something that is known: mounted, swap, a part of another device.
    InUse(Place, Error),
    /// Anything else.
    Failed(Place, Error),
}

impl OpenError {
    fn at(place: Place) -> impl Fn(Error) -> Self {
        move |error| if error.may_pass() { Self::Busy(place, error) } else { Self::Failed(place, error) }
    }
}

impl From<OpenError> for (Place, Error) {
    fn from(why: OpenError) -> Self {
        let (OpenError::Busy(place, error) | OpenError::InUse(place, error) | OpenError::Failed(place, error)) = why;
        (place, error)
    }
}

/// What opening takes.
pub(super) struct Opener<'a> {
    clients: &'a Clients,
    devices: &'a Devices,
    /// The job that writes some of those bytes.
    who_writes: &'a (dyn Fn(Vec<Extent>) -> Option<JobId> + 'a),
    /// Where the jobs are kept.
    state: Option<&'a Path>,
    pub(super) closings: &'a Closings,
    /// It only looks: nothing is opened for writing, and nothing is made.
    pub(super) looks: bool,
    /// Who uses what, as seen by the first that asked: the specs of one write share a look at the whole system.
    holders: OnceCell<Arc<Holders>>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(
        clients: &'a Clients,
        devices: &'a Devices,
        who_writes: &'a (dyn Fn(Vec<Extent>) -> Option<JobId> + 'a),
        state: Option<&'a Path>,
        closings: &'a Closings,
    ) -> Self {
        Self { clients, devices, who_writes, state, closings, looks: false, holders: OnceCell::new() }
    }

    /// Removes a file that was made for a job, unless another job writes to it by now.
    pub(super) fn remove_made(&self, extents: Vec<Extent>, remove: impl FnOnce() -> Result<()>) {
        if (self.who_writes)(extents).is_none()
            && let Err(error) = remove()
        {
            log::warn!("made for a job that was refused: {error}");
        }
    }

    /// The same, and it only looks.
    pub(super) fn looking(self) -> Self {
        Self { looks: true, ..self }
    }

    /// Opens what is only read.
    fn open_source(&self, path: &Path, aligned_to: u64) -> Result<Arc<Device>> {
        if self.looks { look_at(path, aligned_to) } else { open_source(path, aligned_to) }
    }

    pub(super) fn holders(&self) -> Result<&Holders> {
        match self.holders.get() {
            Some(holders) => Ok(&**holders),
            None => self.devices.holders().map(|holders| &**self.holders.get_or_init(|| holders)),
        }
    }
}

impl Opened {
    /// The job's length.
    pub(super) fn count(&self) -> Sector {
        self.from.iter().chain(&self.dests).next().map_or(Sector::ZERO, |region| region.count)
    }

    /// What salvage must know of its devices.
    pub(super) fn geometry(&self) -> Geometry {
        let block = |region: &IoRegion| u64::from(region.device.logical_block()) / SECTOR_SIZE;
        Geometry {
            source_block: self.from.as_ref().map_or(1, block),
            dest_block: self.dests.iter().map(block).max().unwrap_or(1),
            sequential: self.dests.iter().any(|dest| dest.device.is_sequential()),
            has_holes: self.from.as_ref().is_some_and(|from| from.device.can_grow()),
        }
    }

    /// Parts with a destination, for somebody to close it.
    pub(super) fn part_with(&mut self, index: usize) -> Result<Self> {
        let stand_in = stand_in(self.dests[index].sector, self.dests[index].count)?;
        let dest = std::mem::replace(&mut self.dests[index], stand_in);
        self.without.set(index);
        if let Some(footprint) = &mut self.footprint {
            footprint.leave_out(index);
        }
        let client = Arc::clone(&self.client);
        let (identities, cards, without) = (Vec::new(), Vec::new(), ErrorBits::NONE);
        let (dests, footprint, real_paths) = (vec![dest], None, None);
        Ok(Self { client, from: None, dests, identities, cards, footprint, real_paths, without })
    }

    /// Its bytes by names that last.
    pub(super) fn lasting(&self) -> Option<Arc<Lasting>> {
        self.footprint.as_ref().map(|footprint| Arc::new(footprint.lasting().clone()))
    }

    /// Destinations that are regular files: others may take them away, and lock them.
    pub(super) fn files(&self) -> Vec<(usize, Arc<Device>)> {
        let files = self.dests.iter().enumerate().filter(|(_, dest)| dest.device.can_grow());
        files.map(|(index, dest)| (index, Arc::clone(&dest.device))).collect()
    }

    /// Regions of regular files, which are locked before they are written to.
    pub(super) fn files_to_lock(&self) -> Vec<IoRegion> {
        if self.files().is_empty() { Vec::new() } else { self.dests.clone() }
    }

    /// Regions that a worker looks at before they are written to: all, where one is of a file or of a zoned device.
    pub(super) fn to_prepare(&self) -> Vec<IoRegion> {
        let zoned = self.geometry().sequential;
        if zoned { self.dests.clone() } else { self.files_to_lock() }
    }

    /// Refuses a new job where a zone that it is to write holds data.
    pub(super) fn refuse_used_zones(&self) -> std::result::Result<(), (Place, Error)> {
        for (index, IoRegion { device, sector, count }) in self.dests.iter().enumerate() {
            let zones = device.look_at_zones(*sector, *count);
            zones
                .and_then(|zones| blkdev::refuse_used_zones(device, *sector, &zones))
                .map_err(|error| (Place::To(index), error))?;
        }
        Ok(())
    }

    /// Open devices with direct I/O, and without.
    pub(super) fn direct_and_not(&self) -> (u32, u32) {
        let dests = self.dests.iter().enumerate().filter(|(index, _)| !self.without.contains(*index));
        let devices = dests.map(|(_, dest)| dest).chain(&self.from).map(|region| &region.device);
        devices.fold((0, 0), |(direct, not), device| match u32::from(device.is_direct()) {
            0 => (direct, not + 1),
            _ => (direct + 1, not),
        })
    }

    /// The job is refused after all: files that `create` made go again, unless another job writes to them by now.
    pub(super) fn undo(self, with: &Opener<'_>) {
        for dest in self.dests.iter().filter(|dest| dest.device.was_made()) {
            let extents = blkdev::resolve(&dest.device, dest.sector, dest.count).unwrap_or_default();
            with.remove_made(extents, || dest.device.remove_made());
        }
    }
}

/// Keeps other programs from writing to a job's destination files. May wait for a network. Locks go when the files are
/// closed.
///
/// # Errors
/// Which destination, and why: `Busy` where another program has locked a part of it.
pub(super) fn lock_files(dests: &[IoRegion], closings: &Closings) -> std::result::Result<(), (usize, Error)> {
    let regions: Vec<_> = dests.iter().map(|dest| (&*dest.device, dest.sector, dest.count)).collect();
    closings.lock(|| blkdev::fence_all(&regions), |(_, error)| error)
}

/// Makes a job's destination files as long as they will be, unless that costs as much as the copy and the copy does without.
/// May wait for a network.
///
/// # Errors
/// Why one stays short, of a sparse copy, which leaves holes, or where it may work later. In any other case the writes will
/// tell why the file does not grow, and whose error that is.
pub(super) fn stretch_files(dests: &[IoRegion], sparse: bool) -> Result<()> {
    let files = dests.iter().filter(|dest| dest.device.can_grow() && (sparse || dest.device.has_holes()));
    let mut failed = files.filter_map(|dest| dest.device.stretch(dest.sector, dest.count).err());
    failed.find(|error| sparse || error.may_pass()).map_or(Ok(()), Err)
}

/// Looks for holes of a source in a range of its job. May wait for the file system. Returns how far it has looked, and the holes.
pub(super) fn look_for_holes(source: &IoRegion, range: Range<u64>) -> (Range<u64>, Vec<Range<u64>>) {
    let first = source.sector.bytes();
    let bytes = first + range.start * SECTOR_SIZE..first + range.end * SECTOR_SIZE;
    let found = source.device.look_for_holes(bytes);
    let sector = |byte: u64| (byte - first) / SECTOR_SIZE;
    let inside = |hole: &Range<u64>| (hole.start - first).div_ceil(SECTOR_SIZE)..sector(hole.end);
    // Where it got nowhere all is data: nobody asks again and again.
    let end = Some(sector(found.bytes.end)).filter(|end| *end > range.start).unwrap_or(range.end);
    (range.start..end, found.holes.iter().map(inside).collect())
}

/// What a zoned destination holds when a job is about to write to it.
#[derive(Debug)]
pub(super) struct Zoned {
    /// Which destination.
    pub(super) dest: usize,
    /// The first of its zones, in sectors of the device; the others are as long.
    pub(super) zone: Range<u64>,
    /// What it cannot hold, for it lies behind the write pointers; in sectors of the job.
    pub(super) unwritten: Vec<Range<u64>>,
}

/// Asks zoned destinations what they hold. May wait for them.
///
/// # Errors
/// Where one fails, or cannot be written from the beginning of its region on.
pub(super) fn look_at_zones(dests: &[IoRegion]) -> Result<Vec<Zoned>> {
    let mut learned = Vec::new();
    for (index, IoRegion { device, sector, count }) in dests.iter().enumerate() {
        let zones = device.look_at_zones(*sector, *count)?;
        blkdev::refuse_zones(device, *sector, &zones)?;
        if let Some(first) = zones.first() {
            let unwritten = blkdev::unwritten(*sector, *count, &zones);
            learned.push(Zoned { dest: index, zone: first.start.get()..first.end.get(), unwritten });
        }
    }
    Ok(learned)
}

/// Has the place of a destination that is not open.
pub(super) fn stand_in(sector: Sector, count: Sector) -> Result<IoRegion> {
    let end = sector.checked_add(count).unwrap_or(sector);
    Ok(IoRegion::new(&Device::in_memory(end, 512)?, sector, count))
}

/// Opens what a spec names, but for the destinations `without`.
pub(super) fn open(spec: &Spec, without: ErrorBits, with: &Opener<'_>) -> std::result::Result<Opened, OpenError> {
    let client =
        with.clients.get(spec.client.as_deref().unwrap_or(DEFAULT)).map_err(OpenError::at(Place::Word("client")))?;
    let from = spec.from.as_ref().map(|from| source(from, spec.count(), with));
    let from = from.transpose().map_err(OpenError::at(Place::From))?;
    let count = match (&from, spec.count()) {
        (Some(from), _) => from.count,
        (None, Some(count)) if matches!(spec.action, Action::Zero | Action::Test) => count,
        (None, None) if spec.action == Action::Test => {
            length_of_test(spec).map_err(|(place, error)| OpenError::Failed(place, error))?
        }
        (None, _) => {
            let what = "a job without a source needs a COUNT in its destination";
            return Err(OpenError::Failed(Place::Line, Error::new(ErrorKind::Syntax, what)));
        }
    };
    let dests = Vec::with_capacity(spec.to.len());
    let (identities, cards, footprint, real_paths) = (Vec::new(), Vec::new(), None, None);
    let mut opened = Opened { client, from, dests, identities, cards, footprint, real_paths, without };
    let objection = |opened: &Opened| match objection(spec, opened.geometry()) {
        Some((word, what)) => {
            let error = Error::new(ErrorKind::Invalid, what);
            Err(OpenError::Failed(Place::Word(word), error))
        }
        None => Ok(()),
    };
    let opening = add_dests(&mut opened, spec, count, with).and_then(|()| objection(&opened));
    match opening.and_then(|()| reach(&mut opened, spec)) {
        Ok(()) => {
            let regions = || opened.from.iter().chain(&opened.dests);
            let identities = regions().map(|region| Some(blkdev::identity(&region.device)?.into())).collect();
            let cards = regions().map(|region| with.devices.card(&region.device)).collect();
            (opened.identities, opened.cards) = (identities, cards);
            opened.real_paths = real_paths_of(spec, &opened);
            Ok(opened)
        }
        Err(why) => {
            opened.undo(with);
            Err(why)
        }
    }
}

fn add_dests(opened: &mut Opened, spec: &Spec, count: Sector, with: &Opener<'_>) -> std::result::Result<(), OpenError> {
    let writes = spec.action != Action::Verify;
    let asks = writes && !spec.force_mounted;
    let holders = asks.then(|| with.holders()).transpose().map_err(OpenError::at(Place::Line))?;
    for (index, to) in spec.to.iter().enumerate() {
        let at = OpenError::at(Place::To(index));
        if opened.without.contains(index) {
            opened.dests.push(stand_in(to.sector, count).map_err(at)?);
            continue;
        }
        let device = match open_dest(opened, spec, to, count, with) {
            Ok(device) => device,
            Err(error) if error.kind() == ErrorKind::Busy => return Err(name_holder(index, to, error, with)),
            Err(error) => return Err(at(error)),
        };
        opened.dests.push(IoRegion::new(&device, to.sector, count));
        leave_descriptors(&device).map_err(&at)?;
        refuse_record(Path::new(&to.path), &device, with).map_err(&at)?;
        device.check_region(to.sector, count, writes).map_err(&at)?;
        if let Some(holder) = holders.map(|holders| holders.of(&device)).transpose().map_err(&at)?.flatten() {
            return Err(OpenError::InUse(Place::To(index), holder.into()));
        }
    }
    Ok(())
}

/// The paths that the system has for what is open, as far as it has any, if one differs from the spec's.
fn real_paths_of(spec: &Spec, opened: &Opened) -> Option<Arc<[PathBuf]>> {
    let said = spec.from.iter().chain(&spec.to).map(|region| PathBuf::from(&region.path));
    let sources = usize::from(opened.from.is_some());
    let regions = opened.from.iter().chain(&opened.dests).zip(said.clone()).enumerate();
    let real: Vec<PathBuf> = regions
        .map(|(at, (region, said))| match at.checked_sub(sources) {
            Some(index) if opened.without.contains(index) => said,
            _ => std::fs::read_link(format!("/proc/self/fd/{}", region.device.raw_fd())).unwrap_or(said),
        })
        .collect();
    (!real.iter().eq(said.collect::<Vec<_>>().iter())).then(|| real.into())
}

/// A spec with other paths, those of the source first.
pub(super) fn with_paths(mut spec: Spec, paths: &[PathBuf]) -> Spec {
    for (region, path) in spec.from.iter_mut().chain(&mut spec.to).zip(paths) {
        region.path = path.clone().into();
    }
    spec
}

/// The largest power of two that divides both.
fn alignment(sector: Sector, count: Sector) -> u64 {
    let both = sector.bytes() | count.bytes();
    if both == 0 { 1 << 62 } else { 1 << both.trailing_zeros() }
}

fn source(spec: &RegionSpec, count: Option<Sector>, with: &Opener<'_>) -> Result<IoRegion> {
    let path = Path::new(&spec.path);
    let device = with.open_source(path, alignment(spec.sector, count.unwrap_or(Sector::ZERO)))?;
    leave_descriptors(&device)?;
    refuse_record(path, &device, with)?;
    let count = match count {
        Some(count) => count,
        None => rest_of(path, &device, spec.sector)?,
    };
    device.check_region(spec.sector, count, false)?;
    Ok(IoRegion::new(&device, spec.sector, count))
}

/// How long a test is: what its spec says, else to the end of each destination.
///
/// # Errors
/// Where those are not equally long.
pub(super) fn length_of_test(spec: &Spec) -> std::result::Result<Sector, (Place, Error)> {
    let mut first = spec.count();
    for (index, to) in spec.to.iter().enumerate().filter(|_| spec.count().is_none()) {
        let path = Path::new(&to.path);
        let length = open_source(path, 1).and_then(|device| rest_of(path, &device, to.sector));
        let length = length.map_err(|error| (Place::To(index), error))?;
        let known = *first.get_or_insert(length);
        if known != length {
            let shown = path.display();
            let what = format!(
                "{shown} has {length} sectors there, and the first one {known}: give a COUNT, or make a test of each"
            );
            return Err((Place::To(index), Error::new(ErrorKind::Syntax, what)));
        }
    }
    first.ok_or_else(|| (Place::Line, Error::new(ErrorKind::Syntax, "no destination; add to=PATH")))
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

fn open_dest(opened: &Opened, spec: &Spec, to: &RegionSpec, count: Sector, with: &Opener<'_>) -> Result<Arc<Device>> {
    let path = Path::new(&to.path);
    let aligned_to = alignment(to.sector, count);
    if spec.action == Action::Verify {
        return with.open_source(path, aligned_to);
    }
    let how = OpenDest { create: spec.create, force: spec.force_mounted, aligned_to, look: with.looks };
    let device = with.devices.open_dest(path, how);
    let own: Vec<_> = opened.dests.iter().map(|dest| Arc::clone(&dest.device)).collect();
    device.map_err(|error| match error.kind() {
        ErrorKind::Busy => blkdev::clash_within(path, &own).unwrap_or(error),
        _ => error,
    })
}

/// Refuses a device that was given one of the last descriptors.
///
/// # Errors
/// As where there is none at all.
fn leave_descriptors(device: &Device) -> Result<()> {
    let limit = process::descriptors_max();
    let first_left = limit - FOR_RECORDS.min(limit / 2);
    if u64::try_from(device.raw_fd()).is_ok_and(|number| number < first_left) {
        return Ok(());
    }
    let what = format!("open {}", device.path().display());
    Err(Error::os(what, std::io::Error::from_raw_os_error(libc::EMFILE)))
}

/// The records of the jobs are no disks.
fn refuse_record(path: &Path, device: &Device, with: &Opener<'_>) -> Result<()> {
    if with.state.is_some_and(|state| is_within(device, state)) {
        let what = format!("{} is in the state directory, where the jobs are kept", path.display());
        return Err(Error::new(ErrorKind::Busy, what));
    }
    Ok(())
}

/// Whether a file is below a directory, by the name that the system has for it.
fn is_within(device: &Device, directory: &Path) -> bool {
    let real = || Some((device.name().ok()?, std::fs::canonicalize(directory).ok()?));
    device.can_grow() && real().is_some_and(|(name, directory)| name.starts_with(directory))
}

/// Who holds a destination that could not be opened exclusively, where that can be told.
fn name_holder(index: usize, to: &RegionSpec, error: Error, with: &Opener<'_>) -> OpenError {
    let (path, place) = (Path::new(&to.path), Place::To(index));
    if let Some(device) = with.devices.in_the_way(path) {
        let extents = blkdev::resolve(&device, Sector::ZERO, device.size()).unwrap_or_default();
        let who =
            (with.who_writes)(extents).map_or("a job that waits for its turn".to_owned(), |job| format!("job {job}"));
        let what = format!("{} is in use: {who} writes to {}", path.display(), device.path().display());
        return OpenError::Busy(place, Error::new(ErrorKind::Busy, what));
    }
    let holder = with.open_source(path, 1).and_then(|device| blkdev::in_use(&device));
    match holder {
        Ok(Some(holder)) => OpenError::InUse(place, holder.into()),
        _ => OpenError::Busy(place, error),
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
fn reach(opened: &mut Opened, spec: &Spec) -> std::result::Result<(), OpenError> {
    let extents = |region: &IoRegion| {
        let extents = blkdev::resolve(&region.device, region.sector, region.count)?;
        let lasting = blkdev::lasting(&region.device, &extents)?;
        Ok((extents, lasting))
    };
    let from = opened.from.as_ref().map(extents).transpose().map_err(OpenError::at(Place::From))?;
    let (source, lasting_source) = from.unwrap_or_default();
    let (mut dests, mut lasting_dests) = (Vec::new(), Vec::new());
    for (index, dest) in opened.dests.iter().enumerate() {
        let is_open = !opened.without.contains(index);
        let reached = if is_open { extents(dest) } else { Ok(Default::default()) };
        let (extents, lasting) = reached.map_err(OpenError::at(Place::To(index)))?;
        dests.push(extents);
        lasting_dests.push(lasting);
    }
    let writes = spec.action != Action::Verify;
    let lasting = Lasting { source: lasting_source, dests: lasting_dests, writes, sectors: opened.count().get() };
    let footprint = Footprint::new(source, dests, lasting);
    let overlap = if writes { footprint.overlap_within() } else { same_bytes(opened) };
    opened.footprint = Some(footprint);
    let Some((index, other)) = overlap else { return Ok(()) };
    let with = other.map_or("the source".to_owned(), |other| format!("destination {other}"));
    let path = Path::new(&spec.to[index].path).display();
    let what = format!("{path}: destination {index} overlaps {with}: they reach the same sectors");
    Err(OpenError::Failed(Place::To(index), Error::new(ErrorKind::Overlap, what)))
}
