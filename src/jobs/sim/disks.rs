//! The disks of a simulated machine: their bytes, the names that lead to them, who can be opened now.
//!
//! Disks are the same in every run; only their bytes are new. Two names may be exchanged, as after a restart of a real
//! machine; a partition is a window onto a disk by a name of its own; the last disk is a regular file, which is locked.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::open::{OpenError, Opened, stand_in};
use super::random::Random;
use crate::blkdev::{Device, DeviceCard, Extent, LastingExtent, Place, Target};
use crate::claims::{Footprint, Lasting};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind};
use crate::figures::RangeSet;
use crate::io::sim::{Behaviour, Sim};
use crate::kcopyd::Client;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{self, Action, RegionSpec, Spec};

/// Sectors of a disk.
pub(super) const SIZE: u64 = 96;
/// How many disks; the last is a file.
pub(super) const DISKS: usize = 6;
/// The first sector of a partition.
pub(super) const PART: u64 = 32;
/// Every name, the disk that it leads to, and where its first sector is there.
pub(super) const NAMES: [(&str, usize, u64); 8] = [
    ("/dev/a", 0, 0),
    ("/dev/b", 1, 0),
    ("/dev/c", 2, 0),
    ("/dev/d", 3, 0),
    ("/dev/e", 4, 0),
    ("/srv/file", 5, 0),
    ("/dev/a1", 0, PART),
    ("/dev/b1", 1, PART),
];

/// A region of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) disk: usize,
    pub(super) sectors: Range<u64>,
}

impl Span {
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let both = self.sectors.start.max(other.sectors.start)..self.sectors.end.min(other.sectors.end);
        self.disk == other.disk && self.disk < DISKS && !both.is_empty()
    }

    /// Where it is in the content of its disk.
    pub(super) fn bytes(&self) -> Range<usize> {
        bytes(self.sectors.start)..bytes(self.sectors.end)
    }
}

/// The disks, for many runs.
pub(super) struct Bank {
    pub(super) devices: Vec<Arc<Device>>,
    _folder: tempfile::TempDir,
}

impl Bank {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, vec![0; bytes(SIZE)]).expect("a file");
        let size = Sector::new(SIZE).expect("a small disk");
        let disks = (1..DISKS).map(|_| Device::in_memory(size, 512).expect("memory"));
        let devices = disks.chain([Device::buffered(&path).expect("the file is there")]).collect();
        Self { devices, _folder: folder }
    }
}

/// The disks of one run.
pub(super) struct Disks<'a> {
    pub(super) devices: &'a [Arc<Device>],
    pub(super) sim: Sim,
    /// Which disk stands where each was at first.
    pub(super) now: [usize; DISKS],
    /// Somebody else has them open.
    pub(super) busy: [bool; DISKS],
    /// They are not there.
    pub(super) missing: [bool; DISKS],
    /// They have nothing by which they can be recognised, but for a name that is good until the machine restarts.
    pub(super) anonymous: [bool; DISKS],
    /// How often the machine has restarted.
    boots: u32,
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR_SIZE).expect("few sectors")
}

impl<'a> Disks<'a> {
    pub(super) fn new(bank: &'a Bank, random: &mut Random, seed: u64) -> Self {
        let sim = Sim::stepped(seed);
        for (disk, device) in bank.devices.iter().enumerate() {
            let mut content = vec![0_u8; bytes(SIZE)];
            for (sector, place) in content.chunks_mut(512).enumerate() {
                place[..8].copy_from_slice(&(seed << 16 | (disk as u64) << 8 | sector as u64 | 1 << 63).to_le_bytes());
            }
            device.file().write_all_at(&content, 0).expect("memory");
            let slow = random.pick(&[1, 1, 1, 20]);
            let latency = Some(Duration::from_micros(20 * slow)..Duration::from_micros(900 * slow));
            let (cache, zeroes) = (!random.one_in(4), random.one_in(3));
            sim.behave(device, Behaviour { latency, zeroes, cache, ..Behaviour::default() });
        }
        Self {
            devices: &bank.devices,
            sim,
            now: std::array::from_fn(|disk| disk),
            busy: [false; DISKS],
            missing: [false; DISKS],
            anonymous: std::array::from_fn(|_| random.one_in(8)),
            boots: 0,
        }
    }

    /// The machine loses its power and starts again.
    pub(super) fn power_cut(&mut self) {
        self.sim.power_cut();
        self.sim.clear();
        self.boots += 1;
    }

    pub(super) fn read(&self, span: &Span) -> Vec<u8> {
        let mut content = vec![0; bytes(span.sectors.end - span.sectors.start)];
        let from = span.sectors.start * SECTOR_SIZE;
        self.devices[span.disk].file().read_exact_at(&mut content, from).expect("memory");
        content
    }

    /// What is on every disk.
    pub(super) fn content(&self) -> Vec<Vec<u8>> {
        (0..DISKS).map(|disk| self.read(&Span { disk, sectors: 0..SIZE })).collect()
    }

    /// The disk of a device; [`DISKS`] for what has the place of a destination that was dropped.
    pub(super) fn disk_of(&self, target: Target) -> usize {
        self.devices.iter().position(|device| device.target() == target).unwrap_or(DISKS)
    }

    pub(super) fn span_of(&self, region: &IoRegion) -> Span {
        let start = region.sector.get();
        Span { disk: self.disk_of(region.device.target()), sectors: start..start + region.count.get() }
    }

