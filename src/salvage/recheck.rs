//! What a comparison could not read: alone, then in halves down to the logical block. Pure.
//!
//! The system makes one request of neighbouring pieces, and that fails whole: so a piece that failed is compared again
//! by itself before anything is said of it. Where more than [`DEAD`] sectors have failed one after the other, whole
//! pieces are told; so a dead area costs two requests a piece.

use std::collections::BTreeMap;
use std::ops::Range;

use super::bisect::halves;

/// Sectors that fail one after the other before an area counts as dead: 4 MiB.
const DEAD: u64 = 8192;
/// Ranges that may wait; beyond them whole pieces are told.
const MOST: usize = 1 << 14;

/// Whose sectors could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Source,
    Dest,
}

/// The ranges that are compared again.
#[derive(Debug, Default)]
pub(crate) struct Recheck {
    /// By their first sectors: their ends, and how often they were tried.
    waiting: BTreeMap<u64, (u64, u32)>,
    tries: u32,
    dead: [u64; 2],
}

impl Recheck {
    /// Where the first range to compare begins.
    pub(crate) fn first(&self) -> Option<u64> {
        self.waiting.keys().next().copied()
    }

    /// The next range to compare, with nothing else: the first on the disk.
    pub(crate) fn next(&mut self) -> Option<Range<u64>> {
        let (start, (end, tries)) = self.waiting.pop_first()?;
        self.tries = tries;
        Some(start..end)
    }

    fn push(&mut self, range: &Range<u64>, tries: u32) {
        self.waiting.insert(range.start, (range.end, tries));
    }

    /// Compares both halves of a range.
    pub(crate) fn halve(&mut self, range: &Range<u64>, block: u64) {
        for range in &halves(range, block) {
            self.push(range, 0);
        }
    }

    /// A range could not be read, `alone` or together with others. `false` if it is given up.
    pub(crate) fn failed(&mut self, range: &Range<u64>, whose: Whose, alone: bool, block: u64, retries: u32) -> bool {
        let sectors = range.end - range.start;
        let dead = &mut self.dead[whose as usize];
        if self.waiting.len() >= MOST {
            return false;
        }
        if !alone {
            self.push(range, 0);
        } else if sectors > block && *dead < DEAD {
            self.halve(range, block);
        } else if self.tries < retries {
            self.push(range, self.tries + 1);
        } else {
            *dead += sectors;
            return false;
        }
        true
    }

    /// A range could be read.
    pub(crate) fn was_read(&mut self, whose: Whose) {
        self.dead[whose as usize] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 64;

    /// Compares a disk whose request over four pieces is one: what is told, and in how many requests.
    fn run(total: u64, block: u64, bad: impl Fn(u64) -> bool, retries: u32) -> (Vec<Range<u64>>, u64) {
        let (mut recheck, mut told, mut requests) = (Recheck::default(), Vec::new(), 0);
        let mut look = |recheck: &mut Recheck, read: &Range<u64>, piece: Range<u64>| {
            let fails = read.clone().any(&bad);
            let alone = *read == piece;
            if !fails {
                recheck.was_read(Whose::Source);
            } else if !recheck.failed(&piece, Whose::Source, alone, block, retries) {
                told.push(piece);
            }
        };
        for start in (0..total).step_by(4 * PIECE as usize) {
            requests += 1;
            let read = start..start + 4 * PIECE;
            (0..4).for_each(|piece| look(&mut recheck, &read, start + piece * PIECE..start + (piece + 1) * PIECE));
        }
        while let Some(range) = recheck.next() {
            requests += 1;
            look(&mut recheck, &range, range.clone());
        }
        told.sort_by_key(|range| range.start);
        (told, requests)
    }

    #[test]
    fn one_bad_sector_is_told_and_not_its_neighbours() {
        let one: &[_] = &run(4096, 1, |sector| sector == 777, 0).0;
        assert!(matches!(one, [Range { start: 777, end: 778 }]), "{one:?}");
        assert_eq!(run(4096, 1, |_| false, 0), (Vec::new(), 16));
        let ends = run(4096, 1, |sector| sector == 0 || sector == 4095, 3).0;
        assert_eq!(ends, [0..1, 4095..4096]);
        // nor where a piece is no more than a block
        let one: &[_] = &run(4096, PIECE, |sector| sector == 777, 0).0;
        assert!(matches!(one, [Range { start: 768, end: 832 }]), "{one:?}");
    }

    #[test]
    fn a_dead_area_costs_few_requests_a_piece() {
        let pieces = 1 << 12;
        let (told, requests) = run(pieces * PIECE, 1, |_| true, 0);
        assert!(requests < 3 * pieces + 4 * DEAD, "{requests}");
        assert_eq!(told.iter().map(|range| range.end - range.start).sum::<u64>(), pieces * PIECE);
    }
}
