//! What is where on a destination, in as few cells as a picture has. Pure.
//!
//! A cell stands for a range of sectors, and shows the worst that is in it, so that one bad sector of a large disk is seen.
//! From the best to the worst: durable, copied, to do, at work, suspect, unreadable, write failed, differs. At work comes
//! behind to do, because there it would never be seen otherwise; unreadable behind suspect, which may turn out well; and a
//! place that only this destination lacks behind one that nobody has.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::sector::SECTOR_SIZE;

/// Most cells that a picture has.
pub const CELLS_MAX: usize = 8192;

/// What is in a cell, the worst of it; from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// It survives a power cut.
    Durable,
    /// It is written, and not yet flushed.
    Copied,
    /// It is to be done yet.
    ToDo,
    /// Here the job is at work.
    AtWork,
    /// It could not be read as part of a large piece, and is looked at again.
    Suspect,
    /// It could not be read.
    Unreadable,
    /// It could not be written here.
    WriteFailed,
    /// It reads back differently.
    Differs,
}

impl Cell {
    /// All of them, from the best to the worst.
    pub const ALL: [Self; 8] = [
        Self::Durable,
        Self::Copied,
        Self::ToDo,
        Self::AtWork,
        Self::Suspect,
        Self::Unreadable,
        Self::WriteFailed,
        Self::Differs,
    ];

    /// The letter for it.
    pub const fn letter(self) -> char {
        match self {
            Self::Durable => '+',
            Self::Copied => '=',
            Self::ToDo => '.',
            Self::AtWork => '>',
            Self::Suspect => '?',
            Self::Unreadable => '-',
            Self::WriteFailed => 'x',
            Self::Differs => '!',
        }
    }

    /// A few words for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Copied => "copied",
            Self::ToDo => "to do",
            Self::AtWork => "at work",
            Self::Suspect => "suspect",
            Self::Unreadable => "unreadable",
            Self::WriteFailed => "write failed",
            Self::Differs => "differs",
        }
    }
}

/// A destination in cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Bytes that a cell stands for; the last one may stand for fewer.
    pub size: u64,
    /// Bytes of the job.
    pub total: u64,
    /// The cells, ascending.
    pub cells: Vec<Cell>,
}

impl Cells {
    /// Runs of equal cells: from which cell, up to which, and what they are.
    pub fn runs(&self) -> Vec<(Range<usize>, Cell)> {
        let mut runs: Vec<(Range<usize>, Cell)> = Vec::new();
        for (index, cell) in self.cells.iter().enumerate() {
            match runs.last_mut() {
                Some((run, last)) if last == cell => run.end = index + 1,
                _ => runs.push((index..index + 1, *cell)),
            }
        }
        runs
    }

    /// The bytes that cells stand for.
    pub fn bytes(&self, cells: &Range<usize>) -> Range<u64> {
        let at = |cell: usize| (self.size * cell as u64).min(self.total);
        at(cells.start)..at(cells.end)
    }
}

/// What is known of one destination, in sectors of the job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    /// Sectors of the job.
    pub(crate) total: u64,
    pub(crate) taken: RangeSet,
    pub(crate) durable: RangeSet,
    /// What could not be read. What is durable all the same came from elsewhere.
    pub(crate) unreadable: RangeSet,
    /// What failed and is looked at again.
    pub(crate) suspect: RangeSet,
    /// What could not be written. What it has taken all the same was written later.
    pub(crate) failed: RangeSet,
    pub(crate) differs: RangeSet,
    pub(crate) at_work: RangeSet,
}

