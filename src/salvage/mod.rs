//! What a job does next, from its figures, and what a piece that has ended means for it. Pure.
//!
//! ```text
//! Salvage::next ─> Step ─> request() ─> kcopyd
//!      ^                                  │
//!      └── figures <── Salvage::piece <───┘  a piece has ended
//! ```
//!
//! # Protocol of the digest
//! 1. Whoever has the [`Hashing`](crate::figures::Hashing) says with [`Salvage::next`] how far it has come.
//! 2. [`Step::HashZeros`] is no I/O, and at most [`HASH_SLICE`] sectors: it sees zeros for that range, and the next step is
//!    asked for. What is hashed so, before anything behind it, could not be read, or is a hole.
//! 3. While any other step runs, the engine's observer shows it the data, in order; but for [`Step::Probe`], whose data comes
//!    again.
//! 4. A step of a comparison, or of an ordered copy, ends at what cannot be read; that is cleared up before the data behind it.

mod bisect;
mod holes;
mod left;
mod plan;
mod recheck;
mod step;

use std::ops::Range;

use self::holes::Part;
use self::left::Left;
use self::plan::{Block, Event, Plan, is_gone};
use self::recheck::{Recheck, Whose};
pub(crate) use self::step::{Step, request};
use crate::dm_io::ErrorBits;
use crate::figures::{Dest, Progress, RangeSet};
use crate::kcopyd::{Flags, Piece};
use crate::spec::{Action, OnReadError, Spec};

/// Sectors that are hashed as zeros in one go, 16 MiB: some 15 ms of SHA-256.
pub(crate) const HASH_SLICE: u64 = 32_768;

/// What a job is doing of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Copies, or writes zeros.
    Copy,
    /// Reads back and compares.
    Verify,
}

impl Phase {
    /// The phase in which a job begins.
    pub(crate) fn first_of(spec: &Spec) -> Self {
        if spec.action == Action::Verify { Self::Verify } else { Self::Copy }
    }
}

/// What a job's last step was for, as `phase` in status says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The bulk: what has not failed.
    Copy,
    /// What failed is tried again, as it is.
    Retry,
    /// What failed is bisected.
    Scrape,
    /// Zeros are written for what cannot be read.
    Zero,
    /// Destinations are read back and compared.
    Verify,
}

impl Activity {
    /// The word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Retry => "retry",
            Self::Scrape => "scrape",
            Self::Zero => "zero",
            Self::Verify => "verify",
        }
    }
}

/// What salvage must know of a job's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Sectors in the source's logical block; 1 without a source.
    pub(crate) source_block: u64,
    /// Sectors in the coarsest logical block of the destinations.
    pub(crate) dest_block: u64,
    /// A destination is zoned: it takes writes in ascending order only.
    pub(crate) sequential: bool,
    /// The source is a file, which may have holes.
    pub(crate) has_holes: bool,
}

impl Geometry {
    pub(crate) fn coarsest(self) -> u64 {
        self.source_block.max(self.dest_block)
    }
}

impl Default for Geometry {
    fn default() -> Self {
        Self { source_block: 1, dest_block: 1, sequential: false, has_holes: false }
    }
}

/// Why a job cannot do what its spec says on its devices, in a line for whoever wrote it.
/// And the word that it is about.
pub(crate) fn objection(spec: &Spec, geometry: Geometry) -> Option<(&'static str, &'static str)> {
    if geometry.sequential && spec.on_read_error == OnReadError::Skip {
        let what = "on_read_error=skip leaves holes, and a zoned destination is written in order, without any: \
                    use on_read_error=zero";
        return Some(("on_read_error", what));
    }
    let what = "a zoned destination is written from empty zones on, so nothing there can be kept: drop changed";
    (geometry.sequential && spec.changed).then_some(("changed", what))
}

/// What to do about a job that has failed, where more than `retry` helps.
pub(crate) fn remedy(spec: &Spec, progress: &Progress) -> Option<&'static str> {
    let stops = spec.action == Action::Copy && spec.on_read_error == OnReadError::Stop && !spec.ignore_error;
    let unread = progress.bad.iter().find(|range| range.dest.is_none())?;
    (stops && progress.read_err && !is_gone(unread.errno))
        .then_some("`retry on_read_error=zero` (or skip), written to control, saves the rest")
}

