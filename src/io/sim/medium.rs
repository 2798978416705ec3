//! How a simulated device behaves beyond its bytes: its latency, its zones, what it allocates, what its cache loses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::service::{Servers, Service};
use crate::blkdev::{Device, Zone, ZoneKind};
use crate::sector::{SECTOR_SIZE, Sector};

/// How a simulated device behaves. The default is a fast disk that writes through and has no write-zeroes.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How long a transfer takes; without it, less than a millisecond.
    pub latency: Option<Range<Duration>>,
    /// How many it works on at once and how fast, in place of `latency`.
    pub service: Option<Service>,
    /// It is zoned: each zone has so many sectors and takes writes at its write pointer only; others fail with `EIO`.
    pub zone: Option<Sector>,
    /// It has write-zeroes, and they make holes.
    pub zeroes: bool,
    /// It is thin: a chunk of so many sectors takes space from its first write on.
    pub thin: Option<Sector>,
    /// It takes discards.
    pub discard: Option<Discard>,
    /// It has a volatile cache: what was written since the last flush may be lost by a [power cut](super::Sim::power_cut).
    pub cache: bool,
}

/// What a discard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// What was discarded reads as zeros, and takes no space.
    Zeros,
    /// Nothing, and it succeeds.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Medium {
    pub(super) behaviour: Behaviour,
    pub(super) servers: Servers,
    /// Its place in the order of media, which is the same in every run.
    pub(super) number: usize,
    /// Write pointers of the zones that were written, in bytes from the device's beginning.
    pointers: BTreeMap<u64, u64>,
    chunks: BTreeSet<u64>,
    /// Counts writes.
    writes: u64,
    /// Of each sector that the cache holds: what it was before, and the number of the write that replaced it.
    older: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    device: Option<Arc<Device>>,
}

impl Medium {
    pub(super) fn new(behaviour: Behaviour, number: usize) -> Self {
        Self {
            behaviour,
            servers: Servers::default(),
            number,
            pointers: BTreeMap::new(),
            chunks: BTreeSet::new(),
            writes: 0,
            older: BTreeMap::new(),
            device: None,
        }
    }

    pub(super) fn allocated(&self) -> usize {
        self.chunks.len()
    }

    /// The zones of a device of that size.
    pub(super) fn zones(&self, size: Sector) -> Vec<Zone> {
        let Some(length) = self.behaviour.zone else { return Vec::new() };
        let zone = |number: u64| {
            let start = number * length.get();
            let end = (start + length.get()).min(size.get());
            let pointer = self.pointers.get(&number).map_or(start, |bytes| bytes / SECTOR_SIZE);
            let [start, end, pointer] =
                [start, end, pointer].map(|number| Sector::new(number).expect("inside the device"));
            Zone { start, end, kind: ZoneKind::Sequential { pointer } }
        };
        (0..size.get().div_ceil(length.get())).map(zone).collect()
    }

    /// Whether a write may begin at that byte of a zoned device, and go on for `length` bytes.
    pub(super) fn takes(&self, position: u64, length: u64) -> bool {
        let Some(zone) = self.behaviour.zone.map(Sector::bytes) else { return true };
        let number = position / zone;
        let pointer = self.pointers.get(&number).copied().unwrap_or(number * zone);
        position == pointer && position + length <= (number + 1) * zone
    }

    /// Bytes are about to be written: notes what that changes.
    pub(super) fn before_write(&mut self, device: &Arc<Device>, position: u64, length: u64) {
        if length == 0 {
            return;
        }
        if let Some(zone) = self.behaviour.zone.map(Sector::bytes) {
            self.pointers.insert(position / zone, position + length);
        }
        if let Some(chunk) = self.behaviour.thin.map(Sector::bytes) {
            self.chunks.extend(position / chunk..=(position + length - 1) / chunk);
        }
        if self.behaviour.cache {
            self.writes += 1;
            self.device.get_or_insert_with(|| Arc::clone(device));
            for sector in position / SECTOR_SIZE..(position + length).div_ceil(SECTOR_SIZE) {
                let mut old = vec![0; 512];
                // Beyond the end of a file that grows there was nothing.
                let _ = device.file().read_exact_at(&mut old, sector * SECTOR_SIZE);
                self.older.entry(sector).or_default().push((self.writes, old));
            }
        }
    }

    /// Bytes were discarded: the chunks that lie in them whole take no space.
    pub(super) fn discarded(&mut self, position: u64, length: u64) {
        if let Some(chunk) = self.behaviour.thin.map(Sector::bytes) {
            let whole = position.div_ceil(chunk)..(position + length) / chunk;
            self.chunks.retain(|number| !whole.contains(number));
        }
    }

    /// What a flush that begins now makes durable.
    pub(super) fn mark(&self) -> u64 {
        self.writes
    }

    /// A flush that began at that mark has ended.
    pub(super) fn flushed(&mut self, mark: u64) {
        self.older.retain(|_, contents| {
            contents.retain(|(write, _)| *write > mark);
            !contents.is_empty()
        });
    }

    /// The first of some sectors of which something older than what they have now may come back.
    #[cfg(test)]
    pub(super) fn first_volatile(&self, device: &Device, sectors: Range<u64>) -> Option<u64> {
        let differs = |sector: u64, older: &[(u64, Vec<u8>)]| {
            let mut now = [0; 512];
            device.file().read_exact_at(&mut now, sector * SECTOR_SIZE).expect("a device in memory");
            older.iter().any(|(_, old)| *old != now)
        };
        self.older.range(sectors).find(|(sector, older)| differs(**sector, older)).map(|(sector, _)| *sector)
    }

    /// Of each sector one content stays: the newest, or one that it had since the last flush.
    pub(super) fn power_cut(&mut self, mut random: impl FnMut() -> u64) {
        let Some(device) = &self.device else { return };
        for (sector, contents) in std::mem::take(&mut self.older) {
            let pick = usize::try_from(random() % (contents.len() as u64 + 1));
            if let Some((_, old)) = pick.ok().and_then(|pick| contents.get(pick)) {
                // A sector that was never written back has lost nothing.
                let _ = device.file().write_all_at(old, sector * SECTOR_SIZE);
            }
        }
    }
}
