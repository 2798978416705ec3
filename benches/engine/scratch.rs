//! Scratch disks in memory, and the proof that a copy is right.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use kcopyfs_support::{LoopDevice, stamp};

use crate::Result;

const MIB: u64 = 1 << 20;
/// How many places are compared: the first MiB, the last, and evenly between.
const PLACES: u64 = 5;
/// What the source is stamped with.
const SEED: u64 = 0x6b63_6f70;

/// A stamped source and as many destinations as a run may want.
pub(crate) struct Scratch {
    mebibytes: u32,
    source: LoopDevice,
    dests: Vec<LoopDevice>,
}

impl Scratch {
    pub(crate) fn new(mebibytes: u32, dests: usize) -> Self {
        let disk = || LoopDevice::new(u64::from(mebibytes) * MIB, 512);
        let source = disk();
        source.fill(SEED);
        Self { mebibytes, source, dests: (0..dests).map(|_| disk()).collect() }
    }

    pub(crate) fn mebibytes(&self) -> u32 {
        self.mebibytes
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.mebibytes) * MIB
    }

    pub(crate) fn source(&self) -> &Path {
        self.source.path()
    }

    /// The first `count` destinations.
    pub(crate) fn dests(&self, count: usize) -> impl Iterator<Item = &Path> {
        self.dests[..count].iter().map(LoopDevice::path)
    }

    /// The source and the first `count` destinations, open for direct I/O.
    pub(crate) fn open(&self, count: usize) -> io::Result<(File, Vec<File>)> {
        let direct = |options: &mut OpenOptions, path: &Path| options.custom_flags(libc::O_DIRECT).open(path);
        let from = direct(OpenOptions::new().read(true), self.source())?;
        let to: io::Result<_> = self.dests(count).map(|path| direct(OpenOptions::new().write(true), path)).collect();
        Ok((from, to?))
    }

    /// Where destinations are compared.
    fn places(&self) -> impl Iterator<Item = u64> {
        let last = self.bytes() - MIB;
        (0..PLACES).map(move |place| last / MIB * place / (PLACES - 1) * MIB)
    }

    /// Overwrites what will be compared.
    pub(crate) fn spoil(&self, count: usize) -> Result<()> {
        let spoilt = vec![0x5a; usize::try_from(MIB)?];
        for dest in &self.dests[..count] {
            let image = OpenOptions::new().write(true).open(dest.image())?;
            self.places().try_for_each(|place| image.write_all_at(&spoilt, place))?;
        }
        Ok(())
    }

    /// Compares the first `count` destinations with the source's stamps.
    pub(crate) fn compare(&self, count: usize) -> Result<()> {
        for dest in &self.dests[..count] {
            for place in self.places() {
                let data = dest.read(place..place + MIB);
                stamp::check(&data, SEED, place / stamp::SECTOR as u64).map_err(|wrong| format!("{wrong:?}"))?;
            }
        }
        Ok(())
    }
}
