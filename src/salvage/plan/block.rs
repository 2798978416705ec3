//! A block of a destination that is coarser than the source's, put together from what of it can be read. Pure.
//!
//! 1. Its parts, each a logical block of the source, are read one by one into the scratch block. A part that cannot be read
//!    becomes zeros there.
//! 2. The scratch block is written to all destinations that are to have zeros for the parts that are bad.
//! 3. For each other destination its own block is read into the scratch block, the good parts are read over it, and it is
//!    written: there the bad parts keep what they had. Those are all destinations with `on_read_error=skip`, and such as have
//!    got their zeros by an earlier run of the job, and may have got something better since.
//!
//! A comparison does as in 3, and compares the scratch block with the destination's: what is bad has nothing to be compared with.

use std::ops::Range;

use super::super::step::{Scratch, Step};
use crate::dm_io::ErrorBits;
use crate::figures::{Progress, RangeSet};

/// The work on one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Block {
    range: Range<u64>,
    /// Sectors in a part.
    part: u64,
    /// Zeros are written for a part that is bad, where they have not been before.
    fills: bool,
    bad: RangeSet,
    stage: Stage,
    /// Destinations that are compared, and not written.
    compares: Option<ErrorBits>,
    /// Destinations that have been dealt with.
    settled: ErrorBits,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The part from that sector on is read.
    Read(u64),
    /// It is to be seen who needs what.
    Choose,
    /// Those are written to, with zeros for what is bad.
    Put(ErrorBits),
    /// Its block is read.
    Fetch(usize),
    /// A part is read over its block.
    Merge(usize, u64),
    /// The merged block is written to it, or compared with it.
    PutOne(usize),
}

/// What a piece of the work on a block comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Event {
    /// Nothing to be told.
    Nothing,
    /// A part cannot be read, for good.
    Unreadable(Range<u64>, i32),
    /// Those destinations were written to.
    Written(ErrorBits),
}

impl Block {
    /// A block whose parts are to be read.
    pub(super) fn new(range: Range<u64>, part: u64, fills: bool) -> Self {
        let stage = Stage::Read(range.start);
        Self { range, part, fills, bad: RangeSet::new(), stage, compares: None, settled: ErrorBits::NONE, tries: 0 }
    }

    /// A block that is compared with those destinations, but for what is known to be bad.
    pub(in crate::salvage) fn compared(range: Range<u64>, part: u64, bad: RangeSet, dests: ErrorBits) -> Self {
        Self { bad, stage: Stage::Choose, compares: Some(dests), ..Self::new(range, part, false) }
    }

