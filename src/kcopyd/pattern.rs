//! Data that names its place: what a burn-in test writes and looks for. Pure.
//!
//! Each sector begins with the seed and its number, as little-endian numbers of 64 bits; the rest follows from both by splitmix64,
//! so that no part of a sector is that of another sector or of another seed, and no disk can make it smaller.

use crate::io::PageList;
use crate::sector::{SECTOR_SIZE, Sector};

/// What is written to a region, and looked for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Tells it apart from others.
    pub seed: u64,
    /// The number of the region's first sector.
    pub first: u64,
}

/// A sector's bytes in memory.
#[allow(clippy::cast_possible_truncation)]
const SECTOR: usize = SECTOR_SIZE as usize;
/// Made at a time: fits the stack and a cache.
const STEP: usize = 4096;

impl Pattern {
    /// The bytes of whole sectors from `offset` of the region on.
    pub fn fill(&self, offset: Sector, bytes: &mut [u8]) {
        for (number, sector) in (self.first.wrapping_add(offset.get())..).zip(bytes.chunks_mut(SECTOR)) {
            let mut state = mix(self.seed ^ mix(number));
            for (index, word) in sector.chunks_mut(8).enumerate() {
                let value = match index {
                    0 => self.seed,
                    1 => number,
                    _ => {
                        state = state.wrapping_add(GAMMA);
                        mix(state)
                    }
                };
                word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
            }
        }
    }

    /// The number that a sector names, if it begins as one of this pattern does.
    pub(super) fn number_in(&self, sector: &[u8; 16]) -> Option<u64> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| sector[at + index]));
        (word(0) == self.seed).then(|| word(8))
    }

    /// The first sector in `length` bytes of a list, and as many behind them, that is not the one it should be: the number that it
    /// names, if that is another.
    pub(super) fn displaced(&self, list: &PageList, length: usize) -> Option<u64> {
        let read = |at: usize| {
            let mut sector = [0; SECTOR];
            list.read(at, &mut sector);
            sector
        };
        let [wanted, found] = (0..length)
            .step_by(SECTOR)
            .map(|at| [read(at), read(length + at)])
            .find(|[wanted, found]| wanted != found)?
            .map(|sector| self.number_in(sector.first_chunk().expect("a sector's beginning")));
        found.filter(|_| found != wanted)
    }

    pub(super) fn fill_list(&self, offset: Sector, list: &mut PageList, length: usize) {
        let mut bytes = [0; STEP];
        for start in (0..length).step_by(STEP) {
            let part = &mut bytes[..STEP.min(length - start)];
            let at = Sector::whole_in(start as u64);
            self.fill(offset.checked_add(at).expect("inside the job"), part);
            list.write(start, part);
        }
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(value: u64) -> u64 {
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(pattern: Pattern, from: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count * SECTOR];
        pattern.fill(Sector::new(from).unwrap(), &mut bytes);
        bytes
    }

    #[test]
    fn a_sector_names_its_place_and_its_seed() {
        let pattern = Pattern { seed: 0x1122, first: 40 };
        let bytes = sectors(pattern, 2, 1);
        assert_eq!((bytes[..8].to_vec(), bytes[8]), (0x1122_u64.to_le_bytes().to_vec(), 42));
        assert_eq!(sectors(pattern, 0, 4)[2 * SECTOR..3 * SECTOR], bytes);
        assert_eq!(sectors(Pattern { seed: 0x1122, first: 0 }, 42, 1), bytes);
        let begins = |bytes: &[u8]| *bytes.first_chunk().unwrap();
        assert_eq!(pattern.number_in(&begins(&bytes)), Some(42));
        assert_eq!(Pattern { seed: 1, first: 0 }.number_in(&begins(&bytes)), None);
        // Nothing of it is that of a neighbour, or of another seed.
        let words = |bytes: &[u8]| bytes.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for other in [sectors(pattern, 3, 1), sectors(Pattern { seed: 0x1123, ..pattern }, 2, 1)] {
            let equal = words(&bytes).iter().zip(words(&other)).filter(|(a, b)| *a == b).count();
            assert!(equal <= 1, "{equal} words");
        }
    }
}