/// What the engine is told because of a piece that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// Destinations that take no part any more.
    pub(crate) give_up: ErrorBits,
    /// The step ends.
    pub(crate) cancel: bool,
    /// The source's digest cannot be made any more.
    pub(crate) digest_lost: bool,
}

/// What a job works with from its first step to its end. What it holds follows from the figures.
#[derive(Debug)]
pub(crate) struct Salvage {
    plan: Plan,
    in_order: bool,
    /// What has been compared.
    compared: RangeSet,
    /// Pieces that were different or could not be read, to be narrowed down.
    recheck: Recheck,
    /// A block that is being compared in parts.
    block: Option<Box<Block>>,
}

impl Salvage {
    /// For a job on such devices.
    pub(crate) fn new(spec: &Spec, geometry: Geometry) -> Self {
        let plan = Plan::new(spec, geometry);
        let (compared, recheck) = (RangeSet::new(), Recheck::default());
        Self { plan, in_order: geometry.sequential, compared, recheck, block: None }
    }

    /// Whether the job ends for what happened.
    pub(crate) fn is_fatal(&self) -> bool {
        self.plan.fatal
    }

    /// What the last step was for.
    pub(crate) fn activity(&self) -> Activity {
        self.plan.activity
    }

    /// What failed and is looked at again.
    pub(crate) fn suspect(&self) -> RangeSet {
        self.plan.suspect()
    }

    /// The sector of a step at which a destination is at work: the first that it lacks, or that is not compared with it.
    pub(crate) fn place(&self, step: &Step, index: usize, dest: &Dest) -> Option<u64> {
        let range = step.range();
        let done = match step {
            Step::Copy { dests, .. } | Step::Zero { dests, .. } | Step::Put { dests, .. } if dests.contains(index) => {
                &dest.taken
            }
            Step::Compare { dests, .. } if dests.contains(index) => &self.compared,
            Step::Fetch { dest, .. } | Step::Check { dest, .. } if *dest == index => return Some(range.start),
            Step::Probe { .. } | Step::Gather { .. } | Step::Show { .. } => return Some(range.start),
            _ => return None,
        };
        let first = done.first_from(range.start).filter(|part| part.start <= range.start);
        Some(first.map_or(range.start, |part| part.end)).filter(|place| *place < range.end)
    }

    /// The next step of the work; `None` when this phase is over. `hashed` is up to where the source has been hashed, where
    /// there is a digest to be made.
    pub(crate) fn next(
        &mut self,
        spec: &Spec,
        phase: Phase,
        progress: &mut Progress,
        hashed: Option<u64>,
    ) -> Option<Step> {
        if self.in_order {
            progress.set_in_order();
        }
        let step = match phase {
            Phase::Copy => self.next_copy(spec, progress, hashed),
            Phase::Verify => self.next_compare(progress, hashed),
        };
        progress.suspect_bytes = self.plan.suspect_bytes();
        step
    }

    fn next_copy(&mut self, spec: &Spec, progress: &mut Progress, hashed: Option<u64>) -> Option<Step> {
        let step = self.plan.next(spec, progress);
        if matches!(step, Some(Step::Probe { .. })) || self.plan.fatal || progress.present().is_empty() {
            return step;
        }
        // What lies before the step was copied by an earlier run of the daemon, or could not be read.
        let due = step.as_ref().map_or(progress.total, |step| step.range().start);
        let first = hashed.and_then(|at| self.catch_up(at, due, progress));
        if first.is_some() {
            self.plan.put_back();
        }
        first.or(step)
    }

    fn next_compare(&mut self, progress: &mut Progress, hashed: Option<u64>) -> Option<Step> {
        self.plan.activity = Activity::Verify;
        if self.plan.fatal || progress.compared().is_empty() && !progress.dests.is_empty() {
            return None;
        }
        if self.compared.is_empty() {
            // What no destination of a test could take need not be read back.
            self.compared = progress.lost_everywhere();
        }
        if let Some(block) = &mut self.block {
            let scratch = self.plan.scratch(progress)?;
            let step = block.next(progress, &scratch);
            if step.is_some() {
                return step;
            }
            self.compared.insert(block.range().clone());
            progress.verified = self.compared.bytes();
            self.block = None;
        }
        let bulk = Left::first(&self.plan, progress, &self.compared);
        let bulk_start = bulk.as_ref().map_or(progress.total, Left::start);
        let recheck = self.recheck.first().filter(|start| hashed.is_none() || *start <= bulk_start);
        let due = recheck.unwrap_or(bulk_start);
        if let Some(step) = hashed.and_then(|at| self.catch_up(at, due, progress)) {
            return Some(step);
        }
        if recheck.is_some() {
            let range = self.recheck.next()?;
            return Some(Step::Compare { range, dests: progress.compared() });
        }
        match bulk? {
            Left::Whole(range) => Some(Step::Compare { range, dests: progress.compared() }),
            Left::Part(block) => {
                self.block = Some(Box::new(block));
                self.next_compare(progress, hashed)
            }
        }
    }

