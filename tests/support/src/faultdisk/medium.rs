//! The medium: what the disk holds, and the write cache before it that a power cut empties.
//!
//! # Invariants
//! - Without a cache (`volatile` off) a write is durable when it returns.
//! - With one, the file holds what was flushed; `pending` holds the writes since then, in order; `newest` is what a read
//!   sees of them, by sector.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

use crate::{
    stamp::{Rng, SECTOR},
    sweep,
};

/// [`SECTOR`] as a position's unit.
const SECTOR_BYTES: u64 = SECTOR as u64;

/// What of the unflushed writes survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing.
    Drop,
    /// The first so many writes.
    Keep(usize),
    /// Of every write some sectors and not others, by this seed: a write cache has no order.
    Random(u64),
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Writes that no flush had made durable.
    pub writes: usize,
    /// Their sectors that reached the medium all the same.
    pub sectors_kept: usize,
    /// Their sectors that are lost.
    pub sectors_lost: usize,
}

#[derive(Debug)]
pub(super) struct Medium {
    file: File,
    size: u64,
    volatile: bool,
    pending: Vec<(u64, Vec<u8>)>,
    newest: BTreeMap<u64, [u8; SECTOR]>,
}

impl Medium {
    /// A medium of `size` bytes, full of zeros, in memory that goes with the process.
    pub(super) fn new(size: u64, volatile: bool) -> io::Result<Self> {
        let file = tempfile::tempfile_in(sweep::IMAGE_DIR).or_else(|_| tempfile::tempfile())?;
        file.set_len(size)?;
        Ok(Self { file, size, volatile, pending: Vec::new(), newest: BTreeMap::new() })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Writes that no flush has made durable yet.
    pub(super) const fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Cuts it off at `size`, or adds zeros.
    pub(super) fn resize(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// `len` bytes at `offset` as the disk's host sees them; fewer at the end.
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut data = self.read_durable(offset, len)?;
        let end = offset + data.len() as u64;
        for (sector, bytes) in self.newest.range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)) {
            let start = sector * SECTOR_BYTES;
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES).min(end));
            data[index(from - offset)..index(to - offset)]
                .copy_from_slice(&bytes[index(from - start)..index(to - start)]);
        }
        Ok(data)
    }

    /// `len` bytes at `offset` as a power cut would leave them; fewer at the end.
    pub(super) fn read_durable(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = self.size.saturating_sub(offset);
        let mut data = vec![0; usize::try_from(left).map_or(len, |left| left.min(len))];
        // a file that is shorter than `size` reads as zeros
        let mut done = 0;
        while done < data.len() {
            match self.file.read_at(&mut data[done..], offset + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(data)
    }

    /// Takes `data` at `offset`, into the cache if there is one.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.volatile {
            return self.file.write_all_at(data, offset);
        }
        if !offset.is_multiple_of(SECTOR_BYTES) || !data.len().is_multiple_of(SECTOR) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        for (sector, bytes) in (offset / SECTOR_BYTES..).zip(data.chunks_exact(SECTOR)) {
            self.newest.insert(sector, bytes.try_into().expect("a sector"));
        }
        self.pending.push((offset, data.to_vec()));
        Ok(())
    }

    /// Puts `data` on the medium past the cache, as if it had always been there.
    pub(super) fn load(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Makes every write durable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.newest.clear();
        for (offset, data) in self.pending.drain(..) {
            self.file.write_all_at(&data, offset)?;
        }
        Ok(())
    }

    /// Empties the cache; what of it reaches the medium, `mode` says.
    pub(super) fn power_cut(&mut self, mode: PowerCut) -> io::Result<Cut> {
        self.newest.clear();
        let pending = std::mem::take(&mut self.pending);
        let mut cut = Cut { writes: pending.len(), ..Cut::default() };
        let mut rng = Rng::new(if let PowerCut::Random(seed) = mode { seed } else { 0 });
        for (order, (offset, data)) in pending.into_iter().enumerate() {
            for (sector, bytes) in (offset..).step_by(SECTOR).zip(data.chunks(SECTOR)) {
                let keep = match mode {
                    PowerCut::Drop => false,
                    PowerCut::Keep(count) => order < count,
                    PowerCut::Random(_) => rng.one_in(2),
                };
                if keep {
                    self.file.write_all_at(bytes, sector)?;
                    cut.sectors_kept += 1;
                } else {
                    cut.sectors_lost += 1;
                }
            }
        }
        Ok(cut)
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a buffer fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_sees_the_cache_and_a_power_cut_empties_it() {
        let mut medium = Medium::new(4096, true).unwrap();
        medium.write(512, &[1; 1024]).unwrap();
        medium.write(1024, &[2; 512]).unwrap();
        let seen = medium.read(500, 1100).unwrap();
        assert_eq!((seen[11], seen[12], seen[523], seen[524], seen[1036]), (0, 1, 1, 2, 0));
        assert_eq!(medium.read_durable(0, 4096).unwrap(), [0; 4096]);
        let cut = medium.power_cut(PowerCut::Keep(1)).unwrap();
        assert_eq!(cut, Cut { writes: 2, sectors_kept: 2, sectors_lost: 1 });
        assert_eq!(medium.read(512, 1024).unwrap(), [1; 1024]);
    }

    #[test]
    fn a_flush_makes_the_last_write_of_a_sector_win() {
        let mut medium = Medium::new(1024, true).unwrap();
        medium.write(0, &[1; 512]).unwrap();
        medium.write(0, &[2; 512]).unwrap();
        medium.flush().unwrap();
        assert_eq!(medium.power_cut(PowerCut::Drop).unwrap().writes, 0);
        assert_eq!(medium.read_durable(0, 512).unwrap(), [2; 512]);
    }
}
