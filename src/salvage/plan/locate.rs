//! Where in a piece that failed the first bad block is. Pure.
//!
//! The piece is read again by halves, from the front, and nothing is written: what kcopyd promises of a piece that failed
//! stays true. It costs at most a read for each halving, and one that makes sure.

use std::ops::Range;

use crate::salvage::bisect::first_half;

/// The search for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Locate {
    /// Where the piece begins: nothing of it is written.
    piece: u64,
    /// The smallest range that was seen to fail.
    seen: Range<u64>,
    /// Where in it the first bad block must be, if the error lasts.
    within: Range<u64>,
    errno: i32,
    /// It failed when it was read by itself, too.
    again: bool,
}

impl Locate {
    pub(crate) fn new(range: Range<u64>, errno: i32) -> Self {
        Self { piece: range.start, within: range.clone(), seen: range, errno, again: false }
    }

    /// Where the piece begins.
    pub(crate) fn piece(&self) -> u64 {
        self.piece
    }

    /// What was seen to fail.
    pub(crate) fn seen(&self) -> (&Range<u64>, i32) {
        (&self.seen, self.errno)
    }

    /// What is to be read next: in the job's coarsest blocks, and within the last of them in the source's. `None` where there
    /// is nothing more to learn.
    pub(crate) fn next(&self, coarsest: u64, source: u64) -> Option<Range<u64>> {
        let sectors = self.within.end - self.within.start;
        let block = if sectors > coarsest { coarsest } else { source };
        let is_found = self.again && self.seen == self.within;
        match sectors / block {
            0 => None,
            1 if is_found => None,
            _ => Some(self.within.start..first_half(&self.within, block)),
        }
    }

    /// Whether it, or a part of it, failed by itself.
    pub(crate) fn has_failed_again(&self) -> bool {
        self.again
    }

    /// That range could not be read.
    pub(crate) fn failed(&mut self, range: &Range<u64>, errno: i32) {
        *self = Self { again: true, piece: self.piece, ..Self::new(range.clone(), errno) };
    }

    /// That range could be read. Where nothing is left then, the error did not last.
    pub(crate) fn was_read(&mut self, range: &Range<u64>) {
        self.within.start = range.end;
    }
}