    pub(in super::super) fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Whether parts of it have not been read again yet.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.stage, Stage::Read(_))
    }

    fn part_at(&self, sector: u64) -> Range<u64> {
        sector..sector + self.part
    }

    /// The next step of the work; `None` when it is done.
    pub(in super::super) fn next(&mut self, progress: &Progress, scratch: &Scratch) -> Option<Step> {
        let (range, scratch) = (self.range.clone(), scratch.clone());
        loop {
            self.stage = match self.stage {
                Stage::Read(at) if at == self.range.end => Stage::Choose,
                Stage::Read(at) => return Some(Step::Gather { range: self.part_at(at), scratch, zeros: true }),
                Stage::Choose => self.choose(progress)?,
                Stage::Put(dests) => return Some(Step::Put { range, dests, scratch }),
                Stage::Fetch(dest) => return Some(Step::Fetch { range, dest, scratch }),
                Stage::Merge(dest, at) if at == self.range.end => Stage::PutOne(dest),
                Stage::Merge(dest, at) if self.keeps(progress, dest).contains(&self.part_at(at)) => {
                    Stage::Merge(dest, at + self.part)
                }
                Stage::Merge(_, at) => {
                    return Some(Step::Gather { range: self.part_at(at), scratch, zeros: self.fills });
                }
                Stage::PutOne(dest) if self.compares.is_some() => return Some(Step::Check { range, dest, scratch }),
                Stage::PutOne(dest) => {
                    let dests = ErrorBits::from_bits(1 << dest);
                    return Some(Step::Put { range, dests, scratch });
                }
            };
        }
    }

    /// The bad parts that a destination keeps as they are.
    fn keeps(&self, progress: &Progress, dest: usize) -> RangeSet {
        if self.fills { self.bad.intersection(progress.dests[dest].zeroed()) } else { self.bad.clone() }
    }

    /// Whose turn it is: first those that can be written to together.
    fn choose(&self, progress: &Progress) -> Option<Stage> {
        if let Some(dests) = self.compares {
            return dests.without(self.settled).iter().next().map(Stage::Fetch);
        }
        let (mut together, mut alone) = (ErrorBits::NONE, None);
        for index in progress.present().without(self.settled).iter() {
            let dest = &progress.dests[index];
            let keeps = self.keeps(progress, index);
            let has = dest.taken.union(&keeps).union(dest.lost());
            if has.contains(&self.range) {
                continue;
            }
            if keeps.is_empty() {
                together.set(index);
            } else {
                alone = alone.or(Some(index));
            }
        }
        if together.is_empty() { alone.map(Stage::Fetch) } else { Some(Stage::Put(together)) }
    }

    /// What of it is good.
    pub(in super::super) fn good(&self) -> RangeSet {
        self.bad.gaps(self.range.clone())
    }

    /// What of it is zeros on a destination that was just written to.
    pub(super) fn zeros(&self) -> RangeSet {
        if self.fills { self.bad.clone() } else { RangeSet::new() }
    }

    /// The source could not be read there, or a destination's own block.
    pub(in super::super) fn read_failed(&mut self, errno: i32, retries: u32) -> Event {
        if self.tries < retries {
            self.tries += 1;
            return Event::Nothing;
        }
        self.tries = 0;
        match self.stage {
            Stage::Read(at) => {
                let part = self.part_at(at);
                self.bad.insert(part.clone());
                self.stage = Stage::Read(part.end);
                Event::Unreadable(part, errno)
            }
            Stage::Merge(dest, at) => {
                let part = self.part_at(at);
                self.stage = Stage::Merge(dest, part.end);
                if self.bad.contains(&part) {
                    return Event::Nothing;
                }
                // It was good a moment ago.
                self.bad.insert(part.clone());
                Event::Unreadable(part, errno)
            }
            _ => Event::Nothing,
        }
    }

    /// A step of the work has succeeded; a write, on those destinations. Others of them failed, and are tried again or not.
    pub(in super::super) fn succeeded(&mut self, written: ErrorBits) -> Event {
        match self.stage {
            Stage::Read(at) => {
                self.tries = 0;
                self.stage = Stage::Read(at + self.part);
                Event::Nothing
            }
            Stage::Fetch(dest) => {
                self.stage = Stage::Merge(dest, self.range.start);
                Event::Nothing
            }
            Stage::Merge(dest, at) => {
                self.tries = 0;
                self.stage = Stage::Merge(dest, at + self.part);
                Event::Nothing
            }
            Stage::Put(_) | Stage::PutOne(_) => {
                self.settled = self.settled.union(written);
                Event::Written(written)
            }
            Stage::Choose => Event::Nothing,
        }
    }

    /// After a write: destinations that failed and are tried again. With none of them it is the turn of others.
    pub(in super::super) fn again(&mut self, failed: ErrorBits, retries: u32) -> bool {
        let tries_again = !failed.is_empty() && self.tries < retries;
        match self.stage {
            _ if !tries_again => {
                self.settled = self.settled.union(failed);
                (self.tries, self.stage) = (0, Stage::Choose);
            }
            Stage::Put(_) => (self.tries, self.stage) = (self.tries + 1, Stage::Put(failed)),
            _ => self.tries += 1,
        }
        tries_again
    }

    /// Its own block could not be read: it is that destination's error.
    pub(in super::super) fn fetched_from(&self) -> Option<usize> {
        match self.stage {
            Stage::Fetch(dest) => Some(dest),
            _ => None,
        }
    }
}