impl Sheet {
    /// The destination in at most `most` cells, and [`CELLS_MAX`]. A job of no sectors has none.
    pub(crate) fn cells(&self, most: usize) -> Cells {
        let most = most.clamp(1, CELLS_MAX);
        let size = self.total.div_ceil(most as u64).max(1);
        let count = usize::try_from(self.total.div_ceil(size)).expect("at most as many as there may be");
        let mut cells = vec![Cell::Durable; count];
        let mut raise = |set: &RangeSet, to: Cell| {
            for range in set.within(&(0..self.total)) {
                let place = |sector: u64| usize::try_from(sector / size).expect("within the cells");
                for cell in &mut cells[place(range.start)..=place(range.end - 1)] {
                    *cell = to.max(*cell);
                }
            }
        };
        raise(&self.taken.without(&self.durable), Cell::Copied);
        raise(&self.taken.union(&self.durable).gaps(0..self.total), Cell::ToDo);
        raise(&self.at_work, Cell::AtWork);
        raise(&self.suspect.without(&self.taken), Cell::Suspect);
        raise(&self.unreadable.without(&self.durable), Cell::Unreadable);
        raise(&self.failed.without(&self.taken), Cell::WriteFailed);
        raise(&self.differs, Cell::Differs);
        Cells { size: size * SECTOR_SIZE, total: self.total * SECTOR_SIZE, cells }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Sets of sectors, as ranges and one by one.
    type Both = (RangeSet, BTreeSet<u64>);

    fn both() -> impl Strategy<Value = Both> {
        proptest::collection::vec((0_u64..300, 1_u64..40), 0..8).prop_map(|ranges| {
            let spans = ranges.iter().map(|(start, count)| *start..start + count);
            (spans.clone().collect(), spans.flatten().collect())
        })
    }

    /// What a sector is, told slowly.
    fn of_sector(sector: u64, sets: &[Both; 7]) -> Cell {
        let [taken, durable, unreadable, suspect, failed, differs, at_work] =
            sets.each_ref().map(|set| set.1.contains(&sector));
        match () {
            () if differs => Cell::Differs,
            () if failed && !taken => Cell::WriteFailed,
            () if unreadable && !durable => Cell::Unreadable,
            () if suspect && !taken => Cell::Suspect,
            () if at_work => Cell::AtWork,
            () if durable => Cell::Durable,
            () if taken => Cell::Copied,
            () => Cell::ToDo,
        }
    }

    proptest! {
        #[test]
        fn a_cell_is_the_worst_of_its_sectors(
            sets in [both(), both(), both(), both(), both(), both(), both()],
            total in 0_u64..330,
            most in 0_usize..100,
        ) {
            let [taken, durable, unreadable, suspect, failed, differs, at_work] = sets.each_ref().map(|set| set.0.clone());
            let sheet = Sheet { total, taken, durable, unreadable, suspect, failed, differs, at_work };
            let Cells { size, total: bytes, cells } = sheet.cells(most);
            prop_assert_eq!(bytes, total * SECTOR_SIZE);
            prop_assert!(cells.len() <= most.max(1));
            let size = size / SECTOR_SIZE;
            prop_assert!(cells.len() as u64 * size >= total && (cells.len() as u64) * size < total + size);
            for (index, cell) in (0..).zip(&cells) {
                let sectors = index * size..((index + 1) * size).min(total);
                prop_assert_eq!(Some(*cell), sectors.map(|sector| of_sector(sector, &sets)).max());
            }
        }

        #[test]
        fn runs_are_the_cells(letters in proptest::collection::vec(0_usize..8, 0..60), size in 1_u64..9) {
            let cells: Vec<Cell> = letters.iter().map(|index| Cell::ALL[*index]).collect();
            let total = (size * cells.len() as u64).saturating_sub(size / 2);
            let picture = Cells { size, total, cells: cells.clone() };
            let runs = picture.runs();
            let again: Vec<Cell> = runs.iter().flat_map(|(run, cell)| run.clone().map(|_| *cell)).collect();
            prop_assert_eq!(again, cells);
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1 && pair[0].0.end == pair[1].0.start));
            let bytes: u64 = runs.iter().map(|(run, _)| picture.bytes(run)).map(|bytes| bytes.end - bytes.start).sum();
            prop_assert_eq!(bytes, total);
        }
    }

    #[test]
    fn one_bad_sector_of_a_large_disk_is_seen() {
        let total = 40 << 31;
        let all: RangeSet = std::iter::once(0..total).collect();
        let bad: RangeSet = std::iter::once(total - 1..total).collect();
        let durable = all.without(&bad);
        let sheet = Sheet { total, taken: durable.clone(), durable, unreadable: bad, ..Sheet::default() };
        let cells = sheet.cells(usize::MAX);
        assert_eq!((cells.cells.len(), cells.cells[0], cells.cells[8191]), (8192, Cell::Durable, Cell::Unreadable));
        assert!(Cell::ALL.is_sorted() && Cell::ALL.map(Cell::letter).iter().collect::<BTreeSet<_>>().len() == 8);
    }
}
