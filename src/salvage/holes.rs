//! What is known of a source's holes: they are not read, and made on the destinations by few large requests. Pure.
//!
//! # Invariants
//! Holes begin and end at blocks of the job, and lie in what is known.

use std::ops::Range;

use crate::figures::RangeSet;

/// Holes that are kept at once. Beyond that all is forgotten, and asked for again where it is needed: 4 MiB of memory.
const MOST: usize = 1 << 17;

/// The holes of a source that may have some.
#[derive(Debug, Default)]
pub(super) struct Holes {
    known: RangeSet,
    holes: RangeSet,
}

/// What the first part of a range is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nobody has looked.
    Unknown(Range<u64>),
    Hole(Range<u64>),
    Data(Range<u64>),
}

impl Holes {
    /// Somebody has looked at a range. What is less than a block is data.
    pub(super) fn found(&mut self, known: Range<u64>, holes: &[Range<u64>], block: u64, total: u64) {
        if self.holes.len() + holes.len() > MOST {
            *self = Self::default();
        }
        self.known.insert(known);
        for hole in holes {
            let end = if hole.end >= total { total } else { hole.end / block * block };
            self.holes.insert(hole.start.next_multiple_of(block)..end);
        }
    }

    /// The first part of a range that is not empty.
    pub(super) fn first(&self, range: &Range<u64>) -> Part {
        let at = range.start;
        let Some(known) = self.known.first_from(at).filter(|known| known.start <= at) else {
            return Part::Unknown(range.clone());
        };
        match self.holes.first_from(at) {
            Some(hole) if hole.start <= at => Part::Hole(at..hole.end.min(range.end)),
            next => {
                let hole = next.map_or(u64::MAX, |hole| hole.start);
                Part::Data(at..hole.min(known.end).min(range.end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_its_holes_are() {
        let mut holes = Holes::default();
        assert_eq!(holes.first(&(5..90)), Part::Unknown(5..90));
        holes.found(0..64, &[1..30, 40..47, 60..64], 8, 100);
        for (range, part) in [
            (0..100, Part::Data(0..8)),
            (8..100, Part::Hole(8..24)),
            (16..20, Part::Hole(16..20)),
            (24..100, Part::Data(24..64)),
            (64..100, Part::Unknown(64..100)),
        ] {
            assert_eq!(holes.first(&range), part, "{range:?}");
        }
        // The job's end need not be a block's.
        holes.found(64..100, &[64..65, 70..100], 8, 100);
        assert_eq!(holes.first(&(64..100)), Part::Data(64..72));
        assert_eq!(holes.first(&(72..100)), Part::Hole(72..100));
    }

    #[test]
    fn the_list_is_bounded() {
        let mut holes = Holes::default();
        for look in 0..100 {
            let start = look * 100_000;
            let found: Vec<_> = (0..4096).map(|hole| start + hole * 24..start + hole * 24 + 8).collect();
            holes.found(start..start + 100_000, &found, 8, u64::MAX);
            assert!(holes.holes.len() <= MOST);
            assert_eq!(holes.first(&(start..start + 8)), Part::Hole(start..start + 8));
        }
    }
}