    /// A step in the comparison of a block has ended.
    fn block_piece(&mut self, spec: &Spec, step: &Step, piece: &Piece<'_>, progress: &mut Progress) {
        let Some(block) = &mut self.block else { return };
        let (range, fetched_from) = (block.range().clone(), block.fetched_from());
        match (step, piece.read_error, fetched_from) {
            (Step::Check { dest, .. }, None, _) => {
                let one = ErrorBits::from_bits(1 << dest);
                if piece.written.contains(*dest) {
                    progress.regained_parts(&block.good(), one, spec.action == Action::Verify);
                }
                if piece.different.contains(*dest) {
                    block.good().iter().for_each(|range| progress.differs(spec, *dest, &range, None));
                }
                for (index, errno) in piece.write_errors {
                    progress.verify_failed(spec, *index, &range, *errno);
                }
                block.again(one, 0);
            }
            (_, Some(errno), Some(dest)) => {
                if !block.again(ErrorBits::from_bits(1 << dest), spec.retries) {
                    progress.verify_failed(spec, dest, &range, errno);
                }
            }
            (_, Some(errno), None) => {
                if let Event::Unreadable(range, errno) = block.read_failed(errno, spec.retries) {
                    progress.unreadable(spec, &range, errno);
                }
            }
            (_, None, _) => _ = block.succeeded(piece.written),
        }
    }

    /// What the digest must see before a step that begins at `due`.
    fn catch_up(&mut self, at: u64, mut due: u64, progress: &mut Progress) -> Option<Step> {
        if at >= due {
            return None;
        }
        if progress.unreadable.end_at(at).is_none() {
            match self.plan.holes.as_ref().map(|holes| holes.first(&(at..due))) {
                Some(Part::Unknown(range)) => return Some(Step::FindHoles { range }),
                Some(Part::Hole(range)) => {
                    return Some(Step::HashZeros { range: at..range.end.min(at + HASH_SLICE) });
                }
                Some(Part::Data(range)) => due = range.end,
                None => {}
            }
        }
        let block = self.plan.block();
        let unreadable = progress.unreadable.first_from(at);
        match unreadable {
            Some(range) if range.start <= at => {
                Some(Step::HashZeros { range: at..range.end.min(due).min(at + HASH_SLICE) })
            }
            next => {
                let end = due.min(next.map_or(due, |range| range.start));
                let (first, last) = (at.next_multiple_of(block), end / block * block);
                if first == at && last > at {
                    return Some(Step::Show { range: at..last, scratch: None });
                }
                let scratch = self.plan.scratch(progress)?;
                let range = at..end.min((at / block + 1) * block);
                Some(Step::Show { range, scratch: Some(scratch) })
            }
        }
    }

    /// A piece of a step has ended. `gone` are destinations that are files and were taken away, and why.
    pub(crate) fn piece(
        &mut self,
        spec: &Spec,
        phase: Phase,
        step: &Step,
        piece: &Piece<'_>,
        gone: &[(usize, i32)],
        progress: &mut Progress,
    ) -> Reaction {
        let start = step.range().start + piece.offset.get();
        let range = start..start + piece.count.get();
        progress.read_errors += u64::from(piece.read_error.is_some() && !matches!(step, Step::Fetch { .. }));
        let reaction = match (phase, step) {
            (_, Step::Show { .. }) => {
                let digest_lost = piece.read_error.is_some();
                if digest_lost {
                    let what = || "no digest: what was copied before cannot be read again".to_owned();
                    progress.error.get_or_insert_with(what);
                }
                Reaction { digest_lost, ..Reaction::default() }
            }
            (Phase::Verify, Step::Gather { .. } | Step::Fetch { .. } | Step::Check { .. }) => {
                self.block_piece(spec, step, piece, progress);
                Reaction::default()
            }
            (Phase::Verify, _) => self.compared(spec, step, range, piece, progress),
            (Phase::Copy, _) => self.copied(spec, step, &range, piece, gone, progress),
        };
        progress.suspect_bytes = self.plan.suspect_bytes();
        reaction
    }