    /// Opens what a spec names, as [`open`](super::super::open::open) does with real devices.
    pub(super) fn open(&self, spec: &Spec, without: ErrorBits, client: &Arc<Client>) -> Result<Opened, OpenError> {
        let count = spec.count().expect("every job of a simulation says its length");
        let writes = spec.action != Action::Verify;
        let from = spec.from.as_ref().map(|from| self.region(from, count, false, spec::Place::From)).transpose()?;
        let dests = spec.to.iter().enumerate();
        let dests = dests.map(|(index, to)| {
            if without.contains(index) {
                return Ok(stand_in(to.sector, count).expect("memory"));
            }
            self.region(to, count, writes, spec::Place::To(index))
        });
        let dests = dests.collect::<Result<Vec<_>, _>>()?;
        let source = from.iter().map(|region| self.extent(region)).collect();
        let lasting = Lasting {
            source: from.iter().map(|region| self.lasting(region)).collect(),
            dests: dests.iter().map(|region| vec![self.lasting(region)]).collect(),
            writes,
            sectors: count.get(),
        };
        let extents = dests.iter().map(|region| vec![self.extent(region)]).collect();
        let mut footprint = Footprint::new(source, extents, lasting);
        without.iter().for_each(|index| footprint.leave_out(index));
        if let Some((index, _)) = footprint.overlap_within() {
            let error = Error::new(ErrorKind::Overlap, "it is in its own way");
            return Err(OpenError::Failed(spec::Place::To(index), error));
        }
        let identities = from.iter().chain(&dests).map(|region| self.identity(region)).collect();
        let cards = from.iter().chain(&dests).map(|region| Arc::new(self.card(region))).collect();
        let (footprint, real_paths) = (Some(footprint), None);
        Ok(Opened { client: Arc::clone(client), from, dests, identities, cards, footprint, real_paths, without })
    }

    /// What is in a region now, where its disk is there.
    pub(super) fn bytes_of(&self, region: &RegionSpec) -> Option<Vec<u8>> {
        let region = self.region(region, region.count?, false, spec::Place::From).ok()?;
        Some(self.read(&self.span_of(&region)))
    }

    fn region(
        &self,
        region: &RegionSpec,
        count: Sector,
        writes: bool,
        place: spec::Place,
    ) -> Result<IoRegion, OpenError> {
        let path = region.path.to_string_lossy();
        let known = NAMES.iter().find(|(name, ..)| *name == path);
        let (_, name, offset) = known.expect("a name of the simulation");
        let disk = self.now[*name];
        let start = region.sector.get() + offset;
        if self.missing[disk] || start + count.get() > SIZE {
            return Err(OpenError::Failed(place, Error::new(ErrorKind::NotFound, format!("{path} is not there"))));
        }
        let device = &self.devices[disk];
        // A late write of a daemon that was killed keeps its disk busy, too.
        if writes && (self.busy[disk] || self.sim.orphans(device) > 0) {
            return Err(OpenError::Busy(place, Error::new(ErrorKind::Busy, format!("{path} is in use"))));
        }
        Ok(IoRegion::new(device, Sector::new(start).expect("small"), count))
    }

    /// The holes of a source in a range of its job: where it is zeros, as a file system may have it; a look goes only so far.
    pub(super) fn holes(&self, source: &IoRegion, range: Range<u64>) -> (Range<u64>, Vec<Range<u64>>) {
        let content = self.read(&self.span_of(source));
        let known = range.start..range.end.min(range.start + 12);
        let is_zero = |sector: &u64| content[bytes(*sector)..bytes(*sector + 1)].iter().all(|byte| *byte == 0);
        let holes: RangeSet = known.clone().filter(is_zero).map(|sector| sector..sector + 1).collect();
        (known, holes.iter().collect())
    }

    fn card(&self, region: &IoRegion) -> DeviceCard {
        let serial = Some(format!("disk-{}", self.disk_of(region.device.target())));
        DeviceCard { serial, ..DeviceCard::default() }
    }

    fn identity(&self, region: &IoRegion) -> Option<Arc<str>> {
        let disk = self.disk_of(region.device.target());
        (!self.is_anonymous(disk)).then(|| format!("serial:disk-{disk};sectors={SIZE}").into())
    }

    fn range(region: &IoRegion) -> Range<u64> {
        region.sector.bytes()..region.sector.bytes() + region.count.bytes()
    }

    fn extent(&self, region: &IoRegion) -> Extent {
        Extent {
            place: Place::Memory { serial: self.disk_of(region.device.target()) as u64 },
            bytes: Self::range(region),
            exact: true,
            at: Some(0),
            mapped: false,
            path: Path::new("/dev/some").into(),
        }
    }

    /// Whether nothing lasting is known of it. Of what was dropped nobody asks.
    fn is_anonymous(&self, disk: usize) -> bool {
        self.anonymous.get(disk).is_some_and(|anonymous| *anonymous)
    }

    fn lasting(&self, region: &IoRegion) -> LastingExtent {
        let disk = self.disk_of(region.device.target());
        let medium =
            if self.is_anonymous(disk) { format!("boot:{};disk-{disk}", self.boots) } else { format!("disk-{disk}") };
        LastingExtent { medium: medium.into(), bytes: Self::range(region), exact: true, at: Some(0) }
    }
}