    fn copied(
        &mut self,
        spec: &Spec,
        step: &Step,
        range: &Range<u64>,
        piece: &Piece<'_>,
        gone: &[(usize, i32)],
        progress: &mut Progress,
    ) -> Reaction {
        let (was_fatal, before) = (self.plan.fatal, progress.live());
        self.plan.piece(spec, step, piece, progress);
        if let Step::Copy { dests, flags, .. } = step
            && flags.contains(Flags::ONLY_CHANGED)
        {
            progress.found_same(range, *dests, piece.same);
        }
        for (index, errno) in gone {
            self.plan.lost(spec, progress, *index, range, *errno);
        }
        let cancel = self.plan.fatal && !was_fatal && !step.ends_for(piece);
        let cancel = cancel || self.plan.goes_on_otherwise();
        Reaction { give_up: before.without(progress.live()), cancel, digest_lost: false }
    }

    fn compared(
        &mut self,
        spec: &Spec,
        step: &Step,
        range: Range<u64>,
        piece: &Piece<'_>,
        progress: &mut Progress,
    ) -> Reaction {
        let Self { plan, compared, recheck, .. } = self;
        if let Some(errno) = piece.read_error.filter(|errno| is_gone(*errno)) {
            let cancel = !plan.fatal;
            progress.read_failed(spec, &range, errno);
            plan.fatal = true;
            return Reaction { cancel, ..Reaction::default() };
        }
        if !piece.behind.is_empty() {
            // Some were not compared: what the others hold is looked at again with them.
            return Reaction::default();
        }
        compared.insert(range.clone());
        progress.verified = compared.bytes();
        let whose = match (piece.read_error, piece.write_errors) {
            (Some(_), _) => Some(Whose::Source),
            (None, []) => None,
            (None, _) => Some(Whose::Dest),
        };
        match whose {
            None => recheck.was_read(Whose::Dest),
            Some(whose) => {
                let alone = *step.range() == range;
                if recheck.failed(&range, whose, alone, plan.block(), spec.retries) {
                    return Reaction::default();
                }
            }
        }
        if let Some(errno) = piece.read_error {
            progress.unreadable(spec, &range, errno);
            return Reaction::default();
        }
        recheck.was_read(Whose::Source);
        if spec.action == Action::Verify {
            progress.found_equal(&range, piece.written);
        } else {
            progress.regained(&range, piece.written);
        }
        for (index, errno) in piece.write_errors {
            progress.verify_failed(spec, *index, &range, *errno);
        }
        let different = progress.without_lost(piece.different, &range);
        if plan.compared(&range, different) {
            recheck.halve(&range, plan.block());
            return Reaction::default();
        }
        for index in different.iter() {
            let displaced = piece.displaced.filter(|(dest, _)| *dest == index).map(|(_, number)| number);
            progress.differs(spec, index, &range, displaced);
        }
        Reaction::default()
    }

    /// The source was looked at for holes.
    pub(crate) fn holes_found(&mut self, known: Range<u64>, holes: &[Range<u64>], progress: &Progress) {
        self.plan.holes_found(known, holes, progress.total);
    }

    /// Those who kept up have all; it is the turn of others, who lack more.
    pub(crate) fn begin_again(&mut self) {
        self.compared = RangeSet::new();
        self.plan.begin_again();
    }

    /// A destination was given up by hand, and its device goes: what was being put together for it is put together anew.
    pub(crate) fn put_together_anew(&mut self) {
        self.block = None;
        self.plan.put_together_anew();
    }

    /// Destinations that are files were taken away: all that they had is lost.
    pub(crate) fn vanished(&mut self, spec: &Spec, gone: &[(usize, i32)], progress: &mut Progress) {
        let all = 0..progress.total;
        for (index, errno) in gone {
            self.plan.lost(spec, progress, *index, &all, *errno);
        }
    }

    /// Those flushes failed. Returns the destinations that are given up for it.
    pub(crate) fn flush_failed(&mut self, spec: &Spec, failed: &[(usize, i32)], progress: &mut Progress) -> ErrorBits {
        let lost = progress.flush_failed(spec, failed);
        self.plan.flush_failed(lost);
        lost
    }
}

#[cfg(test)]
mod many;
#[cfg(test)]
mod tests;
